# SPDX-License-Identifier: Apache-2.0
"""A command line of QEMU's in the making: options as data, and the descriptors that they speak of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from sysd.runtime.vm.spec import FIRST_FD, Descriptor, dumps

Value = str | dict[str, Any]


@dataclass(slots=True)
class Board:
    """Values that somebody else has chosen are members of objects, and never parts of a text with commas in it."""

    arguments: list[str] = field(default_factory=list)
    descriptors: list[Descriptor] = field(default_factory=list)

    def add(self, option: str, value: Value | None = None) -> None:
        self.arguments.append(f"-{option}")
        if value is not None:
            self.arguments.append(value if isinstance(value, str) else dumps(value))

    def hold(self, kind: str, **what: Any) -> int:
        """The number under which QEMU gets what the launcher opens."""
        number = FIRST_FD + len(self.descriptors)
        self.descriptors.append(replace(Descriptor(number, kind), **what))
        return number

    def file(self, path: str, *, write: bool = False) -> str:
        """The name under which QEMU opens a file, with the rights of who opened it for QEMU."""
        return self._set(self.hold("file", path=path, write=write))

    def memory(self, data: str) -> str:
        """The same of a file that is nowhere, and can only be read; data is hex."""
        return self._set(self.hold("memory", data=data))

    def _set(self, number: int) -> str:
        self.add("add-fd", f"fd={number},set={number}")
        return fdset(number)

    def listen(self, name: str, path: str) -> None:
        """A character device that whoever connects to a socket of ours speaks to."""
        number = self.hold("listen", path=path)
        self.add("chardev", f"socket,id={name},fd={number},server=on,wait=off")


def fdset(number: int) -> str:
    return f"/dev/fdset/{number}"


def inherited(number: int) -> str:
    """A descriptor as a file, for options that know no sets; opened anew, with QEMU's own rights."""
    return f"/dev/fd/{number}"
