# SPDX-License-Identifier: Apache-2.0
"""Container hosts' networks: a namespace each, an uplink with NAT, wires between hosts."""

import contextlib
import ipaddress
import zlib
from pathlib import Path

from .command import HostError, machine

# Set aside for benchmarks between networks (RFC 2544), so in nobody's way.
_UPLINKS = ipaddress.ip_network("198.18.0.0/16")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_FORWARDING_WAS = "ip_forward.was"


def namespace(name: str) -> str:
    return f"syscont-{name}"


def path_of(name: str) -> str:
    return f"/run/netns/{namespace(name)}"


def _short(name: str, suffix: str) -> str:
    """A link name: at most 15 letters, the same each time for the same host."""
    return f"sc{zlib.crc32(name.encode()):08x}{suffix}"


def _table(name: str) -> str:
    return "syscont_host_" + name.replace("-", "_")


def create(name: str) -> None:
    machine("ip", "netns", "add", namespace(name))
    machine("ip", "-n", namespace(name), "link", "set", "lo", "up")


def remove(name: str) -> None:
    """The namespace goes, and every link that has an end in it."""
    machine("ip", "link", "delete", _short(name, "u"), check=False)
    machine("ip", "netns", "delete", namespace(name), check=False)


def free_uplink(taken: set[int]) -> int:
    """The number of a subnet that no host uses."""
    for number in range(1, _UPLINKS.num_addresses // 4):
        if number not in taken:
            return number
    raise HostError("no subnet left for another uplink")


def _subnet(number: int) -> tuple[str, str, str]:
    first = _UPLINKS.network_address + 4 * number
    return f"{first}/30", str(first + 1), str(first + 2)


def add_uplink(name: str, number: int, runs: Path) -> None:
    """Join the host's namespace to the machine, and the machine's network behind it."""
    subnet, outer, inner = _subnet(number)
    link, peer = _short(name, "u"), namespace(name)
    machine("ip", "link", "add", link, "type", "veth", "peer", "name", "uplink0", "netns", peer)
    machine("ip", "address", "add", f"{outer}/30", "dev", link)
    machine("ip", "link", "set", link, "up")
    machine("ip", "-n", peer, "address", "add", f"{inner}/30", "dev", "uplink0")
    machine("ip", "-n", peer, "link", "set", "uplink0", "up")
    machine("ip", "-n", peer, "route", "add", "default", "via", outer)
    _enable_forwarding(runs)
    table = _table(name)
    machine("nft", "-f", "-", input=(
        f"table ip {table} {{\n"
        f" chain nat {{ type nat hook postrouting priority srcnat;\n"
        f"  ip saddr {subnet} oifname != {link} masquerade\n }}\n}}\n"
    ))  # fmt: skip


def remove_uplink(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        machine("nft", "delete", "table", "ip", _table(name), check=False)


def _enable_forwarding(runs: Path) -> None:
    was = runs / _FORWARDING_WAS
    if not was.exists():
        was.write_text(_FORWARDING.read_text())
    _FORWARDING.write_text("1\n")


def restore_forwarding(runs: Path) -> None:
    was = runs / _FORWARDING_WAS
    if was.exists():
        _FORWARDING.write_text(was.read_text())
        was.unlink()


def wire(left: str, right: str, link: str, addresses: tuple[str, str]) -> None:
    """A cable between two hosts, with an address at each end."""
    one, two = namespace(left), namespace(right)
    for end in (one, two):  # what goes with a namespace goes some time later
        machine("ip", "-n", end, "link", "delete", link, check=False)
    machine("ip", "-n", one, "link", "add", link, "type", "veth",
            "peer", "name", link, "netns", two)  # fmt: skip
    for place, address in zip((one, two), addresses, strict=True):
        machine("ip", "-n", place, "address", "add", address, "dev", link)
        machine("ip", "-n", place, "link", "set", link, "up")
