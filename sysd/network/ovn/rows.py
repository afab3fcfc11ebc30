# SPDX-License-Identifier: Apache-2.0
"""Rows as they are wanted, and how a database gets them: by what differs, in one transaction, others' rows left alone.

A row of ours says whose it is in external_ids: NETWORK is the network's UUID, and ROW says what in it the row is for,
as PART:KEY. A part of a network is made and unmade as a whole, and knows nothing of the others: the topology, the ACLs,
each port, each peering.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sysd.model.errors import FailedError

NETWORK, ROW, IFACE_ID = "syscont-network", "syscont-row", "iface-id"
TOPOLOGY, PEER = "topology", "peer/"
"""Parts: the network itself, and, with the other's UUID behind it, a peering."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A part of a network."""

    network: str
    part: str


@dataclass(frozen=True, slots=True)
class Ref:
    """Another row of the same network."""

    table: str
    key: str
    part: str = TOPOLOGY


Value = str | int | bool | tuple[str, ...] | tuple[Ref, ...] | Mapping[str, str] | Ref
Columns = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Row:
    """columns that are not said have their default. within: the rows whose sets it is in. also: of external_ids."""

    table: str
    key: str
    columns: Mapping[str, Value]
    within: tuple[Ref, ...] = ()
    also: Mapping[str, str] = field(default_factory=dict)


MANAGED: dict[str, tuple[str, ...]] = {
    "Logical_Router": ("name", "enabled", "options"),
    "Logical_Router_Port": (
        "name", "mac", "networks", "peer", "enabled", "ha_chassis_group", "ipv6_ra_configs", "options",
    ),
    "Logical_Router_Static_Route": ("ip_prefix", "nexthop", "output_port", "policy", "route_table", "options"),
    "Logical_Router_Policy": ("priority", "match", "action", "nexthop", "nexthops"),
    "NAT": ("type", "external_ip", "logical_ip", "external_mac", "logical_port", "external_port_range", "options"),
    "Logical_Switch": ("name", "other_config"),
    "Logical_Switch_Port": (
        "name", "type", "addresses", "port_security", "enabled", "parent_name", "tag", "dhcpv4_options",
        "dhcpv6_options", "options",
    ),
    "DHCP_Options": ("cidr", "options"),
    "DNS": (),
    "Load_Balancer": ("name", "vips", "protocol", "options"),
    "HA_Chassis_Group": ("name",),
    "HA_Chassis": ("chassis_name", "priority"),
    "Port_Group": ("name",),
    "ACL": ("name", "priority", "direction", "match", "action", "log", "severity", "meter"),
    "Meter": ("name", "unit", "bands", "fair"),
    "Meter_Band": ("action", "rate", "burst_size"),
}  # fmt: skip
"""What of a row of ours is as we say, whoever says otherwise. All of it is in OVN 23.03, and still in 25.03."""

SETS: dict[str, tuple[tuple[str, str], ...]] = {
    "Logical_Router_Port": (("Logical_Router", "ports"),),
    "Logical_Router_Static_Route": (("Logical_Router", "static_routes"),),
    "Logical_Router_Policy": (("Logical_Router", "policies"),),
    "NAT": (("Logical_Router", "nat"),),
    "Logical_Switch_Port": (("Logical_Switch", "ports"), ("Port_Group", "ports")),
    "DNS": (("Logical_Switch", "dns_records"),),
    "Load_Balancer": (("Logical_Router", "load_balancer"), ("Logical_Switch", "load_balancer")),
    "HA_Chassis": (("HA_Chassis_Group", "ha_chassis"),),
    "ACL": (("Port_Group", "acls"),),
}
"""In which columns of which tables rows are, of ours and of others: these are added to and taken from."""


def mark_of(external_ids: Mapping[str, str]) -> tuple[Owner | None, str]:
    """Whose a row is, and its key."""
    part, colon, key = external_ids.get(ROW, "").partition(":")
    network = external_ids.get(NETWORK, "")
    return (Owner(network, part), key) if network and colon else (None, "")

