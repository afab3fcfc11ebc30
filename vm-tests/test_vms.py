# SPDX-License-Identifier: Apache-2.0
"""Virtual machines with the same commands as containers: one that boots, is looked at from all sides, changed, and
stopped. Emulated on container hosts; with KVM of its own: test_vm_kvm.py."""

import json
from collections.abc import Iterator

import pytest
from guests import Instance, on_terminal, syscont, until
from hosts import Host

BOOT = 240.0
"""Seconds that a machine may take to boot where nothing else helps."""
DIRECT = ("--vm", "-c", "boot.mode=direct")


@pytest.fixture(scope="module")
def vm(vm_host: Host, debian_vm: str) -> Iterator[Instance]:
    """A machine that has booted; leave it running and as it was."""
    options = ("-c", "systemd.credential.test.word=a, b", "-c", "boot.kernel_command=syscont.test=yes")
    syscont(vm_host, "launch", debian_vm, "vm1", *DIRECT, *options)
    one = Instance(vm_host, "vm1")
    until(vm_host, lambda: one.state == "running", patience=BOOT)
    yield one
    syscont(vm_host, "delete", "--force", "vm1")


def test_a_machine_is_a_unit(vm: Instance) -> None:
    assert vm.seen()["type"] == "virtual-machine"
    assert vm.systemd("ActiveState") == "active"
    assert int(vm.systemd("MainPID")) == vm.leader
    assert "qemu-system" in vm.host.read_text(f"/proc/{vm.leader}/cmdline")
    assert "vm1" in vm.host.run(["machinectl", "list", "--no-legend"]).stdout
    assert "vm1 login:" in vm.host.sh("journalctl -o cat -u syscont@vm1 | cat") or vm.logs()


def test_qemu_is_nobody(vm: Instance) -> None:
    status = vm.host.read_text(f"/proc/{vm.leader}/status").splitlines()
    fields = {line.partition(":")[0]: line.partition(":")[2].split() for line in status}
    assert set(fields["Uid"]) == {str(vm.seen()["idBase"])} == set(fields["Gid"])
    assert set(fields["CapBnd"]) == {"0" * 16} == set(fields["CapPrm"])
    assert fields["Groups"] == []
    assert sorted(vm.host.run(["ls", f"/proc/{vm.leader}/root"]).stdout.split()) == [
        "bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "tmp", "usr",
    ]  # fmt: skip


def test_what_only_its_start_needed_is_out_of_memory(vm: Instance) -> None:
    """Its initrd, which QEMU maps; QEMU's own program may be another one's as well. It comes some time after READY."""
    taken = "awk '/^[0-9a-f]+-/ { its = /initrd/ } /^Rss:/ && its { sum += $2 } END { print sum + 0 }'"
    until(vm.host, lambda: vm.host.sh(f"{taken} /proc/{vm.leader}/smaps") == "0\n", patience=30)
    heap = "/\\[heap\\]/ { its = 1 } its && /^AnonHugePages:/ { print $2; exit }"
    assert vm.host.sh(f"awk '{heap}' /proc/{vm.leader}/smaps") == "0\n"


def test_secrets_are_in_no_command_line(vm: Instance) -> None:
    assert "io.systemd.credential" not in vm.host.read_text(f"/proc/{vm.leader}/cmdline")


def test_it_has_an_address_and_a_name(vm: Instance) -> None:
    address = vm.address()
    assert vm.host.run(["ping", "-c", "1", "-W", "5", address], check=False).returncode == 0
    assert address in vm.host.sh("syscont network list-leases syscontbr0")


