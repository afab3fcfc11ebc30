# SPDX-License-Identifier: Apache-2.0
"""What the harness needs from Debian: programs on the machine, and the way to its mirror."""

import os
import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from .cache import cache_dir, locked
from .command import HostError, machine
from .say import step

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_QUIET = ("-qq", "-o", "DPkg::Lock::Timeout=600", "-o", "Dpkg::Use-Pty=0")


@cache
def codename() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


@cache
def _sources() -> tuple[tuple[str, str, str], ...]:
    """The machine's own (address, suite, component), in the order of its lists."""
    text = machine(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    )  # fmt: skip
    lines = (line.split() for line in text.splitlines())
    return tuple(dict.fromkeys((p[0], p[1], p[2]) for p in lines if len(p) == 3))


@cache
def mirror() -> str:
    for uri, suite, component in _sources():
        if suite == codename() and component == "main":
            return uri.rstrip("/")
    raise HostError("no apt source of this machine serves its own Debian release")


@cache
def settings() -> str:
    """The machine's apt settings on proxies and clocks, as a file for a host's apt.conf.d."""
    wanted = ("Acquire::Check-", "Acquire::http::Proxy ", "Acquire::https::Proxy ")
    lines = machine("apt-config", "dump").splitlines()
    return "".join(f"{line}\n" for line in lines if line.startswith(wanted))


def private_lists(suite: str, lines: Sequence[str]) -> list[str]:
    """apt options that read these sources only, and leave the machine's own lists alone."""
    home = cache_dir("apt") / suite
    (home / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    text = "".join(f"{line.replace(' ', ' ' + signed, 1)}\n" for line in lines)
    (home / "sources.list").write_text(text)
    options = []
    for option in (
        f"Dir::Etc::sourcelist={home}/sources.list",
        "Dir::Etc::sourceparts=-",
        f"Dir::State::lists={home}/lists",
        "APT::Get::List-Cleanup=0",
    ):
        options += ["-o", option]
    return options


def apt_get(*argv: str, cwd: Path | None = None) -> None:
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", *_QUIET, *argv], check=True, env=env, cwd=cwd, stdout=2)


def _missing(packages: Sequence[str]) -> list[str]:
    shown = "${Package} ${db:Status-Status}\n"
    have = machine("dpkg-query", "-W", "-f", shown, *packages, check=False).splitlines()
    return [name for name in packages if f"{name} installed" not in have]


def ensure(*packages: str) -> None:
    """Have these packages on the machine."""
    if not _missing(packages):
        return
    with locked(cache_dir("apt") / ".lock"):
        missing = _missing(packages)
        if missing:
            with step(f"installing {' '.join(missing)}"):
                apt_get("update")
                apt_get("install", "-y", "--no-install-recommends", *missing)
