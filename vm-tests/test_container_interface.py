# SPDX-License-Identifier: Apache-2.0
"""What a guest finds, item by item of systemd.io/CONTAINER_INTERFACE, and what it can't do to its host."""

import re
from collections.abc import Iterator

import pytest
from conftest import Launch
from guests import Instance, on_terminal, syscont, until
from hosts import Host

# user namespace


def test_ids_are_shifted_and_each_instance_has_its_own(host: Host, guest: Instance, launch: Launch) -> None:
    other = launch()
    bases = set()
    for one in (guest, other):
        for kind in ("uid_map", "gid_map"):
            inside, base, count = host.read_text(f"/proc/{one.leader}/{kind}").split()
            assert (inside, count) == ("0", "65536")
            assert int(base) == one.seen()["idBase"]
        bases.add(int(base))
    assert len(bases) == 2
    assert all(base >= 65536 for base in bases)


def test_files_belong_to_root_on_disk(host: Host, guest: Instance) -> None:
    guest.sh("echo x >/root/file; chown 33:44 /root/file; echo y >/root/roots; mkdir -p /root/folder")
    folder = guest.on_disk("/root")
    assert host.sh(f"cd {folder}; stat -c %u:%g file roots folder").split() == ["33:44", "0:0", "0:0"]


def test_others_cannot_look_into_instances(host: Host, guest: Instance) -> None:
    for path in ("/var/lib/syscont/instances", guest.on_disk("/"), "/var/lib/syscont/images"):
        done = host.run(["ls", path], user="alice", check=False)
        assert "Permission denied" in done.stderr, path
    assert host.run(["stat", "-c", "%a", "/var/lib/syscont/instances"]).stdout == "700\n"


def test_setuid_programs_work(debian_guest: Instance) -> None:
    script = """
        cp /usr/bin/sleep /usr/local/bin/mine
        chmod 4755 /usr/local/bin/mine
        su -s /bin/sh nobody -c '/usr/local/bin/mine 5 & sleep 0.3; grep ^Uid: /proc/$!/status; kill $!'
        rm /usr/local/bin/mine"""
    assert debian_guest.sh(script).split() == ["Uid:", "65534", "0", "0", "0"]


def test_everybody_may_ping(debian_guest: Instance) -> None:
    assert "1 received" in debian_guest.sh("su -s /bin/sh nobody -c 'ping -c1 -W2 127.0.0.1'")


def test_file_capabilities_work(debian_guest: Instance) -> None:
    """A file gets one inside, and a user has it by that file."""
    script = """
        cp /usr/bin/sleep /usr/local/bin/able
        setcap cap_net_raw+ep /usr/local/bin/able
        getcap /usr/local/bin/able
        su -s /bin/sh nobody -c '/usr/local/bin/able 5 & sleep 0.3; grep ^CapEff: /proc/$!/status; kill $!'
        """
    lines = debian_guest.sh(script).splitlines()
    assert lines[0].split() == ["/usr/local/bin/able", "cap_net_raw=ep"]
    assert int(lines[1].split()[1], 16) == 1 << 13
    debian_guest.exec("rm", "/usr/local/bin/able")


def test_guest_root_is_nobody_on_the_host(host: Host, guest: Instance) -> None:
    uids = host.read_text(f"/proc/{guest.leader}/status")
    assert re.search(rf"^Uid:\s+{guest.seen()['idBase']}\b", uids, re.M)


@pytest.mark.parametrize(
    "attempt",
    [
        "mknod /root/sda b 8 0",
        "echo c >/proc/sysrq-trigger",
        "echo 1 >/proc/sys/kernel/panic",
        "echo x >/sys/kernel/uevent_helper",
        "dmesg -c",
        "mount -o remount,rw /sys",
        "mount -o remount,rw /run/host",
        "cat /proc/kcore",
        "echo 1 >/sys/fs/cgroup/cgroup.freeze",
        "echo 1 >/sys/fs/cgroup/cgroup.kill",
        "echo x >/run/host/os-release",
    ],
)
def test_what_a_guest_may_not_do(guest: Instance, attempt: str) -> None:
    assert guest.exec("sh", "-c", attempt, check=False).returncode != 0


# what it is told


def test_init_is_told_where_it_is(guest: Instance, debian_guest: Instance) -> None:
    for one in (guest, debian_guest):
        environment = dict(
            line.split("=", 1)
            for line in one.sh("tr '\\0' '\\n' </proc/1/environ").splitlines()
            if "=" in line
        )
        uuid = one.seen()["uuid"]
        assert environment["container"] == "syscont"
        assert environment["container_uuid"] == uuid
        assert one.sh("cat /run/host/container-manager") == "syscont\n"
        assert one.sh("cat /run/host/container-uuid") == f"{uuid}\n"


