# SPDX-License-Identifier: Apache-2.0
"""The server: answers by UDP and TCP, to peers of zones; strangers learn nothing.

Whatever comes in, no exception leaves this module, and what is no peer's gets FORMERR, NOTIMP or REFUSED at most.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sysd.dns import lookup, transfer
from sysd.dns.access import Address, Directory, Grant, Refused
from sysd.dns.limits import Rate, plain
from sysd.dns.message import (
    BADVERS,
    MAX_UDP,
    MIN_UDP,
    REFUSED,
    T_AXFR,
    T_IXFR,
    Answer,
    BadMessage,
    Query,
    compose,
    error,
    identity,
    parse,
)

log = logging.getLogger(__name__)

IDLE, WHOLE, WRITE = 10.0, 5.0, 30.0
"""Seconds between queries of a connection, for one query to come, and for a message of ours to be taken."""
MAX_TCP = 65535
MAX_QUERY = 4096
"""Bytes; no query needs more."""
MAX_STRANGERS, MAX_STRANGERS_EACH, MAX_PEER_EACH = 128, 8, 64
"""Connections: of all strangers, of one, and of one peer."""
MAX_TRANSFERS = 16
BATCH = 64
"""Datagrams that are answered in one go."""
_CONTROL = 64
IP_PKTINFO, IPV6_RECVPKTINFO, IPV6_PKTINFO, IP_FREEBIND = 8, 49, 50, 15
"""Of <linux/in.h> and <linux/in6.h>; Python does not have all of them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """granted: to a peer, so that it is not counted among what strangers get."""

    wires: Iterator[bytes]
    granted: bool


