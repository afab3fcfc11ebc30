# SPDX-License-Identifier: Apache-2.0
"""Ends of proxies.

peer serve KIND ADDRESS      echo: a datagram after its sender's address, a unix connection after its peer's user
peer ask KIND ADDRESS TEXT.. send each from one socket and print what comes back
peer flood udp ADDRESS N     a datagram from each of N sockets
peer hold KIND ADDRESS N     open N connections, say how many are, and hold them until stdin ends
"""

import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any

KINDS = {
    "tcp": (socket.AF_INET, socket.SOCK_STREAM),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
}


def make(kind: str) -> socket.socket:
    family, type_ = KINDS[kind]
    return socket.socket(family, type_)


def parse(kind: str, text: str) -> Any:
    if kind == "unix":
        return text.replace("@", "\0", 1)
    host, port = text.rsplit(":", 1)
    return host, int(port)


def echo(peer: socket.socket) -> None:
    with peer:
        if peer.family == socket.AF_UNIX:
            _, uid, gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            peer.sendall(f"{uid}:{gid} ".encode())
        while data := peer.recv(1 << 16):
            peer.sendall(data)


def serve(kind: str, address: str) -> None:
    with make(kind) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(parse(kind, address))
        if kind != "udp":
            server.listen(1024)
        print("ready", flush=True)
        while True:
            if kind == "udp":
                data, sender = server.recvfrom(1 << 16)
                server.sendto(f"{sender[0]}:{sender[1]} ".encode() + data, sender)
            else:
                threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()


def ask(kind: str, address: str, *texts: str) -> None:
    """Of a connection until what was sent last came back, or its end."""
    with make(kind) as peer:
        peer.settimeout(5)
        peer.connect(parse(kind, address))
        answer = b""
        for text in texts:
            peer.sendall(text.encode())
            if kind == "udp":
                print(peer.recv(1 << 16).decode())
        while kind != "udp" and not (texts and answer.endswith(texts[-1].encode())) and (data := peer.recv(1 << 16)):
            answer += data
        print(answer.decode(), end="")


def flood(kind: str, address: str, count: str) -> None:
    for _ in range(int(count)):
        with make(kind) as peer:
            peer.connect(parse(kind, address))
            peer.send(b"flood")


def hold(kind: str, address: str, count: str) -> None:
    held = []
    for _ in range(int(count)):
        peer = make(kind)
        peer.settimeout(5)
        peer.connect(parse(kind, address))
        held.append(peer)
    print(len(held), flush=True)
    sys.stdin.read()


VERBS: dict[str, Callable[..., None]] = {"serve": serve, "ask": ask, "flood": flood, "hold": hold}
VERBS[sys.argv[1]](*sys.argv[2:])
