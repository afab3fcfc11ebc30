# SPDX-License-Identifier: Apache-2.0
"""Each verb: what it asks of the daemon, and what it prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Command, Serve
from tests.cli.fake_daemon import Call, Handler

FINGERPRINT = "ab" * 32


def instance(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "project": "default",
        "type": "container",
        "state": "running",
        "unit": f"syscont@{name}.service",
        "leader": 42,
        "image": FINGERPRINT,
        "imageAlias": "busybox",
        "config": {},
        "expandedConfig": changes.get("config", {}),
        "devices": {},
        "profiles": ["default"],
        "addresses": ["10.1.2.3", "fd42::3"],
        "uuid": "6e1e2c5e-5a1c-4b5d-8b6f-000000000000",
        "idBase": 100000,
        "created": 1763890000000000,
        **changes,
    }


INSTANCES = [
    instance("web2", state="stopped", addresses=[], leader=0),
    instance("web1", config={"limits.memory": "1GiB", "user.note": "a,b\n\x1b[31m"}),
    instance("db1", state="frozen"),
    instance("web1", project="lab", state="failed"),
]
PROFILE = {
    "name": "default",
    "project": "default",
    "config": {},
    "devices": {"eth0": {"type": "nic"}},
    "usedBy": ["web1"],
}
IMAGES = [
    {
        "fingerprint": FINGERPRINT,
        "aliases": ["busybox", "tiny"],
        "architecture": "amd64",
        "init": "busybox",
        "description": "evil \x1b[31m",
        "properties": {"os": "busybox"},
        "size": 1 << 20,
        "created": 0,
        "imported": 1763890000000000,
    }
]


def operation(**result: str) -> dict[str, Any]:
    return {"operation": {"id": "1", "kind": "k", "target": "t", "status": "done", "result": result}}


def fine(call: Call) -> None:
    call.reply(operation(fingerprint=FINGERPRINT))


HANDLERS: dict[str, Handler] = {
    "ListInstances": lambda call: call.reply({"instances": INSTANCES}),
    "ListImages": lambda call: call.reply({"images": IMAGES}),
    "GetInstance": lambda call: call.reply({"instance": INSTANCES[1]}),
    "GetInstanceState": lambda call: call.reply({"state": {"cpuNSec": 1_500_000_000, "tasks": 3}}),
    "GetConfig": lambda call: call.reply({"config": INSTANCES[1]["config"]}),
    "GetImage": lambda call: call.reply({"image": IMAGES[0]}),
    "GetInfo": lambda call: call.reply(
        {
            "version": "9.9",
            "systemdVersion": "257",
            "kernel": "6.12",
            "instances": 3,
            "images": 1,
            "config": {"core.x": "y"},
        }
    ),
    "ListNetworks": lambda call: call.reply(
        {"networks": [{"name": "br0", "type": "bridge", "ipv4": "10.1.2.1/24", "ipv6": "", "usedBy": ["a", "b"]}]}
    ),
    "GetNetwork": lambda call: call.reply({"network": {"name": "br0", "config": {"ipv4.nat": "true"}}}),
    "ListAcls": lambda call: call.reply({"acls": [{"name": "web", "ingress": [{}, {}], "usedBy": ["br0"]}]}),
    "GetAcl": lambda call: call.reply(
        {"acl": {"name": "web", "config": {"user.a": "b"}, "ingress": [{"action": "allow"}]}}
    ),
    "ListZones": lambda call: call.reply(
        {"zones": [{"name": "lab.example", "project": "default", "serial": 7, "usedBy": ["br0"]}]}
    ),
    "GetZone": lambda call: call.reply({"zone": {"name": "lab.example", "serial": 7}}),
    "GetZoneConfig": lambda call: call.reply({"config": {"peers.a.key": "hush"}}),
    "ListZoneRecords": lambda call: call.reply(
        {"records": [{"name": "www", "entries": [{"type": "A", "value": "192.0.2.1", "ttl": 300}]}]}
    ),
    "GetNetworkState": lambda call: call.reply({"state": {"state": "up", "mtu": 1500}}),
    "ListLeases": lambda call: call.reply(
        {"leases": [{"hostname": "a", "hwaddr": "02:00:00:00:00:01", "address": "10.1.2.5", "type": "static"}]}
    ),
    "ListProfiles": lambda call: call.reply({"profiles": [PROFILE, PROFILE | {"project": "lab", "usedBy": []}]}),
    "GetProfile": lambda call: call.reply({"profile": PROFILE}),
    "GetProfileConfig": lambda call: call.reply({"config": {"user.a": "b"}}),
    "ListProjects": lambda call: call.reply(
        {"projects": [{"name": "default", "profiles": ["default"], "instances": ["a"]}, {"name": "lab"}]}
    ),
    "GetProject": lambda call: call.reply(
        {
            "project": {"name": "lab", "profiles": ["default"]},
            "usage": {
                "limits.memory": {"used": 1 << 29, "most": 1 << 30},
                "limits.instances": {"used": 2, "most": 5},
            },
        }
    ),
    "Exec": lambda call: call.reply({"exitStatus": 0}),
    "ListOperations": lambda call: call.reply(
        {"operations": [{"id": "7", "kind": "build", "target": "x", "status": "running", "done": 1, "total": 4}]}
    ),
    **dict.fromkeys(
        (
            "CreateInstance StartInstance StopInstance RestartInstance PauseInstance ResumeInstance DeleteInstance "
            "CreateSnapshot RestoreSnapshot "
            "RenameInstance TakeInstance ChangeConfig BuildImage ImportImage DeleteImage AddImageAlias "
            "RemoveImageAlias "
            "CancelOperation UpdateInstance CreateProfile CopyProfile RenameProfile DeleteProfile ChangeProfile "
            "CreateProject ChangeProject RenameProject DeleteProject ChangeDevices ChangeServerConfig "
            "AddDevice ChangeDevice ChangeProfiles AddProfileDevice ChangeProfileDevice "
            "CreateNetwork ChangeNetwork RenameNetwork DeleteNetwork CreateZone ChangeZone DeleteZone "
            "CreateAcl ChangeAcl RenameAcl DeleteAcl AddAclRule RemoveAclRule "
            "CreateForward ChangeForward DeleteForward AddForwardPort RemoveForwardPort "
            "CreateZoneRecord DeleteZoneRecord AddZoneEntry RemoveZoneEntry"
        ).split(),
        fine,
    ),
}

CALLS: list[tuple[str, list[tuple[str, dict[str, Any]]]]] = [
    ("launch busybox c1", [("CreateInstance", {"name": "c1", "image": "busybox", "start": True})]),
    (
        "launch busybox c1 --wait -c limits.memory=1GiB",
        [
            (
                "CreateInstance",
                {"name": "c1", "image": "busybox", "config": {"limits.memory": "1GiB"}, "start": True, "wait": True},
            )
        ],
    ),
    ("create busybox c1", [("CreateInstance", {"name": "c1", "image": "busybox"})]),
    ("start a", [("StartInstance", {"name": "a"})]),
    ("start a b a -w", [("StartInstance", {"name": name, "wait": True}) for name in "ab"]),
    ("stop a -f --timeout 3", [("StopInstance", {"name": "a", "timeout": 3, "force": True})]),
    ("stop --stateful a", [("StopInstance", {"name": "a", "stateful": True})]),
    ("start --stateless a", [("StartInstance", {"name": "a", "stateless": True})]),
    ("restart --stateless a", [("RestartInstance", {"name": "a", "stateless": True})]),
    ("snapshot restore a s", [("RestoreSnapshot", {"name": "a", "snapshot": "s"})]),
    ("snapshot restore --stateful a s", [("RestoreSnapshot", {"name": "a", "snapshot": "s", "stateful": True})]),
    ("snapshot create --stateful a s", [("CreateSnapshot", {"name": "a", "snapshot": "s", "stateful": True})]),
    ("stop --all", [("ListInstances", {}), *[("StopInstance", {"name": name}) for name in ("web1", "db1")]]),
    ("start --all", [("ListInstances", {}), ("StartInstance", {"name": "web2"})]),
    ("start --all --project lab", [("ListInstances", {}), ("StartInstance", {"name": "lab:web1"})]),
    ("--project lab start web1", [("StartInstance", {"name": "lab:web1"})]),
    ("start c default:a lab:b --project=x", [("StartInstance", {"name": name}) for name in ("x:c", "a", "lab:b")]),
    (
        "launch busybox c1 --project lab -p a -p b",
        [("CreateInstance", {"name": "lab:c1", "image": "busybox", "profiles": ["a", "b"], "start": True})],
    ),
    ("create busybox c1 --no-profiles", [("CreateInstance", {"name": "c1", "image": "busybox", "profiles": []})]),
    ("profile create p -c a=b", [("CreateProfile", {"name": "p", "config": {"a": "b"}})]),
    ("profile copy p q --project lab", [("CopyProfile", {"name": "lab:p", "newName": "lab:q"})]),
    ("profile copy p default:q --project lab", [("CopyProfile", {"name": "lab:p", "newName": "q"})]),
    ("profile rename p q --project lab", [("RenameProfile", {"name": "lab:p", "newName": "q"})]),
    ("profile delete p q", [("DeleteProfile", {"name": name}) for name in "pq"]),
    ("profile set p k=v", [("ChangeProfile", {"name": "p", "set": {"k": "v"}})]),
    ("profile unset p k", [("ChangeProfile", {"name": "p", "unset": ["k"]})]),
    ("profile assign c a,b d --project lab", [("UpdateInstance", {"name": "lab:c", "profiles": ["a", "b", "d"]})]),
    ("profile assign web1", [("UpdateInstance", {"name": "web1", "profiles": []})]),
    ("profile add web1 small", [("ChangeProfiles", {"name": "web1", "add": ["small"]})]),
    ("move web1 --take", [("TakeInstance", {"name": "web1"})]),
    ("move web1 --take --project lab", [("TakeInstance", {"name": "lab:web1"})]),
    ("profile remove web1 a b", [("ChangeProfiles", {"name": "web1", "remove": ["a", "b"]})]),
    (
        "profile device add p eth1 nic network=br0",
        [("AddProfileDevice", {"name": "p", "device": "eth1", "options": {"type": "nic", "network": "br0"}})],
    ),
    (
        "profile device set p eth0 name=lan0",
        [("ChangeProfileDevice", {"name": "p", "device": "eth0", "set": {"name": "lan0"}})],
    ),
    (
        "profile device unset p eth0 name",
        [("ChangeProfileDevice", {"name": "p", "device": "eth0", "unset": ["name"]})],
    ),
    ("profile device remove p eth0", [("ChangeProfile", {"name": "p", "removeDevices": ["eth0"]})]),
    ("project create lab -c restricted=true", [("CreateProject", {"name": "lab", "config": {"restricted": "true"}})]),
    ("project set lab restricted true", [("ChangeProject", {"name": "lab", "set": {"restricted": "true"}})]),
    ("project unset lab restricted", [("ChangeProject", {"name": "lab", "unset": ["restricted"]})]),
    ("project rename lab x", [("RenameProject", {"name": "lab", "newName": "x"})]),
    ("project delete lab", [("DeleteProject", {"name": "lab"})]),
    (
        "network create lab0 ipv4.nat=true -c dns.domain=lab --type bridge --description ours",
        [
            (
                "CreateNetwork",
                {
                    "name": "lab0",
                    "type": "bridge",
                    "config": {"dns.domain": "lab", "ipv4.nat": "true"},
                    "description": "ours",
                },
            )
        ],
    ),
    ("network create lab0", [("CreateNetwork", {"name": "lab0"})]),
    (
        "network zone create a.b peers.x.address=192.0.2.1 --project lab",
        [("CreateZone", {"name": "a.b", "project": "lab", "config": {"peers.x.address": "192.0.2.1"}})],
    ),
    ("network acl create web user.a=b", [("CreateAcl", {"name": "web", "config": {"user.a": "b"}})]),
    ("network acl rename web www", [("RenameAcl", {"name": "web", "newName": "www"})]),
    ("network acl delete web www web", [("DeleteAcl", {"name": name}) for name in ("web", "www")]),
    ("network acl set web user.a=c", [("ChangeAcl", {"name": "web", "set": {"user.a": "c"}})]),
    ("network acl unset web user.a", [("ChangeAcl", {"name": "web", "unset": ["user.a"]})]),
    (
        "network acl rule add web ingress action=allow protocol=tcp",
        [("AddAclRule", {"name": "web", "direction": "ingress", "rule": {"action": "allow", "protocol": "tcp"}})],
    ),
    (
        "network acl rule remove web egress protocol=tcp --force",
        [("RemoveAclRule", {"name": "web", "direction": "egress", "rule": {"protocol": "tcp"}, "force": True})],
    ),
    ("network zone set a.b network.nat=true", [("ChangeZone", {"name": "a.b", "set": {"network.nat": "true"}})]),
    ("network zone unset a.b network.nat", [("ChangeZone", {"name": "a.b", "unset": ["network.nat"]})]),
    ("network zone delete a.b c", [("DeleteZone", {"name": name}) for name in ("a.b", "c")]),
    ("network zone record create a.b www", [("CreateZoneRecord", {"zone": "a.b", "name": "www"})]),
    ("network zone record delete a.b x y", [("DeleteZoneRecord", {"zone": "a.b", "name": name}) for name in "xy"]),
    (
        "network zone record entry add a.b www A 192.0.2.1 --ttl 60",
        [("AddZoneEntry", {"zone": "a.b", "name": "www", "type": "A", "value": "192.0.2.1", "ttl": 60})],
    ),
    (
        "network zone record entry remove a.b www A 192.0.2.1",
        [("RemoveZoneEntry", {"zone": "a.b", "name": "www", "type": "A", "value": "192.0.2.1"})],
    ),
    ("network set br0 ipv4.nat true --project lab", [("ChangeNetwork", {"name": "br0", "set": {"ipv4.nat": "true"}})]),
    ("network unset br0 ipv4.nat", [("ChangeNetwork", {"name": "br0", "unset": ["ipv4.nat"]})]),
    ("network forward create br0 192.0.2.1", [("CreateForward", {"network": "br0", "listenAddress": "192.0.2.1"})]),
    (
        "network forward set br0 192.0.2.1 target_address=",
        [("ChangeForward", {"network": "br0", "listenAddress": "192.0.2.1", "targetAddress": ""})],
    ),
    (
        "network forward port add br0 192.0.2.1 tcp 80 10.0.0.5 8080",
        [
            (
                "AddForwardPort",
                {
                    "network": "br0",
                    "listenAddress": "192.0.2.1",
                    "protocol": "tcp",
                    "listenPorts": "80",
                    "targetAddress": "10.0.0.5",
                    "targetPorts": "8080",
                },
            )
        ],
    ),
    ("network rename br0 br1", [("RenameNetwork", {"name": "br0", "newName": "br1"})]),
    ("network delete br0 br1", [("DeleteNetwork", {"name": name}) for name in ("br0", "br1")]),
    (
        "network attach br0 web1 --project lab",
        [
            ("GetNetwork", {"name": "br0"}),
            ("GetInstance", {"name": "lab:web1"}),
            ("ChangeDevices", {"name": "lab:web1", "set": {"br0": {"type": "nic", "network": "br0"}}}),
        ],
    ),
    (
        "network attach br0 web1 eth1 lan0",
        [
            ("GetNetwork", {"name": "br0"}),
            ("GetInstance", {"name": "web1"}),
            ("ChangeDevices", {"name": "web1", "set": {"eth1": {"type": "nic", "network": "br0", "name": "lan0"}}}),
        ],
    ),
    ("restart a --wait", [("RestartInstance", {"name": "a", "wait": True})]),
    ("pause --all", [("ListInstances", {}), ("PauseInstance", {"name": "web1"})]),
    ("resume --all", [("ListInstances", {}), ("ResumeInstance", {"name": "db1"})]),
    ("delete -f a b", [("DeleteInstance", {"name": name, "force": True}) for name in "ab"]),
    ("rename a b", [("RenameInstance", {"name": "a", "newName": "b"})]),
    ("config set a k=v l=1=2", [("ChangeConfig", {"name": "a", "set": {"k": "v", "l": "1=2"}})]),
    ("config set a k v", [("ChangeConfig", {"name": "a", "set": {"k": "v"}})]),
    ("config set core.x=a.b=c user.y=1", [("ChangeServerConfig", {"set": {"core.x": "a.b=c", "user.y": "1"}})]),
    ("config set core.x [::]:8443", [("ChangeServerConfig", {"set": {"core.x": "[::]:8443"}})]),
    ("config set core.x y --project lab", [("ChangeServerConfig", {"set": {"core.x": "y"}})]),
    ("config unset core.x core.y", [("ChangeServerConfig", {"unset": ["core.x", "core.y"]})]),
    ("config set a core.x=y --project lab", [("ChangeConfig", {"name": "lab:a", "set": {"core.x": "y"}})]),
    ("config set la.b:a k=v", [("ChangeConfig", {"name": "la.b:a", "set": {"k": "v"}})]),
    ("config unset a k l", [("ChangeConfig", {"name": "a", "unset": ["k", "l"]})]),
    (
        "launch busybox c1 -d data,type=disk,path=/x,y -n net1",
        [
            (
                "CreateInstance",
                {
                    "name": "c1",
                    "image": "busybox",
                    "devices": {
                        "eth0": {"type": "nic", "network": "net1", "name": "eth0"},
                        "data": {"type": "disk", "path": "/x,y"},
                    },
                    "start": True,
                },
            )
        ],
    ),
    (
        "device add a data disk path=/x source=/y",
        [("AddDevice", {"name": "a", "device": "data", "options": {"type": "disk", "path": "/x", "source": "/y"}})],
    ),
    ("device override a eth0 mtu=9", [("AddDevice", {"name": "a", "device": "eth0", "options": {"mtu": "9"}})]),
    ("device set a eth0 mtu=9", [("ChangeDevice", {"name": "a", "device": "eth0", "set": {"mtu": "9"}})]),
    ("device unset a eth0 mtu", [("ChangeDevice", {"name": "a", "device": "eth0", "unset": ["mtu"]})]),
    ("device remove a data more", [("ChangeDevices", {"name": "a", "unset": ["data", "more"]})]),
    ("image build busybox", [("BuildImage", {"source": "busybox"})]),
    ("image build busybox --alias a --alias b", [("BuildImage", {"source": "busybox", "aliases": ["a", "b"]})]),
    ("image build debian/trixie --vm", [("BuildImage", {"source": "debian/trixie", "vm": True})]),
    ("image delete a", [("DeleteImage", {"name": "a"})]),
    ("image alias add a i", [("AddImageAlias", {"alias": "a", "image": "i"})]),
    ("image alias remove a b", [("RemoveImageAlias", {"alias": name}) for name in "ab"]),
    ("operation cancel 7", [("CancelOperation", {"id": "7"})]),
]


@pytest.mark.parametrize(("line", "calls"), CALLS)
def test_what_is_asked_of_the_daemon(
    serve: Serve, syscont: Command, line: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    daemon = serve(HANDLERS)
    done = syscont(*line.split())
    assert (done.returncode, done.stderr) == (0, "")
    made = [(call.method, call.parameters) for call in daemon.calls]
    assert sorted(made, key=str) == sorted(calls, key=str)
    assert not any(call.more for call in daemon.calls)


PRINTED = [
    ("launch busybox c1", "c1\n"),
    ("image build busybox", f"{FINGERPRINT}\n"),
    ("start web1", ""),
    ("config get web1 limits.memory", "1GiB\n"),
    ("config get web1 limits.processes", ""),
    ("list --format csv -c n", "db1\nweb1\nweb2\n"),
    ("list --format csv -c n --project lab", "web1\n"),
    ("list --format csv -c en --all-projects", "default,db1\ndefault,web1\ndefault,web2\nlab,web1\n"),
    ("profile list --format csv", "default,,1\n"),
    ("profile list --format csv --all-projects", "default,default,,1\nlab,default,,0\n"),
    ("profile list --format csv --project lab", "default,,0\n"),
    ("profile get default user.a", "b\n"),
    ("profile device list default --format csv", "eth0,nic,\n"),
    ("project list --format csv", "default,,1,1\nlab,,default's,0\n"),
    ("project info lab --format csv", "limits.instances,5,2\nlimits.memory,1.00GiB,512.00MiB\n"),
    ("project current", "default\n"),
    ("project current --project lab", "lab\n"),
    ("list -c ns web state=stopped", "NAME  STATE\nweb2  stopped\n"),
    ("list -c n 'w*2'", "NAME\nweb2\n"),
    ("list -c n w?b2", "NAME\nweb2\n"),
    ("list -c n limits.memory=1GiB", "NAME\nweb1\n"),
    ("list -c n nothing", "NAME\n"),
    ("list -c np db --no-legend", "db1  42\n"),
    ("list -c n,limits.memory web1 state=running", "NAME  LIMITS.MEMORY\nweb1  1GiB\n"),
    ("list --format csv -c n,user.note web1 state=running", 'web1,"a,b ?[31m"\n'),
    ("list --format csv -c n46 web", "web1,10.1.2.3,fd42::3\nweb2,,\n"),
    ("list db", "NAME  STATE   IPV4      IPV6     TYPE       IMAGE\n"
     "db1   frozen  10.1.2.3  fd42::3  container  busybox\n"),
    ("image list -c lfasd", "ALIAS    FINGERPRINT   ARCH   SIZE     DESCRIPTION\n"
     "busybox  abababababab  amd64  1.00MiB  evil ?[31m\n"),
    ("image list --format csv -c L", "busybox tiny\n"),
    ("image list abab --format csv -c l", "busybox\n"),
    ("image alias list --format csv", "busybox,abababababab,evil ?[31m\ntiny,abababababab,evil ?[31m\n"),
    (
        "network list",
        "NAME  TYPE    IPV4         IPV6  DESCRIPTION  USED BY\nbr0   bridge  10.1.2.1/24  -     -            2\n",
    ),
    ("network get br0 ipv4.nat", "true\n"),
    ("network acl list --format csv", "web,,2,0,1\n"),
    ("network acl show web", 'name: "web"\nconfig:\n  "user.a": "b"\ningress:\n- action: "allow"\n'),
    ("network acl get web user.a", "b\n"),
    ("network zone list --format csv", "lab.example,default,,7,1\n"),
    ("network zone show lab.example", 'name: "lab.example"\nserial: 7\n'),
    ("network zone get lab.example peers.a.key", "hush\n"),
    ("network zone record list lab.example --format csv", "www,,A 192.0.2.1 300\n"),
    ("network info br0", 'name: "br0"\nstate: "up"\nmtu: 1500\n'),
    ("network list-leases br0 --format csv", "a,02:00:00:00:00:01,10.1.2.5,static\n"),
    ("operation list --format csv", "7,build,x,running,,25%,\n"),
    ("version --client", "syscont 0.1.0\n"),
    ("version", "syscont 0.1.0\nsyscontd 9.9\n"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "printed"), PRINTED)
def test_what_is_printed(serve: Serve, syscont: Command, line: str, printed: str) -> None:
    serve(HANDLERS)
    done = syscont(*[word.strip("'") for word in line.split()])
    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)


@pytest.mark.parametrize("verb", ["list web1 state=running", "info web1", "image show busybox", "config show web1"])
def test_json_and_yaml_say_the_same(serve: Serve, syscont: Command, verb: str) -> None:
    serve(HANDLERS)
    as_json, as_yaml = (syscont(*verb.split(), "--format", form).stdout for form in ("json", "yaml"))
    assert json.loads(as_json) == yaml.safe_load(as_yaml)
    assert "\x1b" not in as_json + as_yaml


def test_list_as_json_is_what_the_daemon_said(serve: Serve, syscont: Command) -> None:
    serve(HANDLERS)
    assert json.loads(syscont("list", "--format", "json", "db").stdout) == [INSTANCES[2]]


def test_info(serve: Serve, syscont: Command) -> None:
    serve(HANDLERS)
    shown = syscont("info", "web1").stdout
    assert "Unit: syscont@web1.service\n" in shown
    assert "Lost" not in shown
    assert "user.note=a,b...\n" in shown
    assert "CPU time: 1.500s\n" in shown
    assert "Tasks: 3\n" in shown
    assert "Kernel: 6.12\n" in syscont("info").stdout
    assert "Config: core.x=y\n" in syscont("info").stdout


def test_info_says_what_a_guest_is_without(serve: Serve, syscont: Command) -> None:
    shown = instance("vm1", state="degraded", lostDevices=["chip", "work"])
    serve(HANDLERS | {"GetInstance": lambda call: call.reply({"instance": shown})})
    said = syscont("info", "vm1").stdout
    assert "State: degraded\n" in said
    assert "Lost: chip, work (" in said


def test_all_are_those_that_a_verb_is_for(serve: Serve, syscont: Command) -> None:
    states = ("starting", "running", "degraded", "frozen", "unresponsive", "stopping", "stopped", "failed")
    found = [instance(state, state=state) for state in states]
    daemon = serve(HANDLERS | {"ListInstances": lambda call: call.reply({"instances": found})})
    for verb, wanted in (("start", states[6:]), ("stop", states[:5]), ("pause", states[1:3]), ("restart", states[1:3])):
        daemon.calls.clear()
        assert syscont(verb, "--all").returncode == 0
        named = [call.parameters["name"] for call in daemon.calls if call.method != "ListInstances"]
        assert sorted(named) == sorted(wanted), verb


def test_a_name_of_our_own_is_tried_again_when_taken(serve: Serve, syscont: Command) -> None:
    taken: list[str] = []

    def create(call: Call) -> None:
        taken.append(call.parameters["name"])
        if len(taken) < 3:
            call.error("AlreadyExists", "taken")
        else:
            fine(call)

    serve({"CreateInstance": create})
    done = syscont("launch", "busybox")
    assert done.stdout == f"{taken[2]}\n"
    assert re.fullmatch("[a-z]+-[a-z]+", taken[2])


def test_a_name_of_the_users_is_not_tried_again(serve: Serve, syscont: Command) -> None:
    daemon = serve({"CreateInstance": lambda call: call.error("AlreadyExists", "taken")})
    done = syscont("launch", "busybox", "c1")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "syscont: taken\n")
    assert len(daemon.calls) == 1


def test_of_many_each_failure_is_said(serve: Serve, syscont: Command) -> None:
    def start(call: Call) -> None:
        name = call.parameters["name"]
        fine(call) if name == "b" else call.error("NotFound", f"no instance '{name}'")

    daemon = serve({"StartInstance": start})
    done = syscont("start", "a", "b", "c")
    assert done.returncode == 3
    assert done.stderr == "syscont: no instance 'a'\nsyscont: no instance 'c'\n"
    assert len(daemon.calls) == 3


def test_an_operation_that_failed_is_a_failure(serve: Serve, syscont: Command) -> None:
    failed = {"operation": {"id": "1", "status": "failed", "message": "disk full"}}
    serve({"StartInstance": lambda call: call.reply(failed)})
    done = syscont("start", "a")
    assert (done.returncode, done.stderr) == (1, "syscont: disk full\n")


def test_image_files_are_handed_over_open(serve: Serve, syscont: Command, tmp_path: Path) -> None:
    read: list[Any] = []

    def take(call: Call) -> None:
        read.append(call.parameters)
        for fd in call.fds:
            read.append(os.read(fd, 100))
        fine(call)

    serve({"ImportImage": take})
    for name in ("meta", "root"):
        (tmp_path / name).write_text(name)
    done = syscont("image", "import", str(tmp_path / "meta"), str(tmp_path / "root"), "--alias", "a")
    assert done.stdout == f"{FINGERPRINT}\n"
    assert syscont("image", "import", "-", stdin="streamed").stdout == f"{FINGERPRINT}\n"
    assert read == [
        {"metadataFd": 0, "rootfsFd": 1, "aliases": ["a"]},
        b"meta",
        b"root",
        {"imageFd": 0},
        b"streamed",
    ]
    read.clear()
    assert syscont("image", "import", "-", "--format", "raw", stdin="disk").returncode == 0
    assert syscont("image", "import", str(tmp_path / "meta"), str(tmp_path / "root"), "--vm").returncode == 0
    assert read == [
        {"imageFd": 0, "format": "raw"},
        b"disk",
        {"metadataFd": 0, "rootfsFd": 1, "vm": True},
        b"meta",
        b"root",
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("image import /nonexistent", "No such file"),
        ("image import /", "directory"),
        ("start", "--all"),
        ("start a --all", "exclude"),
        ("list -c Z", "unknown column 'Z'"),
        ("config set a k", "KEY=VALUE"),
        ("config get web1 no.such.key", "unknown configuration key"),
        ("logs a/b", "invalid instance name"),
        ("logs *", "invalid instance name"),
        ("help bogus", "unknown verb"),
        ("completion tcsh", "no completion"),
    ],
)
def test_what_is_refused(serve: Serve, syscont: Command, line: str, text: str) -> None:
    serve(HANDLERS)
    done = syscont(*line.split())
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_monitor(serve: Serve, syscont: Command) -> None:
    def monitor(call: Call) -> None:
        assert call.more
        call.reply({"event": "InstanceStarted", "project": "default", "name": "c1"}, continues=True)
        call.reply({"event": "InstanceStarted", "project": "lab", "name": "c\x1b2"})

    serve({"Monitor": monitor})
    lines = [line.split(" ", 1)[1] for line in syscont("monitor").stdout.splitlines()]
    assert lines == ["InstanceStarted c1", "InstanceStarted lab:c?2"]
    assert json.loads(syscont("monitor", "--format", "json").stdout.splitlines()[0])["name"] == "c1"


def test_logs_is_journalctl() -> None:
    from sysd.cli.logs import journal_command
    from sysd.cli.options import parse
    from sysd.cli.verbs import VERBS

    words = ["web1", "-f", "-n", "5", "--", "--since", "today"]
    assert journal_command(parse(VERBS["logs"], words))[1:] == [
        "--unit=syscont@web1.service", "--follow", "--lines=5", "--since", "today",
    ]  # fmt: skip
    assert "--unit=syscont@lab:web1.service" in journal_command(parse(VERBS["logs"], ["lab:web1"]))


def test_a_reader_that_leaves_is_no_error(serve: Serve, syscont: Command) -> None:
    import subprocess

    serve({**HANDLERS, "ListInstances": lambda call: call.reply({"instances": INSTANCES * 2000})})
    line = subprocess.list2cmdline(syscont.argv("list", "--format", "json"))
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -n 1; echo ${{PIPESTATUS[0]}}"],
        env=syscont.environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("[\n141\n", "")


def test_the_current_project(syscont: Command, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = serve(HANDLERS)

    def run(line: str, **environment: str) -> str:
        done = subprocess.run(
            syscont.argv(*line.split()),
            env=syscont.environment | {"HOME": str(tmp_path)} | environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return done.stdout

    assert run("project current") == "default\n"
    run("project switch lab")
    assert run("project current") == "lab\n"
    assert run("project current", SYSCONT_PROJECT="env") == "env\n"
    assert run("project current --project given", SYSCONT_PROJECT="env") == "given\n"
    run("start web1")
    assert daemon.calls[-1].parameters == {"name": "lab:web1"}
    run("project rename lab lab2")
    assert run("project current") == "lab2\n"
    run("project delete lab2")
    assert run("project current") == "default\n"
    assert (tmp_path / ".config/syscont").stat().st_mode & 0o022 == 0
