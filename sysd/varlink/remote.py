# SPDX-License-Identifier: Apache-2.0
"""The door for other hosts and their users: TLS on core.https_address, with varlink behind it as on the socket.

A stranger gets no further than the handshake, and there are not many of them at a time. Whoever has a token gets
further by one call: Join. So does a host that is awaited: Meet.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from sysd.manager.actions import Authority, Caller, awaited, invited, trusted_remote
from sysd.manager.lines import STREAMS
from sysd.manager.meetings import Meetings
from sysd.manager.settlements import Settlements
from sysd.manager.trust import Trust
from sysd.model.errors import FailedError, InvalidError, SyscontError
from sysd.model.server import HTTPS_ADDRESS, https_address
from sysd.remote import tls
from sysd.remote.certificate import parse
from sysd.runtime.pace import Pace
from sysd.varlink.gateway import Gateway
from sysd.varlink.meetings import MeetingMethods
from sysd.varlink.protocol import MANAGERS, Limits
from sysd.varlink.service import INTERFACE, Answers, Call, Interface, Method

log = logging.getLogger(__name__)

HANDSHAKE = 10.0
"""Seconds for a whole handshake."""
HEAR = 2.0
"""Seconds in which one who was refused is to hang up."""
JOIN = 30.0
"""Seconds that who has a token may stay."""
PARTING = 20.0
"""Seconds in which a connection is to be closed after the service has done with it."""
MAX_STRANGERS, MAX_STRANGERS_EACH = 128, 8
"""Connections that are yet to show a certificate: of all, and of one address."""
MAX_AWAITED_EACH = 16
MAX_PEERS, MAX_PEERS_EACH = 1024, 256
"""Connections of all who are trusted, and with one certificate; before that, of one host that is awaited."""
FAILURES, FAILURES_AT_ONCE = 1.0, 20
"""Handshakes that an address may fail in, in a second and at once."""
MOST_KNOWN = 4096
PREFIX = {4: 32, 6: 64}
"""Bits of an address whose owners count as one."""
RETRY_LISTEN = 5.0
BACKLOG = 128
JOINERS = Limits(message=32 << 10, fds=0, unread=64 << 10)
AWAITED = Limits(message=32 << 10, fds=len(STREAMS), unread=64 << 10)
IP_FREEBIND = 15  # <linux/in.h>

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True, eq=False)
class Visitor:
    """A connection. sock is a second hold on it, by which it can be ended from here; fingerprint is of the certificate
    that was shown, "" until then."""

    sock: socket.socket
    network: Network
    fingerprint: str = ""
    joins: bool = False

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Failures:
    """How often handshakes of an address fail: it costs us more than them."""

    def __init__(self) -> None:
        self._paces: OrderedDict[Network, Pace] = OrderedDict()

    def count(self, network: Network) -> bool:
        """One more; whether it is worth telling."""
        pace = self._paces.pop(network, None) or Pace(FAILURES, FAILURES_AT_ONCE)
        self._paces[network] = pace
        if len(self._paces) > MOST_KNOWN:
            self._paces.popitem(last=False)
        return pace.step() == 0

    def too_many(self, network: Network) -> bool:
        pace = self._paces.get(network)
        return pace is not None and pace.wait > 0


class RemoteDoor:
    """Made in the event loop."""

    def __init__(
        self,
        trust: Trust,
        meetings: Meetings,
        settlements: Settlements,
        interface: Interface,
        authority: Authority,
    ) -> None:
        self._trust = trust
        self._meetings = meetings
        self._answers = Answers(interface, authority)
        # Without a description: there is nothing to learn from it.
        self._join_answers = Answers(Interface(INTERFACE, "", [Method("Join", self._join)]), authority)
        self._meet_answers = Answers(Interface(INTERFACE, "", MeetingMethods(meetings, settlements).table()), authority)
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._context: ssl.SSLContext | None = None
        self._where = ""
        self._retry: asyncio.TimerHandle | None = None
        self._visitors: dict[Visitor, None] = {}
        self._failures = Failures()
        trust.on_change(self._trust_changed)
        meetings.on_change(self._renew_context)

    # where it is

    def check_server_config(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Be where the host's configuration is going to say; raises FailedError when that can't be, and stays where it
        is."""
        if before.get(HTTPS_ADDRESS) != after.get(HTTPS_ADDRESS):
            self.listen(after.get(HTTPS_ADDRESS, ""))

    def listen(self, where: str) -> None:
        """Open at an address as core.https_address has it, "" for nowhere, in place of that of now. Raises FailedError,
        and goes on as before."""
        if self._retry:
            self._retry.cancel()
        if where and self._context is None:
            self._context = self._new_context()
        self._shut()  # first: all addresses cannot be bound while one is
        try:
            self._listener = self._opened(where) if where else None
        except FailedError:
            with contextlib.suppress(FailedError):
                self._listener = self._opened(self._where) if self._where else None
            raise
        self._where = where

    def listen_sometime(self, where: str) -> None:
        """The same as soon as it can be."""
        try:
            self.listen(where)
        except SyscontError as error:
            log.error("%s", error)
            self._retry = self._loop.call_later(RETRY_LISTEN, self.listen_sometime, where)

    def close(self) -> None:
        """For good."""
        self._shut()
        if self._retry:
            self._retry.cancel()
        for visitor in self._visitors:
            visitor.end()
        self._answers.close()
        self._join_answers.close()
        self._meet_answers.close()

    def _shut(self) -> None:
        if self._listener:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _opened(self, where: str) -> socket.socket:
        address, port = https_address(where)
        try:
            listener = bind(address, port)
        except OSError as error:
            raise FailedError(f"{HTTPS_ADDRESS}: {where} can't be listened at: {error.strerror}") from None
        self._loop.add_reader(listener, self._accept, listener)
        return listener

    # who is trusted

    def _new_context(self) -> ssl.SSLContext:
        known = [one.certificate for one in self._trust.trusted()]
        known += [one.certificate for one in self._trust.invitations()]
        certificates = [parse(one) for one in (*known, *self._meetings.certificates())]
        try:
            own = self._trust.identity()
            try:
                return tls.server_context(own, certificates)
            except ssl.SSLError:  # this OpenSSL may not take what one before it took
                return tls.server_context(own, filter(tls.is_readable, certificates))
        except (OSError, InvalidError) as error:
            hint = "without that file another one is made, which other hosts then have to be told of"
            raise FailedError(f"/var/lib/syscont/server.pem can't be used: {error}", hint) from None

    def _renew_context(self) -> None:
        if self._context is not None:
            try:
                self._context = self._new_context()
            except SyscontError as error:
                log.error("%s", error)
                self._context = None
                self._shut()
                self._retry = self._loop.call_later(RETRY_LISTEN, self.listen_sometime, self._where)

    def _trust_changed(self) -> None:
        """Connections whose certificate is not trusted any more end. One that brought another with a token is told so
        first, and has nothing more to say."""
        self._renew_context()
        for visitor in self._visitors:
            known = self._trust.find(visitor.fingerprint)
            if visitor.fingerprint and not known and not visitor.joins:
                visitor.end()

    # who comes

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, client = listener.accept()
        except OSError:
            return
        network = network_of(client[0])
        if self._context is None or self._failures.too_many(network):
            sock.close()
            return
        visitor = Visitor(sock.dup(), network)
        thread = threading.Thread(target=self._serve, args=(visitor, sock, self._context), daemon=True, name="remote")
        try:
            thread.start()
        except RuntimeError as error:
            log.error("a connection from %s can't be served: %s", client[0], error)
            sock.close()
            visitor.sock.close()
            return
        self._visitors[visitor] = None
        self._make_room(network)

    def _make_room(self, network: Network) -> None:
        """When there are too many strangers the oldest go: a newcomer may be one who is trusted."""
        strangers = [visitor for visitor in self._visitors if not visitor.fingerprint]
        same = [visitor for visitor in strangers if visitor.network == network]
        for visitor in {*strangers[:-MAX_STRANGERS], *same[:-MAX_STRANGERS_EACH]}:
            visitor.end()

    def _serve(self, visitor: Visitor, sock: socket.socket, context: ssl.SSLContext) -> None:
        """In a thread: one connection, to its end."""
        try:
            connection = _shaken(sock, context)
            if isinstance(connection, str):
                self._loop.call_soon_threadsafe(self._refused, visitor, connection)
                _part(visitor.sock)
                return
            admission: Future[socket.socket | None] = Future()
            self._loop.call_soon_threadsafe(self._admit, visitor, tls.peer_of(connection), admission)
            if control := admission.result():
                Gateway(connection, control).run()
            else:
                connection.close()
        except Exception:
            log.exception("a connection from %s failed", visitor.network.network_address)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and all with it
                self._loop.call_soon_threadsafe(self._left, visitor)

    def _refused(self, visitor: Visitor, why: str) -> None:
        if self._failures.count(visitor.network):
            log.warning("%s was refused: %s", visitor.network.network_address, why)

    def _left(self, visitor: Visitor) -> None:
        self._visitors.pop(visitor, None)
        visitor.sock.close()

    def _admit(self, visitor: Visitor, fingerprint: str, admission: Future[socket.socket | None]) -> None:
        """The near end of a connection to the service, for one who may speak to it; None for others."""
        try:
            admission.set_result(self._admitted(visitor, fingerprint))
        except BaseException as error:
            admission.set_exception(error)

    def _admitted(self, visitor: Visitor, fingerprint: str) -> socket.socket | None:
        peers = [other.fingerprint for other in self._visitors if other.fingerprint]
        if known := self._trust.find(fingerprint):
            if len(peers) >= MAX_PEERS or peers.count(fingerprint) >= MAX_PEERS_EACH:
                log.warning("%s has too many connections", known.name)
                return None
            visitor.fingerprint = fingerprint
            return self._connected(visitor, self._answers, trusted_remote(known.name, fingerprint), MANAGERS)
        if self._trust.find_invitation(fingerprint):
            visitor.fingerprint, visitor.joins = fingerprint, True
            self._loop.call_later(JOIN, visitor.end)
            return self._connected(visitor, self._join_answers, invited(fingerprint), JOINERS)
        if self._meetings.expects(fingerprint) and peers.count(fingerprint) < MAX_AWAITED_EACH:
            visitor.fingerprint, visitor.joins = fingerprint, True
            self._loop.call_later(JOIN, self._see_off, visitor)
            tls.expect_answers(visitor.sock)
            return self._connected(visitor, self._meet_answers, awaited(fingerprint), AWAITED)
        return None  # trusted no more, since a moment ago

    def _see_off(self, visitor: Visitor) -> None:
        """One that was awaited and has shown nothing."""
        if self._meetings.is_here(visitor.fingerprint):
            self._loop.call_later(JOIN, self._see_off, visitor)
        else:
            visitor.end()

    def _connected(self, visitor: Visitor, answers: Answers, caller: Caller, limits: Limits) -> socket.socket:
        theirs, ours = socket.socketpair()

        def closed() -> None:
            # What was said last is on its way. A peer that does not take it is not waited for.
            self._loop.call_later(PARTING, visitor.end)

        answers.add(ours, caller, closed, limits)
        return theirs

    # what a token is good for

    async def _join(self, call: Call) -> None:
        made = self._trust.join(call.caller.remote, call.text("certificate"), call.text("name", ""))
        call.reply({"name": made.name})


def _shaken(sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket | str:
    """The connection after its handshake, or why there is none."""
    try:
        sock.settimeout(HANDSHAKE)
        tls.tune(sock)
        return context.wrap_socket(sock, server_side=True)
    except ssl.SSLError as error:
        return str(error.reason or error)
    except OSError as error:
        return error.strerror or "it took too long"
    finally:
        sock.close()  # what was wrapped is not it any more


def _part(sock: socket.socket) -> None:
    """Let one who was refused hear why: what is under way is lost when a connection is closed with bytes unread."""
    deadline = time.monotonic() + HEAR
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(1 << 16):
                return


def network_of(address: str) -> Network:
    """Whom an address of a socket counts to."""
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return ipaddress.ip_network((found, PREFIX[found.version]), strict=False)


def bind(address: str, port: int) -> socket.socket:
    """Listening; "" is all addresses. An address need not be there yet."""
    family = socket.AF_INET if "." in address or not (address or socket.has_dualstack_ipv6()) else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if address else 0)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
