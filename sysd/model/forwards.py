# SPDX-License-Identifier: Apache-2.0
"""Forwards of networks: what comes for an address of the host's goes on to an instance, as a whole or by ports. As in
LXD."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sysd.model import addresses
from sysd.model.errors import ExistsError, InvalidError, NotFoundError
from sysd.model.values import check_description

if TYPE_CHECKING:
    from sysd.model.network import Network

PROTOCOLS = ("tcp", "udp")
MAX_FORWARDS = 500
MAX_PORTS = 100
"""Groups of ports in one forward, and ports in a group that become others one by one."""
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Port:
    """Ports of a forward. listen and target are texts such as ``80,90-95``; no target for the same ports there."""

    protocol: str
    listen: str
    address: str
    target: str = ""
    description: str = ""

    @property
    def ranges(self) -> list[Range]:
        return ranges(self.listen)

    @property
    def pairs(self) -> Iterator[tuple[list[Range], int]]:
        """What is listened to, and what becomes of it; 0 for the same port."""
        wanted = [port for first, last in ranges(self.target) for port in range(first, last + 1)] if self.target else []
        if not wanted or ranges(self.target) == self.ranges:
            yield self.ranges, 0
        elif len(wanted) == 1:
            yield self.ranges, wanted[0]
        else:
            listened = (port for first, last in self.ranges for port in range(first, last + 1))
            yield from (([(at, at)], to) for at, to in zip(listened, wanted, strict=True))


@dataclass(frozen=True, slots=True)
class Forward:
    """listen is the address in its usual form. target: who gets all that is for no port; empty for nobody."""

    listen: str
    target: str = ""
    description: str = ""
    ports: list[dict[str, str]] = field(default_factory=list)

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.listen).version

    @property
    def parsed(self) -> list[Port]:
        return [Port(**each) for each in self.ports]

    @property
    def targets(self) -> list[str]:
        return sorted({port.address for port in self.parsed} | ({self.target} if self.target else set()))


def ranges(text: str) -> list[Range]:
    """The ports in a text, as first and last of each range, in its order. Raises InvalidError."""
    found: list[Range] = []
    for word in text.split(","):
        match = _RANGE.fullmatch(word.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 0 < first <= last < 65536:
            raise InvalidError(f"not ports: {text[:80]!r}", "numbers, or two with - between, with commas between")
        found.append((first, last))
    if any(before[1] >= after[0] for before, after in itertools.pairwise(sorted(found))):
        raise InvalidError(f"ports are named twice: {text[:80]!r}")
    return found


def address(text: str, what: str) -> str:
    """One address, in its usual form. Raises InvalidError naming what it is for."""
    try:
        found = addresses.addresses(text)
    except InvalidError:
        found = []
    if len(found) != 1 or found[0].is_multicast or found[0].is_unspecified or found[0].is_loopback:
        raise InvalidError(f"{what}: not the address of a host: {text[:80]!r}")
    return str(found[0])


def with_forward(network: Network, listen: str, target: str, description: str) -> list[dict[str, Any]]:
    """A network's forwards and one more. Raises ExistsError or InvalidError."""
    made = Forward(
        address(listen, "listen address"),
        address(target, "target_address") if target else "",
        check_description(description),
    )
    if any(each.listen == made.listen for each in network.forwarded):
        raise ExistsError(f"network {network.name} has a forward of {made.listen} already")
    if len(network.forwards) >= MAX_FORWARDS:
        raise InvalidError(f"network {network.name}: more than {MAX_FORWARDS} forwards")
    return [*network.forwards, asdict(made)]


def changed(network: Network, listen: str, target: str | None, description: str | None) -> list[dict[str, Any]]:
    """With another target or description of one of them; None leaves it, an empty target takes it away."""
    parts: dict[str, Any] = {}
    if target is not None:
        parts["target"] = address(target, "target_address") if target else ""
    if description is not None:
        parts["description"] = check_description(description)
    return _replaced(network, listen, parts)


