# SPDX-License-Identifier: Apache-2.0
"""nftables, one atomic transaction per change, in a table of each network's own (libnftables-json(5))."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sysd.model.acls import Acl
from sysd.model.errors import FailedError
from sysd.model.network import Network
from sysd.network import acl_rules, netlink
from sysd.network.expressions import PROTOCOL, REJECT, Rule, match, numbers, payload, prefix
from sysd.network.netlink import NLM_REQUEST, attribute, message

DSTNAT = -100
SRCNAT = 100
"""The priorities at which others translate addresses (nft(8), dstnat and srcnat)."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One that the kernel calls: type, hook and priority as in nft(8); it accepts what none of its rules takes."""

    name: str
    type: str
    hook: str
    priority: int
    rules: tuple[Rule, ...]


def table_name(network: str) -> str:
    """nft's own syntax has no hyphen in identifiers but has a slash, which interface names lack."""
    return "syscont_" + network.replace("-", "/")


def chains(network: Network, acls: Sequence[Acl]) -> list[Chain]:
    """All chains of a network's table, of which the ACLs are acls; none is empty."""
    if not network.is_bridge:
        return []
    found = [
        Chain("postrouting", "nat", "postrouting", SRCNAT - 1, _nat(network, "before")),
        Chain("postrouting_after", "nat", "postrouting", SRCNAT + 1, _nat(network, "after")),
        Chain("forward", "filter", "forward", 0, _closed(network)),
        Chain("arriving", "nat", "prerouting", DSTNAT, _forwards(network)),
        Chain("leaving", "nat", "output", DSTNAT, _forwards(network)),
        Chain("returning", "nat", "postrouting", SRCNAT, _returning(network)),
        *(Chain(f"acl_{hook}", "filter", hook, 0, rules) for hook, rules in acl_rules.rules(network, acls).items()),
    ]
    return [chain for chain in found if chain.rules]


def _nat(network: Network, order: str) -> tuple[Rule, ...]:
    """The host's address for the guests' in what leaves the network."""
    rules: list[Rule] = []
    for version, protocol in PROTOCOL.items():
        ip, subnet = f"ipv{version}", network.subnet(version)
        if not subnet or not network.flag(f"{ip}.nat") or network.text(f"{ip}.nat.order") != order:
            continue
        inside = prefix(subnet)
        leaves = [match(payload(protocol, "saddr"), inside), match(payload(protocol, "daddr"), inside, "!=")]
        address = network.text(f"{ip}.nat.address")
        rules.append([*leaves, {"snat": {"family": protocol, "addr": address}} if address else {"masquerade": None}])
    return tuple(rules)


def _closed(network: Network) -> tuple[Rule, ...]:
    """Where guests are to reach nothing beyond the bridge, neither they nor who is beyond gets through."""
    rules: list[Rule] = []
    for version in PROTOCOL:
        ip = f"ipv{version}"
        if network.flag(f"{ip}.firewall") and not network.flag(f"{ip}.routing"):
            family = match({"meta": {"key": "nfproto"}}, f"ipv{version}")
            rules += [
                [match({"meta": {"key": key}}, network.name), family, REJECT] for key in ("iifname", "oifname")
            ]
    return tuple(rules)


def _forwards(network: Network) -> tuple[Rule, ...]:
    """Other addresses, and ports, in place of those that forwards listen to; what is for a port comes first."""
    rules: list[Rule] = []
    for forward in network.forwarded:
        protocol = PROTOCOL[forward.version]
        listen = match(payload(protocol, "daddr"), forward.listen)
        for port in forward.parsed:
            for at, to in port.pairs:
                ports = numbers(at)
                target = {"family": protocol, "addr": port.address} | ({"port": to} if to else {})
                rules.append([listen, match(payload(port.protocol, "dport"), ports), {"dnat": target}])
        if forward.target:
            rules.append([listen, {"dnat": {"family": protocol, "addr": forward.target}}])
    return tuple(rules)


