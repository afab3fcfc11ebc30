# SPDX-License-Identifier: Apache-2.0
"""Projects: namespaces of instances and profiles; limits and restrictions that hold on every way to an instance."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from guests import Done, Instance, python, syscont, until
from hosts import Host

STATE = ("list --all-projects", "profile list --all-projects", "project list")


class Lab:
    """A project of the test's own."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name

    def do(self, *argv: str, check: bool = True, **options: Any) -> Done:
        """`syscont --project LAB ...`"""
        return syscont(self.host, "--project", self.name, *argv, check=check, **options)

    def set(self, *values: str, check: bool = True) -> Done:
        return syscont(self.host, "project", "set", self.name, *values, check=check)

    def refused(self, *argv: str, saying: str) -> None:
        """The command fails, says why in one line, and nothing is changed by it."""
        before = self.state()
        done = self.do(*argv, check=False)
        assert done.returncode in (1, 2, 3, 4), f"{argv} was not refused"
        assert saying in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert self.state() == before

    def instance(self, name: str) -> Instance:
        return Instance(self.host, f"{self.name}:{name}")

    def instances(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.do("list", "--format", "json").stdout)
        return found

    def state(self) -> object:
        """All that is configured, of all projects."""
        script = "; ".join(f"syscont {words} --format json; echo ," for words in STATE)
        instances, *others = json.loads(f"[{self.host.sh(script)} 0]")
        configured = ("uuid", "project", "name", "config", "devices", "profiles")
        return [[one[part] for part in configured] for one in instances], others


@pytest.fixture
def make_lab(host: Host, busybox: str) -> Iterator[Callable[..., Lab]]:
    made: list[Lab] = []

    def make(name: str = "lab", *options: str) -> Lab:
        syscont(host, "project", "create", name, *options)
        made.append(Lab(host, name))
        return made[-1]

    yield make
    for lab in made:
        for one in lab.instances():
            lab.do("delete", "--force", one["name"])
        for profile in json.loads(lab.do("profile", "list", "--format", "json").stdout):
            if profile["name"] != "default" and profile["project"] == lab.name:
                lab.do("profile", "delete", profile["name"])
        syscont(host, "project", "delete", lab.name)


def test_a_namespace_of_its_own(host: Host, make_lab: Callable[..., Lab], guest: Instance) -> None:
    lab = make_lab()
    lab.do("launch", "busybox", guest.name)  # the default project has one of this name
    twin = lab.instance(guest.name)
    assert [one["name"] for one in lab.instances()] == [guest.name]
    assert twin.systemd("ActiveState") == "active"
    assert twin.sh("hostname") == f"{guest.name}\n"
    assert lab.do("exec", guest.name, "--", "hostname").stdout == f"{guest.name}\n"
    machines = host.run(["machinectl", "list", "--no-legend"]).stdout if _has_machined(host) else ""
    assert not machines or f"{guest.name}.lab" in machines
    assert guest.seen()["uuid"] != lab.instances()[0]["uuid"]
    host.run(["systemctl", "restart", "syscontd"])
    assert twin.sh("echo alive") == "alive\n"
    lab.do("stop", "--all", "--force")
    assert guest.state == "running"
    assert [one["state"] for one in lab.instances()] == ["stopped"]
    everywhere = syscont(host, "list", "--all-projects", "--format", "csv", "-c", "en").stdout.split()
    assert {f"default,{guest.name}", f"lab,{guest.name}"} <= set(everywhere)


def _has_machined(host: Host) -> bool:
    return host.run(["systemctl", "is-active", "systemd-machined"], check=False).stdout == "active\n"


