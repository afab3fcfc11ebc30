# SPDX-License-Identifier: Apache-2.0
"""The varlink client: NUL-terminated JSON over the daemon's socket, with descriptors beside it. Other hosts are reached
by sysd.cli.far, which is loaded for them alone."""

from __future__ import annotations

import _socket
import sys

from sysd.cli.errors import DENIED, FAILURE, NOT_FOUND, USAGE, CliError
from sysd.cli.system import CLOEXEC, posix, variable
from sysd.codec import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from sysd.model.errors import SyscontError

    Parameters = dict[str, Any]

INTERFACE = "org.syscont.Manager."
LOCAL = "local"
"""The name of this host, among others that may be known."""
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
_NOSIGNAL: int = getattr(_socket, "MSG_NOSIGNAL", 0)

_host = LOCAL


def use(host: str) -> None:
    """What this command is about is on another host."""
    global _host
    _host = host


def host() -> str:
    """The one that this command is about."""
    return _host


def is_far() -> bool:
    return _host != LOCAL


def connect() -> Client:
    """A connection to the host that this command is about."""
    return connect_to(_host)


def connect_to(host: str) -> Client:
    if host == LOCAL:
        return Client(_connected(socket_path()))
    from sysd.cli.far import reach

    return reach(host)


class Client:
    """One connection; one call at a time.

    fds collects the descriptors that replies bring. wait, when set, is called with the socket before each read from it.
    """

    def __init__(self, socket: _socket.socket) -> None:
        self.fds: list[int] = []
        self.wait: Callable[[int], None] | None = None
        self._buffer = b""
        self._socket = socket

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
        try:
            self._send(method, message, fds)
        except OSError as error:
            # A daemon that refuses a connection says why before it closes: that reply is worth more than EPIPE.
            if not isinstance(error, BrokenPipeError | ConnectionResetError):
                raise self._lost(error.strerror) from None

    def _send(self, method: str, message: Parameters, fds: Sequence[int]) -> None:
        data = _bytes(message)
        if fds:
            rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
            sent = self._socket.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)], _NOSIGNAL)
            data = data[sent:]
        if data:
            self._socket.sendall(data, _NOSIGNAL)

    def receive(self) -> tuple[Parameters, bool]:
        """The next reply's parameters, and whether more replies follow; raises CliError for an error reply."""
        try:
            reply = decode(self._message().decode())
        except ValueError:
            raise self._lost("its reply is not JSON") from None
        if not isinstance(reply, dict):
            raise self._lost("its reply is not an object")
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
            raise self._lost(f"no descriptor came for {field}")
        return self.fds[index]

    def resize(self, terminal: int, size: bytes) -> None:
        """Give a terminal that came with a reply the size of a struct winsize."""
        import fcntl
        import termios

        try:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
        except OSError:
            return

    def _message(self) -> bytes:
        parts = [self._buffer]
        size = len(self._buffer)
        while b"\0" not in parts[-1]:
            data = self._read()
            if not data:
                raise self._lost("it closed the connection")
            size += len(data)
            if size > MAX_MESSAGE:
                raise self._lost("its reply is too long")
            parts.append(data)
        message, _, self._buffer = b"".join(parts).partition(b"\0")
        return message

    def _read(self) -> bytes:
        if self.wait is not None:
            self.wait(self.fileno())
        try:
            return self._receive()
        except OSError as error:
            raise self._lost(error.strerror) from None

    def _receive(self) -> bytes:
        """Bytes, when there are some; descriptors that come with them are added to fds."""
        space = _socket.CMSG_SPACE(4 * MAX_FDS)
        data, ancillary, _, _ = self._socket.recvmsg(CHUNK, space, _socket.MSG_CMSG_CLOEXEC)
        for level, kind, rights in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                for at in range(0, len(rights) - 3, 4):
                    self.fds.append(int.from_bytes(rights[at : at + 4], sys.byteorder))
        return data

    def _lost(self, why: str | None) -> CliError:
        return CliError(f"lost the connection to syscontd: {why}", "see 'journalctl -u syscontd'")


def socket_path() -> str:
    return variable("SYSCONT_SOCKET") or SOCKET


def folder() -> str:
    """Where what the user has told this command is kept; empty when there is no home to keep it in."""
    if config := variable("XDG_CONFIG_HOME") or variable("APPDATA"):
        return f"{config}/syscont"
    home = variable("HOME")
    return f"{home}/.config/syscont" if home else ""


def remembered(what: str) -> str:
    """A word that is kept in a file there; empty when it is not."""
    place = folder()
    try:
        fd = posix.open(f"{place}/{what}", posix.O_RDONLY | CLOEXEC) if place else -1
    except OSError:
        return ""
    if fd < 0:
        return ""
    try:
        found = posix.read(fd, 256)
    finally:
        posix.close(fd)
    return found.decode("utf-8", "surrogateescape").strip()


def default_host() -> str:
    """The host that names without one are on: SYSCONT_REMOTE, or what 'remote switch' remembered."""
    return variable("SYSCONT_REMOTE") or remembered("remote") or LOCAL


def current_project() -> str:
    """What --project is when it is not given: SYSCONT_PROJECT, or what 'project switch' remembered."""
    return variable("SYSCONT_PROJECT") or remembered_project() or "default"


def remembered_project() -> str:
    return remembered(project_file())


def project_file() -> str:
    """What remembers the current project of the host that this command is about."""
    return "project" if _host == LOCAL else f"remotes/{_host}.project"


def call(method: str, parameters: Parameters | None = None, host: str = "") -> Parameters:
    """One call over a connection of its own."""
    client = connect_to(host or _host)
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
    client = connect()
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
        clients = [connect() for _ in calls[start : start + AT_ONCE]]
        for client, parameters in zip(clients, calls[start:], strict=False):
            client.send(method, parameters)
        for client in clients:
            yield lambda client=client: client.receive()[0]  # type: ignore[misc]
            client.close()


def call_each(method: str, calls: Iterable[Parameters]) -> int:
    """One call after the other, also when one fails; the exit status, as of report()."""
    errors = []
    for parameters in calls:
        try:
            call(method, parameters)
        except CliError as error:
            errors.append(error)
    return report(errors)


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


def error_of(error: SyscontError, before: str = "") -> CliError:
    """An error of sysd.model's as our own."""
    return CliError(before + error.message, error.hint, _CODES.get(error.code, FAILURE), error.code)


def _bytes(message: Parameters) -> bytes:
    try:
        return encode(message).encode() + b"\0"
    except UnicodeEncodeError as error:
        shown = error.object.encode("utf-8", "backslashreplace").decode()
        if len(shown) > 80:
            shown = shown[:80] + "..."
        raise CliError("an argument is not valid UTF-8", shown, USAGE) from None


def _connected(path: str) -> _socket.socket:
    """Raises CliError."""
    if not hasattr(_socket, "AF_UNIX"):
        raise CliError("there is no syscontd on this system", "name another host: REMOTE:NAME")
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
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
    return socket
