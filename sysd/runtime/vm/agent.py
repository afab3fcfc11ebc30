# SPDX-License-Identifier: Apache-2.0
"""The agent in a guest, qemu-ga, over its virtio-serial port (docs/interop/qemu-ga.rst of QEMU).

Whoever is root in the guest is at the other end. What it says is read only while an answer is awaited, each call ends
by a limit of time and of bytes, and each value is checked for its type. Raises FailedError and what is below it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sysd.model.errors import FailedError
from sysd.runtime.addresses import MAX_ADDRESSES
from sysd.runtime.vm.wire import Lines, Unresponsive, parse
from sysd.units.answers import clean

T = TypeVar("T")

MAX_LINE = 4 << 20
MAX_READ = 2 * MAX_LINE
"""Bytes of one answer, and of all that comes before it."""
MAX_STRAY = 100
"""Answers that may come before the one that is awaited: each takes longer to read than to say."""
MAX_INPUT = 1 << 20
MAX_OUTPUT = 1 << 20
"""Bytes of a command's input, and of each of its two outputs."""
MAX_INTERFACES = 256
TIMEOUT = 5.0
EXEC_LIMIT = 15.0
"""Seconds, also for an answer about a command, whose beginning may be slow without hardware's help."""
QUEUE_LIMIT = 60.0
"""Seconds that a call waits for those before it."""
FIRST_LOOK, LAST_LOOK = 0.01, 0.5
"""Seconds between looks at a command that runs; each time twice as many."""
_ENDLESS = "the guest's agent talks without an end"
SENTINEL = b"\xff"
"""In no JSON: whatever the other side was at, it begins anew."""


class AgentError(FailedError):
    """The agent's refusal; kind is CommandNotFound for a command that it lacks or was told to refuse."""

    def __init__(self, command: str, kind: str, description: str) -> None:
        super().__init__(f"the guest's agent refused {command}: {description}")
        self.kind = kind


class Nonsense(FailedError):
    """What came is no answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its status, 128 plus the number of a signal that ended it, and what it wrote."""

    status: int
    output: bytes = b""
    errors: bytes = b""


class Agent:
    """A connection to an agent that was there once."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._lock = asyncio.Lock()
        self._in_step = False

    @classmethod
    async def connect(cls, path: Path, timeout: float = TIMEOUT) -> Agent:
        """Raises Broken when there is no QEMU, Unresponsive when no agent answers (yet)."""
        self = cls(await Lines.connect(path, "the guest's agent", MAX_LINE))
        try:
            await self.ping(timeout)
        except BaseException:
            self.close()
            raise
        return self

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more; one that only does not answer may do so later."""
        return self._lines.closed

    def close(self) -> None:
        self._lines.close()

    async def ping(self, timeout: float = TIMEOUT) -> None:
        await self.call("guest-ping", timeout=timeout)

    async def call(self, command: str, arguments: Mapping[str, Any] | None = None, timeout: float = TIMEOUT) -> Any:
        """What the agent returns: anything that JSON can say. One call at a time; the others wait."""
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        try:
            async with asyncio.timeout(QUEUE_LIMIT):
                await self._lock.acquire()
            try:
                async with asyncio.timeout(timeout):
                    answer = await self._ask(message)
            finally:
                self._lock.release()
        except TimeoutError:
            raise Unresponsive("the guest's agent does not answer", "is qemu-guest-agent running there?") from None
        if "return" in answer:
            return answer["return"]
        raise _refusal(command, answer.get("error"))

    async def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if not self._in_step:
            await self._synchronise()
        # Until its answer is there: what comes later would be taken for that to another call.
        self._in_step = False
        await self._lines.send(message)
        answer = await self._answer([MAX_READ])
        self._in_step = True
        return answer

    async def _synchronise(self) -> None:
        """Have all forgotten that either side said before."""
        number = secrets.randbelow(1 << 31)
        message = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        await self._lines.send(message, lead=SENTINEL)
        left = [MAX_READ]
        for _ in range(MAX_STRAY):
            # Megabytes may be on their way of what an agent wrote that is no more: none of it is looked at.
            if (skipped := await self._lines.skip(SENTINEL, left[0])) < 0:
                break
            left[0] -= skipped
            try:
                answer = await self._answer(left)
            except Nonsense:
                continue
            if type(answer.get("return")) is int and answer["return"] == number:
                return
        raise FailedError(_ENDLESS)

    async def _answer(self, left: list[int]) -> dict[str, Any]:
        line = await self._lines.receive()
        left[0] -= len(line) + 1
        if left[0] < 0:
            raise FailedError(_ENDLESS)
        try:
            return parse(line.rpartition(SENTINEL)[2])
        except ValueError as error:
            raise Nonsense(f"the guest's agent gave a wrong answer: {clean(str(error))}") from None

    async def network(self, timeout: float = TIMEOUT) -> tuple[str, ...]:
        """The guest's global addresses, IPv4 first."""
        return global_addresses(await self.call("guest-network-get-interfaces", timeout=timeout))

    def _read(self, reader: Callable[[Any], T], answer: Any) -> T:
        """What an answer says. Behind one that says nothing there may be more, which are not to be taken for answers to
        what is asked next."""
        try:
            return reader(answer)
        except Nonsense:
            self._in_step = False
            raise

    async def execute(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float | None = 60.0,
    ) -> Outcome:
        """Run a command in the guest as its root, to its end. What runs longer goes on there, and Unresponsive is
        raised."""
        number = await self.begin(argv, environment=environment, stdin=stdin)
        try:
            async with asyncio.timeout(timeout):
                return await self.ended(number)
        except TimeoutError:
            raise Unresponsive(f"{clean(argv[0])} has not ended in time") from None

    async def begin(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        capture: bool = True,
    ) -> int:
        """Have a command begun, and return its number for ended()."""
        if len(stdin) > MAX_INPUT:
            raise FailedError("the command's input is too long", f"at most {MAX_INPUT >> 10} KiB by the guest's agent")
        arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": capture}
        if environment:
            arguments["env"] = [f"{key}={value}" for key, value in environment.items()]
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        return self._read(_read_process, await self.call("guest-exec", arguments, EXEC_LIMIT))

    async def ended(self, number: int) -> Outcome:
        """Wait for the end of what begin() began, for as long as it takes."""
        pause = FIRST_LOOK
        while True:
            if outcome := self._read(read_outcome, await self.call("guest-exec-status", {"pid": number}, EXEC_LIMIT)):
                return outcome
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK)


