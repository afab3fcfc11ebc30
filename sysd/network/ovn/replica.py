# SPDX-License-Identifier: Apache-2.0
"""A database of OVSDB's (RFC 7047) as the library keeps it: a copy in memory, which the server tells of changes.

Loaded by the thread that serves a database, at the first use: hosts without OVN need not have the library. Of ovsdbapp
only the copy is used. Its thread sleeps for up to a minute after errors and can't be ended then, and what it was once
told to write it writes, however late.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import ovs.db.error
import ovs.jsonrpc
import ovs.poller
import ovs.stream
from ovs.db import idl
from ovsdbapp.backend.ovs_idl import connection, idlutils

from sysd.network.ovn.database import Schema
from sysd.network.ovn.rows import IFACE_ID, Owner, mark_of

_ROOT, _MARKS = "Open_vSwitch", "syscont-"
Wait = Callable[[Callable[[Any], object]], None]
"""Until something happens; what is to be waited for is put into a poller."""
Transaction = idl.Transaction


class Nonsense(Exception):
    """What a server should not have said."""


class Away(Exception):
    """Nobody answers, which may pass."""


class Replica(connection.OvsdbIdl):  # type: ignore[misc]
    """The copy, and where in it rows of ours are, and those of a name; rows are found without looking at others.

    The library has indexes, too, but by whole columns; what marks a row as ours is one key in a column of many.
    """

    def __init__(self, remotes: str, helper: Any, schema: Schema) -> None:
        self._schema = schema
        self.said = self.answered = 0
        """How often something changed that is ours to say, and something that others answer."""
        self.owned: dict[Owner, dict[tuple[str, str], set[Any]]] = {}
        self.parts: dict[str, set[Owner]] = {}
        self.of_table: dict[tuple[str, str], set[Any]] = {}
        self.named: dict[tuple[str, str], set[Any]] = {}
        self.interfaces: dict[str, set[Any]] = {}
        """Of Open vSwitch, by what OVN knows them by."""
        self.fresh: dict[tuple[str, str], set[Any]] = {}
        """Of a network and a table, the rows that were answered in since somebody looked."""
        self._known: dict[Any, tuple[str, Owner | None, str, str, str]] = {}
        super().__init__(remotes, helper)

    @property
    def is_whole(self) -> bool:
        """Whether all of the database is here, and the server goes on telling."""
        return bool(self.state == self.IDL_S_MONITORING and self._session.is_connected())

    def hurry(self) -> None:
        """Wait but a moment before trying again: somebody waits for the answer, and not for long."""
        self._session.reconnect.set_backoff(100, 1000)

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        before = self._owner(row)
        self._forget(row.uuid)
        if event != idl.ROW_DELETE:
            self._learn(row)
        owner = self._owner(row)
        if self._schema.all_rows or before or owner:
            table, columns = row._table.name, _changed(row, updates) if event == idl.ROW_UPDATE and updates else None
            if self._count(table, columns) and owner:
                self.fresh.setdefault((owner.network, table), set()).add(row.uuid)

    def _owner(self, row: Any) -> Owner | None:
        return self._known[row.uuid][1] if row.uuid in self._known else None

    def _count(self, table: str, columns: Collection[str] | None) -> bool:
        """Whether somebody has answered. columns: of a row that was there; None of one that comes or goes."""
        left = set(columns or ()) - self._schema.unheard.get(table, frozenset())
        answers = self._schema.answers.get(table, frozenset())
        self.said += columns is None or bool(left - answers)
        self.answered += bool(left & answers)
        return bool(left & answers)

    def _learn(self, row: Any) -> None:
        table, columns = row._table.name, row._table.columns
        marks = row.external_ids if "external_ids" in columns else {}
        owner, key = mark_of(marks)
        name = row.name if "name" in columns and isinstance(row.name, str) else ""
        if owner:
            self.owned.setdefault(owner, {}).setdefault((table, key), set()).add(row.uuid)
            self.parts.setdefault(owner.network, set()).add(owner)
            self.of_table.setdefault((owner.network, table), set()).add(row.uuid)
        if name:
            self.named.setdefault((table, name), set()).add(row.uuid)
        iface_id = marks.get(IFACE_ID, "") if table == "Interface" else ""
        if iface_id:
            self.interfaces.setdefault(iface_id, set()).add(row.uuid)
        if owner or name or iface_id:
            self._known[row.uuid] = (table, owner, key, name, iface_id)

    def _forget(self, uuid: Any) -> None:
        if uuid not in self._known:
            return
        table, owner, key, name, iface_id = self._known.pop(uuid)
        if iface_id:
            _discard(self.interfaces, iface_id, uuid)
        if name:
            _discard(self.named, (table, name), uuid)
        if owner:
            _discard(self.owned[owner], (table, key), uuid)
            _discard(self.of_table, (owner.network, table), uuid)
            if not self.owned[owner]:
                del self.owned[owner]
                _discard(self.parts, owner.network, owner)


def _changed(row: Any, before: Any) -> set[str]:
    """The columns that are not as they were. In external_ids each writes what is his: ovn-controller, to name one, when
    an interface came to be a port of OVN's."""
    found = set(before._data)
    ids = "external_ids"
    if ids in found and row._table.name != _ROOT and _ours(row.external_ids) == _ours(before.external_ids):
        found.remove(ids)
    return found


