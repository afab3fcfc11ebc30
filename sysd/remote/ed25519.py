# SPDX-License-Identifier: Apache-2.0
"""Ed25519 (RFC 8032): the public key of a secret one, and signatures.

Python has no way to make a key; by this a client runs wherever Python does, and needs no other program. It makes a key
once, and signs the certificate of it. Nothing here is done with what others say, and OpenSSL, which does all the rest,
refuses to load a key that is not its certificate's.
"""

from __future__ import annotations

import hashlib

SIZE = 32
"""Bytes of a secret key, which is any number of so many, and of a public one."""
_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P

# x, y, z and xy/z of section 5.1.4.
_Point = tuple[int, int, int, int]


def _add(one: _Point, other: _Point) -> _Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _base() -> _Point:
    """The point that all others are multiples of: y is 4/5, and x even."""
    y = 4 * pow(5, -1, _P) % _P
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P)
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    x = _P - x if x & 1 else x
    return x, y, 1, x * y % _P


_BASE = _base()


def _multiple(number: int) -> bytes:
    """Of the base, as it is written."""
    found: _Point = (0, 1, 1, 0)
    power = _BASE
    while number:
        if number & 1:
            found = _add(found, power)
        power = _add(power, power)
        number >>= 1
    inverse = pow(found[2], -1, _P)
    x, y = found[0] * inverse % _P, found[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(SIZE, "little")


def _expanded(secret: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(secret).digest()
    number = int.from_bytes(digest[:SIZE], "little")
    return number & (1 << 254) - 8 | 1 << 254, digest[SIZE:]


def _hash(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % _ORDER


def public_key(secret: bytes) -> bytes:
    return _multiple(_expanded(secret)[0])


def sign(secret: bytes, message: bytes) -> bytes:
    number, prefix = _expanded(secret)
    nonce = _hash(prefix, message)
    point = _multiple(nonce)
    answer = (nonce + _hash(point, _multiple(number), message) * number) % _ORDER
    return point + answer.to_bytes(SIZE, "little")
