# SPDX-License-Identifier: Apache-2.0
"""Proxies: connections to one place are passed on to another, on the other side of the guest's border."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sysd.model.addresses import addresses
from sysd.model.devices.disk import absolute_path, guest_path
from sysd.model.devices.nic import nictype
from sysd.model.devices.unix import MAX_ID as MAX_GUEST_ID
from sysd.model.devices.unix import mode
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.idmap import MAX_ID
from sysd.model.schema import Key
from sysd.model.values import boolean, integer, one_of

MAX_PORTS = 64
UNIT_PREFIX = "syscont-proxy@"
INSIDE = ("instance", "guest", "container")
"""Values of bind that say that the instance listens."""

_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_ABSTRACT = re.compile(r"@[A-Za-z0-9_./:-]{1,100}", re.ASCII)
_UNIX_PATH = re.compile(r"/[A-Za-z0-9_./@:+-]{1,106}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """protocol is tcp, udp or unix; a unix socket has a path (or @ and an abstract name), the others address and
    ports."""

    protocol: str
    address: str
    ports: tuple[int, ...] = ()

    @property
    def is_file(self) -> bool:
        return self.protocol == "unix" and not self.address.startswith("@")

    @property
    def places(self) -> list[str]:
        """As systemd writes each of them in Listen...= and as an argument of what connects."""
        if self.protocol == "unix":
            return [self.address]
        host = f"[{self.address}]" if ":" in self.address else self.address
        return [f"{host}:{port}" for port in self.ports]


def endpoint(text: str) -> Endpoint:
    """What ``tcp:127.0.0.1:80,8000-8010`` or ``unix:/run/x.sock`` means."""
    protocol, colon, rest = text.partition(":")
    if not colon or protocol not in ("tcp", "udp", "unix"):
        raise InvalidError(f"not an address: {text[:80]!r}", "tcp:ADDRESS:PORT, udp:ADDRESS:PORT or unix:PATH")
    if protocol == "unix":
        return Endpoint(protocol, _unix(rest))
    address, colon, ports = rest.rpartition(":")
    try:
        number = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise InvalidError(f"not an IP address: {address[:80]!r}", "[ and ] around one of IPv6") from None
    if "%" in str(number):
        raise InvalidError(f"an address with a scope can't be used: {address[:80]!r}")
    return Endpoint(protocol, str(number), _ports(ports))


def _unix(text: str) -> str:
    if text.startswith("@") and _ABSTRACT.fullmatch(text):
        return text
    # Letters of which none means anything to systemd or in a path.
    if not _UNIX_PATH.fullmatch(text) or text.endswith("/"):
        raise InvalidError(f"not the path of a socket: {text[:80]!r}", "an absolute path, or @ and an abstract name")
    return absolute_path(text)


def _ports(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for word in text.split(","):
        match = _PORTS.fullmatch(word)
        if not match:
            raise InvalidError(f"not a port: {word[:80]!r}", "a number, or two with - between")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 < first <= last < 65536 or last - first >= MAX_PORTS:
            raise InvalidError(f"not ports: {word!r}", f"from 1 to 65535, at most {MAX_PORTS}")
        found += range(first, last + 1)
    if len(set(found)) != len(found) or len(found) > MAX_PORTS:
        raise InvalidError(f"ports are named twice, or are more than {MAX_PORTS}: {text[:80]!r}")
    return tuple(found)


_HOST_ID = integer(0, MAX_ID)

OPTIONS = (
    Key(
        "listen",
        endpoint,
        "",
        "Where connections come to: tcp:ADDRESS:PORT[-PORT][,PORT], udp:ADDRESS:PORT[-PORT][,PORT] or unix:PATH.",
    ),
    Key("connect", endpoint, "", "Where they go to; from udp only to udp."),
    Key(
        "bind",
        one_of("host", *INSIDE),
        "host",
        "The side that listens, host or instance; the other one is connected to. guest and container are LXD's older"
        " words for instance.",
    ),
    Key("uid", _HOST_ID, "0", "Owner, on its side, of the unix socket that listens. The host has to know the user."),
    Key("gid", _HOST_ID, "0", "Its group."),
    Key("mode", mode, "0644", "Its mode."),
    Key(
        "nat",
        boolean,
        "false",
        "Translate addresses in the host's firewall instead of passing on. It needs an address of the host's own to"
        " listen at, and to connect to one that an interface of the instance has by its configuration (0.0.0.0 or [::]:"
        " whichever that is). In a bridge the instance itself can't use it where br_netfilter is loaded.",
    ),
    Key(
        "proxy_protocol",
        boolean,
        "false",
        "Tell a tcp server who has connected, by a header of the PROXY protocol's version 1 before all else.",
    ),
    Key("security.uid", _HOST_ID, "0", "User that connects, on the side that is connected to."),
    Key("security.gid", _HOST_ID, "0", "Group that connects."),
)


def unit(reference: str, device: str, number: int) -> str:
    """Name, without suffix, of the units of one of a device's ways. No name of an instance has a dot."""
    return f"{UNIT_PREFIX}{reference}.{device}:{number}"


