# SPDX-License-Identifier: Apache-2.0
"""Network zones, with BIND as a secondary: names of instances as they come and go, transfers, and who gets nothing."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Launch, MakeHost
from guests import Instance, syscont, systemd_property, until
from hosts import Host

ZONE, REVERSE = "lab.example", "5.42.10.in-addr.arpa"
PRIMARY, SECONDARY, STRANGER = "127.0.0.11", "127.0.0.12", "127.0.0.13"
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OTHER = base64.b64encode(b"fedcba9876543210fedcba9876543210").decode()
PATIENCE = 10.0
UNIT = "secondary.service"


def bind_config() -> str:
    zones = "".join(
        f'key "{zone}_bind." {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n'
        f'zone "{zone}" {{ type secondary; file "{zone}.db"; primaries {{ {PRIMARY} key "{zone}_bind."; }}; }};\n'
        for zone in (ZONE, REVERSE)
    )
    return (
        f'options {{ directory "/var/cache/bind"; listen-on {{ {SECONDARY}; }}; listen-on-v6 {{ none; }};\n'
        f"  recursion no; dnssec-validation no; notify no; transfer-source {SECONDARY}; allow-query {{ any; }};\n"
        f"  query-source address {SECONDARY}; allow-transfer {{ any; }}; }};\n" + zones
    )


def dig(host: Host, name: str, kind: str, *options: str, server: str = PRIMARY, source: str = SECONDARY) -> str:
    argv = ["dig", "+norecurse", "+timeout=1", "+tries=2", "-b", source, f"@{server}", *options, name, kind]
    return host.run(argv, check=False).stdout


def key(secret: str = SECRET, zone: str = ZONE, algorithm: str = "hmac-sha256") -> str:
    return f"-y{algorithm}:{zone}_bind:{secret}"


def at_bind(host: Host, name: str, kind: str = "A") -> list[str]:
    return sorted(dig(host, name, kind, "+short", server=SECONDARY).split())


def records(host: Host, server: str, zone: str = ZONE) -> set[str]:
    """All of a zone, as a transfer gives it; names of types, no spaces."""
    lines = dig(host, zone, "AXFR", key(zone=zone), server=server).splitlines()
    return {" ".join(line.split()) for line in lines if line and not line.startswith(";") and "TSIG" not in line}


def serial(host: Host, zone: str = ZONE) -> int:
    (found,) = [each for each in json.loads(syscont(host, "network", "zone", "list", "--format", "json").stdout)
                if each["name"] == zone]  # fmt: skip
    return int(found["serial"])


def journal(host: Host, unit: str) -> str:
    return host.run(["journalctl", "--no-pager", "-o", "cat", "-u", unit]).stdout


@pytest.fixture
def dns_host(make_host: MakeHost, deb: Path) -> Host:
    """A host with a zone, a reverse zone, a network that names both, and BIND as their secondary."""
    host = make_host(deb=False, variant="dns")
    # Debian's own instance takes port 53 of all bridges.
    host.run(["systemctl", "disable", "--now", "named.service"])
    host.install_deb(deb)
    host.run(["ip", "address", "add", f"{SECONDARY}/32", "dev", "lo"])  # BIND looks at links for what to listen on
    for zone in (ZONE, REVERSE):
        peer = [f"peers.bind.address={SECONDARY}", f"peers.bind.key={SECRET}"]
        syscont(host, "network", "zone", "create", zone, *peer, "dns.nameservers=ns1.example.com,ns2.example.com")
    syscont(host, "config", "set", f"core.dns_address={PRIMARY}")
    syscont(host, "network", "set", "syscontbr0", "ipv4.address=10.42.5.1/24", f"dns.zone.forward={ZONE}",
            f"dns.zone.reverse.ipv4={REVERSE}")  # fmt: skip
    host.write_text("/etc/bind/secondary.conf", bind_config())
    host.run(["systemd-run", "-q", f"--unit={UNIT}", "named", "-g", "-c", "/etc/bind/secondary.conf"])
    until(host, lambda: at_bind(host, f"syscontbr0.gw.{ZONE}") == ["10.42.5.1"], patience=PATIENCE)
    return host


def test_bind_follows(dns_host: Host) -> None:
    host = dns_host
    syscont(host, "image", "build", "busybox")
    syscont(host, "launch", "--wait", "busybox", "web1")
    web1 = Instance(host, "web1")
    address = until(host, lambda: web1.address(4))
    until(host, lambda: at_bind(host, f"web1.{ZONE}") == [address], patience=PATIENCE)
    pointer = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    until(host, lambda: at_bind(host, pointer, "PTR") == [f"web1.{ZONE}."], patience=PATIENCE)

    syscont(host, "network", "zone", "record", "create", ZONE, "many")
    for number in range(30):
        syscont(host, "network", "zone", "record", "entry", "add", ZONE, "many", "A", f"192.0.2.{number}")
    until(host, lambda: len(at_bind(host, f"many.{ZONE}")) == 30, patience=PATIENCE)
    until(host, lambda: web1.address(6) and at_bind(host, f"web1.{ZONE}", "AAAA") == [web1.address(6)])
    until(host, lambda: records(host, SECONDARY) == records(host, PRIMARY), patience=PATIENCE)
    logged = journal(host, UNIT)
    assert "received notify for zone 'lab.example': TSIG 'lab.example_bind'" in logged
    before = serial(host)

    host.run(["systemctl", "kill", "--signal=KILL", "syscontd.service"])
    until(host, lambda: dig(host, ZONE, "SOA", key()).count("status: NOERROR"), patience=PATIENCE)
    assert records(host, SECONDARY) == records(host, PRIMARY)
    host.run(["sleep", "2"])  # by then it has compared what it published with what there is
    assert serial(host) == before
    syscont(host, "network", "zone", "record", "entry", "remove", ZONE, "many", "A", "192.0.2.0")
    until(host, lambda: len(at_bind(host, f"many.{ZONE}")) == 29, patience=PATIENCE)
    answer = dig(host, ZONE, f"IXFR={before}", key())
    assert "192.0.2.0" in answer
    assert "192.0.2.1" not in answer, "not what changed alone"
    syscont(host, "stop", "--force", "web1")
    until(host, lambda: not at_bind(host, f"web1.{ZONE}"), patience=PATIENCE)
    assert "AXFR-style IXFR" not in journal(host, UNIT).partition("received notify")[2]


def test_who_is_no_peer_learns_nothing(dns_host: Host) -> None:
    """Not even which zones there are."""
    host = dns_host
    for options, source in (
        ([key()], STRANGER),
        ([], SECONDARY),
        ([key(OTHER)], SECONDARY),
        ([key(zone=REVERSE)], SECONDARY),
        ([key(OTHER, zone="nothing.example")], SECONDARY),
    ):
        for kind in ("SOA", "A", "AXFR"):
            known, unknown = (dig(host, f"{zone}", kind, *options, source=source) for zone in (ZONE, "nothing.example"))
            assert "10.42.5" not in known
            assert "SOA\t" not in known
            assert _shape(known) == _shape(unknown)
    logged = journal(host, "syscontd.service")
    assert f"{STRANGER} is no peer of zone {ZONE}" in logged
    assert "not signed with the key" in logged
    assert "the signature of peer bind does not hold" in logged
    for algorithm in ("hmac-md5", "hmac-sha1", "hmac-sha512"):
        assert "status: NOERROR" in dig(host, ZONE, "SOA", key(algorithm=algorithm))


def _shape(answer: str) -> list[str]:
    return re.findall(r"status: \w+|flags: [^;]*|ANSWER: \d|AUTHORITY: \d|Transfer failed", answer)


BAD: list[tuple[list[str], str]] = [
    (["zone", "create", "not a name"], "not the name of a zone"),
    (["zone", "create", "a..b"], "not the name of a zone"),
    (["zone", "create", "a\nb.example"], "not the name of a zone"),
    (["zone", "create", ZONE], "exists already"),
    (["zone", "create", "LAB.example."], "exists already"),
    (["zone", "set", ZONE, "peers.bind.key=not base64"], "peers.bind.key: not a key in base64"),
    (["zone", "set", ZONE, "peers.bind.address=ns1"], "peers.bind.address: not an address"),
    (["zone", "set", ZONE, "peers.a b.address=192.0.2.1"], "unknown zone key"),
    (["zone", "set", ZONE, "dns.nameservers=ns1 ns2"], "dns.nameservers: not the name"),
    (["zone", "set", ZONE, "dns.contact=nobody"], "dns.contact: not an address"),
    (["zone", "delete", ZONE], "is in use by syscontbr0"),
    (["zone", "record", "create", ZONE, "a b"], "not the name of a record"),
    (["zone", "record", "entry", "add", ZONE, "www", "A", "1.2.3"], "not data of A"),
    (["zone", "record", "entry", "add", ZONE, "www", "A", "1.2.3.4\n5"], "not data of A"),
    (["zone", "record", "entry", "add", ZONE, "www", "SOA", "a b 1 2 3 4 5"], "the zone has its own"),
    (["zone", "record", "entry", "add", ZONE, "www", "TYPE65000", "\\# 1 00"], "can't be checked"),
    (["zone", "record", "entry", "add", ZONE, "www", "A", "192.0.2.1"], "is there twice"),
    (["zone", "record", "entry", "add", ZONE, "www", "CNAME", "web1"], "CNAME has to be alone"),
    (["set", "syscontbr0", "dns.zone.forward=nothing.example"], "dns.zone.forward: no zone 'nothing.example'"),
    (["set", "syscontbr0", f"dns.zone.reverse.ipv4={ZONE}"], "not a reverse zone"),
]


def test_records_of_ones_own_and_what_is_wrong(host: Host) -> None:
    def zone(*argv: str) -> Any:
        return syscont(host, "network", "zone", *argv)

    zone("create", ZONE, "peers.here.address=127.0.0.0/8")
    syscont(host, "network", "set", "syscontbr0", f"dns.zone.forward={ZONE}")
    syscont(host, "config", "set", f"core.dns_address={PRIMARY}:5300")
    try:
        for name, kind, value in (("www", "A", "192.0.2.1"), ("@", "MX", "10 mail"), ("*.any", "TXT", '"a b" c')):
            zone("record", "create", ZONE, name)
            zone("record", "entry", "add", ZONE, name, kind, value)
        shown = zone("list", "--format", "json").stdout, zone("record", "list", ZONE, "--format", "json").stdout
        for argv, said in BAD:
            done = syscont(host, "network", *argv, check=False)
            assert done.returncode, argv
            assert said in done.stderr, done.stderr
        assert json.loads(zone("record", "list", ZONE, "--format", "json").stdout) == json.loads(shown[1])
        until(host, lambda: "192.0.2.1" in dig(host, f"www.{ZONE}", "A", "-p5300"))
        assert f"10 mail.{ZONE}." in dig(host, ZONE, "MX", "-p5300")
        assert '"a b" "c"' in dig(host, f"x.any.{ZONE}", "TXT", "-p5300")
        assert "NXDOMAIN" in dig(host, f"nobody.{ZONE}", "A", "-p5300")
        done = syscont(host, "config", "set", "core.dns_address=127.0.0.53", check=False)
        assert "core.dns_address: 127.0.0.53 can't be served at" in done.stderr
        assert "192.0.2.1" in dig(host, f"www.{ZONE}", "A", "-p5300")
    finally:
        syscont(host, "network", "unset", "syscontbr0", "dns.zone.forward")
        zone("delete", ZONE)
        syscont(host, "config", "unset", "core.dns_address")
    assert "5300" not in host.run(["ss", "-Hlnptu"]).stdout


def test_keys_of_peers_are_secret(host: Host) -> None:
    syscont(host, "network", "zone", "create", ZONE, f"peers.a.key={SECRET}")
    try:
        path = "/org/syscont/Manager/zone/lab_2eexample"
        argv = ["busctl", "get-property", "org.syscont.Manager", path, "org.syscont.NetworkZone", "Config"]
        assert host.run(argv).stdout == "a{ss} 0\n"
        denied = ["busctl", "call", "org.syscont.Manager", path, "org.syscont.NetworkZone", "GetConfig"]
        assert SECRET in host.run(denied).stdout
        done = host.run(["runuser", "-u", "alice", "--", *denied], check=False)
        assert done.returncode
        assert SECRET not in done.stdout + done.stderr
        assert syscont(host, "network", "zone", "get", ZONE, "peers.a.key").stdout == f"{SECRET}\n"
    finally:
        syscont(host, "network", "zone", "delete", ZONE)


def test_a_project_has_names_where_it_may(host: Host, launch: Launch) -> None:
    syscont(host, "project", "create", "lab")
    syscont(host, "network", "zone", "create", ZONE, "peers.here.address=127.0.0.0/8")
    syscont(host, "config", "set", f"core.dns_address={PRIMARY}:5300")
    syscont(host, "network", "set", "syscontbr0", f"dns.zone.forward={ZONE}")
    try:
        instance = launch(name="lab:guest1")
        name = f"guest1.{ZONE}"
        address = until(host, lambda: instance.address(4))
        until(host, lambda: address in dig(host, name, "A", "-p5300"))
        syscont(host, "project", "set", "lab", "restricted=true")
        until(host, lambda: "NXDOMAIN" in dig(host, name, "A", "-p5300"))
        done = syscont(host, "--project", "lab", "network", "zone", "create", "other.example", check=False)
        assert "project lab does not allow it" in done.stderr
        syscont(host, "project", "set", "lab", "restricted.networks.zones=example")
        until(host, lambda: address in dig(host, name, "A", "-p5300"))
    finally:
        syscont(host, "delete", "--force", "lab:guest1", check=False)
        syscont(host, "project", "delete", "lab", check=False)
        syscont(host, "network", "unset", "syscontbr0", "dns.zone.forward")
        syscont(host, "network", "zone", "delete", ZONE)
        syscont(host, "config", "unset", "core.dns_address")
    assert systemd_property(host, "syscontd.service", "ActiveState") == "active"
