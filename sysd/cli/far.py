# SPDX-License-Identifier: Apache-2.0
"""The varlink client of another host: what it sends and takes is the same, descriptors too, whatever system this is."""

from __future__ import annotations

from sysd.cli.client import CHUNK, Client, error_of
from sysd.cli.errors import CliError
from sysd.cli.remotes import identity, load
from sysd.model.errors import SyscontError
from sysd.remote.calling import Calling
from sysd.remote.dial import dial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from ssl import SSLSocket

    from sysd.cli.client import Parameters

WRITTEN = {"Exec": (1, 2), "PullFile": (0,), "PullTree": (0,), "ExportInstance": (0,), "ReadLog": (0,)}
"""Of the descriptors that go with a call, those that the host writes to."""
BRINGING = ("Exec", "OpenConsole")
"""Calls with which descriptors come."""


def reach(host: str) -> FarClient:
    """A connection to a host that is known."""
    remote = load(host)
    try:
        return FarClient(dial(remote.addresses, identity(), remote.certificate), host)
    except SyscontError as error:
        raise error_of(error, f"{host}: ") from None


class FarClient(Client):
    def __init__(self, connection: SSLSocket, host: str) -> None:
        self._host = host
        self._link = Calling(connection, host)
        self._link.start()
        super().__init__(self._link.local)

    @property
    def failure(self) -> SyscontError | None:
        """Why the connection was lost, if that is known."""
        return self._link.failure

    def _send(self, method: str, message: Parameters, fds: Sequence[int]) -> None:
        if fds or method in BRINGING:
            message |= {"upgrade": True, "streams": self._link.attach(fds, WRITTEN.get(method, ()))}
        super()._send(method, message, ())

    def _receive(self) -> bytes:
        data = self._socket.recv(CHUNK)
        opened = self._link.opened
        self.fds += [sock.detach() for sock in opened[len(self.fds) :]]
        return data

    def resize(self, terminal: int, size: bytes) -> None:
        from sysd.cli.terminal import rows_and_columns

        self._link.resize(self.fds.index(terminal), *rows_and_columns(size))

    def _lost(self, why: str | None) -> CliError:
        if error := self._link.error:
            return CliError(f"what goes to or comes from {self._host} has failed here: {error.strerror}")
        if self.failure:
            return error_of(self.failure, f"lost the connection to {self._host}: ")
        return CliError(f"lost the connection to {self._host}: {why}")
