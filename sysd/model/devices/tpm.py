# SPDX-License-Identifier: Apache-2.0
"""A TPM 2.0 of a virtual machine's own, made in software. What it keeps is among the files of its instance."""

from __future__ import annotations

from sysd.model.schema import Key
from sysd.model.values import anything

_CONTAINERS = "it is for containers, which can't be given a TPM"

OPTIONS = (
    Key("path", anything, "", "", refused=_CONTAINERS),
    Key("pathrm", anything, "", "", refused=_CONTAINERS),
)