def test_exec(vm: Instance) -> None:
    done = vm.exec("sh", "-c", "echo out; echo err >&2; cat; exit 7", check=False, input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\nin\n", "err\n")


def test_exec_keeps_words_apart(vm: Instance) -> None:
    words = ["a b", "$(reboot)", "'", '"', "", "*", "é", "a\nb"]
    shown = vm.exec("printf", "<%s>", *words).stdout
    assert shown == "".join(f"<{word}>" for word in words)


def test_shell_has_a_terminal(vm: Instance) -> None:
    steps = (("#", "tty; stty size; exit 3\n"), ("/dev/pts/", ""))
    status, shown = on_terminal(vm.host, ["syscont", "shell", "vm1"], *steps, size=(31, 97))
    assert status == 3
    assert "31 97" in shown


def test_files(vm: Instance) -> None:
    vm.host.write_text("/root/pushed", "content\n")
    syscont(vm.host, "file", "push", "--mode", "0640", "--uid", "1", "/root/pushed", "vm1/root/there")
    assert vm.sh("stat -c '%a %u' /root/there; cat /root/there").split() == ["640", "1", "content"]
    syscont(vm.host, "file", "pull", "vm1/root/there", "/root/pulled")
    assert vm.host.read_text("/root/pulled") == "content\n"
    refused = syscont(vm.host, "file", "pull", "vm1/root", "/root/pulled", check=False)
    assert refused.returncode != 0
    assert "directory" in refused.stderr


def test_the_guest_has_its_name_and_id(vm: Instance) -> None:
    uuid = vm.seen()["uuid"]
    shown = vm.sh("hostname; cat /etc/machine-id; cat /sys/class/dmi/id/product_uuid").split()
    assert shown == ["vm1", uuid.replace("-", ""), uuid]


def test_credentials_reach_the_guest(vm: Instance) -> None:
    assert vm.exec("systemd-creds", "--system", "cat", "test.word").stdout == "a, b"


def test_words_for_the_kernel(vm: Instance) -> None:
    assert "syscont.test=yes" in vm.exec("cat", "/proc/cmdline").stdout.split()


def test_the_root_file_system_has_grown(vm: Instance) -> None:
    size = int(vm.sh("df --output=size -B1 / | tail -1"))
    assert size > 9 << 30


def test_pause_and_resume(vm: Instance) -> None:
    vm.do("pause")
    assert vm.state == "frozen"
    vm.do("resume")
    assert vm.state == "running"


def test_the_daemon_may_die(vm: Instance) -> None:
    leader = vm.leader
    vm.host.run(["systemctl", "kill", "--signal=KILL", "syscontd"])
    until(vm.host, lambda: syscont(vm.host, "list", check=False).returncode == 0)
    until(vm.host, lambda: vm.state == "running")
    assert vm.leader == leader
    assert vm.sh("echo still") == "still\n"


def test_disks_come_and_go(vm: Instance) -> None:
    vm.host.sh("truncate -s 64M /srv/extra.img")
    syscont(vm.host, "device", "add", "vm1", "extra", "disk", "source=/srv/extra.img", "path=/srv")
    look = "ls /dev/disk/by-id/virtio-extra"
    until(vm.host, lambda: vm.sh(f"{look} || true"))
    vm.sh("dd if=/dev/zero of=/dev/disk/by-id/virtio-extra bs=1M count=1 oflag=direct && "
          "printf hello | dd of=/dev/disk/by-id/virtio-extra conv=notrunc && sync")  # fmt: skip
    assert vm.host.sh("head -c 5 /srv/extra.img") == "hello"
    syscont(vm.host, "device", "remove", "vm1", "extra")
    assert vm.sh(f"{look} 2>/dev/null || echo gone") == "gone\n"


def test_interfaces_come_and_go(vm: Instance) -> None:
    syscont(vm.host, "device", "add", "vm1", "eth1", "nic", "network=syscontbr0", "hwaddr=02:73:63:00:00:99")
    look = "grep -l 02:73:63:00:00:99 /sys/class/net/*/address"
    until(vm.host, lambda: vm.sh(f"{look} || true"))
    syscont(vm.host, "device", "remove", "vm1", "eth1")
    assert vm.sh(f"{look} || echo gone") == "gone\n"


def memory(vm: Instance) -> int:
    """KiB that the guest has."""
    return int(vm.sh("awk '/MemTotal/{print $2}' /proc/meminfo"))


def test_memory_while_it_runs(vm: Instance) -> None:
    """Less of it by the balloon, more by what is plugged. (Linux takes processors from KVM only: test_vm_kvm.py)"""
    syscont(vm.host, "config", "set", "vm1", "limits.memory=512MiB")
    until(vm.host, lambda: memory(vm) < 600_000, patience=60)
    syscont(vm.host, "config", "set", "vm1", "limits.memory=1536MiB")
    until(vm.host, lambda: memory(vm) > 1_200_000, patience=60)
    syscont(vm.host, "config", "unset", "vm1", "limits.memory")
    until(vm.host, lambda: memory(vm) < 1_100_000, patience=60)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("config", "set", "vm1", "security.privileged=true"), "security.privileged: vm1 is no container"),
        (("config", "set", "vm1", "linux.sysctl.net.ipv4.ip_forward=1"), "vm1 is no container"),
        (("config", "set", "vm1", "boot.mode=bios"), "boot.mode"),
        (("config", "set", "vm1", "limits.memory=1MiB"), "limits.memory"),
        (("config", "set", "vm1", "raw.qemu='"), "raw.qemu"),
        (("device", "add", "vm1", "null", "unix-char", "source=/dev/null", "path=/dev/x"), "unix-char"),
        (("device", "add", "vm1", "r", "nic", "nictype=routed", "ipv4.address=192.0.2.1"), "routed"),
    ],
)
def test_bad_input_changes_nothing(vm: Instance, words: tuple[str, ...], complaint: str) -> None:
    before = vm.seen()
    done = syscont(vm.host, *words, check=False)
    assert done.returncode != 0
    assert complaint in done.stderr
    assert vm.seen()["config"] == before["config"]
    assert vm.seen()["devices"] == before["devices"]


