# SPDX-License-Identifier: Apache-2.0
"""USB devices for virtual machines, on a machine that has them. The guest's disk is empty: QEMU says what it has."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Launch
from guests import Instance, empty_image, python, syscont, until
from hosts import Host, Recipe, VmHost
from test_hardware import SERIAL, Sockets

pytestmark = [pytest.mark.needs_hardware, pytest.mark.heavy]

NAME = "QEMU USB SERIAL"


@pytest.fixture(scope="module")
def machine_host(host_kind: type[Host], deb: Path) -> Iterator[VmHost]:
    with host_kind(recipe=Recipe(variant="hardware-vms")) as one:
        assert isinstance(one, VmHost)
        one.install_deb(deb)
        yield one


@pytest.fixture(scope="module")
def host(machine_host: VmHost) -> Host:
    return machine_host


@pytest.fixture(scope="module")
def busybox(host: Host) -> str:
    """In its place, for launch."""
    return empty_image(host)


@pytest.fixture
def usb(machine_host: VmHost) -> Iterator[Sockets]:
    sockets = Sockets(machine_host)
    yield sockets
    sockets.empty()


def seen(one: Instance) -> str:
    """What is in the sockets of a machine, as its QEMU has it."""
    path = f"/run/syscont/vm/{one.seen()['uuid']}.control"
    said = json.loads(python(one.host, "ask_qemu", path, "x-query-usb").stdout)
    return str(said["human-readable-text"])


def test_usb_devices_come_and_go(host: Host, launch: Launch, usb: Sockets) -> None:
    one = launch("", "--vm")
    syscont(host, "device", "add", one.name, "serial", "usb", *SERIAL)
    assert NAME not in seen(one).upper()
    for _ in range(2):
        usb.serial()
        until(host, lambda: NAME in seen(one).upper())
        usb.empty()
        until(host, lambda: NAME not in seen(one).upper())


def test_usb_devices_are_there_at_the_start(host: Host, launch: Launch, usb: Sockets) -> None:
    one = launch("", "--vm", "--device", ",".join(("serial", "type=usb", *SERIAL, "required=true")), verb="create")
    assert "no such device is there" in one.do("start", check=False).stderr
    usb.serial()
    one.do("start")
    assert NAME in seen(one).upper()
    assert "189:" in one.systemd("DeviceAllow") or "/dev/bus/usb/" in one.systemd("DeviceAllow")
