# SPDX-License-Identifier: Apache-2.0
"""What an instance may ask of its host, about itself and about nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Launch
from guests import Done, Instance, python, syscont, systemd_property, until
from hosts import Host

SOCKET = "/dev/syscont/sock"
INTERFACE = "org.syscont.Guest"
SHIPPED = Path(__file__).resolve().parent.parent / f"data/varlink/{INTERFACE}.varlink"

TALK = (Path(__file__).parent / "on_guest/talk.pl").read_text()


def varlinkctl(guest: Instance, *argv: str, check: bool = True) -> Done:
    return guest.exec("varlinkctl", *argv, check=check)


def call(guest: Instance, method: str, **parameters: Any) -> dict[str, Any]:
    done = varlinkctl(guest, "call", "-j", SOCKET, f"{INTERFACE}.{method}", json.dumps(parameters))
    return dict(json.loads(done.stdout))


def talk(guest: Instance, socket: str, data: str, times: int = 1, limit: int = 10) -> str:
    """What the guest is answered when it sends data, until it is hung up on or limit is over."""
    argv = ["perl", "-e", TALK, socket, data.encode("utf-8", "surrogatepass").hex(), str(times), str(limit)]
    return guest.exec(*argv, check=False).stdout


def get(guest: Instance, path: str) -> tuple[int, str]:
    """Status and body of LXD's API."""
    text = talk(guest, "/dev/lxd/sock", f"GET {path} HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n\r\n")
    head, _, body = text.partition("\n\n")  # text comes with the line ends of Unix
    return int(head.split()[1]), body


@pytest.fixture(scope="module")
def guest(host: Host, debian_guest: Instance) -> Iterator[Instance]:
    """The shared one, with some keys of its own."""
    keys = {"user.greeting": "hello\nworld", "user.empty": "", "environment.SECRET": "not for this door"}
    set_config(debian_guest, **keys)
    yield debian_guest
    syscont(host, "config", "unset", debian_guest.name, *keys)


def set_config(guest: Instance, **values: str) -> None:
    syscont(guest.host, "config", "set", guest.name, *(f"{key}={value}" for key, value in values.items()))


# varlink


def test_what_it_is(guest: Instance) -> None:
    seen, told = guest.seen(), call(guest, "GetInstance")
    assert told["name"] == guest.name
    assert told["uuid"] == seen["uuid"]
    assert told["project"] == "default"
    assert f'local-hostname: "{guest.name}"' in told["metaData"]


def test_its_configuration_and_no_other(guest: Instance) -> None:
    assert call(guest, "GetConfig")["config"] == {"user.greeting": "hello\nworld", "user.empty": ""}


def test_its_devices_as_seen_from_inside(guest: Instance) -> None:
    devices = call(guest, "GetDevices")["devices"]
    address = guest.exec("cat", "/sys/class/net/eth0/address").stdout.strip()
    assert devices["eth0"] == {"type": "nic", "name": "eth0", "hwaddr": address}
    assert devices["root"] == {"type": "disk", "path": "/"}


def test_the_description_is_the_one_shipped(guest: Instance) -> None:
    assert INTERFACE in varlinkctl(guest, "info", SOCKET).stdout
    text = varlinkctl(guest, "introspect", SOCKET, INTERFACE).stdout
    for line in SHIPPED.read_text().splitlines():
        if line.startswith(("method ", "error ", "type ")):
            assert line.split("(")[0].rstrip() in text


def test_nothing_of_the_managers_is_there(guest: Instance) -> None:
    for method in ("org.syscont.Manager.ListInstances", f"{INTERFACE}.Exec", "nothing"):
        assert "MethodNotFound" in talk(guest, SOCKET, json.dumps({"method": method}) + "\0", limit=1)


def test_changes_are_told(host: Host, guest: Instance) -> None:
    out = "/run/changes"
    guest.sh(f"varlinkctl call --more -j {SOCKET} {INTERFACE}.Monitor '{{}}' >{out} 2>&1 </dev/null &")
    until(host, lambda: guest.sh(f"cat {out}").strip())
    set_config(guest, **{"user.greeting": "good day", "user.new": "1"})
    changes = until(host, lambda: [x["change"] for x in read_all(guest.sh(f"cat {out}")) if x.get("change")])
    greeting = {"kind": "config", "action": "changed", "name": "user.greeting"}
    assert greeting | {"value": "good day", "oldValue": "hello\nworld"} in [shown(one) for one in changes]
    syscont(host, "config", "unset", guest.name, "user.new")
    until(host, lambda: '"removed"' in guest.sh(f"cat {out}"))
    set_config(guest, **{"user.greeting": "hello\nworld"})
    guest.sh("pkill varlinkctl || kill $(pidof varlinkctl)", check=False)


def change_profile(host: Host, **change: Any) -> None:
    tasks = [{"call": "ChangeProfile", "parameters": {"name": "default"} | change}]
    assert "error" not in python(host, "raw_varlink", input=json.dumps(tasks)).stdout


