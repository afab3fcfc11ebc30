# SPDX-License-Identifier: Apache-2.0
"""Giving parts of an instance new values, through both doors."""

import json
from typing import Any

import pytest
from conftest import Launch
from guests import Done, Instance, python
from hosts import Host

OBJECT = "/org/syscont/Manager/instance/"


def update(host: Host, name: str, **parts: Any) -> Any:
    """UpdateInstance over varlink; its reply."""
    task = {"call": "UpdateInstance", "parameters": {"name": name, **parts}}
    return json.loads(python(host, "raw_varlink", input=json.dumps([task])).stdout)[0]


def update_on_bus(host: Host, instance: Instance, *options: str, check: bool = True) -> Done:
    """Update of the object; options as busctl has them: name, signature, values."""
    count = str(sum(word in ("config", "devices", "profiles", "description", "ephemeral") for word in options))
    argv = ["call", "org.syscont.Manager", OBJECT + instance.name, "org.syscont.Instance", "Update", "a{sv}", count]
    return host.run(["busctl", *argv, *options], check=check)


def test_parts_are_replaced_and_others_stay(host: Host, launch: Launch) -> None:
    instance = launch("", "-c", "user.a=1", "-c", "user.b=2", verb="create")
    kept = {key: value for key, value in instance.seen()["config"].items() if key.startswith("volatile.")}
    assert "volatile.eth0.hwaddr" in kept
    answer = update(host, instance.name, config={"user.b": "3", "limits.processes": "70"}, description="Ours: ä 1")
    assert answer == {"parameters": {}}
    seen = instance.seen()
    assert seen["config"] == {"user.b": "3", "limits.processes": "70", **kept}
    assert (seen["description"], seen["profiles"], seen["ephemeral"]) == ("Ours: ä 1", ["default"], False)
    update_on_bus(host, instance, "profiles", "as", "0", "description", "s", "", "ephemeral", "b", "true")
    seen = instance.seen()
    assert (seen["description"], seen["profiles"], seen["ephemeral"]) == ("", [], True)
    assert seen["config"]["user.b"] == "3"
    assert seen["expandedDevices"] == {}


def test_what_is_live_is_in_force_at_once(host: Host, launch: Launch) -> None:
    instance = launch()
    update(host, instance.name, config={"limits.processes": "77"})
    assert instance.systemd("TasksMax") == "77"
    update(host, instance.name, config={})
    assert instance.systemd("TasksMax") != "77"


@pytest.mark.parametrize(
    "parts",
    [
        {"config": {"no.such": "1"}},
        {"config": {"volatile.eth0.hwaddr": "02:00:00:00:00:01"}},
        {"config": {"limits.memory": "1GiB\n"}},
        {"config": []},
        {"devices": {"../x": {"type": "none"}}},
        {"devices": {"x": {"type": "no-such"}}},
        {"devices": {"x": "nic"}},
        {"profiles": ["no-such"]},
        {"profiles": "default"},
        {"description": "one\ntwo"},
        {"description": "\u2028"},
        {"description": "x" * 2000},
        {"ephemeral": "yes"},
    ],
)
def test_all_or_nothing(host: Host, guest: Instance, parts: dict[str, Any]) -> None:
    before = guest.seen()
    answer = update(host, guest.name, **{"config": {"user.x": "1"}, "description": "new", **parts})
    assert answer["error"] in ("org.syscont.Manager.InvalidArgument", "org.syscont.Manager.NotFound")
    later: dict[str, list[str]] = {"addresses": []}
    assert guest.seen() | later == before | later
