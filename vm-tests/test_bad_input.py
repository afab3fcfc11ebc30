# SPDX-License-Identifier: Apache-2.0
"""Bad input through every door: a clear error, no change, nothing left, and the daemon lives on."""

import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import canaries
import leftovers
import pytest
from guests import Done, Instance, python, syscont, until
from hosts import Host

BUS = ["busctl", "--json=short", "call", "org.syscont.Manager", "/org/syscont/Manager", "org.syscont.Manager"]
INVALID = "org.syscont.Manager.InvalidArgument"
NOT_FOUND = "org.syscont.Manager.NotFound"

NAMES = {
    "empty": "", "dot": ".", "up": "..", "slash": "a/b", "long": "a" * 64, "newline": "a\nb",
    "newline at the end": "a\n", "option": "-x", "hyphen at the end": "a-",
    "umlaut": "für", "look-alike": "w\u0435b", "blank": "a b", "specifier": "%n",
    "variable": "$x", "command": "$(reboot)", "at": "a@b", "colon": "a::b", "backslash": "a\\x2fb", "number": "1",
    "tab": "a\tb", "escape": "a\x1b[31m", "huge": "a" * 10_000,
}  # fmt: skip
ALIASES = {
    "empty": "", "up": "..", "path up": "a/../b", "absolute": "/a", "end": "a/", "double": "a//b", "newline": "a\nb",
    "option": "-x", "blank": "a b", "fingerprint": "0" * 64, "huge": "a" * 10_000, "umlaut": "ü",
}  # fmt: skip
CONFIG = {
    "unknown": ("no.such.key", "1"), "empty key": ("", "1"), "key of nothing": ("user.", "1"),
    "raw": ("raw.lxc", "x"), "key with newline": ("user.a\nb", "1"), "huge key": ("user." + "a" * 10_000, "1"),
    "not a boolean": ("boot.autostart", "maybe"), "too much": ("limits.processes", "4194305"),
    "nothing": ("limits.processes", "0"), "negative": ("boot.host_shutdown_timeout", "-1"),
    "not a number": ("boot.autostart.priority", "1e3"), "other digits": ("limits.processes", "٣"),
    "too little": ("limits.memory", "1"), "not a size": ("limits.memory", "many"),
    "overflow": ("limits.memory", "9" * 40 + "GiB"), "percent": ("limits.memory", "-5%"),
    "newline in environment": ("environment.A", "1\nLD_PRELOAD=/x"), "environment without name": ("environment.", "x"),
    "environment with =": ("environment.A=B", "x"), "huge": ("user.big", "x" * 70_000),
    "bad YAML": ("cloud-init.network-config", "["),
    "deep YAML": ("cloud-init.user-data", "#cloud-config\n" + "[" * 60_000),
    "credential that leads out": ("systemd.credential.../x", "x"),
    "credential of lines": ("systemd.credential.a\nb", "x"),
    "not base64": ("systemd.credential-binary.x", "%"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bad_host(host_kind: type[Host], installed: Callable[[str], Host]) -> Iterator[Host]:
    """A host with an image, a stopped and a running instance, and hostile archives."""
    with host_kind(base=installed("plain")) as one:
        syscont(one, "image", "build", "busybox")
        syscont(one, "create", "busybox", "still")
        syscont(one, "launch", "busybox", "runs")
        python(one, "hostile_archives", timeout=60)
        yield one


@pytest.fixture(autouse=True)
def unharmed(bad_host: Host) -> Iterator[None]:
    """After each test: nothing left over, the same daemon, no traceback, and the canary as it was."""
    with canaries.unharmed(bad_host), leftovers.nothing_happens(bad_host):
        yield
        for name in {one["name"] for one in json.loads(syscont(bad_host, "list", "--format", "json").stdout)}:
            if name not in ("still", "runs"):
                syscont(bad_host, "delete", "--force", name)


def raw(host: Host, *tasks: dict[str, Any]) -> list[Any]:
    answers: list[Any] = json.loads(python(host, "raw_varlink", input=json.dumps(tasks), timeout=90).stdout)
    return answers


def call(method: str, **parameters: Any) -> dict[str, Any]:
    return {"call": method, "parameters": parameters}


def refused(done: Done, *codes: int) -> str:
    assert done.returncode in codes, (done.args, done.returncode, done.stdout[:500], done.stderr[:500])
    assert len(done.stderr.splitlines()) == 1, done.stderr[:500]
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert "\x1b" not in done.stderr
    return done.stderr


def bus_refused(host: Host, *words: str) -> str:
    done = host.run([*BUS, *words], check=False)
    return refused(done, 1)


def error_of(answer: Any, *names: str) -> str:
    assert isinstance(answer, dict), answer
    assert answer.get("error") in names, answer
    message = str(answer["parameters"].get("message") or answer["parameters"])
    assert "\n" not in message
    assert "internal error" not in message
    return message


# Names, aliases, configuration


@pytest.mark.parametrize("case", NAMES)
def test_names_of_instances(bad_host: Host, case: str) -> None:
    name = NAMES[case]
    refused(syscont(bad_host, "create", "--", "busybox", name, check=False), 1, 2)
    refused(syscont(bad_host, "rename", "--", "still", name, check=False), 1, 2)
    refused(syscont(bad_host, "start", "--", name, check=False), 2, 3)
    refused(syscont(bad_host, "exec", "--", name, "true", check=False), 2, 3, 125)
    refused(syscont(bad_host, "delete", "--force", "--", name, check=False), 2, 3)
    bus_refused(bad_host, "CreateInstance", "sa{sv}", "--", name, "1", "image", "s", "busybox")
    bus_refused(bad_host, "GetInstance", "s", "--", name)
    create, rename, start, delete, run = raw(
        bad_host,
        call("CreateInstance", name=name, image="busybox"),
        call("RenameInstance", name="still", newName=name),
        call("StartInstance", name=name),
        call("DeleteInstance", name=name, force=True),
        call("Exec", name=name, command=["true"]),
    )
    error_of(create, INVALID)
    error_of(rename, INVALID)
    for answer in (start, delete, run):
        error_of(answer, NOT_FOUND)


def test_names_that_no_command_line_can_hold(bad_host: Host) -> None:
    names = ["a\0b", "\ud800", "\udc80x"]
    for answer in raw(bad_host, *[call("CreateInstance", name=name, image="busybox") for name in names]):
        error_of(answer, INVALID)
    for answer in raw(bad_host, *[call("GetInstance", name=name) for name in names]):
        error_of(answer, NOT_FOUND, INVALID)
    for answer in raw(bad_host, *[call("CreateInstance", name="x", image=name) for name in names]):
        error_of(answer, NOT_FOUND, INVALID)


@pytest.mark.parametrize("case", ALIASES)
def test_aliases_of_images(bad_host: Host, case: str) -> None:
    alias = ALIASES[case]
    refused(syscont(bad_host, "image", "alias", "add", "--", alias, "busybox", check=False), 1, 2)
    refused(syscont(bad_host, "create", "--", alias, "x", check=False), 2, 3)
    refused(syscont(bad_host, "image", "delete", "--", alias, check=False), 2, 3)
    refused(syscont(bad_host, "image", "build", f"--alias={alias}", "busybox", check=False), 1, 2)
    bus_refused(bad_host, "AddImageAlias", "ss", "--", alias, "busybox")
    add, build = raw(
        bad_host,
        call("AddImageAlias", alias=alias, image="busybox"),
        call("BuildImage", source="busybox", aliases=[alias]),
    )
    error_of(add, INVALID)
    error_of(build, INVALID)


@pytest.mark.parametrize("case", CONFIG)
def test_configuration(bad_host: Host, case: str) -> None:
    key, value = CONFIG[case]
    before = syscont(bad_host, "config", "show", "still").stdout
    setting = f"{key}={value}"
    if "=" not in key:
        refused(syscont(bad_host, "config", "set", "still", "user.other=1", setting, check=False), 1, 2)
        refused(syscont(bad_host, "create", "busybox", "x", "--config", setting, check=False), 1, 2)
    options = ("2", "image", "s", "busybox", "config", "a{ss}", "1", key, value)
    bus_refused(bad_host, "CreateInstance", "sa{sv}", "--", "x", *options)
    create, change = raw(
        bad_host,
        call("CreateInstance", name="x", image="busybox", config={key: value}),
        call("ChangeConfig", name="still", set={"user.other": "1", key: value}),
    )
    message = error_of(create, INVALID)
    assert key[:20].partition("\n")[0] in message
    error_of(change, INVALID)
    assert syscont(bad_host, "config", "show", "still").stdout == before


def test_values_that_are_no_text(bad_host: Host) -> None:
    for text in ("a\0b", "\ud800"):
        for answer in raw(
            bad_host,
            call("ChangeConfig", name="still", set={"user.text": text}),
            call("ChangeConfig", name="still", set={"environment.TEXT": text}),
            call("CreateInstance", name="x", image="busybox", config={"user.text": text}),
            call("Exec", name="runs", command=["echo", text]),
            call("Exec", name="runs", command=["true"], environment={"A": text}),
            call("Exec", name="runs", command=["true"], cwd=text),
            call("Exec", name="runs", command=["true"], user=text),
        ):
            error_of(answer, INVALID, NOT_FOUND)


def test_lines_in_free_keys_do_no_harm(bad_host: Host) -> None:
    """All keys that may have any text, which tests/core/test_hostile_values.py counts; on a unit that starts."""
    value = 'one\n[Service]\nExecStart=/bin/false\n"%n $x\\'
    free = ("user.text", "cloud-init.user-data", "cloud-init.vendor-data", "systemd.credential.text")
    config = [f"{key}={'#!' if key.startswith('cloud-init') else ''}{value}" for key in free]
    words = [word for each in (*config, "environment.A=%n $x \"'\\") for word in ("--config", each)]
    syscont(bad_host, "launch", "busybox", "x", *words)
    assert syscont(bad_host, "config", "get", "x", "user.text").stdout == value + "\n"
    one = Instance(bad_host, "x")
    assert one.sh('printf %s "$A"; cat /run/host/credentials/text') == "%n $x \"'\\" + value
    assert "/bin/false" not in bad_host.run(["systemctl", "show", one.unit]).stdout
    assert bad_host.sh(f"grep -rs /bin/false {one.systemd('FragmentPath')}* || true") == ""


# Types and messages

WRONG_TYPES: dict[str, dict[str, Any]] = {
    "name": call("CreateInstance", name=7, image="busybox"),
    "no name": call("CreateInstance", image="busybox"),
    "null": call("CreateInstance", name=None, image="busybox"),
    "image": call("CreateInstance", name="x", image=["busybox"]),
    "config list": call("CreateInstance", name="x", image="busybox", config=["a"]),
    "config value": call("CreateInstance", name="x", image="busybox", config={"user.a": 1}),
    "flag": call("CreateInstance", name="x", image="busybox", start="yes"),
    "timeout": call("StopInstance", name="still", timeout="1"),
    "float": call("StopInstance", name="still", timeout=1.5),
    "boolean number": call("StopInstance", name="still", timeout=True),
    "command text": call("Exec", name="runs", command="true"),
    "command of numbers": call("Exec", name="runs", command=[1]),
    "no command": call("Exec", name="runs", command=[]),
    "environment": call("Exec", name="runs", command=["true"], environment=["A=B"]),
    "session": call("Exec", name="runs", command=["true"], session="s" * 1000),
    "signal": call("SignalExec", session="x", signal=1000),
    "window": call("ResizeConsole", name="runs", columns=-1, rows=10**9),
    "descriptor that did not come": call("ImportImage", imageFd=3),
    "negative descriptor": call("ImportImage", imageFd=-7),
    "no descriptor": call("ImportImage"),
    "aliases": call("BuildImage", source="busybox", aliases="x"),
    "source": call("BuildImage", source="debian/../../etc"),
    "source with option": call("BuildImage", source="debian/--help"),
    "image operation": call("DeleteImage", name={"a": 1}),
    "parameters": {"send": '{"method":"org.syscont.Manager.GetInstance","parameters":[1]}\0'},
    "parameters text": {"send": '{"method":"org.syscont.Manager.GetInstance","parameters":"x"}\0'},
}


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_wrong_types_on_varlink(bad_host: Host, case: str) -> None:
    (answer,) = raw(bad_host, WRONG_TYPES[case])
    error_of(answer, INVALID, NOT_FOUND)


@pytest.mark.parametrize("timeout", [-1, -(2**63), 2**63, 10**30, 0])
def test_time_limits_out_of_range(bad_host: Host, timeout: int) -> None:
    syscont(bad_host, "launch", "busybox", "x")
    (answer,) = raw(bad_host, call("StopInstance", name="x", timeout=timeout))
    assert "internal" not in json.dumps(answer)
    assert "error" not in answer or answer["error"] == INVALID, answer
    syscont(bad_host, "delete", "--force", "x")


@pytest.mark.parametrize(
    "words",
    [
        ("CreateInstance", "s", "x"),
        ("CreateInstance", "i", "7"),
        ("CreateInstance", "sa{ss}", "x", "1", "image", "busybox"),
        ("CreateInstance", "sa{sv}", "x", "1", "image", "i", "7"),
        ("CreateInstance", "sa{sv}", "x", "2", "image", "s", "busybox", "nothing", "s", "x"),
        ("CreateInstance", "sa{sv}", "x", "2", "image", "s", "busybox", "start", "s", "yes"),
        ("CreateInstance", "sa{sv}", "x", "2", "image", "s", "busybox", "config", "as", "1", "a"),
        ("ImportImage", "a{sv}", "0"),
        ("ImportImage", "a{sv}", "1", "image", "s", "/etc/shadow"),
        ("BuildImage", "sa{sv}", "no/such", "0"),
        ("BuildImage", "sa{sv}", "busybox", "1", "aliases", "s", "x"),
        ("CancelOperation", "s", "none"),
        ("NoSuchMethod",),
    ],
    ids=" ".join,
)
def test_wrong_types_on_the_bus(bad_host: Host, words: tuple[str, ...]) -> None:
    bus_refused(bad_host, *words)


@pytest.mark.parametrize(
    ("task", "answers"),
    [
        ({"send": "hello\0"}, ["closed"]),
        ({"send": "\0\0\0"}, ["closed"]),
        ({"send": "[]\0"}, ["closed"]),
        ({"send": '{"method":' + "[" * 100_000 + "\0"}, ["closed"]),
        ({"send": '{"method": 1' + "0" * 10_000 + "}\0"}, ["closed"]),
        ({"hex": "ff", "times": 3 << 20}, ["closed"]),
        ({"hex": "7bfffe00"}, ["closed"]),
        ({"send": "{" + " " * (2 << 20)}, ["closed"]),
        ({"send": '{"method":"org.sys', "hang up": True}, ["gone"]),
        ({"send": '{"method":"org.syscont.Manager.GetInfo"}\0', "fds": 250}, ["closed"]),
        ({"send": '{"method":"org.syscont.Manager.Monitor"}\0', "fds": 8, "hang up": True}, ["gone"]),
    ],
)  # fmt: skip
def test_malformed_messages(bad_host: Host, task: dict[str, Any], answers: list[str]) -> None:
    assert raw(bad_host, task) == answers
    assert "version" in raw(bad_host, call("GetInfo"))[0]["parameters"]


def test_methods_that_do_not_exist(bad_host: Host) -> None:
    names = ("x", "", "org.syscont.Manager.", "a.b", "é", "\ud800")
    tasks = [{"send": json.dumps({"method": name}) + "\0"} for name in names]
    for answer in raw(bad_host, *tasks, {"send": "{}\0"}, {"send": '{"method":{"a":1}}\0'}):
        assert answer["error"] == "org.varlink.service.MethodNotFound"


def test_very_many_connections(bad_host: Host) -> None:
    """A user is kept to his share, and does not keep root out."""
    bad_host.run(["usermod", "--append", "--groups", "syscont", "alice"])
    task = json.dumps([{"connections": 2000, "hold": 3}])
    program = (Path(__file__).parent / "on_host/raw_varlink.py").read_text()
    argv = ["sh", "-c", 'printf %s "$1" | /usr/bin/python3 -c "$2"', "sh", task, program]
    with bad_host.spawn(argv, user="alice") as flood:
        while flood.poll() is None:
            assert len(json.loads(syscont(bad_host, "list", "--format", "json").stdout)) == 2
        said, complaint = flood.communicate()
    assert not complaint
    (closed,) = json.loads(said)
    assert closed >= 2000 - 128


# Images

REFUSED = (
    "absolute.tar", "up.tar", "link-out.tar", "link-up.tar", "hard-out.tar", "hard-up.tar", "rootfs-link.tar",
    "rootfs-file.tar", "no-metadata.tar", "no-rootfs.tar", "metadata-list.tar", "metadata-binary.tar",
    "metadata-empty.tar", "metadata-types.tar", "metadata-bomb.tar", "metadata-deep.tar", "metadata-link.tar",
    "sparse.tar", "sparse-file", "holes.tar", "truncated.tar", "truncated.tar.gz", "empty.tar", "text.tar",
    "zeros.tar", "squash.img",
)  # fmt: skip


@pytest.mark.parametrize("archive", REFUSED)
def test_hostile_archives(bad_host: Host, archive: str) -> None:
    done = syscont(bad_host, "image", "import", f"/root/bad/{archive}", "--alias", "bad", check=False, timeout=30)
    message = refused(done, 1, 2)
    assert "could not be unpacked" not in message


@pytest.mark.parametrize(
    "files",
    [
        ("/root/bad/metadata-list.tar", "/root/bad/text.tar"),
        ("/root/bad/empty.tar", "/root/bad/good.tar"),
        ("/root/bad/sparse-file", "/root/bad/good.tar"),
        ("/root/bad/good.tar", "/root/bad/squash.img"),
        ("/dev/zero",), ("/dev/null",), ("/dev/zero", "/root/bad/good.tar"), ("/root",), ("/nowhere",), ("",),
        ("/proc/self/mem",), ("/dev/ptmx",),
    ],
    ids=" ".join,
)  # fmt: skip
def test_files_that_are_no_images(bad_host: Host, files: tuple[str, ...]) -> None:
    refused(syscont(bad_host, "image", "import", *files, check=False, timeout=30), 1, 2)


@pytest.mark.parametrize("files", ["/root/pipe", "/root/pipe /root/bad/good.tar", "/root/bad/good.tar /root/pipe"])
def test_pipe_that_nobody_writes_to(bad_host: Host, files: str) -> None:
    """Ctrl-C ends it, before and after the daemon has it; others are served meanwhile."""
    bad_host.sh("mkfifo /root/pipe")
    for writer in ("true", "exec 3<>/root/pipe"):
        script = f"{writer}; timeout -s INT -k 10 1 syscont image import {files}"
        bad_host.run(["bash", "-c", script], check=False, timeout=20)
        for operation in json.loads(syscont(bad_host, "operation", "list", "--format", "json").stdout):
            if operation["status"] == "running":
                syscont(bad_host, "operation", "cancel", operation["id"])
        until(bad_host, lambda: "running" not in syscont(bad_host, "operation", "list").stdout)
    bad_host.sh("rm /root/pipe")


def test_many_pipes_that_nobody_writes_to(bad_host: Host) -> None:
    """They take no thread, no unit and no descriptor away from others."""
    many = "for i in $(seq 12); do timeout -k 5 10 syscont image import /root/pipe /root/bad/good.tar & done"
    bad_host.sh("mkfifo /root/pipe")
    bad_host.run(["bash", "-c", f"(sleep 77 <>/root/pipe & {many}) >/dev/null 2>&1; sleep 1"])
    assert bad_host.sh("pgrep -fc '[i]mage import /root/pipe'") >= "12"
    try:
        syscont(bad_host, "create", "busybox", "x", timeout=5)
        syscont(bad_host, "delete", "x", timeout=5)
    finally:
        for operation in json.loads(syscont(bad_host, "operation", "list", "--format", "json").stdout):
            if operation["status"] == "running":
                syscont(bad_host, "operation", "cancel", operation["id"], check=False)
        bad_host.sh("rm /root/pipe; pkill -f 'sleep [7]7'")


def test_endless_metadata_does_not_fill_the_disk(bad_host: Host) -> None:
    script = "timeout 30 syscont image import <(cat /dev/zero) /root/bad/good.tar"
    begin = time.monotonic()
    done = bad_host.run(["bash", "-c", script], check=False)
    assert "too large" in refused(done, 1, 2)
    assert time.monotonic() - begin < 10 * bad_host.slowness


@pytest.mark.parametrize("place", ["dev", "proc", "run", "sys", "sbin", "etc", "tmp"])
def test_image_with_a_link_in_place_of_a_folder(bad_host: Host, place: str) -> None:
    """Refused, or contained in the guest; the canary is looked at after each test."""
    done = syscont(bad_host, "image", "import", f"/root/bad/link-{place}.tar", "--alias", "linked", check=False)
    if done.returncode:
        refused(done, 1, 2)
        return
    started = syscont(bad_host, "launch", "linked", "x", check=False)
    if started.returncode:
        assert "x" in refused(started, 1)
    syscont(bad_host, "delete", "--force", "x")
    syscont(bad_host, "image", "delete", "linked")


def test_image_with_devices(bad_host: Host) -> None:
    done = syscont(bad_host, "image", "import", "/root/bad/devices.tar", "--alias", "devices", check=False)
    if done.returncode:
        refused(done, 1)
        return
    syscont(bad_host, "launch", "devices", "x")
    assert "no" in Instance(bad_host, "x").sh("head -c1 /dev/disk 2>/dev/null && echo yes || echo no")
    syscont(bad_host, "delete", "--force", "x")
    syscont(bad_host, "image", "delete", "devices")


# Guests


@pytest.mark.parametrize(
    "damage",
    [
        "rm -rf /etc; ln -s ../../../../canary /etc", "rm -rf /tmp; ln -s ../../../../canary /tmp",
        "ln -sf /canary/file /sbin/init", "rm -f /sbin/init", "rm -f /sbin/init; mkdir /sbin/init",
        "echo '#!/nowhere' >/tmp/i; chmod 755 /tmp/i; mv /tmp/i /sbin/init",
        "rm -f /etc/passwd; mkfifo /etc/passwd", "ln -sf /proc/1/mem /etc/passwd", "ln -sf /dev/zero /etc/passwd",
        "rm -rf /bin/sh /root", "mv /bin /nib",
    ],
)  # fmt: skip
def test_guest_damages_itself(bad_host: Host, damage: str) -> None:
    syscont(bad_host, "launch", "busybox", "x")
    one = Instance(bad_host, "x")
    one.sh(damage, check=False)
    for user in ("root", "nobody"):
        done = syscont(bad_host, "exec", "--user", user, "x", "--", "true", check=False, timeout=20)
        assert "Traceback" not in done.stderr
    restarted = one.do("restart", "--force", check=False)
    if restarted.returncode:
        assert "x" in refused(restarted, 1)
    one.do("delete", "--force")


@pytest.mark.parametrize("place", ["dev", "proc", "sys", "run"])
def test_guest_puts_links_in_place_of_its_mount_points(bad_host: Host, place: str) -> None:
    """Under the mount, in the guest's own layer, as it can do with a bind mount of its root."""
    syscont(bad_host, "launch", "busybox", "x")
    one = Instance(bad_host, "x")
    swap = f"mount --bind / /mnt && rm -rf /mnt/{place}; ln -s ../../../../canary /mnt/{place}; ls -ld /mnt/{place}"
    one.sh(f"mkdir -p /mnt; {swap}", check=False)
    bad_host.sh(f"upper={one.on_disk(place)}; rm -rf $upper; ln -s ../../../../canary $upper")
    one.do("restart", "--force")  # with a folder made in place of the link
    assert one.sh("echo alive") == "alive\n"
    bad_host.sh(f"test -d {one.on_disk(place)} && ! test -L {one.on_disk(place)}")
    one.do("delete", "--force")


def test_guest_floods_console_and_notification(bad_host: Host) -> None:
    syscont(bad_host, "launch", "busybox", "x")
    one = Instance(bad_host, "x")
    one.sh("(timeout 3 yes $(head -c 3000 /dev/zero | tr '\\0' x) >/dev/console) >/dev/null 2>&1 &")
    one.sh("(timeout 3 cat /dev/urandom >/dev/console) >/dev/null 2>&1 &")
    leader = one.leader
    junk = (
        "import os,socket,time\n"
        "s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n"
        "s.setblocking(False)\n"
        f"path='/proc/{leader}/root/run/host/notify'\n"
        "end=time.monotonic()+2\n"
        "n=0\n"
        "while time.monotonic()<end:\n"
        "  status=b'STATUS='+b'%n\\xff'*900\n"
        "  for data in (os.urandom(3000),b'MAINPID=1\\nREADY=1',b'FDSTORE=1',b'X_'*2000+b'=1',status):\n"
        "    try: s.sendto(data,path); n+=1\n"
        "    except OSError: time.sleep(0.01)\n"
    )
    begin = time.monotonic()
    bad_host.run(["python3", "-c", junk])
    syscont(bad_host, "list", timeout=2)
    assert time.monotonic() - begin < 5 * bad_host.slowness
    assert one.systemd("MainPID") == str(leader)
    assert one.systemd("NFileDescriptorStore") == "0"
    one.do("delete", "--force")


def test_guest_makes_trees_that_are_hard_to_delete(bad_host: Host) -> None:
    syscont(bad_host, "launch", "busybox", "x")
    one = Instance(bad_host, "x")
    one.sh("mkdir -p /root/deep && cd /root/deep && i=0; while [ $i -lt 5000 ]; do mkdir d; cd d; i=$((i + 1)); done")
    one.sh("cd /root; mkdir .lifted-1 .lifted-2; touch \"$(printf 'a\\nb')\" \"$(printf '\\377\\376')\" -- -rf '*'")
    one.sh("mkdir -p /root/locked/in; touch /root/locked/in/file; chmod 0 /root/locked/in /root/locked; mkfifo /root/p")
    one.do("delete", "--force")


def test_error_texts_quote_what_was_wrong(bad_host: Host) -> None:
    assert "'a b'" in refused(syscont(bad_host, "create", "busybox", "a b", check=False), 2)
    assert "no image 'nothing'" in refused(syscont(bad_host, "create", "nothing", "x", check=False), 3)
    assert "no instance 'nobody'" in refused(syscont(bad_host, "start", "nobody", check=False), 3)
    shown = shlex.quote("/root/bad/text.tar")
    assert refused(bad_host.run(["sh", "-c", f"syscont image import {shown}"], check=False), 1, 2)
