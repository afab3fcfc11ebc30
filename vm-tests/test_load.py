# SPDX-License-Identifier: Apache-2.0
"""A hundred of everything at once: nothing fails, and nothing is left."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from guests import python, syscont, until
from hosts import Host
from leftovers import Snapshot, main_pid, mark, nothing_happens, settled

CROWD = 100
SPARE_DESCRIPTORS = 5
NAMES = [f"crowd{number}" for number in range(CROWD)]


@pytest.fixture
def empty_host(host: Host, busybox: str) -> Iterator[Host]:
    """With all in place that the first instance brings: network, dnsmasq, machined."""
    syscont(host, "launch", "--wait", busybox, "first")
    syscont(host, "delete", "--force", "first")
    yield host
    syscont(host, "delete", "--force", *NAMES, check=False, timeout=300)


def at_once(host: Host, line: Callable[[str], list[str]]) -> list[str]:
    """One command for each name, all started before the first has ended; what each printed."""
    lines = json.dumps([["syscont", *line(name)] for name in NAMES])
    begin = time.monotonic()
    answers = json.loads(python(host, "crowd", input=lines, timeout=600).stdout)
    print(f"{line('NAME')} x {CROWD}: {time.monotonic() - begin:.1f} s")
    failures = {name: answer for name, answer in zip(NAMES, answers, strict=True) if answer[0] or answer[2]}
    for name in failures:
        print(host.run(["journalctl", "--no-pager", "-o", "short-monotonic", "-u", f"syscont@{name}"]).stdout)
    assert failures == {}
    return [answer[1] for answer in answers]


def descriptors(snapshot: Snapshot) -> int:
    return sum(snapshot["daemon's descriptors"].values())


def addresses(host: Host) -> list[str]:
    """Those of the host's own links, and those that dnsmasq has given away to our crowd."""
    lines = [line.split() for line in host.run(["ip", "-o", "address"]).stdout.splitlines()]
    links = [f"{link} {address}" for _, link, _, address, *_ in lines if not link.startswith("veth")]
    leases = host.sh("cat /var/lib/syscont/networks/*/leases 2>/dev/null || :").splitlines()
    return [*links, *(line for line in leases if "crowd" in line)]


@pytest.mark.heavy
def test_a_hundred_at_once(empty_host: Host, busybox: str) -> None:
    host = empty_host
    before, known = settled(host), addresses(host)
    with nothing_happens(host, but=("daemon's descriptors",)):
        at_once(host, lambda name: ["launch", "--wait", busybox, name])
        seen = {one["name"]: one for one in json.loads(syscont(host, "list", "--format", "json").stdout)}
        assert {seen[name]["state"] for name in NAMES} == {"running"}
        assert len({seen[name]["idBase"] for name in NAMES}) == CROWD
        said = at_once(host, lambda name: ["exec", name, "--", "sh", "-c", "hostname; cat /run/host/container-uuid"])
        assert [text.split() for text in said] == [[name, seen[name]["uuid"]] for name in NAMES]
        at_once(host, lambda name: ["delete", "--force", name])
        assert "crowd" not in syscont(host, "list", "--format", "csv", "-c", "n").stdout
    after = settled(host)
    assert abs(descriptors(after) - descriptors(before)) <= SPARE_DESCRIPTORS
    until(host, lambda: addresses(host) == known)


@pytest.mark.heavy
def test_a_hundred_started_and_stopped_at_once(empty_host: Host, busybox: str) -> None:
    """And by one command, which is what people do."""
    host = empty_host
    at_once(host, lambda name: ["create", busybox, name])
    pid, place = main_pid(host), mark(host)
    syscont(host, "start", "--all", timeout=300)
    at_once(host, lambda name: ["restart", "--force", name])
    syscont(host, "stop", "--all", "--force", timeout=300)
    states = syscont(host, "list", "--format", "csv", "-c", "s", "crowd").stdout.split()
    assert states == ["stopped"] * CROWD
    assert main_pid(host) == pid
    assert "Traceback" not in place.since()
