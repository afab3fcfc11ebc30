# SPDX-License-Identifier: Apache-2.0
"""Families of keys whose members users, images or the daemon make up."""

from __future__ import annotations

from sysd.model.schema import Key
from sysd.model.values import anything

KEYS = (
    Key(
        "environment.*",
        anything,
        "",
        "Environment of the guest's PID 1 and of executed commands.",
        live=True,
        member="[A-Za-z_][A-Za-z0-9_]*",
    ),
    Key("user.*", anything, "", "Free for users; may span lines.", live=True, multiline=True),
    Key("volatile.*", anything, "", "What syscontd remembers of the instance.", internal=True),
)
