# SPDX-License-Identifier: Apache-2.0
"""apply and edit: what they are going to do, what they then ask of the daemon, and what they refuse."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command, Completed, Serve
from tests.cli.fake_daemon import Call, FakeDaemon, Handler

WEB = {
    "name": "web1",
    "project": "default",
    "description": "",
    "image": "ab" * 32,
    "imageAlias": "busybox",
    "profiles": ["default"],
    "ephemeral": False,
    "devices": {"eth1": {"type": "nic", "network": "br1"}},
    "state": "running",
}
CONFIG = {"limits.memory": "1GiB", "user.secret": "hush", "volatile.eth0.hwaddr": "02:00:00:00:00:01"}

NETWORK = {
    "name": "br0",
    "type": "bridge",
    "description": "",
    "config": {"ipv4.address": "10.1.2.1/24", "ipv4.nat": "true", "volatile.x": "1"},
    "usedBy": ["web1"],
}

LAB = {"features.profiles": "true", "limits.instances": "5"}

HANDLERS: dict[str, Handler] = {
    "ListInstances": lambda call: call.reply({"instances": [WEB, {**WEB, "name": "db1", "state": "stopped"}]}),
    "GetConfig": lambda call: call.reply({"config": CONFIG if call.parameters["name"] == "web1" else {}}),
    "ListProjects": lambda call: call.reply({"projects": [{"name": "lab", "description": "", "config": LAB}]}),
    "GetServerConfig": lambda call: call.reply({"config": {"user.secret": "hush", "core.proxy_http": "http://old"}}),
    "GetProfile": lambda call: get_profile(call),
    "GetProfileConfig": lambda call: call.reply({"config": {"user.secret": "hush"}}),
    "ListNetworks": lambda call: call.reply({"networks": [NETWORK]}),
    "ListAcls": lambda call: call.reply({"acls": []}),
    **dict.fromkeys(
        (
            *("UpdateInstance", "CreateProfile", "UpdateProfile", "CreateProject", "UpdateProject"),
            *("CreateNetwork", "UpdateNetwork", "UpdateServerConfig", "CreateAcl", "UpdateAcl"),
        ),
        lambda call: call.reply({}),
    ),
    **dict.fromkeys(
        ("CreateInstance", "StartInstance", "StopInstance", "RestartInstance"),
        lambda call: call.reply({"operation": {"status": "done"}}),
    ),
}
READS = (
    *("ListNetworks", "ListAcls", "GetServerConfig", "ListInstances", "GetConfig", "ListProjects", "GetProfile"),
    *("GetProfileConfig",),
)


def get_profile(call: Call) -> None:
    if call.parameters["name"] != "web":
        return call.error("NotFound", "no such profile")
    return call.reply(
        {"profile": {"name": "web", "project": "default", "description": "", "devices": {}, "usedBy": ["web1", "db1"]}}
    )


@pytest.fixture
def daemon(serve: Serve) -> FakeDaemon:
    return serve(HANDLERS)


def asked(daemon: FakeDaemon) -> list[tuple[str, dict[str, Any]]]:
    """What was to change something."""
    return [(call.method, call.parameters) for call in daemon.calls if call.method not in READS]


def apply(syscont: Command, text: str, *options: str) -> Completed:
    return syscont("apply", "-", *options, stdin=text)


NEW = """
instances:
- name: new1
  project: lab
  image: busybox
  config: {limits.processes: 50, boot.autostart: yes, user.secret: hush}
  state: running