def _returning(network: Network) -> tuple[Rule, ...]:
    """Of guests that reach their own network by a forward: without another sender they would be answered past us."""
    rules: list[Rule] = []
    for version in sorted({forward.version for forward in network.forwarded if forward.targets}):
        if subnet := network.subnet(version):
            inside = prefix(subnet)
            sides = [match(payload(PROTOCOL[version], side), inside) for side in ("saddr", "daddr")]
            rules.append([*sides, match({"ct": {"key": "status"}}, "dnat", "in"), {"masquerade": None}])
    return tuple(rules)


def transaction(network: str, wanted: Sequence[Chain]) -> dict[str, Any]:
    """Replace a network's table as a whole; one without chains has none."""
    table = {"family": "inet", "table": table_name(network)}
    commands: list[dict[str, Any]] = removal(network)["nftables"]
    if wanted:
        commands.append({"add": {"table": {"family": "inet", "name": table["table"]}}})
    for chain in wanted:
        hook = {"type": chain.type, "hook": chain.hook, "prio": chain.priority, "policy": "accept"}
        commands.append({"add": {"chain": {**table, "name": chain.name, **hook}}})
        commands += [{"add": {"rule": {**table, "chain": chain.name, "expr": rule}}} for rule in chain.rules]
    return {"nftables": commands}


def removal(network: str) -> dict[str, Any]:
    """Take a network's table away; that there is none is no error."""
    table = {"table": {"family": "inet", "name": table_name(network)}}
    return {"nftables": [{"add": table}, {"delete": table}]}


async def tables(prefix: str) -> list[str]:
    """Names of all tables that begin so, of any family."""
    listed = json.loads(await _nft("", "list", "tables"))["nftables"]
    found = {each["table"]["name"] for each in listed if "table" in each}
    return sorted(name for name in found if name.startswith(prefix))


async def apply(commands: dict[str, Any]) -> None:
    """Hand a transaction to nft; it is applied as a whole or not at all."""
    await _nft(json.dumps(commands), "-f", "-")


async def _nft(text: str, *words: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        "nft",
        "-j",
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        stdout, stderr = await process.communicate(text.encode())
    finally:
        # One that was not waited for must not change anything after whoever asked has gone back.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise FailedError(f"the firewall refused a change: {_reason(stderr.decode(errors='replace'))}")
    return stdout


def _reason(said: str) -> str:
    """The first of what nft said, which says the same of each command of a transaction."""
    first = said.strip().partition("\n")[0].removeprefix("internal:0:0-0: Error: ")
    if first.endswith(os.strerror(errno.ENOENT)):
        return f"{first}; the kernel may lack a module for it (rules that log need nft_log)"
    return first


# linux/netfilter/nfnetlink.h and nf_tables.h
_NETLINK_NETFILTER = 12
_GETCHAIN = 10 << 8 | 4
_NFPROTO = {"inet": 1, "bridge": 7}
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_USE = 1, 3, 6
_ATTRIBUTE = 0x3FFF


def in_place(network: str, counts: Mapping[str, int]) -> bool:
    """Whether a network's chains have so many rules, as far as can be seen."""
    return all(holds("inet", table_name(network), chain, count) for chain, count in counts.items())


def holds(family: str, table: str, chain: str, rules: int) -> bool:
    """Whether there is a chain with so many rules, or can't be told.

    Asked at each start of an instance, so the kernel is asked in its own words: nft would take 10 ms.
    """
    try:
        return _uses(netlink.ask(_NETLINK_NETFILTER, _ask_for_chain(_NFPROTO[family], table, chain))) >= rules
    except OSError as error:
        return error.errno != errno.ENOENT


def _ask_for_chain(family: int, table: str, chain: str) -> bytes:
    names = [attribute(kind, text.encode() + b"\0") for kind, text in ((_CHAIN_TABLE, table), (_CHAIN_NAME, chain))]
    return message(_GETCHAIN, NLM_REQUEST, struct.pack(">BBH", family, 0, 0) + b"".join(names))


def _uses(answer: bytes) -> int:
    """How many rules the chain in the kernel's answer has."""
    (length,) = struct.unpack_from("=I", answer)
    offset = 20
    while offset + 8 <= length:
        size, kind = struct.unpack_from("=HH", answer, offset)
        if kind & _ATTRIBUTE == _CHAIN_USE:
            return int(struct.unpack_from(">I", answer, offset + 4)[0])
        offset += max(4, size + -size % 4)
    return 0
