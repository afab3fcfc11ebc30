# SPDX-License-Identifier: Apache-2.0
"""Commands in instances: status, streams, users, terminals, signals."""

import re
import signal
import subprocess
import time

import pytest
from conftest import Launch
from guests import Instance, on_terminal, syscont, until
from hosts import Host


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_exit_status(guest: Instance, script: str, status: int) -> None:
    assert guest.exec("sh", "-c", script, check=False).returncode == status


@pytest.mark.parametrize(("command", "status"), [("/etc/passwd", 126), ("/nowhere", 127), ("no-such-command", 127)])
def test_what_cannot_be_run(guest: Instance, command: str, status: int) -> None:
    done = guest.exec(command, check=False)
    assert done.returncode == status
    assert done.stderr


def test_an_instance_that_does_not_run(host: Host, launch: Launch) -> None:
    done = launch(verb="create").exec("true", check=False)
    assert done.returncode == 125
    assert "is stopped" in done.stderr
    assert syscont(host, "exec", "nobody", "--", "true", check=False).returncode == 125


def test_streams_stay_apart(guest: Instance) -> None:
    done = guest.exec("sh", "-c", "cat; echo wrong >&2", input="typed\n")
    assert (done.stdout, done.stderr) == ("typed\n", "wrong\n")


def test_ten_megabytes_go_both_ways_unchanged(host: Host, guest: Instance) -> None:
    script = f"""
        head -c 10485760 /dev/urandom >/var/tmp/bytes
        syscont exec {guest.name} -- cat </var/tmp/bytes | cmp - /var/tmp/bytes
        cat /var/tmp/bytes | syscont exec {guest.name} -- sh -c 'cat >/var/tmp/bytes'
        syscont exec {guest.name} -- sha256sum /var/tmp/bytes | cut -d' ' -f1
        sha256sum </var/tmp/bytes | cut -d' ' -f1
        syscont exec {guest.name} -- rm /var/tmp/bytes
        rm /var/tmp/bytes"""
    inside, outside = host.sh(script).split()
    assert inside == outside


@pytest.mark.parametrize(
    ("user", "expected"),
    [("root", "0 0 /root"), ("nobody", "65534 65534 /var/empty"), ("1234", "1234 1234 /")],
)
def test_user(host: Host, guest: Instance, user: str, expected: str) -> None:
    script = "echo $(id -u) $(id -g) $HOME"
    done = syscont(host, "exec", "--user", user, guest.name, "--", "sh", "-c", script)
    assert done.stdout.strip() == expected


def test_unknown_user(host: Host, guest: Instance) -> None:
    done = syscont(host, "exec", "--user", "whoever", guest.name, "--", "true", check=False)
    assert done.returncode == 125
    assert "no user 'whoever'" in done.stderr


EVIL = ("4294967295", "4294967296", "65536", "-1", "99999999999999999999")


@pytest.mark.parametrize("number", EVIL)
def test_a_guest_cannot_make_a_command_the_hosts_root(host: Host, launch: Launch, number: str) -> None:
    """setresuid(-1) changes nothing: the command would keep the ids it came with."""
    instance = launch()
    lines = [f"root:x:{number}:{number}::/:/bin/sh", f"evil:x:{number}:{number}::/:/bin/sh"]
    lines += [f"half:x:0:{number}::/:/bin/sh", "bob:x:1000:1000::/:/bin/sh"]
    users, groups = "\\n".join(lines), f"evil:x:{number}:bob"
    instance.exec("sh", "-c", f"printf '{users}\\n' >/etc/passwd; echo {groups} >/etc/group")
    for user in ("evil", "half", "root", number):
        done = syscont(host, "exec", f"--user={user}", instance.name, "--", "id", check=False)
        assert (done.returncode, done.stdout) == (125, "")
    done = syscont(host, "exec", "--user=bob", instance.name, "--", "sh", "-c", "id -u; id -G")
    assert done.stdout.split() == ["1000", "1000"]


@pytest.mark.parametrize(
    ("setting", "highest"), [("security.idmap.size=131072", 131071), ("security.privileged=true", 4294967294)]
)
def test_a_command_may_have_any_id_of_its_instance(host: Host, launch: Launch, setting: str, highest: int) -> None:
    instance = launch("", "--config", setting)
    command = ("exec", f"--user={highest}", instance.name, "--", "sh", "-c", "id -u; id -g")
    assert syscont(host, *command).stdout.split() == [str(highest), str(highest)]
    refused = syscont(host, "exec", f"--user={highest + 1}", instance.name, "--", "id", check=False)
    assert (refused.returncode, refused.stdout) == (125, "")
    host.sh(f"echo x >/var/tmp/owned; syscont file push --uid=100000 /var/tmp/owned {instance.name}/root/owned")
    assert instance.sh("stat -c %u /root/owned") == "100000\n"
    push = ("file", "push", f"--uid={highest + 1}", "/var/tmp/owned", f"{instance.name}/root/other")
    assert syscont(host, *push, check=False).returncode
    assert instance.sh("ls -A /root") == "owned\n"


