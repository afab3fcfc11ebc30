# SPDX-License-Identifier: Apache-2.0
"""DHCP, router advertisements and names of a network: one dnsmasq in a transient unit of its own."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dbus_next import Variant

from sysd.model import addresses, dnsmasq_options
from sysd.model.addresses import Address, Interface
from sysd.model.errors import InvalidError
from sysd.model.network import Network
from sysd.units import helper
from sysd.units.systemd import Properties

CAPABILITIES = sum(1 << cap for cap in (6, 7, 10, 12, 13))
"""SETGID, SETUID, NET_BIND_SERVICE, NET_ADMIN and NET_RAW, of capabilities(7)."""

FAMILIES = ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET"]
"""Not AF_UNIX: all that listens in the file system, the bus above all, is out of reach. Its log is standard error."""

NETWORK_DIR = Path("/var/lib/syscont/networks")


def unit_name(network: str) -> str:
    return f"syscont-net@{network}.service"


def network_of(unit: str) -> str:
    """The network whose dnsmasq unit is; empty for other units."""
    if not (unit.startswith("syscont-net@") and unit.endswith(".service")):
        return ""
    return unit.removeprefix("syscont-net@").removesuffix(".service")


@dataclass(frozen=True, slots=True)
class Host:
    """Who has a hardware address: its name in DNS, if any, and the addresses that are kept for it."""

    name: str = ""
    addresses: tuple[Address, ...] = ()


def lease_file(network: str) -> Path:
    return NETWORK_DIR / network / "leases"


def _hosts_file(network: str) -> Path:
    return NETWORK_DIR / network / "hosts"


def is_wanted(network: Network) -> bool:
    """Whether there is anything to serve."""
    return bool(network.address(4) or network.address(6))


def arguments(network: Network, host_name: str) -> list[str]:
    """The command line, every value of which sysd.model has checked. Unless the network says dns.mode=dynamic, names
    come from our hosts file alone: a guest can't claim one."""
    line = [
        "/usr/sbin/dnsmasq",
        "--conf-file=/dev/null",
        "--user=root",
        "--group=root",
        "--pid-file=",
        "--log-facility=-",
        "--bind-interfaces",
        f"--interface={network.name}",
        "--except-interface=lo",
        "--no-ping",
        "--dhcp-authoritative",
        # Or one instance could say that it is another, or many.
        "--dhcp-ignore-clid",
        "--dhcp-no-override",
        "--dhcp-rapid-commit",
        f"--dhcp-leasefile={lease_file(network.name)}",
        f"--dhcp-hostsfile={_hosts_file(network.name)}",
        "--no-hosts",
        "--quiet-dhcp",
        "--quiet-ra",
    ]
    return [*line, *_ipv4(network), *_ipv6(network), *_names(network, host_name), *_raw(network)]


def _ipv4(network: Network) -> Iterator[str]:
    own = network.address(4)
    if not own:
        return
    yield f"--listen-address={own.ip}"
    if not network.flag("ipv4.dhcp"):
        return
    for first, last in addresses.ranges(4)(network.text("ipv4.dhcp.ranges")) or [_all_of(own)]:
        yield f"--dhcp-range={first},{last},{network.text('ipv4.dhcp.expiry')}"
    if gateway := network.text("ipv4.dhcp.gateway"):
        yield f"--dhcp-option-force=option:router,{gateway}"
    if network.mtu:
        yield f"--dhcp-option-force=option:mtu,{network.mtu}"


def _ipv6(network: Network) -> Iterator[str]:
    own = network.address(6)
    if not own:
        return
    yield f"--listen-address={own.ip}"
    yield "--enable-ra"
    if network.leases(6):
        for first, last in addresses.ranges(6)(network.text("ipv6.dhcp.ranges")) or [_all_of(own)]:
            yield f"--dhcp-range={first},{last},{own.network.prefixlen},{network.text('ipv6.dhcp.expiry')}"
        return
    mode = "ra-stateless" if network.flag("ipv6.dhcp") else "ra-only"
    named = ",ra-names" if network.text("dns.mode") == "managed" else ""
    yield f"--dhcp-range=::,constructor:{network.name},{mode}{named}"


def _all_of(own: Interface) -> tuple[Address, Address]:
    return own.network[2], own.network[-2]


