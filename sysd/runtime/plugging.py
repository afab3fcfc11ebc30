# SPDX-License-Identifier: Apache-2.0
"""Changing the devices of a guest that runs; the work is done by a process of its own (sysd/_cext/launch/plug.c)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sysd.runtime import reaching
from sysd.runtime.guest import ContainerGuest
from sysd.runtime.spec import Share

PLUG = "/usr/libexec/syscont/plug"


@dataclass(frozen=True, slots=True)
class Change:
    """Links first, then what is removed, then what is added."""

    remove: Sequence[Share] = ()
    add: Sequence[Share] = ()
    links: Sequence[tuple[str, str]] = ()

    @property
    def empty(self) -> bool:
        return not (self.remove or self.add or self.links)


async def plug(guest: ContainerGuest, change: Change) -> None:
    """Make the change. Raises FailedError when it, or the rest of it, could not be made."""
    if change.empty:
        return
    held = {"id_base": guest.confinement.root, "privileged": guest.confinement.privileged}
    task = json.dumps({**asdict(change), **held, "leader": guest.leader})
    late, failed = "the guest's own file systems do not answer", "the devices could not be changed"
    await reaching.run([PLUG], guest.pidfd, task.encode(), late=late, failed=failed)
