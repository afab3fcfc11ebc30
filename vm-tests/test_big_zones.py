# SPDX-License-Identifier: Apache-2.0
"""Zones of a hundred thousand names, beside Knot that serves the same; and a thousand that all change. Each
number is the best that there was in several rounds by turns: the machine has other things to do."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from guests import program, python, syscont, systemd_property, until
from hosts import Host, Recipe
from secondaries import PRIMARY, SECONDARIES, SECRETS, ZONE, Secondary

pytestmark = pytest.mark.heavy
NAMES, CHANGES = 100_000, 1000
ROUNDS = 5
PATIENCE = 120.0
HERE = "127.0.0.12"
"""The address from which no key is needed."""
KNOT = SECONDARIES[1]
AGAIN = Secondary("again", "127.0.0.16", KNOT.command, KNOT.config, KNOT.whole)
"""A Knot that follows another one."""


@pytest.fixture(scope="module")
def host(host_kind: type[Host], deb: Path) -> Iterator[Host]:
    """With a zone that Knot follows."""
    with host_kind(recipe=Recipe(variant="dns")) as made:
        # Debian's own instances take port 53 of all bridges.
        made.run(["systemctl", "disable", "--now", "named.service", "knot.service", "nsd.service"])
        made.install_deb(deb)
        peer = [f"peers.knot.address={KNOT.address}", f"peers.knot.key={SECRETS['knot']}"]
        syscont(made, "network", "zone", "create", ZONE, *peer, f"peers.here.address={HERE}")
        syscont(made, "config", "set", f"core.dns_address={PRIMARY}")
        KNOT.start(made)
        yield made


def transfer(host: Host, server: str, kind: str = "AXFR") -> tuple[int, int, int]:
    """Records, bytes and milliseconds of one that dig makes."""
    said = host.run(["dig", "-b", HERE, f"@{server}", ZONE, kind], timeout=120).stdout
    found = re.search(r"XFR size: (\d+) records \(messages \d+, bytes (\d+)\)", said)
    took = re.search(r"Query time: (\d+) msec", said)
    assert found, said[-500:]
    assert took
    return int(found[1]), int(found[2]), int(took[1])


def serial(host: Host, server: str) -> int:
    said = host.run(["dig", "+short", "-b", HERE, f"@{server}", ZONE, "SOA"]).stdout.split()
    return int(said[2]) if said else 0


def same_serial(host: Host) -> bool:
    return serial(host, PRIMARY) == serial(host, KNOT.address)


def memory(host: Host) -> int:
    """Bytes of the daemon's that are in memory."""
    pid = systemd_property(host, "syscontd.service", "MainPID")
    found = re.search(r"VmRSS:\s+(\d+) kB", host.run(["cat", f"/proc/{pid}/status"]).stdout)
    assert found
    return int(found[1]) << 10


def test_a_hundred_thousand_names(host: Host) -> None:
    python(host, "zone_filler", ZONE, str(NAMES), timeout=600)
    until(host, lambda: transfer(host, KNOT.address)[0] > NAMES and same_serial(host), patience=PATIENCE)
    assert memory(host) < 200e6

    # dig as the client, of either by turns.
    times: dict[str, list[int]] = {PRIMARY: [], KNOT.address: []}
    for _ in range(ROUNDS):
        for server in times:
            count, _size, took = transfer(host, server)
            assert count == NAMES + 3
            times[server].append(took)
    print(f"AXFR to dig, milliseconds: ours {times[PRIMARY]}, Knot's {times[KNOT.address]}")
    assert min(times[PRIMARY]) <= 2 * max(min(times[KNOT.address]), 1)


def test_knot_is_served_as_by_knot(host: Host) -> None:
    """Knot as the client, of syscont and of Knot by turns; it says itself what a transfer took."""
    times: dict[str, list[float]] = {PRIMARY: [], KNOT.address: []}
    for number in range(ROUNDS):
        for server in times:
            times[server].append(follow_anew(host, server, f"{number}-{server}"))
    print(f"AXFR to Knot, seconds: ours {times[PRIMARY]}, Knot's {times[KNOT.address]}")
    assert min(times[PRIMARY]) <= 2 * min(times[KNOT.address]) + 0.01, "0.01 is what Knot counts in"