class Responder:
    """What a query is answered with, whichever way it came."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._logged = Rate(2, 20)

    def reply(self, wire: bytes, address: Address, *, udp: bool) -> Reply | None:
        """None: no answer. Never raises."""
        known = identity(wire)
        if known is None:
            return None
        try:
            query = parse(wire)
            try:
                return self._answer(query, address, udp=udp)
            except Refused as refused:
                if self._logged.take():
                    log.warning("refused a query of %s: %s", address, refused)
                return Reply(iter([compose(query, Answer(REFUSED, authoritative=False))]), False)
        except BadMessage as bad:
            return Reply(iter([error(*known, bad.rcode)]), False)
        except Exception:
            log.exception("a query of %s failed", address)
            return Reply(iter([error(*known, REFUSED)]), False)

    def _answer(self, query: Query, address: Address, *, udp: bool) -> Reply:
        grant = self._directory.grant(query, address)
        if query.edns_version:
            return Reply(self._single(query, grant, Answer(BADVERS, authoritative=False), udp=udp), True)
        if query.kind in (T_AXFR, T_IXFR):
            return Reply(self._transfer(query, grant, udp=udp), True)
        found = lookup.answer(grant.zone.content, grant.owner, query.kind)
        return Reply(self._single(query, grant, found, udp=udp), True)

    def _single(self, query: Query, grant: Grant, found: Answer, *, udp: bool) -> Iterator[bytes]:
        most = max(MIN_UDP, min(query.payload, MAX_UDP)) if udp else MAX_TCP
        room = most - (grant.signer.size if grant.signer else 0)
        wire = compose(query, found)
        if len(wire) > room:
            wire = compose(query, found, truncated=True)
        yield grant.signer.sign(wire) if grant.signer else wire

    def _transfer(self, query: Query, grant: Grant, *, udp: bool) -> Iterator[bytes]:
        content = grant.zone.content
        if grant.owner or (udp and query.kind == T_AXFR) or (query.kind == T_IXFR and query.serial is None):
            return self._single(query, grant, Answer(REFUSED, authoritative=False), udp=udp)
        # By UDP, the newest SOA says to come by TCP (RFC 1995, section 2).
        found = [content.soa] if udp else transfer.records(content, query)
        if query.kind == T_AXFR or len(found) > 1:
            log.info("%s of zone %s, serial %d, to %s", "AXFR" if query.kind == T_AXFR else "IXFR", grant.zone.name,
                     content.serial, address_of(grant))  # fmt: skip
        return transfer.messages(query, found, grant.signer)


def address_of(grant: Grant) -> str:
    return "a peer with a key" if grant.signer else "a peer"


class Server:
    """Sockets of one address. Made in the event loop."""

    def __init__(self, responder: Responder, directory: Directory) -> None:
        self._responder = responder
        self._directory = directory
        self._strangers = Rate(20, 40)
        self._sockets: list[socket.socket] = []
        self._connections: dict[asyncio.Task[None], tuple[Address, bool]] = {}
        self._transfers = asyncio.Semaphore(MAX_TRANSFERS)
        self._loop = asyncio.get_running_loop()

    def open(self, address: str, port: int) -> None:
        """Bind an address, ``""`` for all. Raises OSError, with nothing bound."""
        udp, tcp = bind(address, port)
        self._sockets = [udp, tcp]
        self._loop.add_reader(udp, self._receive, udp)
        self._loop.add_reader(tcp, self._accept, tcp)

    def close(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        for task in self._connections:
            task.cancel()

    # UDP

    def _receive(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                wire, control, _, client = sock.recvmsg(MAX_TCP, _CONTROL)
            except OSError:
                return
            for answer in self._datagram(wire, plain(client[0])):
                try:
                    # From the address that was asked, of several that the host may have.
                    sock.sendmsg([answer], [one for one in map(_source, control) if one], 0, client)
                except OSError as error:
                    log.debug("no answer to %s: %s", client[0], error)

    def _datagram(self, wire: bytes, client: Address) -> list[bytes]:
        reply = self._responder.reply(wire, client, udp=True)
        if reply is None or not (reply.granted or self._strangers.take(client)):
            return []
        return list(reply.wires)

    # TCP

    def _accept(self, sock: socket.socket) -> None:
        """One at a time, so that the task of each has begun, and closes it, when another makes it go."""
        try:
            connection, client = sock.accept()
        except OSError:
            return
        connection.setblocking(False)
        address = plain(client[0])
        task = self._loop.create_task(self._serve(connection, address))
        self._connections[task] = (address, self._directory.is_peer(address))
        task.add_done_callback(lambda task: self._connections.pop(task, None))
        self._make_room(address)

    def _make_room(self, address: Address) -> None:
        """When there are too many connections the oldest go: a newcomer may be a peer who has yet to sign."""
        strangers = [task for task, (_, peer) in self._connections.items() if not peer]
        same = [task for task, (other, _) in self._connections.items() if other == address]
        most = MAX_PEER_EACH if self._directory.is_peer(address) else MAX_STRANGERS_EACH
        for task in {*strangers[:-MAX_STRANGERS], *same[:-most]}:
            task.cancel()
            self._connections.pop(task, None)

    async def _serve(self, connection: socket.socket, client: Address) -> None:
        """One connection, to its end."""
        writer = None
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_TCP)
            while wire := await self._query(reader):
                reply = self._responder.reply(wire, client, udp=False)
                if reply is None:
                    return
                await self._send(writer, reply.wires)
                if not reply.granted:
                    return
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass
        except Exception:
            log.exception("a connection of %s failed", client)
        finally:
            if writer:
                writer.close()
            else:
                connection.close()

    async def _query(self, reader: asyncio.StreamReader) -> bytes:
        """The next one, nothing when the client has no more, or too much to say."""
        async with asyncio.timeout(IDLE):
            first = await reader.read(1)
        if not first:
            return b""
        async with asyncio.timeout(WHOLE):
            length = int.from_bytes(first + await reader.readexactly(1), "big")
            return await reader.readexactly(length) if length <= MAX_QUERY else b""

    async def _send(self, writer: asyncio.StreamWriter, wires: Iterator[bytes]) -> None:
        async with self._transfers:
            for wire in wires:
                writer.write(struct.pack("!H", len(wire)) + wire)
                async with asyncio.timeout(WRITE):
                    await writer.drain()
                await asyncio.sleep(0)  # others come between


def bind(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A socket each for UDP and TCP. An address need not be there yet."""
    family = socket.AF_INET if "." in address or not (address or socket.has_dualstack_ipv6()) else socket.AF_INET6
    opened: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(family, kind)
            opened.append(sock)
            sock.setblocking(False)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if not address else 1)
            if kind == socket.SOCK_DGRAM:
                level, option = (
                    (socket.IPPROTO_IP, IP_PKTINFO)
                    if family == socket.AF_INET
                    else (socket.IPPROTO_IPV6, IPV6_RECVPKTINFO)
                )
                sock.setsockopt(level, option, 1)
            sock.bind((address, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(128)
    except OSError:
        for sock in opened:
            sock.close()
        raise
    return opened[0], opened[1]


def _source(control: tuple[int, int, bytes]) -> tuple[int, int, bytes] | None:
    """Where a datagram was sent to (ip(7), ipv6(7)), as where its answer comes from."""
    level, kind, data = control
    if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO) and len(data) >= 12:
        return level, kind, struct.pack("=i4s4s", 0, data[8:12], bytes(4))
    if (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO) and len(data) >= 20:
        return level, kind, data[:20]
    return None