def without(network: Network, listen: str) -> list[dict[str, Any]]:
    gone = find(network, listen)
    return [each for each in network.forwards if each["listen"] != gone.listen]


def with_port(network: Network, listen: str, port: Port) -> list[dict[str, Any]]:
    forward = find(network, listen)
    checked = _check_port(port)
    for other in forward.parsed:
        if other.protocol == checked.protocol and _overlap(other.ranges, checked.ranges):
            what = f"{other.protocol} {other.listen}"
            raise ExistsError(f"the forward of {forward.listen} has {what} already", f"it goes to {other.address}")
    if len(forward.ports) >= MAX_PORTS:
        raise InvalidError(f"the forward of {forward.listen}: more than {MAX_PORTS} groups of ports")
    return _replaced(network, listen, {"ports": [*forward.ports, asdict(checked)]})


def without_port(network: Network, listen: str, protocol: str, ports: str) -> list[dict[str, Any]]:
    forward, wanted = find(network, listen), sorted(ranges(ports))
    left = [asdict(each) for each in forward.parsed if (each.protocol, sorted(each.ranges)) != (protocol, wanted)]
    if len(left) == len(forward.ports):
        raise NotFoundError(f"the forward of {forward.listen} has no {protocol[:20]} {ports[:80]}")
    return _replaced(network, listen, {"ports": left})


def find(network: Network, listen: str) -> Forward:
    """Raises NotFoundError."""
    wanted = address(listen, "listen address")
    for each in network.forwarded:
        if each.listen == wanted:
            return each
    hint = f"'syscont network forward list {network.name}' shows what there is"
    raise NotFoundError(f"network {network.name} has no forward of {wanted}", hint)


def check(network: Network, others: Iterable[Network]) -> None:
    """Raise InvalidError or ExistsError unless all of a network's forwards lead into it, and listen where nobody else
    does."""
    taken = {each.listen: other.name for other in others for each in other.forwarded}
    for each in network.forwarded:
        if other := taken.get(each.listen):
            raise ExistsError(f"network {other} has a forward of {each.listen} already")
        own = network.address(each.version)
        what = f"the forward of {each.listen}"
        if own is None:
            raise InvalidError(f"{what}: network {network.name} has no IPv{each.version}")
        if ipaddress.ip_address(each.listen) in own.network:
            raise InvalidError(f"{what}: that is in network {network.name} itself", "an address of the host's outside")
        for target in map(ipaddress.ip_address, each.targets):
            if target not in own.network or target == own.ip:
                raise InvalidError(f"{what}: {target} is no guest's in network {network.name}", f"it has {own.network}")


def _replaced(network: Network, listen: str, parts: dict[str, Any]) -> list[dict[str, Any]]:
    wanted = find(network, listen).listen
    return [each | parts if each["listen"] == wanted else each for each in network.forwards]


def _check_port(port: Port) -> Port:
    if port.protocol not in PROTOCOLS:
        raise InvalidError(f"not a protocol: {port.protocol[:80]!r}", " or ".join(PROTOCOLS))
    listened, wanted = ranges(port.listen), ranges(port.target) if port.target else []
    count, other = _count(listened), _count(wanted)
    if wanted and wanted != listened and other not in (1, count):
        raise InvalidError(f"{count} ports can't become {other}", "as many, one for all, or none for the same")
    if wanted not in ([], listened) and other > MAX_PORTS:
        raise InvalidError(f"more than {MAX_PORTS} ports become others one by one", "say no target ports for the same")
    return Port(
        port.protocol, _text(listened), address(port.address, "target address"), _text(wanted),
        check_description(port.description),
    )  # fmt: skip


def _count(found: list[Range]) -> int:
    return sum(last - first + 1 for first, last in found)


def _text(found: list[Range]) -> str:
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _overlap(some: list[Range], others: list[Range]) -> bool:
    return any(a <= last and first <= b for a, b in some for first, last in others)
