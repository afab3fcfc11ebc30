# SPDX-License-Identifier: Apache-2.0
"""Which AppArmor profile is for whom. They come with the package (data/apparmor.d) and are loaded by AppArmor's own
service; a host without AppArmor, or without its tools, has none, and its guests are held by all else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from sysd.model.config import get_bool

log = logging.getLogger(__name__)

ENABLED = Path("/sys/module/apparmor/parameters/enabled")
LOADED = Path("/sys/kernel/security/apparmor/profiles")
"""A line each: the name, and its mode in parentheses."""


def parts(config: Mapping[str, str]) -> tuple[str, ...]:
    """What the profile for an instance with this expanded configuration is made of (abstractions/syscont)."""
    kind = "privileged" if get_bool(config, "security.privileged") else "container"
    return (kind, "nesting") if get_bool(config, "security.nesting") else (kind,)


def own_name(uuid: str) -> str:
    """Of the profile of an instance with rules of its own."""
    return f"syscont-{uuid}"


def available(uuid: str, config: Mapping[str, str]) -> str:
    """The profile for an instance, empty where the host has none to give."""
    if not is_enabled():
        return ""
    if config.get("raw.apparmor"):
        # Without it there is to be no start, and so the launcher finds out.
        return own_name(uuid)
    name = "-".join(("syscont", *parts(config)))
    if name in loaded():
        return name
    log.warning("AppArmor is on, but has no profile %s: 'systemctl reload apparmor' loads it", name)
    return ""


def is_enabled() -> bool:
    return _read(ENABLED).startswith("Y")


def loaded() -> frozenset[str]:
    return frozenset(line.rpartition(" (")[0] for line in _read(LOADED).splitlines())


def current(pid: int) -> str:
    """What a process is held by, with its mode: ``syscont-container (enforce)``; empty where there is no AppArmor, and
    of one that is gone."""
    return _read(Path(f"/proc/{pid}/attr/apparmor/current")).rstrip("\n\0") if pid else ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
