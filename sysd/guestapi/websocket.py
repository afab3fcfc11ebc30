# SPDX-License-Identifier: Apache-2.0
"""As much of a WebSocket server (RFC 6455) as it takes to send texts to somebody who only listens."""

from __future__ import annotations

import base64
import binascii
import hashlib
from asyncio import StreamReader, StreamWriter

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MAX_CONTROL = 125

_TEXT, _CLOSE, _PONG = 0x1, 0x8, 0xA


def accept_key(key: str) -> str | None:
    """The answer to a client's Sec-WebSocket-Key; None when that is not one."""
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            return None
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(hashlib.sha1(key.encode() + GUID, usedforsecurity=False).digest()).decode()


def handshake(key: str) -> bytes:
    head = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
    return "\r\n".join((*head, f"Sec-WebSocket-Accept: {key}", "", "")).encode()


def frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    size = len(payload)
    if size <= MAX_CONTROL:
        length = bytes([size])
    elif size < 1 << 16:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + payload


async def until_closed(reader: StreamReader, writer: StreamWriter) -> None:
    """Answer pings until the client closes the connection, or says what somebody who only listens would not."""
    while True:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        if not second & 0x80 or size > MAX_CONTROL:
            return
        mask = await reader.readexactly(4)
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(size)))
        match first & 0x0F:
            case 0x9:
                writer.write(frame(payload, _PONG))
                await writer.drain()
            case 0x8:
                writer.write(frame(payload[:2], _CLOSE))
                return
