# SPDX-License-Identifier: Apache-2.0
"""What holds a guest: its ids, capabilities and system calls, alike for its init's children and executed commands."""

import itertools
import re
from collections.abc import Iterator

import pytest
from conftest import Launch
from guests import Instance, syscont
from hosts import Host

# MODULE, RAWIO, PACCT, TIME, AUDIT_WRITE, AUDIT_CONTROL, MAC_OVERRIDE, MAC_ADMIN, SYSLOG, WAKE_ALARM, BLOCK_SUSPEND,
# AUDIT_READ, BPF, as capability.h numbers them; then PERFMON, CHECKPOINT_RESTORE. The table is in docs/isolation.md.
HOST_ONLY = {16, 17, 20, 25, 29, 30, 32, 33, 34, 35, 36, 37, 39}
KERNEL_WIDE = {38, 40}
ID_FIRST, ID_LAST = 0x40000000, 0x6FFFFFFF


def _status(instance: Instance, pid: str, field: str) -> str:
    text = instance.exec("cat", f"/proc/{pid}/status").stdout
    found = re.search(rf"^{field}:\s*(.*)$", text, re.M)
    assert found
    return found[1]


def _map(host: Host, instance: Instance, kind: str = "uid_map") -> list[tuple[int, int, int]]:
    lines = host.read_text(f"/proc/{instance.leader}/{kind}").splitlines()
    return [(int(a), int(b), int(c)) for a, b, c in (line.split() for line in lines)]


def _child_of_init(instance: Instance, script: str) -> str:
    """What a script prints that the guest's init has started: busybox's does so at its next boot."""
    instance.sh(f"cat >/root/try <<'END'\n{script}\nEND\n")
    instance.sh("grep -q try /etc/inittab || echo '::once:/bin/sh -c \"sh /root/try >/root/out 2>&1\"' >>/etc/inittab")
    instance.sh("rm -f /root/out /root/done; echo 'touch /root/done' >>/root/try")
    instance.do("restart")
    instance.sh("for i in $(seq 100); do [ -e /root/done ] && break; sleep 0.1; done")
    return instance.sh("cat /root/out")


# system calls


@pytest.fixture
def denied(launch: Launch) -> Instance:
    return launch("", "--config", "security.syscalls.deny=chroot errno 95\nsethostname errno 1")


def test_denied_calls_fail_in_init_s_children_and_in_commands(denied: Instance) -> None:
    script = "chroot / true; hostname other"
    for output in (denied.exec("sh", "-c", script, check=False).stderr, _child_of_init(denied, script)):
        assert "Operation not supported" in output
        assert "Operation not permitted" in output
    assert denied.exec("hostname").stdout == f"{denied.name}\n"


def test_denied_calls_fail_for_other_users_too(denied: Instance) -> None:
    done = syscont(denied.host, "exec", "--user", "1000", denied.name, "--", "chroot", "/", "true", check=False)
    assert "Operation not supported" in done.stderr
    status = syscont(denied.host, "exec", "--user", "1000", denied.name, "--", "cat", "/proc/self/status").stdout
    for which in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert re.search(rf"^{which}:\s*0+$", status, re.M), which


def test_filters_are_on_everything_and_sudo_goes_on(guest: Instance) -> None:
    for pid in ("1", "self"):
        assert _status(guest, pid, "Seccomp") == "2"
        assert _status(guest, pid, "NoNewPrivs") == "0"


def test_default_list(debian_guest: Instance) -> None:
    script = "perl -e '$! = 0; syscall({}, 0, 0, 0, 0); print $!'"
    for number in (246, 304, 175, 313, 176):
        assert debian_guest.sh(script.format(number)) == "Function not implemented", number
    # umount2 with MNT_FORCE, and without
    forced = "perl -e '$p = \"/nowhere\\0\"; syscall(166, $p, {}); print $!'"
    assert debian_guest.sh(forced.format(1)) == "Permission denied"
    assert debian_guest.sh(forced.format(0)) == "No such file or directory"


def test_default_list_can_be_left_out(host: Host, launch: Launch) -> None:
    instance = launch("", "--config", "security.syscalls.deny_default=false")
    filters = re.search(r"^Seccomp_filters:\s*(\d+)$", host.read_text("/proc/1/status"), re.M)
    assert filters
    for pid in ("1", "self"):
        assert _status(instance, pid, "Seccomp_filters") == filters[1]


def test_commands_are_held_as_the_running_guest_is(denied: Instance) -> None:
    """Not as its configuration is by now, which is for the next start."""
    denied.do("config unset", check=False)
    syscont(denied.host, "config", "unset", denied.name, "security.syscalls.deny")
    assert denied.exec("chroot", "/", "true", check=False).returncode != 0
    denied.do("restart")
    denied.exec("chroot", "/", "true")


