# SPDX-License-Identifier: Apache-2.0
"""Limits, proved by load: they bite, they change on what runs, and neighbours don't notice."""

import time

import pytest
from conftest import Launch
from guests import Instance, syscont, until
from hosts import Host

pytestmark = pytest.mark.needs_controllers

MIB = 1 << 20
KILLED = 137
SPIN = "while :; do :; done >/dev/null 2>&1 &"


def configure(instance: Instance, *settings: str) -> None:
    syscont(instance.host, "config", "set", instance.name, *settings)


def fill(instance: Instance, mebibytes: int) -> int:
    """Have a process of the guest hold so much memory for a moment; its exit status."""
    return instance.exec("dd", "if=/dev/zero", "of=/dev/null", f"bs={mebibytes}M", "count=1", check=False).returncode


def events(instance: Instance, name: str) -> int:
    text = instance.host.sh(f"cat /sys/fs/cgroup{instance.systemd('ControlGroup')}/memory.events")
    return int(dict(line.split() for line in text.splitlines())[name])


def seconds(instance: Instance) -> float:
    """Processor time that it had so far."""
    return int(instance.systemd("CPUUsageNSec")) / 1e9


def used(*instances: Instance, during: float) -> list[float]:
    """Processor time of each, as a share of the time that passes."""
    before, begin = [seconds(one) for one in instances], time.monotonic()
    time.sleep(during)
    return [(seconds(one) - was) / (time.monotonic() - begin) for one, was in zip(instances, before, strict=True)]


# Memory


def test_hard_memory_limit_is_held_and_changes_live(host: Host, launch: Launch) -> None:
    instance = launch("", "--config", "limits.memory=48MiB")
    assert fill(instance, 16) == 0
    assert fill(instance, 96) == KILLED
    assert events(instance, "oom_kill") > 0
    assert instance.state == "running"
    configure(instance, "limits.memory=192MiB")
    assert fill(instance, 96) == 0
    syscont(host, "config", "unset", instance.name, "limits.memory")
    assert instance.systemd("MemoryMax") == "infinity"


def test_soft_memory_limit_slows_and_does_not_kill(launch: Launch) -> None:
    instance = launch("", "--config", "limits.memory=24MiB", "--config", "limits.memory.enforce=soft")
    assert fill(instance, 40) == 0
    assert events(instance, "high") > 0
    assert events(instance, "oom_kill") == 0
    configure(instance, "limits.memory.enforce=hard")
    assert fill(instance, 40) == KILLED


