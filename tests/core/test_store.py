# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import shutil
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sysd.model import snapshot
from sysd.model.errors import ExistsError
from sysd.model.image import Image, Init
from sysd.model.instance import Instance, Phase
from sysd.model.network import Network
from sysd.model.operation import Operation
from sysd.model.transfer import Move
from sysd.store.database import Store
from sysd.store.schema import MIGRATIONS

WEB1 = Instance(
    uuid="u1", name="web1", image="f" * 64, id_base=65536, config={"user.a": "x"}, devices={"eth0": {"type": "nic"}}
)
IMAGE = Image("f" * 64, "x86_64", Init.SYSTEMD, 100, "text", {"os": "Debian"}, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


def test_values_come_back_as_they_were(path: Path) -> None:
    store = Store(path)
    network = Network("br0", config={"ipv4.address": "10.1.2.1/24"}, phase=Phase.CREATING)
    operation = Operation("id", "create-instance", "web1")
    store.put_instance(WEB1)
    store.put_image(IMAGE)
    store.put_alias("deb", IMAGE.fingerprint)
    store.put_network(network)
    store.put_operation(operation)
    store.set_meta("boot_id", "b")
    store.close()

    store = Store(path)
    assert list(store.instances()) == [WEB1]
    assert list(store.images()) == [IMAGE]
    assert store.aliases() == {"deb": IMAGE.fingerprint}
    assert list(store.networks()) == [network]
    assert list(store.operations()) == [operation]
    assert store.get_meta("boot_id") == "b"
    assert store.get_meta("other") is None


def test_replacing_by_uuid_renames(path: Path) -> None:
    store = Store(path)
    store.put_instance(WEB1)
    store.put_instance(replace(WEB1, name="web2", phase=Phase.READY))
    assert [(i.name, i.phase) for i in store.instances()] == [("web2", Phase.READY)]


def test_a_name_is_given_once(path: Path) -> None:
    store = Store(path)
    store.put_instance(WEB1)
    with pytest.raises(ExistsError, match="web1"):
        store.put_instance(replace(WEB1, uuid="u2"))
    assert [i.uuid for i in store.instances()] == ["u1"]


def test_deleting_an_image_deletes_its_aliases(path: Path) -> None:
    store = Store(path)
    store.put_image(IMAGE)
    store.put_alias("deb", IMAGE.fingerprint)
    store.delete_image(IMAGE.fingerprint)
    assert store.aliases() == {}


def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    store = Store(path)

    def both() -> None:
        with store.transaction():
            store.put_instance(WEB1)
            store.put_instance(replace(WEB1, uuid="u2"))

    with pytest.raises(ExistsError):
        both()
    assert list(store.instances()) == []


def test_a_commit_that_fails_is_rolled_back(path: Path) -> None:
    store = Store(path)
    failing: Any = Commitless(store._db)
    store._db = failing

    def change() -> None:
        with store.transaction():
            store.set_meta("a", "b")

    with pytest.raises(sqlite3.OperationalError):
        change()
    failing.broken = False
    assert store.get_meta("a") is None
    change()
    assert store.get_meta("a") == "b"


class Commitless:
    """A database whose disk is full when it comes to commits."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.broken = True

    def execute(self, statement: str, *values: Any) -> Any:
        if self.broken and statement == "COMMIT":
            raise sqlite3.OperationalError("disk full")
        return self._database.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


BODIES = ["", "{", "null", "[]", "{}", '"x"', "[" * 100000, '{"name": 5}']


@pytest.mark.parametrize("body", [*BODIES, b"\xff"])
@pytest.mark.parametrize("table", ["instances", "images", "networks", "operations"])
def test_a_row_that_cannot_be_read_is_left(
    path: Path, caplog: pytest.LogCaptureFixture, table: str, body: str | bytes
) -> None:
    store = Store(path)
    key = {"instances": "uuid", "images": "fingerprint", "networks": "name", "operations": "id"}[table]
    store.put_instance(WEB1)
    store.put_instance(replace(WEB1, uuid="u2", name="web2"))
    for fingerprint in ("u1", "u2"):
        store.put_image(replace(IMAGE, fingerprint=fingerprint))
        store.put_alias(fingerprint, fingerprint)
        store.put_network(Network(fingerprint))
        store.put_operation(Operation(fingerprint, "create-instance", "web1"))
    with caplog.at_level(logging.ERROR):
        assert len(list(getattr(store, table)())) == 2
        store._db.execute(f"UPDATE {table} SET body=? WHERE {key}='u1'", (body,))
        (left,) = getattr(store, table)()
    assert getattr(left, key) == "u2"
    assert table in caplog.text
    assert "'u1'" in caplog.text
    assert store.unreadable(table) == {"u1"}
    assert store._db.execute(f"SELECT count(*) FROM {table}").fetchone() == (2,)
    assert ("u1" in store.aliases()) == (table != "images")


WRONG = [{"config": None}, {"config": {"a": 1}}, {"id_base": "x"}, {"kind": "boat"}, {"x": 1}]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_field_of_another_type_makes_a_row_unreadable(path: Path, wrong: dict[str, Any]) -> None:
    store = Store(path)
    store.put_instance(WEB1)
    (body,) = store._db.execute("SELECT body FROM instances").fetchone()
    store._db.execute("UPDATE instances SET body=?", (json.dumps(json.loads(body) | wrong),))
    assert list(store.instances()) == []


def test_snapshots_from_before_there_was_memory_in_them(path: Path) -> None:
    store = Store(path)
    store.put_instance(WEB1)
    store.put_snapshot(snapshot.take(WEB1, "s1", "with", stateful=True))
    assert [each.stateful for each in store.snapshots()] == [True]
    (body,) = store._db.execute("SELECT body FROM snapshots").fetchone()
    older = {key: value for key, value in json.loads(body).items() if key != "stateful"}
    store._db.execute("UPDATE snapshots SET body=?", (json.dumps(older),))
    assert [each.stateful for each in store.snapshots()] == [False]


def test_the_image_of_what_can_not_be_read_is_in_use(path: Path) -> None:
    store = Store(path)
    whole, lost = replace(WEB1, uuid="u1", name="whole", image="a"), replace(WEB1, uuid="u2", name="lost", image="b")
    for number, instance in enumerate((whole, lost)):
        store.put_instance(instance)
        store.put_snapshot(snapshot.take(replace(instance, image="c"), f"s{number}", f"of-{instance.name}"))
    store._db.execute("UPDATE instances SET body='{}' WHERE uuid='u2'")
    assert list(store.instances()) == [whole]
    found = {image: store.unreadable_users(image) for image in "abc"}
    assert found == {"a": [], "b": ["lost (unreadable)"], "c": ["of-lost (unreadable)"]}
    assert len(list(store.snapshots())) == 2
    store._db.execute("UPDATE snapshots SET body='{}' WHERE uuid='s0'")
    assert len(list(store.snapshots())) == 1
    assert sorted(store.unreadable_users("c")) == ["of-lost (unreadable)", "of-whole (unreadable)"]


def test_a_newer_database_is_left_alone(path: Path) -> None:
    Store(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    database.close()
    with pytest.raises(RuntimeError, match="newer"):
        Store(path)


def test_what_waits_for_the_disk_is_told_when_it_is_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fsync for all who wait, never one for who wrote after it began; and nobody else waits."""
    store, syncs = Store(path), []
    entered, go_on = threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        syncs.append(os.readlink(f"/proc/self/fd/{fd}"))
        entered.set()
        assert go_on.wait(10)

    monkeypatch.setattr(os, "fdatasync", slow)

    async def write(uuid: str) -> None:
        with store.later():
            store.put_instance(replace(WEB1, uuid=uuid, name=uuid))
        await store.on_disk()

    async def run() -> None:
        first = [asyncio.create_task(write(f"a{n}")) for n in range(5)]
        await asyncio.to_thread(entered.wait, 10)
        second = [asyncio.create_task(write(f"b{n}")) for n in range(5)]
        await asyncio.sleep(0.05)
        assert len(list(store.instances())) == 10
        assert not any(task.done() for task in first + second)
        go_on.set()
        await asyncio.gather(*first, *second)

    asyncio.run(run())
    assert syncs == [f"{path}-wal"] * 2
    asyncio.run(store.on_disk())
    assert len(syncs) == 2
    store.close()
    assert len(list(Store(path).instances())) == 10


def test_a_disk_that_fails_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(path)

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(os, "fdatasync", fail)
    with store.later():
        store.put_instance(WEB1)
    with pytest.raises(OSError, match="disk"):
        asyncio.run(store.on_disk())
    with pytest.raises(OSError, match="disk"):
        asyncio.run(store.on_disk())


def test_what_was_on_disk_survives_a_power_cut(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files as they were at the last fsync, with the log as it may be torn by what was written after."""
    store, disk = Store(path), tmp_path / "disk"
    disk.mkdir()
    sync = os.fdatasync

    def keep(fd: int) -> None:
        sync(fd)
        for name in ("db", "db-wal"):
            shutil.copy(path.parent / name, disk)

    monkeypatch.setattr(os, "fdatasync", keep)
    for number in range(20):
        with store.later():
            store.put_instance(replace(WEB1, uuid=f"u{number}", name=f"web{number}"))
        if number == 9:
            asyncio.run(store.on_disk())
    log, synced = (path.parent / "db-wal").read_bytes(), (disk / "db-wal").stat().st_size
    for torn in (synced, synced + 100, synced + 5000, len(log) - 1):
        (disk / "db-wal").write_bytes(log[:torn])
        (disk / "db-shm").unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(f"file:{disk}/db?mode=ro", uri=True)) as found:
            names = {name for (name,) in found.execute("SELECT name FROM instances")}
        assert names == {f"web{number}" for number in range(len(names))}
        assert len(names) >= 10


def test_moves_that_are_not_settled(tmp_path: Path) -> None:
    moves = [Move("a" * 64, True, "u1", "web1", "PEM", ["192.0.2.1:8443"]), Move("b" * 64, False, "u2", "web2", "PEM")]
    store = Store(tmp_path / "db")
    for move in moves:
        store.put_move(move)
    store.put_move(replace(moves[1], decided=True))
    store.close()
    store = Store(tmp_path / "db")
    assert list(store.moves()) == [moves[0], replace(moves[1], decided=True)]
    store.delete_move("a" * 64)
    assert [move.id for move in store.moves()] == ["b" * 64]
    store.close()
