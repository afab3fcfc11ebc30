# SPDX-License-Identifier: Apache-2.0
"""Virtual machines in networks of OVN, with containers: minutes, as what runs on the host is emulated twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import imported
from guests import Instance, syscont, until
from hosts import Host, Recipe, images
from test_ovn import READY, UPLINK, launched, reaches

pytestmark = [pytest.mark.needs_ovn, pytest.mark.heavy]

BOOT = 60.0


@pytest.fixture(scope="module")
def host(host_kind: type[Host], deb: Path) -> Iterator[Host]:
    with host_kind(recipe=Recipe(variant="ovn-cards")) as one:
        one.sh(READY)
        one.install_deb(deb)
        syscont(one, "network", "set", "syscontbr0", *UPLINK)
        syscont(one, "image", "build", "busybox")
        addresses = ("ipv4.address=10.50.0.1/24", "ipv4.nat=true", "ipv6.address=fd00:50::1/64")
        syscont(one, "network", "create", "blue", "--type", "ovn", "network=syscontbr0", *addresses)
        yield one


def test_a_machine_is_in_one(host: Host) -> None:
    debian = imported(host, "debian", *images.debian_vm(), "--vm")
    one = launched(host, "one", "blue")
    more = ("-c", "boot.mode=direct", "-c", "limits.memory=512MiB", "-d", "eth0,ipv4.address=10.50.0.40")
    syscont(host, "launch", debian, "vm1", "--vm", "--network", "blue", "--no-profiles", *more)
    machine = Instance(host, "vm1")
    until(host, lambda: reaches(one, "10.50.0.40"), patience=BOOT)
    until(host, lambda: reaches(one, "vm1.syscont", "-4"))
    assert "tap" in host.sh("ovs-vsctl list-ports br-int | grep ^vethsc | xargs -n 1 ip -details link show")
    machine.do("stop", "--force")
    assert not reaches(one, "10.50.0.40")
    machine.do("start")
    until(host, lambda: reaches(one, "10.50.0.40"), patience=BOOT)
    for each in ("vm1", "one"):
        syscont(host, "delete", "--force", each)
    syscont(host, "network", "delete", "blue")
    assert host.sh("ovs-vsctl list-br").split() == ["br-int"]
