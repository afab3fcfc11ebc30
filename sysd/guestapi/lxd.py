# SPDX-License-Identifier: Apache-2.0
"""LXD's API for guests, on /dev/lxd/sock: what cloud-init's data source LXD and people's scripts ask for.

HTTP/1.1 with GET alone. Sources: LXD's dev-lxd.md and devlxd.go (paths, answers, events), RFC 9112.
"""

from __future__ import annotations

import asyncio
import json
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from socket import socket
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from sysd.guestapi import websocket
from sysd.guestapi.door import Host, Room
from sysd.guestapi.view import CONFIG, Change, changes
from sysd.model import cloudinit

log = logging.getLogger(__name__)

MAX_HEAD = 8192
_ACTIONS = {"added": "added", "changed": "updated", "removed": "removed"}
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


class RequestError(Exception):
    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """headers by their names in small letters."""

    target: str
    headers: dict[str, str]
    last: bool

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)


def parse(head: bytes) -> Request:
    """The head of a request; raises RequestError for what is none that can be answered."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[1].startswith("/") or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise RequestError(HTTPStatus.BAD_REQUEST)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise RequestError(HTTPStatus.BAD_REQUEST)
        headers[name.lower()] = value.strip()
    if words[0] != "GET":
        raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED)
    # A body is not read, so nothing that follows it could be told from it.
    body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    close = words[2] == "HTTP/1.0" or headers.get("connection", "").lower() == "close"
    return Request(words[1], headers, body or close)


def answer(status: HTTPStatus, body: str, kind: str = _TEXT, *, last: bool = False) -> bytes:
    data = body.encode()
    head = [f"HTTP/1.1 {status.value} {status.phrase}", f"Content-Type: {kind}", f"Content-Length: {len(data)}"]
    if last:
        head.append("Connection: close")
    return "\r\n".join((*head, "", "")).encode() + data


class LxdServer:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, room: Room, sock: socket, ended: Callable[[], None]) -> Callable[[], None]:
        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            sock.close()
            ended()
            if not task.cancelled() and (error := task.exception()):
                log.error("/dev/lxd/sock failed", exc_info=error)

        task = asyncio.create_task(self._talk(room, sock))
        self._tasks.add(task)
        task.add_done_callback(done)

        def close() -> None:
            task.cancel()

        return close

    async def _talk(self, room: Room, sock: socket) -> None:
        reader, writer = await _streams(sock)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await self._answer_one(room, reader, writer):
                    pass
        finally:
            # All that was to be sent was drained; what was cut off is not to linger.
            writer.transport.abort()

    async def _answer_one(self, room: Room, reader: StreamReader, writer: StreamWriter) -> bool:
        """Returns whether another request may come."""
        try:
            request = parse(await reader.readuntil(b"\r\n\r\n"))
            await asyncio.sleep(room.pace.step())
            if request.path == "/1.0/events":
                await self._send_events(room.uuid, request, reader, writer)
                return False
            body, kind = self._look_up(room.uuid, request.path)
        except asyncio.LimitOverrunError:
            error = RequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except RequestError as caught:
            error = caught
        else:
            writer.write(answer(HTTPStatus.OK, body, kind, last=request.last))
            await writer.drain()
            return not request.last
        # What comes behind a bad request can't be told from it; a good one for what is not there does no harm.
        last = error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN) or request.last
        writer.write(answer(error.status, f"{error.status.phrase}\n", last=last))
        await writer.drain()
        return not last

    def _look_up(self, uuid: str, path: str) -> tuple[str, str]:
        instance, view = self._host.instance(uuid), self._host.view(uuid)
        match path.strip("/").split("/"):
            case [""]:
                return json.dumps(["/1.0"]), _JSON
            case ["1.0"]:
                # location: none is what LXD says outside of a cluster.
                facts = {"api_version": "1.0", "location": "none", "instance_type": instance.kind, "state": "Started"}
                return json.dumps(facts), _JSON
            case ["1.0", "config"]:
                return json.dumps([f"/1.0/config/{key}" for key in sorted(view.config)]), _JSON
            case ["1.0", "config", *key]:
                return self._value(view.config, "/".join(key)), _TEXT
            case ["1.0", "meta-data"]:
                return cloudinit.meta_data(instance), _TEXT
            case ["1.0", "devices"]:
                return json.dumps(view.devices), _JSON
            case ["1.0", "images", *_]:
                raise RequestError(HTTPStatus.FORBIDDEN)
            case _:
                raise RequestError(HTTPStatus.NOT_FOUND)

    def _value(self, config: dict[str, str], key: str) -> str:
        if not key.startswith(CONFIG):
            raise RequestError(HTTPStatus.FORBIDDEN)
        if key not in config:
            raise RequestError(HTTPStatus.NOT_FOUND)
        return config[key]

    async def _send_events(self, uuid: str, request: Request, reader: StreamReader, writer: StreamWriter) -> None:
        """As messages of a WebSocket, or as lines if the client did not ask for one; until it hangs up."""
        wanted = ",".join(parse_qs(urlsplit(request.target).query).get("type", ["config,device"])).split(",")
        upgraded = request.headers.get("upgrade", "").lower() == "websocket"
        if upgraded:
            key = websocket.accept_key(request.headers.get("sec-websocket-key", ""))
            if key is None:
                raise RequestError(HTTPStatus.BAD_REQUEST)
            writer.write(websocket.handshake(key))
        else:
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {_JSON}\r\nConnection: close\r\n\r\n".encode())
        gone = asyncio.create_task(websocket.until_closed(reader, writer) if upgraded else _until_end(reader))
        sending = asyncio.create_task(self._follow(uuid, wanted, writer, upgraded))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, sending):
                task.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)

    async def _follow(self, uuid: str, wanted: list[str], writer: StreamWriter, framed: bool) -> None:
        changed = asyncio.Event()
        seen = self._host.view(uuid)
        end = self._host.watch(uuid, changed.set)
        try:
            while await changed.wait():
                changed.clear()
                before, seen = seen, self._host.view(uuid)
                for change in changes(before, seen):
                    if change.kind in wanted:
                        text = json.dumps(_event(change))
                        writer.write(websocket.frame(text.encode()) if framed else f"{text}\n".encode())
                await writer.drain()
        finally:
            end()


def _event(change: Change) -> dict[str, Any]:
    if change.kind == "config":
        metadata = {"key": change.name, "old_value": change.before or "", "value": change.after or ""}
    else:
        config = change.before if change.after is None else change.after
        metadata = {"action": _ACTIONS[change.action], "name": change.name, "config": config}
    return {"timestamp": datetime.now(UTC).isoformat(), "type": change.kind, "metadata": metadata}


async def _until_end(reader: StreamReader) -> None:
    while await reader.read(MAX_HEAD):
        pass


async def _streams(sock: socket) -> tuple[StreamReader, StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = StreamReader(MAX_HEAD)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
    transport.set_write_buffer_limits(high=0)  # drain() waits until all is sent
    return reader, StreamWriter(transport, protocol, reader, loop)
