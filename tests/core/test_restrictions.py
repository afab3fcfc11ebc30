# SPDX-License-Identifier: Apache-2.0
"""What projects allow: the grammar of their keys, restrictions of one instance, limits of all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysd.manager.catalog import Catalog
from sysd.manager.events import EventBus
from sysd.manager.ids import Ids
from sysd.manager.projects import Projects, ProjectUpdate
from sysd.manager.quotas import Quotas
from sysd.manager.rules import Rules
from sysd.manager.table import Table
from sysd.model.errors import BusyError, DeniedError, ExistsError, InvalidError, NotFoundError, UnsupportedError
from sysd.model.instance import Instance, Phase
from sysd.model.network import DEFAULT_NETWORK, Network
from sysd.model.profile import Profile
from sysd.model.project import KEYS, SCHEMA, Project
from sysd.model.restrictions import check_limits, check_restrictions, usages
from sysd.storage.dir import Dir
from sysd.store.database import Store

ROOT = {"type": "disk", "path": "/", "pool": "default"}
NIC = {"type": "nic", "network": "syscontbr0"}


def instance(name: str = "c1", devices: dict[str, dict[str, str]] | None = None, **config: str) -> Instance:
    keys = {key.replace("__", "."): value for key, value in config.items()}
    return Instance(f"u-{name}", name, "f", 65536, "lab", phase=Phase.READY, config=keys, devices=devices or {})


def restricted(**restrictions: str) -> Project:
    return Project("lab", config={"restricted": "true"} | {f"restricted.{k}": v for k, v in restrictions.items()})


def denied(project: Project, one: Instance, why: str) -> None:
    with pytest.raises(DeniedError) as caught:
        check_restrictions(project, one)
    assert why in caught.value.text


# Restriction, the value that allows it, and what it then lets in.
GUARDS = [
    ("containers.nesting", "allow", instance(security__nesting="true")),
    ("containers.privilege", "allow", instance(security__privileged="true")),
    ("containers.lowlevel", "allow", instance(raw__idmap="both 0 0")),
    ("containers.lowlevel", "allow", instance(raw__anything="x")),
    ("containers.lowlevel", "allow", instance(security__syscalls__intercept__mount="true")),
    ("containers.lowlevel", "allow", instance(security__syscalls__allow="mount")),
    ("containers.lowlevel", "allow", instance(security__syscalls__blacklist_default="false")),
    ("containers.lowlevel", "allow", instance(linux__kernel_modules="loop")),
    ("containers.lowlevel", "allow", instance(security__idmap__size="1")),
    ("devices.disk", "allow", instance(devices={"d": {"type": "disk", "source": "/etc", "path": "/mnt"}})),
    # A folder of the host's put over the root is no root disk.
    ("devices.disk", "allow", instance(devices={"d": {"type": "disk", "source": "/", "path": "/"}})),
    ("devices.nic", "allow", instance(devices={"n": {"type": "nic", "nictype": "macvlan", "parent": "eth0"}})),
    *(
        (f"devices.{kind}", "allow", instance(devices={"d": {"type": kind}}))
        for kind in ("unix-char", "unix-block", "unix-hotplug", "infiniband", "gpu", "usb", "pci", "proxy")
    ),
]


@pytest.mark.parametrize(("restriction", "value", "one"), GUARDS)
def test_each_guard(restriction: str, value: str, one: Instance) -> None:
    denied(restricted(), one, f"restricted.{restriction} is")
    check_restrictions(restricted(**{restriction: value}), one)
    check_restrictions(Project("lab", config={f"restricted.{restriction}": "block"}), one)  # not restricted
    others = {key.name.removeprefix("restricted."): "allow" for key in KEYS if key.name.startswith("restricted.")}
    del others[restriction], others["networks.access"]
    denied(restricted(**others), one, f"restricted.{restriction} is")


def test_what_is_harmless_may_be() -> None:
    one = instance(devices={"root": ROOT, "eth0": NIC, "x": {"type": "none"}}, limits__memory="1GiB", user__a="b")
    check_restrictions(restricted(), one)
    check_restrictions(restricted(**{"devices.disk": "block"}), one)  # the root disk is always allowed


def test_a_kind_of_device_that_no_restriction_knows_may_not_be() -> None:
    with pytest.raises(DeniedError, match="device d of c1"):
        check_restrictions(restricted(), instance(devices={"d": {"type": "of-tomorrow"}}))


def test_isolation_can_be_asked_for() -> None:
    project = restricted(**{"containers.privilege": "isolated"})
    with pytest.raises(DeniedError, match="isolated"):
        check_restrictions(project, instance(security__idmap__isolated="false"))
    check_restrictions(project, instance(security__idmap__isolated="true"))


def test_only_some_networks() -> None:
    project = restricted(**{"networks.access": "a, b"})
    check_restrictions(project, instance(devices={"n": NIC | {"network": "b"}}))
    for device in (NIC, {"type": "nic", "network": ""}):
        with pytest.raises(DeniedError):
            check_restrictions(project, instance(devices={"n": device}))
    project = restricted(**{"networks.access": "a", "devices.nic": "allow"})
    denied(project, instance(devices={"n": {"type": "nic", "parent": "a"}}), "restricted.networks.access is a")


@pytest.mark.parametrize(
    "key", ["vlan", "host_name", "ipv4.routes", "security.acls", "security.acls.default.ingress.action",
            "ipv6.routes.external", "acceleration"]
)
def test_what_is_beyond_a_managed_network(key: str) -> None:
    """Its owner says what gets in and out of it."""
    one = instance(devices={"n": NIC | {key: "x"}})
    denied(restricted(**{"devices.nic": "managed"}), one, "restricted.devices.nic is managed")
    check_restrictions(restricted(**{"devices.nic": "allow"}), one)


def test_limits_are_sums() -> None:
    project = Project("lab", config={"limits.memory": "1GiB", "limits.cpu": "3", "limits.instances": "2"})
    two = [instance(name, limits__memory="512MiB", limits__cpu="1") for name in ("a", "b")]
    check_limits(project, two)
    assert {key: (u.used, u.most) for key, u in usages(project, two).items()} == {
        "limits.memory": (1 << 30, 1 << 30),
        "limits.cpu": (2, 3),
        "limits.instances": (2, 2),
    }
    with pytest.raises(DeniedError, match=r"limits.memory is 1.00GiB"):
        check_limits(project, [two[0], instance("b", limits__memory="513MiB", limits__cpu="1")])
    with pytest.raises(DeniedError, match=r"limits\.instances is 2"):
        check_limits(project, [*two, instance("c", limits__memory="0", limits__cpu="0")])


@pytest.mark.parametrize(
    ("key", "value"),
    [("limits.memory", "50%"), ("limits.cpu", "0-1"), ("limits.cpu", "1,2"), ("limits.processes", "")],
)
def test_each_has_to_say_what_it_takes(key: str, value: str) -> None:
    one = Instance("u", "c1", "f", 65536, "lab", config={key: value} if value else {})
    with pytest.raises(InvalidError, match=f"lab:c1: .*{key}"):
        check_limits(Project("lab", config={key: "10"}), [one])


BAD = [
    ("limits.instances", "-1"), ("limits.instances", "1.5"), ("limits.instances", "1\n"), ("limits.memory", "0"),
    ("limits.memory", "50%"), ("restricted", "perhaps"), ("restricted.devices.usb", "managed"),
    ("restricted.containers.privilege", "block"), ("restricted.networks.access", "a;b"),
    ("restricted.networks.access", "../a"), ("user.a", "\0"), ("restricted.nothing", "block"), ("", "x"),
    ("features.profiles", "own"), ("limits.disk", "0"), ("limits.disk", "50%"), ("limits.disk", "many"),
]  # fmt: skip
REFUSED = [
    ("features.images", "true"), ("features.networks", "true"), ("features.storage.volumes", "yes"),
    ("limits.networks", "1"), ("restricted.cluster.target", "allow"),
    ("images.auto_update_cached", "true"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), BAD)
def test_bad_values(key: str, value: str) -> None:
    with pytest.raises(InvalidError):
        SCHEMA.check({key: value})


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_what_is_not_offered_says_why(key: str, value: str) -> None:
    with pytest.raises(UnsupportedError, match=key):
        SCHEMA.check({key: value})


# the catalog and projects on a real store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "db")


class House:
    """What there is without systemd."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.catalog = Catalog(store)
        self.events = EventBus()
        self.table = Table(self.events, self.catalog.expand)
        self.rules = Rules(self.catalog, self.table, Ids(self.table), Quotas(self.table, Dir(), Path("/proc")))
        self.projects = Projects(store, self.catalog, self.events, self.table, self.rules)

    def again(self) -> House:
        return House(self.store)


