# SPDX-License-Identifier: Apache-2.0
"""What one host tells another's user, once, so that they may trust each other.

The secret is a key: who has it shows its certificate in the handshake. The host has remembered that certificate, and no
secret, as one that may bring another and do nothing else.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from sysd.codec import decode, encode
from sysd.model.errors import InvalidError
from sysd.remote import ed25519
from sysd.remote.addresses import check_address

MOST = 8192
MOST_ADDRESSES = 32


@dataclass(frozen=True, slots=True)
class Token:
    """name: what the one who comes is to be called, "" for as they say. addresses: HOST:PORT, in the order in which to
    try them. fingerprint: of the host's certificate. expires: seconds since the epoch."""

    name: str
    addresses: Sequence[str]
    fingerprint: str
    secret: bytes
    expires: int

    def __str__(self) -> str:
        said = {
            "name": self.name,
            "addresses": list(self.addresses),
            "fingerprint": self.fingerprint,
            "secret": self.secret.hex(),
            "expires": self.expires,
        }
        return binascii.b2a_base64(encode(said).encode(), newline=False).decode().translate(_TO_URL).rstrip("=")


_TO_URL, _FROM_URL = str.maketrans("+/", "-_"), str.maketrans("-_", "+/")


def parse(text: str) -> Token:
    """Raises InvalidError. Whoever made it up, what it holds is of the right form."""
    text = text.strip()
    try:
        if len(text) > MOST:
            raise ValueError
        data = binascii.a2b_base64(text.translate(_FROM_URL) + "=" * (-len(text) % 4), strict_mode=True)
        return _token(decode(data.decode()))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidError("not a token", "'syscont remote token' on the other host prints one") from None


def _token(said: object) -> Token:
    if not isinstance(said, dict):
        raise TypeError
    addresses = said["addresses"]
    if not isinstance(addresses, list) or not 0 < len(addresses) <= MOST_ADDRESSES:
        raise ValueError
    fingerprint, secret = bytes.fromhex(said["fingerprint"]), bytes.fromhex(said["secret"])
    if len(fingerprint) != 32 or len(secret) != ed25519.SIZE or not isinstance(said["name"], str):
        raise ValueError
    checked = [check_address(one) for one in addresses]
    return Token(said["name"], checked, fingerprint.hex(), secret, int(said["expires"]))
