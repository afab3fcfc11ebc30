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

from sysd.model.sizes import Usage

Cancelled = Callable[[], bool]
"""Asked now and then by what takes long, in its own thread."""


class Driver(Protocol):
    """Its methods block: they are called in threads."""

    name: str

    def clone(self, source: Path, target: Path, cancelled: Cancelled, project: int = 0) -> None:
        """Make target, which is not there, the same tree as source, which nobody changes meanwhile. What is in it is
        counted for project (see sysd.storage.quota), unless that is 0.

        All that a layer may hold is kept: owners, modes, times, links, holes, overlayfs's own marks. Raises
        FailedError; what is there of target then is the caller's to remove.
        """

    def settle(self, target: Path) -> None:
        """Return when all of target is on disk, and the folders that lead to it."""

    def is_limited(self, pool: Path) -> bool:
        """Whether what projects take of a pool is counted, and can be limited."""

    def assign(self, folder: Path, project: int) -> None:
        """Have what will be in a folder, now empty, counted for a project. Raises OSError."""

    def project_of(self, folder: Path) -> int:
        """For which project what is in a folder is counted, 0 for none."""

    def usage(self, pool: Path, project: int) -> Usage:
        """Bytes that a project takes of a pool; most is 0 when it has no limit. Raises OSError."""

    def limit(self, pool: Path, project: int, size: int) -> None:
        """Let a project take so many bytes of a pool; 0 for no limit. Raises OSError."""
