# SPDX-License-Identifier: Apache-2.0
"""dbus-next's reader of messages, quicker where most of the time went: a daemon that follows units reads much of what
systemd tells about them. The same messages come out (tests/core/test_bus_reader.py).

The library asks before each field whether more must be read from the socket, and checks each variant against the
signature by which it was just read. The bus has checked a message before it is here, and it is whole in memory before
its fields are looked at (D-Bus Specification, "Message Format").
"""

from __future__ import annotations

from struct import unpack_from
from typing import Any

from dbus_next import Variant
from dbus_next._private.constants import LITTLE_ENDIAN
from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.signature import SignatureTree


class Reader(Unmarshaller):  # type: ignore[misc]
    offset: int

    def read(self, n: int, prefetch: bool = False) -> int:
        start = self.offset
        if start + n > len(self.buf):
            return int(super().read(n, prefetch))
        if not prefetch:
            self.offset = start + n
        return start

    def align(self, n: int) -> None:
        self.offset += -self.offset & (n - 1)

    def read_ctype(self, fmt: str, size: int) -> Any:
        start = self.offset + (-self.offset & (size - 1))
        self.offset = start + size
        return unpack_from(("<" if self.endian == LITTLE_ENDIAN else ">") + fmt, self.buf, start)[0]

    def read_string(self, _: object = None) -> str:
        return self._text(self.read_ctype("I", 4))

    def read_signature(self, _: object = None) -> str:
        return self._text(self.read_byte())

    def _text(self, length: int) -> str:
        start = self.offset
        self.offset = start + length + 1  # with the NUL after it
        return bytes(self.buf[start : start + length]).decode()

    def read_variant(self, _: object = None) -> Variant:
        signature = self.read_signature()
        (kind,) = SignatureTree._get(signature).types
        variant = object.__new__(Variant)
        variant.type, variant.signature, variant.value = kind, signature, self.readers[kind.token](kind)
        return variant
