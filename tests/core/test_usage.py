# SPDX-License-Identifier: Apache-2.0
"""What instances take: of systemd, of cgroups, of links; and how both doors tell it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import varlink
from hypothesis import given
from hypothesis import strategies as st

from sysd.dbus import usage as dbus
from sysd.manager.operations import Operations
from sysd.manager.usage import Usages
from sysd.model.instance import Instance
from sysd.model.usage import Disk, InstanceUsage, MachineUsage, Memory, Traffic
from sysd.network import counters
from sysd.network.counters import Counters
from sysd.units import accounts
from sysd.units.accounts import Account, count_tasks
from sysd.units.bus import BusError
from sysd.varlink import encode

NOT_SET = (1 << 64) - 1
DESCRIPTION = Path(__file__).resolve().parents[2] / "data/varlink/org.syscont.Manager.varlink"


class FakeSystemd:
    """Answers with values, and has no property that is not among them."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    async def unit_property(self, unit: str, interface: str, name: str) -> Any:
        if name not in self._values:
            raise BusError("org.freedesktop.DBus.Error.UnknownProperty", name)
        return self._values[name]


NOTHING = Account(None, None, None, None, None, None, None, None)
FULL = {
    "CPUUsageNSec": 1,
    "MemoryCurrent": 2,
    "MemoryPeak": 3,
    "MemorySwapCurrent": 4,
    "MemoryMax": 6,
    "MemoryHigh": 5,
    "TasksCurrent": 7,
    "IOReadBytes": 8,
    "IOWriteBytes": 9,
}
ACCOUNTS = [
    (FULL, Account(1, 2, 3, 4, 5, 7, 8, 9)),
    ({**FULL, "MemoryHigh": NOT_SET}, Account(1, 2, 3, 4, 6, 7, 8, 9)),
    ({**FULL, "MemoryHigh": NOT_SET, "MemoryMax": NOT_SET}, Account(1, 2, 3, 4, None, 7, 8, 9)),
    (dict.fromkeys(FULL, NOT_SET), NOTHING),
    ({**dict.fromkeys(FULL, NOT_SET), "CPUUsageNSec": 0}, Account(0, *[None] * 7)),
    ({}, NOTHING),
]


@pytest.mark.parametrize(("values", "expected"), ACCOUNTS)
def test_what_systemd_counts(values: dict[str, Any], expected: Account) -> None:
    systemd: Any = FakeSystemd(values)
    assert asyncio.run(accounts.account(systemd, "u.service")) == expected


def test_tasks_are_counted_where_systemd_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "a.slice/u.service"
    (group / "below/deeper").mkdir(parents=True)
    (group / "cgroup.threads").write_text("1\n2\n")
    (group / "below/deeper/cgroup.threads").write_text("3\n")
    monkeypatch.setattr(accounts, "CGROUPS", tmp_path)
    systemd: Any = FakeSystemd({"TasksCurrent": NOT_SET, "ControlGroup": "/a.slice/u.service"})
    assert asyncio.run(accounts.account(systemd, "u.service")).tasks == 3


def test_a_guest_that_makes_cgroups_without_end_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "MAX_CGROUPS", 5)
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        assert count_tasks(tmp_path) == (0 if number < 3 else None)
    assert count_tasks(tmp_path / "gone") is None


# links


def test_counters_are_those_of_the_kernel() -> None:
    before = counters.of_host(["lo", "no-such-link"])
    assert list(before) == ["lo"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(bytes(1000), ("127.0.0.1", 9))
    after = counters.of_host(["lo"])["lo"]
    assert after.sent_packets > before["lo"].sent_packets
    assert after.received_bytes >= before["lo"].received_bytes + 1000
    assert after.sent_bytes >= before["lo"].sent_bytes + 1000


def test_counters_of_a_process_namespace() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        assert list(counters.of_guest(pidfd, ["lo", "gone"])) == ["lo"]
    finally:
        os.close(pidfd)


def _link(*attributes: tuple[int, bytes], kind: int = 16) -> bytes:
    parts = (struct.pack("=HH", 4 + len(data), number) + data + bytes(-len(data) % 4) for number, data in attributes)
    body = b"".join(parts)
    return struct.pack("=IHHII", 32 + len(body), kind, 0, 1, 0) + bytes(16) + body


STATS = struct.pack("=8Q", 1, 2, 3, 4, 5, 6, 7, 8)
ANSWERS = [
    (_link((23, STATS)), Counters(1, 2, 3, 4)),
    (_link((3, b"eth0\0"), (23, STATS)), Counters(1, 2, 3, 4)),
    (_link((3, b"eth0\0")), None),
    (_link((23, STATS), kind=2), None),
    (_link((23, STATS[:24])), None),
    (_link((23, STATS))[:50], None),
    (b"", None),
    (_link() + bytes(64), None),
]


@pytest.mark.parametrize(("answer", "expected"), ANSWERS)
def test_answers_of_netlink(answer: bytes, expected: Counters | None) -> None:
    assert counters.parse(answer) == expected


@given(st.binary(max_size=200))
def test_answers_that_are_none_end(data: bytes) -> None:
    counters.parse(_link() + data)
    counters.parse(data)


def test_others_in_a_guests_network_are_not_heard() -> None:
    sock = MagicMock()
    sock.recvfrom.side_effect = [(_link((23, STATS)), (4711, 0)), (_link(), (0, 0))]
    assert counters._answer(sock) == _link()
    sock.recvfrom.side_effect = lambda _: (_link((23, STATS)), (4711, 0))
    assert counters._answer(sock) == b""


# doors

RUNNING = InstanceUsage(
    cpu=1,
    memory=Memory(current=2, limit=3, host=4),
    tasks=5,
    disks={"root": Disk(used=0, size=7)},
    interfaces={"eth0": Traffic(8, 9, 10, 11, "veth0")},
    machine=MachineUsage("tcg", "no KVM", "direct", False, 12, True, 2, {0: 1, 1 << 60: 1}),
)


def _plain(value: Any) -> Any:
    """Without the variants."""
    if hasattr(value, "signature"):
        return _plain(value.value)
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, dict) else value


