# SPDX-License-Identifier: Apache-2.0
"""500 ports in one network of OVN: what one more costs us, and whether the daemon answers meanwhile. Databases and
daemons are real; what packets would need of a kernel is not asked for here."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guests import syscont, until
from hosts import Host, Recipe
from test_ovn import READY

pytestmark = pytest.mark.heavy

EACH, INSTANCES, MORE = 20, 25, 11
OWN_TIME, ANSWER = 0.020, 0.5
"""Seconds: of the daemon's processor for an interface, and for which anybody may wait for an answer."""
RECORDS = "ovsdb-tool show-log {} | grep -c ^record"
NORTH = "/var/lib/ovn/ovnnb_db.db"


@pytest.fixture(scope="module")
def host(host_kind: type[Host], deb: Path) -> Iterator[Host]:
    with host_kind(recipe=Recipe(variant="ovn-cards")) as one:
        one.sh(READY)
        one.install_deb(deb)
        syscont(one, "image", "build", "busybox")
        addresses = ("ipv4.address=10.50.0.1/16", "ipv6.address=fd00:50::1/64")
        syscont(one, "network", "create", "blue", "--type", "ovn", "network=none", *addresses)
        syscont(one, "profile", "create", "many")
        for number in range(EACH):
            syscont(one, "profile", "device", "add", "many", f"n{number}", "nic", "network=blue", f"name=n{number}")
        for number in range(INSTANCES):
            syscont(one, "create", "busybox", f"c{number}", "--no-profiles")
            syscont(one, "profile", "add", f"c{number}", "many")
        yield one


def ports(host: Host) -> int:
    return host.sh("ovn-nbctl --bare --columns=name list Logical_Switch_Port").count("nic-")


def spent(host: Host) -> float:
    """Seconds of processor that the daemon has had, in all its threads."""
    pid = host.sh("systemctl show --property=MainPID --value syscontd").strip()
    return sum(int(line.split()[0]) for line in host.sh(f"cat /proc/{pid}/task/*/schedstat").splitlines()) / 1e9


def records(host: Host, database: str) -> int:
    return int(host.sh(RECORDS.format(database)))


def settled(host: Host) -> None:
    """Until nothing is done any more in the background."""

    def quiet() -> bool:
        before = spent(host)
        time.sleep(2.0)
        return spent(host) - before < 0.02

    until(host, quiet, patience=120.0)


def cost(host: Host, name: str, *options: str) -> float:
    """Of an interface that comes to a container which runs, until it is there."""
    settled(host)
    before = spent(host)
    syscont(host, "device", "add", name, "lan", "nic", *options)
    found = spent(host) - before
    syscont(host, "device", "remove", name, "lan")
    return found


def test_one_more_costs_little(host: Host) -> None:
    """One transaction of ours each, and little time, beyond what an interface costs that is in nobody's hands. What is
    looked at later is so once for many."""
    until(host, lambda: ports(host) == EACH * INSTANCES, patience=120.0)
    syscont(host, "launch", "busybox", "more", "--no-profiles")
    pairs = [(cost(host, "more", "nictype=p2p"), cost(host, "more", "network=blue")) for _ in range(MORE)]
    costs = sorted(blue - other for other, blue in pairs)
    print("own time of one more, in ms:", [round(1000 * one, 1) for one in costs], pairs)
    settled(host)
    north = records(host, NORTH)
    syscont(host, "device", "add", "more", "lan", "nic", "network=blue", "ipv4.address=10.50.9.9")
    settled(host)
    # And northd's, which says that it has seen it.
    done = records(host, NORTH) - north
    syscont(host, "delete", "--force", "more")
    assert done <= 2
    assert costs[MORE // 2] <= OWN_TIME


def answers_in(host: Host) -> float:
    """The longest that anybody waits, of some who ask what there is."""
    found = []
    for _ in range(20):
        began = time.monotonic()
        assert len(json.loads(syscont(host, "list", "--format", "json").stdout)) == INSTANCES
        found.append(time.monotonic() - began)
    return max(found)


def test_it_answers_while_others_are_busy(host: Host) -> None:
    """northd has all to do at once, or the database is away, for which it says so and goes on later."""
    usual = answers_in(host)
    host.sh("ovn-appctl -t ovn-northd inc-engine/recompute; pkill -STOP ovn-northd")
    host.run(["syscont", "network", "set", "blue", "dns.domain=else"])
    assert answers_in(host) < usual + ANSWER
    host.sh("pkill -CONT ovn-northd")
    host.sh("kill -STOP $(cat /run/ovn/ovnnb_db.pid)")
    try:
        with host.spawn(["syscont", "network", "set", "blue", "dns.domain=more"]) as waiting:
            assert answers_in(host) < usual + ANSWER
            said = waiting.communicate(timeout=60)[1]
        assert waiting.returncode != 0
        assert "northbound database" in said
    finally:
        host.sh("kill -CONT $(cat /run/ovn/ovnnb_db.pid)")
    syscont(host, "network", "set", "blue", "dns.domain=more")
    settled(host)
    syscont(host, "device", "add", "c1", "more", "nic", "network=blue")
    until(host, lambda: ports(host) > EACH * INSTANCES, patience=30.0)
