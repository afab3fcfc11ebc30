# SPDX-License-Identifier: Apache-2.0
"""What most methods take and give: options, and the operation that they have begun."""

from __future__ import annotations

from typing import Any

from sysd.dbus.service import ROOT
from sysd.model.names import path_encode
from sysd.model.operation import Operation

OPTIONS = ("a{sv}", "options")
OPERATION = ("o", "operation")


def operation_path(operation: Operation) -> list[Any]:
    return [f"{ROOT}/operation/{path_encode(operation.id)}"]
