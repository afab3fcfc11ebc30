# SPDX-License-Identifier: Apache-2.0
"""Instances that go to other hosts and come from them, on varlink."""

from __future__ import annotations

from dataclasses import asdict

from sysd.manager.actions import Action
from sysd.manager.copies import DEFAULT_POOL
from sysd.manager.departures import Send
from sysd.manager.manager import Manager
from sysd.manager.transfers import Receive
from sysd.model.errors import InvalidError
from sysd.model.operation import Operation
from sysd.model.transfer import Offer
from sysd.varlink import encode
from sysd.varlink.follow import follow
from sysd.varlink.service import Call, Method


class TransferMethods:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def table(self) -> list[Method]:
        manage = Action.MANAGE_INSTANCES
        return [
            Method("SendInstance", self.send, manage),
            Method("ReceiveInstance", self.receive, manage),
            Method("TakeInstance", self.take, manage),
        ]

    async def send(self, call: Call) -> None:
        wanted = Send(call.text("source"), call.flag("instanceOnly"), call.flag("move"), call.flag("stateful"))
        await self._follow(call, *self._manager.transfers.send(wanted, _way(call), call.caller.uid))

    async def receive(self, call: Call) -> None:
        wanted = Receive(
            call.text("name"),
            call.mapping("config"),
            call.mappings("devices"),
            call.texts("profiles") if call.has("profiles") else None,
            call.flag("ephemeral") if call.has("ephemeral") else None,
            call.flag("move"),
            call.flag("refresh"),
            call.text("pool", DEFAULT_POOL),
        )
        await self._follow(call, *self._manager.transfers.receive(wanted, _way(call), call.caller.uid))

    async def take(self, call: Call) -> None:
        await self._manager.settlements.take(call.text("name"))
        call.reply({})

    async def _follow(self, call: Call, operation: Operation, offer: Offer | None) -> None:
        """The offer is told to who has asked for it and to nobody else, so it is no part of the operation."""
        if offer:
            call.reply({"offer": asdict(offer), "operation": encode.operation(operation)}, continues=True)
        await follow(self._manager, call, operation)


def _way(call: Call) -> Offer | str:
    if call.has("offer") == call.has("peer"):
        raise InvalidError("it takes one of offer and peer")
    if call.has("peer"):
        if not call.more:
            raise InvalidError("an offer is told before the end", "call with more")
        return call.text("peer")
    said = call.object("offer")
    return Offer(said.texts("addresses"), said.text("certificate"), said.text("secret"), said.number("expires"))
