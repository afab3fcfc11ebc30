# SPDX-License-Identifier: Apache-2.0
"""How work that fails is told."""

import asyncio
import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sysd.manager.events import EventBus
from sysd.manager.operations import Handle, Operations
from sysd.model.errors import FailedError
from sysd.store.database import Store


def run(path: Path, raises: Exception) -> FailedError:
    """What the operation ends with, whose work ends so."""

    async def work(_: Handle) -> None:
        raise raises

    async def begin() -> FailedError:
        operations = Operations(Store(path / "db"), EventBus())
        with pytest.raises(FailedError) as told:
            await operations.wait(operations.begin("create-instance", "web1", work).id)
        return told.value

    return asyncio.run(begin())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_nobody_s_mistake(tmp_path: Path, caplog: pytest.LogCaptureFixture, number: int) -> None:
    error = run(tmp_path, OSError(number, os.strerror(number), "/var/lib/syscont/x"))
    assert os.strerror(number) in error.message
    assert "/var/lib/syscont/x" in error.message
    assert "make room" in error.text
    assert not caplog.records


def test_nor_is_a_full_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as full:
            database.execute("CREATE TABLE one (two)")
    error = run(tmp_path, full.value)
    assert "full (make room" in error.text
    assert not caplog.records


@pytest.mark.parametrize("raises", [OSError(errno.EBADF, "Bad file descriptor"), ValueError("one")])
def test_a_mistake_of_ours_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, raises: Exception) -> None:
    assert str(raises) in run(tmp_path, raises).message
    assert [record.exc_info is not None for record in caplog.records] == [True]
