# SPDX-License-Identifier: Apache-2.0
"""Networks as D-Bus objects, and the manager's methods for them."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from sysd.dbus.forwards import ForwardMethods
from sysd.dbus.interface import Call, Interface, Method, Options, Property
from sysd.dbus.operation import OPTIONS
from sysd.dbus.peers import PeerMethods
from sysd.dbus.service import Kind
from sysd.manager.actions import Action
from sysd.manager.manager import Manager
from sysd.manager.networks import NetworkUpdate
from sysd.model.network import BRIDGE


def _update(options: Options) -> NetworkUpdate:
    """config (a{ss}), description (s); what is not given stays."""
    update = NetworkUpdate(
        config=options.take("config", "a{ss}", None), description=options.take("description", "s", None)
    )
    options.end()
    return update


class NetworkObjects:
    """org.syscont.Network"""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._networks = manager.networks
        self._forwards = ForwardMethods(manager)
        self._peers = PeerMethods(manager)

    def kind(self) -> Kind:
        return Kind(
            "network",
            self.interface(),
            lambda: [network.name for network in self._networks.all()],
            self._manager.catalog.has_network,
        )

    def manager_methods(self) -> list[Method]:
        manage = Action.MANAGE_NETWORKS
        give = [("o", "network")]
        return [
            Method("ListNetworks", [], [("a(ssso)", "networks")], self._list),
            Method("GetNetwork", [("s", "name")], give, self._get),
            Method("CreateNetwork", [("s", "name"), OPTIONS], give, self._create, manage),
            Method("GetAcceleration", [], [("s", "bridge"), ("b", "offload"), ("a(ssssuuuusas)", "cards")],
                   self._get_acceleration),
        ]

    def interface(self) -> Interface:
        manage, find = Action.MANAGE_NETWORKS, self._manager.catalog.network
        return Interface(
            "org.syscont.Network",
            [
                Method("Update", [OPTIONS], [], self._update, manage),
                Method("ChangeConfig", [("a{ss}", "set"), ("as", "unset")], [], self._change_config, manage),
                Method("GetUsers", [], [("as", "instances"), ("as", "profiles")], self._get_users),
                Method("GetLeases", [], [("a(sssss)", "leases")], self._get_leases),
                Method("GetState", [], [("s", "state"), ("s", "hwaddr"), ("u", "mtu"), ("as", "addresses"),
                                        ("as", "ports"), ("a{st}", "counters")], self._get_state),
                *self._forwards.methods(),
                *self._peers.methods(),
                Method("Rename", [("s", "new_name")], [], self._rename, manage),
                Method("Delete", [], [], self._delete, manage),
            ],
            [
                Property("Name", "s", lambda name: name, changes=False),
                Property("Type", "s", lambda name: find(name).type, changes=False),
                Property("Description", "s", lambda name: find(name).description),
                Property("Config", "a{ss}", lambda name: find(name).config),
                Property("IPv4", "s", lambda name: find(name).ipv4),
                Property("IPv6", "s", lambda name: find(name).ipv6),
                Property("Domain", "s", lambda name: find(name).domain),
                self._forwards.property(),
                self._peers.property(),
            ],
        )  # fmt: skip

    async def _list(self, _: str, call: Call) -> list[Any]:
        path = self.kind().path
        return [[[n.name, n.ipv4, n.ipv6, path(n.name)] for n in self._networks.all()]]

    async def _get(self, _: str, call: Call) -> list[Any]:
        return [self.kind().path(self._manager.catalog.network(call.body[0]).name)]

    async def _create(self, _: str, call: Call) -> list[Any]:
        """Options: type (s), and those of Update."""
        options = call.options
        kind = options.text("type", BRIDGE)
        network = await self._networks.create(call.body[0], kind, _update(options), call.caller.uid)
        return [self.kind().path(network.name)]

    async def _update(self, name: str, call: Call) -> list[Any]:
        await self._networks.update(name, _update(call.options), call.caller.uid)
        return []

    async def _change_config(self, name: str, call: Call) -> list[Any]:
        await self._networks.change(name, call.body[0], call.body[1], call.caller.uid)
        return []

    async def _get_users(self, name: str, call: Call) -> list[Any]:
        users = self._networks.users(name)
        return [users.instances, users.profiles]

    async def _get_leases(self, name: str, call: Call) -> list[Any]:
        """Of each: host name, hardware address, address, type, project."""
        return [[[lease.hostname, lease.hwaddr, lease.address, lease.type, lease.project]
                 for lease in self._networks.leases(name)]]  # fmt: skip

    async def _get_acceleration(self, name: str, call: Call) -> list[Any]:
        """Of each card: link, device, driver, mode, functions it could have, that it has, that are free, representors,
        bridge of Open vSwitch, and what is missing."""
        found = await self._networks.acceleration()
        cards = [[*astuple(one)[:-1], list(one.missing)] for one in found.cards]
        return [found.bridge, found.offload, cards]

    async def _get_state(self, name: str, call: Call) -> list[Any]:
        """Of its link, as the kernel says it now."""
        found = await self._networks.state(name)
        return [found.state, found.hwaddr, found.mtu, list(found.addresses), list(found.ports), found.counters]

    async def _rename(self, name: str, call: Call) -> list[Any]:
        await self._networks.rename(name, call.body[0], call.caller.uid)
        return []

    async def _delete(self, name: str, call: Call) -> list[Any]:
        await self._networks.delete(name, call.caller.uid)
        return []