def test_old_names(launch: Launch) -> None:
    instance = launch("", "--config", "security.syscalls.blacklist=chroot errno 95")
    assert "not supported" in instance.exec("chroot", "/", "true", check=False).stderr


@pytest.mark.parametrize(
    "pair",
    [
        "security.syscalls.deny=nonsense",
        "security.syscalls.deny=mount errno 1\n[sparc]\nmount",
        "security.syscalls.allow=read; rm -rf /",
        "security.syscalls.intercept.mknod=true",
        "security.idmap.size=1000",
        "security.idmap.base=0",
        "raw.idmap=both 1000 1000",
        "raw.idmap=both 0 0",
        "raw.idmap=uid 5 0\nboth 6 6",
        "raw.idmap=both 1-5 1-4",
        "raw.idmap=both 1 1; reboot",
        "raw.seccomp=2",
        "raw.seccomp=1\nwhitelist\n1",
        "raw.apparmor=}\nprofile unconfined2 {",
        "security.privileged=maybe\nx",
    ],
)
def test_bad_values_are_named_and_change_nothing(guest: Instance, pair: str) -> None:
    before = syscont(guest.host, "config", "show", guest.name).stdout
    done = syscont(guest.host, "config", "set", guest.name, pair, check=False)
    assert done.returncode != 0
    assert pair.partition("=")[0].rpartition(".")[0] in done.stderr
    assert syscont(guest.host, "config", "show", guest.name).stdout == before


def test_a_whole_policy_stands_for_all_keys(launch: Launch) -> None:
    policy = "raw.seccomp=2\ndenylist\nchroot errno 95"
    instance = launch("", "--config", policy, "--config", "security.syscalls.deny=sethostname errno 1")
    assert "not supported" in instance.exec("chroot", "/", "true", check=False).stderr
    instance.exec("hostname", instance.name)


# ids


def test_ranges_of_instances_never_overlap(host: Host, launch: Launch) -> None:
    plain, large, other = launch(), launch("", "--config", "security.idmap.size=200000"), launch()
    ranges = sorted((outside, count) for one in (plain, large, other) for _, outside, count in _map(host, one))
    assert sorted(count for _, count in ranges) == [65536, 65536, 200000]
    for (start, count), (following, _) in itertools.pairwise(ranges):
        assert start + count <= following
    assert all(start >= ID_FIRST and start + count - 1 <= ID_LAST for start, count in ranges)


def test_a_larger_range_is_taken_at_the_next_start(host: Host, launch: Launch) -> None:
    one, _neighbour = launch(), launch()
    before = _map(host, one)
    one.sh("echo x >/root/mine")
    syscont(host, "config", "set", one.name, "security.idmap.size=131072")
    assert _map(host, one) == before
    one.do("restart")
    ((_, base, count),) = _map(host, one)
    assert count == 131072
    assert base == one.seen()["idBase"] != before[0][1]
    assert one.sh("stat -c %u /root/mine; chown 100000 /root/mine; stat -c %u /root/mine").split() == ["0", "100000"]


def test_a_base_is_taken_and_not_shared(host: Host, launch: Launch) -> None:
    base = 0x60000000
    one = launch("", "--config", f"security.idmap.base={base}")
    assert _map(host, one) == [(0, base, 65536)]
    done = syscont(host, "create", "--config", f"security.idmap.base={base + 5}", "busybox", "overlapping", check=False)
    assert done.returncode != 0
    assert one.name in done.stderr
    taken = syscont(host, "create", "--config", "security.idmap.base=100000", "busybox", "overlapping", check=False)
    assert taken.returncode == 0 or "security.idmap.base" in taken.stderr
    syscont(host, "delete", "overlapping", check=False)


@pytest.fixture
def lent(host: Host) -> Iterator[None]:
    """The administrator lends user and group 1000 to instances."""
    for name in ("subuid", "subgid"):
        host.sh(f"cp /etc/{name} /etc/{name}.kept; echo root:1000:1 >>/etc/{name}")
    yield
    for name in ("subuid", "subgid"):
        host.sh(f"mv /etc/{name}.kept /etc/{name}")


def test_raw_idmap(host: Host, launch: Launch, lent: None) -> None:
    one = launch("", "--config", "raw.idmap=both 1000 500")
    base = one.seen()["idBase"]
    wanted = [(0, base, 500), (500, 1000, 1), (501, base + 501, 65536 - 501)]
    assert _map(host, one) == _map(host, one, "gid_map") == wanted
    one.sh("echo x >/root/file; chown 500:500 /root/file")
    assert one.sh("stat -c %u:%g /root/file") == "500:500\n"
    other = launch()
    assert all(outside != 1000 for _, outside, _ in _map(host, other))


# capabilities


