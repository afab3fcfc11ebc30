# SPDX-License-Identifier: Apache-2.0
"""Virtual machines on a host whose processors run them (KVM), with vsock, and with cores of two threads."""

import json
from collections.abc import Iterator

import pytest
from guests import Instance, python, syscont, systemd_property, until
from hosts import Host

# Heavy: there, a guest in a guest takes minutes to boot.
pytestmark = [pytest.mark.needs_kvm, pytest.mark.needs_smt, pytest.mark.heavy]

BOOT = 60.0
# On a host that is emulated itself, clocks of newer processors stand still in KVM's guests; QEMU heeds its last -cpu.
CPU = "raw.qemu=-cpu qemu64"
# The kernel's, made by a thread of a processor's, whose cookie it has.
OF_KVM = "kvm-nx-lpage-re"
OPTIONS = ("--vm", "-c", "boot.mode=direct", "-c", "limits.memory=512MiB", "-c", CPU)


@pytest.fixture(scope="module")
def vms(vm_host: Host, debian_vm: str) -> Iterator[list[Instance]]:
    """Two that have booted, one after the other; the second has two processors."""
    made = []
    for name, more in (("one", ()), ("two", ("-c", "limits.cpu=2"))):
        syscont(vm_host, "launch", debian_vm, name, *OPTIONS, *more)
        made.append(Instance(vm_host, name))
        until(vm_host, lambda: made[-1].state == "running", patience=BOOT)
    yield made
    for each in made:
        syscont(vm_host, "delete", "--force", each.name)


def test_it_runs_on_kvm(vms: list[Instance]) -> None:
    assert "-accel\0kvm\0" in vms[0].host.read_text(f"/proc/{vms[0].leader}/cmdline")
    assert vms[0].systemd("ActiveState") == "active"


def test_ready_comes_by_vsock(vms: list[Instance]) -> None:
    """The guest's systemd says so itself: its status is the unit's."""
    cid = vms[0].seen()["idBase"]
    assert vms[0].sh("systemd-creds --system cat vmm.notify_socket") == "vsock-stream:2:979"
    assert f'"guest-cid":{cid}' in vms[0].host.read_text(f"/proc/{vms[0].leader}/cmdline")


def test_exec_goes_by_vsock(vms: list[Instance]) -> None:
    """And no port is plugged for it."""
    shown = vms[0].sh("echo $SSH_CONNECTION; ls /dev/virtio-ports; cat; exit 0")
    assert "org.qemu.guest_agent.0" in shown
    assert "org.syscont" not in shown
    assert vms[0].exec("sh", "-c", "exit 5", check=False).returncode == 5


def cookies(host: Host) -> dict[int, int]:
    return {int(task): cookie for task, cookie in json.loads(python(host, "core_cookies").stdout).items()}


def threads_of(instance: Instance) -> dict[int, str]:
    """QEMU's, and what they are called."""
    script = f"cd /proc/{instance.leader}/task; for t in *; do echo $t $(cat $t/comm); done"
    rows = [line.split(" ", 1) for line in instance.host.sh(script).splitlines()]
    return {int(thread): name for thread, name in rows}


def processors(instance: Instance) -> dict[int, bool]:
    """QEMU's threads, and whether they run the guest."""
    return {thread: name.startswith("CPU ") for thread, name in threads_of(instance).items()}


def test_each_instance_has_a_cookie_of_its_own(vms: list[Instance], vm_host: Host) -> None:
    """All that runs a machine's guest, and nothing else of QEMU's, has it; two containers have others."""
    syscont(vm_host, "image", "build", "busybox")
    names = ("box1", "box2")
    try:
        for name in names:
            syscont(vm_host, "launch", "busybox", name)
        seen = cookies(vm_host)
        found = {}
        for vm in vms:
            threads = processors(vm)
            own = {seen[thread] for thread, runs in threads.items() if runs and thread in seen}
            assert len(own) == 1
            found[vm.name] = own.pop()
            others = {thread for thread, name in threads_of(vm).items() if not name.startswith(("CPU ", OF_KVM))}
            assert {seen[thread] for thread in others if thread in seen} == {0}
            assert vm.seen()["coreCookie"] == found[vm.name]
        assert sum(processors(vms[1]).values()) == 2
        for name in names:
            found[name] = seen[Instance(vm_host, name).leader]
        assert 0 not in found.values()
        assert len(set(found.values())) == 4
        for name, cookie in found.items():
            holders = {task for task, value in seen.items() if value == cookie}
            allowed = set(processors(Instance(vm_host, name))) if name not in names else holders
            assert holders <= allowed
    finally:
        for name in names:
            syscont(vm_host, "delete", "--force", name, check=False)


def test_a_processor_that_is_plugged_has_the_cookie(vms: list[Instance], vm_host: Host) -> None:
    vm = vms[0]
    syscont(vm_host, "config", "set", "one", "limits.cpu=2")
    try:
        until(vm_host, lambda: sum(processors(vm).values()) == 2)
        until(vm_host, lambda: vm.sh("cat /sys/devices/system/cpu/present") == "0-1\n")
        seen = cookies(vm_host)
        assert {seen[thread] for thread, runs in processors(vm).items() if runs} == {vm.seen()["coreCookie"]}
    finally:
        syscont(vm_host, "config", "unset", "one", "limits.cpu")


def test_cookie_and_pins_outlive_the_daemon(vm_host: Host, vms: list[Instance], debian_vm: str) -> None:
    before = vms[0].seen()["coreCookie"]
    vm_host.run(["systemctl", "kill", "--signal=KILL", "syscontd"])
    until(vm_host, lambda: syscont(vm_host, "list", check=False).returncode == 0)
    until(vm_host, lambda: vms[0].state == "running")
    assert vms[0].seen()["coreCookie"] == before


def test_processors_can_be_chosen(vm_host: Host, debian_vm: str) -> None:
    """Each is run by one of the host's, and the unit is bound to both."""
    syscont(vm_host, "launch", debian_vm, "pinned", *OPTIONS, "-c", "limits.cpu=0,1")
    try:
        vm = Instance(vm_host, "pinned")
        threads = sorted(thread for thread, runs in processors(vm).items() if runs)
        lists = [vm_host.sh(f"grep Cpus_allowed_list /proc/{thread}/status").split()[1] for thread in threads]
        assert lists == ["0", "1"]
        assert systemd_property(vm_host, vm.unit, "AllowedCPUs") == "0-1"
    finally:
        syscont(vm_host, "delete", "--force", "pinned")