def test_one_identity_everywhere(host: Host, debian_guest: Instance) -> None:
    guest = debian_guest
    uuid = guest.seen()["uuid"]
    assert guest.exec("cat", "/etc/machine-id").stdout.strip() == uuid.replace("-", "")
    path = f"/org/syscont/Manager/instance/{guest.name.replace('-', '_2d')}"
    argv = ["get-property", "org.syscont.Manager", path, "org.syscont.Instance", "UUID"]
    assert host.run(["busctl", *argv]).stdout == f's "{uuid}"\n'
    assert uuid.replace("-", "") in host.run(["machinectl", "show", guest.name, "-p", "Id"]).stdout
    assert guest.exec("systemd-detect-virt", "--container", check=False).stdout != "none\n"


def test_os_release_of_the_host(host: Host, guest: Instance) -> None:
    assert guest.sh("cat /run/host/os-release") == host.read_text("/etc/os-release")


def test_the_host_is_named_in_the_environment(host: Host, guest: Instance) -> None:
    known = dict(line.split("=", 1) for line in host.read_text("/etc/os-release").splitlines() if "=" in line)
    environment = guest.sh("tr '\\0' '\\n' </proc/1/environ").splitlines()
    assert f"container_host_id={known['ID'].strip(chr(34))}" in environment
    assert f"container_host_version_id={known['VERSION_ID'].strip(chr(34))}" in environment


def test_hostname(guest: Instance, debian_guest: Instance) -> None:
    for one in (guest, debian_guest):
        assert one.exec("hostname").stdout.strip() == one.name


# what it has


def test_mounts(guest: Instance) -> None:
    mounts = {}
    for line in guest.sh("cat /proc/mounts").splitlines():
        _, place, kind, options, *_ = line.split()
        mounts[place] = (kind, options.split(",")[0])
    expected = {
        "/": ("overlay", "rw"),
        "/proc": ("proc", "rw"),
        "/proc/sys": ("proc", "ro"),
        "/proc/sys/net": ("proc", "rw"),
        "/sys": ("sysfs", "ro"),
        "/sys/fs/cgroup": ("cgroup2", "rw"),
        "/dev": ("tmpfs", "rw"),
        "/dev/pts": ("devpts", "rw"),
        "/dev/shm": ("tmpfs", "rw"),
        "/dev/mqueue": ("mqueue", "rw"),
        "/dev/console": ("devpts", "rw"),
        "/run": ("tmpfs", "rw"),
        "/run/host": ("tmpfs", "ro"),
    }
    assert mounts == mounts | expected
    hidden = {f"/proc/{name}" for name in ("kallsyms", "kcore", "keys", "sysrq-trigger", "timer_list")}
    assert set(mounts) <= set(expected) | hidden | {"/tmp"}, "mounts nobody asked for"


def test_inaccessible_nodes(guest: Instance, debian_guest: Instance) -> None:
    shown = guest.sh("cd /run/host/inaccessible; stat -c '%n %F %a %t:%T' *")
    assert shown.splitlines() == [
        "blk block special file 0 0:0",
        "chr character special file 0 0:0",
        "dir directory 0 0:0",
        "fifo fifo 0 0:0",
        "reg regular empty file 0 0:0",
        "sock socket 0 0:0",
    ]
    hidden = ["systemd-run", "--quiet", "--pipe", "--wait", "-p", "InaccessiblePaths=/etc/shadow"]
    assert debian_guest.exec(*hidden, "stat", "-c", "%a", "/etc/shadow").stdout == "0\n"


def test_it_has_the_capabilities_that_systemd_needs(guest: Instance) -> None:
    bounding = int(guest.sh("grep ^CapBnd: /proc/1/status").split()[1], 16)
    for needed in (21, 27):  # CAP_SYS_ADMIN, CAP_MKNOD
        assert bounding >> needed & 1
    for useless in (29, 30, 37):  # CAP_AUDIT_WRITE, CAP_AUDIT_CONTROL, CAP_AUDIT_READ
        assert not bounding >> useless & 1


def test_services_may_be_sandboxed(debian_guest: Instance) -> None:
    """By file system namespaces of their own, with a /dev of their own."""
    settings = ("PrivateDevices=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes")
    words = [word for setting in settings for word in ("-p", setting)]
    script = "[ -c /dev/null ] && [ ! -e /dev/console ] && ! touch /usr/x 2>/dev/null && echo sandboxed"
    argv = ["systemd-run", "--quiet", "--pipe", "--wait", *words, "sh", "-c", script]
    assert debian_guest.exec(*argv).stdout == "sandboxed\n"


def test_nothing_is_there_that_is_not_virtual(guest: Instance) -> None:
    """Neither virtual terminals, nor the kernel's log, nor anything for udev to manage."""
    guest.sh("cd /dev; for n in tty[0-9]* vcs* kmsg; do [ ! -e $n ] || exit 1; done")
    guest.sh("! touch /sys/x 2>/dev/null")


