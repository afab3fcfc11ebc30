# SPDX-License-Identifier: Apache-2.0
"""nftables, one atomic transaction per change, in a table of each network's own (libnftables-json(5))."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import struct
from typing import Any

from sysd.model.errors import FailedError
from sysd.model.network import Network

_CHAIN = "postrouting"
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
    return {"add": {"rule": {"family": "inet", "table": table, "chain": _CHAIN, "expr": expression}}}


def nat_transaction(network: Network) -> dict[str, Any]:
    """Replace the network's table as a whole."""
    table = table_name(network.name)
    commands: list[dict[str, Any]] = [
        {"add": {"table": {"family": "inet", "name": table}}},
        {"delete": {"table": {"family": "inet", "name": table}}},
        {"add": {"table": {"family": "inet", "name": table}}},
        {"add": {"chain": {"family": "inet", "table": table, "name": _CHAIN, **_POSTROUTING}}},
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


# linux/netfilter/nfnetlink.h and nf_tables.h
_NETLINK_NETFILTER = 12
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_GETCHAIN = 10 << 8 | 4
_NFPROTO_INET = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_USE = 1, 3, 6
_ATTRIBUTE = 0x3FFF


def in_place(network: Network) -> bool:
    """Whether the network's chain has all its rules, as far as can be seen.

    Asked at each start of an instance, so the kernel is asked in its own words: nft would take 10 ms.
    """
    rules = 2 if network.ipv6 else 1
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
            sock.settimeout(1)
            sock.send(_ask_for_chain(table_name(network.name)))
            return _uses(sock.recv(1 << 16)) >= rules
    except OSError as error:
        return error.errno != errno.ENOENT


def _ask_for_chain(table: str) -> bytes:
    body = struct.pack(">BBH", _NFPROTO_INET, 0, 0)
    for kind, text in ((_CHAIN_TABLE, table), (_CHAIN_NAME, _CHAIN)):
        value = text.encode() + b"\0"
        body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), _GETCHAIN, _NLM_F_REQUEST, 1, 0) + body


def _uses(answer: bytes) -> int:
    """How many rules the chain in the kernel's answer has; raises OSError for a refusal."""
    length, kind = struct.unpack_from("=IH", answer)
    if kind == _NLMSG_ERROR:
        (number,) = struct.unpack_from("=i", answer, 16)
        raise OSError(-number, "the kernel refuses to show a chain")
    offset = 20
    while offset + 8 <= length:
        size, attribute = struct.unpack_from("=HH", answer, offset)
        if attribute & _ATTRIBUTE == _CHAIN_USE:
            return int(struct.unpack_from(">I", answer, offset + 4)[0])
        offset += max(4, size + -size % 4)
    return 0
