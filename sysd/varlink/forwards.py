# SPDX-License-Identifier: Apache-2.0
"""Forwards of networks on varlink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sysd.manager.actions import Action
from sysd.manager.manager import Manager
from sysd.model import forwards
from sysd.model.forwards import Forward, Port
from sysd.model.network import Network
from sysd.varlink.service import Call, Method


class ForwardMethods:
    def __init__(self, manager: Manager) -> None:
        self._catalog = manager.catalog
        self._networks = manager.networks

    def table(self) -> list[Method]:
        manage = Action.MANAGE_NETWORKS
        return [
            Method("ListForwards", self.list_forwards),
            Method("GetForward", self.get_forward),
            Method("CreateForward", self.create_forward, manage),
            Method("ChangeForward", self.change_forward, manage),
            Method("DeleteForward", self.delete_forward, manage),
            Method("AddForwardPort", self.add_port, manage),
            Method("RemoveForwardPort", self.remove_port, manage),
        ]

    async def list_forwards(self, call: Call) -> None:
        network = self._catalog.network(call.text("network"))
        call.reply({"forwards": [_forward(each) for each in network.forwarded]})

    async def get_forward(self, call: Call) -> None:
        network = self._catalog.network(call.text("network"))
        call.reply({"forward": _forward(forwards.find(network, _listen(call)))})

    async def create_forward(self, call: Call) -> None:
        listen, target, about = _listen(call), call.text("targetAddress", ""), call.text("description", "")
        await self._change(call, lambda network: forwards.with_forward(network, listen, target, about))

    async def change_forward(self, call: Call) -> None:
        listen, target, about = _listen(call), _given(call, "targetAddress"), _given(call, "description")
        await self._change(call, lambda network: forwards.changed(network, listen, target, about))

    async def delete_forward(self, call: Call) -> None:
        listen = _listen(call)
        await self._change(call, lambda network: forwards.without(network, listen))

    async def add_port(self, call: Call) -> None:
        listen = _listen(call)
        port = Port(
            call.text("protocol"),
            call.text("listenPorts"),
            call.text("targetAddress"),
            call.text("targetPorts", ""),
            call.text("description", ""),
        )
        await self._change(call, lambda network: forwards.with_port(network, listen, port))

    async def remove_port(self, call: Call) -> None:
        listen, protocol, ports = _listen(call), call.text("protocol"), call.text("listenPorts")
        await self._change(call, lambda network: forwards.without_port(network, listen, protocol, ports))

    async def _change(self, call: Call, change: Callable[[Network], list[dict[str, Any]]]) -> None:
        await self._networks.change_forwards(call.text("network"), change, call.caller.uid)
        call.reply({})


def _listen(call: Call) -> str:
    return call.text("listenAddress")


def _given(call: Call, name: str) -> str | None:
    return call.text(name) if call.has(name) else None


def _forward(value: Forward) -> dict[str, Any]:
    return {
        "listenAddress": value.listen,
        "targetAddress": value.target,
        "description": value.description,
        "ports": [
            {
                "protocol": port.protocol,
                "listenPorts": port.listen,
                "targetAddress": port.address,
                "targetPorts": port.target,
                "description": port.description,
            }
            for port in value.parsed
        ],
    }