def test_udev_does_not_run(debian_guest: Instance) -> None:
    assert debian_guest.exec("systemctl", "is-active", "systemd-udevd", check=False).stdout == "inactive\n"


def test_sysctls_of_its_own_network_can_be_set(guest: Instance) -> None:
    guest.sh("echo 1 >/proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward")
    guest.sh("echo 0 >/proc/sys/net/ipv4/ip_forward")


def test_device_nodes(guest: Instance) -> None:
    script = "cd /dev; for n in * net/*; do [ -h $n ] || [ ! -c $n ] || stat -c '%n %t %T %a' $n; done"
    nodes = {}
    for line in guest.sh(script).splitlines():
        name, major, minor, mode = line.split()
        nodes[name] = (int(major, 16), int(minor, 16), mode)
    console = nodes.pop("console")
    optional = {"fuse": (10, 229, "666"), "net/tun": (10, 200, "666")}
    assert {name: node for name, node in nodes.items() if name not in optional} == {
        "null": (1, 3, "666"),
        "zero": (1, 5, "666"),
        "full": (1, 7, "666"),
        "random": (1, 8, "666"),
        "urandom": (1, 9, "666"),
        "tty": (5, 0, "666"),
    }
    assert all(nodes[name] == node for name, node in optional.items() if name in nodes)
    assert console[0] in range(136, 144)
    guest.sh("echo >/dev/null; head -c1 /dev/urandom >/dev/null; [ -e /dev/ptmx ] && [ -d /dev/fd/ ]")


def test_the_console_is_a_terminal_of_the_guests_own(guest: Instance) -> None:
    number = guest.sh("stat -c %T /dev/console").strip()
    assert guest.sh(f"stat -c '%t:%T' /dev/pts/{int(number, 16)}") == guest.sh(
        "stat -c '%t:%T' /dev/console"
    )
    assert guest.sh("readlink /proc/1/fd/0").strip() in ("/dev/console", f"/dev/pts/{int(number, 16)}")


def test_cgroups_are_its_own_and_delegated(host: Host, guest: Instance) -> None:
    assert guest.sh("grep ^0: /proc/1/cgroup").strip() == "0::/"
    guest.sh("mkdir /sys/fs/cgroup/mine && rmdir /sys/fs/cgroup/mine")
    group = f"/sys/fs/cgroup{guest.systemd('ControlGroup')}"
    enabled = set(host.read_text(f"{group}/cgroup.controllers").split())
    available = set(host.read_text("/sys/fs/cgroup/cgroup.controllers").split())
    assert {"cpu", "memory", "pids"} & available <= enabled
    assert guest.sh("cat /sys/fs/cgroup/cgroup.controllers").split() == sorted(
        enabled, key=host.read_text(f"{group}/cgroup.controllers").split().index
    )


def test_the_unit_is_delegated(guest: Instance) -> None:
    assert guest.systemd("Delegate") == "yes"
    assert guest.systemd("ControlGroup") == f"/syscont.slice/{guest.unit}"


def test_the_hardware_address_stays(launch: Launch) -> None:
    instance = launch()
    before = instance.sh("cat /sys/class/net/eth0/address")
    instance.do("restart", "--force")
    assert instance.sh("cat /sys/class/net/eth0/address") == before


def test_the_network_card_is_also_called_host0(debian_guest: Instance) -> None:
    assert "eth0" in debian_guest.exec("ip", "-o", "link", "show", "host0").stdout


# the notification socket


def notify(guest: Instance, sender: str, *fields: str) -> None:
    """Root of a guest may send in the name of its PID 1, with --pid=1."""
    argv = ["systemd-notify", "--no-block", f"--pid={sender}", *fields]
    guest.exec("env", "NOTIFY_SOCKET=/run/host/notify", *argv)


def test_a_guest_may_tell_its_status(host: Host, debian_guest: Instance) -> None:
    notify(debian_guest, "1", "STATUS=told by PID 1")
    until(host, lambda: debian_guest.systemd("StatusText") == "told by PID 1")


def test_a_guest_may_tell_nothing_else(host: Host, debian_guest: Instance) -> None:
    guest, other = debian_guest, debian_guest.sh("echo $$").strip()
    fields = [f"MAINPID={other}", "FDSTORE=1", "RELOADING=1", "WATCHDOG=trigger", "ERRNO=5"]
    leader = guest.systemd("MainPID")
    notify(guest, "1", *fields, "EXTEND_TIMEOUT_USEC=1", "STATUS=other things too")
    until(host, lambda: guest.systemd("StatusText") == "other things too")
    assert guest.systemd("MainPID") == leader == str(guest.leader)
    assert guest.systemd("NFileDescriptorStore") == "0"
    assert guest.systemd("ActiveState") == "active"
    assert guest.systemd("StatusErrno") == "0"


