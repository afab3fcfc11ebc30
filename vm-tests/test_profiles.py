# SPDX-License-Identifier: Apache-2.0
"""Profiles, from the command line and over the bus: what they give to instances, at once and all or nothing."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Launch
from guests import Instance, syscont
from hosts import Host

PATH = "/org/syscont/Manager/profile"


@pytest.fixture
def profile(host: Host) -> Iterator[Callable[..., str]]:
    """Makes profiles of the test's own; they go after its instances."""
    made: list[str] = []

    def one(name: str, *options: str) -> str:
        syscont(host, "profile", "create", name, *options)
        made.append(name)
        return name

    yield one
    for name in made:
        users = seen(host, name).get("usedBy", [])
        for user in users:
            syscont(host, "delete", "--force", user)
        syscont(host, "profile", "delete", name, check=False)


def seen(host: Host, name: str) -> dict[str, Any]:
    found = syscont(host, "profile", "show", name, "--format", "json", check=False)
    return json.loads(found.stdout) if found.stdout else {}


def profiles(host: Host) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(syscont(host, "profile", "list", "--format", "json").stdout)
    return found


def test_the_default_profile_stays(host: Host) -> None:
    assert [one["name"] for one in profiles(host)] == ["default"]
    for verb in (("delete", "default"), ("rename", "default", "other")):
        refused = syscont(host, "profile", *verb, check=False)
        assert (refused.returncode, "default profile can't be" in refused.stderr) == (1, True)
    shown = seen(host, "default")
    assert shown["devices"]["eth0"]["network"] == "syscontbr0"


def test_a_change_holds_for_instances_that_run(
    host: Host, launch: Launch, profile: Callable[..., str]
) -> None:
    small = profile("small", "-c", "limits.processes=100", "-c", "user.a=of the profile")
    instance = launch("", "-p", "default", "-p", small)
    other = launch("", "-p", "default", "-p", small, "-c", "limits.processes=300", verb="create")
    assert instance.systemd("TasksMax") == "100"
    leader = instance.leader
    syscont(host, "profile", "set", small, "limits.processes=200")
    assert (instance.systemd("TasksMax"), instance.leader) == ("200", leader)
    assert other.systemd("TasksMax") == "300"  # says so itself
    shown = syscont(host, "config", "show", "--all", instance.name, "--format", "csv").stdout
    assert "limits.processes,200,profile small" in shown
    syscont(host, "profile", "unset", small, "limits.processes")
    assert instance.systemd("TasksMax") not in ("100", "200")
    assert set(seen(host, small)["usedBy"]) == {instance.name, other.name}


def test_a_stopped_instance_starts_as_the_profile_says(
    host: Host, launch: Launch, profile: Callable[..., str]
) -> None:
    small = profile("small")
    instance = launch("", "-p", "default", "-p", small, verb="create")
    syscont(host, "profile", "set", small, "limits.processes=120", "environment.OF=profile")
    assert instance.systemd("TasksMax") == "120"
    instance.do("start")
    assert instance.sh("echo $OF") == "profile\n"


def test_order_and_none(host: Host, launch: Launch, profile: Callable[..., str]) -> None:
    one = profile("one", "-c", "user.k=1", "-c", "user.one=1")
    two = profile("two", "-c", "user.k=2")
    instance = launch("", "-p", one, "-p", two, verb="create")

    def expanded() -> dict[str, str]:
        config: dict[str, str] = instance.seen()["expandedConfig"]
        return {key: value for key, value in config.items() if key.startswith("user.")}

    assert expanded() == {"user.k": "2", "user.one": "1"}
    syscont(host, "profile", "assign", instance.name, f"{two},{one}")
    assert expanded() == {"user.k": "1", "user.one": "1"}
    syscont(host, "profile", "remove", instance.name, one)
    assert expanded() == {"user.k": "2"}
    syscont(host, "profile", "add", instance.name, one)
    assert instance.seen()["profiles"] == [two, one]
    syscont(host, "profile", "assign", instance.name)
    assert (instance.seen()["profiles"], expanded()) == ([], {})
    bare = launch("", "--no-profiles", verb="create")
    assert bare.seen()["expandedDevices"] == {}
    missing = syscont(host, "profile", "add", instance.name, "nothing", check=False)
    assert (missing.returncode, "no profile 'nothing'" in missing.stderr) == (3, True)
    assert instance.seen()["profiles"] == []