def test_a_profile_is_told_of_too(host: Host, guest: Instance) -> None:
    guest.sh(f"varlinkctl call --more -j {SOCKET} {INTERFACE}.Monitor '{{}}' >/run/profiles 2>&1 </dev/null &")
    until(host, lambda: guest.sh("cat /run/profiles").strip())
    change_profile(host, set={"user.of-all": "x"})
    until(host, lambda: '"user.of-all"' in guest.sh("cat /run/profiles"))
    assert call(guest, "GetConfig")["config"]["user.of-all"] == "x"
    change_profile(host, unset=["user.of-all"])
    until(host, lambda: '"removed"' in guest.sh("cat /run/profiles"))


def read_all(text: str) -> list[dict[str, Any]]:
    decoder, found = json.JSONDecoder(), []
    text = text.replace("\x1e", "").lstrip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found


def shown(change: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in change.items() if value is not None}


def test_only_root_of_the_guest_may_ask(guest: Instance) -> None:
    for path in (SOCKET, "/dev/lxd/sock"):
        assert guest.sh(f"stat -c '%a %u %g' {path}") == "600 0 0\n"
    done = guest.exec("su", "-s", "/bin/sh", "nobody", "-c", f"varlinkctl info {SOCKET}", check=False)
    assert done.returncode != 0
    assert "ermission denied" in done.stderr


def test_the_socket_outlives_the_daemon(host: Host, guest: Instance) -> None:
    host.run(["systemctl", "restart", "syscontd.service"])
    assert call(guest, "GetInstance")["name"] == guest.name
    host.run(["systemctl", "kill", "--signal=KILL", "syscontd.service"])
    assert call(guest, "GetInstance")["name"] == guest.name
    assert get(guest, "/1.0")[0] == 200


def test_it_is_there_after_a_reboot_from_inside(host: Host, guest: Instance) -> None:
    leader = guest.leader
    guest.exec("systemctl", "reboot", check=False)
    until(host, lambda: guest.seen()["leader"] not in (0, leader), patience=60)
    until(host, lambda: guest.systemd("ActiveState") == "active", patience=60)
    assert call(guest, "GetInstance")["name"] == guest.name


def test_it_can_be_switched_off_at_any_time(host: Host, guest: Instance) -> None:
    set_config(guest, **{"security.devlxd": "false"})
    assert varlinkctl(guest, "info", SOCKET, check=False).returncode != 0
    assert talk(guest, "/dev/lxd/sock", "GET / HTTP/1.0\r\n\r\n") == ""
    syscont(host, "config", "unset", guest.name, "security.devlxd")
    assert call(guest, "GetInstance")["name"] == guest.name


def test_lxds_socket_is_not_there_when_it_is_off_from_the_start(launch: Launch) -> None:
    one = launch("", "--config", "security.devlxd=false")
    assert one.sh("ls -d /dev/lxd /dev/syscont", check=False) == "/dev/syscont\n"


# who asks

CONNECT = """
import json, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(20)
sock.connect(sys.argv[1])
try:
    sock.sendall(b'{"method": "org.syscont.Guest.GetInstance"}\\0')
    answer = sock.recv(65536)
except OSError:
    answer = b""
print(json.loads(answer[:-1])["parameters"]["name"] if answer else "closed")
"""


def test_processes_of_the_host_and_of_others_are_not_served(host: Host, guest: Instance, launch: Launch) -> None:
    """A socket that got out of its guest is of no use: neither to the host's own processes nor to other guests'."""
    path, other = f"/proc/{guest.leader}/root{SOCKET}", launch()

    def ask_from(cgroup: str) -> str:
        join = f"echo $$ >/sys/fs/cgroup{cgroup}/cgroup.procs" if cgroup else "true"
        return host.run(["sh", "-c", f'{join}; exec python3 -c "$@"', "-", CONNECT, path]).stdout.strip()

    group = guest.systemd("ControlGroup")
    assert ask_from("") == "closed"
    assert ask_from(other.systemd("ControlGroup")) == "closed"
    host.run(["mkdir", f"/sys/fs/cgroup{group}/{other.unit}"])
    assert ask_from(f"{group}/{other.unit}") == guest.name, "named like the other's, but below its own"
    until(host, lambda: host.run(["rmdir", f"/sys/fs/cgroup{group}/{other.unit}"], check=False).returncode == 0)


# hostile guests


@pytest.mark.parametrize(
    "data",
    [
        "\0", "{}\0", "[]\0", "null\0", '{"method": 7}\0', '{"method": "", "parameters": []}\0', "[" * 60_000 + "\0",
        '{"method": "org.syscont.Guest.Monitor", "parameters": {}}\0',
        '{"method": "org.syscont.Guest.Monitor", "more": true, "parameters": {"kinds": "x\\ud800"}}\0',
    ],
    ids=range(9),
)  # fmt: skip
def test_bad_messages_harm_nobody(host: Host, guest: Instance, data: str) -> None:
    pid = systemd_property(host, "syscontd.service", "MainPID")
    talk(guest, SOCKET, data, limit=1)
    assert call(guest, "GetInstance")["name"] == guest.name
    assert systemd_property(host, "syscontd.service", "MainPID") == pid


