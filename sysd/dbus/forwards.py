# SPDX-License-Identifier: Apache-2.0
"""Forwards of networks, as methods and a property of network objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sysd.dbus.interface import Call, Method, Property
from sysd.dbus.operation import OPTIONS
from sysd.manager.actions import Action
from sysd.manager.manager import Manager
from sysd.model import forwards
from sysd.model.forwards import Port
from sysd.model.network import Network

LISTEN = ("s", "listen_address")
PORTS = [LISTEN, ("s", "protocol"), ("s", "listen_ports")]


class ForwardMethods:
    """Part of org.syscont.Network."""

    def __init__(self, manager: Manager) -> None:
        self._catalog = manager.catalog
        self._networks = manager.networks

    def methods(self) -> list[Method]:
        manage = Action.MANAGE_NETWORKS
        return [
            Method("CreateForward", [LISTEN, OPTIONS], [], self._create, manage),
            Method("ChangeForward", [LISTEN, OPTIONS], [], self._change, manage),
            Method("DeleteForward", [LISTEN], [], self._delete, manage),
            Method("AddForwardPort", [*PORTS, ("s", "target_address"), OPTIONS], [], self._add_port, manage),
            Method("RemoveForwardPort", PORTS, [], self._remove_port, manage),
        ]

    def property(self) -> Property:
        """Of each: listen address, target address, description; of each of its ports: protocol, listen ports, target
        address, target ports, description."""
        return Property("Forwards", "a(sssa(sssss))", self._all)

    def _all(self, name: str) -> list[Any]:
        return [
            [each.listen, each.target, each.description,
             [[port.protocol, port.listen, port.address, port.target, port.description] for port in each.parsed]]
            for each in self._catalog.network(name).forwarded
        ]  # fmt: skip

    async def _create(self, name: str, call: Call) -> list[Any]:
        """Options: target_address (s), description (s)."""
        options = call.options
        target, about = options.text("target_address"), options.text("description")
        options.end()
        return await self._do(name, call, lambda network: forwards.with_forward(network, call.body[0], target, about))

    async def _change(self, name: str, call: Call) -> list[Any]:
        """Options: target_address (s), empty for none; description (s); what is not given stays."""
        options = call.options
        target, about = (options.take(each, "s", None) for each in ("target_address", "description"))
        options.end()
        return await self._do(name, call, lambda network: forwards.changed(network, call.body[0], target, about))

    async def _delete(self, name: str, call: Call) -> list[Any]:
        return await self._do(name, call, lambda network: forwards.without(network, call.body[0]))

    async def _add_port(self, name: str, call: Call) -> list[Any]:
        """Options: target_ports (s), those that are listened to if not given; description (s)."""
        options = call.options
        listen, protocol, ports, target = call.body[:4]
        port = Port(protocol, ports, target, options.text("target_ports"), options.text("description"))
        options.end()
        return await self._do(name, call, lambda network: forwards.with_port(network, listen, port))

    async def _remove_port(self, name: str, call: Call) -> list[Any]:
        listen, protocol, ports = call.body
        return await self._do(name, call, lambda network: forwards.without_port(network, listen, protocol, ports))

    async def _do(self, name: str, call: Call, change: Callable[[Network], list[dict[str, Any]]]) -> list[Any]:
        await self._networks.change_forwards(name, change, call.caller.uid)
        return []
