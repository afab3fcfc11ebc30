# SPDX-License-Identifier: Apache-2.0
"""The image verbs but for the lists."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import USAGE, CliError
from sysd.cli.output import document, out
from sysd.cli.system import CLOEXEC, posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed


def build(parsed: Parsed) -> int:
    """``syscont image build``"""
    parameters: Parameters = {"source": parsed.args[0], "aliases": parsed.list("alias") or None}
    parameters["vm"] = parsed.flag("vm") or None
    return print_fingerprint(client.run_operation("BuildImage", parameters))


def import_files(parsed: Parsed) -> int:
    """``syscont image import``"""
    fds = [open_file(path) for path in parsed.args]
    parameters: Parameters = {"metadataFd": 0, "rootfsFd": 1} if len(fds) == 2 else {"imageFd": 0}
    parameters["aliases"] = parsed.list("alias") or None
    parameters["vm"] = parsed.flag("vm") or None
    parameters["format"] = parsed.value("format") or None
    return print_fingerprint(client.run_operation("ImportImage", parameters, fds))


def show(parsed: Parsed) -> int:
    """``syscont image show``"""
    image = client.call("GetImage", {"name": parsed.args[0]}).get("image")
    return document(image, parsed)


def delete(parsed: Parsed) -> int:
    """``syscont image delete``"""
    return client.report(client.run_each("DeleteImage", _named("name", parsed.args)))


def alias_add(parsed: Parsed) -> int:
    """``syscont image alias add``"""
    alias, image = parsed.args
    client.call("AddImageAlias", {"alias": alias, "image": image})
    return 0


def alias_remove(parsed: Parsed) -> int:
    """``syscont image alias remove``"""
    return client.report(client.run_each("RemoveImageAlias", _named("alias", parsed.args)))


def _named(field: str, names: list[str]) -> list[Parameters]:
    return [{field: name} for name in dict.fromkeys(names)]


def print_fingerprint(operation: Parameters) -> int:
    fingerprint = (operation.get("result") or {}).get("fingerprint")
    if not isinstance(fingerprint, str):
        raise CliError("syscontd did not say which image it made", "see 'syscont image list'")
    out(fingerprint + "\n")
    return 0


def open_file(path: str) -> int:
    if path == "-":
        return 0
    try:
        fd = posix.open(path, posix.O_RDONLY | CLOEXEC)
    except OSError as error:
        raise CliError(f"can't open {path}: {error.strerror}", code=USAGE) from None
    if posix.fstat(fd).st_mode & 0o170000 == 0o040000:
        raise CliError(f"{path} is a directory", "an archive is needed", USAGE)
    return fd