def test_a_flood_is_cut_off(host: Host, guest: Instance) -> None:
    """An endless message, a crowd of connections and requests without reading: each ends, others are served."""
    pid = systemd_property(host, "syscontd.service", "MainPID")
    talk(guest, SOCKET, "x" * 50_000, times=2000)
    talk(guest, "/dev/lxd/sock", "x" * 50_000, times=2000)
    crowd = guest.exec("perl", "-e", TALK, SOCKET, "crowd", "60").stdout
    assert int(crowd) >= 60 - 32
    until(host, lambda: call_works(guest))
    assert systemd_property(host, "syscontd.service", "MainPID") == pid


def call_works(guest: Instance) -> bool:
    return varlinkctl(guest, "info", SOCKET, check=False).returncode == 0


def test_other_guests_and_the_host_are_served_while_one_asks_all_the_time(host: Host, guest: Instance) -> None:
    loop = f"for i in 1 2 3 4; do while :; do varlinkctl call {SOCKET} {INTERFACE}.GetConfig '{{}}'; done & done; wait"
    guest.sh(f"timeout 8 sh -c \"{loop}\" >/dev/null 2>&1 </dev/null &")
    for _ in range(5):
        syscont(host, "list")
    python(host, "raw_varlink", input=json.dumps([{"call": "GetInfo", "parameters": {}}]))


# LXD's API


def test_lxd_paths(guest: Instance) -> None:
    assert get(guest, "/") == (200, '["/1.0"]')
    facts = json.loads(get(guest, "/1.0")[1])
    assert facts == {"api_version": "1.0", "location": "none", "instance_type": "container", "state": "Started"}
    assert json.loads(get(guest, "/1.0/config")[1]) == ["/1.0/config/user.empty", "/1.0/config/user.greeting"]
    assert get(guest, "/1.0/config/user.greeting") == (200, "hello\nworld")
    assert get(guest, "/1.0/meta-data") == (200, call(guest, "GetInstance")["metaData"])
    assert json.loads(get(guest, "/1.0/devices")[1]) == call(guest, "GetDevices")["devices"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/1.0/config/user.nothing", 404),
        ("/1.0/config/environment.SECRET", 403),
        ("/1.0/config/volatile.eth0.hwaddr", 403),
        ("/1.0/config/user.greeting/../../config/environment.SECRET", 404),
        ("/1.0/images/x/export", 403),
        ("/1.0/../1.0", 404),
        ("/2.0", 404),
    ],
)
def test_lxd_paths_that_are_refused(guest: Instance, path: str, status: int) -> None:
    assert get(guest, path)[0] == status


def test_lxd_connections_are_kept(guest: Instance) -> None:
    one = "GET /1.0/config/user.greeting HTTP/1.1\r\nHost: x\r\n\r\n"
    last = "GET /1.0 HTTP/1.0\r\n\r\n"
    text = talk(guest, "/dev/lxd/sock", one + one + last)
    assert text.count("HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("request_line", ["PUT /1.0 HTTP/1.1", "GET /1.0", "GET x HTTP/1.1", "GET / HTTP/1.1\r\n:x"])
def test_lxd_requests_that_are_none(guest: Instance, request_line: str) -> None:
    answer = talk(guest, "/dev/lxd/sock", f"{request_line}\r\n\r\nGET / HTTP/1.0\r\n\r\n")
    assert answer.split()[1] in ("400", "405")
    assert answer.count("HTTP/1.1") == 1, "nothing is read behind it"


@pytest.mark.parametrize(
    "headers",
    ["", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"],
    ids=["lines", "WebSocket"],
)
def test_lxd_events(host: Host, guest: Instance, headers: str) -> None:
    request = f"GET /1.0/events?type=config HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode().hex()
    out = f"/run/events-{len(headers)}"
    guest.exec("sh", "-c", f'perl -e "$@" >{out} 2>&1 </dev/null &', "-", TALK, "/dev/lxd/sock", request, "1", "20")
    until(host, lambda: "HTTP/1.1" in guest.sh(f"cat {out}"))
    set_config(guest, **{"user.greeting": "hi"})
    told = until(host, lambda: guest.sh(f"cat {out}").partition("\n\n")[2])
    set_config(guest, **{"user.greeting": "hello\nworld"})
    event = json.loads(told[told.index("{") :])
    assert event["type"] == "config"
    assert event["metadata"] == {"key": "user.greeting", "old_value": "hello\nworld", "value": "hi"}
    if headers:
        assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in guest.sh(f"head -n 5 {out}"), "as RFC 6455 says"
