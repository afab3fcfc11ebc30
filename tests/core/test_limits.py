# SPDX-License-Identifier: Apache-2.0
"""limits.*, linux.* and core scheduling: what is accepted, and what the unit is told."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.model import sysctls
from sysd.model.config import check_config
from sysd.model.errors import InvalidError, SyscontError, UnsupportedError
from sysd.model.keys.limits import UNLIMITED
from sysd.runtime import limits

GOOD = [
    ("limits.cpu", "2"),
    ("limits.cpu", "0,3"),
    ("limits.cpu", "0-3,7"),
    ("limits.cpu", "1-1"),
    ("limits.cpu.allowance", "50%"),
    ("limits.cpu.allowance", "25ms/100ms"),
    ("limits.cpu.allowance", "25/100"),
    ("limits.cpu.allowance", "400ms/100ms"),
    ("limits.cpu.priority", "0"),
    ("limits.disk.priority", "10"),
    ("limits.kernel.nofile", "1000"),
    ("limits.kernel.nofile", "1000:2000"),
    ("limits.kernel.memlock", "unlimited"),
    ("limits.kernel.core", "0:unlimited"),
    ("limits.memory", "50%"),
    ("limits.memory.enforce", "soft"),
    ("limits.memory.swap", "false"),
    ("limits.memory.swap", "64MiB"),
    ("linux.kernel_modules", "br_netfilter, nf-conntrack"),
    ("linux.sysctl.net.ipv4.ip_forward", "1"),
    ("linux.sysctl.net/ipv4/ip_forward", "1"),
    ("linux.sysctl.net.ipv4.tcp_rmem", "4096 131072\t6291456"),
    ("linux.sysctl.net.ipv4.conf.eth0/5.forwarding", "1"),
    ("linux.sysctl.net/ipv4/conf/eth0.5/forwarding", "1"),
    ("linux.sysctl.net.ipv6.conf.all.disable_ipv6", "1"),
    ("linux.sysctl.net.ipv6.conf.eth0.stable_secret", "2001:db8::1"),
    ("linux.sysctl.net.ipv4.tcp_congestion_control", "bbr"),
    ("linux.sysctl.net.ipv4.ip_local_reserved_ports", "8080,9000-9100"),
    ("linux.sysctl.net.ipv4.ip_local_reserved_ports", ""),
    ("linux.sysctl.net.ipv4.neigh.eth0.gc_stale_time", "1"),
    ("linux.sysctl.kernel.sem", "250 32000 100 128"),
    ("linux.sysctl.kernel.shmmax", "18446744073692774399"),
    ("linux.sysctl.fs.mqueue.msg_max", "20"),
    ("linux.sysctl.user.max_user_namespaces", "0"),
    ("security.core_scheduling", "false"),
]


@pytest.mark.parametrize(("key", "value"), GOOD)
def test_accepted(key: str, value: str) -> None:
    assert check_config({key: value}) == {key: value}


BAD = [
    *(("limits.cpu", value) for value in ("", "0", "-1", "3-1", "1,", "a", "1-", "9000", "0-9999", "1 ,2", "٣", "1.5")),
    *(("limits.cpu.allowance", v) for v in ("", "0%", "10001%", "50", "ms/100ms", "0ms/100ms", "1ms/2000ms", "1s/2s")),
    *(("limits.cpu.priority", value) for value in ("-1", "11", "high")),
    *(("limits.disk.priority", value) for value in ("-1", "11")),
    *(("limits.memory", value) for value in ("0%", "101%", "1", "-5%", "1.5%", "%", "1GiB\n")),
    *(("limits.memory.enforce", value) for value in ("", "Hard", "none")),
    *(("limits.memory.swap", value) for value in ("", "maybe", "64 MiB", "-1")),
    *(("limits.kernel.nofile", v) for v in ("", "1:", ":1", "2000:1000", "-1", "1e3", "1:2:3", "9" * 20, "255", "0:9")),
    *(("limits.kernel.as", value) for value in ("0", "1000000")),
    ("limits.kernel.nope", "1"),
    ("limits.kernel.", "1"),
    ("limits.kernel.nofile.", "1"),
    *(("linux.kernel_modules", v) for v in ("", "a,,b", "-r", "../x", "a b", "a$b", "/x.ko", "%n", "x" * 56, "a\nb")),
    ("linux.sysctl.", "1"),
    ("linux.sysctl.kernel.panic", "1"),
    ("linux.sysctl.vm.swappiness", "1"),
    ("linux.sysctl.kernel.hostname", "x"),
    ("linux.sysctl.kernel.domainname", "x"),
    ("linux.sysctl.kernel.core_pattern", "|/bin/sh"),
    ("linux.sysctl.net.core.rmem_max", "1"),
    ("linux.sysctl.net.ipv4.tcp_mem", "1"),
    ("linux.sysctl.net.netfilter.nf_conntrack_max", "1"),
    ("linux.sysctl.net.ipv4.nosuch", "1"),
    ("linux.sysctl.net.ipv4/ip_forward", "1"),
    ("linux.sysctl.net..ipv4.ip_forward", "1"),
    ("linux.sysctl.net.ipv4.ip_forward.", "1"),
    ("linux.sysctl.net/ipv4/../../kernel/panic", "1"),
    ("linux.sysctl.net/ipv4/conf/../forwarding", "1"),
    ("linux.sysctl.net/ipv4/conf/*/forwarding", "1"),
    ("linux.sysctl.net.ipv4.conf.an-interface-name.forwarding", "1"),
    ("linux.sysctl./proc/sys/net/ipv4/ip_forward", "1"),
    ("linux.sysctl.net.ipv4.route.flush", "1"),
    ("linux.sysctl.net.ipv4.neigh.default.gc_stale_time", "1"),
    *(("linux.sysctl.net.ipv4.ip_forward", v) for v in ("", "x", "1\n2", " 1", "1;2", "1 2 3 4 5", "0x1", "1\0", "٣")),
    ("linux.sysctl.net.ipv4.tcp_congestion_control", "bbr reno"),
    ("linux.sysctl.net.ipv6.conf.all.stable_secret", "fe80::1%eth0"),
    ("linux.sysctl.net.ipv6.conf.all.stable_secret", "x"),
    ("security.core_scheduling", "perhaps"),
]


@pytest.mark.parametrize(("key", "value"), BAD)
def test_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_config({key: value})
    assert key in caught.value.message or repr(key) in caught.value.message


REFUSED = ("limits.hugepages.2MB", "limits.hugepages.64KB", "limits.memory.swap.priority", "limits.network.priority")


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_offered_says_why(key: str) -> None:
    with pytest.raises(UnsupportedError, match=f"{key} can't be set: .{{20}}"):
        check_config({key: "1"})


SPELLINGS = {
    "net.ipv4.ip_forward": "net/ipv4/ip_forward",
    "net/ipv4/ip_forward": "net/ipv4/ip_forward",
    "net.ipv4.conf.eth0/5.forwarding": "net/ipv4/conf/eth0.5/forwarding",
    "net/ipv4/conf/eth0.5/forwarding": "net/ipv4/conf/eth0.5/forwarding",
}


@pytest.mark.parametrize(("member", "path"), SPELLINGS.items())
def test_spellings_of_a_sysctl(member: str, path: str) -> None:
    assert sysctls.path(member) == path


def test_of_two_spellings_the_later_counts() -> None:
    config = {"linux.sysctl.net.ipv4.ip_forward": "0", "user.x": "1", "linux.sysctl.net/ipv4/ip_forward": "1"}
    assert sysctls.settings(config) == {"net/ipv4/ip_forward": "1"}


def test_a_privileged_container_has_no_user_namespace() -> None:
    config = {"linux.sysctl.user.max_user_namespaces": "0"}
    assert sysctls.settings(config | {"security.privileged": "false"}) == {"user/max_user_namespaces": "0"}
    with pytest.raises(InvalidError, match=r"linux\.sysctl\.user\.max_user_namespaces: .*host"):
        sysctls.settings(config | {"security.privileged": "true"})


@given(st.text(alphabet="./*abcnetipv4conf_-", max_size=40), st.sampled_from(["1", "0 1"]))
def test_no_sysctl_leaves_its_folder(member: str, value: str) -> None:
    key = f"linux.sysctl.net.ipv4.conf.{member}.forwarding"
    try:
        check_config({key: value})
    except SyscontError:
        return
    path = f"/proc/sys/{sysctls.path(key.removeprefix('linux.sysctl.'))}"
    assert os.path.normpath(path) == path
    assert path.startswith("/proc/sys/net/ipv4/conf/")
    assert path.count("/") == 7


# What systemd is told


def told(config: dict[str, str], cpus: frozenset[int] = frozenset()) -> dict[str, Any]:
    found = limits.live_properties(check_config(config), cpus) | limits.start_properties(config)
    return {name: variant.value for name, variant in found.items()}


DEFAULTS: dict[str, object] = {
    "TasksMax": 16384,
    "MemoryMax": UNLIMITED,
    "MemoryHigh": UNLIMITED,
    "MemorySwapMax": UNLIMITED,
    "CPUWeight": 100,
    "CPUQuotaPerSecUSec": UNLIMITED,
    "CPUQuotaPeriodUSec": UNLIMITED,
    "AllowedCPUs": b"",
    "IOWeight": 100,
    "LimitNOFILE": 524288,
    "LimitNOFILESoft": 1024,
}
TOLD: list[tuple[dict[str, str], dict[str, object]]] = [
    ({"limits.memory": "64MiB"}, {"MemoryMax": 64 << 20, "MemoryHigh": UNLIMITED}),
    (
        {"limits.memory": "64MiB", "limits.memory.enforce": "soft"},
        {"MemoryMax": UNLIMITED, "MemoryHigh": 64 << 20},
    ),
    ({"limits.memory.enforce": "soft"}, {}),
    ({"limits.memory.swap": "false"}, {"MemorySwapMax": 0}),
    ({"limits.memory.swap": "0"}, {"MemorySwapMax": 0}),
    ({"limits.memory.swap": "1MiB"}, {"MemorySwapMax": 1 << 20}),
    ({"limits.cpu.allowance": "50%"}, {"CPUWeight": 50}),
    ({"limits.cpu.allowance": "50%", "limits.cpu.priority": "0"}, {"CPUWeight": 40}),
    ({"limits.cpu.allowance": "1%", "limits.cpu.priority": "0"}, {"CPUWeight": 1}),
    ({"limits.cpu.allowance": "25ms/100ms"}, {"CPUQuotaPerSecUSec": 250000, "CPUQuotaPeriodUSec": 100000}),
    ({"limits.disk.priority": "0"}, {"IOWeight": 1}),
    ({"limits.disk.priority": "10"}, {"IOWeight": 200}),
    ({"limits.processes": "9"}, {"TasksMax": 9}),
    ({"limits.kernel.nofile": "300:400"}, {"LimitNOFILESoft": 300, "LimitNOFILE": 400}),
    ({"limits.kernel.core": "0"}, {"LimitCORESoft": 0, "LimitCORE": 0}),
    ({"limits.kernel.memlock": "unlimited"}, {"LimitMEMLOCKSoft": UNLIMITED, "LimitMEMLOCK": UNLIMITED}),
]


@pytest.mark.parametrize(("config", "different"), TOLD)
def test_properties(config: dict[str, str], different: dict[str, object]) -> None:
    assert told(config) == DEFAULTS | different


def test_memory_in_percent_is_systemds_to_work_out() -> None:
    found = told({"limits.memory": "50%"})
    assert "MemoryMax" not in found
    assert found["MemoryMaxScale"] == pytest.approx(2**31, rel=1e-6)


@given(st.frozensets(st.integers(0, 300)))
def test_cpu_mask_both_ways(cpus: frozenset[int]) -> None:
    assert limits.cpus_of_mask(limits.cpu_mask(cpus)) == cpus


@pytest.fixture
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})


@pytest.mark.usefixtures("four_processors")
def test_processors_are_spread() -> None:
    none: frozenset[int] = frozenset()
    others: list[frozenset[int]] = []
    for _ in range(4):
        others.append(limits.choose_cpus({"limits.cpu": "2"}, none, others))
    assert sorted(cpu for one in others for cpu in one) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert limits.choose_cpus({"limits.cpu": "1"}, frozenset({2}), others) == {2}
    assert limits.choose_cpus({"limits.cpu": "64"}, none, others) == {0, 1, 2, 3}
    assert limits.choose_cpus({"limits.cpu": "1-2"}, none, others) == {1, 2}
    assert limits.choose_cpus({}, none, others) == none
    with pytest.raises(InvalidError, match="no processor 4"):
        limits.choose_cpus({"limits.cpu": "1-4"}, none, others)


def test_numbers_of_rlimits() -> None:
    config = {"limits.kernel.nofile": "300:400", "limits.kernel.locks": "1", "limits.kernel.as": "unlimited"}
    assert limits.rlimit_numbers(config) == {7: (300, 400), 10: (1, 1), 9: (UNLIMITED, UNLIMITED)}