"""


def test_what_is_not_there_is_made(daemon: FakeDaemon, syscont: Command) -> None:
    done = apply(syscont, NEW, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    config = {"limits.processes": "50", "boot.autostart": "yes", "user.secret": "hush"}
    made = {"name": "lab:new1", "image": "busybox", "config": config, "start": True}
    assert asked(daemon) == [("CreateInstance", made)]
    assert "create     instance lab:new1\n" in done.stdout
    assert "limits.processes: (unset) -> 50\n" in done.stdout
    assert "user.secret: is set\n" in done.stdout
    assert "hush" not in done.stdout
    assert done.stdout.endswith("\n1 to create, 0 to change, 0 unchanged\n")


CHANGES: list[tuple[str, list[tuple[str, dict[str, Any]]], str]] = [
    ("", [], "unchanged  instance web1\n"),
    ("description: Ours", [("UpdateInstance", {"description": "Ours"})], 'description: "" -> Ours'),
    ("profiles: [default, web]", [("UpdateInstance", {"profiles": ["default", "web"]})], "default -> default, web"),
    ("config: {limits.memory: 1GiB, user.secret: hush}", [], "unchanged"),
    (
        "config: {limits.memory: 2GiB}",
        [("UpdateInstance", {"config": {"limits.memory": "2GiB"}})],
        "    limits.memory: 1GiB -> 2GiB\n             user.secret: is removed\n",
    ),
    (
        "devices: {}",
        [("UpdateInstance", {"devices": {}})],
        "device eth1: network=br1 type=nic -> (unset)",
    ),
    ("state: running", [], "unchanged"),
    ("state: stopped", [("StopInstance", {})], "state: running -> stopped"),
    ("image: other", [], "unchanged"),
]


@pytest.mark.parametrize(("field", "calls", "shown"), CHANGES)
def test_what_differs_is_changed(
    daemon: FakeDaemon, syscont: Command, field: str, calls: list[tuple[str, dict[str, Any]]], shown: str
) -> None:
    text = f"instances:\n- name: web1\n  {field}\n"
    done = apply(syscont, text, "--yes", "--exit-code")
    assert done.stderr == ""
    assert done.returncode == (10 if calls else 0)
    assert asked(daemon) == [(method, {"name": "web1", **parameters}) for method, parameters in calls]
    assert shown in done.stdout


WAITS = "instances: [{name: web1, config: {boot.host_shutdown_timeout: 60}}]"


def test_what_needs_a_restart_says_so(daemon: FakeDaemon, syscont: Command) -> None:
    done = apply(syscont, WAITS, "--yes")
    assert "boot.host_shutdown_timeout: (unset) -> 60  (needs a restart)\n" in done.stdout
    assert done.stdout.endswith("0 to create, 1 to change, 0 unchanged; 1 instance needs a restart\n")
    assert [method for method, _ in asked(daemon)] == ["UpdateInstance"]
    apply(syscont, WAITS, "--yes", "--restart")
    assert [method for method, _ in asked(daemon)[1:]] == ["UpdateInstance", "RestartInstance"]
    stopped = apply(syscont, WAITS.replace("web1", "db1"), "--yes", "--restart")
    assert "restart" not in stopped.stdout
    assert [method for method, _ in asked(daemon)[3:]] == ["UpdateInstance"]


ALL = """
instances: [{name: new1, project: new, image: busybox, profiles: [default, web]}]
profiles:
- {name: web, project: new, config: {limits.memory: 1GiB}, devices: {eth0: {type: nic, network: br1}}}
- {name: default, project: new, description: Ours}
projects: [{name: new, config: {restricted: true}}]
"""


def test_what_others_need_comes_first(daemon: FakeDaemon, syscont: Command) -> None:
    done = apply(syscont, ALL, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    first, *profiles, last = asked(daemon)
    assert first == ("CreateProject", {"name": "new", "config": {"restricted": "true"}})
    # Profiles need nothing of each other, and are asked for at once.
    assert sorted(profiles) == [
        (
            "CreateProfile",
            {
                "name": "new:web",
                "config": {"limits.memory": "1GiB"},
                "devices": {"eth0": {"type": "nic", "network": "br1"}},
            },
        ),
        ("UpdateProfile", {"name": "new:default", "description": "Ours"}),
    ]
    assert last == ("CreateInstance", {"name": "new:new1", "image": "busybox", "profiles": ["default", "web"]})


NAMING = """
acls:
- {name: web, ingress: [{action: allow, source: db}, {action: drop, source: web}]}
- {name: db, ingress: [{action: allow, source: "10.0.0.1"}], egress: [{action: allow, destination: web}]}
- {name: own, ingress: [{action: allow, source: "own,@internal"}]}
"""


def test_acls_that_name_each_other_are_there_first(daemon: FakeDaemon, syscont: Command) -> None:
    done = apply(syscont, NAMING, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    found = asked(daemon)
    assert sorted(found[:3], key=str) == [
        ("CreateAcl", {"name": "db", "ingress": [
            {"action": "allow", "state": "enabled", "source": "10.0.0.1"}]}),
        ("CreateAcl", {"name": "own", "ingress": [
            {"action": "allow", "state": "enabled", "source": "own,@internal"}]}),
        ("CreateAcl", {"name": "web"}),
    ]  # fmt: skip
    assert sorted(said["name"] for _, said in found[3:]) == ["db", "web"]
    assert {method for method, _ in found[3:]} == {"UpdateAcl"}


def test_features_of_a_project_stay_unless_said(daemon: FakeDaemon, syscont: Command) -> None:
    done = apply(syscont, "projects: [{name: lab, config: {limits.instances: 5}}]", "--yes")
    assert (asked(daemon), "unchanged  project lab\n" in done.stdout) == ([], True)
    apply(syscont, "projects: [{name: lab, config: {limits.instances: 6}}]", "--yes")
    config = {"features.profiles": "true", "limits.instances": "6"}
    assert asked(daemon) == [("UpdateProject", {"name": "lab", "config": config})]


def test_a_profile_may_want_its_running_instances_restarted(daemon: FakeDaemon, syscont: Command) -> None:
    text = "profiles: [{name: web, config: {boot.host_shutdown_timeout: 9}}]\n" + WAITS
    done = apply(syscont, text, "--yes", "--restart")
    assert done.stdout.endswith("0 to create, 2 to change, 0 unchanged; 1 instance needs a restart\n")
    assert [method for method, _ in asked(daemon)] == ["UpdateProfile", "UpdateInstance", "RestartInstance"]
    assert asked(daemon)[-1] == ("RestartInstance", {"name": "web1"})


def test_a_dry_run_changes_nothing(daemon: FakeDaemon, syscont: Command) -> None:
    done = apply(syscont, NEW, "--dry-run", "--exit-code", "--format", "json")
    (step,) = json.loads(done.stdout)
    assert (done.returncode, asked(daemon)) == (10, [])
    assert (step["kind"], step["name"], step["action"]) == ("instance", "lab:new1", "create")
    assert {"key": "user.secret", "needsRestart": False} in step["changes"]
    assert {"key": "limits.processes", "needsRestart": False, "old": None, "new": "50"} in step["changes"]


def test_nobody_is_asked_where_nobody_is(daemon: FakeDaemon, syscont: Command) -> None:
    done = apply(syscont, NEW)
    assert (done.returncode, asked(daemon)) == (2, [])
    assert "--yes" in done.stderr
    assert apply(syscont, "").stdout == "0 to create, 0 to change, 0 unchanged\n"


def test_what_fails_is_named_and_the_rest_is_done(serve: Serve, syscont: Command) -> None:
    def create(call: Call) -> None:
        if call.parameters["name"] == "a":
            call.error("NotFound", "no image 'x'")
        else:
            call.reply({"operation": {"status": "done"}})

    daemon = serve({**HANDLERS, "CreateInstance": create})
    items = ", ".join(f"{{name: {name}, image: x}}" for name in "abc")
    done = apply(syscont, f"instances: [{items}]", "--yes")
    assert (done.returncode, done.stderr) == (3, "syscont: instance a: no image 'x'\n")
    assert len(asked(daemon)) == 3


REFUSED = [
    ("instances: {}", "standard input:1: instances: not a list"),
    ("instnaces: []", "standard input:1: instnaces: unknown field (did you mean 'instances'?)"),
    ("instances: [{image: x}]", "standard input:1: instances[0]: has no name"),
    ("instances: [{name: ../x}]", "standard input:1: instances[../x].name: invalid instance name"),
    ("instances: [{name: a, project: ../b}]", "instances[a].project: invalid project name"),
    ("instances: [{name: a, confg: {}}]", "instances[a].confg: unknown field (did you mean 'config'?)"),
    ("instances: [{name: a, config: {no.such: 1}}]", "instances[a].config.no.such: unknown configuration key"),
    ("instances: [{name: a, config: {limits.memory: x}}]", "instances[a].config.limits.memory: not a size: 'x'"),
    ('instances: [{name: a, config: {limits.memory: "1GiB\\n"}}]', "limits.memory: value has a line break"),
    ("instances: [{name: a, config: {volatile.x: 1}}]", "config.volatile.x: volatile.x is kept by syscontd"),
    ("instances: [{name: a, devices: {d: {type: x}}}]", "instances[a].devices.d: unknown type 'x'"),
    ("instances: [{name: a, devices: {d: {type: nic, hwaddr: x}}}]", "devices.d: hwaddr: not a hardware address"),
    ("instances: [{name: a, ephemeral: maybe}]", "instances[a].ephemeral: not a boolean: 'maybe' (true or false)"),
    ("instances: [{name: a, state: frozen}]", "instances[a].state: not acceptable: 'frozen'"),
    ("instances: [{name: a, profiles: default}]", "instances[a].profiles: not a list"),
    ('instances: [{name: a, description: "a\\nb"}]', "instances[a].description: description: has a line break"),
    ("instances: [{name: a}, {name: a}]", "instances[a]: instance a is there twice"),
    ("projects: [{name: a, devices: {}}]", "projects[a].devices: unknown field"),
    ("projects: [{name: a, config: {limits.memory.swap: 1}}]", "limits.memory.swap: unknown project key"),
    ("profiles: [{name: a/b}]", "profiles[a/b].name: invalid profile name"),
    ("profiles: [{name: a, state: running}]", "profiles[a].state: unknown field"),
    ("config: []", "standard input:1: config: not a map"),
    ("config: {limits.memory: 1GiB}", "config.limits.memory: unknown server key"),
    ('config: {cluster.x: "1"}', "config.cluster.x: cluster.x can't be set: there are no clusters"),
    ("instances: [{name: a}]", "instances[a]: there is no instance a, and no image to make it from"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_is_refused(daemon: FakeDaemon, syscont: Command, text: str, message: str) -> None:
    done = apply(syscont, text, "--yes")
    assert (done.returncode, done.stdout, asked(daemon)) == (2, "", [])
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


# edit


def editor(tmp_path: Path, script: str) -> str:
    """A program that changes the file it gets: a shell script, to which that is $1, and $runs how often it ran."""
    path = tmp_path / "editor"
    path.write_text(f'#!/bin/bash\necho >>{tmp_path}/runs; runs=$(wc -l <{tmp_path}/runs)\n{script}\n')
    path.chmod(0o755)
    return str(path)


def edit(syscont: Command, tmp_path: Path, script: str) -> tuple[int, str]:
    """Run edit on a terminal with such an editor; its status and what it said on standard error."""
    controlling, terminal = pty.openpty()
    environment = {**syscont.environment, "EDITOR": editor(tmp_path, script), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        syscont.argv("edit", "web1"), env=environment, stdin=terminal, capture_output=True, text=True, timeout=20,
        check=False,
    )  # fmt: skip
    os.close(terminal)
    os.close(controlling)
    return done.returncode, done.stdout + done.stderr


def test_edit(daemon: FakeDaemon, syscont: Command, tmp_path: Path) -> None:
    script = f'stat -c %a "$1" >{tmp_path}/mode; cp "$1" {tmp_path}/seen; sed -i "s/1GiB/2GiB/; /secret/d" "$1"'
    assert edit(syscont, tmp_path, script) == (0, "limits.memory: 1GiB -> 2GiB\nuser.secret: is removed\n")
    assert asked(daemon) == [("UpdateInstance", {"name": "web1", "config": {"limits.memory": "2GiB"}})]
    seen = (tmp_path / "seen").read_text()
    assert "volatile" not in seen
    assert "user.secret: hush\n" in seen
    assert (tmp_path / "mode").read_text() == "600\n"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_after_a_mistake_the_editor_opens_again(daemon: FakeDaemon, syscont: Command, tmp_path: Path) -> None:
    script = f"""case $runs in
        1) sed -i s/1GiB/much/ "$1";;
        2) cp "$1" {tmp_path}/seen; sed -i s/much/3GiB/ "$1";;
    esac"""
    assert edit(syscont, tmp_path, script)[0] == 0
    assert asked(daemon) == [("UpdateInstance", {"name": "web1", "config": {**_own(), "limits.memory": "3GiB"}})]
    assert "limits.memory: not a size: 'much'" in (tmp_path / "seen").read_text().splitlines()[0]


def _own() -> dict[str, str]:
    return {key: value for key, value in CONFIG.items() if not key.startswith("volatile.")}


@pytest.mark.parametrize(
    ("script", "said", "kept"),
    [
        ("true", "nothing was changed", 0),
        ("exit 3", "ended with 3, nothing was changed", 0),
        ('sed -i s/1GiB/much/ "$1"', "what you wrote is in ", 1),
        ('sed -i s/1GiB/much/ "$1"; [ $runs = 1 ]', "what you wrote is in ", 1),
        ('sed -i s/1GiB/much/ "$1"; exit 1', "ended with 1, nothing was changed", 0),
    ],
)
def test_edits_that_come_to_nothing(
    daemon: FakeDaemon, syscont: Command, tmp_path: Path, script: str, said: str, kept: int
) -> None:
    status, shown = edit(syscont, tmp_path, script)
    assert (status, asked(daemon)) == (1, [])
    assert said in shown
    left = list((tmp_path / "tmp").iterdir())
    assert len(left) == kept
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in left)


def test_edit_from_standard_input(daemon: FakeDaemon, syscont: Command) -> None:
    done = syscont("config", "edit", "web1", stdin="description: Ours\n")
    assert (done.returncode, done.stdout) == (0, 'description: "" -> Ours\n')
    assert asked(daemon) == [("UpdateInstance", {"name": "web1", "description": "Ours"})]
    for text, status in (("", 2), ("state: stopped\n", 2), ("image: x\n", 2)):
        assert syscont("edit", "web1", stdin=text).returncode == status
    assert syscont("edit", "nobody", stdin="").returncode == 3
    assert len(asked(daemon)) == 1


def test_the_configuration_of_the_host(daemon: FakeDaemon, syscont: Command) -> None:
    text = "config: {core.proxy_http: http://new, user.secret: other}\n"
    done = apply(syscont, text, "--yes")
    lines = ["change     server config", "core.proxy_http: http://old -> http://new", "user.secret: changes"]
    assert [line.strip() for line in done.stdout.splitlines()[:3]] == lines
    assert syscont("edit", stdin=text).returncode == 0
    wanted = {"config": {"core.proxy_http": "http://new", "user.secret": "other"}}
    assert asked(daemon) == [("UpdateServerConfig", wanted)] * 2
    same = apply(syscont, "config: {core.proxy_http: http://old, user.secret: hush}\n", "--yes")
    assert same.stdout.startswith("unchanged  server config\n")


def test_the_manuals_example_is_read(daemon: FakeDaemon, syscont: Command) -> None:
    path = Path(__file__).resolve().parents[2] / "docs/examples/lab.yaml"
    done = syscont("apply", str(path), "--dry-run", "--format", "json")
    steps = {step["name"]: step["action"] for step in json.loads(done.stdout)}
    made = dict.fromkeys(("lab:web", "lab:web1", "lab:db1"), "create")
    assert steps == {"config": "change", "lab": "change", **made}


def test_networks_come_before_those_that_are_in_them(daemon: FakeDaemon, syscont: Command) -> None:
    text = """