@pytest.mark.parametrize("user", ["root", "nobody", "4711", ""])
def test_no_command_has_ids_of_the_hosts(host: Host, guest: Instance, user: str) -> None:
    options = [f"--user={user}"] if user else []
    with host.spawn(["syscont", "exec", *options, guest.name, "--", "sleep", "5678"]) as command:

        def look() -> str:
            return host.run(["pgrep", "-fx", "sleep 5678"], check=False).stdout.strip()

        status = host.read_text(f"/proc/{until(host, look)}/status")
        host.run(["pkill", "-fx", "sleep 5678"])
        command.wait(10)
    ids = re.findall(r"^(?:Uid|Gid|Groups):(.*)$", status, re.MULTILINE)
    assert all(int(number) >= 65536 for line in ids for number in line.split())
    assert len(ids) == 3


@pytest.mark.parametrize("how", ["frozen", "killed", "no cgroup", "user database"])
def test_a_guest_that_holds_what_is_started_in_it(host: Host, launch: Launch, how: str) -> None:
    """The daemon answers others meanwhile, gives up in time and leaves nothing behind."""
    instance, other = launch(), launch()
    instance.exec("true")
    leaf = f"/sys/fs/cgroup{instance.systemd('ControlGroup')}/.syscont"
    options = []
    match how:
        case "frozen":
            host.sh(f"echo 1 >{leaf}/cgroup.freeze")
        case "killed":
            host.sh(f"(while echo 1 >{leaf}/cgroup.kill; do :; done) >/dev/null 2>&1 &")
        case "no cgroup":
            host.sh(f"rmdir {leaf}; echo 0 >$(dirname {leaf})/cgroup.max.descendants")
        case "user database":
            instance.exec("sh", "-c", "rm /etc/passwd; mkfifo /etc/passwd")
            options = ["--user", "root"]
    begin = time.monotonic()
    argv = ["syscont", "exec", *options, instance.name, "--", "true"]
    with host.spawn(argv) as command:
        other.exec("true")
        assert time.monotonic() - begin < 5 * host.slowness
        status = command.wait(15 * host.slowness)
    # A command that has started may be killed right after; all else is a failure of ours.
    assert status in ((125, 137) if how == "killed" else (125,))
    instance.do("stop", "--force")
    until(host, lambda: not _begun(host))


def _begun(host: Host) -> str:
    """Processes that what starts commands has made."""
    pid = host.run(["systemctl", "show", "--value", "-p", "MainPID", "syscont-exec.service"]).stdout
    return host.run(["ps", "--ppid", pid.strip(), "-o", "stat=,comm="], check=False).stdout


def test_a_caller_that_leaves_while_its_command_is_held(host: Host, launch: Launch) -> None:
    instance = launch()
    instance.exec("true")
    leaf = f"/sys/fs/cgroup{instance.systemd('ControlGroup')}/.syscont"
    host.sh(f"echo 1 >{leaf}/cgroup.freeze")
    host.run(["timeout", "-s", "KILL", "1", "syscont", "exec", instance.name, "true"], check=False)
    until(host, lambda: not _begun(host), patience=5)


def test_cwd_and_environment(host: Host, guest: Instance) -> None:
    script = 'pwd; echo "$GREETING"; echo "$PATH"; echo "$container"'
    options = ("--cwd", "/etc", "--env", "GREETING=hello there")
    lines = syscont(host, "exec", *options, guest.name, "--", "sh", "-c", script).stdout.splitlines()
    assert lines[:2] == ["/etc", "hello there"]
    assert "/bin" in lines[2].split(":")
    assert lines[3] == "syscont"


def test_nothing_of_the_hosts_leaks_in(host: Host, guest: Instance) -> None:
    """Neither environment nor descriptors of the caller or of the daemon."""
    name = guest.name
    host_side = f"SECRET=x syscont exec {name} -- sh -c 'env; echo -; ls /proc/self/fd' 3</etc/shadow"
    environment, _, descriptors = host.sh(host_side).partition("\n-\n")
    assert "SECRET" not in environment
    assert descriptors.split() == ["0", "1", "2", "3"]  # the last is ls's own


def test_a_terminal_of_its_own_with_the_right_size(host: Host, guest: Instance) -> None:
    argv = ["syscont", "exec", guest.name, "--", "sh", "-c", "tty; stty size; exit 7"]
    status, shown = on_terminal(host, argv, size=(37, 123))
    assert status == 7
    assert re.search(r"/dev/pts/\d", shown)
    assert "37 123" in shown


def test_a_terminal_on_demand_and_none_on_demand(host: Host, guest: Instance) -> None:
    assert "/dev/pts" in syscont(host, "exec", "-t", guest.name, "--", "tty").stdout
    _, shown = on_terminal(host, ["syscont", "exec", "-T", guest.name, "--", "test", "-t", "0"])
    assert not shown