def _names(network: Network, host_name: str) -> Iterator[str]:
    if network.text("dns.mode") != "dynamic":
        yield "--dhcp-ignore-names"
    else:
        # Programs look for a server of that name and trust it.
        yield from ("--dhcp-name-match=set:sought,wpad", "--dhcp-ignore-names=tag:sought")
    if domain := network.domain:
        gateways = ",".join(str(own.ip) for own in (network.address(4), network.address(6)) if own)
        yield f"--domain={domain}"
        yield f"--local=/{domain}/"
        yield "--expand-hosts"
        yield f"--host-record={host_name},{host_name}.{domain},_gateway.{domain},{gateways}"
    if search := addresses.domains(network.text("dns.search")):
        everywhere = ",".join([network.domain, *search] if network.domain else search)
        yield from (f"--dhcp-option={kind}:domain-search,{everywhere}" for kind in ("option", "option6"))


def _raw(network: Network) -> list[str]:
    return dnsmasq_options.arguments(network.text("raw.dnsmasq"))


async def check(network: Network) -> None:
    """Raise InvalidError when dnsmasq itself does not take what people wrote for it."""
    if not (raw := _raw(network)):
        return
    process = await asyncio.create_subprocess_exec(
        "/usr/sbin/dnsmasq",
        "--test",
        "--conf-file=/dev/null",
        *raw,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    if process.returncode:
        said = " ".join(stderr.decode(errors="replace").split()).removeprefix("dnsmasq: ")
        raise InvalidError(f"raw.dnsmasq: dnsmasq does not take it: {said[:200]}")


def bound_to(index: int, argv: Sequence[str]) -> list[str]:
    """The unit's Environment=: which link its sockets are bound to, and what it was told, for a daemon that did not
    start it itself."""
    return [f"BRIDGE_INDEX={index}", f"TOLD={hashlib.sha256(chr(0).join(argv).encode()).hexdigest()[:32]}"]


def unit_properties(network: Network, host_name: str, index: int) -> Properties:
    """A sandbox that leaves dnsmasq its sockets and its lease file. index is the bridge's."""
    argv = arguments(network, host_name)
    return {
        **helper.hardened(),
        **helper.only(str(NETWORK_DIR / network.name), hidden=("/var/lib/syscont", "/run/dbus", "/run/syscont")),
        "Description": Variant("s", f"DHCP and DNS of network {network.name}"),
        "Slice": Variant("s", "syscont.slice"),
        "ExecStart": Variant("a(sasb)", [[argv[0], argv, False]]),
        "Environment": Variant("as", bound_to(index, argv)),
        # It goes to the background when its sockets are bound: the unit is active only then.
        "Type": Variant("s", "forking"),
        # Whatever ends it but `systemctl stop`, and however often.
        "Restart": Variant("s", "always"),
        "RestartUSec": Variant("t", 500_000),
        "StartLimitIntervalUSec": Variant("t", 0),
        "CapabilityBoundingSet": Variant("t", CAPABILITIES),
        "RestrictAddressFamilies": Variant("(bas)", [True, FAMILIES]),
        "RestrictSUIDSGID": Variant("b", True),
        "InaccessiblePaths": Variant("as", helper.SECRETS),
        "TasksMax": Variant("t", 16),
        "MemoryMax": Variant("t", 256 << 20),
    }


def write_hosts(network: Network, hosts: Mapping[str, Host]) -> bool:
    """Say who has which hardware address (the key); True when that changed something."""
    path = _hosts_file(network.name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    named = network.text("dns.mode") == "managed"
    lines = (_host(mac, host, named) for mac, host in sorted(hosts.items()))
    text = "".join(line for line in lines if line)
    if path.exists() and path.read_text() == text:
        return False
    draft = path.with_suffix(".new")
    draft.write_text(text)
    os.replace(draft, path)
    return True


def _host(mac: str, host: Host, named: bool) -> str:
    known = [f"[{one}]" if one.version == 6 else str(one) for one in host.addresses]
    if named and host.name:
        known.append(host.name)
    return f"{','.join([mac, *known])}\n" if known else ""


def forget(network: str) -> None:
    """Its folder, with hosts and leases."""
    shutil.rmtree(NETWORK_DIR / network, ignore_errors=True)
