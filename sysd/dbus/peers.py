# SPDX-License-Identifier: Apache-2.0
"""Peers of networks, as methods and a property of network objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sysd.dbus.interface import Call, Method, Property
from sysd.dbus.operation import OPTIONS
from sysd.manager.actions import Action
from sysd.manager.manager import Manager
from sysd.model import peers
from sysd.model.network import Network


class PeerMethods:
    """Part of org.syscont.Network."""

    def __init__(self, manager: Manager) -> None:
        self._catalog = manager.catalog
        self._networks = manager.networks

    def methods(self) -> list[Method]:
        manage = Action.MANAGE_NETWORKS
        return [
            Method("CreatePeer", [("s", "name"), ("s", "target_network"), OPTIONS], [], self._create, manage),
            Method("DeletePeer", [("s", "name")], [], self._delete, manage),
        ]

    def property(self) -> Property:
        """Of each: name, target network, description, and status: created, or pending until the other network names
        this one."""
        return Property("Peers", "a(ssss)", self._all)

    def _all(self, name: str) -> list[Any]:
        network, everyone = self._catalog.network(name), self._catalog.networks()
        return [
            [each.name, each.target, each.description, peers.status(network, each, everyone)]
            for each in network.peered
        ]

    async def _create(self, name: str, call: Call) -> list[Any]:
        """Options: description (s)."""
        options = call.options
        about = options.text("description")
        options.end()
        peer, target = call.body[:2]
        return await self._do(name, call, lambda network: peers.with_peer(network, peer, target, about))

    async def _delete(self, name: str, call: Call) -> list[Any]:
        return await self._do(name, call, lambda network: peers.without(network, call.body[0]))

    async def _do(self, name: str, call: Call, change: Callable[[Network], list[dict[str, Any]]]) -> list[Any]:
        await self._networks.change_peers(name, change, call.caller.uid)
        return []
