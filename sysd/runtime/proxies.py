# SPDX-License-Identifier: Apache-2.0
"""Proxies of instances: for each a socket unit that listens, and a service that a first connection starts. Both are
transient and end with the instance's unit; no process is there before somebody comes.

Which side listens and which is connected to is a matter of network namespaces: systemd opens the socket in, and runs
the service in, that of the host or that of the guest (NetworkNamespacePath= of systemd.exec(5)). So neither a port nor
an abstract socket of the guest's is ever reached through its files. A path that a guest connects to is a socket of the
host's in /run/syscont/proxies, shown in the guest as disks are. A path in the guest that is connected to is looked up
beneath the guest's root by the service itself, with no more rights than the guest's user has.

The service is systemd-socket-proxyd(8), and for what that does not do our own sysd/_cext/forward.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dbus_next import Variant

from sysd import _cext as c
from sysd.model.devices.check import SCHEMAS
from sysd.model.devices.proxy import UNIT_PREFIX, Endpoint, endpoint, listens_inside, translates
from sysd.model.devices.proxy import unit as unit_name
from sysd.model.devices.unix import mode
from sysd.model.idmap import IdMap
from sysd.model.instance import Instance
from sysd.runtime.spec import SOCKET_DIR, Share
from sysd.units import helper
from sysd.units.systemd import Properties

PROXYD = "/usr/lib/systemd/systemd-socket-proxyd"
FORWARD = "/usr/libexec/syscont/forward"
SETPRIV = "/usr/bin/setpriv"
IDLE = 300
"""Seconds that the service stays when no connection is open."""
MAX_FILES = 4096
_CAP_SETGID, _CAP_SETUID, _CAP_SYS_PTRACE = 6, 7, 19
_PLAIN = c.ATTR_NOSUID | c.ATTR_NODEV | c.ATTR_NOEXEC
_ELSEWHERE = ("/run", "/var", "/srv", "/opt", "/mnt", "/media")
"""Where a service that connects to no path has nothing to look for."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One socket and its service, or a service alone; unit is their name without suffix. share: how the socket is shown
    in the guest, where it then belongs to owner, ids of the host."""

    unit: str
    socket: Properties
    service: Properties
    share: Share | None = None
    owner: tuple[int, int] = (0, 0)

    @property
    def description(self) -> str:
        """Another one when anything about it is: what tells a proxy that runs from the one that is wanted."""
        return str(self.service["Description"].value)

    @property
    def main(self) -> str:
        """The unit that is started."""
        return f"{self.unit}.socket" if self.socket else f"{self.unit}.service"


@dataclass(frozen=True, slots=True)
class Inside:
    """A guest that runs: its PID 1, and its ids."""

    leader: int
    ids: IdMap

    @property
    def network(self) -> str:
        return f"/proc/{self.leader}/ns/net"

    @property
    def root(self) -> str:
        return f"/proc/{self.leader}/root"


def pattern(instance: Instance) -> str:
    """Of the units of all its proxies."""
    return f"{UNIT_PREFIX}{instance.reference}.*"


def of_instance(instance: Instance, inside: Inside) -> list[Proxy]:
    """All proxies of an expanded instance that runs, but for what the firewall does: sysd.network.translation."""
    return [
        proxy
        for name, options in instance.devices.items()
        if options["type"] == "proxy" and not translates(options)
        for proxy in _of_device(instance, name, options, inside)
    ]


def _of_device(instance: Instance, name: str, options: Mapping[str, str], inside: Inside) -> list[Proxy]:
    """One for each place to connect to."""
    listen, connect = endpoint(options["listen"]), endpoint(options["connect"])
    targets = connect.places
    groups = [listen.places] if len(targets) == 1 else [[place] for place in listen.places]
    shown = listens_inside(options) and listen.is_file
    if shown:
        groups = [[f"{SOCKET_DIR}/{instance.uuid}-{name}"]]
    digest = hashlib.sha256(repr((sorted(options.items()), inside)).encode()).hexdigest()[:8]
    common = _common(instance, f"Proxy {name} of {instance.reference}, {digest}")
    found = []
    for number, (sources, target) in enumerate(zip(groups, targets, strict=True)):
        unit = unit_name(instance.reference, name, number)
        socket = common | _socket(sources, options, shown)
        service = common | _service(f"{unit}.socket", target, options, inside)
        side = service if not listens_inside(options) else {} if shown else socket
        side["NetworkNamespacePath"] = Variant("s", inside.network)
        share = Share(name, listen.address, sources[0], attributes=_PLAIN) if shown else None
        owner = inside.ids.outside(*_ids(options)) if shown else (0, 0)
        found.append(Proxy(unit, socket, service, share, owner))
    return found


def _common(instance: Instance, description: str) -> Properties:
    return {
        "Description": Variant("s", description),
        "BindsTo": Variant("as", [instance.unit]),
        "CollectMode": Variant("s", "inactive-or-failed"),
        "Slice": Variant("s", "syscont.slice"),
    }


def _ids(options: Mapping[str, str], prefix: str = "") -> tuple[int, int]:
    return SCHEMAS["proxy"].integer(options, f"{prefix}uid"), SCHEMAS["proxy"].integer(options, f"{prefix}gid")


def _socket(places: Sequence[str], options: Mapping[str, str], shown: bool) -> Properties:
    """One that is shown in a guest is given to its owner by whoever shows it: systemd knows no users of guests."""
    uid, gid = (0, 0) if shown else _ids(options)
    kind = "Datagram" if endpoint(options["listen"]).protocol == "udp" else "Stream"
    return {
        "Listen": Variant("a(ss)", [[kind, place] for place in places]),
        "SocketMode": Variant("u", mode(SCHEMAS["proxy"].text(options, "mode"))),
        "SocketUser": Variant("s", str(uid)),
        "SocketGroup": Variant("s", str(gid)),
        "RemoveOnStop": Variant("b", True),
        # A guest that starts has no addresses yet.
        "FreeBind": Variant("b", listens_inside(options)),
        # An answer has to come from the address that was asked.
        "PassPacketInfo": Variant("b", kind == "Datagram"),
    }


def _service(socket: str, target: str, options: Mapping[str, str], inside: Inside) -> Properties:
    """It starts as root, to become who is to connect, for which alone it has capabilities; then it has none. Root it
    stays for unix sockets that are root's alone. Of files it sees what sockets to connect to may be among."""
    connect = endpoint(options["connect"])
    ids = _ids(options, "security.")
    user = ids if listens_inside(options) else inside.ids.outside(*ids)
    root = inside.root if connect.is_file and not listens_inside(options) else ""
    become = 1 << _CAP_SETUID | 1 << _CAP_SETGID if user != (0, 0) else 0
    look = 1 << _CAP_SYS_PTRACE if root else 0
    argv = _argv(target, options, user, root)
    return {
        **helper.hardened(),
        **(_files(connect) if not root else {}),
        "BindsTo": Variant("as", [socket]),
        "ExecStart": Variant("a(sasb)", [[argv[0], argv, False]]),
        "CapabilityBoundingSet": Variant("t", become | look),
        "RestrictAddressFamilies": Variant("(bas)", [True, ["AF_UNIX", "AF_INET", "AF_INET6"]]),
        # It takes away openat2(2) as a whole.
        "RestrictSUIDSGID": Variant("b", not root),
        "ProtectHostname": Variant("b", True),
        "PrivateIPC": Variant("b", True),
        "ProcSubset": Variant("s", "all" if root else "pid"),
        "UMask": Variant("u", 0o777),
        "InaccessiblePaths": Variant("as", helper.SECRETS),
        "LimitNOFILE": Variant("t", MAX_FILES),
        "TasksMax": Variant("t", 16),
        "MemoryMax": Variant("t", 128 << 20),
    }


