# SPDX-License-Identifier: Apache-2.0
"""Long work as an object: what it does, how far it is, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sysd.model.errors import DBUS_PREFIX


class OperationStatus(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Operation:
    """done and total are bytes (total 0: not known); result holds what the work made, such as a fingerprint."""

    id: str
    kind: str
    target: str
    owner: int = 0
    status: OperationStatus = OperationStatus.RUNNING
    stage: str = ""
    done: int = 0
    total: int = 0
    error: str = ""
    message: str = ""
    result: dict[str, str] = field(default_factory=dict)
    created: int = 0

    @property
    def dbus_error(self) -> str:
        """The D-Bus name of the error that it ended with; empty when there is none."""
        return DBUS_PREFIX + self.error if self.error else ""

    @property
    def finished(self) -> bool:
        return self.status is not OperationStatus.RUNNING