@pytest.mark.parametrize(
    ("privileged", "taken"), [("false", HOST_ONLY), ("true", HOST_ONLY | KERNEL_WIDE)], ids=["container", "privileged"]
)
def test_capabilities(host: Host, launch: Launch, privileged: str, taken: set[int]) -> None:
    """All but these, for the guest's init and for a command alike; nothing to inherit."""
    one = launch("", "--config", f"security.privileged={privileged}")
    everything = (2 << int(host.read_text("/proc/sys/kernel/cap_last_cap"))) - 1
    if privileged == "true":
        # A host that is a container may lack some itself.
        found = re.search(r"^CapBnd:\s*(.*)$", host.read_text("/proc/1/status"), re.M)
        assert found
        everything &= int(found[1], 16)
    wanted = everything & ~sum(1 << capability for capability in taken)
    for pid in ("1", "self"):
        for which in ("CapBnd", "CapPrm", "CapEff"):
            assert int(_status(one, pid, which), 16) == wanted, (pid, which)
        for which in ("CapInh", "CapAmb"):
            assert int(_status(one, pid, which), 16) == 0, (pid, which)


# privileged


def test_privileged(host: Host, launch: Launch) -> None:
    one = launch("", "--config", "security.privileged=true")
    assert _map(host, one) == [(0, 0, 4294967295)]
    assert one.sh("id -u") == "0\n"
    for pid in ("1", "self"):
        assert _status(one, pid, "Seccomp") == "2"
    done = syscont(host, "exec", "--user", "1000", one.name, "--", "id", "-u")
    assert done.stdout == "1000\n"


@pytest.mark.parametrize(
    "attempt",
    [
        "mknod /root/sda b 8 0 && cat /root/sda",
        "cat /proc/kcore",
        "cat /proc/keys",
        "cat /proc/timer_list",
        "read old </proc/sys/kernel/panic && echo $old >/proc/sys/kernel/panic",
        "read old </sys/kernel/uevent_helper; echo $old >/sys/kernel/uevent_helper",
        "dmesg --clear || dmesg -C",
        "ls /var/lib/syscont/instances/",
        "adjtimex -t 10000",
    ],
)
def test_what_a_privileged_guest_may_not_do(host: Host, privileged: Instance, attempt: str) -> None:
    assert privileged.exec("sh", "-c", attempt, check=False).returncode != 0


@pytest.fixture(scope="module")
def privileged(host: Host, busybox: str) -> Iterator[Instance]:
    one = Instance(host, "privileged")
    syscont(host, "launch", "--config", "security.privileged=true", busybox, one.name)
    yield one
    syscont(host, "delete", "--force", one.name)


def test_from_privileged_to_not_and_back(host: Host, launch: Launch) -> None:
    """Files are the same on disk: nothing is ever shifted."""
    one = launch()
    one.sh("echo x >/root/file; chown 33:44 /root/file")
    for value, uid in (("true", 0), ("false", one.seen()["idBase"])):
        syscont(host, "config", "set", one.name, f"security.privileged={value}", "security.protection.shift=true")
        one.do("restart")
        assert _map(host, one)[0][1] == uid
        assert one.sh("stat -c %u:%g /root/file") == "33:44\n"
    assert host.sh(f"stat -c %u:%g {one.on_disk('/root/file')}") == "33:44\n"


def test_daemon_takes_up_a_privileged_guest(host: Host, privileged: Instance) -> None:
    leader = privileged.leader
    host.run(["systemctl", "restart", "syscontd"])
    assert privileged.leader == leader
    assert privileged.sh("echo ok") == "ok\n"


# keyrings


def test_no_keyring_of_the_host(debian_guest: Instance) -> None:
    for line in debian_guest.sh("cat /proc/keys || true").splitlines():
        assert "invocation" not in line


# containers in containers


@pytest.mark.needs_controllers
def test_nested_proc_and_sysfs(launch: Launch) -> None:
    """Not on a container host: beneath its root is hidden what it was made from, with a proc that the kernel counts."""
    script = "unshare -Urmpnf sh -c 'mount -t proc proc /proc && mount -t sysfs sysfs /sys && ls /proc/1/status'"
    assert launch().exec("sh", "-c", script, check=False).returncode != 0
    nesting = launch("", "--config", "security.nesting=true")
    assert nesting.sh(script) == "/proc/1/status\n"


def test_nested_container(debian: str, launch: Launch) -> None:
    """A copy of a Debian guest's files, with namespaces of its own and a proc and sysfs of its own."""
    one = launch(debian, "--wait", "--config", "security.nesting=true")
    one.sh("mkdir -p /mnt/tree/proc /mnt/tree/sys; cp -a /bin /lib /lib64 /usr /mnt/tree/")
    script = "chroot /mnt/tree /bin/sh -c 'mount -t proc proc /proc; mount -t sysfs none /sys; echo $$ $(id -u)'"
    assert one.sh(f"unshare --user --map-root-user --mount --pid --net --fork {script}") == "1 0\n"
