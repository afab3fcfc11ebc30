# SPDX-License-Identifier: Apache-2.0
"""Peers of networks on varlink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sysd.manager.actions import Action
from sysd.manager.manager import Manager
from sysd.model import peers
from sysd.model.network import Network
from sysd.model.peers import Peer
from sysd.varlink.service import Call, Method


class PeerMethods:
    def __init__(self, manager: Manager) -> None:
        self._catalog = manager.catalog
        self._networks = manager.networks

    def table(self) -> list[Method]:
        manage = Action.MANAGE_NETWORKS
        return [
            Method("ListPeers", self.list_peers),
            Method("GetPeer", self.get_peer),
            Method("CreatePeer", self.create_peer, manage),
            Method("DeletePeer", self.delete_peer, manage),
        ]

    async def list_peers(self, call: Call) -> None:
        network = self._catalog.network(call.text("network"))
        call.reply({"peers": [self._peer(network, each) for each in network.peered]})

    async def get_peer(self, call: Call) -> None:
        network = self._catalog.network(call.text("network"))
        call.reply({"peer": self._peer(network, peers.find(network, call.text("name")))})

    async def create_peer(self, call: Call) -> None:
        name, target, about = call.text("name"), call.text("targetNetwork"), call.text("description", "")
        await self._change(call, lambda network: peers.with_peer(network, name, target, about))

    async def delete_peer(self, call: Call) -> None:
        name = call.text("name")
        await self._change(call, lambda network: peers.without(network, name))

    async def _change(self, call: Call, change: Callable[[Network], list[dict[str, Any]]]) -> None:
        await self._networks.change_peers(call.text("network"), change, call.caller.uid)
        call.reply({})

    def _peer(self, network: Network, value: Peer) -> dict[str, Any]:
        return {
            "name": value.name,
            "targetNetwork": value.target,
            "description": value.description,
            "status": peers.status(network, value, self._catalog.networks()),
        }
