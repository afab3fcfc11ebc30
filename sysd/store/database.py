# SPDX-License-Identifier: Apache-2.0
"""What is remembered: a small SQLite database, each change on disk before the call returns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sysd.model.errors import ExistsError
from sysd.model.image import Image, Init
from sysd.model.instance import Instance, Kind, Phase
from sysd.model.network import Network
from sysd.model.operation import Operation, OperationStatus

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE instances (
    uuid TEXT PRIMARY KEY, project TEXT NOT NULL, name TEXT NOT NULL, image TEXT NOT NULL,
    body TEXT NOT NULL, UNIQUE (project, name)
) WITHOUT ROWID;
CREATE TABLE images (fingerprint TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE aliases (
    alias TEXT PRIMARY KEY, fingerprint TEXT NOT NULL REFERENCES images ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE networks (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE operations (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
"""


class Store:
    """Rows in, frozen values out. Used from the daemon's one event loop only."""

    def __init__(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # FULL: a commit is on disk when it returns, also after a power cut (sqlite.org/pragma.html#pragma_synchronous).
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            self._db.execute(f"PRAGMA {pragma}")
        self._migrate()

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise RuntimeError(f"the database is from a newer syscont (schema {version}); install that version again")
        if version == 0:
            with self.transaction():
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing of it. Blocks must not nest or await."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # meta

    def get_meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return str(row[0]) if row else None

    def set_meta(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # instances

    def instances(self) -> Iterator[Instance]:
        for (body,) in self._db.execute("SELECT body FROM instances ORDER BY project, name"):
            raw = json.loads(body)
            yield Instance(**raw | {"kind": Kind(raw["kind"]), "phase": Phase(raw["phase"])})

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
        self._db.execute("DELETE FROM instances WHERE uuid=?", (uuid,))

    # images

    def images(self) -> Iterator[Image]:
        for (body,) in self._db.execute("SELECT body FROM images"):
            raw = json.loads(body)
            yield Image(**raw | {"init": Init(raw["init"])})

    def put_image(self, image: Image) -> None:
        self._db.execute(
            "INSERT INTO images VALUES (?, ?) ON CONFLICT (fingerprint) DO UPDATE SET body=excluded.body",
            (image.fingerprint, _dump(image)),
        )

    def delete_image(self, fingerprint: str) -> None:
        self._db.execute("DELETE FROM images WHERE fingerprint=?", (fingerprint,))

    def aliases(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT alias, fingerprint FROM aliases ORDER BY alias"))

    def put_alias(self, alias: str, fingerprint: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?)", (alias, fingerprint))

    def delete_alias(self, alias: str) -> None:
        self._db.execute("DELETE FROM aliases WHERE alias=?", (alias,))

    # networks

    def networks(self) -> Iterator[Network]:
        for (body,) in self._db.execute("SELECT body FROM networks ORDER BY name"):
            yield Network(**json.loads(body))

    def put_network(self, network: Network) -> None:
        self._db.execute("INSERT OR REPLACE INTO networks VALUES (?, ?)", (network.name, _dump(network)))

    # operations under way: what is found here at start was interrupted

    def operations(self) -> Iterator[Operation]:
        for (body,) in self._db.execute("SELECT body FROM operations"):
            raw = json.loads(body)
            yield Operation(**raw | {"status": OperationStatus(raw["status"])})

    def put_operation(self, operation: Operation) -> None:
        self._db.execute("INSERT OR REPLACE INTO operations VALUES (?, ?)", (operation.id, _dump(operation)))

    def delete_operation(self, operation_id: str) -> None:
        self._db.execute("DELETE FROM operations WHERE id=?", (operation_id,))


def _dump(value: Any) -> str:
    return json.dumps(asdict(value), sort_keys=True)
