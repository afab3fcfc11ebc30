# SPDX-License-Identifier: Apache-2.0
"""Projects: namespaces of instances and what they use, with limits and restrictions of their own."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Project:
    name: str
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)