def test_a_new_store_has_the_defaults(store: Store) -> None:
    house = House(store)
    assert [p.name for p in house.catalog.projects()] == ["default"]
    assert [p.reference for p in house.catalog.profiles()] == ["default"]


def test_projects_come_with_profiles(store: Store) -> None:
    house = House(store)
    house.projects.create("lab", ProjectUpdate())
    house.projects.create("bare", ProjectUpdate(config={"features.profiles": "false"}))
    for one in (house, house.again()):
        assert [p.reference for p in one.catalog.profiles()] == ["default", "lab:default"]
        assert one.catalog.profile("bare:default").project == "default"
        assert one.catalog.profile("lab:default").project == "lab"
        assert not one.catalog.knows_profile("bare:default")
    with pytest.raises(ExistsError):
        house.projects.create("lab", ProjectUpdate())
    house.projects.rename("lab", "yard")
    for one in (house, house.again()):
        assert [p.reference for p in one.catalog.profiles()] == ["default", "yard:default"]
    house.projects.delete("yard")
    assert [p.name for p in house.again().catalog.projects()] == ["bare", "default"]


def test_what_is_there_holds_changes_up(store: Store) -> None:
    house = House(store)
    house.projects.create("lab", ProjectUpdate())
    house.table.add(instance(security__nesting="true"))
    with pytest.raises(DeniedError, match="nesting"):
        house.projects.change("lab", {"restricted": "true"}, ())
    house.projects.change("lab", {"restricted": "true", "restricted.containers.nesting": "allow"}, ())
    with pytest.raises(DeniedError, match="nesting"):
        house.projects.change("lab", {}, ["restricted.containers.nesting"])
    with pytest.raises(BusyError, match="not empty"):
        house.projects.change("lab", {"features.profiles": "false"}, ())
    with pytest.raises(BusyError, match="not empty"):
        house.projects.delete("lab")
    with pytest.raises(BusyError, match="not empty"):
        house.projects.rename("lab", "x")
    with pytest.raises(InvalidError, match=r"features\.profiles"):
        house.projects.change("default", {"features.profiles": "false"}, ())
    assert house.again().catalog.project("lab").config["restricted"] == "true"


