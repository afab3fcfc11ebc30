# SPDX-License-Identifier: Apache-2.0
"""The D-Bus interface, with the tools and libraries that people use on it."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Launch
from guests import Done, Instance, python, syscont, unique, until
from hosts import Host

NAME, ROOT = "org.syscont.Manager", "/org/syscont/Manager"
SHIPPED = Path(__file__).resolve().parent.parent / "data/dbus-1/interfaces"

# What an ordinary user may call. All else must be refused: a new method is, until it is put here.
READS = {
    "org.syscont.Manager": {
        "ListInstances", "GetInstance", "ListImages", "GetImage", "ListNetworks", "ListOperations",
        "GetOperation", "ListProfiles", "GetProfile", "ListProjects", "GetProject", "GetNetwork",
        "ListNetworkZones", "GetNetworkZone", "ListNetworkACLs", "GetNetworkACL", "ListTrusted",
        "GetIdentity", "GetAcceleration",
    },
    "org.syscont.Instance": {"ListSnapshots", "GetDiskUsage", "GetState"},
    "org.syscont.Network": {"GetUsers", "GetLeases", "GetState"},
    "org.syscont.NetworkZone": {"ListRecords"},
    "org.syscont.Project": {"GetUsage"},
}  # fmt: skip
# Decided by whose operation it is; these have a test of their own.
OWN = {("org.syscont.Manager", "CancelOperation"), ("org.syscont.Operation", "Cancel")}


def encoded(name: str) -> str:
    return "".join(c if c.isalnum() else f"_{ord(c):02x}" for c in name)


def path_of(instance: Instance) -> str:
    return f"{ROOT}/instance/{encoded(instance.name)}"


def busctl(host: Host, *argv: str, user: str | None = None, check: bool = True) -> Done:
    return host.run(["busctl", *argv], user=user, check=check)


def call(
    host: Host, path: str, interface: str, *argv: str, user: str | None = None, check: bool = True
) -> Done:
    return busctl(host, "call", NAME, path, interface, *argv, user=user, check=check)


def interfaces() -> dict[str, ET.Element]:
    found = {}
    for file in sorted(SHIPPED.glob("*.xml")):
        for one in ET.parse(file).getroot().iter("interface"):
            found[one.attrib["name"]] = one
    return found


def arguments_for(signature: str) -> list[str]:
    """Some value of a signature, in busctl's words."""
    values = {"s": "x", "h": "0", "a{sv}": "0", "a{ss}": "0", "as": "0", "a{sa{ss}}": "0", "a(ssu)": "0", "u": "1"}
    words, rest = [], signature
    while rest:
        part = next(one for one in sorted(values, key=len, reverse=True) if rest.startswith(one))
        words.append(values[part])
        rest = rest.removeprefix(part)
    return words


def methods() -> list[tuple[str, str, str]]:
    """(interface, method, signature of what it takes) of all that is shipped."""
    found = []
    for name, interface in interfaces().items():
        for method in interface.iter("method"):
            taken = [arg.attrib["type"] for arg in method if arg.get("direction") == "in"]
            found.append((name, method.attrib["name"], "".join(taken)))
    return found


CHANGES = [m for m in methods() if m[1] not in READS.get(m[0], ()) and m[:2] not in OWN]


@pytest.fixture(scope="module")
def zone(host: Host) -> Iterator[None]:
    syscont(host, "network", "zone", "create", "bus.example")
    yield
    syscont(host, "network", "zone", "delete", "bus.example")


@pytest.fixture(scope="module")
def acl(host: Host) -> Iterator[None]:
    syscont(host, "network", "acl", "create", "bus")
    yield
    syscont(host, "network", "acl", "delete", "bus")


@pytest.fixture
def paths(host: Host, guest: Instance, zone: None, acl: None) -> dict[str, str]:
    """An object of each interface."""
    call(host, path_of(guest), "org.syscont.Instance", "Start", "a{sv}", "0")  # an operation: they are forgotten soon
    managed = json.loads(
        busctl(
            host, "call", "-j", NAME, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"
        ).stdout
    )["data"][0]
    found = {interface: path for path, has in managed.items() for interface in has}
    return {**found, "org.syscont.Manager": ROOT, "org.syscont.Instance": path_of(guest)}