def test_only_pid_1_is_listened_to(host: Host, debian_guest: Instance) -> None:
    notify(debian_guest, "self", "STATUS=from somebody")
    notify(debian_guest, "1", "STATUS=from PID 1")
    until(host, lambda: debian_guest.systemd("StatusText") != "other things too")
    assert debian_guest.systemd("StatusText") == "from PID 1"


# machined


def test_machinectl_knows_it(host: Host, debian_guest: Instance) -> None:
    name = debian_guest.name
    listed = host.run(["machinectl", "list", "--no-legend"]).stdout
    assert re.search(rf"^{name} +container +syscont +debian ", listed, re.M)
    status = host.run(["machinectl", "status", name, "--no-pager"]).stdout
    assert f"Leader: {debian_guest.leader} (systemd)" in status
    assert debian_guest.address() in status
    assert f"Unit: {debian_guest.unit}" in status
    status_code, shown = on_terminal(host, ["machinectl", "shell", name, "/bin/echo", "shell works"])
    assert "shell works" in shown
    assert status_code == 0
    journal = host.run(["journalctl", "--machine", name, "-b", "-o", "cat"]).stdout
    assert "Reached target multi-user.target" in journal
    assert host.run(["systemctl", "--machine", name, "is-system-running"]).stdout == "running\n"


def test_machinectl_forgets_it_when_it_stops(host: Host, launch: Launch) -> None:
    instance = launch()
    until(host, lambda: not host.run(["machinectl", "show", instance.name], check=False).returncode)
    instance.do("stop", "--force")
    until(host, lambda: host.run(["machinectl", "show", instance.name], check=False).returncode)


# credentials

CREDENTIALS = {
    "systemd.credential.tmpfiles.extra": "f /root/by-credential 0600 root root - yes",
    "systemd.credential.secret": "line\nand a \\ and a ' and \t",
    "systemd.credential-binary.bytes": "AP8KDQ==",
    "environment.CREDENTIALS_DIRECTORY": "/somewhere/else",
}


@pytest.fixture(scope="module")
def told_guest(host: Host, debian: str) -> Iterator[Instance]:
    guest = Instance(host, "told-guest")
    options = [word for key, value in CREDENTIALS.items() for word in ("--config", f"{key}={value}")]
    syscont(host, "launch", "--wait", *options, debian, guest.name)
    yield guest
    syscont(host, "delete", "--force", guest.name)


def test_systemd_takes_its_credentials(told_guest: Instance) -> None:
    assert told_guest.sh("cat /root/by-credential") == "yes"
    script = "systemd-run -q --pipe --wait -p ImportCredential=secret -p ImportCredential=bytes sh -c"
    read = "cat $CREDENTIALS_DIRECTORY/secret; od -An -tx1 $CREDENTIALS_DIRECTORY/bytes"
    text = told_guest.exec(*script.split(), read).stdout
    assert text == CREDENTIALS["systemd.credential.secret"] + " 00 ff 0a 0d\n"


def test_credentials_are_where_the_container_interface_wants_them(told_guest: Instance) -> None:
    environ = told_guest.sh("tr '\\0' '\\n' </proc/1/environ").splitlines()
    assert "CREDENTIALS_DIRECTORY=/run/host/credentials" in environ
    assert told_guest.sh("stat -c '%a %u' /run/host/credentials /run/host/credentials/secret") == "700 0\n400 0\n"
    kind, options = told_guest.sh("grep ' /run/host/credentials ' /proc/mounts").split()[2:4]
    assert kind == "ramfs" or "noswap" in options
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options.split(","))
    assert told_guest.exec("sh", "-c", "echo x >/run/host/credentials/new", check=False).returncode != 0
    nobody = told_guest.exec("su", "-s", "/bin/sh", "nobody", "-c", "cat /run/host/credentials/secret", check=False)
    assert "ermission denied" in nobody.stderr


def test_secrets_are_nobodys_on_the_host(host: Host, told_guest: Instance) -> None:
    secret = CREDENTIALS["systemd.credential.tmpfiles.extra"]
    for argv in (["systemctl", "show", told_guest.unit], ["syscont", "list", "--format", "json"]):
        assert secret not in host.run(argv, user="alice", check=False).stdout
    assert secret not in host.run(["journalctl", "-b", "-o", "export"]).stdout
    spec = f"/run/syscont/instances/{told_guest.seen()['uuid']}.json"
    assert host.run(["stat", "-c", "%a %u", spec]).stdout == "600 0\n"


def test_no_credentials_no_folder(launch: Launch) -> None:
    one = launch()
    assert one.exec("ls", "/run/host/credentials", check=False).returncode != 0
    assert "CREDENTIALS_DIRECTORY" not in one.sh("cat /proc/1/environ")
