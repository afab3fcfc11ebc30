# SPDX-License-Identifier: Apache-2.0
"""What the host's kernel, and the container's view of it, are set up with."""

from __future__ import annotations

import re

from sysd.model import sysctls
from sysd.model.errors import InvalidError
from sysd.model.schema import Key
from sysd.model.values import anything

_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,54}", re.ASCII)
"""The kernel's limit is 56 with the NUL (MODULE_NAME_LEN)."""


def kernel_modules(text: str) -> list[str]:
    """Names of modules, with commas between."""
    names = [name.strip(" ") for name in text.split(",")]
    for name in names:
        if not _MODULE.fullmatch(name):
            raise InvalidError(f"not a kernel module: {name[:80]!r}", "names of modules, with commas between")
    return names


KEYS = (
    Key(
        "linux.kernel_modules",
        kernel_modules,
        "",
        "Kernel modules that the host loads before the instance starts, with commas between.",
    ),
    Key(
        "linux.sysctl.*",
        anything,
        "",
        "Kernel settings of the container's own namespaces (net.*, and some of kernel.*, fs.mqueue.* and user.*).",
        check_member=sysctls.check,
    ),
)