def test_rename_and_copy(host: Host, launch: Launch, profile: Callable[..., str]) -> None:
    one = profile("one", "-c", "user.k=1")
    instance = launch("", "-p", one, verb="create")
    syscont(host, "profile", "copy", one, "copied")
    assert seen(host, "copied")["config"] == {"user.k": "1"}
    taken = syscont(host, "profile", "rename", one, "copied", check=False)
    assert "exists already" in taken.stderr
    syscont(host, "profile", "delete", "copied")
    syscont(host, "profile", "rename", one, "renamed")
    try:
        assert instance.seen()["profiles"] == ["renamed"]
        assert not seen(host, one)
        in_use = syscont(host, "profile", "delete", "renamed", check=False)
        assert (in_use.returncode, f"in use by {instance.name}" in in_use.stderr) == (1, True)
        host.run(["systemctl", "restart", "syscontd"])
        assert instance.seen()["expandedConfig"]["user.k"] == "1"
    finally:
        syscont(host, "profile", "rename", "renamed", one)


def test_devices_of_a_profile(host: Host, launch: Launch, profile: Callable[..., str]) -> None:
    nics = profile("nics")
    instance = launch("", "-p", "default", "-p", nics, verb="create")
    syscont(host, "profile", "device", "add", nics, "eth1", "nic", "network=syscontbr0")
    config, devices = instance.seen()["config"], instance.seen()["expandedDevices"]
    assert devices["eth1"] == {"type": "nic", "network": "syscontbr0"}
    address = config["volatile.eth1.hwaddr"]
    syscont(host, "profile", "device", "set", nics, "eth1", "name=lan0")
    assert instance.seen()["expandedDevices"]["eth1"]["name"] == "lan0"
    twice = syscont(host, "profile", "device", "add", nics, "eth1", "nic", check=False)
    assert "already" in twice.stderr
    assert instance.seen()["config"]["volatile.eth1.hwaddr"] == address
    syscont(host, "profile", "device", "remove", nics, "eth1")
    assert set(instance.seen()["expandedDevices"]) == {"root", "eth0"}
    assert syscont(host, "profile", "device", "list", nics, "--format", "csv").stdout == ""


BAD = [
    (("set", "p", "limits.memory=lots"), "limits.memory"),
    (("set", "p", "no.such.key=1"), "no.such.key"),
    (("set", "p", "environment.A=a\nb"), "environment.A"),
    (("set", "p", "volatile.eth0.hwaddr=02:00:00:00:00:01"), "volatile.eth0.hwaddr"),
    (("unset", "p", "volatile.eth0.hwaddr"), "volatile.eth0.hwaddr"),
    (("device", "add", "p", "../x", "nic"), "../x"),
    (("device", "add", "p", "a\nb", "nic"), "invalid device name"),
    (("device", "add", "p", "x", "no-such-type"), "no-such-type"),
    (("device", "remove", "p", "x"), "no device 'x'"),
    (("rename", "p", "../p"), "invalid profile name"),
    (("rename", "p", "a\nb"), "invalid profile name"),
    (("copy", "p", "x/y"), "invalid profile name"),
    (("create", "-", "-c", "user.a=1"), "invalid profile name"),
    (("create", "p"), "exists already"),
]


def test_bad_input_changes_nothing(host: Host, profile: Callable[..., str]) -> None:
    profile("p", "-c", "user.a=1")
    before = profiles(host)
    for words, named in BAD:
        refused = syscont(host, "profile", *words, check=False)
        assert refused.returncode in (1, 2, 3), words
        assert named in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert profiles(host) == before


