# SPDX-License-Identifier: Apache-2.0
"""Whom this host trusts: certificates that may manage it as root may, and tokens by which others come."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sysd.manager.catalog import Catalog
from sysd.manager.events import Event, EventBus, Kind
from sysd.model import server, trust
from sysd.model.errors import BusyError, DeniedError, ExistsError, InvalidError, NotFoundError
from sysd.model.snapshot import expiry
from sysd.model.trust import Invitation, Trusted
from sysd.network import links
from sysd.remote import certificate as certificates
from sysd.remote import ed25519
from sysd.remote.certificate import Identity
from sysd.remote.token import MOST_ADDRESSES, Token
from sysd.store.database import Store

log = logging.getLogger(__name__)

MAX_TRUSTED = 1000
MAX_INVITATIONS = 100
LEAST_REFERENCE = 6
"""Digits of a fingerprint that stand for it."""


class Trust:
    def __init__(self, store: Store, catalog: Catalog, events: EventBus, folder: Path) -> None:
        """folder: where the host's own key is."""
        self._store = store
        self._catalog = catalog
        self._events = events
        self._path = folder / "server.pem"
        self._trusted = {one.fingerprint: one for one in store.trusted()}
        self._invitations = {one.fingerprint: one for one in store.invitations()}
        self._listeners: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have it called when other certificates are trusted than before."""
        self._listeners.append(listener)

    def start(self) -> None:
        self._expire()

    def identity(self) -> Identity:
        """This host's own, made when it is first asked for. Raises OSError or InvalidError when it can't be had."""
        return certificates.load_or_make(str(self._path))

    @property
    def fingerprint(self) -> str:
        """Of that; empty as long as it has not been asked for."""
        try:
            return certificates.load(str(self._path)).fingerprint
        except (OSError, InvalidError):
            return ""

    # who is trusted

    def trusted(self) -> list[Trusted]:
        return sorted(self._trusted.values(), key=lambda one: one.name)

    def invitations(self) -> list[Invitation]:
        """Those that hold now."""
        return sorted((one for one in self._invitations.values() if not one.expired), key=lambda one: one.expires)

    def find(self, fingerprint: str) -> Trusted | None:
        return self._trusted.get(fingerprint)

    def find_invitation(self, fingerprint: str) -> Invitation | None:
        found = self._invitations.get(fingerprint)
        return None if found is None or found.expired else found

    def add(self, text: str, name: str) -> Trusted:
        """Trust a certificate in PEM."""
        trust.check_name(name)
        if name in self._names():
            raise ExistsError(f"{name!r} is trusted already, or invited", "'syscont trust list' shows who is")
        made = self._new(text, name)
        self._store.put_trusted(made)
        self._added(made)
        return made

    def readable(self, text: str) -> tuple[str, str]:
        """Fingerprint and PEM of a certificate that TLS can be spoken with. Raises InvalidError for others."""
        data = certificates.parse(text)
        from sysd.remote import tls  # OpenSSL costs every host some MB that no other one comes to

        if not tls.is_readable(data):
            raise InvalidError("not a certificate that can be read", "one that 'openssl x509' reads")
        return certificates.fingerprint(data), certificates.pem(data)

    def _new(self, text: str, name: str) -> Trusted:
        fingerprint, known_as = self.readable(text)
        made = Trusted(fingerprint, name, known_as)
        if known := self._trusted.get(made.fingerprint):
            raise ExistsError(f"this certificate is trusted already, as {known.name!r}")
        if made.fingerprint in self._invitations:
            raise InvalidError("this is the certificate of a token", "'syscont remote add' uses tokens")
        if len(self._trusted) >= MAX_TRUSTED:
            raise BusyError("too many certificates are trusted", "remove some: 'syscont trust remove'")
        return made

    def _added(self, made: Trusted) -> None:
        self._trusted[made.fingerprint] = made
        log.info("%s is trusted from now on (%s)", made.name, made.fingerprint[:12])
        self._changed()

    def remove(self, reference: str) -> None:
        """One that is trusted, or a token, by name, fingerprint or the beginning of one. Its connections end."""
        found = self._find(reference)
        if isinstance(found, Trusted):
            self._store.delete_trusted(found.fingerprint)
            del self._trusted[found.fingerprint]
            log.info("%s is trusted no more (%s)", found.name, found.fingerprint[:12])
        else:
            self._withdraw(found)
            log.info("a token for %s was withdrawn", found.name or "anyone")
        self._changed()

    def _find(self, reference: str) -> Trusted | Invitation:
        everyone: list[Trusted | Invitation] = [*self.trusted(), *self.invitations()]
        named = [one for one in everyone if reference and reference in (one.name, one.fingerprint)]
        begun = [one for one in everyone if one.fingerprint.startswith(reference.lower())]
        found = named or (begun if len(reference) >= LEAST_REFERENCE else [])
        if len(found) > 1:
            raise InvalidError(f"{reference[:80]!r} is ambiguous", "give more of the fingerprint")
        if not found:
            raise NotFoundError(f"nobody called {reference[:80]!r} is trusted", "'syscont trust list' shows who is")
        return found[0]

    def _names(self) -> set[str]:
        return {one.name for one in self._trusted.values()} | {one.name for one in self.invitations()}

    # tokens

    def invite(self, name: str = "") -> Token:
        """A token for one who is to be called name, "" for as it says itself. It is told here and never again."""
        if name:
            trust.check_name(name)
        if name and name in self._names():
            raise ExistsError(f"{name!r} is trusted already, or invited", "'syscont trust list' shows who is")
        if len(self.invitations()) >= MAX_INVITATIONS:
            raise BusyError("too many tokens are out", "withdraw some: 'syscont trust remove'")
        addresses = self.addresses()
        secret = os.urandom(ed25519.SIZE)
        data = certificates.make(secret)
        expires = self._expiry()
        made = Invitation(certificates.fingerprint(data), name, certificates.pem(data), expires)
        self._store.put_invitation(made)
        self._invitations[made.fingerprint] = made
        log.info("a token for %s is out", name or "anyone")
        self._changed()
        self._expire()
        return Token(name, addresses, self.identity().fingerprint, secret, expires)

    def _expiry(self) -> int:
        text = server.SCHEMA.text(self._catalog.server_config, server.TOKEN_EXPIRY)
        moment = expiry(text, datetime.now(UTC))
        assert moment
        return int(moment.timestamp())

    def join(self, invitation: str, text: str, said: str) -> Trusted:
        """Take the certificate that came with a token, whose fingerprint is invitation, and which is used up then.
        said: what the one who comes calls itself."""
        found = self.find_invitation(invitation)
        if found is None:
            raise DeniedError("the token has been used, has expired, or was withdrawn", "ask for another")
        if known := self._trusted.get(certificates.fingerprint(certificates.parse(text))):
            self._withdraw(found)  # who comes has forgotten this host, and not the other way round
            self._changed()
            return known
        made = self._new(text, found.name or self._free(trust.as_name(said)))
        self._store.exchange_invitation(found.fingerprint, made)
        del self._invitations[found.fingerprint]
        self._added(made)
        return made

    def _withdraw(self, invitation: Invitation) -> None:
        self._store.delete_invitation(invitation.fingerprint)
        del self._invitations[invitation.fingerprint]

    def _free(self, name: str) -> str:
        taken = self._names()
        return next(one for one in _numbered(name) if one not in taken)

    def _expire(self) -> None:
        """Forget tokens whose time is over, and look again when that of the next one is."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        over = [one for one in self._invitations.values() if one.expired]
        for one in over:
            self._withdraw(one)
        if over:
            self._changed()
        if self._invitations:
            left = min(one.expires for one in self._invitations.values()) - time.time()
            # Not for long at once: the clock may be set.
            delay = max(0.5, min(left, 60.0))
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    # where this host is

    def addresses(self) -> list[str]:
        """Where others reach it. Raises InvalidError when they don't."""
        where = self._catalog.server_config.get(server.HTTPS_ADDRESS)
        if not where:
            hint = "'syscont config set core.https_address=:8443' has them come"
            raise InvalidError("nobody can come from another host: core.https_address is not set", hint)
        address, port = server.https_address(where)
        addresses = [address] if address else self._own_addresses()
        return [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in addresses[:MOST_ADDRESSES]]

    def told(self) -> tuple[str, list[str]]:
        """What another host is to know of this one: its certificate (PEM), and addresses, none if nobody can come."""
        addresses: list[str] = []
        with contextlib.suppress(InvalidError):
            addresses = self.addresses()
        return certificates.pem(self.identity().certificate), addresses

    def _own_addresses(self) -> list[str]:
        """All but those in networks of instances, IPv4's first."""
        networks = {network.name for network in self._catalog.networks()}
        found = [each for index, each in links.own_addresses() if _name_of(index) not in networks]
        usable = [each.ip for each in found if not each.ip.is_loopback and not each.ip.is_link_local]
        return [str(ip) for ip in sorted(usable, key=lambda ip: ip.version)] or ["127.0.0.1"]

    def _changed(self) -> None:
        self._events.publish(Event(Kind.SERVER_CHANGED, "", changed=("Trusted",)))
        for listener in self._listeners:
            listener()


def _name_of(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""  # it has gone meanwhile


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        end = f"-{number}"
        yield name[: trust.MOST_NAME - len(end)] + end
        number += 1