def _ours(ids: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in ids.items() if key.startswith(_MARKS) or key == IFACE_ID}


def _discard(index: dict[Any, set[Any]], key: Any, member: Any) -> None:
    index[key].discard(member)
    if not index[key]:
        del index[key]


def connect(remotes: list[str], schema: Schema, wait: Wait) -> Replica:
    """A copy that is not whole yet. Raises Away, or Nonsense when what answers is no such database."""
    away = Away()
    for remote in remotes:
        try:
            said = _fetch_schema(remote, schema.name, wait)
        except Away as error:
            away = error
            continue
        replica = _copy_of(said, schema, ",".join(remotes))
        replica.hurry()
        return replica
    raise away


def use_files(key: str, certificate: str, authority: str) -> None:
    """For all connections by TLS; the library knows but one identity in a process."""
    ovs.stream.Stream.ssl_set_private_key_file(key)
    ovs.stream.Stream.ssl_set_certificate_file(certificate)
    ovs.stream.Stream.ssl_set_ca_cert_file(authority)


def poller() -> Any:
    return ovs.poller.Poller()


def _fetch_schema(remote: str, schema: str, wait: Wait) -> dict[str, Any]:
    stream = _open(remote, wait)
    rpc = ovs.jsonrpc.Connection(stream)
    try:
        request = ovs.jsonrpc.Message.create_request("get_schema", [schema])
        rpc.send(request)
        for message in _messages(rpc, wait):
            if message.id == request.id:
                if message.type != ovs.jsonrpc.Message.T_REPLY or not isinstance(message.result, dict):
                    raise Nonsense(f"it has no database {schema}")
                return dict(message.result)
    finally:
        rpc.close()
    raise Away("it hung up")


def _open(remote: str, wait: Wait) -> Any:
    error, stream = ovs.stream.Stream.open(remote)
    if error:
        raise Away(os.strerror(error))
    try:
        while error := stream.connect():
            if error != errno.EAGAIN:
                raise Away(os.strerror(error) if error > 0 else "it hung up")
            stream.run()
            wait(lambda poll: (stream.run_wait(poll), stream.connect_wait(poll)))
    except BaseException:
        # Also what the library raises where certificates are not as they should be.
        stream.close()
        raise
    return stream


def _messages(rpc: Any, wait: Wait) -> Iterator[Any]:
    while True:
        rpc.run()
        error, message = rpc.recv()
        if not error:
            yield message
        elif error == errno.EPROTO:
            raise Nonsense("it does not speak OVSDB")
        elif error != errno.EAGAIN:
            return
        else:
            wait(lambda poll: (rpc.wait(poll), rpc.recv_wait(poll)))


def _copy_of(said: dict[str, Any], schema: Schema, remotes: str) -> Replica:
    """With room for what is wanted of a database, if it has all of that."""
    try:
        there = {table: content["columns"].keys() for table, content in said["tables"].items()}
        for table, columns in schema.tables.items():
            for column in columns:
                if column not in there.get(table, ()):
                    raise Nonsense(f"its {schema.name} {said.get('version', '')} has no {table}.{column}")
        helper = idlutils.create_schema_helper(said)
        for table, columns in schema.tables.items():
            helper.register_columns(table, list(columns))
        return Replica(remotes, helper, schema)
    except (AttributeError, KeyError, TypeError, ValueError, ovs.db.error.Error) as error:
        raise Nonsense(f"its schema of {schema.name} is none: {error!r}") from None
