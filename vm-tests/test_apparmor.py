# SPDX-License-Identifier: Apache-2.0
"""AppArmor: every process in a guest is in the guest's profile, and what that denies nothing else would."""

from collections.abc import Iterator

import pytest
from conftest import Launch
from guests import Instance, syscont, until
from hosts import Host

CURRENT = "/proc/self/attr/apparmor/current"
PRIVILEGED = ("--config", "security.privileged=true")
NESTING = ("--config", "security.nesting=true")


def _label(host: Host, pid: int | str) -> str:
    """As the host sees it, whatever the guest has made of its /proc."""
    return host.read_text(f"/proc/{pid}/attr/apparmor/current").strip("\n\0")


@pytest.fixture(scope="module")
def privileged(host: Host, busybox: str) -> Iterator[Instance]:
    one = Instance(host, "held")
    syscont(host, "launch", *PRIVILEGED, busybox, one.name)
    yield one
    syscont(host, "delete", "--force", one.name)


def test_shipped_profiles_are_good(host: Host) -> None:
    """Also for a host where they are never used."""
    host.run(["apparmor_parser", "--skip-kernel-load", "--skip-cache", "/etc/apparmor.d/syscont"])


# which profile


@pytest.mark.needs_apparmor
@pytest.mark.parametrize(
    ("options", "profile"),
    [
        ((), "syscont-container"),
        (NESTING, "syscont-container-nesting"),
        (PRIVILEGED, "syscont-privileged"),
        ((*PRIVILEGED, *NESTING), "syscont-privileged-nesting"),
    ],
)
def test_init_and_commands_are_in_the_profile(
    host: Host, launch: Launch, options: tuple[str, ...], profile: str
) -> None:
    one = launch("", *options)
    held = f"{profile} (enforce)"
    assert _label(host, one.leader) == held
    assert one.sh(f"cat /proc/1/attr/apparmor/current {CURRENT}").split("\n")[:2] == [held, held]
    assert one.seen()["appArmor"] == held
    assert f"AppArmor: {held}\n" in syscont(host, "info", one.name).stdout
    path = f"/org/syscont/Manager/instance/{one.name}"
    shown = host.sh(f"busctl get-property org.syscont.Manager {path} org.syscont.Instance AppArmor")
    assert shown == f's "{held}"\n'
    one.do("restart")
    assert _label(host, one.leader) == held


@pytest.mark.needs_apparmor
def test_commands_are_in_it_whatever_the_guest_has_done_to_proc(host: Host, launch: Launch) -> None:
    one = launch("", *PRIVILEGED)
    one.sh("mkdir -p /fake/thread-self/attr/apparmor; >/fake/thread-self/attr/apparmor/current")
    one.sh("mount --bind /fake /proc")
    sleeping = host.spawn(["syscont", "exec", one.name, "--", "sleep", "100"])
    try:
        pid = until(host, lambda: host.sh("pgrep -x -f 'sleep 100' || true").split())[-1]
        assert _label(host, pid) == "syscont-privileged (enforce)"
        assert one.sh("cat /proc/thread-self/attr/apparmor/current") == ""
    finally:
        sleeping.kill()
        sleeping.wait()


# what it denies


@pytest.mark.needs_apparmor
@pytest.mark.parametrize(
    "attempt",
    [
        "echo changeprofile unconfined >/proc/self/attr/apparmor/current",
        "echo changeprofile syscont-container >/proc/self/attr/current",
        "mkdir -p /mnt/a; mount -t sysfs sysfs /mnt/a",
        "mkdir -p /mnt/a; mount -t proc proc /mnt/a",
        "mkdir -p /mnt/a; mount --bind /proc /mnt/a",
        "mkdir -p /mnt/a; mount --bind /sys/kernel /mnt/a",
        "mkdir -p /mnt/a; mount --move /sys /mnt/a",
        "mkdir -p /mnt/a; mount -t debugfs debugfs /mnt/a",
        "mount -o remount,rw /proc/sys && echo 1 >/proc/sys/kernel/panic",
        "umount /proc/sys/net; umount /proc/sys; echo 1 >/proc/sys/kernel/panic",
        "umount /proc/sysrq-trigger; echo h >/proc/sysrq-trigger",
        "umount -l /sys; mount -t sysfs sysfs /sys && echo Y >/sys/module/printk/parameters/time",
        "mount -t securityfs none /sys/kernel/security && echo x >/sys/kernel/security/apparmor/.remove",
        "mount -t tracefs none /sys/kernel/tracing && cat /sys/kernel/tracing/trace",
    ],
)
def test_what_a_privileged_guest_may_not_do(privileged: Instance, attempt: str) -> None:
    # In a mount namespace of its own, which leaves the guest as it was.
    done = privileged.exec("unshare", "-m", "sh", "-c", attempt, check=False)
    assert done.returncode != 0
    assert "ermission denied" in done.stderr