instances: [{name: new1, image: x, devices: {eth1: {type: nic, network: lab0}}}]
profiles: [{name: new, devices: {eth0: {type: nic, network: lab0}}}]
networks: [{name: lab0, config: {ipv4.address: 10.7.0.1/24}}, {name: lan, type: macvlan, config: {parent: eno1}}]
"""
    assert apply(syscont, text, "--yes").returncode == 0
    methods = [method for method, _ in asked(daemon)]
    assert methods == ["CreateNetwork", "CreateNetwork", "CreateProfile", "CreateInstance"]
    assert ("CreateNetwork", {"name": "lan", "type": "macvlan", "config": {"parent": "eno1"}}) in asked(daemon)


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        ("{}", None),
        ("{ipv4.address: auto}", None),
        ("{ipv4.address: 10.1.2.1/24, ipv4.nat: true}", None),
        ("{ipv4.nat: false}", {"ipv4.address": "10.1.2.1/24", "ipv4.nat": "false"}),
        ("{ipv4.address: 10.9.9.1/24}", {"ipv4.address": "10.9.9.1/24"}),
        ("{dns.domain: lab}", {"ipv4.address": "10.1.2.1/24", "ipv4.nat": "true", "dns.domain": "lab"}),
    ],
)
def test_addresses_that_were_made_up_stay(
    daemon: FakeDaemon, syscont: Command, config: str, changed: dict[str, str] | None
) -> None:
    assert apply(syscont, f"networks: [{{name: br0, config: {config}}}]", "--yes").returncode == 0
    assert asked(daemon) == ([("UpdateNetwork", {"name": "br0", "config": changed})] if changed else [])


def test_mistakes_in_networks(daemon: FakeDaemon, syscont: Command) -> None:
    for text, said in (
        ("networks: [{name: all}]", "can't be named"),
        ("networks: [{name: b, type: token-ring}]", "unknown type"),
        ("networks: [{name: b, config: {ipv4.address: 1.2.3.4}}]", "with prefix length"),
        ("networks: [{name: b, config: {raw.dnsmasq: conf-file=/etc/shadow}}]", "can't be set here"),
    ):
        done = apply(syscont, text, "--yes")
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert asked(daemon) == []


def test_edit_a_network(daemon: FakeDaemon, syscont: Command) -> None:
    done = syscont("network", "edit", "br0", stdin="config: {ipv4.address: 10.3.0.1/24}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert asked(daemon) == [("UpdateNetwork", {"name": "br0", "config": {"ipv4.address": "10.3.0.1/24"}})]
