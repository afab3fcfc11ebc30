# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates of hosts and of their users: made here, and known by fingerprint.

A certificate is its own authority and says nothing of whose it is. Whoever trusts it was told its fingerprint, or got
it in a way of their own; so it never expires, and is good until it is not trusted any more.

As in all of sysd.remote that each call of the command to another host loads, little is imported.
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import os

from sysd.model.errors import InvalidError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 16 << 10
"""Bytes of a certificate; usual ones have one or two thousand."""
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_SEQUENCE, _SET, _INTEGER, _BITS, _BYTES, _OID, _UTF8, _BOOLEAN = 0x30, 0x31, 0x02, 0x03, 0x04, 0x06, 0x0C, 0x01
_UTC_TIME, _TIME = 0x17, 0x18
_ED25519 = bytes((0x2B, 0x65, 0x70))
_COMMON_NAME = bytes((0x55, 0x04, 0x03))
_BASIC_CONSTRAINTS, _KEY_USAGE = bytes((0x55, 0x1D, 0x13)), bytes((0x55, 0x1D, 0x0F))
# RFC 5280, 4.1.2.5: this is how to say never. A clock that is wrong shuts nobody out.
_FROM, _UNTIL = b"200101000000Z", b"99991231235959Z"


class Identity:
    """A file with a secret key and its certificate, as OpenSSL reads it, and the certificate."""

    __slots__ = ("certificate", "path")

    def __init__(self, path: str, certificate: bytes) -> None:
        self.path = path
        self.certificate = certificate

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate (DER), as others print it too."""
    return hashlib.sha256(certificate).hexdigest()


def make(secret: bytes) -> bytes:
    """The certificate of an Ed25519 key: always the same one."""
    from sysd.remote import ed25519

    public = ed25519.public_key(secret)
    digest = hashlib.sha256(public).digest()
    label = _der(_SEQUENCE, _der(_OID, _COMMON_NAME), _der(_UTF8, digest.hex()[:16].encode()))
    name = _der(_SEQUENCE, _der(_SET, label))
    signed = _der(
        _SEQUENCE,
        _der(0xA0, _der(_INTEGER, b"\2")),  # version 3
        _der(_INTEGER, b"\1" + digest[:15]),
        _algorithm(),
        name,
        _der(_SEQUENCE, _der(_UTC_TIME, _FROM), _der(_TIME, _UNTIL)),
        name,
        _der(_SEQUENCE, _algorithm(), _der(_BITS, b"\0" + public)),
        _der(0xA3, _der(_SEQUENCE, *_extensions())),
    )
    signature = ed25519.sign(secret, signed)
    return _der(_SEQUENCE, signed, _algorithm(), _der(_BITS, b"\0" + signature))


def _extensions() -> tuple[bytes, bytes]:
    """Both are to be heeded: it vouches for no other certificate, and its key signs handshakes."""
    heeded = _der(_BOOLEAN, b"\xff")
    return (
        _der(_SEQUENCE, _der(_OID, _BASIC_CONSTRAINTS), heeded, _der(_BYTES, _der(_SEQUENCE))),
        _der(_SEQUENCE, _der(_OID, _KEY_USAGE), heeded, _der(_BYTES, _der(_BITS, b"\7\x80"))),
    )


def _algorithm() -> bytes:
    return _der(_SEQUENCE, _der(_OID, _ED25519))


def _der(tag: int, *parts: bytes) -> bytes:
    """An element of DER (X.690), of up to 64 KiB."""
    content = b"".join(parts)
    size = len(content)
    length = bytes((size,)) if size < 0x80 else bytes((0x82,)) + size.to_bytes(2, "big")
    if 0x80 <= size < 0x100:
        length = bytes((0x81, size))
    return bytes((tag,)) + length + content


def pem(certificate: bytes) -> str:
    return _armoured("CERTIFICATE", certificate)


def bundle(secret: bytes) -> str:
    """A key and its certificate, as OpenSSL reads them from a file."""
    key = _der(_SEQUENCE, _der(_INTEGER, b"\0"), _algorithm(), _der(_BYTES, _der(_BYTES, secret)))
    return _armoured("PRIVATE KEY", key) + pem(make(secret))


def _armoured(what: str, data: bytes) -> str:
    text = binascii.b2a_base64(data, newline=False).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {what}-----\n{lines}\n-----END {what}-----\n"


def parse(text: str) -> bytes:
    """The one certificate that PEM text holds, be it beside a key. Raises InvalidError."""
    _, begin, rest = text.partition(_BEGIN)
    body, end, more = rest.partition(_END)
    try:
        data = binascii.a2b_base64("".join(body.split()).encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        data = b""
    if not begin or not end or _BEGIN in more or not _is_element(data):
        raise InvalidError("not a certificate in PEM", f"one that begins with {_BEGIN}")
    return data


def _is_element(data: bytes) -> bool:
    """Whether it is one sequence of DER and nothing more: as good as two certificates are none."""
    if not 4 < len(data) <= MOST or data[0] != _SEQUENCE:
        return False
    count = data[1] & 0x7F if data[1] & 0x80 else 0
    size = int.from_bytes(data[2 : 2 + count], "big") if count else data[1]
    return count <= 2 and 2 + count + size == len(data)


def load(path: str) -> Identity:
    """Raises OSError, or InvalidError when the file holds no certificate."""
    with open(path, encoding="ascii", errors="replace") as file:
        return Identity(path, parse(file.read(4 * MOST)))


def load_or_make(path: str) -> Identity:
    """The identity that a file holds, which is made with it if there is none yet, for nobody else to read."""
    try:
        return load(path)
    except FileNotFoundError:
        from sysd.remote import ed25519

        _write(path, bundle(os.urandom(ed25519.SIZE)))
    return load(path)


@contextlib.contextmanager
def temporary(secret: bytes) -> Iterator[Identity]:
    """The identity of a key that is in no file: OpenSSL takes none from elsewhere."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="syscont-") as folder:
        path = os.path.join(folder, "key.pem")
        _write(path, bundle(secret))
        yield load(path)


def _write(path: str, text: str) -> None:
    """All of it or nothing, and not over one that another has made meanwhile."""
    import tempfile

    fd, draft = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".syscont-")
    try:
        with open(fd, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        os.unlink(draft)
