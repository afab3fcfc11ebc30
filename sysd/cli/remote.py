# SPDX-License-Identifier: Apache-2.0
"""The remote verbs: other hosts that one knows."""

from __future__ import annotations

from sysd.cli import client, remotes
from sysd.cli.client import LOCAL, error_of
from sysd.cli.errors import DENIED, CliError, UsageError
from sysd.cli.listing import text
from sysd.cli.output import clean, out, show
from sysd.cli.remotes import Remote, check_name, load, save
from sysd.cli.system import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.options import Parsed
    from sysd.cli.output import Item
    from sysd.remote.certificate import Identity
    from sysd.remote.token import Token

STDIN = 0
MOST = 1 << 16
SHORT = 12


def list_all(parsed: Parsed) -> int:
    """``syscont remote list``"""
    current = client.default_host()
    found: list[Item] = [{"name": LOCAL, "addresses": [client.socket_path()], "fingerprint": ""}]
    for name in remotes.names():
        try:
            found.append(_shown(load(name)))
        except CliError as error:
            found.append({"name": name, "addresses": [error.message], "fingerprint": ""})
    for item in found:
        item["current"] = item["name"] == current
    columns = (
        ("NAME", lambda item: f"{item['name']} (current)" if item["current"] else str(item["name"])),
        ("ADDRESSES", lambda item: "\n".join(item["addresses"])),
        ("FINGERPRINT", lambda item: str(item["fingerprint"])[:SHORT]),
    )
    plain = (("NAME", text("name")), *columns[1:])
    show(found, columns if parsed.value("format", "table") == "table" else plain, parsed, "host")
    return 0


def _shown(remote: Remote) -> Item:
    from sysd.remote.certificate import fingerprint

    return {"name": remote.name, "addresses": remote.addresses, "fingerprint": fingerprint(remote.certificate)}


def add(parsed: Parsed) -> int:
    """``syscont remote add``"""
    name, *how = parsed.args
    check_name(name)
    _check_no_project(name)
    if parsed.flag("fingerprint"):
        remote = _reach(name, how, parsed.value("fingerprint"))
    else:
        remote = _join(name, how[0] if how and how[0] != "-" else _read_token())
    save(remote)
    return 0


def _check_no_project(name: str) -> None:
    """NAME:INSTANCE would mean another instance from now on."""
    try:
        known = client.items("ListProjects", "projects")
    except CliError:
        return  # there is no daemon here to have any
    if any(project.get("name") == name for project in known):
        hint = f"{name}:INSTANCE names what is in it; choose another name"
        raise CliError(f"a project of this host is named {name}", hint)


def _read_token() -> str:
    if posix.isatty(STDIN):
        out("Token: ")
    data = b""
    while b"\n" not in data and len(data) < MOST and (piece := posix.read(STDIN, MOST)):
        data += piece
    return data.decode("utf-8", "replace").strip()


def _join(name: str, said: str) -> Remote:
    """Use a token up: the host trusts us afterwards, and we know its certificate."""
    from sysd.model.errors import SyscontError
    from sysd.remote import token

    try:
        parsed = token.parse(said)
    except SyscontError as error:
        raise error_of(error) from None
    import time

    if time.time() >= parsed.expires + CLOCKS:
        raise CliError("the token has expired", "ask for another: 'syscont remote token' on the other host")
    return Remote(name, list(parsed.addresses), _exchange(parsed))


CLOCKS = 86400
"""Seconds that clocks of two hosts may differ by, for a token to be given up without asking."""


def _exchange(token: Token) -> bytes:
    from sysd.cli.far import FarClient
    from sysd.model.errors import SyscontError
    from sysd.remote import certificate
    from sysd.remote.dial import dial_unknown

    own = remotes.identity()
    with certificate.temporary(token.secret) as invited:
        try:
            connection, server = dial_unknown(token.addresses, invited, token.fingerprint)
        except SyscontError as error:
            raise error_of(error) from None
    talk = FarClient(connection, "it")
    try:
        talk.call("Join", {"certificate": certificate.pem(own.certificate), "name": _own_name()})
    except CliError as error:
        if talk.failure and talk.failure.code == "AccessDenied":
            hint = "it has been used, has expired or was withdrawn; ask for another"
            raise CliError("the host does not know this token", hint, DENIED) from None
        raise error from None
    finally:
        talk.close()
    return server


def _own_name() -> str:
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = "someone"
    return f"{user}@{socket.gethostname()}"


def _reach(name: str, addresses: list[str], said: str) -> Remote:
    """A host that trusts us already, by address and fingerprint."""
    from sysd.model.errors import SyscontError
    from sysd.remote.addresses import check_address
    from sysd.remote.dial import dial_unknown

    fingerprint = said.replace(":", "").lower()
    if len(fingerprint) != 64 or not set(fingerprint) <= set("0123456789abcdef"):
        raise UsageError(f"--fingerprint: not one of SHA-256: '{clean(said)}'", "'syscont info' on the host shows it")
    if not addresses:
        raise UsageError("remote add: no address", "HOST:PORT, such as host.example:8443")
    try:
        wanted = [check_address(one) for one in addresses]
        connection, certificate = dial_unknown(wanted, remotes.identity(), fingerprint)
        connection.close()
    except SyscontError as error:
        raise error_of(error) from None
    return Remote(name, wanted, certificate)


def set_address(parsed: Parsed) -> int:
    """``syscont remote set-address``"""
    from sysd.model.errors import SyscontError
    from sysd.remote.addresses import check_address

    name, *addresses = parsed.args
    remote = load(name)
    try:
        remote.addresses = [check_address(one) for one in addresses]
    except SyscontError as error:
        raise error_of(error) from None
    save(remote)
    return 0


def remove(parsed: Parsed) -> int:
    """``syscont remote remove``"""
    for name in parsed.args:
        if name == client.remembered("remote"):
            raise CliError(f"{name} is the host that names are on", f"'syscont remote switch {LOCAL}' first")
        if not remotes.is_name(name) or not remotes.exists(name):
            load(name)  # which says so
        posix.unlink(remotes.path_of(name))
        remotes.remember(f"remotes/{name}.project", "")
    return 0


def rename(parsed: Parsed) -> int:
    """``syscont remote rename``"""
    name, new_name = parsed.args
    remote = load(name)
    check_name(new_name)
    _check_no_project(new_name)
    project = client.remembered(f"remotes/{name}.project")
    save(Remote(new_name, remote.addresses, remote.certificate))
    remotes.remember(f"remotes/{new_name}.project", project)
    if client.remembered("remote") == name:
        remotes.remember("remote", new_name)
    posix.unlink(remotes.path_of(name))
    remotes.remember(f"remotes/{name}.project", "")
    return 0


def switch(parsed: Parsed) -> int:
    """``syscont remote switch``"""
    name = parsed.args[0]
    if name != LOCAL:
        load(name)
    remotes.remember("remote", "" if name == LOCAL else name)
    return 0


def current(parsed: Parsed) -> int:
    """``syscont remote current``"""
    out(client.default_host() + "\n")
    return 0


def certificate(parsed: Parsed) -> int:
    """``syscont remote certificate``"""
    from sysd.remote.certificate import pem

    own: Identity = remotes.identity()
    out(pem(own.certificate))
    return 0
