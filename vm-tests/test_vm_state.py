# SPDX-License-Identifier: Apache-2.0
"""Virtual machines stop with their memory and go on with it, as they do with that of a snapshot; whatever dies
meanwhile, there is one memory for each disk, or none."""

import json
import os
from collections.abc import Iterator

import pytest
from guests import Instance, syscont, until
from hosts import Host
from test_crash import crash

# Minutes, most of them of booting.
pytestmark = pytest.mark.heavy

POINTS = int(os.environ.get("CRASH_POINTS", "2"))
BOOT = 300.0
STATEFUL = ("--vm", "-c", "boot.mode=direct", "-c", "limits.memory=384MiB", "-c", "migration.stateful=true")
COUNTER = """systemd-run --quiet --unit=counter sh -c '
i=0; while :; do i=$((i+1)); echo $i >/run/count; echo $i >/root/count; sync /root/count; sleep 0.2; done'
while ! test -s /root/count; do sleep 0.1; done"""
"""One that counts in memory, and on the disk as well: they stay together."""


@pytest.fixture(scope="module")
def vm(vm_host: Host, debian_vm: str) -> Iterator[Instance]:
    """With a process in it that counts; leave it running."""
    syscont(vm_host, "launch", debian_vm, "kept1", *STATEFUL)
    one = Instance(vm_host, "kept1")
    until(vm_host, lambda: one.state == "running", patience=BOOT)
    until(vm_host, lambda: one.exec("true", check=False).returncode == 0, patience=BOOT)
    one.sh(COUNTER)
    yield one
    syscont(vm_host, "delete", "--force", "kept1")


def folder(vm: Instance) -> str:
    return f"/var/lib/syscont/instances/{vm.seen()['uuid']}/upper"


def count(vm: Instance) -> int:
    """Where the counter is, which still counts."""
    until(vm.host, lambda: vm.exec("true", check=False).returncode == 0, patience=BOOT)
    first = int(vm.sh("cat /run/count"))
    until(vm.host, lambda: int(vm.sh("cat /run/count")) > first, patience=30)
    assert abs(int(vm.sh("cat /root/count")) - int(vm.sh("cat /run/count"))) < 50
    return first


def kept(vm: Instance) -> bool:
    return "state" in vm.host.run(["ls", folder(vm)]).stdout.split()


def test_stop_and_start(vm: Instance) -> None:
    boot, before = vm.sh("cat /proc/sys/kernel/random/boot_id"), count(vm)
    vm.do("stop", "--stateful")
    assert vm.state == "stopped"
    assert kept(vm)
    assert "stopped, its memory is kept" in syscont(vm.host, "info", vm.name).stdout
    assert vm.host.sh(f"stat -c '%a %u' {folder(vm)}/state").split() == ["600", "0"]
    assert vm.host.run(["qemu-img", "check", "-q", f"{folder(vm)}/root.qcow2"], check=False).returncode == 0
    vm.do("start", "--wait")
    assert not kept(vm)
    assert "memory is kept" not in syscont(vm.host, "info", vm.name).stdout
    assert count(vm) >= before
    assert vm.sh("cat /proc/sys/kernel/random/boot_id") == boot


def test_systemctl_has_it_go_on(vm: Instance) -> None:
    before = count(vm)
    vm.do("stop", "--stateful")
    vm.host.run(["systemctl", "start", vm.unit])
    assert vm.systemd("ActiveState") == "active"
    assert not kept(vm)
    assert count(vm) >= before


def test_snapshots(vm: Instance) -> None:
    vm.sh("echo then >/root/word")
    before = count(vm)
    syscont(vm.host, "snapshot", "create", "--stateful", vm.name, "with")
    syscont(vm.host, "snapshot", "create", vm.name, "without")
    listed = json.loads(syscont(vm.host, "snapshot", "list", vm.name, "--format", "json").stdout)
    assert {one["name"]: one["stateful"] for one in listed} == {"with": True, "without": False}
    for disk in vm.host.sh(f"ls {folder(vm)}/../snapshots/*/upper/root.qcow2").split():
        assert vm.host.run(["qemu-img", "check", "-q", disk], check=False).returncode == 0
    vm.sh("echo now >/root/word; sync")
    until(vm.host, lambda: count(vm) > before + 20, patience=60)
    syscont(vm.host, "stop", "--force", vm.name)
    syscont(vm.host, "snapshot", "restore", "--stateful", vm.name, "with")
    assert vm.state == "running"
    assert count(vm) >= before
    assert vm.sh("cat /root/word") == "then\n"
    refused = syscont(vm.host, "snapshot", "restore", "--stateful", vm.name, "without", check=False)
    assert "has no memory" in refused.stderr
    syscont(vm.host, "snapshot", "delete", vm.name, "with", "without")


