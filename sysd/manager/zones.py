# SPDX-License-Identifier: Apache-2.0
"""Network zones and the records that their owners put into them. What of it is served, and how: sysd.manager.publisher,
which is loaded with the first zone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sysd.manager.catalog import Catalog
from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.table import Table
from sysd.model import server
from sysd.model.errors import BusyError, DeniedError, ExistsError, NotFoundError
from sysd.model.values import check_description
from sysd.model.zones import MAX_ENTRIES, SCHEMA, Entry, Record, Zone, check_name, check_record_name, is_within
from sysd.store.database import Store

if TYPE_CHECKING:
    from sysd.manager.publisher import Publisher

MAX_ZONES = 1000
MAX_RECORDS = 250_000
"""Names in one zone that its owner gives records to."""
_PROPERTIES = {"config": "Config", "description": "Description"}
# After these instances may have other names and addresses.
_MOVES = {"State", "Addresses", "ExpandedDevices", "Config", "Devices", "Profiles"}


@dataclass(frozen=True, slots=True)
class ZoneUpdate:
    """New values for parts of a zone, each of them whole; None leaves a part as it is. Nothing is checked yet."""

    config: Mapping[str, str] | None = None
    description: str | None = None


class Zones:
    def __init__(self, store: Store, catalog: Catalog, events: EventBus, table: Table) -> None:
        self._store = store
        self._catalog = catalog
        self._events = events
        self._table = table
        self._publisher: Publisher | None = None
        self._counts: dict[str, int] = {}
        """Of records of zones, as far as it was asked for: to count a hundred thousand takes milliseconds."""

    def start(self) -> None:
        """Serve what there is."""
        self._events.subscribe(self._happened)
        if self._catalog.zones():
            self._load()

    def _load(self) -> Publisher:
        if self._publisher is None:
            # dnspython costs every host some MB that has no zones.
            from sysd.manager.publisher import Publisher
            from sysd.manager.zone_hosts import HostRecords

            self._publisher = Publisher(self._store, self._events, HostRecords(self._catalog, self._table))
            self._publisher.load(self._catalog.zones())
            self._publisher.listen_sometime(self._catalog.server_config.get(server.DNS_ADDRESS, ""))
        return self._publisher

    def _happened(self, event: Event) -> None:
        if self._publisher is None:
            return
        noun, _, what = event.kind.partition("-")
        moved = what != "changed" or not _MOVES.isdisjoint(event.changed)
        if noun in ("network", "project") or (noun == "instance" and moved):
            self._publisher.hosts_changed()

    # zones

    def serial(self, name: str) -> int:
        """Of what is published now."""
        return self._load().serial(self._catalog.zone(name).name)

    def users(self, name: str) -> list[str]:
        """The networks that name a zone."""
        return [network.name for network in self._catalog.networks() if name in network.zones]

    def create(self, name: str, project: str, wanted: ZoneUpdate) -> Zone:
        """Make a zone for the instances of a project."""
        zone = Zone(check_name(name), self._catalog.project(project).name)
        if self._catalog.has_zone(zone.name) or zone.name in self._store.unreadable("zones"):
            raise ExistsError(f"a zone named {zone.name!r} exists already")
        if len(self._catalog.zones()) >= MAX_ZONES:
            raise BusyError("there are too many zones", "delete some")
        self._check_allowed(zone)
        zone = _updated(zone, wanted)
        publisher = self._load()
        self._catalog.remember(zone)
        publisher.add(zone)
        self._publish(Kind.ZONE_ADDED, zone)
        return zone

    def _check_allowed(self, zone: Zone) -> None:
        project = self._catalog.project(zone.project)
        allowed = project.allows("networks.zones")
        if project.restricted and not is_within(zone.name, allowed):
            why = f"restricted.networks.zones is {allowed or 'not set'}"
            raise DeniedError(f"project {project.name} does not allow it: zone {zone.name}", why)

    def update(self, name: str, wanted: ZoneUpdate) -> None:
        self._change(name, lambda zone: _updated(zone, wanted))

    def change(self, name: str, values: Mapping[str, str], unset: Collection[str]) -> None:
        """Set and remove keys, all or none."""
        self._change(name, lambda zone: replace(zone, config=SCHEMA.changed(zone.config, values, set(unset))))

    def _change(self, name: str, change: Callable[[Zone], Zone]) -> None:
        before = self._catalog.zone(name)
        after = change(before)
        if after == before:
            return
        self._catalog.remember(after)
        self._load().change(after)
        changed = [title for part, title in _PROPERTIES.items() if getattr(before, part) != getattr(after, part)]
        self._publish(Kind.ZONE_CHANGED, after, *changed)

    def delete(self, name: str) -> None:
        zone = self._catalog.zone(name)
        if users := self.users(zone.name):
            raise BusyError(f"zone {zone.name} is in use by {', '.join(users)}", "unset it there first")
        self._catalog.erase(zone)
        self._catalog.drop(zone)
        self._load().drop(zone.name)
        self._counts.pop(zone.name, None)
        self._publish(Kind.ZONE_REMOVED, zone)

    def _publish(self, kind: Kind, zone: Zone, *changed: str) -> None:
        self._events.publish(Event(kind, zone.name, "", changed))

    # records of the owner's

    def records(self, zone: str) -> list[Record]:
        return list(self._store.zone_records(self._catalog.zone(zone).name))

    def record(self, zone: str, name: str) -> Record:
        found = self._catalog.zone(zone)
        record = self._store.zone_record(found.name, check_record_name(found.name, name))
        if record is None:
            hint = f"'syscont network zone record list {found.name}' shows what there is"
            raise NotFoundError(f"no record {name[:80]!r} in zone {found.name}", hint)
        return record

    def create_record(self, zone: str, name: str, entries: Collection[Entry] = (), description: str = "") -> None:
        """Make a record with entries, or none yet."""
        found = self._catalog.zone(zone)
        record = Record(found.name, check_record_name(found.name, name), check_description(description))
        if self._store.zone_record(record.zone, record.name):
            raise ExistsError(f"a record {record.name!r} exists already in zone {zone}", "add entries to it")
        if self._count(record.zone) >= MAX_RECORDS:
            raise BusyError(f"zone {zone} has too many records", "delete some")
        self._put(record, _with(record, entries))
        self._counts[record.zone] += 1

    def _count(self, zone: str) -> int:
        if zone not in self._counts:
            self._counts[zone] = self._store.count_zone_records(zone)
        return self._counts[zone]

    def delete_record(self, zone: str, name: str) -> None:
        record = self.record(zone, name)
        self._store.delete_zone_record(record.zone, record.name)
        self._counts.pop(record.zone, None)
        self._load().record_changed(record, replace(record, entries=[]))

    def add_entry(self, zone: str, name: str, entry: Entry) -> None:
        record = self.record(zone, name)
        self._put(record, _with(record, [*record.parsed, entry]))

    def remove_entry(self, zone: str, name: str, kind: str, value: str) -> None:
        record = self.record(zone, name)
        kept = [one for one in record.parsed if (one.type, one.value) != (kind.upper(), value.strip(" "))]
        if len(kept) == len(record.entries):
            raise NotFoundError(f"record {record.name} of zone {record.zone} has no entry {kind} {value[:80]!r}")
        self._put(record, _with(record, kept))

    def _put(self, before: Record, after: Record) -> None:
        self._store.put_zone_record(after)
        self._load().record_changed(before, after)

    # the server

    def check_server_config(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Serve where the host's configuration is going to say; raises FailedError when that can't be, and serves on
        where it did. Without zones there is nothing to serve."""
        if self._publisher and before.get(server.DNS_ADDRESS) != after.get(server.DNS_ADDRESS):
            self._publisher.listen(after.get(server.DNS_ADDRESS, ""))


def _updated(zone: Zone, wanted: ZoneUpdate) -> Zone:
    if wanted.config is not None:
        zone = replace(zone, config=SCHEMA.check(wanted.config))
    if wanted.description is not None:
        zone = replace(zone, description=check_description(wanted.description))
    return zone


def _with(record: Record, entries: Collection[Entry]) -> Record:
    """A record with entries in place of its own, checked."""
    from sysd.model import rdata

    if len(entries) > MAX_ENTRIES:
        raise BusyError(f"record {record.name}: too many entries", f"at most {MAX_ENTRIES}")
    found = replace(record, entries=[rdata.remembered(record.zone, record.name, entry) for entry in entries])
    rdata.check_together(found)
    return found
