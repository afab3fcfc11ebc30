# SPDX-License-Identifier: Apache-2.0
"""The one schema of instances' configuration. Everything that knows keys is made from it.

Names and value grammar are LXD's (see its instance options reference), so that profiles carry over. The keys
themselves are in sysd/model/keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from sysd.model.instance import Kind
from sysd.model.keys import boot, cloud, free, isolation, limits, linux, machine, security, snapshots, syscalls
from sysd.model.schema import Key, Schema


def _only(kind: Kind, keys: Iterable[Key]) -> Iterator[Key]:
    return (replace(key, only=kind) for key in keys)


SCHEMA = Schema(
    (
        *(*boot.KEYS, *limits.KEYS),
        *_only(Kind.CONTAINER, linux.KEYS),
        *security.KEYS,
        *_only(Kind.CONTAINER, (*isolation.KEYS, *syscalls.KEYS)),
        *_only(Kind.VM, machine.KEYS),
        *(*snapshots.KEYS, *cloud.KEYS, *free.KEYS),
    ),
    "configuration",
    "see 'syscont config keys'",
)
KEYS = SCHEMA.keys
find_key = SCHEMA.find
check_config = SCHEMA.check


def get_bool(config: Mapping[str, str], name: str) -> bool:
    return SCHEMA.boolean(config, name)


def get_int(config: Mapping[str, str], name: str) -> int:
    return SCHEMA.integer(config, name)
