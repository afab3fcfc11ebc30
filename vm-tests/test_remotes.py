# SPDX-License-Identifier: Apache-2.0
"""Two hosts on one wire: far is managed from near, and by nobody else."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import far_host
import pytest
from far_host import FAR, PORT, token
from guests import Done, on_terminal, python, syscont, until
from hosts import ContainerHost, Host

SYSCONTD = "syscontd.service"
BIG = 100 << 20
CONFIG = "/root/.config/syscont"


@pytest.fixture(scope="module")
def hosts(deb: Path) -> Iterator[tuple[Host, Host]]:
    """near knows far, and is trusted there as near."""
    with far_host.installed(ContainerHost, deb) as base, far_host.joined(base) as both:
        syscont(both[1], "image", "build", "busybox")
        syscont(both[1], "launch", "busybox", "web1")
        yield both


@pytest.fixture(scope="module")
def near(hosts: tuple[Host, Host]) -> Host:
    return hosts[0]


@pytest.fixture(scope="module")
def far(hosts: tuple[Host, Host]) -> Host:
    return hosts[1]


def there(near: Host, script: str, **options: Any) -> Done:
    return syscont(near, "exec", "far:web1", "--", "sh", "-c", script, **options)


def trusted(far: Host) -> list[str]:
    found = json.loads(syscont(far, "trust", "list", "--format", "json").stdout)
    return [one["name"] for one in found if one["type"] == "client"]


def knock(near: Host, own: str, *version: str) -> list[str]:
    return python(near, "stranger", FAR, str(PORT), own, *version).stdout.splitlines()


# to see and to change


def test_what_there_is(far: Host, near: Host) -> None:
    assert syscont(near, "list", "--format", "csv", "-c", "n").stdout == ""
    assert syscont(near, "list", "far:", "--format", "csv", "-c", "ns").stdout == "web1,running\n"
    assert "State: running" in syscont(near, "info", "far:web1").stdout
    own = re.search(r"Certificate: ([0-9a-f]{64})", syscont(near, "info", "far:").stdout)
    assert own
    assert own[1] in syscont(near, "remote", "list", "--format", "json").stdout
    assert trusted(far) == ["near"]
    assert syscont(near, "info", "far:nobody", check=False).returncode == 3


def test_a_life(far: Host, near: Host) -> None:
    syscont(near, "launch", "busybox", "far:web2", "-c", "user.note=secret")
    assert syscont(near, "config", "get", "far:web2", "user.note").stdout == "secret\n"
    syscont(near, "config", "set", "far:web2", "user.note=other")
    syscont(near, "snapshot", "create", "far:web2", "one")
    syscont(near, "copy", "far:web2/one", "far:web3")
    syscont(near, "stop", "far:web2", "--force")
    assert syscont(far, "list", "--format", "csv", "-c", "ns").stdout == "web1,running\nweb2,stopped\nweb3,stopped\n"
    syscont(near, "delete", "far:web2", "far:web3")
    assert syscont(near, "network", "list", "far:", "--format", "csv").stdout.startswith("syscontbr0")
    syscont(near, "project", "create", "far:lab")
    syscont(near, "create", "busybox", "far:lab:web1")
    assert syscont(near, "--project", "lab", "list", "far:", "--format", "csv", "-c", "n").stdout == "web1\n"
    syscont(near, "delete", "far:lab:web1")
    syscont(near, "project", "delete", "far:lab")


def test_logs(near: Host) -> None:
    there(near, "echo a word from the console >/dev/console")
    until(near, lambda: "a word from the console" in syscont(near, "logs", "far:web1", "-o", "cat").stdout)
    assert len(syscont(near, "logs", "far:web1", "-n", "1").stdout.splitlines()) == 1
    with near.spawn(["syscont", "logs", "far:web1", "--follow", "-n", "0"]) as process:
        assert process.stdout
        there(near, "sleep 1; echo now >/dev/console")
        assert "now" in process.stdout.readline()
        process.terminate()


def test_names_on_two_hosts(near: Host) -> None:
    done = syscont(near, "delete", "far:web1", "local:web1", check=False)
    assert done.returncode == 2
    assert "on two hosts" in done.stderr


# commands


def test_commands(near: Host) -> None:
    done = there(near, "cat; echo oops >&2; exit 9", check=False, input="in\n")
    assert (done.stdout, done.stderr, done.returncode) == ("in\n", "oops\n", 9)
    assert there(near, "kill -9 $$", check=False).returncode == 137
    assert there(near, "id -un; tty", check=False).stdout.splitlines()[0] == "root"
    assert syscont(near, "exec", "far:web1", "--", "nothing-of-that-name", check=False).returncode == 127
    pipeline = "syscont exec far:web1 -- yes | head -1; echo ${PIPESTATUS[0]}"
    assert near.run(["bash", "-c", pipeline]).stdout == "y\n141\n"


def test_much_both_ways(near: Host) -> None:
    near.sh(f"head -c {BIG} /dev/urandom >/root/in")
    near.sh("syscont exec far:web1 -- cat </root/in >/root/out")
    near.sh("syscont exec far:web1 -- sh -c 'cat >&2' </root/in 2>/root/err")
    sums = near.sh("sha256sum </root/in; sha256sum </root/out; sha256sum </root/err").split("\n")
    assert len(set(filter(None, sums))) == 1
    near.sh("rm /root/in /root/out /root/err")


def test_a_terminal(near: Host) -> None:
    status, shown = on_terminal(
        near,
        ["syscont", "exec", "far:web1", "--", "sh", "-c", "tty && stty size; read x; echo got=$x; exit 7"],
        ("31 97", "hello\r"),
        size=(31, 97),
    )
    assert status == 7
    assert "/dev/pts" in shown
    assert "got=hello" in shown


def test_a_shell_and_the_console(near: Host) -> None:
    assert on_terminal(near, ["syscont", "shell", "far:web1"], ("#", "exit 5\r"))[0] == 5
    syscont(near, "launch", "busybox", "far:web9")
    getty = "echo '::respawn:/sbin/getty -L 0 console vt100' >>/etc/inittab; kill -HUP 1"
    syscont(near, "exec", "far:web9", "--", "sh", "-c", getty)
    status, shown = on_terminal(
        near, ["syscont", "console", "far:web9"], ("", "\r"), ("login:", "somebody\r"), ("assword:", "\x01q")
    )
    syscont(near, "delete", "--force", "far:web9")
    assert status == 0
    assert "somebody" in shown


def test_a_signal(far: Host, near: Host) -> None:
    with near.spawn(["syscont", "exec", "far:web1", "--", "sleep", "4321"]) as process:
        until(far, lambda: _running(far, "sleep 4321"))
        near.sh("kill -TERM $(pgrep -f '^/usr/bin/python3 -IS .*sleep 4321')")
        assert process.wait(20) == 143
    until(far, lambda: not _running(far, "sleep 4321"))


def _running(host: Host, command: str) -> bool:
    return host.run(["pgrep", "-xf", command], check=False).returncode == 0


# files


def test_files(near: Host) -> None:
    near.sh("head -c 5000000 /dev/urandom >/root/file; chmod 640 /root/file")
    syscont(near, "file", "push", "/root/file", "far:web1/root/")
    assert there(near, "stat -c '%a %u %s' /root/file").stdout == "640 0 5000000\n"
    syscont(near, "file", "pull", "far:web1/root/file", "/root/back")
    near.sh("cmp /root/file /root/back")
    assert syscont(near, "file", "pull", "far:web1/etc/passwd", "-").stdout.startswith("root:")
    syscont(near, "file", "push", "-", "far:web1/root/said", input="words")
    near.sh("mkdir -p /root/site/deep; cp /root/file /root/site/deep/; ln -s deep/file /root/site/link")
    syscont(near, "file", "push", "-r", "/root/site", "far:web1/root/")
    near.sh("mkdir /root/pulled")
    syscont(near, "file", "pull", "-r", "far:web1/root/site", "/root/pulled")
    near.sh("diff -r /root/site /root/pulled/site; test $(readlink /root/pulled/site/link) = deep/file")
    syscont(near, "file", "delete", "-r", "far:web1/root/site", "far:web1/root/said", "far:web1/root/file")
    assert syscont(near, "file", "pull", "far:web1/root/said", "-", check=False).returncode == 3
    near.sh("rm -r /root/file /root/back /root/site /root/pulled")


WORKER = "^/usr/bin/python3 -IS /usr/libexec/syscont/files"


@pytest.mark.parametrize("killed", ["client", "daemon"])
def test_half_of_a_file_is_none(far: Host, near: Host, killed: str) -> None:
    """However the sender ends, the file is what it was."""
    there(near, "echo old >/root/kept")
    push = ["syscont", "file", "push", "-", "far:web1/root/kept"]
    with near.spawn(push, stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write("half of it")
        process.stdin.flush()
        until(near, lambda: there(near, "cat /root/.syscont-*", check=False).stdout == "half of it")
        if killed == "client":
            near.sh("kill -9 $(pgrep -f '^/usr/bin/python3 -IS .*file push')")
        else:
            far.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", SYSCONTD])
        process.wait(20)
    until(far, lambda: not far.run(["pgrep", "-f", WORKER], check=False).stdout)
    assert until(near, lambda: there(near, "cat /root/kept", check=False).stdout) == "old\n"


def test_images_and_backups(far: Host, near: Host) -> None:
    fingerprint = syscont(near, "publish", "far:web1", "--alias", "made").stdout.strip()
    syscont(near, "image", "delete", "far:made")
    assert len(fingerprint) == 64
    syscont(near, "export", "far:web1", "/root/web1.tar.gz")
    assert syscont(near, "import", "/root/web1.tar.gz", "far:web5").stdout == "web5\n"
    near.sh("syscont export far:web5 - --compression none | tar t | grep -q backup/container/rootfs/bin/busybox")
    syscont(near, "delete", "far:web5")
    # The same backup is good here.
    syscont(near, "import", "/root/web1.tar.gz", "web5")
    syscont(near, "delete", "web5")
    near.sh("rm /root/web1.tar.gz")


# who may


def test_strangers_learn_nothing(far: Host, near: Host) -> None:
    fingerprint = json.loads(syscont(near, "remote", "list", "--format", "json").stdout)[1]["fingerprint"]
    assert "org.syscont.Manager" in knock(near, f"{CONFIG}/client.pem")[1]
    near.sh("XDG_CONFIG_HOME=/root/other syscont remote certificate >/dev/null")
    for own, why in (("none", "CERTIFICATE_REQUIRED"), ("/root/other/syscont/client.pem", "UNKNOWN_CA")):
        shown, *said = knock(near, own)
        assert shown == fingerprint
        assert len(said) == 1
        assert why in said[0]
    (said_to_old,) = knock(near, f"{CONFIG}/client.pem", "1.2")
    assert "PROTOCOL_VERSION" in said_to_old
    # It is told that they came, and no more than that.
    assert "was refused" in far.journal(unit=SYSCONTD)


def test_anyone_with_a_token(far: Host, near: Host) -> None:
    """alice may do nothing on near, and all on far."""
    assert near.run(["syscont", "list"], user="alice", check=False).returncode == 4
    near.run(["syscont", "remote", "add", "far"], user="alice", input=token(far, "alice") + "\n")
    assert near.run(["syscont", "exec", "far:web1", "--", "id", "-u"], user="alice").stdout == "0\n"
    assert trusted(far) == ["alice", "near"]
    syscont(far, "trust", "remove", "alice")
    done = near.run(["syscont", "list", "far:"], user="alice", check=False)
    assert done.returncode == 4
    assert "does not trust us" in done.stderr


def test_tokens_that_are_no_good(far: Host, near: Host) -> None:
    used = token(far)
    add = ["env", "XDG_CONFIG_HOME=/root/one", "syscont", "remote", "add", "far"]
    near.run([*add, used])
    syscont(far, "config", "set", "core.remote_token_expiry=0M")
    expired = token(far)
    syscont(far, "config", "unset", "core.remote_token_expiry")
    withdrawn = token(far, "someone")
    syscont(far, "trust", "remove", "someone")
    for bad in (used, expired, withdrawn):
        done = near.run(["env", "XDG_CONFIG_HOME=/root/two", "syscont", "remote", "add", "far", bad], check=False)
        assert done.returncode == 4, done.stderr
        assert "does not know this token" in done.stderr
    assert near.run(["test", "-e", "/root/two/syscont/remotes/far.json"], check=False).returncode
    joined = next(name for name in trusted(far) if name != "near")
    assert joined.startswith("root@")
    syscont(far, "trust", "remove", joined)


def test_a_token_is_told_to_nobody_else(far: Host) -> None:
    with far.spawn(["busctl", "monitor", "--json=short", "org.syscont.Manager"]) as watching:
        made = token(far, "someone")
        listed = syscont(far, "trust", "list", "--format", "json").stdout
        syscont(far, "trust", "remove", "someone")
        watching.terminate()
        seen = str(watching.communicate()[0])
    assert "someone" in listed
    for place in (listed, seen, far.journal()):
        assert made not in place
    assert far.run(["grep", "-rlF", made, "/var/lib/syscont", "/run/syscont"], check=False).stdout == ""


def test_trust_that_ends(far: Host, near: Host) -> None:
    add = ["env", "XDG_CONFIG_HOME=/root/guest", "syscont"]
    near.run([*add, "remote", "add", "far", token(far, "guest")])
    argv = [*add, "exec", "far:web1", "--", "sleep", "1234"]
    with near.spawn(argv) as process:
        until(far, lambda: _running(far, "sleep 1234"))
        syscont(far, "trust", "remove", "guest")
        assert process.wait(20) == 125
    until(far, lambda: not _running(far, "sleep 1234"))
    assert near.run([*add, "list", "far:"], check=False).returncode == 4
    assert there(near, "true").returncode == 0


def test_by_hand(far: Host, near: Host) -> None:
    near.sh("XDG_CONFIG_HOME=/root/hand syscont remote certificate >/root/hand.crt")
    far.write_text("/root/hand.crt", near.read_text("/root/hand.crt"))
    syscont(far, "trust", "add", "/root/hand.crt")
    fingerprint = json.loads(syscont(far, "info", "--format", "json").stdout)["fingerprint"]
    near.sh(f"""export XDG_CONFIG_HOME=/root/hand
        syscont remote add far {FAR}:{PORT} --fingerprint {fingerprint}
        syscont remote switch far; syscont exec web1 -- true""")
    syscont(far, "trust", "remove", "hand")


def test_on_the_bus(far: Host) -> None:
    call = ["busctl", "call", "org.syscont.Manager", "/org/syscont/Manager", "org.syscont.Manager"]
    done = far.run([*call, "CreateToken", "s", "bus"])
    assert done.stdout.startswith('st "')
    assert '"bus"' in far.run([*call, "ListTrusted"]).stdout
    far.run([*call, "RemoveTrusted", "s", "bus"])
    shown = far.run(["busctl", "get-property", *call[2:], "Trusted"]).stdout
    assert '"near"' in shown
    for argv in (["CreateToken", "s", "x"], ["RemoveTrusted", "s", "near"], ["AddTrusted", "ss", "x", "x"]):
        refused = far.run([*call, *argv], user="alice", check=False)
        assert "not permitted" in refused.stderr
    assert trusted(far) == ["near"]


# when things break


def test_the_daemon_is_killed(far: Host, near: Host) -> None:
    leader = syscont(far, "list", "--format", "csv", "-c", "p").stdout
    with near.spawn(["syscont", "exec", "far:web1", "--", "sleep", "2345"]) as process:
        until(far, lambda: _running(far, "sleep 2345"))
        far.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", SYSCONTD])
        assert process.wait(20) == 125
        assert process.stderr
        assert "lost the connection to far" in process.stderr.read()
    until(near, lambda: there(near, "true", check=False).returncode == 0)
    assert syscont(far, "list", "--format", "csv", "-c", "p").stdout == leader
    assert trusted(far) == ["near"]


def test_another_address_at_once(far: Host, near: Host) -> None:
    with near.spawn(["syscont", "exec", "far:web1", "--", "sleep", "3456"]) as process:
        until(far, lambda: _running(far, "sleep 3456"))
        syscont(far, "config", "set", f"core.https_address={FAR}:9443")
        assert syscont(near, "list", "far:", check=False).returncode == 1
        syscont(near, "remote", "set-address", "far", f"{FAR}:9443")
        assert there(near, "true").returncode == 0
        syscont(near, "config", "unset", "far:", "core.https_address")
        assert syscont(near, "list", "far:", check=False).returncode == 1
        assert far.run(["ss", "-Htln", "sport = :9443"]).stdout == ""
        assert process.poll() is None
        far.run(["pkill", "-xf", "sleep 3456"])
        assert process.wait(20) == 143
    syscont(far, "config", "set", f"core.https_address={FAR}:{PORT}")
    syscont(near, "remote", "set-address", "far", f"{FAR}:{PORT}")
    assert there(near, "true").returncode == 0


def test_the_key_is_the_hosts_own(far: Host) -> None:
    assert far.run(["stat", "-c", "%a %U", "/var/lib/syscont/server.pem"]).stdout == "600 root\n"


def test_a_crowd_of_strangers(far: Host, near: Host) -> None:
    """Who is trusted gets in all the same, and the daemon has time for others."""
    flood = """
import socket, time
held, end = [], time.monotonic() + 8
while time.monotonic() < end:
    try:
        sock = socket.create_connection(("198.19.0.1", 8443), 1)
    except OSError:
        continue
    sock.setblocking(False)
    try:
        sock.send(b"\\x16\\x03\\x01\\x02\\x00" + bytes(100))
    except OSError:
        pass
    held = [*held[-500:], sock]
"""
    with near.spawn(["/usr/bin/python3", "-c", flood]) as process:
        near.sh("ip address add 198.19.0.3/24 dev lan0")
        while process.poll() is None:
            far.run(["timeout", "5", "syscont", "list"])
        near.sh("ip address del 198.19.0.3/24 dev lan0")
    until(near, lambda: there(near, "true", check=False).returncode == 0)
    until(far, lambda: int(far.sh("ls /proc/$(systemctl show -P MainPID syscontd)/task | wc -l")) < 30)
