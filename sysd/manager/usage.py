# SPDX-License-Identifier: Apache-2.0
"""What instances take: asked for when somebody wants to know, of systemd, the kernel and QEMU, and not before.

Each source has its time. What does not answer leaves out what it alone knows, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from sysd.manager.interfaces import names_of
from sysd.manager.quotas import Quotas
from sysd.manager.table import Table
from sysd.model.devices.disk import is_root
from sysd.model.instance import Instance, Kind, host_interface_name, interface_name
from sysd.model.usage import Disk, InstanceUsage, Memory, Traffic
from sysd.network import counters
from sysd.network.counters import Counters
from sysd.runtime.guest import Guest
from sysd.runtime.vm import parts, unit, usage
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.machine import MachineGuest
from sysd.storage import qcow2
from sysd.units.accounts import Account, account
from sysd.units.systemd import Systemd


class Usages:
    def __init__(self, table: Table, systemd: Systemd, quotas: Quotas) -> None:
        self._table = table
        self._systemd = systemd
        self._quotas = quotas
        self._looking: dict[str, asyncio.Task[InstanceUsage]] = {}

    async def of(self, reference: str) -> InstanceUsage:
        """Everybody may ask, as often as they like: who asks while another does gets the same answer."""
        instance = self._table.get(reference)
        looking = self._looking.get(instance.uuid)
        if looking is None:
            looking = self._looking[instance.uuid] = asyncio.create_task(self._look(instance))
            looking.add_done_callback(lambda _: self._looking.pop(instance.uuid))
        return await asyncio.shield(looking)

    async def _look(self, instance: Instance) -> InstanceUsage:
        expanded, guest = self._table.expanded(instance), self._table.live(instance).guest
        if guest is None:
            return InstanceUsage(disks=self._disks(expanded, None))
        counted = await account(self._systemd, instance.unit)
        if isinstance(guest, MachineGuest):
            return await _machine(guest, counted)
        return InstanceUsage(
            cpu=counted.cpu,
            memory=Memory(counted.memory, counted.peak, counted.limit, counted.swap, counted.memory),
            tasks=counted.tasks,
            disks=self._disks(expanded, counted),
            interfaces=await asyncio.to_thread(_interfaces, expanded, guest),
        )

    def _disks(self, expanded: Instance, counted: Account | None) -> dict[str, Disk]:
        """The root disk of a container, or of what does not run."""
        root = next((name for name, options in expanded.devices.items() if is_root(options)), "")
        if not root:
            return {}
        machine = expanded.kind is Kind.VM
        found = qcow2.usage(unit.disk_path(expanded)) if machine else self._quotas.usage(expanded)
        used, size = (found.used, found.most or None) if found else (None, None)
        read, written = (counted.read, counted.written) if counted else (None, None)
        disk = Disk(used, size, read, written)
        return {} if disk == Disk() else {root: disk}


async def _machine(guest: MachineGuest, counted: Account) -> InstanceUsage:
    made = parts.load(guest.spec.get("parts", {}))
    memory, disks, machine = await asyncio.gather(
        usage.memory(guest, counted.memory, counted.peak, counted.swap),
        usage.disks(guest, made),
        usage.running(guest),
    )
    traffic = await asyncio.to_thread(_of_machine, guest, made)
    return InstanceUsage(counted.cpu, memory, counted.tasks, disks, traffic, machine)


def _of_machine(guest: MachineGuest, made: Mapping[str, Part]) -> dict[str, Traffic]:
    """By device: counted at the host's ends, or where QEMU is."""
    links = {name: part.netdev for name, part in made.items() if part.netdev}
    found = _of_host({name: netdev["ifname"] for name, netdev in links.items() if "request" not in netdev})
    own = {name: netdev["ifname"] for name, netdev in links.items() if "request" in netdev}
    with contextlib.suppress(OSError):
        seen = counters.of_guest(guest.pidfd, own.values()) if own else {}
        found |= {name: _traffic(seen[link]) for name, link in own.items() if link in seen}
    return found


def _interfaces(expanded: Instance, guest: Guest) -> dict[str, Traffic]:
    """By device: counted at the host's ends, and in the guest where there is none."""
    names = names_of(expanded.devices)
    found = _of_host({name: link for name in names if (link := host_interface_name(expanded, name))})
    inside = {name: interface_name(expanded, name) for name in names if name not in found}
    with contextlib.suppress(OSError):
        seen = counters.of_guest(guest.pidfd, inside.values()) if inside else {}
        found |= {name: _traffic(seen[link]) for name, link in inside.items() if link in seen}
    return found


def _of_host(links: Mapping[str, str]) -> dict[str, Traffic]:
    seen = counters.of_host(links.values())
    return {name: _from_there(seen[link], link) for name, link in links.items() if link in seen}


def _from_there(seen: Counters, link: str) -> Traffic:
    """What the host's end has sent its guest has received."""
    return Traffic(seen.sent_bytes, seen.sent_packets, seen.received_bytes, seen.received_packets, link)


def _traffic(seen: Counters) -> Traffic:
    return Traffic(seen.received_bytes, seen.received_packets, seen.sent_bytes, seen.sent_packets)
