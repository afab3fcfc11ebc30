# SPDX-License-Identifier: Apache-2.0
"""Folders of the host, as the guest mounts them: its systemd by fstab(5) from a credential, or who is asked to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from sysd.model.errors import FailedError
from sysd.runtime.vm.agent import Agent
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.machine import MachineGuest
from sysd.units.answers import clean

log = logging.getLogger(__name__)

CREDENTIAL = "fstab.extra"
"""systemd.system-credentials(7)."""
AGAIN, TRIES, LIMIT = 0.5, 6, 10.0
"""Seconds between commands to the guest's agent, how many, and seconds for each."""


def table(parts: Mapping[str, Part]) -> bytes:
    """Of all folders, those above others first."""
    folders = [part for part in parts.values() if "path" in part.served]
    lines = [
        f"{part.device['tag']} {_word(part.served['path'])} virtiofs {options(part)},nofail 0 0\n"
        for part in sorted(folders, key=lambda part: part.served["path"].count("/"))
    ]
    return "".join(lines).encode()


def options(part: Part) -> str:
    return "ro" if "readonly" in part.served else "rw"


def _word(text: str) -> str:
    """As getmntent(3) reads it."""
    return "".join(f"\\{ord(c):03o}" if c in ' \t\n\\#"' + "'" else c for c in text)


async def enter(machine: MachineGuest, part: Part) -> None:
    """Have a folder that came mounted by the guest's agent, if there is one. The guest may need a moment to see it."""
    if "path" not in part.served:
        return
    path = part.served["path"]
    argv = ["mount", "--mkdir", "-t", "virtiofs", "-o", options(part), "--", part.device["tag"], path]
    try:
        agent, said = await machine.agent(), ""
        for _ in range(TRIES):
            if not (said := await _run(agent, argv)):
                return
            await asyncio.sleep(AGAIN)
    except FailedError as error:
        said = error.message
    log.warning("%s: %s is there, and not mounted: %s", machine.unit, part.device["tag"], said)


async def leave(machine: MachineGuest, part: Part) -> None:
    """Before one goes. A guest that still uses it finds errors there."""
    if "path" not in part.served:
        return
    try:
        said = await _run(await machine.agent(), ["umount", "--", part.served["path"]])
    except FailedError as error:
        said = error.message
    if said:
        log.info("%s: %s goes, and may still be mounted: %s", machine.unit, part.device["tag"], said)


async def _run(agent: Agent, argv: list[str]) -> str:
    """Why a command did not do its work."""
    outcome = await agent.execute(argv, timeout=LIMIT)
    return clean(outcome.errors.decode(errors="replace")) or "it failed" if outcome.status else ""
