# SPDX-License-Identifier: Apache-2.0
"""The key by which the host is let into its virtual machines."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import subprocess
from pathlib import Path

from sysd.model.errors import FailedError
from sysd.units.answers import clean
from sysd.units.helper import see_through

FOLDER = Path("/var/lib/syscont/ssh")
NAME = "id_ed25519"
GROUP = "syscont-ssh"
"""Of the user that ssh runs as."""


async def host_key() -> str:
    """The public part, a line of authorized_keys; made with the private one at the first call."""
    public = FOLDER / f"{NAME}.pub"
    if not public.exists():
        await see_through(_make())
    return public.read_text().strip()


async def _make() -> None:
    """The public part comes last: where it is, the other is too."""
    group = group_id()
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    os.chown(FOLDER, 0, group)
    os.chmod(FOLDER, 0o710)  # whatever our umask is
    draft = FOLDER / f"draft-{os.urandom(4).hex()}"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "syscont", "-f", str(draft)]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, errors = await process.communicate()
        if process.returncode:
            raise FailedError(f"no key can be made: {clean(errors.decode(errors='replace'))}")
        # ssh takes no key that is its user's own and others can read.
        os.chmod(draft, 0o640 if group else 0o600)
        os.chown(draft, 0, group)
        os.rename(draft, FOLDER / NAME)
        os.rename(f"{draft}.pub", FOLDER / f"{NAME}.pub")
    except FileNotFoundError:
        raise FailedError("no key can be made: there is no ssh-keygen", "it is of openssh-client") from None
    finally:
        for left in (draft, Path(f"{draft}.pub")):
            with contextlib.suppress(FileNotFoundError):
                left.unlink()


def group_id() -> int:
    """Root's where systemd-sysusers has not been."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return 0