def test_secrets_are_for_those_who_may_manage(host: Host, profile: Callable[..., str]) -> None:
    profile("p", "-c", "user.secret=hush", "-c", "limits.processes=9")
    at = ["org.syscont.Manager", f"{PATH}/p", "org.syscont.Profile"]
    shown = host.run(["busctl", "get-property", *at, "Config"], user="alice").stdout
    assert shown == 'a{ss} 1 "limits.processes" "9"\n'
    refused = host.run(["busctl", "call", *at, "GetConfig"], user="alice", check=False)
    assert refused.returncode
    assert "hush" not in refused.stdout
    assert "hush" in host.run(["busctl", "call", *at, "GetConfig"]).stdout


def test_on_the_bus(host: Host, launch: Launch, profile: Callable[..., str]) -> None:
    profile("a.b-c", "-c", "limits.processes=50")
    instance = launch("", "-p", "a.b-c", verb="create")
    path = f"{PATH}/a_2eb_2dc"
    match = "type=signal,interface=org.freedesktop.DBus.Properties,sender=org.syscont.Manager"
    watching = host.spawn(["busctl", "monitor", "--json=short", "--match", match], stderr=None)
    try:
        assert watching.stdout
        time.sleep(0.5 * host.slowness)  # until it listens
        bus(host, path, "ChangeConfig", "a{ss}as", "1", "limits.processes", "60", "0")
        lines = [watching.stdout.readline()]
        while "ExpandedConfig" not in lines[-1]:
            lines.append(watching.stdout.readline())
    finally:
        watching.terminate()
        watching.wait()
    told = [json.loads(line) for line in lines]
    changed = {one["path"]: one["payload"]["data"][1] for one in told}
    assert changed[path]["Config"]["data"] == {"limits.processes": "60"}
    ours = next(values for path, values in changed.items() if "/instance/" in path)
    assert ours["ExpandedConfig"]["data"]["limits.processes"] == "60"
    assert instance.systemd("TasksMax") == "60"
    refused = bus(host, path, "ChangeDevices", "a{sa{ss}}as", "1", "x", "1", "type", "floppy", "0", check=False)
    assert "unknown type" in refused.stderr
    bus(host, path, "Copy", "s", "other")
    bus(host, f"{PATH}/other", "Rename", "s", "another")
    bus(host, f"{PATH}/another", "Delete")
    assert not seen(host, "another")


def bus(host: Host, path: str, *call: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return host.run(["busctl", "call", "org.syscont.Manager", path, "org.syscont.Profile", *call], check=check)


def test_edit(host: Host, launch: Launch, profile: Callable[..., str]) -> None:
    profile("p", "-c", "user.a=1", "-c", "user.b=2")
    host.run(["syscont", "profile", "edit", "p"], input="config:\n  user.a: '3'\n")
    assert seen(host, "p")["config"] == {"user.a": "3"}


def test_many_changes_at_once(host: Host, launch: Launch, profile: Callable[..., str]) -> None:
    """Changes of profiles and of instances that have them, side by side: none is lost, none waits for ever."""
    one, two = profile("one"), profile("two")
    made: list[Instance] = [launch("", "-p", "default", "-p", one, "-p", two, verb="create") for _ in range(3)]
    script = "".join(
        f"syscont profile set {name} user.{name}{number}=x & "
        f"syscont config set {made[number % 3].name} user.{number}=x & "
        for number in range(6)
        for name in (one, two)
    )
    host.sh(f"{script} wait", timeout=60)
    for instance in made:
        expanded = instance.seen()["expandedConfig"]
        assert all(f"user.{name}{number}" in expanded for name in (one, two) for number in range(6))
    assert sum(f"user.{number}" in one.seen()["config"] for one in made for number in range(6)) == 6