def test_dbus_leaves_out_what_nobody_can_tell() -> None:
    assert _plain(dbus.state(RUNNING)) == {
        "CPUUsageNSec": 1,
        "MemoryCurrent": 2,
        "MemoryLimit": 3,
        "MemoryHost": 4,
        "TasksCurrent": 5,
        "Disks": {"root": {"Used": 0, "Size": 7}},
        "Interfaces": {
            "eth0": {"ReceivedBytes": 8, "ReceivedPackets": 9, "SentBytes": 10, "SentPackets": 11, "Link": "veth0"}
        },
        "Machine": {
            "Accelerator": "tcg",
            "Why": "no KVM",
            "Boot": "direct",
            "SecureBoot": False,
            "CID": 12,
            "Agent": True,
            "Processors": 2,
            "Cookies": {0: 1, 1 << 60: 1},
        },
    }
    assert _plain(dbus.state(InstanceUsage())) == {"Disks": {}, "Interfaces": {}}


@pytest.mark.parametrize("value", [RUNNING, InstanceUsage()])
def test_varlink_has_the_fields_of_its_types(value: InstanceUsage) -> None:
    described = varlink.Interface(DESCRIPTION.read_text())
    state = encode.usage(value)
    assert state.keys() == described.members["InstanceState"].type.fields.keys()
    assert state["memory"].keys() == described.members["Memory"].type.fields.keys()
    for field, name in (("disks", "DiskState"), ("interfaces", "InterfaceState")):
        for one in state[field].values():
            assert one.keys() == described.members[name].type.fields.keys()
    if value.machine:
        assert state["machine"].keys() == described.members["MachineState"].type.fields.keys()
        assert state["machine"]["cookies"] == [{"cookie": 0, "processors": 1}, {"cookie": 1 << 60, "processors": 1}]


# the manager


def _usages(asked: list[str]) -> Usages:
    table, systemd = MagicMock(), MagicMock()
    table.get.return_value = table.expanded.return_value = Instance("u", "c1", "f", 65536)

    async def unit_property(unit: str, interface: str, name: str) -> int:
        asked.append(name)
        await asyncio.sleep(0.01)
        return 1

    systemd.unit_property = unit_property
    quotas = MagicMock()
    quotas.usage.return_value = None
    return Usages(table, systemd, quotas)


def test_who_asks_at_once_gets_one_answer() -> None:
    asked: list[str] = []

    async def work() -> None:
        usages = _usages(asked)
        one, other = await asyncio.gather(usages.of("c1"), usages.of("c1"))
        assert one is other
        assert len(asked) == len(set(asked))
        assert await usages.of("c1") is not one

    asyncio.run(work())


def test_who_goes_away_takes_nobody_elses_answer() -> None:
    async def work() -> None:
        usages = _usages([])
        first, second = (asyncio.ensure_future(usages.of("c1")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).cpu == 1

    asyncio.run(work())


def test_warnings_of_an_operation_are_lines() -> None:
    async def work() -> dict[str, str]:
        operations = Operations(MagicMock(), MagicMock())

        async def warn(handle: Any) -> None:
            for text in ("", "slow", "", "loud"):
                handle.warn(text)

        begun = operations.begin("k", "t", warn, record=False)
        return (await operations.wait(begun.id)).result

    assert asyncio.run(work()) == {"warning": "slow\nloud"}
