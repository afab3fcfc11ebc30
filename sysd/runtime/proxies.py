# SPDX-License-Identifier: Apache-2.0
"""Proxies of instances: for each a socket unit that listens, and a service of systemd-socket-proxyd(8) that a first
connection starts. Both are transient and end with the instance's unit; no process is there before a connection is.

Which side listens and which is connected to is a matter of network namespaces: systemd opens the socket in, and runs
the service in, that of the host or that of the guest (NetworkNamespacePath= of systemd.exec(5)). So neither a port nor
an abstract socket of the guest's is ever reached through its files. A path that a guest connects to is a socket of the
host's in /run/syscont/proxies, shown in the guest as disks are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dbus_next import Variant

from sysd import _cext as c
from sysd.model.devices.check import SCHEMAS
from sysd.model.devices.proxy import endpoint
from sysd.model.devices.unix import mode
from sysd.model.instance import Instance
from sysd.runtime.shares import SOCKETS
from sysd.runtime.spec import Share
from sysd.units import helper
from sysd.units.systemd import Properties

PROXYD = "/usr/lib/systemd/systemd-socket-proxyd"
PREFIX = "syscont-proxy@"
IDLE = "5min"
"""How long the service stays when no connection is open."""
_PLAIN = c.ATTR_NOSUID | c.ATTR_NODEV | c.ATTR_NOEXEC


@dataclass(frozen=True, slots=True)
class Proxy:
    """One socket and its service; unit is their name without suffix."""

    unit: str
    socket: Properties
    service: Properties
    share: Share | None = None

    @property
    def description(self) -> str:
        """Another one when anything about it is: what tells a proxy that runs from the one that is wanted."""
        return str(self.socket["Description"].value)


def pattern(instance: Instance) -> str:
    """Of the units of all its proxies. No name of an instance has a dot."""
    return f"{PREFIX}{instance.reference}.*"


def of_instance(instance: Instance, leader: int) -> list[Proxy]:
    """All proxies of an expanded instance; leader is its PID 1."""
    return [
        proxy
        for name, options in instance.devices.items()
        if options["type"] == "proxy"
        for proxy in _of_device(instance, name, options, f"/proc/{leader}/ns/net")
    ]


def _of_device(instance: Instance, name: str, options: Mapping[str, str], inside: str) -> list[Proxy]:
    """One for each place to connect to."""
    listen, connect = endpoint(options["listen"]), endpoint(options["connect"])
    targets = connect.places
    groups = [listen.places] if len(targets) == 1 else [[place] for place in listen.places]
    on_host = SCHEMAS["proxy"].text(options, "bind") == "host"
    shown = not on_host and listen.protocol == "unix" and not listen.address.startswith("@")
    if shown:
        groups = [[f"{SOCKETS}{instance.uuid}-{name}"]]
    digest = hashlib.sha256(repr((sorted(options.items()), inside)).encode()).hexdigest()[:8]
    found = []
    for number, (sources, target) in enumerate(zip(groups, targets, strict=True)):
        unit = f"{PREFIX}{instance.reference}.{name}:{number}"
        common = _common(instance, f"Proxy {name} of {instance.reference}, {digest}")
        socket = common | _socket(sources, options, shown)
        service = common | _service(f"{unit}.socket", target)
        side = service if on_host else {} if shown else socket
        side["NetworkNamespacePath"] = Variant("s", inside)
        share = Share(name, listen.address, sources[0], attributes=_PLAIN, owner=_owner(options)) if shown else None
        found.append(Proxy(unit, socket, service, share))
    return found


def _common(instance: Instance, description: str) -> Properties:
    return {
        "Description": Variant("s", description),
        "BindsTo": Variant("as", [instance.unit]),
        "CollectMode": Variant("s", "inactive-or-failed"),
    }


def _owner(options: Mapping[str, str]) -> tuple[int, int]:
    return SCHEMAS["proxy"].integer(options, "uid"), SCHEMAS["proxy"].integer(options, "gid")


def _socket(places: Sequence[str], options: Mapping[str, str], shown: bool) -> Properties:
    """One that is shown in a guest is given to its owner by whoever shows it: systemd knows no users of guests."""
    uid, gid = (0, 0) if shown else _owner(options)
    return {
        "Slice": Variant("s", "syscont.slice"),
        "Listen": Variant("a(ss)", [["Stream", place] for place in places]),
        "SocketMode": Variant("u", mode(SCHEMAS["proxy"].text(options, "mode"))),
        "SocketUser": Variant("s", str(uid)),
        "SocketGroup": Variant("s", str(gid)),
        "RemoveOnStop": Variant("b", True),
    }


def _service(socket: str, target: str) -> Properties:
    """Root, for unix sockets that are root's alone, but without a single capability; it sees no file but sockets."""
    argv = [PROXYD, f"--exit-idle-time={IDLE}", target]
    return {
        **helper.hardened(),
        "Slice": Variant("s", "syscont.slice"),
        "BindsTo": Variant("as", [socket]),
        "ExecStart": Variant("a(sasb)", [[PROXYD, argv, False]]),
        "CapabilityBoundingSet": Variant("t", 0),
        "RestrictAddressFamilies": Variant("(bas)", [True, ["AF_UNIX", "AF_INET", "AF_INET6"]]),
        # Sockets are in /tmp and in homes too.
        "PrivateTmp": Variant("b", False),
        "ProtectHome": Variant("s", "no"),
        "InaccessiblePaths": Variant("as", helper.SECRETS),
        "TasksMax": Variant("t", 16),
        "MemoryMax": Variant("t", 128 << 20),
    }
