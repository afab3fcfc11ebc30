# SPDX-License-Identifier: Apache-2.0
"""A D-Bus client in Python, as somebody writes one: prints as JSON what signals came and what calls gave."""

import asyncio
import json
import os
import sys
from typing import Any

from dbus_next import BusType, Message, MessageType, Variant
from dbus_next.aio import MessageBus

NAME, ROOT = "org.syscont.Manager", "/org/syscont/Manager"


def plain(value: Any) -> Any:
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


async def call(
    bus: MessageBus, path: str, interface: str, member: str, signature: str, *body: object, fds: tuple[int, ...] = ()
) -> Any:
    reply = await bus.call(
        Message(
            destination=NAME, path=path, interface=interface, member=member,
            signature=signature, body=list(body), unix_fds=list(fds),
        )
    )  # fmt: skip
    if reply.message_type is MessageType.ERROR:
        raise SystemExit(f"{reply.error_name}: {reply.body}")
    return reply.body


async def finish(bus: MessageBus, operation: str) -> Any:
    """Wait for an operation by its own property."""
    for _ in range(400):
        (all_of_it,) = await call(
            bus, operation, "org.freedesktop.DBus.Properties", "GetAll", "s", "org.syscont.Operation"
        )
        if all_of_it["Status"].value != "running":
            return plain(all_of_it)
        await asyncio.sleep(0.02)
    raise SystemExit("the operation does not end")


async def life(bus: MessageBus, image: str, name: str) -> None:
    """Make an instance, stop and delete it, and print every signal that came meanwhile."""
    signals = []

    def take(message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.path.startswith(ROOT):
            signals.append([message.path, message.member, plain(message.body)])

    bus.add_message_handler(take)
    await bus.call(
        Message(
            destination="org.freedesktop.DBus", path="/org/freedesktop/DBus",
            interface="org.freedesktop.DBus", member="AddMatch", signature="s",
            body=[f"type='signal',sender='{NAME}'"],
        )
    )  # fmt: skip
    options = {"image": Variant("s", image), "start": Variant("b", True)}
    (operation,) = await call(bus, ROOT, NAME, "CreateInstance", "sa{sv}", name, options)
    await finish(bus, operation)
    (path,) = await call(bus, ROOT, NAME, "GetInstance", "s", name)
    for _ in range(400):
        changes = [body[1] for at, member, body in signals if at == path and member == "PropertiesChanged"]
        if any(change.get("Addresses") for change in changes):
            break
        await asyncio.sleep(0.02)
    for member, option in (("Stop", "force"), ("Delete", "force")):
        (operation,) = await call(
            bus, path, "org.syscont.Instance", member, "a{sv}", {option: Variant("b", True)}
        )
        await finish(bus, operation)
    await asyncio.sleep(0.2)
    print(json.dumps({"path": path, "signals": signals}))


async def run(bus: MessageBus, path: str, text: str) -> None:
    """Exec with descriptors: a pipe each way."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    options = {
        "stdin": Variant("h", 0), "stdout": Variant("h", 1), "stderr": Variant("h", 2),
        "environment": Variant("a{ss}", {"WORD": "said"}), "cwd": Variant("s", "/etc"),
    }  # fmt: skip
    command = ["sh", "-c", 'read line; echo "$WORD $line $(pwd)"; echo wrong >&2; exit 5']
    (operation,) = await call(
        bus, path, "org.syscont.Instance", "Exec", "asa{sv}", command, options,
        fds=(in_read, out_write, err_write),
    )  # fmt: skip
    for fd in (in_read, out_write, err_write):
        os.close(fd)
    os.write(in_write, f"{text}\n".encode())
    ended = await finish(bus, operation)
    output = [os.read(fd, 100).decode() for fd in (out_read, err_read)]
    closed = [os.read(fd, 100) == b"" for fd in (out_read, err_read)]
    print(json.dumps({"output": output, "closed": closed, "result": ended["Result"]}))


async def descriptors(bus: MessageBus, path: str, times: str) -> None:
    """Send descriptors to who has no use for them, and ask for some."""
    null = os.open("/dev/null", os.O_RDONLY)
    wrong = {"stdin": Variant("h", 0), "stdout": Variant("h", 1), "nonsense": Variant("b", True)}
    upload = {"image": Variant("h", 0), "aliases": Variant("as", ["x"])}
    calls = [
        (path, "org.freedesktop.DBus.Peer", "Ping", "", []),
        (path, "org.freedesktop.DBus.Introspectable", "Introspect", "", []),
        (path, "org.syscont.Instance", "OpenConsole", "", []),
        (path, "org.syscont.Instance", "Exec", "asa{sv}", [["true"], wrong]),
        (ROOT, NAME, "ImportImage", "a{sv}", [upload]),
        (ROOT, NAME, "Nonsense", "", []),
    ]
    for _ in range(int(times)):
        for at, interface, member, signature, body in calls:
            message = Message(
                destination=NAME, path=at, interface=interface, member=member,
                signature=signature, body=body, unix_fds=[null] * 12,
            )  # fmt: skip
            for fd in (await bus.call(message)).unix_fds:
                os.close(fd)


async def files(bus: MessageBus, path: str, text: str) -> None:
    """Push a file from one pipe and pull it to another."""
    instance = "org.syscont.Instance"
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    os.write(in_write, text.encode())
    os.close(in_write)
    options = {"mode": Variant("u", 0o600), "uid": Variant("u", 7), "create-dirs": Variant("b", True)}
    body = ["/srv/by/bus", 0, options]
    (operation,) = await call(bus, path, instance, "PushFile", "sha{sv}", *body, fds=(in_read,))
    os.close(in_read)
    pushed = await finish(bus, operation)
    (operation,) = await call(bus, path, instance, "PullFile", "sh", "/srv/by/bus", 0, fds=(out_write,))
    os.close(out_write)
    pulled = await finish(bus, operation)
    found = os.read(out_read, 1000).decode()
    closed = os.read(out_read, 1) == b""
    (operation,) = await call(bus, path, instance, "DeleteFile", "sa{sv}", "/srv/by", {"recursive": Variant("b", True)})
    deleted = await finish(bus, operation)
    ended = [one["Status"] for one in (pushed, pulled, deleted)]
    print(json.dumps({"found": found, "closed": closed, "ended": ended, "result": pulled["Result"]}))


async def main() -> None:
    bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
    await {"life": life, "run": run, "files": files, "descriptors": descriptors}[sys.argv[1]](bus, *sys.argv[2:])


asyncio.run(main())
