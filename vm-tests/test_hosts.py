# SPDX-License-Identifier: Apache-2.0
"""The hosts themselves: what every other test takes for granted."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeHost
from hosts import CommandError, ContainerHost, Host, Recipe, VmHost, registry


@pytest.fixture(scope="module")
def plain_host(host_kind: type[Host]) -> Iterator[Host]:
    """One host for the tests that change nothing of note."""
    with host_kind() as one:
        yield one


def test_host_runs_commands_with_their_streams_and_status(plain_host: Host) -> None:
    done = plain_host.run(["sh", "-c", "cat; echo wrong >&2; exit 3"], input="hello", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "hello", "wrong\n")
    with pytest.raises(CommandError, match="No such file"):
        plain_host.run(["ls", "/nowhere"])
    with pytest.raises(subprocess.TimeoutExpired):
        plain_host.run(["sleep", "600"], timeout=0.5)
    assert plain_host.run(["id", "-un"], user="alice").stdout == "alice\n"
    assert plain_host.sh("""echo 'one  "two"' $((1 + 1))""") == 'one  "two" 2\n'


def test_host_is_a_whole_systemd_machine(plain_host: Host) -> None:
    assert plain_host.run(["systemctl", "is-system-running"], check=False).stdout == "running\n"
    assert "/system.slice/" in plain_host.read_text("/proc/self/cgroup")
    assert "Startup finished" in plain_host.journal()
    plain_host.sh("machinectl list; busctl --system list; runuser -u alice -- busctl list")


def test_files_go_in_and_come_out_unchanged(plain_host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "below" / "bytes").write_bytes(bytes(range(256)) * 5000)
    (source / "program").write_text("#!/bin/sh\necho ran\n")
    (source / "program").chmod(0o755)

    plain_host.push(source, "/srv/copy")
    assert plain_host.run(["/srv/copy/program"]).stdout == "ran\n"
    plain_host.push(source / "below" / "bytes", "/srv/one/file")
    plain_host.pull("/srv/one/file", tmp_path / "file")
    plain_host.pull("/srv/copy", tmp_path / "back")

    expected = (source / "below" / "bytes").read_bytes()
    assert (tmp_path / "file").read_bytes() == expected
    assert (tmp_path / "back" / "below" / "bytes").read_bytes() == expected


def test_what_was_synced_survives_a_power_cut(bare_host: Host) -> None:
    boot = "/proc/sys/kernel/random/boot_id"
    first = bare_host.read_text(boot)
    bare_host.sh("""
        mkdir -p /var/lib/syscont
        echo kept | tee /root/kept >/var/lib/syscont/kept
        sync
        echo gone >/run/gone
    """)
    bare_host.power_cut()
    assert not bare_host.running()
    bare_host.boot()
    assert bare_host.sh("cat /root/kept /var/lib/syscont/kept") == "kept\nkept\n"
    assert bare_host.run(["test", "-e", "/run/gone"], check=False).returncode
    assert bare_host.read_text(boot) != first


@pytest.mark.needs_power_cut
def test_what_was_not_synced_is_lost_in_a_power_cut(bare_host: Host) -> None:
    bare_host.sh("echo lost >/root/lost")
    bare_host.power_cut()
    bare_host.boot()
    assert not bare_host.sh("cat /root/lost 2>/dev/null || true")


@pytest.mark.uplink
def test_uplink_reaches_debian(bare_host: Host) -> None:
    bare_host.sh("apt-get update -qq && apt-cache show hello >/dev/null", timeout=120)


def test_without_uplink_there_is_no_way_out(plain_host: Host) -> None:
    assert plain_host.run(["apt-get", "update", "--error-on=any"], check=False).returncode
    assert plain_host.run(["ping", "-c1", "-W1", "198.18.0.1"], check=False).returncode


def test_package_installs_without_network(bare_host: Host, deb: Path) -> None:
    bare_host.install_deb(deb)
    assert "ii  syscont" in bare_host.run(["dpkg", "-l", "syscont"]).stdout


def test_hosts_made_from_one_base_are_apart(make_host: MakeHost) -> None:
    one, two = make_host(), make_host()
    one.sh("echo mine >/root/mine")
    assert two.run(["test", "-e", "/root/mine"], check=False).returncode
    assert one.read_text("/etc/machine-id") != two.read_text("/etc/machine-id")


def test_a_closed_host_leaves_nothing(host_kind: type[Host]) -> None:
    with host_kind() as one:
        directory, pid = one.directory, one.record.pid
        assert registry.started(pid)
    assert not directory.exists()
    assert not registry.started(pid)


def see_each_other(kind: type[Host], recipe: Recipe) -> None:
    with kind(recipe=recipe) as one, kind(recipe=recipe) as two:
        one.join(two)
        one.sh("ping -c1 -W5 198.19.0.2")
        two.reboot()
        two.sh("ping -c1 -W5 198.19.0.1")


def test_two_container_hosts_see_each_other() -> None:
    see_each_other(ContainerHost, Recipe())


@pytest.mark.heavy
@pytest.mark.needs_kvm
def test_two_vm_hosts_see_each_other() -> None:
    see_each_other(VmHost, Recipe(variant="vms"))


@pytest.mark.needs_controllers
def test_controllers_are_there(plain_host: Host) -> None:
    controllers = plain_host.read_text("/sys/fs/cgroup/cgroup.controllers").split()
    assert {"cpu", "memory", "io", "pids"} <= set(controllers)


@pytest.mark.needs_kvm
def test_kvm_is_there(plain_host: Host) -> None:
    plain_host.sh("test -c /dev/kvm && grep -qw svm /proc/cpuinfo")


@pytest.mark.needs_smt
def test_threads_share_a_core(plain_host: Host) -> None:
    siblings = "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list"
    assert plain_host.read_text(siblings).strip() in ("0-1", "0,1")


@pytest.mark.needs_sriov
def test_virtual_functions_appear(plain_host: Host) -> None:
    script = """
    for card in /sys/class/net/*/device/sriov_numvfs; do echo 2 >"$card"; done
    ls -d /sys/class/net/*/device/virtfn*
    """
    assert len(plain_host.sh(script).split()) == 2
