# SPDX-License-Identifier: Apache-2.0
"""The varlink interface, with systemd's varlinkctl and the Python library."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Launch
from guests import Done, Instance, unique, until
from hosts import Host

SOCKET = "/run/syscont/org.syscont.Manager"
INTERFACE = "org.syscont.Manager"
SHIPPED = Path(__file__).resolve().parent.parent / "data/varlink/org.syscont.Manager.varlink"


def varlinkctl(host: Host, verb: str, *argv: str, check: bool = True) -> Done:
    return host.run(["varlinkctl", verb, SOCKET, *argv], check=check)


def call(host: Host, method: str, **parameters: Any) -> dict[str, Any]:
    text = varlinkctl(host, "call", f"{INTERFACE}.{method}", json.dumps(parameters), "-j").stdout
    return dict(json.loads(text))


def test_info(host: Host) -> None:
    text = varlinkctl(host, "info").stdout
    assert INTERFACE in text
    assert "syscont" in text
    assert INTERFACE in varlinkctl(host, "list-interfaces").stdout.split()


def test_the_description_is_the_one_shipped(host: Host) -> None:
    text = varlinkctl(host, "introspect", INTERFACE).stdout
    shipped = SHIPPED.read_text()
    for keyword in ("method ", "error ", "type "):
        wanted = {line.split("(")[0] for line in shipped.splitlines() if line.startswith(keyword)}
        found = {line.split("(")[0].rstrip() for line in text.splitlines() if line.startswith(keyword)}
        assert found == {word.rstrip() for word in wanted}


def test_every_described_method_exists(host: Host) -> None:
    """Called with nothing, each has some answer or complaint of its own, never MethodNotFound."""
    names = [line.split()[1].split("(")[0] for line in SHIPPED.read_text().splitlines() if line.startswith("method ")]
    assert len(names) > 20
    for name in set(names) - {"Monitor"}:
        done = varlinkctl(host, "call", f"{INTERFACE}.{name}", "{}", check=False)
        assert "MethodNotFound" not in done.stderr, name


def test_a_life(host: Host, busybox: str) -> None:
    name = unique("varlink-")
    made = call(host, "CreateInstance", name=name, image=busybox, start=True)
    assert made["operation"]["status"] == "done"
    assert call(host, "GetInstance", name=name)["instance"]["state"] == "running"
    ran = call(host, "Exec", name=name, command=["sh", "-c", "exit 9"])
    assert ran["exitStatus"] == 9
    call(host, "StopInstance", name=name, force=True)
    call(host, "DeleteInstance", name=name)
    assert name not in [one["name"] for one in call(host, "ListInstances")["instances"]]


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("GetInstance", {"name": "nobody"}, "NotFound"),
        ("CreateInstance", {"name": "../x", "image": "busybox"}, "InvalidArgument"),
        ("CreateInstance", {"name": "guest", "image": "busybox"}, "AlreadyExists"),
        ("GetInstance", {}, "InvalidArgument"),
        ("GetInstance", {"name": 5}, "InvalidArgument"),
        ("DeleteInstance", {"name": "guest"}, "Busy"),
        ("BuildImage", {"source": "windows"}, "InvalidArgument"),
    ],
)
def test_errors_have_names(
    host: Host, guest: Instance, method: str, parameters: dict[str, Any], error: str
) -> None:
    done = varlinkctl(host, "call", f"{INTERFACE}.{method}", json.dumps(parameters), check=False)
    assert done.returncode
    assert f"{INTERFACE}.{error}" in done.stderr


def test_not_running(host: Host, launch: Launch) -> None:
    name = launch(verb="create").name
    parameters = json.dumps({"name": name, "command": ["true"]})
    done = varlinkctl(host, "call", f"{INTERFACE}.Exec", parameters, check=False)
    assert f"{INTERFACE}.NotRunning" in done.stderr


def test_progress_with_more(host: Host) -> None:
    argv = ["--more", f"{INTERFACE}.BuildImage", '{"source": "busybox"}', "-j"]
    replies = [json.loads(line) for line in varlinkctl(host, "call", *argv).stdout.split("\x1e") if line.strip()]
    assert replies[-1]["operation"]["status"] == "done"
    assert len(replies[-1]["operation"]["result"]["fingerprint"]) == 64


def test_monitor(host: Host, launch: Launch) -> None:
    argv = ["varlinkctl", "call", "--more", SOCKET, f"{INTERFACE}.Monitor", "{}", "-j"]
    host.run(["sh", "-c", "exec \"$@\" >/run/events 2>&1 &", "sh", *argv])
    try:
        # It says nothing when it begins, so something is made until it has been seen.
        instance = launch(verb="create")
        until(host, lambda: _noticed(host, launch))
        instance = launch()
        instance.do("delete", "--force")
        events = until(host, lambda: _events_of(host, instance.name, "instance-removed"))
        assert events[0]["event"] == "instance-added"
        assert {"instance-added", "instance-changed", "instance-removed"} == {
            event["event"] for event in events
        }
    finally:
        host.run(["pkill", "-f", "^varlinkctl call --more"])
        host.run(["rm", "/run/events"])


def _noticed(host: Host, launch: Launch) -> bool:
    instance = launch(verb="create")
    return bool(_events_of(host, instance.name, "instance-added"))


def _events_of(host: Host, name: str, last: str) -> list[dict[str, str]]:
    decoder, text, found = json.JSONDecoder(), host.read_text("/run/events"), []
    text = text.replace("\x1e", "").strip()
    while text:
        event, end = decoder.raw_decode(text)
        found.append(event)
        text = text[end:].strip()
    mine = [event for event in found if event.get("name") == name]
    return mine if any(event["event"] == last for event in mine) else []


_CLIENT = """
import json, varlink
client = varlink.Client.new_with_address("unix:/run/syscont/org.syscont.Manager")
with client, client.open("org.syscont.Manager", namespaced=False) as manager:
    names = [one["name"] for one in manager.ListInstances()["instances"]]
    try:
        manager.GetInstance("nobody")
    except varlink.VarlinkError as error:
        wrong = error.error()
    status = manager.Exec(name="guest", command=["sh", "-c", "exit 3"])["exitStatus"]
    stages = [r["operation"]["status"] for r in manager.BuildImage(source="busybox", _more=True)]
print(json.dumps([names, wrong, status, stages]))
"""


def test_the_python_library_as_a_client(host: Host, guest: Instance) -> None:
    out = host.run(["/usr/bin/python3", "-c", _CLIENT]).stdout
    names, wrong, status, stages = json.loads(out)
    assert guest.name in names
    assert wrong == f"{INTERFACE}.NotFound"
    assert status == 3
    assert stages[-1] == "done"


def test_the_socket_is_for_a_group(host: Host) -> None:
    assert host.run(["stat", "-c", "%a %U %G", SOCKET]).stdout == "660 root syscont\n"


def test_socket_activation(host: Host, guest: Instance) -> None:
    host.run(["systemctl", "stop", "syscontd.service"])
    assert guest.name in [one["name"] for one in call(host, "ListInstances")["instances"]]
    assert host.run(["systemctl", "is-active", "syscontd.service"]).stdout == "active\n"