def test_kinds_are_not_mixed_up(vm_host: Host, debian_vm: str, vm: Instance) -> None:
    syscont(vm_host, "image", "build", "busybox")
    done = syscont(vm_host, "launch", "busybox", "no", "--vm", check=False)
    assert "is not for a virtual-machine" in done.stderr
    assert "no" not in [one["name"] for one in json.loads(syscont(vm_host, "list", "--format", "json").stdout)]


def test_copies_and_snapshots(vm: Instance) -> None:
    """Of the disk as it was, paused for the moment."""
    vm.sh("echo before > /root/mark; sync")
    vm.do("snapshot create")
    try:
        vm.sh("echo after > /root/mark; sync")
        upper = vm.on_disk("root.qcow2").replace("/upper/", "/snapshots/*/upper/")
        assert "No errors" in vm.host.sh(f"qemu-img check -f qcow2 {upper}")
        syscont(vm.host, "copy", "vm1/snap0", "vm2")
        other = Instance(vm.host, "vm2")
        other.do("start")
        until(vm.host, lambda: other.state == "running", patience=BOOT)
        assert other.sh("cat /root/mark") == "before\n"
    finally:
        syscont(vm.host, "delete", "--force", "vm2", check=False)
        syscont(vm.host, "snapshot", "delete", "vm1", "snap0", check=False)
    assert vm.sh("cat /root/mark") == "after\n"


def test_stop_powers_the_guest_off(vm: Instance) -> None:
    vm.do("stop")
    assert vm.state == "stopped"
    assert "reboot: Power down" in vm.host.sh("journalctl -o cat -u syscont@vm1 | tail -n 20")
    image = vm.on_disk("root.qcow2")
    assert "No errors" in vm.host.sh(f"qemu-img check -f qcow2 {image}")
    assert vm.host.sh("ls /sys/class/net | grep -c vethsc || true").strip() == "0"
    vm.host.run(["systemctl", "start", "--no-block", vm.unit])
    until(vm.host, lambda: vm.state == "running", patience=BOOT)


def test_a_qemu_that_hangs_is_seen_and_can_be_ended(vm: Instance) -> None:
    vm.host.run(["kill", "-STOP", str(vm.leader)])
    until(vm.host, lambda: vm.state == "unresponsive", patience=8)
    vm.do("stop --force")
    assert vm.state == "stopped"
    vm.do("start")
    until(vm.host, lambda: vm.state == "running", patience=BOOT)


def test_a_qemu_that_dies_is_seen_at_once(vm: Instance) -> None:
    """The last of these: nobody waits for it to boot again."""
    vm.host.run(["kill", "-KILL", str(vm.leader)])
    until(vm.host, lambda: vm.state == "failed", patience=5)
    assert "No errors" in vm.host.sh(f"qemu-img check -f qcow2 {vm.on_disk('root.qcow2')}")


def test_a_start_without_an_init_says_why(vm_host: Host, debian_vm: str) -> None:
    syscont(vm_host, "create", debian_vm, "vm3", *DIRECT, "-c", "boot.kernel_command=init=/no/such")
    one = Instance(vm_host, "vm3")
    try:
        one.do("start", check=False)
        until(vm_host, lambda: one.state == "failed", patience=BOOT)
        assert "initrd: can't run /no/such: No such file or directory" in one.logs()
    finally:
        syscont(vm_host, "delete", "--force", "vm3")
