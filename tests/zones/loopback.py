# SPDX-License-Identifier: Apache-2.0
"""A server on the loopback, with a zone, and clients of dnspython's."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import unittest.mock
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

import dns.name
import dns.rdata

from sysd.dns import server as server_module
from sysd.dns.access import Directory, Served, labels_of
from sysd.dns.content import APEX, Content, kind_of, owner_of, render
from sysd.dns.lookup import wire_labels
from sysd.dns.server import Responder, Server
from sysd.model.zones import Peer

T = TypeVar("T")
ZONE = "lab.example"
KEY = f"{ZONE}_sec."
SECRET = b"0123456789abcdef0123456789abcdef"
LOCAL = Peer("local", ipaddress.ip_network("127.0.0.1"), None)


def record(owner: str, kind: str, text: str, ttl: int = 300) -> bytes:
    labels = b"" if owner == "@" else wire_labels(dns.name.from_text(owner, None).labels)
    rdata = dns.rdata.from_text("IN", kind, text, dns.name.from_text(ZONE), relativize=False)
    return render(labels, int(rdata.rdtype), ttl, rdata.to_wire())


def soa(serial: int) -> bytes:
    return record("@", "SOA", f"ns hostmaster {serial} 120 60 86400 30", 3600)


def content(*records: bytes, serial: int = 1) -> Content:
    found = Content(dns.name.from_text(ZONE).to_wire())
    found.load([soa(serial), record("@", "NS", "ns"), *records], ())
    return found


def served(found: Content, *peers: Peer) -> Served:
    return Served(ZONE, labels_of(ZONE), found, peers or [LOCAL])


def change(found: Content, *records: bytes) -> None:
    """Have just these records, besides those of the apex."""
    wanted: dict[tuple[bytes, int], tuple[bytes, ...]] = {key: () for key in found.sets if key[0] != APEX}
    for one in records:
        key = (owner_of(one), kind_of(one))
        wanted[key] = tuple(sorted((*wanted.get(key, ()), one)))
    step = found.compare(wanted)
    assert step
    found.apply(step)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def with_server(zones: Iterable[Served], talk: Callable[[int], Awaitable[T]]) -> T:
    """Run talk, which gets the server's port."""

    async def run() -> T:
        directory = Directory()
        for zone in zones:
            directory.put(zone)
        server = Server(Responder(directory), directory)
        port = free_port()
        server.open("127.0.0.1", port)
        try:
            return await talk(port)
        finally:
            server.close()

    return asyncio.run(run())


@contextlib.contextmanager
def no_errors() -> Iterator[None]:
    with unittest.mock.patch.object(server_module.log, "exception", side_effect=AssertionError):
        yield
