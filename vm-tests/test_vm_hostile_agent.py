# SPDX-License-Identifier: Apache-2.0
"""A guest whose agent, and whose sshd, say what none of them would: commands end with one clear error, the daemon has
time and room for others, and all is well again when they are."""

import time
from collections.abc import Iterator
from pathlib import Path

import leftovers
import pytest
from guests import Done, Instance, syscont, until
from hosts import Host

# Minutes, most of them of waiting for what does not come.
pytestmark = pytest.mark.heavy

BOOT = 240.0
HERE, THERE = "/srv/hostile", "/mnt/hostile"
PROGRAMS = Path(__file__).parent / "on_guest"
MOST_GROWTH = 32 << 10
"""KiB that the daemon may have more of."""
PATIENCE, LONG_PATIENCE = 25.0, 75.0
"""Seconds after which a command has to have ended, also one that waits for a silent sshd: ssh gives it a minute."""
MODES = (
    "endless", "huge", "malformed", "wrong ids", "half", "silent", "flaps", "lies", "twice", "too much",
)  # fmt: skip
WHY = ("no command can be started in the instance now", "the guest's agent", "the command wrote too much")
"""One of which is said, by whether the agent was known before."""


@pytest.fixture(scope="module")
def vm(vm_host: Host, debian_vm: str) -> Iterator[Instance]:
    """Booted, with a folder by which it is told what to do when no command can be run in it, and another instance that
    is to notice nothing."""
    for name in ("hostile_agent.pl", "hostile_sshd"):
        vm_host.push(PROGRAMS / name, f"{HERE}/{name}")
    vm_host.sh(f"chmod +x {HERE}/hostile_sshd; echo real >{HERE}/mode")
    config = ("-c", "boot.mode=direct", "-c", "limits.memory=384MiB")
    syscont(vm_host, "launch", debian_vm, "h1", "--vm", *config, "-d", f"told,type=disk,source={HERE},path={THERE}")
    syscont(vm_host, "image", "build", "busybox")
    syscont(vm_host, "launch", "busybox", "bystander")
    one = Instance(vm_host, "h1")
    until(vm_host, lambda: one.state == "running", patience=BOOT)
    until(vm_host, lambda: one.exec("true", check=False).returncode == 0, patience=BOOT)
    one.sh(f"cp /usr/sbin/sshd /root/sshd; mount --bind {THERE}/hostile_sshd /usr/sbin/sshd")
    yield one
    for name in ("h1", "bystander"):
        syscont(vm_host, "delete", "--force", name)
    syscont(vm_host, "image", "delete", "busybox")
    vm_host.sh(f"rm -r {HERE}")


def resident(host: Host) -> int:
    """KiB of memory that the daemon has."""
    return int(host.sh(f"awk '/^VmRSS:/{{print $2}}' /proc/{leftovers.main_pid(host)}/status"))


def timed(host: Host, *argv: str) -> tuple[float, Done]:
    began = time.monotonic()
    done = syscont(host, *argv, check=False, timeout=LONG_PATIENCE)
    return time.monotonic() - began, done


def others_are_served(host: Host) -> None:
    took, done = timed(host, "list")
    assert done.returncode == 0
    assert took < 1.0
    took, done = timed(host, "exec", "bystander", "--", "echo", "well")
    assert done.stdout == "well\n"
    assert took < 1.0


def refused(vm: Instance, *why: str, patience: float = PATIENCE) -> None:
    """A command, while others are served."""
    began = time.monotonic()
    with vm.host.spawn(["syscont", "exec", vm.name, "--", "true"]) as client:
        while client.poll() is None:
            others_are_served(vm.host)
            assert time.monotonic() - began < patience
            time.sleep(0.2)
        out, said = client.communicate()
    assert client.returncode not in (0, None)
    assert out == ""
    assert any(each in said for each in why), said
    assert 1 <= len(said.splitlines()) <= 2, said
    assert all(len(line) < 400 for line in said.splitlines())


@pytest.mark.parametrize("mode", MODES)
def test_agent(vm: Instance, mode: str) -> None:
    host = vm.host
    script = f"sleep 1; systemctl stop qemu-guest-agent; perl {THERE}/hostile_agent.pl '{mode}' {THERE}"
    with leftovers.nothing_happens(host, but=("daemon's descriptors",)):
        had = resident(host)
        vm.exec("systemd-run", "--quiet", "--collect", "sh", "-c", f"{script}; systemctl start qemu-guest-agent")
        until(host, lambda: host.run(["test", "-e", f"{HERE}/begun"], check=False).returncode == 0)
        try:
            refused(vm, *WHY)
            took, shown = timed(host, "info", vm.name)
            assert "State: running" in shown.stdout
            assert took < 5.0
            assert resident(host) - had < MOST_GROWTH
        finally:
            host.sh(f"touch {HERE}/stop")
            until(host, lambda: vm.exec("true", check=False).returncode == 0, patience=60)
            host.sh(f"rm {HERE}/stop {HERE}/begun")
        assert vm.sh("echo well") == "well\n"


@pytest.mark.parametrize(
    ("mode", "patience"),
    [
        ("closes", PATIENCE),
        ("floods", PATIENCE),
        ("stammers", LONG_PATIENCE),
        ("silent", LONG_PATIENCE),
    ],
)
def test_sshd(vm: Instance, mode: str, patience: float) -> None:
    host = vm.host
    with leftovers.nothing_happens(host, but=("daemon's descriptors",)):
        had = resident(host)
        host.sh(f"echo {mode} >{HERE}/mode")
        try:
            refused(vm, "the instance lets no command in", "the connection to the instance was lost", patience=patience)
            assert vm.state == "running"
            assert resident(host) - had < MOST_GROWTH
        finally:
            host.sh(f"echo real >{HERE}/mode")
        until(host, lambda: vm.exec("true", check=False).returncode == 0)