def test_a_copy_has_no_memory(vm: Instance) -> None:
    vm.do("stop", "--stateful")
    syscont(vm.host, "copy", vm.name, "kept2")
    assert not kept(Instance(vm.host, "kept2"))
    syscont(vm.host, "delete", "kept2")
    vm.do("start", "--wait")


def test_another_machine_is_refused(vm: Instance) -> None:
    before = count(vm)
    vm.do("stop", "--stateful")
    syscont(vm.host, "config", "set", vm.name, "limits.memory=512MiB")
    refused = vm.do("start", check=False)
    assert "limits.memory" in refused.stderr
    assert "--stateless" in refused.stderr
    syscont(vm.host, "config", "set", vm.name, "limits.memory=384MiB")
    vm.do("start", "--wait")
    assert count(vm) >= before


def test_no_space(vm: Instance) -> None:
    """It runs on, and nothing is left."""
    before = count(vm)
    place = folder(vm)
    vm.host.sh(f"mount -t tmpfs -o size=8M none {place}")
    try:
        refused = vm.do("stop", "--stateful", check=False)
        assert "No space left on device" in refused.stderr
        assert vm.host.run(["ls", place]).stdout == ""
    finally:
        vm.host.sh(f"umount {place}")
    assert vm.state == "running"
    assert count(vm) >= before


@pytest.mark.parametrize("point", range(POINTS))
def test_the_daemon_dies(vm: Instance, point: int) -> None:
    before = count(vm)
    crash(vm.host, ["syscont", "stop", "--stateful", vm.name], 3.0 * (point + 0.5) / POINTS, "kill")
    until(vm.host, lambda: vm.state in ("running", "stopped"))
    assert kept(vm) == (vm.state == "stopped")
    vm.do("start")
    assert count(vm) >= before
    assert vm.host.sh(f"ls {folder(vm)}/state* || true").split() in ([], [f"{folder(vm)}/state.json"])


def test_it_has_to_be_allowed(vm: Instance) -> None:
    syscont(vm.host, "config", "set", vm.name, "migration.stateful=false")
    for verb in (("stop", "--stateful"), ("snapshot", "create", "--stateful")):
        refused = syscont(vm.host, *verb, vm.name, check=False)
        assert "migration.stateful=true" in refused.stderr
    syscont(vm.host, "config", "set", vm.name, "migration.stateful=true")
    assert vm.state == "running"


def test_the_host_may_allow_it_to_all(vm: Instance) -> None:
    syscont(vm.host, "config", "unset", vm.name, "migration.stateful")
    syscont(vm.host, "config", "set", "instances.migration.stateful=true")
    try:
        syscont(vm.host, "snapshot", "create", "--stateful", vm.name, "allowed")
    finally:
        syscont(vm.host, "config", "unset", "instances.migration.stateful")
        syscont(vm.host, "config", "set", vm.name, "migration.stateful=true")


def test_without_it_the_machine_boots(vm: Instance) -> None:
    boot = vm.sh("cat /proc/sys/kernel/random/boot_id")
    vm.do("stop", "--stateful")
    vm.do("start", "--stateless")
    assert not kept(vm)
    until(vm.host, lambda: vm.exec("true", check=False).returncode == 0, patience=BOOT)
    assert vm.sh("cat /proc/sys/kernel/random/boot_id") != boot


def test_containers_have_no_memory_to_keep(host: Host, busybox: str) -> None:
    syscont(host, "launch", busybox, "kept3")
    try:
        for verb in (("stop", "--stateful"), ("snapshot", "create", "--stateful")):
            assert "container" in syscont(host, *verb, "kept3", check=False).stderr
        assert Instance(host, "kept3").state == "running"
    finally:
        syscont(host, "delete", "--force", "kept3")
