# SPDX-License-Identifier: Apache-2.0
"""Names: what may be called what, and how a name is written on a bus path or in a unit name."""

from __future__ import annotations

import re

from sysd.model.errors import InvalidError

DEFAULT_PROJECT = "default"

_INSTANCE = re.compile(r"[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*)*", re.ASCII)
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PATH_SAFE = re.compile(r"[A-Za-z0-9]", re.ASCII)

_KEYWORD = "dnsmasq takes it for a keyword"
_LOOPBACK = "it stands for the loopback addresses"
_SOUGHT = "programs look for servers of that name and trust them"
# What beside links there is in /proc/sys/net/ipv4/conf, and a link that is always there.
_NO_LINKS = frozenset({"all", "default", "lo"})
# One more entry in a guest's /etc/hosts, in dnsmasq's file of hosts or in DNS must not mean something else there.
_RESERVED = {
    "ignore": _KEYWORD,
    "infinite": _KEYWORD,
    "localhost": _LOOPBACK,
    "localdomain": _LOOPBACK,
    "ip6-localhost": _LOOPBACK,
    "ip6-loopback": _LOOPBACK,
    "ip6-allnodes": "it stands for a multicast address",
    "ip6-allrouters": "it stands for a multicast address",
    "broadcasthost": "it stands for the broadcast address",
    "gateway": "resolvers take it for the default route's router",
    "isatap": _SOUGHT,
    "wpad": _SOUGHT,
}


def check_instance_name(name: str) -> str:
    """Return name if it is a host name label (RFC 1123) that starts with a letter and means nothing else in DNS.

    Raises InvalidError.
    """
    if not _INSTANCE.fullmatch(name):
        raise InvalidError(
            f"invalid instance name {name!r}",
            "1 to 63 letters, digits and hyphens, starting with a letter, not ending with a hyphen",
        )
    if reason := _RESERVED.get(name.lower()):
        raise InvalidError(f"an instance can't be named {name!r}", reason)
    return name


def same_host(one: str, other: str) -> bool:
    """Whether two instance names are one name in DNS, which does not tell capitals from small letters (RFC 4343)."""
    return one.lower() == other.lower()


def check_project_name(name: str) -> str:
    if not _PROJECT.fullmatch(name):
        raise InvalidError(f"invalid project name {name!r}", "1 to 63 letters, digits, '-', '_' and '.'")
    return name


def check_alias(name: str) -> str:
    """Image alias, such as ``debian/trixie``; one that reads as a fingerprint would be ambiguous."""
    if len(name) > 128 or not _ALIAS.fullmatch(name):
        raise InvalidError(
            f"invalid image alias {name!r}",
            "parts of letters, digits, '.', '_', '+' and '-' with '/' between them, at most 128 characters",
        )
    if _FINGERPRINT.fullmatch(name):
        raise InvalidError(f"invalid image alias {name!r}", "it has the form of a fingerprint")
    return name


def check_network_name(name: str) -> str:
    """A network's name is also its bridge's, so it is a Linux interface name (at most 15 bytes)."""
    if name in _NO_LINKS:
        raise InvalidError(f"a network can't be named {name!r}", "the kernel has that name for something else")
    if not _INTERFACE.fullmatch(name):
        raise InvalidError(
            f"invalid network name {name!r}",
            "1 to 15 letters, digits, '-', '_' and '.', starting with a letter",
        )
    return name


def check_interface_name(name: str) -> str:
    """Name of a network interface in a guest (at most 15 bytes)."""
    if not _INTERFACE.fullmatch(name):
        raise InvalidError(
            f"invalid interface name {name!r}",
            "1 to 15 letters, digits, '-', '_' and '.', starting with a letter",
        )
    return name


def check_profile_name(name: str) -> str:
    if not _PROJECT.fullmatch(name):
        raise InvalidError(f"invalid profile name {name!r}", "1 to 63 letters, digits, '-', '_' and '.'")
    return name


def check_snapshot_name(name: str) -> str:
    if not _PROJECT.fullmatch(name):
        raise InvalidError(f"invalid snapshot name {name!r}", "1 to 63 letters, digits, '-', '_' and '.'")
    return name


def is_fingerprint(text: str) -> bool:
    return _FINGERPRINT.fullmatch(text) is not None


def path_encode(name: str) -> str:
    """Escape a name for an object path element as sd_bus_path_encode(3) does."""
    if not name:
        return "_"
    out = [c if _PATH_SAFE.fullmatch(c) else "".join(f"_{b:02x}" for b in c.encode()) for c in name]
    if name[0] in "0123456789":
        out[0] = f"_{ord(name[0]):02x}"
    return "".join(out)


def path_decode(element: str) -> str | None:
    """Undo path_encode; None when element is not an encoded name."""
    if element == "_":
        return ""
    try:
        return re.sub(rb"_([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), element.encode()).decode()
    except UnicodeDecodeError:
        return None


def qualified(project: str, name: str) -> str:
    """``web1`` in the default project, ``lab:web1`` in project lab: the instance part of its unit name."""
    return name if project == DEFAULT_PROJECT else f"{project}:{name}"


def split(reference: str) -> tuple[str, str]:
    """(project, name) that a qualified name stands for; nothing is checked."""
    project, colon, name = reference.rpartition(":")
    return (project if colon else DEFAULT_PROJECT, name)


def split_new(reference: str) -> tuple[str, str]:
    """(project, name) for an instance to be made or renamed; raises InvalidError when one of them can't be."""
    project, name = split(reference)
    return check_project_name(project), check_instance_name(name)


def unit_name(project: str, name: str) -> str:
    return f"syscont@{qualified(project, name)}.service"


def from_unit_name(unit: str) -> tuple[str, str] | None:
    """(project, name) of an instance's unit, or None when the unit is not an instance's."""
    if not (unit.startswith("syscont@") and unit.endswith(".service")):
        return None
    return split(unit[len("syscont@") : -len(".service")])