def test_the_rules_see_what_profiles_bring(store: Store) -> None:
    house = House(store)
    house.projects.create("lab", ProjectUpdate(config={"restricted": "true"}))
    house.catalog.remember(Network(DEFAULT_NETWORK))
    house.catalog.remember(Profile("nested", "lab", config={"security.nesting": "true"}))
    one = Instance("u", "c1", "f", 65536, "lab", profiles=["default", "nested"])
    with pytest.raises(DeniedError, match="nesting"):
        house.rules.check([one])
    harmless = Instance("u", "c1", "f", 65536, "lab", profiles=["default"])
    house.rules.check([harmless])
    with pytest.raises(DeniedError, match="nesting"):  # a profile that is to become so
        house.rules.check([harmless], lambda project, name: Profile(name, project, config={"security.nesting": "1"}))
    for gone in (Instance("u", "c1", "f", 1, "nowhere"), Instance("u", "c1", "f", 1, "lab", profiles=["gone"])):
        with pytest.raises(NotFoundError):
            house.rules.check([gone])
    house.rules.check([Instance("u", "c1", "f", 1, "lab", phase=Phase.DELETING, profiles=["nested"])])


def test_the_rules_see_what_interfaces_have_on_uplinks(store: Store) -> None:
    """However they come by it."""
    house = House(store)
    lan = {"parent": "eth9", "ipv4.gateway": "192.0.2.1/24", "ipv4.routes": "198.51.100.0/24"}
    house.catalog.remember(Network("lan", "physical", config=lan | {"ipv4.ovn.ranges": "192.0.2.9-192.0.2.9"}))
    blue = {"network": "lan", "ipv4.address": "10.5.0.1/24", "volatile.network.ipv4.address": "192.0.2.9"}
    house.catalog.remember(Network("blue", "ovn", config=blue))
    nic = {"type": "nic", "network": "blue"}
    house.catalog.remember(Profile("routed", devices={"eth0": nic | {"ipv4.routes.external": "198.51.100.4/30"}}))
    one = Instance("u", "c1", "f", 65536, profiles=["routed"])
    house.rules.check([one])
    house.table.add(one)
    other = Instance("v", "c2", "f", 65536, devices={"eth0": nic | {"ipv4.routes.external": "198.51.100.6/31"}})
    with pytest.raises(InvalidError, match=r"overlaps 198.51.100.4/30"):
        house.rules.check([other])
    elsewhere = Profile("routed", devices={"eth0": nic | {"ipv4.routes.external": "203.0.113.4/30"}})
    with pytest.raises(InvalidError, match=r"device eth0 of c1: ipv4.routes.external: 203.0.113.4/30 is not in"):
        house.rules.check([one], lambda project, name: elsewhere)


def test_limits_count_what_is_to_be(store: Store) -> None:
    house = House(store)
    house.projects.create("lab", ProjectUpdate(config={"limits.processes": "100"}))
    house.table.add(instance("a", limits__processes="60"))
    house.rules.check([instance("b", limits__processes="40")])
    house.rules.check([instance("a", limits__processes="100")])  # in place of what it is now
    with pytest.raises(DeniedError, match=r"limits.processes is 100"):
        house.rules.check([instance("b", limits__processes="41")])


def test_names_on_a_network() -> None:
    from dataclasses import replace

    from sysd.manager.hosts import named_once

    old = replace(instance("web1"), created=1)
    new = replace(instance("WEB1"), uuid="u2", project="yard", created=2)
    main = replace(instance("web1"), uuid="u3", project="default", created=3)
    assert named_once({"m1": old, "m2": new}) == {"m1": "web1", "m2": ""}
    assert named_once({"m1": old, "m2": new, "m3": main}) == {"m1": "", "m2": "", "m3": "web1"}
    assert named_once({"m1": old, "m2": old}) == {"m1": "web1", "m2": "web1"}
