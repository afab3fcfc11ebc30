# SPDX-License-Identifier: Apache-2.0
"""Our reader of D-Bus messages gives what the library's own gives."""

import io
import socket
import struct
from typing import Any

import pytest
from dbus_next import Message, MessageType, Variant
from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.errors import InvalidSignatureError

from sysd.units.reader import Reader

BODIES: dict[str, list[Any]] = {
    "": [],
    "s": ["žluťoučký\n"],
    "ybnqiuxtd": [255, True, -3, 65535, -70000, 1 << 31, -(1 << 40), 1 << 63, 0.25],
    "ogs": ["/a/b", "a{sv}", ""],
    "ay": [b"\x00\xff"],
    "as": [["one", "", "three"]],
    "(sa(yt))": [["x", [[1, 2], [3, 4]]]],
    "sa{sv}as": [
        "org.freedesktop.systemd1.Unit",
        {
            "ActiveState": Variant("s", "active"),
            "Job": Variant("(uo)", [7, "/org/freedesktop/systemd1/job/7"]),
            "Conditions": Variant("a(sbbsi)", [["ConditionPathExists", False, True, "/x", 1]]),
            "InvocationID": Variant("ay", bytes(range(16))),
            "Nested": Variant("v", Variant("a{sv}", {"deep": Variant("d", 1.5)})),
        },
        [],
    ],
    "a{t(sv)}": [{1: ["a", Variant("x", -1)], 2: ["b", Variant("as", [])]}],
}


def wire(signature: str) -> bytes:
    message = Message.new_signal("/org/syscont", "org.syscont.Test", "Happened", signature, BODIES[signature])
    message.serial = 77
    return bytes(message._marshall())


def fields(message: Message) -> dict[str, Any]:
    return {name: value for name, value in vars(message).items() if name != "signature_tree"}


@pytest.mark.parametrize("signature", BODIES)
def test_the_same_message_comes_out(signature: str) -> None:
    data = wire(signature)
    ours, theirs = Reader(io.BytesIO(data)).unmarshall(), Unmarshaller(io.BytesIO(data)).unmarshall()
    assert fields(ours) == fields(theirs)
    assert ours.body == BODIES[signature]
    assert ours.message_type is MessageType.SIGNAL


def test_what_was_read_can_be_sent_again() -> None:
    (_, properties, _) = Reader(io.BytesIO(wire("sa{sv}as"))).unmarshall().body
    again = Message.new_signal("/a", "a.b", "C", "a{sv}", [properties])
    again.serial = 1
    assert Reader(io.BytesIO(again._marshall())).unmarshall().body == [properties]


def test_the_other_byte_order() -> None:
    body = struct.pack(">I", 0x01020304)
    signature = b"\x08\x01g\x00\x01u\x00\x00"
    fields_of_it = b"\x01\x01o\x00" + struct.pack(">I", 2) + b"/a\x00" + bytes(5)
    fields_of_it += b"\x02\x01s\x00" + struct.pack(">I", 3) + b"a.b\x00" + bytes(4)
    fields_of_it += b"\x03\x01s\x00" + struct.pack(">I", 1) + b"C\x00" + bytes(6)
    fields_of_it += signature[:7]
    header = b"B\x04\x00\x01" + struct.pack(">III", len(body), 9, len(fields_of_it)) + fields_of_it
    data = header + bytes(-len(header) % 8) + body
    assert Unmarshaller(io.BytesIO(data)).unmarshall().body == [0x01020304]
    assert Reader(io.BytesIO(data)).unmarshall().body == [0x01020304]


def test_a_message_that_comes_in_pieces() -> None:
    """And the descriptor that came with its first byte."""
    data = wire("sa{sv}as")
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        reader = Reader(ours.makefile("rwb"), ours)
        socket.send_fds(peer, [data[:1]], [peer.fileno()])
        for start in range(1, len(data), 11):
            assert reader.unmarshall() is None
            peer.sendall(data[start : start + 11])
        message = reader.unmarshall()
        assert message.body == BODIES["sa{sv}as"]
        (fd,) = message.unix_fds
        socket.socket(fileno=fd).close()


@pytest.mark.parametrize("signature", [b"", b"ss", b"!"])
def test_a_variant_of_no_type_or_two_is_refused(signature: bytes) -> None:
    reader = Reader(io.BytesIO())
    reader.endian = ord("l")
    reader.buf = bytearray(bytes([len(signature)]) + signature + bytes(40))
    with pytest.raises((ValueError, InvalidSignatureError)):
        reader.read_variant()


def test_lengths_that_lie_are_refused() -> None:
    data = bytearray(wire("as"))
    data[4:8] = struct.pack("<I", 8)
    with pytest.raises((ValueError, EOFError, struct.error)):
        Reader(io.BytesIO(bytes(data))).unmarshall()
