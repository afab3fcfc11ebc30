# SPDX-License-Identifier: Apache-2.0
"""Network zones as D-Bus objects, and the manager's methods for them."""

from __future__ import annotations

from typing import Any

from sysd.dbus.interface import Call, Interface, Method, Options, Property
from sysd.dbus.operation import OPTIONS
from sysd.dbus.service import Kind
from sysd.manager.actions import Action
from sysd.manager.manager import Manager
from sysd.manager.zones import ZoneUpdate
from sysd.model.names import DEFAULT_PROJECT
from sysd.model.zones import Entry, public

ENTRIES = ("a(ssu)", "entries")
"""Of each: type, value, TTL in seconds."""


def _update(options: Options) -> ZoneUpdate:
    """config (a{ss}), description (s); what is not given stays."""
    update = ZoneUpdate(
        config=options.take("config", "a{ss}", None), description=options.take("description", "s", None)
    )
    options.end()
    return update


class ZoneObjects:
    """org.syscont.NetworkZone"""

    def __init__(self, manager: Manager) -> None:
        self._catalog = manager.catalog
        self._zones = manager.zones

    def kind(self) -> Kind:
        return Kind(
            "zone", self.interface(), lambda: [zone.name for zone in self._catalog.zones()], self._catalog.has_zone
        )

    def manager_methods(self) -> list[Method]:
        give = [("o", "zone")]
        return [
            Method("ListNetworkZones", [], [("a(ssso)", "zones")], self._list),
            Method("GetNetworkZone", [("s", "name")], give, self._get),
            Method("CreateNetworkZone", [("s", "name"), OPTIONS], give, self._create, Action.MANAGE_ZONES),
        ]

    def interface(self) -> Interface:
        manage, find = Action.MANAGE_ZONES, self._catalog.zone
        name, entry = ("s", "name"), [("s", "name"), ("s", "type"), ("s", "value")]
        return Interface(
            "org.syscont.NetworkZone",
            [
                Method("Update", [OPTIONS], [], self._update, manage),
                Method("GetConfig", [], [("a{ss}", "config")], self._get_config, manage),
                Method("ChangeConfig", [("a{ss}", "set"), ("as", "unset")], [], self._change_config, manage),
                Method("ListRecords", [], [("a(ssa(ssu))", "records")], self._list_records),
                Method("CreateRecord", [name, ENTRIES, OPTIONS], [], self._create_record, manage),
                Method("DeleteRecord", [name], [], self._delete_record, manage),
                Method("AddEntry", [*entry, ("u", "ttl")], [], self._add_entry, manage),
                Method("RemoveEntry", entry, [], self._remove_entry, manage),
                Method("Delete", [], [], self._delete, manage),
            ],
            [
                Property("Name", "s", lambda name: name, changes=False),
                Property("Project", "s", lambda name: find(name).project, changes=False),
                Property("Description", "s", lambda name: find(name).description),
                Property("Config", "a{ss}", lambda name: public(find(name).config)),
                Property("Serial", "u", self._zones.serial),
            ],
        )

    async def _list(self, _: str, call: Call) -> list[Any]:
        path = self.kind().path
        return [[[zone.name, zone.project, zone.description, path(zone.name)] for zone in self._catalog.zones()]]

    async def _get(self, _: str, call: Call) -> list[Any]:
        return [self.kind().path(self._catalog.zone(call.body[0]).name)]

    async def _create(self, _: str, call: Call) -> list[Any]:
        """Options: project (s), and those of Update."""
        options = call.options
        project = options.text("project", DEFAULT_PROJECT)
        zone = self._zones.create(call.body[0], project, _update(options))
        return [self.kind().path(zone.name)]

    async def _update(self, name: str, call: Call) -> list[Any]:
        self._zones.update(name, _update(call.options))
        return []

    async def _get_config(self, name: str, call: Call) -> list[Any]:
        """All of it; the property, which everybody may read, leaves out keys of peers and what is private."""
        return [dict(self._catalog.zone(name).config)]

    async def _change_config(self, name: str, call: Call) -> list[Any]:
        self._zones.change(name, call.body[0], call.body[1])
        return []

    async def _list_records(self, name: str, call: Call) -> list[Any]:
        """Of each: name, description, entries."""
        return [
            [
                [record.name, record.description, [[one.type, one.value, one.ttl] for one in record.parsed]]
                for record in self._zones.records(name)
            ]
        ]

    async def _create_record(self, name: str, call: Call) -> list[Any]:
        """Options: description (s)."""
        options = call.options
        description = options.text("description")
        options.end()
        self._zones.create_record(name, call.body[0], [Entry(*each) for each in call.body[1]], description)
        return []

    async def _delete_record(self, name: str, call: Call) -> list[Any]:
        self._zones.delete_record(name, call.body[0])
        return []

    async def _add_entry(self, name: str, call: Call) -> list[Any]:
        self._zones.add_entry(name, call.body[0], Entry(*call.body[1:4]))
        return []

    async def _remove_entry(self, name: str, call: Call) -> list[Any]:
        self._zones.remove_entry(name, *call.body[:3])
        return []

    async def _delete(self, name: str, call: Call) -> list[Any]:
        self._zones.delete(name)
        return []