def _files(connect: Endpoint) -> Properties:
    if connect.is_file:  # which may be in /tmp and in homes, too
        return {"PrivateTmp": Variant("b", False), "ProtectHome": Variant("s", "no")}
    return {"TemporaryFileSystem": Variant("a(ss)", [[path, "mode=0755,ro"] for path in _ELSEWHERE])}


def _argv(target: str, options: Mapping[str, str], user: tuple[int, int], root: str) -> list[str]:
    """root, if not empty, is where the target's path is looked up."""
    uid, gid = user
    listen, connect = endpoint(options["listen"]), endpoint(options["connect"])
    introduce = SCHEMAS["proxy"].boolean(options, "proxy_protocol")
    protocols = {listen.protocol, connect.protocol}
    # Between unix sockets descriptors go along, which socket-proxyd would lose.
    if not (introduce or root or "udp" in protocols or protocols == {"unix"}):
        drop = [SETPRIV, f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--"] if user != (0, 0) else []
        return [*drop, PROXYD, f"--exit-idle-time={IDLE}s", target]
    become = [f"--user={uid}:{gid}"] if user != (0, 0) else []
    beneath = [f"--beneath={root}"] if root else []
    header = ["--proxy-protocol"] if introduce else []
    return [FORWARD, f"--idle={IDLE}", *become, *beneath, *header, connect.protocol, target]
