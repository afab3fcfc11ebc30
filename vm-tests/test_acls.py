# SPDX-License-Identifier: Apache-2.0
"""ACLs of networks: who gets through, asked by connections from and to a guest, its host, its neighbour and a machine
far away."""

import json
from collections.abc import Iterator

import pytest
from acl_world import ACL, GATEWAY, GATEWAY6, HOST_SPACE, NETWORK, OPEN, REFUSED, SILENT, World, acl, acls, built, use
from conftest import Launch
from far import HERE, THERE
from guests import python, syscont, until
from hosts import Host
from leftovers import nothing_happens

MANAGER = ("org.syscont.Manager", "/org/syscont/Manager")


@pytest.fixture(scope="module")
def world(host: Host, busybox: str) -> Iterator[World]:
    with built(host, busybox) as made:
        yield made


@pytest.fixture(autouse=True)
def no_acls(host: Host) -> Iterator[None]:
    yield
    syscont(host, "network", "unset", NETWORK, "security.acls", *DEFAULTS, check=False)
    for one in acls(host):
        syscont(host, "network", "acl", "delete", one["name"])


DEFAULTS = [f"security.acls.default.{side}.{what}" for side in ("ingress", "egress") for what in ("action", "logged")]
ALL = ["in 80", "in 81", "in6 80", "out 80", "out 81", "from host", "to host", "dns", "neighbour"]
ALWAYS = {"dns", "neighbour"}


def expected(*opened: str, otherwise: str = REFUSED) -> dict[str, str]:
    return {way: OPEN if way in ALWAYS or way in opened else otherwise for way in ALL}


