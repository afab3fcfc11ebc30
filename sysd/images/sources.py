# SPDX-License-Identifier: Apache-2.0
"""What `syscont image build` can build: each source is a command that writes a root file system's tar to stdout."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sysd.images import apt, busybox, debian, debian_vm, tools
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


def parse_source(text: str, *, vm: bool = False) -> Source:
    """The builder called text, vm: of a virtual machine's image; raises InvalidError for an unknown one,
    UnsupportedError when a program is missing."""
    name, slash, rest = text.partition("/")
    builder = (_VM_BUILDERS if vm else _BUILDERS).get(name)
    if builder is None and name in _BUILDERS:
        raise InvalidError(f"can't make a virtual machine of {name}: it has no kernel", "debian/SUITE has one")
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
    found = _check_suite(text, suite)
    return Source(
        name=f"debian/{found}",
        argv=tuple(debian.argv(found, apt.debian_lines(found))),
        env=debian.environment() | apt.proxies(),
        facts=_facts("Debian", found),
    )


def _debian_vm(text: str, suite: str | None) -> Source:
    found = _check_suite(text, suite)
    tools.need(tools.DISK_MAKERS)
    return Source(
        name=f"debian/{found}/vm",
        argv=tuple(debian_vm.argv(found, apt.debian_lines(found))),
        env=debian.environment() | apt.proxies(),
        facts=_facts("Debian", found),
    )


def _check_suite(text: str, suite: str | None) -> str:
    if suite is None or not _SUITE.fullmatch(suite):
        raise InvalidError(f"{text[:80]!r} names no Debian suite", "lower-case letters only, such as debian/trixie")
    if shutil.which("mmdebstrap") is None:
        raise UnsupportedError("can't build Debian images: the program mmdebstrap is missing", "apt install mmdebstrap")
    return suite


def _facts(system: str, release: str) -> dict[str, Any]:
    architecture = host_architecture()
    description = f"{system} {release} ({architecture})"
    properties = {"os": system, "release": release, "architecture": architecture, "description": description}
    return {"architecture": architecture, "description": description, "properties": properties}


_BUILDERS: dict[str, Callable[[str, str | None], Source]] = {"busybox": _busybox, "debian": _debian}
_VM_BUILDERS: dict[str, Callable[[str, str | None], Source]] = {"debian": _debian_vm}
