# SPDX-License-Identifier: Apache-2.0
"""apply and edit on a real host: what a file says is so afterwards, once and for all."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Launch
from guests import Done, Instance, on_terminal, python, syscont, systemd_property, unique
from hosts import Host
from leftovers import nothing_happens


def apply(host: Host, text: str, *options: str, check: bool = True) -> Done:
    return syscont(host, "apply", "-", *options, check=check, input=text)


@pytest.fixture
def names(host: Host) -> Iterator[list[str]]:
    """Two names for instances, which are deleted afterwards."""
    made = [unique("apply"), unique("apply")]
    yield made
    syscont(host, "delete", "--force", *made, check=False)


def document(names: list[str], image: str, memory: str = "64MiB") -> str:
    one, other = names
    return f"""
instances:
- name: {one}
  description: 'One: the first'
  image: {image}
  config: {{limits.memory: {memory}, limits.processes: 90, user.note: "a\\nb", boot.autostart: yes}}
  state: running
- name: {other}
  image: {image}
  profiles: []
  devices:
    net: {{type: nic, network: syscontbr0, name: eth7}}
"""


def test_apply_is_done_once(host: Host, busybox: str, names: list[str]) -> None:
    text = document(names, busybox)
    planned = apply(host, text, "--dry-run", "--exit-code", check=False)
    assert (planned.returncode, planned.stderr) == (10, "")
    assert syscont(host, "list", "--format", "csv", "-c", "n", *names).stdout == ""
    assert apply(host, text, "--yes", "--exit-code", check=False).returncode == 10
    one, other = (Instance(host, name) for name in names)
    assert (one.state, other.state) == ("running", "stopped")
    assert one.systemd("TasksMax") == "90"
    assert one.seen()["config"]["user.note"] == "a\nb"
    assert other.seen()["expandedDevices"] == {"net": {"type": "nic", "network": "syscontbr0", "name": "eth7"}}
    with nothing_happens(host):
        again = apply(host, text, "--yes", "--exit-code")
    assert again.stdout.endswith("0 to create, 0 to change, 2 unchanged\n")


def test_apply_changes_what_differs(host: Host, busybox: str, names: list[str]) -> None:
    apply(host, document(names, busybox), "--yes")
    one = Instance(host, names[0])
    leader = one.leader
    done = apply(host, document(names, busybox, "96MiB").replace("limits.processes: 90, ", ""), "--yes")
    assert "limits.memory: 64MiB -> 96MiB\n" in done.stdout
    assert "limits.processes: 90 -> (unset)\n" in done.stdout
    config = one.seen()["config"]
    assert (config["limits.memory"], config.get("limits.processes")) == ("96MiB", None)
    assert one.leader == leader
    assert "volatile.eth0.hwaddr" in config


LAB = """
projects: [{name: lab, config: {limits.instances: 1}}]
profiles:
- {name: default, project: lab, devices: {eth0: {type: nic, network: syscontbr0, name: eth0}}}
- {name: small, project: lab, config: {limits.processes: PROCESSES}}
instances:
- {name: one, project: lab, image: busybox, profiles: [default, small], state: running}
"""


@pytest.fixture
def no_lab(host: Host) -> Iterator[None]:
    """Afterwards there is none any more."""
    yield
    syscont(host, "delete", "--force", "lab:one", check=False)
    for method, name in (("DeleteProfile", "lab:small"), ("DeleteProject", "lab")):
        task = {"call": method, "parameters": {"name": name}}
        python(host, "raw_varlink", input=json.dumps([task]))


@pytest.mark.usefixtures("no_lab", "busybox")
def test_a_project_with_all_that_is_in_it(host: Host) -> None:
    apply(host, LAB.replace("PROCESSES", "70"), "--yes")
    unit = "syscont@lab:one.service"
    assert systemd_property(host, unit, "TasksMax") == "70"
    again = apply(host, LAB.replace("PROCESSES", "70"), "--yes", "--exit-code")
    assert again.stdout.endswith("0 to create, 0 to change, 4 unchanged\n")
    done = apply(host, LAB.replace("PROCESSES", "80"), "--yes", "--quiet")
    assert "profile lab:small\n" in done.stdout
    assert "unchanged  " not in done.stdout
    assert systemd_property(host, unit, "TasksMax") == "80"
    more = "instances: [{name: two, project: lab, image: busybox}]"
    refused = apply(host, more, "--yes", check=False)
    assert refused.returncode != 0
    assert "instance lab:two: " in refused.stderr
    assert "limits.instances" in refused.stderr


def test_a_mistake_anywhere_changes_nothing(host: Host, busybox: str, names: list[str]) -> None:
    text = document(names, busybox).replace("eth7", "../eth7")
    with nothing_happens(host):
        done = apply(host, text, "--yes", check=False)
    assert done.returncode == 2
    assert f"standard input:12: instances[{names[1]}].devices.net: name: invalid interface name" in done.stderr


def test_apply_as_somebody_who_may_not(host: Host, busybox: str, names: list[str]) -> None:
    with nothing_happens(host):
        argv = ["syscont", "apply", "-", "--yes"]
        done = host.run(argv, user="alice", check=False, input=document(names, busybox))
    assert done.returncode == 4


def test_apply_asks_on_a_terminal(host: Host, busybox: str, names: list[str]) -> None:
    host.write_text("/run/lab.yaml", document(names, busybox))
    status, shown = on_terminal(host, ["syscont", "apply", "/run/lab.yaml"], ("[y/N]", "n\n"))
    assert (status, "2 to create" in shown) == (1, True)
    status, _ = on_terminal(host, ["syscont", "apply", "/run/lab.yaml"], ("[y/N]", "y\n"))
    assert status == 0
    assert Instance(host, names[0]).state == "running"


def test_edit(host: Host, launch: Launch) -> None:
    instance = launch("", "-c", "limits.processes=50", "-c", "user.note=x")
    host.write_text("/run/editor", '#!/bin/sh\nsed -i "s/\'50\'/\'60\'/; /user.note/d" "$1"\n')
    host.run(["chmod", "755", "/run/editor"])
    status, shown = on_terminal(host, ["env", "EDITOR=/run/editor", "syscont", "edit", instance.name])
    assert (status, shown.split("\r\n")[:2]) == (0, ["limits.processes: 50 -> 60", "user.note: is removed"])
    assert instance.systemd("TasksMax") == "60"
    assert "user.note" not in instance.seen()["config"]
    assert host.sh("ls /tmp | grep -c syscont-instance || :").strip() == "0"


def test_the_example_of_the_manual_is_planned(host: Host, busybox: str) -> None:
    text = (Path(__file__).parent.parent / "docs/examples/lab.yaml").read_text()
    steps = json.loads(apply(host, text, "--dry-run", "--format", "json").stdout)
    assert [step["action"] for step in steps] == ["change", *["create"] * 4]
