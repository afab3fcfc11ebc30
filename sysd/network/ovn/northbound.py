# SPDX-License-Identifier: Apache-2.0
"""OVN's northbound database: which tables of it are used, and by what names ours go there.

Names begin with ``sc-`` and the first twelve digits of the network's UUID, so that they are the same on all hosts, and
short enough for what becomes a link of the host's nowhere. In port groups and address sets, which are words of OVN's
expressions, ``_`` stands for ``-``.

    sc-ID-lr        logical router        sc-ID-lr-int    its port inside      sc-ID-lr-ext     its port to the uplink
    sc-ID-int       switch of the guests  sc-ID-int-lr    its port to the router
    sc-ID-ext       switch of the uplink  sc-ID-ext-lr    likewise             sc-ID-ext-net    its port to the world
    sc-ID-gw        hosts that the router's uplink may be at
    sc-ID-fw-...    forwards              sc-ID-lr-peer-OTHER                  the router's port to another network's
    sc-ID-nic-...   ports of guests: this is the iface-id that the local Open vSwitch says of an interface
    sc_ID_guests    port group of all guests' ports; sc_ID_acl of those that any ACL holds for, sc_ID_acl_HASH of those
                    that one holds for, sc_ID_nic_HASH of a port with defaults of its own
    sc-ID-log       meter of what ACLs log
"""

from __future__ import annotations

import hashlib

from sysd.network.ovn.database import PATIENCE, Database, Identity, News, Schema
from sysd.network.ovn.rows import MANAGED, SETS

SCHEMA = "OVN_Northbound"


def _tables() -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {table: {"external_ids", *columns} for table, columns in MANAGED.items()}
    for places in SETS.values():
        for table, column in places:
            found[table].add(column)
    found["Logical_Switch_Port"] |= {"dynamic_addresses", "up"}
    found["DNS"].add("records")
    found["NB_Global"] = {"nb_cfg", "sb_cfg"}
    return {table: tuple(sorted(columns)) for table, columns in found.items()}


TABLES = Schema(
    SCHEMA, "OVN's northbound database", _tables(),
    answers={"Logical_Switch_Port": frozenset({"dynamic_addresses"})},
    unheard={"Logical_Switch_Port": frozenset({"up"})},
)  # fmt: skip


class Northbound(Database):
    """remotes: as in ``network.ovn.northbound_connection``."""

    def __init__(
        self,
        remotes: str,
        identity: Identity | None = None,
        *,
        patience: float = PATIENCE,
        news: News = lambda whole: None,
    ) -> None:
        super().__init__(remotes, TABLES, identity, patience=patience, news=news)


def short(network: str) -> str:
    return network.replace("-", "")[:12]


def name(network: str, *parts: str) -> str:
    """Of a row that is no word in expressions."""
    return "-".join(("sc", short(network), *parts))


def digest(text: str) -> str:
    """Where any text has to be a word."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def word(network: str, *parts: str) -> str:
    """Of a row that expressions name: letters, digits, ``_`` and ``.``."""
    return "_".join(("sc", short(network), *parts)).replace("-", "_")
