# SPDX-License-Identifier: Apache-2.0
"""Sizes of root disks: whose number is whose, what is refused and why. What the kernel does is shown in vm-tests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from sysd.manager import layers
from sysd.manager.events import EventBus
from sysd.manager.quotas import FIRST, Quotas
from sysd.manager.table import Table
from sysd.model.devices.check import check_device
from sysd.model.devices.disk import root_size
from sysd.model.errors import FailedError, InvalidError, UnsupportedError
from sysd.model.instance import Instance, Phase
from sysd.model.sizes import Usage
from sysd.storage import quota
from sysd.storage.dir import Dir
from sysd.store.database import Store

MIB = 1 << 20
POOL = Path("/pool")


class Pool(Dir):
    """A pool that counts, in memory: what this machine's file systems may not do."""

    def __init__(self, *, counts: bool = True) -> None:
        self.counts = counts
        self.used: dict[int, int] = {}
        self.limits: dict[int, int] = {}
        self.folders: dict[Path, int] = {}

    def is_limited(self, pool: Path) -> bool:
        return self.counts

    def assign(self, folder: Path, project: int) -> None:
        self.folders[folder] = project

    def project_of(self, folder: Path) -> int:
        return self.folders.get(folder, 0)

    def usage(self, pool: Path, project: int) -> Usage:
        return Usage(self.used.get(project, 0), self.limits.get(project, 0))

    def limit(self, pool: Path, project: int, size: int) -> None:
        self.limits[project] = size


class House:
    def __init__(self, *, counts: bool = True) -> None:
        self.pool = Pool(counts=counts)
        self.table = Table(EventBus(), lambda instance: instance)
        self.quotas = Quotas(self.table, self.pool, POOL)

    def made(self, name: str, size: str = "") -> Instance:
        """An instance whose files are there."""
        one = self.quotas.give(sized(Instance(f"u-{name}", name, "f", 65536, phase=Phase.READY), size))
        self.quotas.count(one, layers.upper(one))
        self.table.add(one)
        asyncio.run(self.quotas.apply(one))
        return one


def sized(one: Instance, size: str) -> Instance:
    root = {"type": "disk", "path": "/", "pool": "default"}
    return replace(one, devices={"root": root | {"size": size} if size else root})


def test_numbers_are_nobody_elses() -> None:
    house = House()
    house.pool.used[FIRST + 1] = 4096
    numbers = [house.made(name).quota_id for name in "abc"]
    assert numbers == [FIRST, FIRST + 2, FIRST + 3]
    house.table.remove(house.table.get("a"))
    assert house.made("d").quota_id == FIRST
    kept = house.table.get("d")
    assert house.quotas.give(kept) is kept


def test_a_size_is_put_in_force_and_taken_away() -> None:
    house = House()
    one = house.made("a", "16MiB")
    assert house.quotas.usage(one) == Usage(0, 16 * MIB)
    asyncio.run(house.quotas.apply(sized(one, "")))
    assert house.quotas.usage(one) == Usage(0, 0)
    asyncio.run(house.quotas.apply_all())
    assert house.quotas.usage(one) == Usage(0, 16 * MIB)
    asyncio.run(house.quotas.forget(one))
    assert house.pool.limits == {one.quota_id: 0}


def test_no_less_than_there_is() -> None:
    house = House()
    one = house.made("a", "16MiB")
    house.pool.used[one.quota_id] = 12 * MIB
    for size in ("", "12MiB", "16MiB", "1GiB"):
        house.quotas.check_room(sized(one, size))
    with pytest.raises(InvalidError, match=r"8.00MiB is less than the 12.00MiB in use"):
        house.quotas.check_room(sized(one, "8MiB"))
    # What a snapshot brought back may be more; that is no reason to refuse all other changes.
    house.pool.used[one.quota_id] = 20 * MIB
    house.quotas.check_room(one)


def test_a_restore_has_both_in_place() -> None:
    house = House()
    one = house.made("a", "16MiB")

    async def restore() -> None:
        async with house.quotas.lifted(one):
            assert house.pool.limits[one.quota_id] == 0
            raise FailedError("no room")

    with pytest.raises(FailedError):
        asyncio.run(restore())
    assert house.pool.limits[one.quota_id] == 16 * MIB


def test_what_can_not_be_held_is_refused() -> None:
    house = House(counts=False)
    plain = house.made("a")
    assert (plain.quota_id, house.quotas.usage(plain)) == (0, None)
    house.quotas.check(plain)
    with pytest.raises(UnsupportedError, match="the file system of /pool has no quotas") as caught:
        house.quotas.check(sized(plain, "1GiB"))
    assert "prjquota" in caught.value.hint
    # Quotas came later: new files would be counted, old ones not.
    house.pool.counts = True
    with pytest.raises(UnsupportedError, match="while nobody counted"):
        house.quotas.check(sized(plain, "1GiB"))
    house.quotas.check(sized(house.made("b"), "1GiB"))


def test_files_that_lost_their_number() -> None:
    """As after the state was restored from an archive."""
    house = House()
    one = house.made("a", "16MiB")
    house.pool.folders.clear()
    assert house.quotas.usage(one) is None
    with pytest.raises(UnsupportedError, match="while nobody counted"):
        house.quotas.check(one)


def test_quotas_that_went_away_fail_the_size_only() -> None:
    house = House()
    one = house.made("a", "16MiB")
    house.pool.counts = False
    with pytest.raises(FailedError, match="not held to its size"):
        asyncio.run(house.quotas.apply(one))
    asyncio.run(house.quotas.apply(sized(one, "")))
    asyncio.run(house.quotas.apply_all())


def test_rows_from_before_have_no_number(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.put_instance(Instance("u", "a", "f", 65536))
    store._db.execute("UPDATE instances SET body = json_remove(body, '$.quota_id')")
    (one,) = store.instances()
    assert one.quota_id == 0


def test_a_file_system_without(tmp_path: Path) -> None:
    for folder in (Path("/proc"), tmp_path / "nowhere"):
        assert not quota.is_limited(folder)
        assert not quota.project_of(folder)


@pytest.mark.parametrize("size", ["1MiB", "10GB", "1048576", "7EiB"])
def test_sizes(size: str) -> None:
    device = check_device("root", {"type": "disk", "path": "/", "pool": "default", "size": size})
    assert root_size({"root": device, "data": {"type": "disk", "path": "/srv"}}) >= MIB


@pytest.mark.parametrize("size", ["", "0", "-1", "1023KiB", "50%", "1 GiB", "8EiB", "1GiB\n", "many"])
def test_bad_sizes(size: str) -> None:
    with pytest.raises(InvalidError, match=r"device root: size"):
        check_device("root", {"type": "disk", "path": "/", "pool": "default", "size": size})


def test_only_the_root_disk_has_one() -> None:
    with pytest.raises(InvalidError, match="device data: size is for the root file system only"):
        check_device("data", {"type": "disk", "path": "/srv", "source": "/srv", "size": "1GiB"})
