# SPDX-License-Identifier: Apache-2.0
"""What an instance takes, as org.syscont.Instance's GetState has it. What nobody can tell is left out.

CPUUsageNSec, MemoryCurrent, MemoryPeak, MemoryLimit, MemorySwapCurrent, MemoryHost and TasksCurrent are t. Disks is
a{sa{st}}, of each Used, Size, Read and Written. Interfaces is a{sa{sv}}, of each ReceivedBytes, ReceivedPackets,
SentBytes and SentPackets (t), and Link (s). Machine is a{sv}: Accelerator, Why and Boot (s), SecureBoot and Agent (b),
CID and Processors (u), Cookies (a{tu}). sysd.model.usage says what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping

from dbus_next import Variant

from sysd.model.usage import Disk, InstanceUsage, MachineUsage, Number, Traffic


def state(value: InstanceUsage) -> dict[str, Variant]:
    memory = value.memory
    numbers = {
        "CPUUsageNSec": value.cpu,
        "MemoryCurrent": memory.current,
        "MemoryPeak": memory.peak,
        "MemoryLimit": memory.limit,
        "MemorySwapCurrent": memory.swap,
        "MemoryHost": memory.host,
        "TasksCurrent": value.tasks,
    }
    found = {name: Variant("t", number) for name, number in _known(numbers).items()}
    found["Disks"] = Variant("a{sa{st}}", {name: _disk(disk) for name, disk in value.disks.items()})
    found["Interfaces"] = Variant("a{sa{sv}}", {name: _traffic(one) for name, one in value.interfaces.items()})
    if value.machine:
        found["Machine"] = Variant("a{sv}", _machine(value.machine))
    return found


def _known(numbers: Mapping[str, Number]) -> dict[str, int]:
    return {name: number for name, number in numbers.items() if number is not None}


def _disk(disk: Disk) -> dict[str, int]:
    return _known({"Used": disk.used, "Size": disk.size, "Read": disk.read, "Written": disk.written})


def _traffic(traffic: Traffic) -> dict[str, Variant]:
    return {
        "ReceivedBytes": Variant("t", traffic.received_bytes),
        "ReceivedPackets": Variant("t", traffic.received_packets),
        "SentBytes": Variant("t", traffic.sent_bytes),
        "SentPackets": Variant("t", traffic.sent_packets),
        "Link": Variant("s", traffic.link),
    }


def _machine(machine: MachineUsage) -> dict[str, Variant]:
    found = {
        "Accelerator": Variant("s", machine.accelerator),
        "Why": Variant("s", machine.why),
        "Boot": Variant("s", machine.boot),
        "SecureBoot": Variant("b", machine.secure_boot),
        "CID": Variant("u", machine.cid),
        "Agent": Variant("b", machine.agent),
        "Cookies": Variant("a{tu}", dict(machine.cookies)),
    }
    if machine.processors is not None:
        found["Processors"] = Variant("u", machine.processors)
    return found