def test_one_name_in_two_projects_on_one_network(host: Host, make_lab: Callable[..., Lab]) -> None:
    """DNS knows the default project's instance by it, or else the older one; the other gets the name when that goes."""
    lab, yard = make_lab(), make_lab("yard")
    lab.do("launch", "busybox", "twin")
    yard.do("launch", "busybox", "twin")
    first, second = lab.instances()[0]["uuid"], yard.instances()[0]["uuid"]

    def known_as_twin() -> str:
        """The UUID of the instance whose address the name has."""
        answer = host.run(["getent", "ahostsv4", "twin.syscont"], check=False).stdout
        address = answer.partition(" ")[0]
        found = json.loads(syscont(host, "list", "--all-projects", "--format", "json").stdout)
        return next((str(one["uuid"]) for one in found if address and address in one["addresses"]), "")

    def has_addresses(project: Lab) -> bool:
        return any("." in address for address in project.instances()[0]["addresses"])

    until(host, lambda: has_addresses(lab) and has_addresses(yard))
    until(host, lambda: known_as_twin() == first)
    lab.do("delete", "--force", "twin")
    until(host, lambda: known_as_twin() == second)


def test_profiles_of_its_own_and_of_the_default_project(host: Host, make_lab: Callable[..., Lab]) -> None:
    own, shared = make_lab("own"), make_lab("shared", "-c", "features.profiles=false")
    own.do("profile", "create", "web", "-c", "user.of=own")
    syscont(host, "profile", "create", "web", "-c", "user.of=default")
    try:
        for lab, of in ((own, "own"), (shared, "default")):
            lab.do("create", "busybox", "c1", "-p", "web")
            assert lab.instances()[0]["expandedConfig"]["user.of"] == of
        syscont(host, "profile", "set", "web", "user.of=changed")
        assert shared.instances()[0]["expandedConfig"]["user.of"] == "changed"
        assert own.instances()[0]["expandedConfig"]["user.of"] == "own"
        in_use = syscont(host, "profile", "delete", "web", check=False)
        assert "in use by shared:c1" in in_use.stderr
        shared.do("delete", "c1")
    finally:
        syscont(host, "profile", "delete", "web")


