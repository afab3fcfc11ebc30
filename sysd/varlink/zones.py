# SPDX-License-Identifier: Apache-2.0
"""Network zones on varlink."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sysd.manager.actions import Action, Caller
from sysd.manager.manager import Manager
from sysd.manager.zones import ZoneUpdate
from sysd.model.names import DEFAULT_PROJECT
from sysd.model.zones import DEFAULT_TTL, Entry, Record, Zone, public
from sysd.varlink.service import Call, Method, Parameters


class ZoneMethods:
    def __init__(self, manager: Manager) -> None:
        self._catalog = manager.catalog
        self._zones = manager.zones

    def table(self) -> list[Method]:
        manage = Action.MANAGE_ZONES
        return [
            Method("ListZones", self.list_zones),
            Method("GetZone", self.get_zone),
            Method("GetZoneConfig", self.get_zone_config, manage),
            Method("CreateZone", self.create_zone, manage),
            Method("UpdateZone", self.update_zone, manage),
            Method("ChangeZone", self.change_zone, manage),
            Method("DeleteZone", self.delete_zone, manage),
            Method("ListZoneRecords", self.list_records),
            Method("GetZoneRecord", self.get_record),
            Method("CreateZoneRecord", self.create_record, manage),
            Method("DeleteZoneRecord", self.delete_record, manage),
            Method("AddZoneEntry", self.add_entry, manage),
            Method("RemoveZoneEntry", self.remove_entry, manage),
        ]

    async def list_zones(self, call: Call) -> None:
        call.reply({"zones": [self._zone(zone, call.caller) for zone in self._catalog.zones()]})

    async def get_zone(self, call: Call) -> None:
        call.reply({"zone": self._zone(self._catalog.zone(call.text("name")), call.caller)})

    async def get_zone_config(self, call: Call) -> None:
        call.reply({"config": self._catalog.zone(call.text("name")).config})

    async def create_zone(self, call: Call) -> None:
        self._zones.create(call.text("name"), call.text("project", DEFAULT_PROJECT), _update(call))
        call.reply({})

    async def update_zone(self, call: Call) -> None:
        self._zones.update(call.text("name"), _update(call))
        call.reply({})

    async def change_zone(self, call: Call) -> None:
        self._zones.change(call.text("name"), call.mapping("set"), call.texts("unset"))
        call.reply({})

    async def delete_zone(self, call: Call) -> None:
        self._zones.delete(call.text("name"))
        call.reply({})

    async def list_records(self, call: Call) -> None:
        call.reply({"records": [_record(record) for record in self._zones.records(call.text("zone"))]})

    async def get_record(self, call: Call) -> None:
        call.reply({"record": _record(self._zones.record(call.text("zone"), call.text("name")))})

    async def create_record(self, call: Call) -> None:
        entries = [_entry(each) for each in call.objects("entries")]
        self._zones.create_record(call.text("zone"), call.text("name"), entries, call.text("description", ""))
        call.reply({})

    async def delete_record(self, call: Call) -> None:
        self._zones.delete_record(call.text("zone"), call.text("name"))
        call.reply({})

    async def add_entry(self, call: Call) -> None:
        self._zones.add_entry(call.text("zone"), call.text("name"), _entry(call))
        call.reply({})

    async def remove_entry(self, call: Call) -> None:
        self._zones.remove_entry(call.text("zone"), call.text("name"), call.text("type"), call.text("value"))
        call.reply({})

    def _zone(self, value: Zone, caller: Caller) -> dict[str, Any]:
        return {
            "name": value.name,
            "project": value.project,
            "description": value.description,
            "config": public(value.config) if caller.uid else value.config,
            "serial": self._zones.serial(value.name),
            "usedBy": self._zones.users(value.name),
        }


def _update(call: Call) -> ZoneUpdate:
    return ZoneUpdate(
        config=call.mapping("config") if call.has("config") else None,
        description=call.text("description") if call.has("description") else None,
    )


def _entry(said: Parameters) -> Entry:
    return Entry(said.text("type"), said.text("value"), said.number("ttl", DEFAULT_TTL))


def _record(value: Record) -> dict[str, Any]:
    return {
        "name": value.name,
        "description": value.description,
        "entries": [asdict(entry) for entry in value.parsed],
    }