# looking


def test_tree(host: Host, guest: Instance) -> None:
    tree = busctl(host, "tree", "--list", "--no-pager", NAME).stdout.split()
    assert path_of(guest) in tree
    assert any(path.startswith(f"{ROOT}/image/") for path in tree)
    assert f"{ROOT}/network/syscontbr0" in tree


def canonical(interface: ET.Element) -> list[str]:
    text = ET.tostring(interface, encoding="unicode")
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("interface", sorted(interfaces()))
def test_what_is_shipped_is_what_is_served(
    host: Host, paths: dict[str, str], interface: str
) -> None:
    xml = json.loads(
        busctl(
            host, "call", "-j", NAME, paths[interface],
            "org.freedesktop.DBus.Introspectable", "Introspect",
        ).stdout
    )["data"][0]  # fmt: skip
    served = {one.attrib["name"]: one for one in ET.fromstring(xml).iter("interface")}
    assert canonical(served[interface]) == canonical(interfaces()[interface])
    installed = ET.fromstring(host.read_text(f"/usr/share/dbus-1/interfaces/{interface}.xml"))
    (one,) = installed.iter("interface")
    assert canonical(one) == canonical(interfaces()[interface])


@pytest.mark.parametrize("interface", sorted(interfaces()))
def test_every_property_can_be_read(host: Host, paths: dict[str, str], interface: str) -> None:
    """By an ordinary user, one by one and all together, with the type that was promised."""
    argv = ["org.freedesktop.DBus.Properties", "GetAll", "s", interface]
    answer = call(host, paths[interface], *argv, user="alice").stdout
    for one in interfaces()[interface].iter("property"):
        name, kind = one.attrib["name"], one.attrib["type"]
        assert f'"{name}" {kind} ' in answer
        got = busctl(host, "get-property", NAME, paths[interface], interface, name, user="alice")
        assert got.stdout.startswith(f"{kind} ")


def test_busctl_introspect(host: Host, guest: Instance) -> None:
    text = busctl(host, "introspect", "--no-pager", NAME, path_of(guest)).stdout
    for name in (".Start", ".Exec", ".State", ".Addresses", ".PropertiesChanged"):
        assert f"\n{name} " in text


@pytest.mark.parametrize("user", [None, "alice"])
def test_gdbus(host: Host, guest: Instance, user: str | None) -> None:
    argv = ["gdbus", "call", "--system", "--dest", NAME, "--object-path", ROOT, "--method"]
    text = host.run([*argv, f"{NAME}.GetInstance", guest.name], user=user).stdout
    assert text == f"(objectpath '{path_of(guest)}',)\n"
    missing = host.run([*argv, f"{NAME}.GetInstance", "nobody"], user=user, check=False)
    assert "org.syscont.Error.NotFound" in missing.stderr
    shown = host.run(
        ["gdbus", "introspect", "--system", "--dest", NAME, "--object-path", path_of(guest)], user=user
    ).stdout
    assert "interface org.syscont.Instance" in shown


def test_properties_are_the_truth(host: Host, guest: Instance) -> None:
    def read(name: str) -> str:
        argv = ["get-property", "-j", NAME, path_of(guest), "org.syscont.Instance", name]
        return str(json.loads(busctl(host, *argv).stdout)["data"])

    guest.address()
    assert read("State") == "running"
    assert read("Unit") == guest.unit
    assert read("Leader") == guest.systemd("MainPID")
    assert read("Addresses") == str(guest.seen()["addresses"])


def test_wrong_calls_get_proper_errors(host: Host, guest: Instance) -> None:
    wrong = [
        ([path_of(guest), "org.syscont.Instance", "Explode"], "no method"),
        ([f"{ROOT}/instance/nobody", "org.syscont.Instance", "Pause"], "no object"),
        ([path_of(guest), "org.syscont.Instance", "Rename", "u", "1"], "takes"),
        ([ROOT, NAME, "CreateInstance", "sa{sv}", "x", "1", "nonsense", "b", "true"], "nonsense"),
        ([ROOT, NAME, "CreateInstance", "sa{sv}", "x", "1", "image", "b", "true"], "image"),
        ([ROOT, NAME, "CreateInstance", "sa{sv}", "../x", "1", "image", "s", "busybox"], "name"),
    ]
    for argv, text in wrong:
        done = busctl(host, "call", NAME, *argv, check=False)
        assert done.returncode, argv
        assert text in done.stderr, argv
    assert guest.state == "running"


