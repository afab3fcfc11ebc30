# SPDX-License-Identifier: Apache-2.0
"""Leases of a network's dnsmasq: what it remembers of who has which address, and how one is given back."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sysd.model.addresses import Address, Subnet
from sysd.model.network import Network

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
DUID_LLT, DUID_LL = "00:01:00:01:", "00:03:00:01:"
"""How identifiers of DHCPv6 clients begin that have an Ethernet address at their end (RFC 8415, section 11)."""
SERVER_PORT = 67


@dataclass(frozen=True, slots=True)
class Lease:
    """hwaddr is empty where a client of DHCPv6 does not say it. expires is in seconds since the epoch, 0 for never."""

    address: Address
    hwaddr: str
    name: str
    client: str
    expires: int


def read(path: Path) -> list[Lease]:
    """What stands in dnsmasq's file of leases; a line that is none is left out."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [lease for line in lines if (lease := parse(line))]


def parse(line: str) -> Lease | None:
    """EXPIRES HWADDR-OR-IAID ADDRESS NAME CLIENT, with ``*`` for what is not known."""
    fields = line.split()
    if len(fields) != 5 or not fields[0].isdecimal():
        return None
    try:
        address = ipaddress.ip_address(fields[2])
    except ValueError:
        return None
    name, client = ("" if field == "*" else field for field in fields[3:])
    hwaddr = fields[1] if address.version == 4 else _in_duid(client)
    return Lease(address, hwaddr if _MAC.fullmatch(hwaddr) else "", name, client, int(fields[0]))


def _in_duid(client: str) -> str:
    if client.startswith(DUID_LLT):
        return client[len(DUID_LLT) + len("00:00:00:00:") :]
    return client.removeprefix(DUID_LL) if client.startswith(DUID_LL) else ""


def release_lost(network: Network, path: Path, known: Container[str]) -> None:
    """Give back the leases of instances that are gone, or their names would go on resolving until the leases end.
    known are the hardware addresses of those that there are.

    dnsmasq has no command for it; it is told as a client would tell it (DHCPRELEASE of RFC 2131, table 5).
    """
    own = network.address(4)
    lost = [one for one in read(path) if one.address.version == 4 and one.hwaddr and one.hwaddr not in known]
    if not own or not lost:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, network.name.encode())
        for message in _releases(lost, own.ip.packed):
            sock.sendto(message, (str(own.ip), SERVER_PORT))


def _releases(lost: list[Lease], server: bytes) -> Iterator[bytes]:
    for lease in lost:
        head = bytes([1, 1, 6, 0]) + secrets.token_bytes(4) + bytes(4) + lease.address.packed + bytes(12)
        options = b"\x63\x82\x53\x63" + bytes([53, 1, 7, 54, 4]) + server
        if lease.client:
            identity = bytes.fromhex(lease.client.replace(":", ""))
            options += bytes([61, len(identity)]) + identity
        hardware = bytes.fromhex(lease.hwaddr.replace(":", "")).ljust(16, b"\0")
        yield head + hardware + bytes(192) + options + b"\xff"


def prune(path: Path, subnets: Sequence[Subnet]) -> None:
    """Forget leases outside of subnets, while dnsmasq does not run: it would go on giving their names."""
    try:
        lines = path.read_text(errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return
    kept = [line for line in lines if not (lease := parse(line)) or any(lease.address in one for one in subnets)]
    if kept != lines:
        path.write_text("".join(kept))
