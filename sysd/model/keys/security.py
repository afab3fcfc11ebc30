# SPDX-License-Identifier: Apache-2.0
"""What an instance may do, and what may be done to it."""

from __future__ import annotations

from sysd.model.schema import Key
from sysd.model.values import boolean

KEYS = (Key("security.protection.delete", boolean, "false", "Refuse to delete the instance.", live=True),)