# changing


def test_a_life_by_busctl(host: Host, busybox: str) -> None:
    instance = Instance(host, unique("bus-"))
    options = ["2", "image", "s", busybox, "start", "b", "true"]
    call(host, ROOT, NAME, "CreateInstance", "sa{sv}", instance.name, *options)
    until(host, lambda: instance.state == "running")
    path = path_of(instance)
    for verb, state in (("Pause", "frozen"), ("Resume", "running")):
        call(host, path, "org.syscont.Instance", verb)
        instance.wait_for(state)
    config = ["ChangeConfig", "a{ss}as", "1", "user.x", "y", "0"]
    call(host, path, "org.syscont.Instance", *config)
    assert instance.config == {"user.x": "y"}
    call(host, path, "org.syscont.Instance", "Stop", "a{sv}", "1", "force", "b", "true")
    until(host, lambda: instance.state in ("stopped", "failed"))
    call(host, path, "org.syscont.Instance", "Delete")  # options may be left out
    until(host, lambda: not instance.seen())


def test_signals_of_a_life(host: Host, busybox: str) -> None:
    told = json.loads(python(host, "bus", "life", busybox, unique("signals-")).stdout)
    path, signals = told["path"], told["signals"]
    members = [member for at, member, body in signals if at == ROOT and path in body]
    assert members == ["InterfacesAdded", "InstanceNew", "InterfacesRemoved", "InstanceRemoved"] or (
        sorted(members)
        == ["InstanceNew", "InstanceRemoved", "InterfacesAdded", "InterfacesRemoved"]
    )
    added = next(body for _, member, body in signals if member == "InterfacesAdded" and path in body)
    assert added[1]["org.syscont.Instance"]["State"] == "stopped"
    changes = [body[1] for at, member, body in signals if at == path]
    states = [change["State"] for change in changes if "State" in change]
    assert states[0] in ("starting", "running")
    assert "running" in states
    assert states[-1] in ("stopped", "failed")
    addresses = [change["Addresses"] for change in changes if "Addresses" in change]
    assert any(addresses)
    assert addresses[-1] == []


def test_exec_with_descriptors(host: Host, guest: Instance) -> None:
    told = json.loads(python(host, "bus", "run", path_of(guest), "hello").stdout)
    assert told["output"] == ["said hello /etc\n", "wrong\n"]
    assert told["closed"] == [True, True]
    assert told["result"] == {"exit-status": "5"}


# who may


@pytest.mark.parametrize(("interface", "method", "signature"), CHANGES)
def test_changes_are_refused_without_polkits_yes(
    host: Host, paths: dict[str, str], guest: Instance, interface: str, method: str, signature: str
) -> None:
    argv = [method, *([signature, *arguments_for(signature)] if signature else [])]
    done = host.run(
        ["gdbus", "call", "--system", "--dest", NAME, "--object-path", paths[interface],
         "--method", f"{interface}.{method}", *gvariants(signature)],
        user="alice", check=False,
    )  # fmt: skip
    assert done.returncode
    assert "org.syscont.Error.AccessDenied" in done.stderr
    assert call(host, paths[interface], interface, *argv, user="alice", check=False).returncode
    assert guest.state == "running"


def gvariants(signature: str) -> list[str]:
    empty = {one: f"@{one} {{}}" for one in ("a{sv}", "a{ss}", "a{sa{ss}}")}
    words = {"s": "'x'", "h": "handle 0", "as": "@as []", "a(ssu)": "@a(ssu) []", "u": "1", **empty}
    texts, rest = [], signature
    while rest:
        part = next(one for one in sorted(words, key=len, reverse=True) if rest.startswith(one))
        texts.append(words[part])
        rest = rest.removeprefix(part)
    return texts


