# SPDX-License-Identifier: Apache-2.0
"""What an instance takes, and how its machine runs, as info shows it. What nobody can tell is not shown."""

from __future__ import annotations

from sysd.model.sizes import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters

    Rows = list[tuple[str, str]]


def rows(item: Parameters) -> Rows:
    usage = _object(item.get("usage"))
    tasks, processors = usage.get("tasks"), _object(usage.get("machine")).get("processors")
    return [
        ("CPU time", _seconds(usage.get("cpuNSec"))),
        ("Processors", str(processors or "")),
        ("Memory", _memory(_object(usage.get("memory")))),
        # Of a virtual machine they are QEMU's.
        ("Tasks", str(tasks or "") if not usage.get("machine") else ""),
        ("Disk", "\n".join(_disks(item))),
        ("Network", "\n".join(_network(_object(usage.get("interfaces"))))),
    ]


def machine_rows(item: Parameters) -> Rows:
    """Nothing for a container, or a machine that does not run."""
    machine = _object(_object(item.get("usage")).get("machine"))
    if not machine:
        return []
    why, agent = machine.get("why"), "there" if machine.get("agent") else "not there"
    emulated = f"none: emulated, which is slow ({why})" if why else "none: emulated, which is slow"
    return [
        ("Accelerator", "KVM" if machine.get("accelerator") == "kvm" else emulated),
        ("Boot", _boot(machine)),
        ("vsock CID", str(machine.get("cid") or "")),
        ("Guest agent", agent),
    ]


def cookies(item: Parameters) -> str:
    """Nothing for an instance that does not run."""
    if not item.get("leader"):
        return ""
    found = _object(_object(item.get("usage")).get("machine")).get("cookies") or ()
    if any(one.get("cookie") for one in found):
        return ", ".join(f"{_cookie(one.get('cookie'))} on {_count('vCPU', one.get('processors'))}" for one in found)
    return _cookie(item.get("coreCookie"))


def _cookie(value: object) -> str:
    return f"cookie {value:#x}" if isinstance(value, int) and value else "off"


def _boot(machine: Parameters) -> str:
    if machine.get("boot") == "direct":
        return "direct, without firmware"
    return f"UEFI, secure boot {'on' if machine.get('secureBoot') else 'off'}" if machine.get("boot") else ""


def _seconds(nanoseconds: object) -> str:
    return f"{nanoseconds / 1_000_000_000:.3f}s" if isinstance(nanoseconds, int) else ""


def _memory(memory: Parameters) -> str:
    """``120.00MiB of 1.00GiB (384.00MiB of the host's, 400.00MiB at most)``"""
    current, host, peak, swap = (memory.get(name) for name in ("current", "host", "peak", "swap"))
    beside = []
    if host is not None and host != current:
        beside.append(f"{format_size(host)} of the host's")
    if peak is not None:
        beside.append(f"{format_size(peak)} at most")
    if swap:
        beside.append(f"{format_size(swap)} of swap")
    used = _used(current, memory.get("limit"))
    if not used or not beside:
        return used or ", ".join(beside)
    return f"{used} ({', '.join(beside)})"


def _used(used: int | None, most: int | None) -> str:
    if used is None:
        return f"at most {format_size(most)}" if most else ""
    return f"{format_size(used)} of {format_size(most)}" if most else format_size(used)


def _disks(item: Parameters) -> list[str]:
    """A container's only one needs no name."""
    disks = _object(_object(item.get("usage")).get("disks"))
    if len(disks) == 1 and item.get("type") == "container":
        return [_disk(disk) for disk in disks.values()]
    return [f"{name}: {_disk(disk)}" for name, disk in sorted(disks.items())]


def _disk(disk: Parameters) -> str:
    moved = [f"{word} {format_size(disk[key])}" for key, word in _MOVED if disk.get(key) is not None]
    return ", ".join(filter(None, (_used(disk.get("used"), disk.get("size")), *moved)))


_MOVED = (("read", "read"), ("written", "wrote"))


def _network(interfaces: Parameters) -> list[str]:
    return [
        f"{name}: received {_packets(one, 'received')}, sent {_packets(one, 'sent')}"
        for name, one in sorted(interfaces.items())
    ]


def _packets(one: Parameters, way: str) -> str:
    return f"{format_size(one.get(f'{way}Bytes', 0))} in {_count('packet', one.get(f'{way}Packets', 0))}"


def _count(noun: str, count: object) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _object(value: object) -> Parameters:
    return value if isinstance(value, dict) else {}
