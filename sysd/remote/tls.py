# SPDX-License-Identifier: Apache-2.0
"""TLS as hosts speak it: 1.3 and nothing before it, and a certificate at both ends that the other end trusts.

There are no authorities: the trusted certificates themselves are what OpenSSL is told to believe. A peer that has none
of them does not get to the end of the handshake, and no byte of what it says is looked at.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable

from sysd.remote.certificate import Identity, fingerprint

_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""A peer that is gone without a word is known to be in two minutes. Not every system has each of these."""


UNANSWERED = 120
"""Seconds."""


def server_context(own: Identity, trusted: Iterable[bytes]) -> ssl.SSLContext:
    """For peers that show one of the trusted certificates, all of which is_readable."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, own)
    # What a ticket brings back is not verified again.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    for certificate in trusted:
        context.load_verify_locations(cadata=certificate)
    return context


def client_context(own: Identity, server: bytes | None) -> ssl.SSLContext:
    """For a server that shows just this certificate; of None, whose is then to be looked at."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, own)
    if server is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=server)
    return context


def _context(protocol: int, own: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # A certificate is trusted for itself, also one that is signed by another.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(own.path)
    return context


def is_readable(certificate: bytes) -> bool:
    """Whether OpenSSL takes it for a certificate."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
    except ssl.SSLError:
        return False
    return True


def peer_of(connection: ssl.SSLSocket) -> str:
    """The fingerprint of the certificate that the peer has shown, and has the key of."""
    certificate = connection.getpeercert(binary_form=True)
    return fingerprint(certificate) if certificate else ""


def expect_answers(sock: socket.socket) -> None:
    """A peer that is gone is noticed as soon when there is something under way to it, which else takes a quarter of an
    hour. Not for one that may not read for as long as it likes."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED * 1000)


def tune(sock: socket.socket) -> None:
    """What is said goes out at once, and a peer that is gone is noticed."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
