# SPDX-License-Identifier: Apache-2.0
"""The varlink client: NUL-terminated JSON over the daemon's socket, with descriptors beside it."""

from __future__ import annotations

import _socket
import posix
import sys

from sysd.cli.errors import DENIED, FAILURE, NOT_FOUND, USAGE, CliError
from sysd.codec import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    Parameters = dict[str, Any]

INTERFACE = "org.syscont.Manager."
SOCKET = "/run/syscont/org.syscont.Manager"
MAX_FDS = 16
MAX_MESSAGE = 256 << 20
CHUNK = 1 << 18
AT_ONCE = 16

_CODES = {"NotFound": NOT_FOUND, "AccessDenied": DENIED, "InvalidArgument": USAGE, "PermissionDenied": DENIED}
_PROTOCOL = {
    "MethodNotFound": "syscontd does not know what was asked of it",
    "InterfaceNotFound": "syscontd does not know what was asked of it",
    "MethodNotImplemented": "syscontd does not do this yet",
    "InvalidParameter": "syscontd does not take what was sent to it",
    "PermissionDenied": "access denied",
}


class Client:
    """One connection; one call at a time.

    fds collects the descriptors that replies bring. wait, when set, is called with the socket before each read from it.
    """

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.wait: Callable[[int], None] | None = None
        self._buffer = b""
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        _connect(self._socket, socket_path())

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, method: str, parameters: Parameters, fds: Sequence[int] = (), more: bool = False) -> None:
        """Send a call; parameters that are None are left out. The descriptors go with its first byte."""
        message: Parameters = {
            "method": INTERFACE + method,
            "parameters": {key: value for key, value in parameters.items() if value is not None},
        }
        if more:
            message["more"] = True
        data = _bytes(message)
        try:
            if fds:
                rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
                sent = self._socket.sendmsg(
                    [data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)], _socket.MSG_NOSIGNAL
                )
                data = data[sent:]
            if data:
                self._socket.sendall(data, _socket.MSG_NOSIGNAL)
        except OSError as error:
            # A daemon that refuses a connection says why before it closes: that reply is worth more than EPIPE.
            if not isinstance(error, BrokenPipeError | ConnectionResetError):
                raise _lost(error.strerror) from None

    def receive(self) -> tuple[Parameters, bool]:
        """The next reply's parameters, and whether more replies follow; raises CliError for an error reply."""
        reply = _reply(self._message())
        if "error" in reply:
            raise remote_error(str(reply["error"]), reply.get("parameters"))
        parameters = reply.get("parameters")
        return (parameters if isinstance(parameters, dict) else {}), reply.get("continues") is True

    def call(self, method: str, parameters: Parameters, fds: Sequence[int] = ()) -> Parameters:
        """Send a call and return its one reply."""
        self.send(method, parameters, fds)
        return self.receive()[0]

    def take_fd(self, reply: Parameters, field: str) -> int:
        """The descriptor that a field of a reply stands for."""
        index = reply.get(field)
        if not isinstance(index, int) or not 0 <= index < len(self.fds):
            raise _lost(f"no descriptor came for {field}")
        return self.fds[index]

    def _message(self) -> bytes:
        parts = [self._buffer]
        size = len(self._buffer)
        while b"\0" not in parts[-1]:
            data = self._read()
            if not data:
                raise _lost("it closed the connection")
            size += len(data)
            if size > MAX_MESSAGE:
                raise _lost("its reply is too long")
            parts.append(data)
        message, _, self._buffer = b"".join(parts).partition(b"\0")
        return message

    def _read(self) -> bytes:
        if self.wait is not None:
            self.wait(self.fileno())
        space = _socket.CMSG_SPACE(4 * MAX_FDS)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(CHUNK, space, _socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise _lost(error.strerror) from None
        for level, kind, rights in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                for at in range(0, len(rights) - 3, 4):
                    self.fds.append(int.from_bytes(rights[at : at + 4], sys.byteorder))
        return data


def socket_path() -> str:
    return posix.environ.get(b"SYSCONT_SOCKET", b"").decode("utf-8", "surrogateescape") or SOCKET


def project_path() -> bytes:
    """The file that holds the current project's name; empty when there is no home to keep it in."""
    config = posix.environ.get(b"XDG_CONFIG_HOME", b"")
    home = posix.environ.get(b"HOME", b"")
    folder = config or (home + b"/.config" if home else b"")
    return folder + b"/syscont/project" if folder else b""


def current_project() -> str:
    """What --project is when it is not given: SYSCONT_PROJECT, or what 'project switch' remembered."""
    said = posix.environ.get(b"SYSCONT_PROJECT", b"").decode("utf-8", "surrogateescape")
    return said or remembered_project() or "default"


def remembered_project() -> str:
    try:
        fd = posix.open(project_path(), posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return ""
    try:
        remembered = posix.read(fd, 256)
    finally:
        posix.close(fd)
    return remembered.decode("utf-8", "surrogateescape").strip()


def call(method: str, parameters: Parameters | None = None) -> Parameters:
    """One call over a connection of its own."""
    client = Client()
    try:
        return client.call(method, parameters or {})
    finally:
        client.close()


def items(method: str, field: str) -> list[Parameters]:
    """What a List method returns."""
    found = call(method).get(field)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def run_operation(
    method: str, parameters: Parameters, fds: Sequence[int] = (), sent: Callable[[], None] | None = None
) -> Parameters:
    """Call something that may take long and return its operation; on a terminal, show how far it is. sent is called
    when the descriptors are on their way."""
    client = Client()
    on_terminal = posix.isatty(2)
    client.send(method, parameters, fds, more=on_terminal)
    if sent is not None:
        sent()
    if on_terminal:
        from sysd.cli.progress import follow

        return follow(client)
    return ended(client.receive()[0])


def ended(reply: Parameters) -> Parameters:
    """The operation that a final reply holds; raises CliError when it did not end well."""
    operation = reply.get("operation")
    if not isinstance(operation, dict):
        return {}
    if operation.get("status") in ("failed", "cancelled"):
        raise CliError(str(operation.get("message") or f"the operation {operation['status']}"))
    _warn(operation.get("result"))
    return operation


def _warn(result: object) -> None:
    """Say what the work, which was done, has to say of it, a line each."""
    warning = result.get("warning") if isinstance(result, dict) else None
    if warning:
        from sysd.cli.output import say

        for line in str(warning).split("\n"):
            say(f"warning: {line}")


def run_each(method: str, calls: Iterable[Parameters]) -> list[CliError]:
    """The same operation for several objects, side by side; returns the errors."""
    calls = list(calls)
    if len(calls) == 1:
        run_operation(method, calls[0])
        return []
    errors: list[CliError] = []
    for reply in ask_each(method, calls):
        try:
            ended(reply())
        except CliError as error:
            errors.append(error)
    return errors


def ask_each(method: str, calls: Sequence[Parameters]) -> Iterator[Callable[[], Parameters]]:
    """Calls side by side; what returns the reply to each of them, or raises its error."""
    for start in range(0, len(calls), AT_ONCE):
        clients = [Client() for _ in calls[start : start + AT_ONCE]]
        for client, parameters in zip(clients, calls[start:], strict=False):
            client.send(method, parameters)
        for client in clients:
            yield lambda client=client: client.receive()[0]  # type: ignore[misc]
            client.close()


def report(errors: list[CliError]) -> int:
    """Say what went wrong; the exit status is that of the first error: it is what a script wants to know."""
    if not errors:
        return 0
    from sysd.cli.output import say

    for error in errors:
        say(error.text)
    return errors[0].code


def remote_error(name: str, parameters: object) -> CliError:
    """The daemon's error reply as our own."""
    short = name.rpartition(".")[2]
    fields: Mapping[str, object] = parameters if isinstance(parameters, dict) else {}
    message = str(fields.get("message") or "")
    hint = str(fields.get("hint") or "")
    if not message:
        message = _PROTOCOL.get(short, f"syscontd replied with the error {name}")
        hint = ", ".join(f"{key}: {value}" for key, value in fields.items())
    return CliError(message, hint, _CODES.get(short, FAILURE), short)


def _bytes(message: Parameters) -> bytes:
    try:
        return encode(message).encode() + b"\0"
    except UnicodeEncodeError as error:
        shown = error.object.encode("utf-8", "backslashreplace").decode()
        if len(shown) > 80:
            shown = shown[:80] + "..."
        raise CliError("an argument is not valid UTF-8", shown, USAGE) from None


def _reply(message: bytes) -> Parameters:
    try:
        reply = decode(message.decode())
    except ValueError:
        raise _lost("its reply is not JSON") from None
    if not isinstance(reply, dict):
        raise _lost("its reply is not an object")
    return reply


def _connect(socket: _socket.socket, path: str) -> None:
    try:
        socket.connect(path)
    except PermissionError:
        raise CliError(
            f"access to {path} denied", "use sudo, or become a member of group 'syscont'", DENIED
        ) from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise CliError(
            "syscontd is not reachable", f"no one listens on {path}; try 'systemctl start syscontd.socket'"
        ) from None
    except OSError as error:
        raise CliError(f"can't connect to {path}: {error.strerror or error}") from None


def _lost(why: str | None) -> CliError:
    return CliError(f"lost the connection to syscontd: {why}", "see 'journalctl -u syscontd'")
