# SPDX-License-Identifier: Apache-2.0
"""A Debian that goes to and fro, twenty times, between two hosts: how long it is not heard, and that nothing of it is
lost; and one that writes to its memory faster than the network takes it. On container hosts it is emulated, on VM hosts
their processors run it (KVM).

pytest vm-tests/test_twenty_moves.py --heavy -s --host-kind vm --needs-only (MOVES=20 if not set)
"""

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import busy
import far_host
import pytest
from conftest import imported
from far_host import names
from guests import Instance, syscont
from hosts import ContainerHost, Host, VmHost, images

# A guest in a guest takes minutes to boot.
pytestmark = pytest.mark.heavy

MOVES = int(os.environ.get("MOVES", "20"))
BOOT = 240.0
SILENCE = 0.5
"""Seconds."""
# On a host that is emulated itself, clocks of newer processors stand still in KVM's guests; QEMU heeds its last -cpu.
CPU = ("-c", "raw.qemu=-cpu qemu64")


@pytest.fixture(scope="module", params=[ContainerHost, pytest.param(VmHost, marks=pytest.mark.needs_kvm)])
def hosts(request: pytest.FixtureRequest, deb: Path) -> Iterator[tuple[Host, Host]]:
    with far_host.installed(request.param, deb, "vms") as base, far_host.joined(base, bridged=True) as both:
        yield both


@pytest.fixture(scope="module")
def listener(hosts: tuple[Host, Host]) -> Iterator[busy.Listener]:
    one = busy.Listener(hosts[0])
    yield one
    one.close()


@pytest.fixture(scope="module")
def guest(hosts: tuple[Host, Host], listener: busy.Listener) -> Iterator[Instance]:
    """It beats and talks; it does not write."""
    near = hosts[0]
    options = CPU if isinstance(near, VmHost) else ()
    one = busy.launch(near, imported(near, "debian", *images.debian_vm(), "--vm"), "busy", BOOT, *options)
    busy.begin(one, "beat", "talk")
    yield one
    for name in ("busy", "far:busy"):
        syscont(near, "delete", "--force", name, check=False)


def move(hosts: tuple[Host, Host], listener: busy.Listener, there: bool, *works: str) -> busy.Heard:
    near, far = hosts
    time.sleep(2)
    listener.since()
    time.sleep(2)
    began = time.monotonic()
    syscont(near, "move", *(("busy", "far:") if there else ("far:busy", "local:")), timeout=600)
    took = time.monotonic() - began
    time.sleep(2)
    heard = listener.since()
    print(f"{took:.1f} s, {heard}", flush=True)
    busy.check(Instance(far if there else near, "busy"), *works)
    assert names(near) == ([] if there else ["busy"])
    assert not heard.broken
    assert heard.stream
    return heard


def to_and_fro(hosts: tuple[Host, Host], listener: busy.Listener, *works: str) -> None:
    """What is asserted of silence is what an emulated guest on a machine of two processors can do."""
    heard = [move(hosts, listener, number % 2 == 0, *works) for number in range(MOVES)]
    silences = sorted(each.longest for each in heard)
    print(f"longest silence: median {statistics.median(silences):.3f} s, {silences[0]:.3f} to {silences[-1]:.3f} s")
    assert statistics.median(silences) < SILENCE
    assert statistics.median(each.missing for each in heard) == 0


def test_an_idle_guest(hosts: tuple[Host, Host], guest: Instance, listener: busy.Listener) -> None:
    to_and_fro(hosts, listener, "beat", "talk")


def test_a_guest_that_writes(hosts: tuple[Host, Host], guest: Instance, listener: busy.Listener) -> None:
    busy.begin(guest, "write")
    to_and_fro(hosts, listener, "beat", "talk", "write")


def test_a_guest_that_is_faster_than_the_network(
    hosts: tuple[Host, Host], guest: Instance, listener: busy.Listener
) -> None:
    busy.end(guest, "write")
    busy.begin(guest, "dirty")
    syscont(hosts[0], "config", "set", "busy", "migration.bandwidth=16MiB")
    move(hosts, listener, True, "beat", "talk", "dirty")
