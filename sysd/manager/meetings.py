# SPDX-License-Identifier: Apache-2.0
"""Where hosts that need not trust each other meet, for one purpose that who is trusted by both has told them.

One of them waits: its door takes a certificate that it was told, for a minute, to show one secret and nothing else. The
other one dials, and goes no further than to the host whose certificate it was told.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sysd.manager import lines
from sysd.manager.lines import Line
from sysd.manager.trust import Trust
from sysd.model.errors import BusyError, DeniedError, FailedError, InvalidError
from sysd.model.transfer import Offer
from sysd.remote import certificate as certificates
from sysd.remote.addresses import check_address
from sysd.remote.token import MOST_ADDRESSES

PATIENCE = 60.0
"""Seconds in which the other host has to come."""
MOST_AWAITED = 64
SECRET = 32


@dataclass(slots=True, eq=False)
class Awaited:
    """Another host that is to come. line is set when it has; certificate: its, in PEM."""

    fingerprint: str
    certificate: str
    digest: bytes
    line: asyncio.Future[Line] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Meetings:
    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._awaited: list[Awaited] = []
        self._listeners: list[Callable[[], None]] = []
        self.unsettled: Callable[[], list[str]] = list
        """Certificates (PEM) of hosts that may come to settle what has become of a move."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have it called when others are awaited than before."""
        self._listeners.append(listener)

    def certificates(self) -> list[str]:
        """Of those who may come now; one that is here, too, as it may have something to settle if its line is lost."""
        return [*(one.certificate for one in self._awaited), *self.unsettled()]

    def expects(self, fingerprint: str) -> bool:
        """Whether one may come who has this certificate."""
        return any(fingerprint_of(one) == fingerprint for one in self.certificates())

    def is_here(self, fingerprint: str) -> bool:
        """Whether one has come who has this certificate, and is not gone."""
        return any(one.fingerprint == fingerprint and one.line.done() for one in self._awaited)

    # waiting

    def offer(self, peer: str) -> tuple[Offer, Awaited]:
        """Wait for a host that has this certificate (PEM), until it has come, its time is over or it is given up."""
        addresses = self._trust.addresses()
        fingerprint, known = self._trust.readable(peer)
        if len(self._awaited) >= MOST_AWAITED:
            raise BusyError("too many hosts are awaited", "try again in a minute")
        secret = secrets.token_bytes(SECRET)
        made = Awaited(fingerprint, known, hashlib.sha256(secret).digest())
        self._awaited.append(made)
        self.changed()
        own = certificates.pem(self._trust.identity().certificate)
        told = base64.urlsafe_b64encode(secret).decode().rstrip("=")
        return Offer(addresses, own, told, int(time.time() + PATIENCE)), made

    def give_up(self, awaited: Awaited) -> None:
        """It may come no more; also when it has come and is done."""
        self._awaited.remove(awaited)
        self.changed()

    def meet(self, fingerprint: str, secret: str, fds: Sequence[int]) -> Line:
        """One has come: who has the certificate of this fingerprint. fds are those of a line, which has them from now
        on. Raises DeniedError unless it is awaited, by this secret."""
        digest = hashlib.sha256(_decoded(secret)).digest()
        found = None
        for one in self._awaited:
            matches = hmac.compare_digest(one.digest, digest)
            if matches and one.fingerprint == fingerprint and not one.line.done():
                found = one
        if found is None:
            raise DeniedError("nobody is awaited who says this", "it may be too late for it")
        line = Line(fds)
        found.line.set_result(line)
        self.changed()
        return line

    async def stay(self, line: Line) -> None:
        """To the end of one that has come."""
        try:
            await line.ended
        finally:
            line.lose(FailedError(lines.LOST))

    # both

    @asynccontextmanager
    async def line(self, way: Offer | Awaited) -> AsyncIterator[Line]:
        """To a host that waits for us, or to one that is to come, for the block. Raises SyscontError."""
        if isinstance(way, Offer):
            line = await self._dial(way)
            try:
                yield line
            finally:
                await line.close()
            return
        try:
            yield await self._come(way)
        finally:
            self.give_up(way)
            if way.line.done() and not way.line.cancelled():
                await way.line.result().close()

    async def _come(self, awaited: Awaited) -> Line:
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(awaited.line)
        except TimeoutError:
            why = f"the other host did not come within {PATIENCE:.0f} seconds"
            raise FailedError(why, "it may not reach this one") from None

    async def _dial(self, offer: Offer) -> Line:
        addresses = [check_address(one) for one in offer.addresses]
        if not 0 < len(addresses) <= MOST_ADDRESSES:
            raise InvalidError(f"{len(addresses)} addresses of the other host", f"1 to {MOST_ADDRESSES}")
        certificate = certificates.parse(self._trust.readable(offer.certificate)[1])
        own = self._trust.identity()
        return await lines.dial(addresses, own, certificate, offer.secret)

    def changed(self) -> None:
        """Others may come than before."""
        for listener in self._listeners:
            listener()


def fingerprint_of(certificate: str) -> str:
    return certificates.fingerprint(certificates.parse(certificate))


def _decoded(secret: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(secret[:64].encode() + b"==")
    except ValueError:
        return b""