def test_memory_in_percent_of_the_host(host: Host, launch: Launch) -> None:
    instance = launch("", "--config", "limits.memory=2%")
    total = int(host.sh("grep MemTotal /proc/meminfo").split()[1]) * 1024
    assert int(instance.systemd("MemoryMax")) == pytest.approx(total * 0.02, rel=0.05)
    assert fill(instance, total // MIB // 20) == KILLED


def test_swap_is_used_or_not(host: Host, launch: Launch) -> None:
    host.sh("dd if=/dev/zero of=/var/tmp/swap bs=1M count=128 status=none; chmod 600 /var/tmp/swap")
    host.sh("mkswap -q /var/tmp/swap; swapon /var/tmp/swap")
    try:
        instance = launch("", "--config", "limits.memory=32MiB")
        assert fill(instance, 64) == 0
        configure(instance, "limits.memory.swap=false")
        assert fill(instance, 64) == KILLED
        configure(instance, "limits.memory.swap=128MiB")
        assert fill(instance, 64) == 0
    finally:
        host.sh("swapoff /var/tmp/swap; rm /var/tmp/swap")


# Processors


def test_processors_are_counted_pinned_and_spread(launch: Launch) -> None:
    one, two = (launch("", "--config", "limits.cpu=1") for _ in range(2))
    assert [instance.exec("nproc").stdout for instance in (one, two)] == ["1\n", "1\n"]
    assert {one.systemd("AllowedCPUs"), two.systemd("AllowedCPUs")} == {"0", "1"}
    configure(one, "limits.cpu=1-1")
    assert one.systemd("AllowedCPUs") == "1"
    assert "\t1\n" in one.sh("grep Cpus_allowed_list /proc/self/status")
    configure(one, "limits.cpu=0-1")
    assert one.exec("nproc").stdout == "2\n"
    refused = syscont(one.host, "config", "set", one.name, "limits.cpu=0,77", check=False)
    assert refused.returncode
    assert "limits.cpu: this host has no processor 77" in refused.stderr
    assert one.exec("nproc").stdout == "2\n"


def test_shares_of_a_processor(launch: Launch) -> None:
    """Pinned to one and the same, they have time by their weights; alone one may have it all."""
    small = launch("", "--config", "limits.cpu=1-1", "--config", "limits.cpu.allowance=25%")
    large = launch("", "--config", "limits.cpu=1-1", "--config", "limits.cpu.allowance=100%")
    small.sh(SPIN)
    (alone,) = used(small, during=5)
    assert alone > 0.6
    large.sh(SPIN)
    of_small, of_large = used(small, large, during=15)
    assert 2.5 < of_large / of_small < 6
    configure(small, "limits.cpu.allowance=400%")
    of_small, of_large = used(small, large, during=15)
    assert 2.5 < of_small / of_large < 6


def test_quota_of_processor_time_changes_live(launch: Launch) -> None:
    instance = launch("", "--config", "limits.cpu.allowance=20ms/100ms")
    instance.sh(SPIN)
    (share,) = used(instance, during=8)
    assert 0.1 < share < 0.3
    configure(instance, "limits.cpu.allowance=60ms/100ms")
    (share,) = used(instance, during=8)
    assert 0.4 < share < 0.75


# Tasks


def forks_refused(instance: Instance) -> int:
    group = f"/sys/fs/cgroup{instance.systemd('ControlGroup')}"
    counts = instance.host.sh(f"find {group} -name pids.events -exec cat {{}} +").splitlines()
    return sum(int(line.split()[1]) for line in counts)


def test_fork_bomb_is_contained(host: Host, launch: Launch) -> None:
    neighbour = launch()
    bomb = launch("", "--config", "limits.processes=64")
    bomb.exec("sh", "-c", "bomb() { sleep 1000 & bomb & bomb; }; bomb >/dev/null 2>&1 &")
    until(host, lambda: forks_refused(bomb) > 0)
    for _ in range(5):
        assert int(bomb.systemd("TasksCurrent")) <= 64
        begin = time.monotonic()
        assert neighbour.exec("echo", "fine").stdout == "fine\n"
        assert time.monotonic() - begin < 1 * host.slowness
    bomb.do("stop", "--force")
    assert bomb.state == "stopped"


# Disks: which of two that are short of it gets more is up to the I/O scheduler of the disk, if it has one.


def test_weight_for_disks_is_set_live(launch: Launch) -> None:
    instance = launch("", "--config", "limits.disk.priority=9")
    group = f"/sys/fs/cgroup{instance.systemd('ControlGroup')}"
    assert instance.systemd("IOWeight") == "180"
    configure(instance, "limits.disk.priority=1")
    assert instance.systemd("IOWeight") == "20"
    if instance.host.sh(f"ls {group} | grep io.*weight || :"):
        assert "20" in instance.host.sh(f"cat {group}/io*.weight")


def test_limits_stay_after_a_restart_of_guest_and_daemon(host: Host, launch: Launch) -> None:
    instance = launch()
    configure(instance, "limits.memory=40MiB", "limits.cpu=1", "limits.processes=200", "limits.cpu.allowance=30%")
    names = ("MemoryMax", "AllowedCPUs", "TasksMax", "CPUWeight")
    before = [instance.systemd(name) for name in names]
    host.run(["systemctl", "restart", "syscontd.service"])
    instance.do("restart", "--force")
    assert [instance.systemd(name) for name in names] == before
    assert fill(instance, 80) == KILLED
