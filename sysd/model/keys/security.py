# SPDX-License-Identifier: Apache-2.0
"""What an instance may do, and what may be done to it."""

from __future__ import annotations

from sysd.model.instance import Kind
from sysd.model.schema import Key
from sysd.model.values import boolean

KEYS = (
    Key(
        "security.core_scheduling",
        boolean,
        "true",
        "Keep other instances off the processor cores it runs on, where kernel and processors can (core scheduling): "
        "all tasks of a container, the threads that run a virtual machine's processors. "
        "The host's own default is instances.security.core_scheduling of its configuration.",
    ),
    Key(
        "security.devlxd",
        boolean,
        "true",
        "Answer the guest's questions about itself, on /dev/syscont/sock and LXD's /dev/lxd/sock.",
        live=True,
        only=Kind.CONTAINER,
    ),
    Key(
        "security.devlxd.images",
        boolean,
        "",
        "",
        refused="guests are told of themselves alone, and the host's images are not theirs",
    ),
    Key("security.protection.delete", boolean, "false", "Refuse to delete the instance.", live=True),
)
