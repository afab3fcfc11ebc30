# SPDX-License-Identifier: Apache-2.0
"""What `syscont image build` can build: each source is a command that writes a root file system's tar to stdout."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sysd.images import apt, busybox, debian
from sysd.images.metadata import host_architecture
from sysd.model.errors import InvalidError, UnsupportedError

_SUITE = re.compile(r"[a-z]{1,32}", re.ASCII)
_HINT = "there are: busybox, debian/SUITE (such as debian/trixie)"


@dataclass(frozen=True, slots=True)
class Source:
    """A builder: run argv with env added to a plain environment, feed its output to the worker together with facts."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def parse_source(text: str) -> Source:
    """The builder called text; raises InvalidError for an unknown one, UnsupportedError when a program is missing."""
    name, slash, rest = text.partition("/")
    builder = _BUILDERS.get(name)
    if builder is None:
        raise InvalidError(f"there is no image source {text[:80]!r}", _HINT)
    return builder(text, rest if slash else None)


def _busybox(text: str, rest: str | None) -> Source:
    if rest is not None:
        raise InvalidError(f"there is no image source {text[:80]!r}", _HINT)
    busybox.find_busybox()
    return Source(
        name="busybox",
        argv=(sys.executable, "-I", "-m", "sysd.images.busybox"),
        facts=_facts("BusyBox", "current"),
    )


def _debian(text: str, suite: str | None) -> Source:
    if suite is None or not _SUITE.fullmatch(suite):
        raise InvalidError(f"{text[:80]!r} names no Debian suite", "lower-case letters only, such as debian/trixie")
    if shutil.which("mmdebstrap") is None:
        raise UnsupportedError("can't build Debian images: the program mmdebstrap is missing", "apt install mmdebstrap")
    return Source(
        name=f"debian/{suite}",
        argv=tuple(debian.argv(suite, apt.debian_lines(suite))),
        env=debian.environment() | apt.proxies(),
        facts=_facts("Debian", suite),
    )


def _facts(system: str, release: str) -> dict[str, Any]:
    architecture = host_architecture()
    description = f"{system} {release} ({architecture})"
    properties = {"os": system, "release": release, "architecture": architecture, "description": description}
    return {"architecture": architecture, "description": description, "properties": properties}


_BUILDERS: dict[str, Callable[[str, str | None], Source]] = {"busybox": _busybox, "debian": _debian}
