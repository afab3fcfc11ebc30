# SPDX-License-Identifier: Apache-2.0
"""What rules of nftables are made of, as nft takes them in JSON (libnftables-json(5))."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sysd.model.addresses import Subnet

Rule = list[dict[str, Any]]
"""What has to be so, and then what is done."""
PROTOCOL = {4: "ip", 6: "ip6"}
ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}
REJECT: dict[str, Any] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}


def match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"left": left, "op": op, "right": right}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def prefix(subnet: Subnet) -> dict[str, Any]:
    return {"prefix": {"addr": str(subnet.network_address), "len": subnet.prefixlen}}


def numbers(ranges: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """A set of ranges, each first and last."""
    return {"set": [{"range": [first, last]} if first < last else first for first, last in ranges]}
