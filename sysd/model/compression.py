# SPDX-License-Identifier: Apache-2.0
"""How backups may be compressed, by LXD's names."""

from __future__ import annotations

from sysd.model.errors import InvalidError

DEFAULT_COMPRESSION = "gzip"
PROGRAMS = {
    "none": "",
    "gzip": "gzip",
    "bzip2": "bzip2",
    "xz": "xz -T0",
    "lzma": "xz --format=lzma",
    "zstd": "zstd -q -T0",
    "lz4": "lz4 -q",
}
"""The program that compresses from its standard input to its output, as tar's --use-compress-program takes it."""
WIRE = "zstd -q -1 -T0"
"""Between hosts: it keeps up with a fast wire, and fewer bytes to encrypt and to move take less time than it does."""
WIRE_IN_PARTS = "zstd -q -1 --single-thread"
"""The same where the other end waits for what has been sent so far: several threads would keep more to themselves."""


def check_compression(name: str) -> str:
    if name not in PROGRAMS:
        raise InvalidError(f"unknown compression {name[:40]!r}", f"one of {', '.join(PROGRAMS)}")
    return name