def test_rename_and_delete_only_when_empty(host: Host, make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.do("create", "busybox", "c1")
    for argv in (("project", "delete", "lab"), ("project", "rename", "lab", "lab2")):
        lab.refused(*argv, saying="is not empty")
    lab.refused("project", "set", "lab", "features.profiles=false", saying="is not empty")
    lab.do("delete", "c1")
    lab.do("profile", "create", "p")
    lab.refused("project", "delete", "lab", saying="profile p")
    lab.do("profile", "delete", "p")
    syscont(host, "project", "rename", "lab", "lab2")
    listed = syscont(host, "profile", "list", "--all-projects", "--format", "csv").stdout
    assert ("lab2,default" in listed, "lab,default" in listed) == (True, False)
    syscont(host, "project", "rename", "lab2", "lab")
    syscont(host, "project", "set", "lab", "features.profiles=false")
    syscont(host, "project", "set", "lab", "features.profiles=true")
    for words in (["delete", "default"], ["rename", "default", "x"]):
        done = syscont(host, "project", *words, check=False)
        assert "default project can't be" in done.stderr


BAD = [
    (("create", "a:b"), "invalid project name"),
    (("create", "../lab"), "invalid project name"),
    (("create", "a\nb"), "invalid project name"),
    (("create", "x" * 64), "invalid project name"),
    (("create", "lab"), "exists already"),
    (("create", "other", "-c", "limits.memory=-1"), "limits.memory"),
    (("set", "lab", "limits.instances=many"), "limits.instances"),
    (("set", "lab", "restricted=maybe"), "restricted"),
    (("set", "lab", "restricted.devices.nic=some"), "restricted.devices.nic"),
    (("set", "lab", "restricted.networks.access=a b"), "restricted.networks.access"),
    (("set", "lab", "no.such=1"), "no.such"),
    (("set", "lab", "features.images=true"), "features.images"),
    (("set", "lab", "limits.networks=1"), "limits.networks"),
    (("set", "lab", "user.a=1", "features.networks=true"), "features.networks"),
    (("set", "default", "features.profiles=false"), "default project"),
    (("set", "nowhere", "user.a=1"), "no project 'nowhere'"),
    (("switch", "nowhere"), "no project 'nowhere'"),
]


def test_bad_input_changes_nothing(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    for words, named in BAD:
        lab.refused("project", *words, saying=named)


def test_an_instance_in_no_project(host: Host, busybox: str) -> None:
    for project in ("nowhere", "../x", "a b", "a\nb"):
        done = syscont(host, "--project", project, "launch", busybox, "c1", check=False)
        assert done.returncode in (1, 2, 3)
        assert len(done.stderr.splitlines()) == 1
        done = syscont(host, "--project", project, "launch", busybox, "c1", "--no-profiles", check=False)
        assert done.returncode in (1, 2, 3)


# limits


def test_limits_are_for_all_together(host: Host, make_lab: Callable[..., Lab]) -> None:
    lab = make_lab("lab", "-c", "limits.memory=100MiB", "-c", "limits.instances=2")
    lab.refused("create", "busybox", "c1", saying="limits.memory has to be a size in bytes")
    lab.do("create", "busybox", "c1", "-c", "limits.memory=60MiB")
    lab.refused("create", "busybox", "c2", "-c", "limits.memory=60MiB", saying="its instances would have 120.00MiB")
    lab.do("profile", "create", "small", "-c", "limits.memory=40MiB")
    lab.do("create", "busybox", "c2", "-p", "default", "-p", "small")
    lab.refused("create", "busybox", "c3", "-p", "small", saying="limits.instances is 2")
    lab.refused("config", "set", "c1", "limits.memory=61MiB", saying="101.00MiB")
    lab.refused("config", "unset", "c1", "limits.memory", saying="has to be")
    lab.refused("profile", "set", "small", "limits.memory=41MiB", saying="101.00MiB")
    lab.refused("profile", "unset", "small", "limits.memory", saying="has to be")
    lab.refused("profile", "assign", "c2", "default", saying="has to be")
    lab.refused("project", "set", "lab", "limits.memory=99MiB", saying="limits.memory is 99.00MiB")
    lab.refused("project", "set", "lab", "limits.instances=1", saying="limits.instances is 1")
    lab.refused("project", "set", "lab", "limits.processes=10", saying="limits.processes has to be set")
    shown = lab.do("project", "info", "--format", "csv").stdout
    assert shown == "limits.instances,2,2\nlimits.memory,100.00MiB,100.00MiB\n"
    lab.do("delete", "c1")
    lab.do("create", "busybox", "c3", "-c", "limits.memory=60MiB", "--no-profiles")


# restrictions: each forbidden thing on each way on which it could come about

FORBIDDEN = {
    "security.privileged=true": "restricted.containers.privilege",
    "security.nesting=true": "restricted.containers.nesting",
    "security.syscalls.deny_default=false": "restricted.containers.lowlevel",
    "linux.kernel_modules=loop": "restricted.containers.lowlevel",
}


@pytest.mark.parametrize("key", FORBIDDEN)
def test_restricted_keys(host: Host, make_lab: Callable[..., Lab], key: str) -> None:
    lab, free = make_lab("lab", "-c", "restricted=true"), make_lab("free")
    free.do("profile", "create", "bad")
    free.do("profile", "set", "bad", key)
    why = FORBIDDEN[key]
    lab.do("profile", "copy", "free:bad", "bad")
    lab.do("profile", "create", "good")
    lab.do("create", "busybox", "c1", "-p", "good")
    lab.refused("create", "busybox", "c2", "-c", key, saying=why)
    lab.refused("create", "busybox", "c2", "-p", "bad", saying=why)
    lab.refused("config", "set", "c1", key, saying=why)
    lab.refused("profile", "set", "good", key, saying=why)
    lab.refused("profile", "add", "c1", "bad", saying=why)
    free.do("create", "busybox", "c3", "-c", key)
    lab.refused("rename", "free:c3", "lab:c3", saying=why)
    lab.refused("copy", "free:c3", "lab:c3", saying=why)
    free.refused("project", "set", "free", "restricted=true", saying=why)
    lab.do("config", "set", "c1", "limits.processes=100")  # what is allowed still goes
    name = why.removeprefix("restricted.")
    lab.set(f"restricted.{name}=allow")
    lab.do("config", "set", "c1", key)
    lab.refused("project", "unset", "lab", why, saying=why)
    lab.do("config", "unset", "c1", key.partition("=")[0])


def test_restricted_devices(host: Host, make_lab: Callable[..., Lab]) -> None:
    lab = make_lab("lab", "-c", "restricted=true")
    lab.do("create", "busybox", "c1")
    lab.do("profile", "device", "add", "default", "eth1", "nic", "network=syscontbr0")
    lab.set("restricted.networks.access=syscontbr0")
    lab.refused("project", "set", "lab", "restricted.networks.access=other", saying="restricted.networks.access")
    lab.refused("project", "set", "lab", "restricted.devices.nic=block", saying="restricted.devices.nic is block")
    disk = ("disk", "source=/etc", "path=/mnt")
    for kind, options in (("disk", disk), ("unix-char", ("unix-char", "path=/dev/null"))):
        why = f"restricted.devices.{kind} is"
        lab.refused("profile", "device", "add", "default", "x", *options, saying=why)
        lab.refused("device", "add", "c1", "x", *options, saying=why)
        lab.refused("create", "busybox", "c2", "-d", f"x,type={','.join(options)}", saying=why)


def test_snapshots_can_be_blocked(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab("lab", "-c", "restricted=true")
    lab.do("create", "busybox", "c1")
    lab.refused("snapshot", "create", "c1", "s1", saying="restricted.snapshots")
    lab.set("restricted.snapshots=allow")
    lab.do("snapshot", "create", "c1", "s1")
    lab.set("restricted.snapshots=block")
    lab.do("snapshot", "delete", "c1", "s1")


def test_a_snapshot_brings_nothing_forbidden_back(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.do("create", "busybox", "c1", "-c", "boot.host_shutdown_timeout=5", "-c", "limits.memory=60MiB")
    lab.do("snapshot", "create", "c1", "s1")
    lab.do("config", "unset", "c1", "boot.host_shutdown_timeout")
    lab.do("config", "set", "c1", "limits.memory=50MiB")
    lab.do("create", "busybox", "c2", "-c", "limits.memory=50MiB")
    lab.set("restricted=true", "restricted.snapshots=allow")
    lab.refused("snapshot", "restore", "c1", "s1", saying="restricted.containers.lowlevel")
    lab.refused("copy", "c1/s1", "c3", saying="restricted.containers.lowlevel")
    lab.set("restricted=false", "limits.memory=100MiB")
    lab.refused("snapshot", "restore", "c1", "s1", saying="110.00MiB")
    lab.do("delete", "c2")
    lab.do("snapshot", "restore", "c1", "s1")


# ways between projects


def test_an_instance_moves(host: Host, make_lab: Callable[..., Lab]) -> None:
    lab, yard = make_lab("lab", "-c", "limits.instances=1"), make_lab("yard")
    yard.do("launch", "busybox", "web1", "-c", "user.note=kept")
    here, there = yard.instance("web1"), lab.instance("web1")
    here.sh("echo data >/data")
    yard.do("snapshot", "create", "web1", "s")
    yard.refused("move", "yard:web1", "lab:web1", saying="is running")
    here.do("stop", "--force")
    lab.do("create", "busybox", "other")
    yard.refused("move", "yard:web1", "lab:web1", saying="limits.instances is 1")
    yard.refused("move", "yard:web1", "lab:other", saying="exists already")
    yard.refused("move", "yard:web1", "nowhere:web1", saying="no project 'nowhere'")
    lab.do("delete", "other")
    yard.do("profile", "create", "mine")
    yard.do("profile", "add", "web1", "mine")
    yard.refused("move", "yard:web1", "lab:web1", saying="mine")
    yard.do("profile", "remove", "web1", "mine")
    before = here.seen()
    syscont(host, "move", "yard:web1", "lab:web1")
    assert yard.instances() == []
    after = there.seen()
    assert [before[part] for part in ("uuid", "config")] == [after[part] for part in ("uuid", "config")]
    there.do("start")
    assert there.sh("cat /data; hostname") == "data\nweb1\n"
    assert there.systemd("ActiveState") == "active"
    assert (here.systemd("LoadState"), here.seen()) == ("not-found", {})
    syscont(host, "snapshot", "restore", "lab:web1", "s")
    assert there.sh("cat /data") == "data\n"
    there.do("stop", "--force")
    syscont(host, "move", "lab:web1", "--target-project", "yard")
    assert here.state == "stopped"


def test_a_full_project_takes_no_more_by_any_way(host: Host, make_lab: Callable[..., Lab]) -> None:
    lab, free = make_lab("lab", "-c", "limits.instances=2"), make_lab("free")
    free.do("create", "busybox", "c1")
    free.do("snapshot", "create", "c1", "s")
    host.sh("syscont export free:c1 /var/tmp/free.tar --compression none")
    # Some ask at once, and as many as there is room for are let in.
    asked = "for n in 1 2 3 4 5 6; do syscont copy free:c1 lab:c$n & done 2>/dev/null; wait"
    host.sh(asked)
    assert len(lab.instances()) == 2
    lab.refused("create", "busybox", "more", saying="limits.instances is 2")
    lab.refused("copy", "free:c1", "lab:more", saying="limits.instances is 2")
    lab.refused("copy", "free:c1/s", "lab:more", saying="limits.instances is 2")
    lab.refused("move", "free:c1", "lab:more", saying="limits.instances is 2")
    lab.refused("import", "/var/tmp/free.tar", "lab:more", saying="limits.instances is 2")
    host.sh("rm /var/tmp/free.tar")


def test_what_a_backup_says_is_held_to_the_project(host: Host, make_lab: Callable[..., Lab]) -> None:
    """The instance when it is imported, its snapshots when they are restored; whichever file of the backup says it."""
    lab, free = make_lab("lab", "-c", "restricted=true", "-c", "restricted.snapshots=allow"), make_lab("free")
    free.do("create", "busybox", "c1")
    free.do("snapshot", "create", "c1", "s")
    syscont(host, "export", "free:c1", "/var/tmp/good.tar", "--compression", "none")
    forbidden = {"security.privileged": "true"}
    why = "restricted.containers.privilege"

    def edit(**said: dict[str, str]) -> None:
        python(host, "edit_backup", "/var/tmp/good.tar", "/var/tmp/bad.tar", input=json.dumps(said))

    edit(index=forbidden)
    lab.refused("import", "/var/tmp/bad.tar", "lab:c1", saying=why)
    edit(backup=forbidden)
    lab.do("import", "/var/tmp/bad.tar")
    assert "security.privileged" not in lab.instances()[0]["config"]
    lab.do("delete", "c1")
    edit(snapshots=forbidden)
    lab.do("import", "/var/tmp/bad.tar", "lab:c1")
    lab.refused("snapshot", "restore", "c1", "s", saying=why)
    lab.refused("copy", "c1/s", "c2", saying=why)
    lab.do("delete", "c1")
    free.do("import", "/var/tmp/bad.tar", "free:c2")
    free.do("snapshot", "restore", "c2", "s")
    lab.refused("move", "free:c2", "lab:c2", saying=why)
    lab.refused("copy", "free:c2", "lab:c2", saying=why)
    host.sh("rm /var/tmp/good.tar /var/tmp/bad.tar")


def test_blocked_snapshots_come_by_no_way(host: Host, make_lab: Callable[..., Lab]) -> None:
    lab, free = make_lab("lab", "-c", "restricted=true"), make_lab("free")
    free.do("create", "busybox", "c1")
    free.do("snapshot", "create", "c1", "s")
    syscont(host, "export", "free:c1", "/var/tmp/free.tar", "--compression", "none")
    why = "restricted.snapshots is block"
    lab.refused("copy", "free:c1", "lab:c1", saying=why)
    lab.refused("move", "free:c1", "lab:c1", saying=why)
    lab.refused("import", "/var/tmp/free.tar", "lab:c1", saying=why)
    lab.do("copy", "free:c1", "lab:c1", "--instance-only")
    lab.do("copy", "free:c1/s", "c2")
    assert {one["name"] for one in lab.instances()} == {"c1", "c2"}
    lab.refused("export", "lab:c1", "/var/tmp/none", saying="restricted.backups is block")
    lab.do("publish", "lab:c1", "--alias", "of-lab")
    syscont(host, "image", "delete", "of-lab")
    free.do("snapshot", "delete", "c1", "s")
    lab.do("move", "free:c1", "lab:c3")
    host.sh("rm /var/tmp/free.tar")
