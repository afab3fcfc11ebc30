# SPDX-License-Identifier: Apache-2.0
"""The trust verbs, and remote token: who may manage a host from elsewhere."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.image import open_file
from sysd.cli.listing import text, time
from sysd.cli.output import out, show
from sysd.cli.system import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.options import Parsed

MOST = 1 << 16
SHORT = 12


def list_all(parsed: Parsed) -> int:
    """``syscont trust list``"""
    columns = (
        ("NAME", text("name")),
        ("TYPE", text("type")),
        ("FINGERPRINT", lambda item: str(item.get("fingerprint") or "")[:SHORT]),
        ("ADDED", time("added")),
        ("EXPIRES", time("expires")),
    )
    show(client.items("ListTrusted", "trusted"), columns, parsed, "certificate")
    return 0


def add(parsed: Parsed) -> int:
    """``syscont trust add``"""
    from sysd.model.errors import SyscontError
    from sysd.remote.certificate import parse, pem

    path, *names = parsed.args
    fd = open_file(path)
    data = b""
    while len(data) < MOST and (piece := posix.read(fd, MOST)):
        data += piece
    try:
        certificate = pem(parse(data.decode("utf-8", "replace")))  # and not the key, which may be beside it
    except SyscontError as error:
        raise client.error_of(error, f"{path}: ") from None
    base = path.replace("\\", "/").rpartition("/")[2]
    name = names[0] if names else base.rpartition(".")[0] or base
    client.call("AddTrusted", {"certificate": certificate, "name": name})
    return 0


def remove(parsed: Parsed) -> int:
    """``syscont trust remove``"""
    return client.call_each("RemoveTrusted", [{"name": name} for name in dict.fromkeys(parsed.args)])


def token(parsed: Parsed) -> int:
    """``syscont remote token``"""
    name = parsed.args[0] if parsed.args else None
    out(str(client.call("CreateToken", {"name": name}).get("token", "")) + "\n")
    return 0
