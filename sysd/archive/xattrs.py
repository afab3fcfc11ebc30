# SPDX-License-Identifier: Apache-2.0
"""Extended attributes in archives: which are kept, and in what form."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from sysd.model.errors import InvalidError

CAPABILITY = b"security.capability"
ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
DEFAULT_ACL = ACLS[1]
MAX_VALUE = 1 << 16
MAX_NAME = 255

_PREFIX = "SCHILY.xattr."
_USER = b"user."
# What overlayfs reads from lower layers (mount option userxattr) would let an image steer the mount.
_OVERLAY = b"user.overlay."

_CAP_REVISION_MASK = 0xFF000000
_CAP_REVISION_2 = 0x02000000
_CAP_REVISION_3 = 0x03000000


def kept(pax: Mapping[str, str]) -> Iterator[tuple[bytes, bytes]]:
    """(name, value) of the attributes to set, from a member's pax headers; raises InvalidError for malformed ones."""
    for key, value in pax.items():
        if not key.startswith(_PREFIX):
            continue
        name = key[len(_PREFIX) :].encode("utf-8", "surrogateescape")
        if not _wanted(name):
            continue
        data = value.encode("utf-8", "surrogateescape")
        if len(name) > MAX_NAME or len(data) > MAX_VALUE or b"\0" in name:
            raise InvalidError("an extended attribute has a bad name, or a value of more than 64 KiB")
        yield name, file_capability(data) if name == CAPABILITY else data


def _wanted(name: bytes) -> bool:
    if name == CAPABILITY or name in ACLS:
        return True
    return name.startswith(_USER) and name != _USER and not name.startswith(_OVERLAY)


def file_capability(data: bytes) -> bytes:
    """The value as revision 2: in revision 3 it is bound to the root of the user namespace that it was made in.

    See capabilities(7), "File capability extended attribute versioning". Idmapped mounts give revision 2 to the guest.
    """
    if len(data) not in (20, 24):
        raise InvalidError("its file capability is malformed")
    (magic,) = struct.unpack_from("<I", data)
    expected = _CAP_REVISION_2 if len(data) == 20 else _CAP_REVISION_3
    if magic & _CAP_REVISION_MASK != expected:
        raise InvalidError("its file capability is malformed")
    return struct.pack("<I", _CAP_REVISION_2 | (magic & ~_CAP_REVISION_MASK)) + data[4:20]