def test_all_reads_exist(host: Host) -> None:
    named = {(interface, method) for interface, some in READS.items() for method in some}
    assert named <= {(interface, method) for interface, method, _ in methods()}


@pytest.mark.parametrize("method", sorted(m for m in READS[NAME] if m.startswith("List")))
def test_reads_are_open_to_all(host: Host, guest: Instance, method: str) -> None:
    assert call(host, ROOT, NAME, method, user="alice").stdout.startswith("a(")


def test_secrets_are_for_those_who_may(host: Host, launch: Launch) -> None:
    given = ("-c", "user.cloud=hush", "-c", "environment.TOKEN=hush", "-c", "limits.processes=500")
    instance = launch("", *given, verb="create")
    where = [path_of(instance), "org.freedesktop.DBus.Properties", "GetAll", "s", "org.syscont.Instance"]
    shown = call(host, *where, user="alice").stdout
    assert "limits.processes" in shown
    assert "hush" not in shown + call(
        host, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", user="alice"
    ).stdout
    asked = call(host, path_of(instance), "org.syscont.Instance", "GetConfig").stdout
    assert asked.count("hush") == 2
    shown = syscont(host, "config", "show", instance.name).stdout
    assert shown.count("hush") == 2


def descriptors(host: Host) -> int:
    pid = host.run(["systemctl", "show", "--value", "--property=MainPID", "syscontd.service"]).stdout.strip()
    return len(host.run(["ls", f"/proc/{pid}/fd"]).stdout.split())


def test_no_descriptor_stays_open(host: Host, guest: Instance) -> None:
    """Neither those sent with calls that take none or fail, nor those of replies."""
    python(host, "bus", "descriptors", path_of(guest), "1")
    until(host, lambda: descriptors(host))
    before = descriptors(host)
    python(host, "bus", "descriptors", path_of(guest), "20")
    until(host, lambda: descriptors(host) <= before)


def test_others_operations_are_not_cancelled(host: Host, paths: dict[str, str]) -> None:
    path = paths["org.syscont.Operation"]
    identity = busctl(host, "get-property", "-j", NAME, path, "org.syscont.Operation", "Id").stdout
    for argv in (
        [path, "org.syscont.Operation", "Cancel"],
        [ROOT, NAME, "CancelOperation", "s", json.loads(identity)["data"]],
    ):
        done = busctl(host, "call", NAME, *argv, user="alice", check=False)
        assert done.returncode
        assert "not permitted" in done.stderr


@pytest.fixture
def rule(host: Host) -> Iterator[None]:
    path = "/etc/polkit-1/rules.d/10-test.rules"
    host.write_text(
        path,
        """polkit.addRule(function(action, subject) {
            if (action.id == "org.syscont.manage-instances" && subject.user == "alice" &&
                action.lookup("instance") == "alices" && action.lookup("verb") == "Start")
                return polkit.Result.YES;
        });""",
    )
    host.run(["chmod", "644", path])
    host.run(["systemctl", "restart", "polkit.service"])
    yield
    host.run(["rm", path])
    host.run(["systemctl", "restart", "polkit.service"])


def test_a_rule_allows_one_action_on_one_instance(host: Host, rule: None, launch: Launch) -> None:
    hers, other = launch(name="alices", verb="create"), launch(verb="create")
    call(host, path_of(hers), "org.syscont.Instance", "Start", "a{sv}", "0", user="alice")
    hers.wait_for("running")
    for instance, verb in ((other, "Start"), (hers, "Stop"), (hers, "Delete")):
        done = call(
            host, path_of(instance), "org.syscont.Instance", verb, "a{sv}", "0",
            user="alice", check=False,
        )  # fmt: skip
        assert done.returncode, verb
    assert (hers.state, other.state) == ("running", "stopped")


def test_alice_has_no_varlink_socket(host: Host) -> None:
    done = syscont(host, "list", user="alice", check=False)
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1


# the service


def test_activation(host: Host, guest: Instance) -> None:
    host.run(["systemctl", "stop", "syscontd.service"])
    assert guest.name in call(host, ROOT, NAME, "ListInstances").stdout
    assert host.run(["systemctl", "is-active", "syscontd.service"]).stdout == "active\n"
