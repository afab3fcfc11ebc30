# SPDX-License-Identifier: Apache-2.0
"""A small varlink server in a thread: the daemon's side of the contract, as tests want it."""

from __future__ import annotations

import array
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Parameters = dict[str, Any]
Handler = Callable[["Call"], None]
FD_SIZE = array.array("i").itemsize


class Call:
    """One call that came in: what was asked, with which descriptors, and the means to answer."""

    def __init__(self, connection: socket.socket, message: Parameters, fds: list[int]) -> None:
        self.connection = connection
        self.method = message["method"].rpartition(".")[2]
        self.parameters: Parameters = message["parameters"]
        self.more = message.get("more", False)
        self.fds = fds

    def reply(self, parameters: Parameters, continues: bool = False, fds: tuple[int, ...] = ()) -> None:
        message: Parameters = {"parameters": parameters}
        if continues:
            message["continues"] = True
        self._send(message, fds)

    def error(self, name: str, message: str = "", hint: str = "") -> None:
        full = name if "." in name else f"org.syscont.Manager.{name}"
        self._send({"error": full, "parameters": {"message": message, "hint": hint} if message else {}}, ())

    def close_fds(self) -> None:
        while self.fds:
            os.close(self.fds.pop())

    def _send(self, message: Parameters, fds: tuple[int, ...]) -> None:
        data = json.dumps(message).encode() + b"\0"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []
        sent = self.connection.sendmsg([data], rights)
        if sent < len(data):
            self.connection.sendall(data[sent:])


class FakeDaemon:
    """Serves handlers by method name and remembers every call."""

    def __init__(self, path: Path, handlers: dict[str, Handler]) -> None:
        self.path = path
        self.handlers = handlers
        self.calls: list[Call] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(300)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def methods(self) -> list[str]:
        return [call.method for call in self.calls]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            for message, fds in _messages(connection):
                call = Call(connection, message, fds)
                self.calls.append(call)
                handler = self.handlers.get(call.method)
                if handler is None:
                    call.error("org.varlink.service.MethodNotFound")
                else:
                    handler(call)
                call.close_fds()


def _messages(connection: socket.socket) -> Iterator[tuple[Parameters, list[int]]]:
    buffer = b""
    fds: list[int] = []
    while True:
        data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(16 * FD_SIZE))
        if not data:
            return
        for _, _, rights in ancillary:
            fds += array.array("i", rights).tolist()
        buffer += data
        while b"\0" in buffer:
            message, _, buffer = buffer.partition(b"\0")
            yield json.loads(message), fds
            fds = []
