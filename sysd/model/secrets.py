# SPDX-License-Identifier: Apache-2.0
"""Which configuration is not for everybody's eyes: what people put passwords and cloud-init data in."""

from __future__ import annotations

from collections.abc import Mapping

PRIVATE = ("cloud-init.", "environment.", "systemd.credential", "user.")


def public(config: Mapping[str, str]) -> dict[str, str]:
    """Config without what is private."""
    return {key: value for key, value in config.items() if not key.startswith(PRIVATE)}
