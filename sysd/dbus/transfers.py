# SPDX-License-Identifier: Apache-2.0
"""What org.syscont.Manager has for instances that go to other hosts and come from them."""

from __future__ import annotations

from typing import Any

from sysd.dbus.interface import Call, Method, Options
from sysd.dbus.operation import OPERATION, OPTIONS, operation_path
from sysd.manager.actions import Action
from sysd.manager.copies import DEFAULT_POOL
from sysd.manager.departures import Send
from sysd.manager.manager import Manager
from sysd.manager.transfers import Receive
from sysd.model.errors import InvalidError
from sysd.model.operation import Operation
from sysd.model.transfer import Offer

OFFER = "(assst)"
NO_OFFER: list[Any] = [[], "", "", 0]


class TransferMethods:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def manager_methods(self) -> list[Method]:
        manage, give = Action.MANAGE_INSTANCES, [OPERATION, (OFFER, "offer")]
        return [
            Method("GetIdentity", [], [("s", "certificate"), ("as", "addresses")], self._identity),
            Method("SendInstance", [("s", "source"), OPTIONS], give, self._send, manage),
            Method("ReceiveInstance", [("s", "name"), OPTIONS], give, self._receive, manage),
            Method("TakeInstance", [("s", "name")], [], self._take, manage),
        ]

    async def _identity(self, _: str, call: Call) -> list[Any]:
        """What another host knows this one by (PEM), and where it may come; no addresses where nobody can."""
        return list(self._manager.trust.told())

    async def _send(self, _: str, call: Call) -> list[Any]:
        """source may be INSTANCE/SNAPSHOT. Options: instance-only (b), move (b), stateful (b, of a move: with what
        it has in memory, or not at all), and one of peer (s), the certificate of the other host, which is then to be
        told the offer, or offer, which that has made: addresses, certificate, secret, and when it expires in seconds
        since the epoch."""
        options = call.options
        wanted = Send(call.body[0], options.flag("instance-only"), options.flag("move"), options.flag("stateful"))
        way = _way(options)
        options.end()
        return _told(*self._manager.transfers.send(wanted, way, call.caller.uid))

    async def _receive(self, _: str, call: Call) -> list[Any]:
        """name: PROJECT: alone is the source's name in that project. Options as of CopyInstance but for instance-only,
        refresh (b), move (b), and one of peer and offer (see SendInstance)."""
        options = call.options
        wanted = Receive(
            call.body[0],
            options.take("config", "a{ss}", {}),
            options.take("devices", "a{sa{ss}}", {}),
            options.take("profiles", "as", None),
            options.take("ephemeral", "b", None),
            options.flag("move"),
            options.flag("refresh"),
            options.text("pool", DEFAULT_POOL),
        )
        way = _way(options)
        options.end()
        return _told(*self._manager.transfers.receive(wanted, way, call.caller.uid))

    async def _take(self, _: str, call: Call) -> list[Any]:
        """What has arrived of a move whose source is gone for good, and can't say any more that it has given it up."""
        await self._manager.settlements.take(call.body[0])
        return []


def _way(options: Options) -> Offer | str:
    peer, offer = options.text("peer"), options.take("offer", OFFER, None)
    if bool(peer) == bool(offer):
        raise InvalidError("it takes one of peer and offer")
    return Offer(*offer) if offer else peer


def _told(operation: Operation, offer: Offer | None) -> list[Any]:
    said = [offer.addresses, offer.certificate, offer.secret, offer.expires] if offer else NO_OFFER
    return [*operation_path(operation), said]