def _refusal(command: str, error: Any) -> FailedError:
    match error:
        case {"class": str(kind), "desc": str(description)}:
            return AgentError(command, clean(kind), clean(description))
    return Nonsense("the guest's agent gave a wrong answer: neither a result nor an error")


def _read_process(found: Any) -> int:
    """Of guest-exec."""
    number = found.get("pid") if isinstance(found, dict) else None
    if type(number) is not int or number <= 0:
        raise Nonsense("the guest's agent gave a wrong answer: no process")
    return number


def read_outcome(found: Any) -> Outcome | None:
    """Of guest-exec-status; None when the command still runs."""
    match found:
        case {"exited": False}:
            return None
        case {"exited": True}:
            return Outcome(_status(found), _bytes(found, "out"), _bytes(found, "err"))
    raise Nonsense("the guest's agent gave a wrong answer: not how a command ended")


def _status(found: Mapping[str, Any]) -> int:
    # Windows tells of exceptions by numbers of 32 bits.
    if type(code := found.get("exitcode")) is int:
        return code & 0xFF
    if type(number := found.get("signal")) is int and 0 < number < 128:
        return 128 + number
    raise Nonsense("the guest's agent gave a wrong answer: no status of a command")


def _bytes(found: Mapping[str, Any], which: str) -> bytes:
    text = found.get(f"{which}-data", "")
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Nonsense("the guest's agent gave a wrong answer: output that is not base64") from None
    if len(data) > MAX_OUTPUT or found.get(f"{which}-truncated"):
        raise FailedError("the command wrote too much", f"at most {MAX_OUTPUT >> 10} KiB by the guest's agent")
    return data


def global_addresses(interfaces: Any) -> tuple[str, ...]:
    """Of guest-network-get-interfaces, as sysd.runtime.addresses would say them of a container."""
    unique = set(_global_addresses(interfaces))
    ordered = sorted(unique, key=lambda address: (address.version, int(address)))
    return tuple(str(address) for address in ordered[:MAX_ADDRESSES])


def _global_addresses(interfaces: Any) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    for interface in _list(interfaces)[:MAX_INTERFACES]:
        found = interface.get("ip-addresses") if isinstance(interface, dict) else None
        for entry in _list(found)[:MAX_ADDRESSES]:
            text = entry.get("ip-address") if isinstance(entry, dict) else None
            try:
                # Not of a number, which it takes as well.
                address = ipaddress.ip_address(text) if isinstance(text, str) else None
            except ValueError:
                continue
            if address and _is_global(address):
                yield address


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it has the scope that the kernel calls universe, for which addresses are not told apart otherwise."""
    if isinstance(address, ipaddress.IPv6Address) and (address.is_site_local or address.scope_id):
        return False
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