HOLDING = {"Logical_Router_Port": "ha_chassis_group"}
"""What must not be there any more when what it refers to goes: the server looks at that before it collects what nobody
refers to. Rows that only sets keep alive are not deleted but collected."""


class View:
    """A database as it is, and as it will be when the transaction is through; without one it can only be read."""

    def __init__(self, replica: Any, transaction: Any = None) -> None:
        self._replica = replica
        self.transaction = transaction
        self._inserted: dict[tuple[Owner, str, str], Any] = {}
        self._new: set[Any] = set()
        self._members: dict[tuple[Any, str], set[Any]] = {}
        self._put: set[tuple[Any, str, Any]] = set()

    def table(self, name: str) -> Any:
        return self._replica.tables[name]

    def rows(self, table: str, uuids: Iterable[Any]) -> list[Any]:
        """Those of them that the transaction has not deleted."""
        there = self.table(table).rows
        return [there[uuid] for uuid in sorted(uuids) if uuid in there]

    def find(self, owner: Owner, table: str, key: str) -> Any:
        """A row of ours, or None."""
        for row in self.rows(table, self._replica.owned.get(owner, {}).get((table, key), ())):
            return row
        return self._inserted.get((owner, table, key))

    def resolve(self, network: str, ref: Ref) -> Any:
        row = self.find(Owner(network, ref.part), ref.table, ref.key)
        if row is None:
            raise FailedError(
                f"OVN's northbound database lacks the {ref.table} {ref.key!r} of network {network}",
                "it is put back within a minute",
            )
        return row

    def owned(self, owner: Owner) -> dict[tuple[str, str], list[Any]]:
        """By table and key; what is there twice comes in the same order each time."""
        found = self._replica.owned.get(owner, {})
        return {(table, key): self.rows(table, uuids) for (table, key), uuids in found.items()}

    def networks(self) -> list[str]:
        return sorted(self._replica.parts)

    def parts(self, network: str) -> list[Owner]:
        return sorted(self._replica.parts.get(network, ()), key=lambda owner: owner.part)

    def of_network(self, network: str, table: str) -> list[Any]:
        return self.rows(table, self._replica.of_table.get((network, table), ()))

    def named(self, table: str, name: str) -> list[Any]:
        return self.rows(table, self._replica.named.get((table, name), ()))

    def interfaces(self, iface_id: str) -> list[Any]:
        """Of a local Open vSwitch, those that OVN knows by a name."""
        return self.rows("Interface", self._replica.interfaces.get(iface_id, ()))

    def answered(self, network: str, table: str) -> list[Any]:
        """Rows of ours in which others have answered since this was asked."""
        return self.rows(table, self._replica.fresh.pop((network, table), ()))

    def make(self, table: str) -> Any:
        """A row that is nowhere yet."""
        made = self.transaction.insert(self.table(table))
        self._new.add(made.uuid)
        return made

    def insert(self, owner: Owner, row: Row) -> Any:
        made = self.make(row.table)
        self._inserted[owner, row.table, row.key] = made
        return made

    def has(self, container: Any, column: str, member: Any) -> bool:
        if (container.uuid, column, member.uuid) in self._put:
            return True
        # Where a row of this transaction is, it was put by it: a port that comes costs no look at all others.
        return member.uuid not in self._new and member.uuid in self._content(container, column)

    def put(self, container: Any, column: str, member: Any) -> None:
        if column != "ports":
            # Who puts the same there at the same time comes second. Of ports the server itself allows no name twice.
            container.verify(column)
        container.addvalue(column, member)
        self._put.add((container.uuid, column, member.uuid))

    def take(self, container: Any, column: str, member: Any) -> None:
        container.delvalue(column, member)
        self._put.discard((container.uuid, column, member.uuid))
        if (container.uuid, column) in self._members:
            self._members[container.uuid, column].discard(member.uuid)

    def _content(self, container: Any, column: str) -> set[Any]:
        """The set is large, and asked about again and again."""
        found = self._members.get((container.uuid, column))
        if found is None:
            found = {each.uuid for each in getattr(container, column, ())}
            self._members[container.uuid, column] = found
        return found


