# SPDX-License-Identifier: Apache-2.0
"""nftables, one atomic transaction per change, in a table of each network's own (libnftables-json(5))."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from sysd.model.errors import FailedError
from sysd.model.network import Network

_POSTROUTING = {"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}


def table_name(network: str) -> str:
    """nft's own syntax has no hyphen in identifiers but has a slash, which interface names lack."""
    return "syscont_" + network.replace("-", "/")


def _masquerade(table: str, protocol: str, subnet: str) -> dict[str, Any]:
    prefix, _, length = subnet.partition("/")
    inside = {"prefix": {"addr": prefix, "len": int(length)}}

    def match(field: str, op: str) -> dict[str, Any]:
        return {"match": {"left": {"payload": {"protocol": protocol, "field": field}}, "op": op, "right": inside}}

    expression = [match("saddr", "=="), match("daddr", "!="), {"masquerade": None}]
    return {"add": {"rule": {"family": "inet", "table": table, "chain": "postrouting", "expr": expression}}}


def nat_transaction(network: Network) -> dict[str, Any]:
    """Replace the network's table as a whole."""
    table = table_name(network.name)
    commands: list[dict[str, Any]] = [
        {"add": {"table": {"family": "inet", "name": table}}},
        {"delete": {"table": {"family": "inet", "name": table}}},
        {"add": {"table": {"family": "inet", "name": table}}},
        {"add": {"chain": {"family": "inet", "table": table, "name": "postrouting", **_POSTROUTING}}},
        _masquerade(table, "ip", str(network.ipv4_interface.network)),
    ]
    if network.ipv6:
        commands.append(_masquerade(table, "ip6", str(network.ipv6_interface.network)))
    return {"nftables": commands}


async def apply(transaction: dict[str, Any]) -> None:
    """Hand a transaction to nft; it is applied as a whole or not at all."""
    process = await asyncio.create_subprocess_exec(
        "nft",
        "-j",
        "-f",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate(json.dumps(transaction).encode())
    if process.returncode:
        raise FailedError(f"the firewall refused a change: {stderr.decode(errors='replace').strip()}")
