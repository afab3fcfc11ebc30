# SPDX-License-Identifier: Apache-2.0
"""linux.sysctl.*, linux.kernel_modules and limits.kernel.*: what the guest's kernel is set up with."""

import sys
from pathlib import Path

import pytest
from conftest import Launch
from guests import Instance, syscont
from hosts import Host

sys.path.append(str(Path(__file__).parents[1]))

from sysd.model import sysctls

SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net/ipv4/ip_unprivileged_port_start": "80",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv4.conf.eth0.rp_filter": "2",
    "net.ipv4.ping_group_range": "0 9",
    "net.core.somaxconn": "1234",
    "kernel.msgmax": "12345",
    "kernel.sem": "250 32000 100 129",
    "fs.mqueue.msg_max": "11",
    "user.max_net_namespaces": "7",
}


def refused(host: Host, name: str, setting: str) -> str:
    done = syscont(host, "config", "set", name, setting, check=False)
    assert done.returncode
    assert setting.partition("=")[0] in done.stderr
    return done.stderr


def in_guest(instance: Instance, key: str) -> str:
    return " ".join(instance.exec("cat", f"/proc/sys/{sysctls.path(key)}").stdout.split())


def on_host(host: Host) -> dict[str, str]:
    return {key: host.sh(f"cat /proc/sys/{sysctls.path(key)} 2>/dev/null || :") for key in SYSCTLS}


@pytest.mark.usefixtures("guest")  # networks, which change settings of the host, are up
def test_sysctls_are_the_containers_own(host: Host, launch: Launch) -> None:
    before = on_host(host)
    options = [word for key, value in SYSCTLS.items() for word in ("--config", f"linux.sysctl.{key}={value}")]
    instance = launch("", *options)
    assert {key: in_guest(instance, key) for key in SYSCTLS} == SYSCTLS
    assert on_host(host) == before
    # What is not beneath net stays as it was set.
    assert instance.exec("sh", "-c", "echo 1 > /proc/sys/kernel/msgmax", check=False).returncode


OF_THE_HOST = ("kernel.panic", "vm.swappiness", "kernel.core_pattern", "net.core.rmem_max", "net.ipv4.nosuch")


@pytest.mark.parametrize("key", OF_THE_HOST)
def test_sysctls_of_the_host_are_refused_by_name(host: Host, guest: Instance, key: str) -> None:
    before = syscont(host, "config", "show", guest.name).stdout
    refused(host, guest.name, f"linux.sysctl.{key}=1")
    assert syscont(host, "config", "show", guest.name).stdout == before


HOSTILE = (
    "net/ipv4/../../kernel/panic=1",
    "net/ipv4/conf/../../../kernel/panic=1",
    "net.ipv4.ip_forward=1\nkernel.panic=1",
    "net.ipv4.conf.$(reboot).forwarding=1",
    "/proc/sys/kernel/panic=1",
)


@pytest.mark.parametrize("setting", HOSTILE)
def test_hostile_sysctls(host: Host, guest: Instance, setting: str) -> None:
    before = host.sh("cat /proc/sys/kernel/panic")
    refused(host, guest.name, f"linux.sysctl.{setting}")
    assert host.sh("cat /proc/sys/kernel/panic") == before


def test_a_value_that_the_kernel_refuses_names_the_key(host: Host, launch: Launch) -> None:
    instance = launch(verb="create")
    syscont(host, "config", "set", instance.name, "linux.sysctl.net.ipv4.conf.eth7.forwarding=1")
    failed = instance.do("start", check=False)
    assert failed.returncode
    assert "linux.sysctl.net.ipv4.conf.eth7.forwarding" in failed.stderr
    syscont(host, "config", "unset", instance.name, "linux.sysctl.net.ipv4.conf.eth7.forwarding")
    instance.do("start")
    assert instance.state == "running"


# For whom the kernel decides by the caller's capabilities, or which are no settings; see sysd/model/sysctls.py.
LEFT_OUT = ("_next_id", "/flush", "kernel/ns_last_pid", "kernel/pid_max", "net/netfilter/nf_log/")


def test_the_table_of_sysctls_is_the_kernels(host: Host) -> None:
    """As root of a user namespace that is not the host's root, in namespaces of its own."""
    probe = 'find "$@" -type f 2>/dev/null | while read -r f; do test -w "$f" && w=w || w=r; echo "$w $f"; done'
    ids = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    spaces = ["unshare", "--user", "--map-root-user", "--net", "--ipc", "--uts"]
    folders = [f"/proc/sys/{name}" for name in ("net", "user", "fs/mqueue", "kernel")]
    found = host.run([*ids, *spaces, "sh", "-c", probe, "sh", *folders]).stdout.splitlines()
    seen = {path.removeprefix("/proc/sys/"): mode == "w" for mode, path in (line.split(" ", 1) for line in found)}
    assert len(seen) > 200

    assert not [path for path, writable in seen.items() if sysctls.is_own(path) and not writable]
    if host.sh("uname -r").startswith("6.12."):
        unknown = [path for path, writable in seen.items() if writable and not sysctls.is_own(path)]
        assert not [path for path in unknown if not any(word in path for word in LEFT_OUT)]


# Modules


def test_a_module_that_can_not_be_loaded_fails_the_start(host: Host, launch: Launch) -> None:
    instance = launch("", "--config", "linux.kernel_modules=nosuch_module_1", verb="create")
    failed = instance.do("start", check=False)
    assert failed.returncode
    assert "nosuch_module_1" in instance.logs()
    for bad in ("../x", "a b", "-r", "a;b", "a\nb"):
        refused(host, instance.name, f"linux.kernel_modules={bad}")
    there = host.sh("ls /sys/module").split()
    syscont(host, "config", "set", instance.name, f"linux.kernel_modules={there[0]},{there[-1].replace('_', '-')}")
    instance.do("start")


# Limits of processes


def test_limits_of_processes_hold_for_all_in_the_guest(host: Host, launch: Launch) -> None:
    config = {"nofile": "300:400", "core": "0", "memlock": "65536:1048576"}
    options = [word for key, value in config.items() for word in ("--config", f"limits.kernel.{key}={value}")]
    instance = launch("", *options)
    wanted = {"open files": "300 400", "core file size": "0 0", "locked memory": "65536 1048576"}
    for place in ("1", "self"):
        text = instance.exec("cat", f"/proc/{place}/limits").stdout
        for name, limits in wanted.items():
            line = next(line for line in text.splitlines() if line.startswith(f"Max {name}"))
            assert line.removeprefix(f"Max {name}").split()[:2] == limits.split()
