# SPDX-License-Identifier: Apache-2.0
"""Core scheduling: the threads of a processor core run tasks of one instance at a time, or of none.

What one thread of a core does can be observed from the other; a cookie of its own keeps an instance from being
observed so by its neighbours. The launcher makes the cookie before the guest's PID 1 is born, and executed commands
take it from that. Source: the kernel's core-scheduling.rst.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from sysd import _cext
from sysd.model.config import SCHEMA
from sysd.model.errors import InvalidError
from sysd.model.values import boolean

KEY = "security.core_scheduling"
SERVER_DEFAULT = "SYSCONT_CORE_SCHEDULING"
"""In syscontd's environment: what holds for instances that do not have the key."""


def wanted(config: Mapping[str, str]) -> bool:
    if KEY in config:
        return SCHEMA.boolean(config, KEY)
    default = os.environ.get(SERVER_DEFAULT, "")
    try:
        return boolean(default) if default else SCHEMA.boolean(config, KEY)
    except InvalidError as error:
        raise InvalidError(f"{SERVER_DEFAULT} of syscontd's environment: {error.message}", error.hint) from None


def cookie(leader: int) -> int:
    """The cookie of an instance's PID 1; 0 when it has none, or is gone."""
    try:
        return _cext.core_cookie(leader) if leader else 0
    except OSError:
        return 0
