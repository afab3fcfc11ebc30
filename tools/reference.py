# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference from the schemas: run it when a key or an option changes.

``PYTHONPATH=. /usr/bin/python3 tools/reference.py``
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sysd.model import network, project, server, zones
from sysd.model.config import KEYS
from sysd.model.devices.check import SCHEMAS
from sysd.model.schema import Key

FOLDER = Path(__file__).resolve().parent.parent / "docs/reference"
HEAD = "<!-- SPDX-License-Identifier: Apache-2.0. Made by tools/reference.py from sysd/model; do not edit. -->\n"

CONFIG = """# Configuration of instances

Keys and values are LXD's. They are set with `syscont config set NAME KEY=VALUE`, or in a profile, whose keys hold for
all instances that have it unless they say otherwise; `syscont config show --all NAME` prints what is in force, and
where it comes from. A key that is *live* takes effect at once, any other at the next start. A name that ends with `.*`
stands for a family of keys, whose members users name.
"""
DEVICES = """# Devices of instances

A device has a name, a type, and options that depend on its type. Options are LXD's. An option that is *live* can be
changed while the instance runs without taking the device away.
"""
PROJECTS = """# Configuration of projects

Keys and values are LXD's. They are set with `syscont project set NAME KEY=VALUE`. Limits hold for all instances of a
project together, restrictions for each of them with all that its profiles give it; a change of an instance, of a
profile or of the project that goes against them is refused.

Instances are of a project, and profiles where `features.profiles` is on; a new project gets a default profile like that
of a new installation (LXD's is empty). Images, networks and storage are the host's, and all projects share them. In DNS
an instance has its plain name in any project. Where two of one name are in one network, the default project's is known
by it, else the older one; the other has addresses only, and gets the name once it is free.
"""
NETWORKS = """# Networks

Keys and values are LXD's. They are set with `syscont network create NAME KEY=VALUE` and `syscont network set NAME
KEY=VALUE`; a key that is *live* takes effect at once, and guests run on. Networks are the host's, and all projects
share them; one that an instance or a profile uses can't be deleted.

`syscont network list-leases` says who has which address. An interface has an address of its own for good when its
device says `ipv4.address`, or `ipv6.address` where `ipv6.dhcp.stateful` is on; it has to be in the network's subnet and
nobody else's.

What comes for an address of the host's goes on to instances of a bridge by forwards (`syscont network forward`), all
of it or by ports. What goes between the guests of a bridge and the world, the host being part of it, is said by ACLs
(`syscont network acl`, `security.acls`): of all rules of all ACLs of a network, those that drop come first, then those
that reject, then those that allow, then what `security.acls.default.*` say. Answers always pass, and so do DHCP, the
network's own DNS, and ICMP's errors and neighbours; what was connected before a rule came stays so. Guests of one
bridge reach each other whatever ACLs say (`security.port_isolation` keeps interfaces apart). Logs are in the kernel's
(`journalctl --dmesg`), at most ten a second of each rule. What an interface may send, and how fast, is said by its
device (`docs/reference/devices.md`). In networks of OVN rules hold for each guest, and may name whom they are about:
see the page [ovn](../ovn.md).
"""
SERVER = """# Configuration of the host

Keys and values are LXD's. They are set with `syscont config set KEY=VALUE`, without the name of an instance;
`syscont config show` and `syscont info` print what is set. `instances.KEY` gives KEY to all instances that do not say
otherwise, and whose profiles do not; a key that is not *live* takes effect at an instance's next start.
"""
ZONES = """# Network zones

Keys and values are LXD's. They are set with `syscont network zone create ZONE KEY=VALUE` and `syscont network zone set
ZONE KEY=VALUE`. Zones are the host's, and their names are unique; instances have names in them as soon as a network
names the zone (`dns.zone.forward`, `dns.zone.reverse.ipv4`, `dns.zone.reverse.ipv6`). How zones are handed to other
servers is on the page [zones](../zones.md).
"""
REFUSED = "What LXD has and syscont can't offer; to set it is an error that says the same:"


def config() -> str:
    """The page of instances' keys."""
    return "\n".join([HEAD, CONFIG, *_sections(KEYS)])


def projects() -> str:
    """The page of projects' keys."""
    return "\n".join([HEAD, PROJECTS, *_sections(project.KEYS)])


def of_server() -> str:
    """The page of the host's keys."""
    return "\n".join([HEAD, SERVER, *_sections(server.KEYS)])


def devices() -> str:
    """The page of devices, a section for each type."""
    return "\n".join([HEAD, DEVICES, *(_section(kind, schema.keys) for kind, schema in SCHEMAS.items())])


def networks() -> str:
    """The page of networks, a section for each type."""
    sections = (_section(kind, schema.keys) for kind, schema in network.SCHEMAS.items())
    return "\n".join([HEAD, NETWORKS, *sections])


def of_zones() -> str:
    """The page of zones' keys."""
    return "\n".join([HEAD, ZONES, *_sections(zones.KEYS)])


def _sections(keys: Iterable[Key]) -> list[str]:
    """One for each first word."""
    groups: dict[str, list[Key]] = {}
    for key in keys:
        groups.setdefault(key.name.partition(".")[0], []).append(key)
    return [_section(f"{name}.*", group) for name, group in groups.items()]


def _section(title: str, keys: Sequence[Key]) -> str:
    parts = [f"## `{title}`\n"]
    if offered := [key for key in keys if not key.refused]:
        rows = ((f"`{key.name}`", _code(key.default), _when(key), key.help) for key in offered)
        parts.append(_table(("Key", "Default", "Live", "Meaning"), rows))
    if refused := [key for key in keys if key.refused]:
        rows_of_refused = ((f"`{key.name}`", key.refused) for key in refused)
        parts += [f"{REFUSED}\n", _table(("Key", "Why not"), rows_of_refused)]
    return "\n".join(parts)


def _when(key: Key) -> str:
    return "kept by syscontd" if key.internal else "yes" if key.live else "no"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PAGES = {
    "config.md": config,
    "devices.md": devices,
    "networks.md": networks,
    "zones.md": of_zones,
    "projects.md": projects,
    "server.md": of_server,
}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())


if __name__ == "__main__":
    main()