def test_typing_on_a_terminal(host: Host, guest: Instance) -> None:
    status, shown = on_terminal(host, ["syscont", "shell", guest.name], ("#", "echo $((6*7))\r"), ("42", "exit 3\r"))
    assert status == 3
    assert "42" in shown


def test_control_c_on_a_terminal(host: Host, guest: Instance) -> None:
    argv = ["syscont", "exec", guest.name, "--", "sh", "-c", "echo ready; sleep 100"]
    status, _ = on_terminal(host, argv, ("ready", "\x03"))
    assert status == 130


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1"])
def test_signals_are_passed_on(host: Host, guest: Instance, name: str) -> None:
    inside = f"trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done"
    script = """if True:
        import signal, subprocess, sys
        child = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE, text=True)
        print(child.stdout.readline(), end="")
        child.send_signal(getattr(signal, "SIG" + sys.argv[1]))
        print(child.communicate(timeout=10)[0], end="")
        print(child.returncode)"""
    argv = ["syscont", "exec", guest.name, "--", "sh", "-c", inside]
    done = host.run(["/usr/bin/python3", "-c", script, name, *argv])
    assert done.stdout.split("\n") == ["ready", f"got {name}", "9", ""]


def test_fifty_at_once(host: Host, guest: Instance) -> None:
    script = f"""
        for i in $(seq 50); do
            (syscont exec {guest.name} -- sh -c "sleep 0.3; echo $i; exit $i" || echo status $?) &
        done; wait"""
    lines = host.sh(script).splitlines()
    assert sorted(lines) == sorted(t for i in range(1, 51) for t in (str(i), f"status {i}"))


def test_commands_live_in_the_instances_cgroup_and_die_with_it(host: Host, launch: Launch) -> None:
    instance = launch()
    with host.spawn(["syscont", "exec", instance.name, "--", "sleep", "1234"]) as command:

        def look() -> str:
            return host.run(["pgrep", "-fx", "sleep 1234"], check=False).stdout.strip()

        pid = until(host, look)
        assert int(pid) in instance.processes()
        assert f"/{instance.unit}/" in host.read_text(f"/proc/{pid}/cgroup")
        begin = time.monotonic()
        instance.do("stop")
        assert time.monotonic() - begin < 5 * host.slowness
        assert command.wait(10) in (128 + signal.SIGTERM, 128 + signal.SIGKILL, 129)
    assert not look()


def test_a_command_outlives_nobody_when_its_caller_is_killed(host: Host, guest: Instance) -> None:
    """The caller's death closes the streams and the connection: the command gets SIGHUP."""
    with host.spawn(["syscont", "exec", guest.name, "--", "sleep", "4321"]) as command:
        until(host, lambda: host.run(["pgrep", "-fx", "sleep 4321"], check=False).stdout)
        host.run(["pkill", "-KILL", "-f", f"^/usr/bin/python3.*exec {guest.name} -- sleep 4321"])
        command.wait(10)
    until(host, lambda: not host.run(["pgrep", "-fx", "sleep 4321"], check=False).stdout)


def test_exec_in_a_systemd_guest(debian_guest: Instance) -> None:
    assert debian_guest.exec("systemctl", "is-system-running").stdout == "running\n"
    assert "/.syscont" in debian_guest.exec("cat", "/proc/self/cgroup").stdout


def test_no_stdin(host: Host, guest: Instance) -> None:
    with host.spawn(["syscont", "exec", "-n", guest.name, "--", "cat"], stdin=subprocess.PIPE) as command:
        assert command.wait(10) == 0


def test_no_zombies_are_left(host: Host, guest: Instance) -> None:
    for _ in range(5):
        guest.exec("true")
    assert "Z" not in host.run(["ps", "-A", "-o", "stat="]).stdout


def test_commands_outlive_what_started_and_watches_them(host: Host, launch: Launch) -> None:
    instance = launch()
    with host.spawn(["syscont", "exec", instance.name, "--", "sleep", "2345"]) as command:
        until(host, lambda: host.run(["pgrep", "-fx", "sleep 2345"], check=False).stdout)
        host.run(["systemctl", "restart", "syscont-exec.service"])
        assert instance.exec("echo", "new").stdout == "new\n"
        assert command.poll() is None
        host.run(["systemctl", "kill", "-s", "KILL", "syscont-exec.service"])
        assert command.wait(10) == 125
        assert host.run(["pgrep", "-fx", "sleep 2345"]).stdout
    assert instance.exec("echo", "again").stdout == "again\n"


def test_without_the_service_that_starts_commands(host: Host, guest: Instance) -> None:
    host.run(["systemctl", "stop", "syscont-exec.socket", "syscont-exec.service"])
    try:
        failed = guest.exec("true", check=False)
    finally:
        host.run(["systemctl", "start", "syscont-exec.socket"])
    assert (failed.returncode, "syscont-exec.socket" in failed.stderr) == (125, True)
    assert guest.exec("echo", "back").stdout == "back\n"
