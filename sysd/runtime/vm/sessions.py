# SPDX-License-Identifier: Apache-2.0
"""Commands in a running virtual machine, by the first of these ways that its guest has:

ssh over vsock, where sshd listens (systemd's ssh generator has it do so); ssh over a port that is plugged for it, where
the guest's agent can start sshd there; or the agent alone, without a terminal and for little data.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Mapping
from typing import Any

from sysd.model.errors import FailedError, UnsupportedError
from sysd.runtime.execute import Command
from sysd.runtime.session import Session
from sysd.runtime.vm import keys, remote, ssh, streams
from sysd.runtime.vm.agent import MAX_INPUT, Agent, AgentError, Outcome
from sysd.runtime.vm.background import Background
from sysd.runtime.vm.ports import Port, Ports
from sysd.runtime.vm.qmp import Qmp
from sysd.units.answers import clean

SSH_PORT = 22
VSOCK_LIMIT = 1.0
"""Seconds that sshd has to take a connection on vsock."""
OPEN_LIMIT = 30.0
"""Seconds that the agent has to start sshd at a port: it may have to make a key, without hardware's help."""
OPEN_AT_ONCE = 3
LEAVE = 1.0
"""Seconds between the end of sshd and that of its connection, which says first how the command ended."""
HINT = "install openssh-server in it"


class Entrance:
    """What leads into one machine. Its owner sets qmp and agent as they come and go, and then has it sweep."""

    def __init__(self, uuid: str, cid: int) -> None:
        """cid: its context id on vsock, 0 for none."""
        self.cid = cid
        self.qmp: Qmp | None = None
        self.agent: Agent | None = None
        self._ports = Ports(uuid)
        self._opening = asyncio.Semaphore(OPEN_AT_ONCE)

    def take_event(self, name: str, data: Mapping[str, Any]) -> None:
        """Each event of QEMU's."""
        self._ports.take_event(name, data)

    async def sweep(self) -> None:
        """Once, with the first qmp."""
        if self.qmp:
            await self._ports.sweep(self.qmp)

    async def start(self, command: Command) -> Session:
        """Run command in the guest."""
        command.check()
        token = secrets.token_hex(8)
        words = remote.begin(command, token)
        line = remote.line(words)
        if self.cid and await _answers(self.cid):
            return self._by_vsock(command, line, token)
        if self.agent is None:
            raise FailedError("no command can be started in the instance now", "it has neither sshd nor an agent yet")
        if self.qmp and (port := await self._open_port(self.qmp, self.agent, token)):
            return self._by_port(self.agent, port, command, line, token)
        return await self._by_agent(self.agent, command, words, token)

    def _by_vsock(self, command: Command, line: str, token: str) -> Session:
        where = f"vsock:{self.cid}:{SSH_PORT}"

        async def kill(number: int) -> None:
            to_kill = remote.line(remote.send_signal(token, number))
            await ssh.start(where, to_kill, Command(("kill",)), _unheard).wait()

        return ssh.start(where, line, command, kill)

    async def _open_port(self, qmp: Qmp, agent: Agent, token: str) -> Port | None:
        """With sshd at its other end; None when the guest has none."""
        port = await self._ports.plug(qmp, token)
        try:
            argv, program = remote.open_port(port.name, await keys.host_key())
            async with self._opening:
                found = await agent.execute(argv, stdin=program, timeout=OPEN_LIMIT)
            if found.status == 0:
                return port
            if found.status != remote.NO_SSHD:
                raise FailedError("sshd can't be started in the instance", _words_of(found))
        except AgentError as error:
            await port.unplug()
            raise _refused(error) from None
        except BaseException:
            await port.unplug()
            raise
        await port.unplug()
        return None

    def _by_port(self, agent: Agent, port: Port, command: Command, line: str, token: str) -> Session:
        background = Background()

        async def kill(number: int) -> None:
            await agent.execute(remote.send_signal(token, number))

        def unplug() -> None:
            background.run(port.unplug())

        try:
            session = ssh.start(str(port.path), line, command, kill, unplug)
        except BaseException:
            unplug()
            raise

        def leave() -> None:
            asyncio.get_running_loop().call_later(LEAVE, session.lose)

        port.on_lost = leave
        return session

    async def _by_agent(self, agent: Agent, command: Command, words: list[str], token: str) -> Session:
        if command.tty:
            raise UnsupportedError("the instance has no sshd, and its agent gives commands no terminal", HINT)
        stdin = command.stdio[0]
        data = b"" if stdin < 0 or os.isatty(stdin) else await streams.read_all(stdin, MAX_INPUT, HINT)
        try:
            number = await agent.begin(words, stdin=data)
        except AgentError as error:
            raise _refused(error) from None
        return AgentSession(agent, number, token, command.stdio[1:])


class AgentSession:
    """Satisfies sysd.runtime.session.Session."""

    terminal = -1

    def __init__(self, agent: Agent, number: int, token: str, outputs: tuple[int, int]) -> None:
        self._agent = agent
        self._number = number
        self._token = token
        self._outputs = tuple(os.dup(fd) if fd >= 0 else -1 for fd in outputs)
        self._background = Background()

    async def wait(self, otherwise: int = signal.SIGHUP) -> int:
        try:
            outcome = await self._agent.ended(self._number)
            for fd, data in zip(self._outputs, (outcome.output, outcome.errors), strict=True):
                if fd >= 0:
                    await streams.write_all(fd, data)
        except BaseException:
            self.abandon(otherwise)
            raise
        self._close()
        return outcome.status

    def signal(self, number: int) -> None:
        self._background.run(self._kill(number))

    def abandon(self, number: int) -> None:
        self.signal(number)
        self._close()

    def _close(self) -> None:
        for fd in self._outputs:
            if fd >= 0:
                os.close(fd)
        self._outputs = ()

    async def _kill(self, number: int) -> None:
        await self._agent.execute(remote.send_signal(self._token, number))


async def _answers(cid: int) -> bool:
    """Whether sshd listens there."""
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(VSOCK_LIMIT):
                await asyncio.get_running_loop().sock_connect(sock, (cid, SSH_PORT))
        except (OSError, TimeoutError):
            return False
    return True


async def _unheard(number: int) -> None:
    """Nobody sends signals to what sends a signal."""


def _refused(error: AgentError) -> UnsupportedError | AgentError:
    if error.kind != "CommandNotFound":
        return error
    return UnsupportedError("the instance's agent may not start commands", "see BLOCK_RPCS, or the like, of qemu-ga(8)")


def _words_of(found: Outcome) -> str:
    return clean(found.errors.decode(errors="replace").strip()) or f"status {found.status}"
