# SPDX-License-Identifier: Apache-2.0
"""Networks on varlink."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sysd.manager.actions import Action
from sysd.manager.manager import Manager
from sysd.manager.networks import NetworkUpdate
from sysd.model.network import BRIDGE, Network
from sysd.varlink.service import Call, Method


class NetworkMethods:
    def __init__(self, manager: Manager) -> None:
        self._catalog = manager.catalog
        self._networks = manager.networks

    def table(self) -> list[Method]:
        manage = Action.MANAGE_NETWORKS
        return [
            Method("ListNetworks", self.list_networks),
            Method("GetNetwork", self.get_network),
            Method("CreateNetwork", self.create_network, manage),
            Method("UpdateNetwork", self.update_network, manage),
            Method("ChangeNetwork", self.change_network, manage),
            Method("RenameNetwork", self.rename_network, manage),
            Method("DeleteNetwork", self.delete_network, manage),
            Method("ListLeases", self.list_leases),
            Method("GetNetworkState", self.get_network_state),
            Method("GetAcceleration", self.get_acceleration),
        ]

    async def list_networks(self, call: Call) -> None:
        call.reply({"networks": [self._network(network) for network in self._networks.all()]})

    async def get_network(self, call: Call) -> None:
        call.reply({"network": self._network(self._catalog.network(call.text("name")))})

    async def create_network(self, call: Call) -> None:
        await self._networks.create(call.text("name"), call.text("type", BRIDGE), _update(call), call.caller.uid)
        call.reply({})

    async def update_network(self, call: Call) -> None:
        await self._networks.update(call.text("name"), _update(call), call.caller.uid)
        call.reply({})

    async def change_network(self, call: Call) -> None:
        await self._networks.change(call.text("name"), call.mapping("set"), call.texts("unset"), call.caller.uid)
        call.reply({})

    async def rename_network(self, call: Call) -> None:
        await self._networks.rename(call.text("name"), call.text("newName"), call.caller.uid)
        call.reply({})

    async def delete_network(self, call: Call) -> None:
        await self._networks.delete(call.text("name"), call.caller.uid)
        call.reply({})

    async def list_leases(self, call: Call) -> None:
        call.reply({"leases": [asdict(lease) for lease in self._networks.leases(call.text("name"))]})

    async def get_network_state(self, call: Call) -> None:
        call.reply({"state": asdict(await self._networks.state(call.text("name")))})

    async def get_acceleration(self, call: Call) -> None:
        call.reply({"acceleration": asdict(await self._networks.acceleration())})

    def _network(self, value: Network) -> dict[str, Any]:
        users = self._networks.users(value.name)
        return {
            "name": value.name,
            "type": value.type,
            "description": value.description,
            "config": value.config,
            "ipv4": value.ipv4,
            "ipv6": value.ipv6,
            "domain": value.domain,
            "usedBy": users.instances,
            "profiles": users.profiles,
        }


def _update(call: Call) -> NetworkUpdate:
    return NetworkUpdate(
        config=call.mapping("config") if call.has("config") else None,
        description=call.text("description") if call.has("description") else None,
    )