def settle(view: View, owner: Owner, wanted: Sequence[Row]) -> None:
    """Let a part of a network be these rows. Raises FailedError when someone else has a name that one of them needs."""
    present = view.owned(owner)
    keep = {(row.table, row.key) for row in wanted}
    for key, found in present.items():
        for gone in found[1:] if key in keep else found:
            _drop(view, owner.network, key[0], gone)
    rows: dict[tuple[str, str], Any] = {}
    for row in wanted:
        there = present.get((row.table, row.key), [None])[0]
        _check_name(view, row, there)
        rows[row.table, row.key] = view.insert(owner, row) if there is None else there
    for row in wanted:
        _write(view, owner, row, rows[row.table, row.key])
        _place(view, owner.network, row, rows[row.table, row.key])


def remove(view: View, network: str) -> None:
    """All that a network has, and what others have because of it."""
    for owner in view.parts(network):
        settle(view, owner, ())
    for other in view.networks():
        settle(view, Owner(other, f"{PEER}{network}"), ())


def _check_name(view: View, row: Row, own: Any) -> None:
    name = row.columns.get("name", "")
    if not isinstance(name, str) or not name:
        return
    for other in view.named(row.table, name):
        if own is None or other.uuid != own.uuid:
            raise FailedError(
                f"OVN's northbound database has a {row.table} {name} that is not ours",
                "whoever made it has to remove it, or to give it another name",
            )


def _write(view: View, owner: Owner, row: Row, there: Any) -> None:
    for column in MANAGED[row.table]:
        set_column(there, column, _meant(view, owner.network, row.columns.get(column)))
    marks = {NETWORK: owner.network, ROW: f"{owner.part}:{row.key}", **row.also}
    set_column(there, "external_ids", dict(getattr(there, "external_ids", {})) | marks)


def _meant(view: View, network: str, value: Value | None) -> Any:
    if isinstance(value, Ref):
        return view.resolve(network, value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return [view.resolve(network, each) if isinstance(each, Ref) else each for each in value]
    return value


def set_column(row: Any, column: str, value: Any) -> None:
    """If it differs; None is the default."""
    kind = row._table.columns[column].type
    if kind.is_map():
        wanted: Any = value or {}
    elif kind.n_min == 1 and kind.n_max == 1:
        wanted = kind.key.type.default if value is None else value
    else:
        wanted = [] if value is None or value == "" else value if isinstance(value, list) else [value]
    if _same(getattr(row, column, None), wanted):
        return
    setattr(row, column, wanted)
    if not _same(getattr(row, column, None), wanted):
        raise FailedError(f"{row._table.name}.{column} can't be {wanted!r} in a database of OVSDB's")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and set(one) == set(other)
    return type(one) is type(other) and one == other


def _place(view: View, network: str, row: Row, there: Any) -> None:
    """Into the sets where it belongs, and out of others of the same network."""
    for table, column in SETS.get(row.table, ()):
        places = [view.resolve(network, place) for place in row.within if place.table == table]
        for container in places:
            if not view.has(container, column, there):
                view.put(container, column, there)
        known = {container.uuid for container in places}
        for container in view.of_network(network, table):
            if container.uuid not in known and view.has(container, column, there):
                view.take(container, column, there)


def _drop(view: View, network: str, table: str, row: Any) -> None:
    for kind, column in SETS.get(table, ()):
        for container in view.of_network(network, kind):
            if view.has(container, column, row):
                view.take(container, column, row)
    if held := HOLDING.get(table):
        # Not only if there is something: of what is gone already in this transaction nothing is seen here.
        setattr(row, held, [])
    else:
        row.delete()
