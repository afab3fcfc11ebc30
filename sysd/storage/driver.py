# SPDX-License-Identifier: Apache-2.0
"""What a storage driver does for the manager.

An instance is an overlay: its image below, its own writable layer above. A snapshot is that layer as it once was.
Why a copy of the layer, and not the layer itself put below a fresh one: the overlay of a running guest can't be given
another layer, so snapshots of running instances would need copies anyway; a layer is what the guest has written, which
is little beside its image; and copies know nothing of each other, so restoring, deleting and renaming touch one folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

Cancelled = Callable[[], bool]
"""Asked now and then by what takes long, in its own thread."""


class Driver(Protocol):
    """Its methods block: they are called in threads."""

    name: str

    def clone(self, source: Path, target: Path, cancelled: Cancelled) -> None:
        """Make target, which is not there, the same tree as source, which nobody changes meanwhile.

        All that a layer may hold is kept: owners, modes, times, links, holes, overlayfs's own marks. Raises
        FailedError; what is there of target then is the caller's to remove.
        """

    def settle(self, target: Path) -> None:
        """Return when all of target is on disk, and the folders that lead to it."""
