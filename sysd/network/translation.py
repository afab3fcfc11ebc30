# SPDX-License-Identifier: Apache-2.0
"""Proxies that the host's firewall does by itself (nat=true): for each a table of its own, which is there as long as a
unit that does nothing else, and so as long as the instance's unit; syscontd has no part in its end.

What is to be translated comes from elsewhere, from the host or from the instance itself. The last does not work for a
port of a bridge where br_netfilter is loaded: what is translated on its way through a bridge never leaves by the port
that it came from (LXD then sets the port's hairpin mode, by which a guest hears its own broadcasts).
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterator, Mapping
from typing import Any

from dbus_next import Variant

from sysd.model.devices.proxy import endpoint, translates, translation_target, unit
from sysd.model.instance import Instance
from sysd.units import helper
from sysd.units.systemd import Properties

NFT = "/usr/sbin/nft"
_CAP_NET_ADMIN = 12
_DESTINATION, _SOURCE = -100, 100
"""Priorities: dstnat and srcnat of nft(8)."""
_CHAINS = {"prerouting": _DESTINATION, "output": _DESTINATION, "postrouting": _SOURCE}


def of_instance(instance: Instance) -> Iterator[tuple[str, Properties]]:
    """Name without suffix, and properties, of the service of each such proxy of an expanded instance."""
    for name, options in _translated(instance):
        yield unit(instance.reference, name, 0), _service(instance, name, options)


def versions(instance: Instance) -> set[int]:
    """Of IP: what the host has to forward for them."""
    return {ipaddress.ip_address(endpoint(options["listen"]).address).version for _, options in _translated(instance)}


def _translated(instance: Instance) -> Iterator[tuple[str, Mapping[str, str]]]:
    for name, options in instance.devices.items():
        if options["type"] == "proxy" and translates(options):
            yield name, options


def _service(instance: Instance, name: str, options: Mapping[str, str]) -> Properties:
    table = f"syscont_proxy_{hashlib.sha256(f'{instance.uuid} {name}'.encode()).hexdigest()[:16]}"
    rules = json.dumps(transaction(table, options, translation_target(options, instance.devices)))
    digest = hashlib.sha256(rules.encode()).hexdigest()[:8]
    return {
        **helper.hardened(),
        "Description": Variant("s", f"Proxy {name} of {instance.reference}, {digest}"),
        "BindsTo": Variant("as", [instance.unit]),
        "CollectMode": Variant("s", "inactive-or-failed"),
        "Slice": Variant("s", "syscont.slice"),
        "Type": Variant("s", "oneshot"),
        "RemainAfterExit": Variant("b", True),
        "StandardInput": Variant("s", "data"),
        "StandardInputData": Variant("ay", rules.encode()),
        "ExecStart": Variant("a(sasb)", [[NFT, [NFT, "-j", "-f", "-"], False]]),
        "ExecStop": Variant("a(sasb)", [[NFT, [NFT, "delete", "table", "inet", table], False]]),
        "CapabilityBoundingSet": Variant("t", 1 << _CAP_NET_ADMIN),
        "RestrictAddressFamilies": Variant("(bas)", [True, ["AF_UNIX", "AF_NETLINK"]]),
        "InaccessiblePaths": Variant("as", helper.SECRETS),
    }


def transaction(table: str, options: Mapping[str, str], target: str) -> dict[str, Any]:
    """Replace the table as a whole (libnftables-json(5)): what is for the address and a port that is listened at goes
    to target and its port."""
    listen, connect = endpoint(options["listen"]), endpoint(options["connect"])
    ports = connect.ports * len(listen.ports) if len(connect.ports) == 1 else connect.ports
    family = "ip6" if ipaddress.ip_address(target).version == 6 else "ip"
    named = {"family": "inet", "table": table}
    commands: list[dict[str, Any]] = [{verb: {"table": {"family": "inet", "name": table}}} for verb in _REPLACE]
    for chain, priority in _CHAINS.items():
        kind = {"type": "nat", "hook": chain, "prio": priority, "policy": "accept"}
        commands.append({"add": {"chain": {**named, "name": chain, **kind}}})
    for at, to in zip(listen.ports, ports, strict=True):
        there = [_match(family, "daddr", listen.address), _match(listen.protocol, "dport", at)]
        translated = {"dnat": {"family": family, "addr": target, "port": to}}
        # From the instance to itself by way of the host: without another sender it would answer past the host.
        itself = [
            _match(family, "saddr", target),
            _match(family, "daddr", target),
            _match(listen.protocol, "dport", to),
        ]
        for chain, expression in (
            ("prerouting", [*there, translated]),
            ("output", [*there, translated]),
            ("postrouting", [*itself, {"masquerade": None}]),
        ):
            commands.append({"add": {"rule": {**named, "chain": chain, "expr": expression}}})
    return {"nftables": commands}


_REPLACE = ("add", "delete", "add")
"""Only what is there can be deleted."""


def _match(protocol: str, field: str, value: str | int) -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"left": left, "op": "==", "right": value}}
