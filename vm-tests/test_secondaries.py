# SPDX-License-Identifier: Apache-2.0
"""Network zones, with Knot and NSD as secondaries beside BIND: each follows what changes, record by record."""

import itertools
import re
from pathlib import Path

import pytest
from conftest import MakeHost
from guests import syscont, until
from hosts import Host
from secondaries import PRIMARY, SECONDARIES, SECRETS, ZONE, Secondary, published

PATIENCE = 20.0


def whole_size(host: Host) -> int:
    """Bytes of a transfer of the whole zone."""
    first = SECONDARIES[0]
    key = f"-yhmac-sha256:{first.key}:{SECRETS[first.name]}"
    found = re.search(r"bytes (\d+)", host.run(["dig", "-b", first.address, f"@{PRIMARY}", key, ZONE, "AXFR"]).stdout)
    assert found
    return int(found[1])


@pytest.fixture
def lab(make_host: MakeHost, deb: Path) -> Host:
    """A host with a zone, a network that names it, and three that follow it."""
    host = make_host(deb=False, variant="dns")
    # Debian's own instances take port 53 of all bridges.
    host.run(["systemctl", "disable", "--now", "named.service", "knot.service", "nsd.service"])
    host.install_deb(deb)
    peers = [(f"peers.{each.name}.address={each.address}", f"peers.{each.name}.key={SECRETS[each.name]}")
             for each in SECONDARIES]  # fmt: skip
    syscont(host, "network", "zone", "create", ZONE, *itertools.chain(*peers), "dns.nameservers=ns1.example.com")
    syscont(host, "config", "set", f"core.dns_address={PRIMARY}")
    syscont(host, "network", "set", "syscontbr0", "ipv4.address=10.42.5.1/24", f"dns.zone.forward={ZONE}")
    for each in SECONDARIES:
        each.start(host)
    for each in SECONDARIES:
        until(host, lambda each=each: each.records(host) == published(host), patience=PATIENCE)  # type: ignore[misc]
    return host


def change(host: Host, verb: str, number: int) -> None:
    name = f"r{number}"
    if verb == "add":
        syscont(host, "network", "zone", "record", "create", ZONE, name)
    syscont(host, "network", "zone", "record", "entry", verb, ZONE, name, "A", f"192.0.2.{number}")


def ours(found: set[str]) -> set[str]:
    """The addresses that change gave names."""
    return {line.split()[-1] for line in found if line.split()[-1].startswith("192.0.2.")}


def all_follow(host: Host, wanted: set[str]) -> None:
    for each in SECONDARIES:
        until(host, lambda each=each: ours(each.records(host)) == wanted, patience=PATIENCE)  # type: ignore[misc]
        assert each.records(host) == published(host)


def test_a_hundred_changes(lab: Host) -> None:
    for number in range(60):
        change(lab, "add", number)
    all_follow(lab, {f"192.0.2.{number}" for number in range(60)})
    # From here on less changes at a time than there is: of a small zone, all of it is less to send. And what is told by
    # the number of bytes can be.
    assert whole_size(lab) >= 1000
    before = {each.name: each.whole_transfers(lab) for each in SECONDARIES}
    for number in range(50):
        change(lab, "remove", number)
        change(lab, "add", 100 + number)
    all_follow(lab, {f"192.0.2.{number}" for number in (*range(50, 60), *range(100, 150))})
    for each in SECONDARIES:
        assert each.whole_transfers(lab) == before[each.name], f"{each.name} did not follow by changes alone"


def test_instances_come_and_go(lab: Host) -> None:
    syscont(lab, "image", "build", "busybox")
    syscont(lab, "launch", "busybox", "web1", "-d", "eth0,type=nic,network=syscontbr0,ipv4.address=10.42.5.77")

    def known(each: Secondary) -> bool:
        return any(line.startswith(f"web1.{ZONE}.") and "10.42.5.77" in line for line in each.records(lab))

    for each in SECONDARIES:
        until(lab, lambda each=each: known(each), patience=PATIENCE)  # type: ignore[misc]
    syscont(lab, "delete", "--force", "web1")
    for each in SECONDARIES:
        until(lab, lambda each=each: not known(each), patience=PATIENCE)  # type: ignore[misc]


def test_they_find_each_other_again(lab: Host) -> None:
    """A secondary that was away asks for what it missed, or is told at the next change; so with the primary."""
    away = SECONDARIES[1]
    lab.run(["systemctl", "kill", "--signal=STOP", away.unit])
    change(lab, "add", 1)
    lab.run(["systemctl", "restart", "syscontd.service"])
    change(lab, "add", 2)
    lab.run(["systemctl", "kill", "--signal=CONT", away.unit])
    change(lab, "add", 3)
    all_follow(lab, {"192.0.2.1", "192.0.2.2", "192.0.2.3"})