def listens_inside(options: Mapping[str, str]) -> bool:
    return options.get("bind", "host") in INSIDE


def translates(options: Mapping[str, str]) -> bool:
    return boolean(options.get("nat", "false"))


def check(options: Mapping[str, str]) -> None:
    for key in ("listen", "connect"):
        if not options.get(key):
            raise InvalidError(f"{key} is missing", "such as tcp:127.0.0.1:80")
    listen, connect = endpoint(options["listen"]), endpoint(options["connect"])
    if len(connect.ports) > 1 and len(connect.ports) != len(listen.ports):
        raise InvalidError("listen and connect have different numbers of ports", "as many, or one to connect to")
    if listen.protocol == "udp" and connect.protocol != "udp":
        raise UnsupportedError("what comes by udp can go to udp only: it has no beginning and no end")
    if boolean(options.get("proxy_protocol", "false")) and connect.protocol != "tcp":
        raise InvalidError("proxy_protocol: only tcp servers are sent such a header")
    _check_owners(options, listen)
    if translates(options):
        _check_translation(options, listen, connect)
    if listens_inside(options) and listen.is_file:
        guest_path(listen.address)


def _check_translation(options: Mapping[str, str], listen: Endpoint, connect: Endpoint) -> None:
    if listens_inside(options):
        raise InvalidError("nat: it is the host that translates", "bind=host")
    if listen.protocol != connect.protocol or listen.protocol == "unix":
        raise InvalidError("nat: only tcp can become tcp, and udp udp")
    if boolean(options.get("proxy_protocol", "false")):
        raise InvalidError("nat: no header is sent by proxy_protocol then", "the server sees who connects anyway")
    at, to = ipaddress.ip_address(listen.address), ipaddress.ip_address(connect.address)
    if at.version != to.version:
        raise InvalidError("nat: listen and connect are of different versions of IP")
    if at.is_unspecified or at.is_loopback or at.is_multicast:
        raise InvalidError(f"nat: {at} is no single address that others reach the host at")


def translation_target(options: Mapping[str, str], devices: Mapping[str, Mapping[str, str]]) -> str:
    """The address that a proxy with nat=true leads to, among those that the instance's interfaces have by their
    configuration: what a guest gives itself may be another's. Raises InvalidError when there is none."""
    wanted = ipaddress.ip_address(endpoint(options["connect"]).address)
    own = [
        address
        for each in devices.values()
        if each.get("type") == "nic" and nictype(each) in ("bridged", "routed")
        for address in addresses(each.get(f"ipv{wanted.version}.address", ""))
    ]
    found = own[:1] if wanted.is_unspecified else [address for address in own if address == wanted]
    if not found:
        raise InvalidError(
            f"nat: no interface has the address {wanted} by its configuration", f"ipv{wanted.version}.address of a nic"
        )
    return str(found[0])


def _check_owners(options: Mapping[str, str], listen: Endpoint) -> None:
    """Ids are the host's or the guest's, by the side that they are on."""
    inside = listens_inside(options)
    for key in ("uid", "gid", "mode"):
        if key in options and not listen.is_file:
            raise InvalidError(f"{key}: only a unix socket with a path has owner and mode")
    for key in ("uid", "gid") if inside else ("security.uid", "security.gid"):
        if int(options.get(key, "0")) > MAX_GUEST_ID:
            raise InvalidError(f"{key}: out of range", f"the guest's ids go from 0 to {MAX_GUEST_ID}")