CASES = {
    "nothing is said": ([], expected()),
    "a port": (["ingress action=allow protocol=tcp destination_port=80"], expected("in 80", "in6 80", "from host")),
    "a range of ports": (["egress action=allow protocol=tcp destination_port=20-80"], expected("out 80")),
    "a source port": (["egress action=allow protocol=tcp source_port=1-1023"], expected()),
    "an address": ([f"ingress action=allow source={THERE}"], expected("in 80", "in 81")),
    "a network that has another": (
        [f"egress action=allow destination=192.0.0.0/16,{THERE},192.0.2.0-192.0.2.255"],
        expected("out 80", "out 81"),
    ),
    "either version": ([f"ingress action=allow source={GATEWAY},{GATEWAY6}"], expected("in6 80", "from host")),
    "one version by its addresses": (["ingress action=allow source=::/0"], expected("in6 80")),
    "the host": ([f"egress action=allow destination={GATEWAY}"], expected("to host")),
    "the guest itself": (["ingress action=allow destination=10.86.0.0/30"], expected()),
    "another protocol": (["egress action=allow protocol=udp", "ingress action=allow protocol=icmp4"], expected()),
    "all": (["egress action=allow", "ingress action=allow"], expected(*ALL)),
    "what is disabled": (["egress action=allow state=disabled", "ingress action=allow state=disabled"], expected()),
    "what is logged": (["egress action=allow state=logged"], expected("out 80", "out 81", "to host")),
    "drop before allow": (
        ["ingress action=allow", f"ingress action=drop source={THERE} protocol=tcp destination_port=81"],
        expected("in 80", "in6 80", "from host") | {"in 81": SILENT},
    ),
    "reject before allow": (
        ["egress action=allow", "egress action=reject protocol=tcp destination_port=80"],
        expected("out 81", "to host"),
    ),
    "drop before reject": (
        ["egress action=reject protocol=tcp", f"egress action=drop destination={THERE}"],
        expected() | {"out 80": SILENT, "out 81": SILENT},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rules(world: World, case: str) -> None:
    rules, wanted = CASES[case]
    use(world.host, *rules)
    assert world.tried() == wanted


def test_without_acls_all_is_open(world: World) -> None:
    assert world.tried() == expected(*ALL)


def test_defaults(world: World) -> None:
    use(world.host, "ingress action=allow protocol=tcp destination_port=80")
    syscont(world.host, "network", "set", NETWORK, "security.acls.default.egress.action=allow")
    assert world.tried() == expected("in 80", "in6 80", "from host", "out 80", "out 81", "to host")
    syscont(world.host, "network", "set", NETWORK, "security.acls.default.ingress.action=drop")
    assert world.tried()["in 81"] == SILENT


def test_forwards_are_no_way_around(world: World) -> None:
    """Neither from far away nor from the host."""
    host, listen = world.host, "198.51.100.86"
    world.far.sh(f"ip route replace {listen} via {HERE}")
    host.sh(f"ip addr add {listen}/32 dev lo")
    syscont(host, "network", "forward", "create", NETWORK, listen, f"target_address={world.address}")

    def tried() -> list[str]:
        far = f"/run/netns/{world.far.name}"
        words = [word for space in (far, HOST_SPACE) for port in ("80", "81") for word in (space, listen, port)]
        return python(host, "knock", *words).stdout.split()

    assert tried() == [OPEN] * 4
    use(host, "ingress action=allow protocol=tcp destination_port=80")
    far80, far81, host80, host81 = tried()
    assert (far80, host80) == (OPEN, OPEN)
    assert OPEN not in (far81, host81)
    syscont(host, "network", "forward", "delete", NETWORK, listen)
    host.sh(f"ip addr del {listen}/32 dev lo")


def test_several_acls(world: World) -> None:
    """They count as one: what one drops, no other allows."""
    use(world.host, "ingress action=allow protocol=tcp")
    acl(world.host, "create", "not-81")
    acl(world.host, "rule", "add", "not-81", "ingress", "action=drop", "protocol=tcp", "destination_port=81")
    syscont(world.host, "network", "set", NETWORK, f"security.acls={ACL},not-81")
    assert world.tried() == expected("in 80", "in6 80", "from host") | {"in 81": SILENT}


def test_rules_change_under_connections(world: World) -> None:
    """With the next packet, and for what is connected not at all."""
    use(world.host, "ingress action=allow protocol=tcp destination_port=80")
    acl(world.host, "rule", "add", ACL, "egress", "action=allow", "protocol=tcp", "destination_port=81")
    assert world.tried()["out 81"] == OPEN
    acl(world.host, "rule", "remove", ACL, "egress", "destination_port=81")
    assert world.tried()["out 81"] == REFUSED
    assert "has no such egress rule" in acl(world.host, "rule", "remove", ACL, "egress", check=False)
    for port in (90, 91):
        acl(world.host, "rule", "add", ACL, "egress", "action=allow", "protocol=tcp", f"destination_port={port}")
    assert "2 egress rules" in acl(world.host, "rule", "remove", ACL, "egress", "action=allow", check=False)
    acl(world.host, "rule", "remove", ACL, "egress", "action=allow", "--force")
    (seen,) = acls(world.host)
    assert (len(seen["ingress"]), seen["egress"], seen["usedBy"]) == (1, [], [NETWORK])


def test_leases_and_names_come_through_all(world: World, launch: Launch) -> None:
    use(world.host)
    syscont(world.host, "network", "set", NETWORK, "ipv6.dhcp.stateful=true")
    one = launch("", "-d", f"eth0,type=nic,network={NETWORK}")
    assert one.address().startswith("10.86.0.")
    until(world.host, lambda: world.address in one.sh(f"nslookup {world.guest.name}.syscont 2>&1 || true"))
    one.do("delete", "--force")
    syscont(world.host, "network", "unset", NETWORK, "ipv6.dhcp.stateful")


def test_acls_outlive_what_may_end_them(world: World) -> None:
    use(world.host, "ingress action=allow protocol=tcp destination_port=80")
    wanted = expected("in 80", "in6 80", "from host")
    assert world.tried() == wanted
    world.host.run(["systemctl", "restart", "syscontd.service"])
    assert world.tried() == wanted
    for script in ("systemctl restart nftables.service", "systemctl stop nftables.service", "nft flush ruleset"):
        world.host.sh(script)
        until(world.host, lambda: world.tried() == wanted)


def test_what_is_used_stays(world: World) -> None:
    use(world.host)
    assert f"ACL {ACL} is in use by network {NETWORK}" in acl(world.host, "delete", ACL, check=False)
    assert "is in use" in acl(world.host, "rename", ACL, "other", check=False)
    syscont(world.host, "network", "unset", NETWORK, "security.acls")
    acl(world.host, "rename", ACL, "other")
    assert [one["name"] for one in acls(world.host)] == ["other"]


def test_over_the_bus(host: Host, world: World) -> None:
    manager = f"busctl --json=short call {' '.join(MANAGER)} org.syscont.Manager"
    (path,) = json.loads(host.sh(f"{manager} CreateNetworkACL 'sa{{sv}}' bus 0"))["data"]
    where = f"{MANAGER[0]} {path} org.syscont.NetworkACL"
    host.sh(f"busctl call {where} AddRule 'sa{{ss}}' ingress 2 action allow protocol tcp")
    host.sh(f"busctl call {where} Update 'a{{sv}}' 2 description s said egress 'aa{{ss}}' 1 1 action drop")
    host.sh(f"busctl call {where} ChangeConfig 'a{{ss}}as' 1 user.a b 0")
    seen = [json.loads(host.sh(f"busctl --json=short get-property {where} {name}"))["data"]
            for name in ("Ingress", "Egress", "Description", "Config")]  # fmt: skip
    ingress = [{"action": "allow", "state": "enabled", "protocol": "tcp"}]
    egress = [{"action": "drop", "state": "enabled"}]
    assert seen == [ingress, egress, "said", {"user.a": "b"}]
    host.sh(f"busctl call {where} RemoveRule 'sa{{ss}}a{{sv}}' ingress 1 protocol tcp 0")
    renamed = json.loads(host.sh(f"busctl --json=short call {where} Rename s tram"))["data"][0]
    listed = json.loads(host.sh(f"{manager} ListNetworkACLs"))
    assert listed["data"] == [[["tram", "said", renamed]]]
    host.sh(f"busctl call {MANAGER[0]} {renamed} org.syscont.NetworkACL Delete")


def test_as_a_file(host: Host, world: World) -> None:
    """apply and edit."""
    rules = "- {action: allow, protocol: tcp, destination_port: 80}"
    text = f"acls:\n- name: {ACL}\n  ingress:\n  {rules}\nnetworks:\n- name: {NETWORK}\n  config: "
    text += f"{{security.acls: {ACL}, ipv4.address: {GATEWAY}/24, ipv6.address: '{GATEWAY6}/64'}}\n"
    host.run(["syscont", "apply", "-", "--yes"], input=text)
    assert world.tried() == expected("in 80", "in6 80", "from host")
    assert "2 unchanged" in host.run(["syscont", "apply", "-", "--yes"], input=text).stdout
    host.run(["syscont", "network", "acl", "edit", ACL], input="ingress: []\n")
    assert world.tried() == expected()
    edited = host.run(["syscont", "network", "acl", "edit", ACL], input="ingress:\n- {action: let}\n", check=False)
    assert "standard input:2: ingress[0]: action: not acceptable: 'let'" in edited.stderr


def test_nothing_is_left_of_acls(host: Host, world: World) -> None:
    with nothing_happens(host):
        rules = host.sh("nft list ruleset")
        syscont(host, "network", "create", "gone0", "ipv4.address=10.87.0.1/24", "ipv6.address=none")
        acl(host, "create", "gone")
        syscont(host, "network", "set", "gone0", "security.acls=gone")
        syscont(host, "network", "delete", "gone0")
        acl(host, "delete", "gone")
        assert host.sh("nft list ruleset") == rules


BAD = [
    (("create", ".x"), "not the name of an ACL"),
    (("create", ACL), "exists already"),
    (("create", "new", "limits.x=1"), "limits.x"),
    (("rule", "add", ACL, "sideways", "action=allow"), "not a direction: 'sideways'"),
    (("rule", "add", ACL, "ingress", "source=10.0.0.1"), "action is missing"),
    (("rule", "add", ACL, "ingress", "action=accept"), "action: not acceptable: 'accept'"),
    (("rule", "add", ACL, "ingress", "action=allow", "colour=red"), "a rule has no 'colour'"),
    (("rule", "add", ACL, "ingress", "action=allow", "source=10.0.0.0/33"), "source: not addresses"),
    (("rule", "add", ACL, "ingress", "action=allow", "source=10.0.0.1/24"), "source: not addresses"),
    (("rule", "add", ACL, "ingress", "action=allow", "source=10.0.0.9-10.0.0.1"), "not a range of addresses"),
    (("rule", "add", ACL, "ingress", "action=allow", "source=10.0.0.1-fd00::1"), "not a range of addresses"),
    (("rule", "add", ACL, "ingress", "action=allow", "source=10.0.0.1; drop"), "source: not addresses"),
    (("rule", "add", ACL, "ingress", "action=allow", "destination=@internal"), "'@internal' is no address"),
    (("rule", "add", ACL, "ingress", "action=allow", "source=@internal"), "names @internal, and network"),
    (("rule", "add", ACL, "ingress", "action=allow", "source=other-acl"), "no ACL 'other-acl'"),
    (("rule", "add", ACL, "ingress", "action=allow", "source=10.0.0.1", "destination=fd00::1"), "different versions"),
    (("rule", "add", ACL, "ingress", "action=allow", "source=fd00::1", "protocol=icmp4"), "different versions"),
    (("rule", "add", ACL, "ingress", "action=allow", "destination_port=80"), "only tcp and udp have ports"),
    (("rule", "add", ACL, "ingress", "action=allow", "protocol=tcp", "destination_port=0"), "not ports: '0'"),
    (("rule", "add", ACL, "ingress", "action=allow", "protocol=tcp", "icmp_type=8"), "only icmp4 and icmp6"),
    (("rule", "add", ACL, "ingress", "action=allow", "protocol=icmp4", "icmp_type=256"), "from 0 to 255"),
    (("rule", "add", ACL, "ingress", "action=allow", "protocol=icmp4", "icmp_code=1"), "say icmp_type, too"),
    (("rule", "add", ACL, "ingress", "action=drop", "protocol=udp"), "has this ingress rule already"),
    (("rule", "remove", ACL, "ingress", "action=reject"), "has no such ingress rule"),
    (("rename", ACL, "a b"), "not the name of an ACL"),
    (("delete", "none"), "no ACL 'none'"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_acls_change_nothing(host: Host, world: World, words: tuple[str, ...], message: str) -> None:
    use(host, "ingress action=drop protocol=udp")
    before = acls(host), host.sh("nft list ruleset")
    assert message in acl(host, *words, check=False)
    assert (acls(host), host.sh("nft list ruleset")) == before


def test_a_network_names_acls_that_there_are(host: Host, world: World) -> None:
    refused = syscont(host, "network", "set", NETWORK, "security.acls=none", check=False).stderr
    assert "security.acls: no ACL 'none'" in refused
    refused = syscont(host, "network", "set", NETWORK, "security.acls.default.egress.action=let", check=False).stderr
    assert "security.acls.default.egress.action: not acceptable: 'let'" in refused
