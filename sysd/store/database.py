# SPDX-License-Identifier: Apache-2.0
"""What is remembered: a small SQLite database, each change on disk before the call returns unless it says later()."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from sysd.model.acls import Acl
from sysd.model.errors import ExistsError
from sysd.model.image import Image, Init
from sysd.model.instance import Instance, Kind, Phase
from sysd.model.network import Network
from sysd.model.operation import Operation, OperationStatus
from sysd.model.profile import Profile
from sysd.model.project import Project
from sysd.model.snapshot import Snapshot
from sysd.model.templates import Template
from sysd.model.transfer import Move
from sysd.model.trust import Invitation, Trusted
from sysd.model.zones import Record, Zone
from sysd.store.schema import MIGRATIONS

log = logging.getLogger(__name__)

T = TypeVar("T")


class Store:
    """Rows in, frozen values out. Used from the daemon's one event loop only."""

    def __init__(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # FULL: a commit is on disk when it returns, also after a power cut (sqlite.org/pragma.html#pragma_synchronous).
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            self._db.execute(f"PRAGMA {pragma}")
        self._unreadable: dict[str, set[str]] = {}
        self._migrate()
        self._log = _Log(Path(path))

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise RuntimeError(f"the database is from a newer syscont (schema {version}); install that version again")
        for number, migration in enumerate(MIGRATIONS[version:], version + 1):
            with self.transaction():
                for statement in migration.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={number}")

    def close(self) -> None:
        self._log.close()
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing of it. Blocks must not nest or await."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # some errors make SQLite roll back by itself
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def later(self) -> Iterator[None]:
        """What the block writes is read back at once, and survives us; but a power cut may take it, the newest first,
        until on_disk() has returned. So a slow disk holds up those who wait for it and nobody else."""
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous=FULL")
            self._log.written()

    async def on_disk(self) -> None:
        """When all is on disk that was written before."""
        await self._log.on_disk()

    def _read(self, table: str, key: str, order: str, make: Callable[[dict[str, Any]], T]) -> Iterator[T]:
        """The values of a table. A row that can't be read is left out, and left alone: its object can be rescued."""
        for name, body in self._db.execute(f"SELECT {key}, body FROM {table} ORDER BY {order}").fetchall():
            try:
                value = make(json.loads(body))
                _check_types(value)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                self._unreadable.setdefault(table, set()).add(name)
                log.error("database: table %s: row %r can't be read and is left out: %r", table, name, error)
            else:
                yield value

    def unreadable(self, table: str) -> set[str]:
        """Keys of the rows that were left out: what belongs to them must stay too."""
        return self._unreadable.get(table, set())

    def unreadable_users(self, fingerprint: str) -> list[str]:
        """Instances of an image among those, and snapshots that are, or are of such an instance. It has to stay for
        when they are rescued."""
        lost = self.unreadable("instances") | self.unreadable("snapshots")
        rows = self._db.execute(
            "SELECT uuid, uuid, name FROM instances WHERE image=:image "
            "UNION ALL SELECT uuid, instance, name FROM snapshots WHERE image=:image",
            {"image": fingerprint},
        )
        return [f"{name} (unreadable)" for uuid, instance, name in rows if lost & {uuid, instance}]

    # meta

    def get_meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return str(row[0]) if row else None

    def set_meta(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # the host's configuration

    def server_config(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT key, value FROM server_config ORDER BY key"))

    def put_server_config(self, config: Mapping[str, str]) -> None:
        with self.transaction():
            self._db.execute("DELETE FROM server_config")
            self._db.executemany("INSERT INTO server_config VALUES (?, ?)", config.items())

    # instances

    def instances(self) -> Iterator[Instance]:
        return self._read(
            "instances",
            "uuid",
            "project, name",
            lambda raw: Instance(**raw | {"kind": Kind(raw["kind"]), "phase": Phase(raw["phase"])}),
        )

    def put_instance(self, instance: Instance) -> None:
        """Insert or replace by UUID; raises ExistsError when another instance has the name."""
        values = (instance.uuid, instance.project, instance.name, instance.image, _dump(instance))
        try:
            self._db.execute(
                "INSERT INTO instances VALUES (?, ?, ?, ?, ?) ON CONFLICT (uuid) DO UPDATE SET "
                "project=excluded.project, name=excluded.name, image=excluded.image, body=excluded.body",
                values,
            )
        except sqlite3.IntegrityError:
            raise ExistsError(f"an instance named {instance.name!r} exists already") from None

    def delete_instance(self, uuid: str) -> None:
        """With the rows of its snapshots."""
        with self.transaction():
            self._db.execute("DELETE FROM snapshots WHERE instance=?", (uuid,))
            self._db.execute("DELETE FROM instances WHERE uuid=?", (uuid,))

    # snapshots

    def snapshots(self) -> Iterator[Snapshot]:
        return self._read("snapshots", "uuid", "instance, name", lambda raw: Snapshot(**raw))

    def put_snapshot(self, snapshot: Snapshot, *, instead_of: str = "") -> None:
        """Insert or replace by UUID, in one step with removing the one whose UUID is instead_of."""
        values = (snapshot.uuid, snapshot.instance, snapshot.name, snapshot.image, _dump(snapshot))
        with self.transaction():
            self._db.execute("DELETE FROM snapshots WHERE uuid IN (?, ?)", (instead_of, snapshot.uuid))
            self._db.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)", values)

    def delete_snapshot(self, uuid: str) -> None:
        self._db.execute("DELETE FROM snapshots WHERE uuid=?", (uuid,))

    # images

    def images(self) -> Iterator[Image]:
        def load(raw: dict[str, Any]) -> Image:
            known = raw | {"init": Init(raw["init"]), "kind": Kind(raw.get("kind", Kind.CONTAINER))}
            return Image(**known | {"templates": [Template(**each) for each in known.get("templates", ())]})

        return self._read("images", "fingerprint", "fingerprint", load)

    def put_image(self, image: Image) -> None:
        self._db.execute(
            "INSERT INTO images VALUES (?, ?) ON CONFLICT (fingerprint) DO UPDATE SET body=excluded.body",
            (image.fingerprint, _dump(image)),
        )

    def delete_image(self, fingerprint: str) -> None:
        self._db.execute("DELETE FROM images WHERE fingerprint=?", (fingerprint,))

    def aliases(self) -> dict[str, str]:
        """Of images that can be read, so after images()."""
        found = self._db.execute("SELECT alias, fingerprint FROM aliases ORDER BY alias")
        return {alias: fingerprint for alias, fingerprint in found if fingerprint not in self.unreadable("images")}

    def put_alias(self, alias: str, fingerprint: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?)", (alias, fingerprint))

    def delete_alias(self, alias: str) -> None:
        self._db.execute("DELETE FROM aliases WHERE alias=?", (alias,))

    # networks

    def networks(self) -> Iterator[Network]:
        return self._read("networks", "name", "name", lambda raw: Network(**raw | {"phase": Phase(raw["phase"])}))

    def put_network(self, network: Network) -> None:
        self._db.execute("INSERT OR REPLACE INTO networks VALUES (?, ?)", (network.name, _dump(network)))

    def delete_network(self, name: str) -> None:
        self._db.execute("DELETE FROM networks WHERE name=?", (name,))

    # ACLs

    def acls(self) -> Iterator[Acl]:
        return self._read("acls", "name", "name", lambda raw: Acl(**raw))

    def put_acl(self, acl: Acl) -> None:
        self._db.execute(
            "INSERT INTO acls VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body=excluded.body", (acl.name, _dump(acl))
        )

    def delete_acl(self, name: str) -> None:
        self._db.execute("DELETE FROM acls WHERE name=?", (name,))

    # whom the host trusts

    def trusted(self) -> Iterator[Trusted]:
        return self._read("trusted", "fingerprint", "fingerprint", lambda raw: Trusted(**raw))

    def put_trusted(self, trusted: Trusted) -> None:
        self._db.execute("INSERT OR REPLACE INTO trusted VALUES (?, ?)", (trusted.fingerprint, _dump(trusted)))

    def delete_trusted(self, fingerprint: str) -> None:
        self._db.execute("DELETE FROM trusted WHERE fingerprint=?", (fingerprint,))

    def invitations(self) -> Iterator[Invitation]:
        return self._read("invitations", "fingerprint", "fingerprint", lambda raw: Invitation(**raw))

    def put_invitation(self, invitation: Invitation) -> None:
        values = (invitation.fingerprint, _dump(invitation))
        self._db.execute("INSERT OR REPLACE INTO invitations VALUES (?, ?)", values)

    def delete_invitation(self, fingerprint: str) -> None:
        self._db.execute("DELETE FROM invitations WHERE fingerprint=?", (fingerprint,))

    def exchange_invitation(self, fingerprint: str, trusted: Trusted) -> None:
        """Use an invitation up, in one step with trusting the one who came by it."""
        with self.transaction():
            self.delete_invitation(fingerprint)
            self.put_trusted(trusted)

    # moves to and from other hosts that are not settled

    def moves(self) -> Iterator[Move]:
        return self._read("moves", "id", "id", lambda raw: Move(**raw))

    def put_move(self, move: Move) -> None:
        self._db.execute("INSERT OR REPLACE INTO moves VALUES (?, ?)", (move.id, _dump(move)))

    def delete_move(self, move_id: str) -> None:
        self._db.execute("DELETE FROM moves WHERE id=?", (move_id,))

    # zones: what their owners say, and what is published

    def zones(self) -> Iterator[Zone]:
        return self._read("zones", "name", "name", lambda raw: Zone(**raw))

    def put_zone(self, zone: Zone) -> None:
        self._db.execute(
            "INSERT INTO zones VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body=excluded.body",
            (zone.name, _dump(zone)),
        )

    def delete_zone(self, name: str) -> None:
        """With all that is in it."""
        self._db.execute("DELETE FROM zones WHERE name=?", (name,))

    def zone_records(self, zone: str) -> Iterator[Record]:
        """By name. They are not kept in memory: a zone may have very many."""
        for name, body in self._db.execute("SELECT name, body FROM zone_records WHERE zone=? ORDER BY name", (zone,)):
            try:
                record = Record(**json.loads(body))
                _check_types(record)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                log.error("database: record %r of zone %s can't be read and is left out: %r", name, zone, error)
            else:
                yield record

    def zone_record(self, zone: str, name: str) -> Record | None:
        row = self._db.execute("SELECT body FROM zone_records WHERE zone=? AND name=?", (zone, name)).fetchone()
        return Record(**json.loads(row[0])) if row else None

    def count_zone_records(self, zone: str) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM zone_records WHERE zone=?", (zone,)).fetchone()
        return int(count)

    def put_zone_record(self, record: Record) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO zone_records VALUES (?, ?, ?)", (record.zone, record.name, _dump(record))
        )

    def delete_zone_record(self, zone: str, name: str) -> None:
        self._db.execute("DELETE FROM zone_records WHERE zone=? AND name=?", (zone, name))

    def zone_content(self, zone: str) -> list[bytes]:
        """What is published, as it goes over the wire."""
        return [record for (record,) in self._db.execute("SELECT record FROM zone_content WHERE zone=?", (zone,))]

    def zone_changes(self, zone: str) -> list[tuple[bytes, bytes]]:
        """What each of the newest serials removed and added, the oldest first, as publish_zone was given it."""
        query = "SELECT removed, added FROM zone_changes WHERE zone=? ORDER BY number"
        return self._db.execute(query, (zone,)).fetchall()

    def publish_zone(
        self, zone: str, removed: Sequence[bytes], added: Sequence[bytes], packed: tuple[bytes, bytes]
    ) -> None:
        """Take one change of what is published; packed is the same for zone_changes."""
        with self.transaction():
            self._db.executemany(
                "DELETE FROM zone_content WHERE zone=? AND record=?", ((zone, record) for record in removed)
            )
            self._db.executemany("INSERT OR IGNORE INTO zone_content VALUES (?, ?)", ((zone, one) for one in added))
            self._db.execute(
                "INSERT INTO zone_changes SELECT ?, coalesce(max(number), 0) + 1, ?, ? FROM zone_changes WHERE zone=?",
                (zone, *packed, zone),
            )

    def forget_zone_changes(self, zone: str, keep: int) -> None:
        """All but the newest."""
        self._db.execute(
            "DELETE FROM zone_changes WHERE zone=:zone AND number <= (SELECT number FROM zone_changes WHERE zone=:zone "
            "ORDER BY number DESC LIMIT 1 OFFSET :keep)",
            {"zone": zone, "keep": keep},
        )

    # projects and profiles

    def projects(self) -> Iterator[Project]:
        return self._read("projects", "name", "name", lambda raw: Project(**raw))

    def put_project(self, project: Project) -> None:
        self._db.execute("INSERT OR REPLACE INTO projects VALUES (?, ?)", (project.name, _dump(project)))

    def delete_project(self, name: str) -> None:
        self._db.execute("DELETE FROM projects WHERE name=?", (name,))

    def profiles(self) -> Iterator[Profile]:
        return self._read("profiles", "name", "project, name", lambda raw: Profile(**raw))

    def put_profile(self, profile: Profile) -> None:
        values = (profile.project, profile.name, _dump(profile))
        self._db.execute("INSERT OR REPLACE INTO profiles VALUES (?, ?, ?)", values)

    def delete_profile(self, project: str, name: str) -> None:
        self._db.execute("DELETE FROM profiles WHERE project=? AND name=?", (project, name))

    # operations under way: what is found here at start was interrupted

    def operations(self) -> Iterator[Operation]:
        return self._read(
            "operations", "id", "id", lambda raw: Operation(**raw | {"status": OperationStatus(raw["status"])})
        )

    def put_operation(self, operation: Operation) -> None:
        self._db.execute("INSERT OR REPLACE INTO operations VALUES (?, ?)", (operation.id, _dump(operation)))

    def delete_operation(self, operation_id: str) -> None:
        self._db.execute("DELETE FROM operations WHERE id=?", (operation_id,))


class _Log:
    """SQLite's write-ahead log, which holds what is yet to be put on disk; see sqlite.org/wal.html, synchronous=NORMAL.
    Locks are on SQLite's other files: to open and close this one breaks none."""

    def __init__(self, database: Path) -> None:
        self._fd = os.open(f"{database}-wal", os.O_RDONLY | os.O_CLOEXEC)
        self._written = self._synced = 0
        self._syncing: asyncio.Future[None] | None = None
        # Of its own: what else is done in threads, such as removing trees, may take long.
        self._thread = ThreadPoolExecutor(1, "fsync")
        folder = os.open(database.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # that there is a log at all: SQLite would see to it at its own first fsync
        finally:
            os.close(folder)

    def close(self) -> None:
        self._thread.shutdown()
        os.close(self._fd)

    def written(self) -> None:
        self._written += 1

    async def on_disk(self) -> None:
        """One fsync serves all who wait for it; who comes while it is under way waits for the next."""
        wanted = self._written
        while self._synced < wanted:
            if self._syncing is None:
                self._syncing = asyncio.ensure_future(self._sync())
            await asyncio.shield(self._syncing)

    async def _sync(self) -> None:
        covered = self._written
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, os.fdatasync, self._fd)
            self._synced = covered
        finally:
            self._syncing = None


def _dump(value: Any) -> str:
    return json.dumps(asdict(value), sort_keys=True)


def _check_types(value: Any) -> None:
    """Raise TypeError when a field holds something else than it says: JSON holds anything."""
    for name, kind, is_texts in _kinds(type(value)):
        held = getattr(value, name)
        if not isinstance(held, kind):
            raise TypeError(f"{name} is {type(held).__name__}")
        if is_texts and not all(isinstance(item, str) for item in held.values()):
            raise TypeError(f"{name} holds something else than text")


_known_kinds: dict[type[Any], list[tuple[str, Any, bool]]] = {}


def _kinds(row: type[Any]) -> list[tuple[str, Any, bool]]:
    """Of each field: its name, the type of what it holds, and whether that is a map of texts. Found out once: for a
    hundred thousand rows it would take seconds."""
    if row not in _known_kinds:
        hints = get_type_hints(row)
        kinds = [(field.name, hints[field.name]) for field in fields(row)]
        _known_kinds[row] = [(name, get_origin(kind) or kind, kind == dict[str, str]) for name, kind in kinds]
    return _known_kinds[row]
