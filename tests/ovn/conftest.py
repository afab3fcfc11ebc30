# SPDX-License-Identifier: Apache-2.0
"""Servers for tests of OVN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ovn.servers import NORTHBOUND, SOUTHBOUND, VSWITCH, Northd, Server


@pytest.fixture
def north(tmp_path: Path) -> Iterator[Server]:
    with ExitStack() as stack:
        server = Server(tmp_path, NORTHBOUND)
        stack.callback(server.stop)
        yield server


@pytest.fixture
def northd(tmp_path: Path, north: Server) -> Iterator[Northd]:
    with ExitStack() as stack:
        south = Server(tmp_path, SOUTHBOUND)
        stack.callback(south.stop)
        northd = Northd(tmp_path, north, south)
        stack.callback(northd.stop)
        yield northd


@pytest.fixture
def vswitch(tmp_path: Path) -> Iterator[Server]:
    with ExitStack() as stack:
        server = Server(tmp_path, VSWITCH)
        stack.callback(server.stop)
        yield server
