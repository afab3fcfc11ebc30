# SPDX-License-Identifier: Apache-2.0
"""Proxies: connections to one place are passed on to another, on the other side of the guest's border."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sysd.model.devices.disk import absolute_path, guest_path
from sysd.model.devices.unix import mode
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.schema import Key
from sysd.model.values import anything, boolean, integer, one_of

MAX_PORTS = 64
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
    def places(self) -> list[str]:
        """As systemd writes each of them in Listen...= and as an argument of systemd-socket-proxyd."""
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


def _off(text: str) -> bool:
    if boolean(text):
        raise InvalidError("it can't be switched on", "see 'syscont config keys --device proxy'")
    return False


OPTIONS = (
    Key("listen", endpoint, "", "Where connections come to: tcp:ADDRESS:PORT[-PORT][,PORT] or unix:PATH."),
    Key("connect", endpoint, "", "Where they go to."),
    Key("bind", one_of("host", "instance"), "host", "The side that listens; the other one is connected to."),
    Key("uid", integer(0, 65535), "0", "Owner of the socket that listens, when it is a unix one."),
    Key("gid", integer(0, 65535), "0", "Its group."),
    Key("mode", mode, "0644", "Its mode."),
    Key("nat", _off, "false", "Only false: instances have no addresses that stay theirs, which nat=true needs."),
    Key("proxy_protocol", _off, "false", "Only false: systemd-socket-proxyd does not speak it."),
    Key("security.uid", anything, "", "", refused="the proxy runs as a user that is made for it"),
    Key("security.gid", anything, "", "", refused="the proxy runs as a user that is made for it"),
)


def check(options: Mapping[str, str]) -> None:
    for key in ("listen", "connect"):
        if not options.get(key):
            raise InvalidError(f"{key} is missing", "such as tcp:127.0.0.1:80")
    listen, connect = endpoint(options["listen"]), endpoint(options["connect"])
    if len(connect.ports) > 1 and len(connect.ports) != len(listen.ports):
        raise InvalidError("listen and connect have different numbers of ports", "as many, or one to connect to")
    if "udp" in (listen.protocol, connect.protocol):
        raise UnsupportedError("udp can't be passed on: systemd-socket-proxyd knows streams only")
    _check_sides(options.get("bind", "host"), listen, connect)


def _check_sides(bind: str, listen: Endpoint, connect: Endpoint) -> None:
    if bind == "host" and connect.protocol == "unix" and not connect.address.startswith("@"):
        raise UnsupportedError(
            "a unix socket in the guest is reached by its abstract name only", "connect to unix:@NAME or tcp:..."
        )
    if bind == "instance" and listen.protocol == "unix" and not listen.address.startswith("@"):
        guest_path(listen.address)