def follow_anew(host: Host, server: str, name: str) -> float:
    """Seconds that a Knot with nothing yet takes for the whole zone."""
    config = KNOT.config("unused.", SECRETS["knot"], AGAIN.address).replace(PRIMARY, server)
    config = config.replace(f"via: {AGAIN.address}", f"via: {HERE}").replace("    key: unused.\nacl", "acl")
    folder, unit = f"/var/lib/again-{name}", f"again-{name}.service"
    host.run(["ip", "address", "replace", f"{AGAIN.address}/32", "dev", "lo"])
    host.run(["mkdir", "-p", folder])
    host.write_text(f"/etc/again-{name}.conf", config.replace("/var/lib/secondary-knot", folder))
    host.run(["systemd-run", "-q", f"--unit={unit}", "knotd", "-c", f"/etc/again-{name}.conf"])

    def took() -> str:
        log = host.run(["journalctl", "--no-pager", "-o", "cat", "-u", unit]).stdout
        found = re.search(r"AXFR, incoming,.* finished,.* ([0-9.]+) seconds", log)
        return found[1] if found else ""

    seconds = float(until(host, took, patience=PATIENCE))
    host.run(["systemctl", "stop", unit])
    return seconds


def test_one_change_is_little(host: Host) -> None:
    before = serial(host, PRIMARY)
    syscont(host, "network", "zone", "record", "create", ZONE, "new")
    syscont(host, "network", "zone", "record", "entry", "add", ZONE, "new", "A", "192.0.2.1")
    until(host, lambda: serial(host, PRIMARY) != before)
    _, size, _ = transfer(host, PRIMARY, f"IXFR={before}")
    assert size < 1024
    until(host, lambda: same_serial(host), patience=PATIENCE)


def test_a_restart_is_not_noticed(host: Host) -> None:
    """Beyond what it takes to read so much."""
    before = serial(host, PRIMARY)
    host.run(["systemctl", "restart", "syscontd.service"], timeout=60)
    delays = json.loads(python(host, "delays", "4").stdout)
    print(f"a small call, longest of {len(delays)}: {delays[:3]}")
    assert delays[0] < 0.5 * host.slowness
    assert serial(host, PRIMARY) == before
    assert memory(host) < 200e6


def test_a_thousand_names_change(host: Host) -> None:
    """In ten seconds, of a hundred thousand. All end where they should, by few serials, and nobody waits for it."""
    first = serial(host, PRIMARY)
    with host.spawn(program("delays", "13")) as watcher:
        spent = float(python(host, "zone_filler", ZONE, str(CHANGES), "10", timeout=120).stdout)
        assert watcher.stdout is not None
        delays = json.loads(watcher.stdout.read())
    until(host, lambda: same_serial(host) and moved(host), patience=PATIENCE)
    serials = serial(host, PRIMARY) - first
    print(f"changed in {spent:.1f} s by {serials} serials; a small call, longest of {len(delays)}: {delays[:5]}")
    lines = host.run(["dig", "-b", HERE, f"@{KNOT.address}", ZONE, "AXFR"], timeout=120).stdout.splitlines()
    found = {line.split()[0]: line.split()[-1] for line in lines if re.match(r"host\d", line)}
    assert found == {f"host{number}.{ZONE}.": address(number) for number in range(NAMES)}
    assert spent < 10.5
    assert serials <= 2 * 10 + 5
    assert delays[0] < 0.05 * host.slowness


def address(number: int) -> str:
    """As on_host/zone_filler.py has it, once the first of them have changed."""
    return ".".join(str(part) for part in (11 if number < CHANGES else 10, *number.to_bytes(3, "big")))


def moved(host: Host) -> bool:
    last = CHANGES - 1
    said = host.run(["dig", "+short", "-b", HERE, f"@{KNOT.address}", f"host{last}.{ZONE}", "A"]).stdout
    return said == f"{address(last)}\n"
