# SPDX-License-Identifier: Apache-2.0
"""Profiles of instances that have rules of their own (raw.apparmor): made of the same parts as those of the package,
compiled before a start, and kept by the kernel until the instance is stopped and changed, or deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from sysd.model.apparmor import check_rules
from sysd.model.errors import FailedError, UnsupportedError
from sysd.runtime.apparmor import profiles

PARSER = "/sbin/apparmor_parser"
REMOVE = Path("/sys/kernel/security/apparmor/.remove")
TIME_LIMIT = 60.0
"""Seconds. Rules with many patterns may take the parser minutes, and all memory."""


def text(uuid: str, config: Mapping[str, str]) -> str:
    """The profile of an instance with this expanded configuration."""
    rules = config["raw.apparmor"]
    # Whatever way they came by: what follows is only safe with what passes.
    check_rules(rules)
    lines = [
        "abi <abi/3.0>,",
        "include <tunables/global>",
        f"profile {profiles.own_name(uuid)} flags=(attach_disconnected,mediate_deleted) {{",
        *(f"include <abstractions/syscont/{part}>" for part in profiles.parts(config)),
        rules,
        "}\n",
    ]
    return "\n".join(lines)


async def load(uuid: str, config: Mapping[str, str]) -> None:
    """Have the kernel know the profile of an instance that has rules of its own."""
    if not config.get("raw.apparmor"):
        return
    if not profiles.is_enabled():
        raise UnsupportedError("raw.apparmor: this host has no AppArmor", "unset it to have the instance run without")
    status, said = await _compile(text(uuid, config).encode())
    if status:
        raise FailedError(f"raw.apparmor: AppArmor's parser does not take the rules: {said}")


def unload(uuid: str) -> None:
    """Of an instance that does not run, and that may have had none."""
    with contextlib.suppress(OSError):
        REMOVE.write_text(profiles.own_name(uuid))


async def _compile(profile: bytes) -> tuple[int, str]:
    """The parser's exit status and the last line that it says."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(PARSER, "--replace", "--skip-cache", "--quiet"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise UnsupportedError(f"raw.apparmor: there is no {PARSER}", "install the package apparmor") from None
    try:
        async with asyncio.timeout(TIME_LIMIT):
            _, errors = await process.communicate(profile)
    except TimeoutError:
        raise FailedError(f"raw.apparmor: to compile the rules takes more than {TIME_LIMIT:.0f} seconds") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = errors.decode(errors="replace").strip().splitlines()
    return process.returncode or 0, lines[-1] if lines else ""
