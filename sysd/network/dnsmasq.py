# SPDX-License-Identifier: Apache-2.0
"""DHCP, router advertisements and names of a network: one dnsmasq in a transient unit of its own."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from dbus_next import Variant

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


def _hosts_file(network: str) -> Path:
    return NETWORK_DIR / network / "hosts"


def arguments(network: Network, host_name: str) -> list[str]:
    """The command line. Names come from our hosts file alone: a guest can't claim one."""
    subnet = network.ipv4_interface.network
    gateway = str(network.ipv4_interface.ip)
    first, last = subnet[2], subnet[-2]
    folder = NETWORK_DIR / network.name
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
        f"--listen-address={gateway}",
        "--no-ping",
        "--dhcp-authoritative",
        "--dhcp-no-override",
        "--dhcp-rapid-commit",
        "--dhcp-ignore-names",
        f"--dhcp-leasefile={folder}/leases",
        f"--dhcp-hostsfile={folder}/hosts",
        f"--dhcp-range={first},{last},1h",
        f"--domain={network.domain}",
        f"--local=/{network.domain}/",
        "--expand-hosts",
        "--no-hosts",
        "--quiet-dhcp",
        "--quiet-ra",
    ]
    gateways = gateway
    if network.ipv6:
        address = network.ipv6_interface.ip
        gateways += f",{address}"
        line += [
            f"--listen-address={address}",
            "--enable-ra",
            f"--dhcp-range=::,constructor:{network.name},ra-stateless,ra-names",
        ]
    line.append(f"--host-record={host_name},{host_name}.{network.domain},_gateway.{network.domain},{gateways}")
    return line


def bound_to(index: int) -> list[str]:
    """The unit's Environment=: which link its sockets are bound to, for a daemon that did not start it itself."""
    return [f"BRIDGE_INDEX={index}"]


def unit_properties(network: Network, host_name: str, index: int) -> Properties:
    """A sandbox that leaves dnsmasq its sockets and its lease file. index is the bridge's."""
    argv = arguments(network, host_name)
    return {
        **helper.hardened(),
        **helper.only(str(NETWORK_DIR / network.name), hidden=("/var/lib/syscont", "/run/dbus", "/run/syscont")),
        "Description": Variant("s", f"DHCP and DNS of network {network.name}"),
        "Slice": Variant("s", "syscont.slice"),
        "ExecStart": Variant("a(sasb)", [[argv[0], argv, False]]),
        "Environment": Variant("as", bound_to(index)),
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


def write_hosts(network: str, hosts: Mapping[str, str]) -> bool:
    """Say which name (value, empty for none) belongs to which MAC address (key); True when that changed something."""
    path = _hosts_file(network)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = "".join(f"{mac},{name}\n" for mac, name in sorted(hosts.items()) if name)
    if path.exists() and path.read_text() == text:
        return False
    draft = path.with_suffix(".new")
    draft.write_text(text)
    os.replace(draft, path)
    return True


def release_lost(network: Network, hosts: Mapping[str, str]) -> None:
    """Give back the leases of instances that are gone, or their names would go on resolving until the leases end.

    dnsmasq has no command for it; it is told as a client would tell it (DHCPRELEASE of RFC 2131, table 5).
    """
    try:
        lines = (NETWORK_DIR / network.name / "leases").read_text().splitlines()
    except FileNotFoundError:
        return
    server = network.ipv4_interface.ip.packed
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, network.name.encode())
        for line in lines:
            fields = line.split()
            if len(fields) == 5 and len(fields[1]) == 17 and fields[1] not in hosts:
                sock.sendto(_release(fields[1], fields[2], fields[4], server), (str(network.ipv4_interface.ip), 67))


def _release(mac: str, address: str, client: str, server: bytes) -> bytes:
    head = bytes([1, 1, 6, 0]) + secrets.token_bytes(4) + bytes(4) + socket.inet_aton(address) + bytes(12)
    options = b"\x63\x82\x53\x63" + bytes([53, 1, 7, 54, 4]) + server
    if client != "*":
        identity = bytes.fromhex(client.replace(":", ""))
        options += bytes([61, len(identity)]) + identity
    return head + bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0") + bytes(192) + options + b"\xff"