@pytest.mark.needs_apparmor
def test_what_is_not_denied(privileged: Instance) -> None:
    """Mounts that guests make, and settings of their own namespaces."""
    privileged.exec(
        *("unshare", "-m", "sh", "-ec"),
        "mkdir -p /mnt/a /mnt/b; mount -t tmpfs none /mnt/a; mount --bind /etc /mnt/b; mount -o remount,ro /mnt/a;"
        "mount -t proc proc /proc; echo 1 >/proc/sys/net/ipv4/ip_forward; hostname other; hostname held; umount /mnt/a",
    )


@pytest.mark.needs_apparmor
def test_signals_and_tracing_stay_inside(host: Host, privileged: Instance) -> None:
    """A process of the host's in the guest's pid namespace, where the guest's root sees it, and is its root too."""
    enter = ["nsenter", "--target", str(privileged.leader), "--pid", "--mount", "sleep", "111"]
    outsider = host.spawn(enter)
    try:
        found = until(host, lambda: privileged.sh("grep -la ^sleep.111 /proc/[0-9]*/cmdline || true"))
        seen = found.split("/")[2]
        for attempt in (f"kill {seen}", f"cat /proc/{seen}/environ"):
            assert "ermission denied" in privileged.exec("sh", "-c", attempt, check=False).stderr, attempt
        privileged.sh("sleep 112 & kill $!")
    finally:
        host.sh("pkill -x -f 'sleep 111'")
        outsider.wait()


@pytest.mark.needs_apparmor
@pytest.mark.heavy
def test_systemd_in_a_privileged_guest(launch: Launch, debian: str) -> None:
    """Its services make mount namespaces, which the profile has to leave them."""
    one = launch(debian, "--wait", *PRIVILEGED)
    assert one.sh("systemctl is-system-running") == "running\n"


# rules of an instance's own


@pytest.mark.needs_apparmor
def test_rules_of_its_own(host: Host, launch: Launch) -> None:
    """They hold for the guest, for commands, and for the worker that pulls a file; and they can allow more."""
    one = launch("", *PRIVILEGED, "--config", "raw.apparmor=deny /root/{not,nor}-this rw,\nmount fstype=sysfs,")
    own = f"syscont-{one.seen()['uuid']}"
    assert _label(host, one.leader) == f"{own} (enforce)"
    one.sh("mkdir -p /mnt/a; mount -t sysfs sysfs /mnt/a; umount /mnt/a; echo x >/root/this")
    assert "ermission denied" in one.exec("sh", "-c", "echo x >/root/not-this", check=False).stderr
    syscont(host, "file", "pull", f"{one.name}/root/this", "/dev/null")
    host.sh("echo x >/root/pushed")
    pushed = syscont(host, "file", "push", "/root/pushed", f"{one.name}/root/nor-this", check=False)
    assert "ermission denied" in pushed.stderr
    # It is there when the guest reboots by itself, and gone with the instance.
    one.do("stop", "--force")
    one.do("start")
    assert own in host.read_text("/sys/kernel/security/apparmor/profiles")
    one.do("delete", "--force")
    assert own not in host.read_text("/sys/kernel/security/apparmor/profiles")


@pytest.mark.needs_apparmor
def test_rules_that_the_parser_does_not_take(host: Host, launch: Launch) -> None:
    one = launch("", verb="create")
    syscont(host, "config", "set", one.name, "raw.apparmor=mount fstype=,")
    started = one.do("start", check=False)
    assert started.returncode != 0
    assert "raw.apparmor" in started.stderr
    assert one.state == "stopped"
    syscont(host, "config", "unset", one.name, "raw.apparmor")
    one.do("start")
    assert _label(host, one.leader) == "syscont-container (enforce)"


def test_rules_that_close_the_profile_are_refused(guest: Instance) -> None:
    for rules in ("}\nprofile unconfined2 { file,", "mount, #include <x>", "deny /etc/shadow r", "/bin/sh { file, },"):
        done = syscont(guest.host, "config", "set", guest.name, f"raw.apparmor={rules}", check=False)
        assert done.returncode != 0
        assert "raw.apparmor" in done.stderr
    assert "raw.apparmor" not in syscont(guest.host, "config", "show", guest.name).stdout


@pytest.mark.needs_apparmor
def test_a_profile_that_is_gone(host: Host, launch: Launch) -> None:
    """The host's administrator unloads it: instances start without, and say so."""
    host.sh("apparmor_parser --remove /etc/apparmor.d/syscont")
    try:
        one = launch()
        assert _label(host, one.leader) == one.seen()["appArmor"] == "unconfined"
        assert "AppArmor" in host.journal(unit="syscontd.service", lines=20)
    finally:
        host.sh("apparmor_parser --replace /etc/apparmor.d/syscont")
