# SPDX-License-Identifier: Apache-2.0
"""Reaching another host: a connection to one of its addresses, with the certificate at the other end that it has."""

from __future__ import annotations

import errno
import select
import socket
import ssl
import time
from collections.abc import Iterator, Sequence

from sysd.model.errors import DeniedError, FailedError, SyscontError
from sysd.remote import tls
from sysd.remote.addresses import split_address
from sysd.remote.certificate import Identity
from sysd.remote.certificate import fingerprint as fingerprint_of

CONNECT = 10.0
"""Seconds for a connection, to any of the addresses, and for the handshake on it."""
HEAD_START = 0.3
"""Seconds that an address is tried alone before the next one is, too."""

_UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK))
# What a host says to who is not trusted (RFC 8446, section 6.2), and what OpenSSL calls it.
_UNTRUSTED = ("UNKNOWN_CA", "CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "ACCESS_DENIED")


def dial(addresses: Sequence[str], own: Identity, certificate: bytes) -> ssl.SSLSocket:
    """A connection to the host that has this certificate. Raises SyscontError."""
    return _dial(addresses, tls.client_context(own, certificate), fingerprint_of(certificate))


def dial_unknown(addresses: Sequence[str], own: Identity, fingerprint: str) -> tuple[ssl.SSLSocket, bytes]:
    """The same, of a host of whose certificate no more than the fingerprint is known; and the certificate."""
    connection = _dial(addresses, tls.client_context(own, None), fingerprint)
    certificate = connection.getpeercert(binary_form=True)
    assert certificate
    return connection, certificate


def _dial(addresses: Sequence[str], context: ssl.SSLContext, fingerprint: str) -> ssl.SSLSocket:
    """The first of the addresses at which the host itself answers: others may have one of them in their networks."""
    problem: SyscontError = FailedError("it has no address")
    for address, sock in _connected(addresses):
        try:
            sock.settimeout(CONNECT)
            tls.tune(sock)
            connection = context.wrap_socket(sock)
            if tls.peer_of(connection) == fingerprint:
                return connection
            connection.close()
            problem = DeniedError(f"{address} is not the host that it was: its certificate is another one", _MOVED)
        except ssl.SSLCertVerificationError:
            problem = DeniedError(f"{address} is not the host that it was: its certificate is another one", _MOVED)
        except OSError as error:
            problem = explained(error, address)
    raise problem


_MOVED = "if that is meant to be so, remove it here and add it again"


def explained(error: OSError, address: str) -> SyscontError:
    """What went wrong on a connection, for people."""
    reason = str(getattr(error, "reason", "") or "")
    if any(word in reason for word in _UNTRUSTED):
        return DeniedError(f"{address} does not trust us", "it may have been told to, or the token is no longer good")
    if isinstance(error, TimeoutError):
        return FailedError(f"{address} does not answer in time")
    return FailedError(f"{address}: {reason or error.strerror or error}")


def _connected(addresses: Sequence[str]) -> Iterator[tuple[str, socket.socket]]:
    """Connections to addresses as they come about, each tried a while after the one before it. Raises SyscontError when
    there is none."""
    problem: SyscontError | None = None
    trying: dict[socket.socket, str] = {}
    waiting = list(addresses)
    found = False
    deadline, due = time.monotonic() + CONNECT, 0.0
    try:
        while (waiting or trying) and (now := time.monotonic()) < deadline:
            if waiting and (now >= due or not trying):
                due = now + HEAD_START
                try:
                    trying[_begin(waiting[0])] = waiting[0]
                except OSError as error:
                    problem = explained(error, waiting[0])
                del waiting[0]
                continue
            _, writable, broken = select.select([], trying, trying, min(deadline, due if waiting else deadline) - now)
            for sock in {*writable, *broken}:
                address = trying.pop(sock)
                if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    problem = explained(OSError(number, _words(number)), address)
                    sock.close()
                else:
                    found = True
                    yield address, sock
    finally:
        for sock in trying:
            sock.close()
    if not found:
        raise problem or FailedError(f"{', '.join(addresses)}: no answer")


def _begin(address: str) -> socket.socket:
    host, port = split_address(address)
    # Names have several addresses at times; the first will do: those of a token are all of the host's.
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        number = sock.connect_ex(where)
        if number and number not in _UNDER_WAY:
            raise OSError(number, _words(number))
    except BaseException:
        sock.close()
        raise
    return sock


def _words(number: int) -> str:
    from os import strerror

    return strerror(number)
