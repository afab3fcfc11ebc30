# SPDX-License-Identifier: Apache-2.0
"""The file verbs: what their command lines mean. Bytes are moved by sysd.cli.transfer, folders by sysd.cli.folders."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import CliError, UsageError
from sysd.cli.output import clean
from sysd.cli.system import IS_WINDOWS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed

MAX_MODE = 0o7777


def push(parsed: Parsed) -> int:
    """``syscont file push``"""
    from sysd.cli import transfer

    *sources, target = parsed.args
    name, path = split(target)
    if parsed.flag("recursive") and parsed.value("mode"):
        raise UsageError("file push: --recursive keeps the modes that files have", "leave out --mode")
    attributes = {**_attributes(parsed), **_parents(parsed)}
    for source in sources:
        if parsed.flag("recursive") and transfer.is_folder(source):
            _check_folders()
            from sysd.cli.folders import push as push_folder

            push_folder(source, name, path, attributes)
        else:
            transfer.push(source, name, path if len(sources) == 1 else path.rstrip("/") + "/", attributes)
    return 0


def pull(parsed: Parsed) -> int:
    """``syscont file pull``"""
    from sysd.cli import transfer

    *sources, target = parsed.args
    places = [split(source) for source in sources]
    into = len(sources) > 1 or target.endswith("/") or parsed.flag("recursive")
    if parsed.flag("create-dirs"):
        transfer.make_folders(target, itself=into)
    for name, path in places:
        if parsed.flag("recursive"):
            _check_folders()
            from sysd.cli.folders import pull as pull_folder

            pull_folder(name, path, target)
        else:
            transfer.pull(name, path, transfer.place_of(path, target, into=into))
    return 0


def edit(parsed: Parsed) -> int:
    """``syscont file edit``"""
    from sysd.cli.transfer import edit as edit_file

    edit_file(*split(parsed.args[0]))
    return 0


def delete(parsed: Parsed) -> int:
    """``syscont file delete``"""
    return _each(parsed, "DeleteFile", {"recursive": True if parsed.flag("recursive") else None})


def make_directory(parsed: Parsed) -> int:
    """``syscont file mkdir``"""
    return _each(parsed, "MakeDirectory", {**_attributes(parsed), **_parents(parsed)})


def split(text: str) -> tuple[str, str]:
    """The instance and the path that NAME/PATH stands for."""
    name, slash, path = text.partition("/")
    if not name or not slash:
        raise UsageError(f"'{clean(text)}' names no file in an instance", "NAME/PATH, such as web1/etc/hosts")
    return name, "/" + path


def _check_folders() -> None:
    if IS_WINDOWS:
        raise CliError("folders can't be moved from or to this system", "pack them, and move the archive")


def _each(parsed: Parsed, method: str, parameters: Parameters) -> int:
    """In the order in which they are named: one may be in another."""
    errors: list[CliError] = []
    for name, path in [split(text) for text in parsed.args]:
        try:
            client.run_operation(method, {"name": name, "path": path, **parameters})
        except CliError as error:
            errors.append(error)
    return client.report(errors)


def _attributes(parsed: Parsed) -> Parameters:
    text = parsed.value("mode")
    if text and (not all(c in "01234567" for c in text) or int(text, 8) > MAX_MODE):
        raise UsageError(f"--mode: not a file mode: '{text}'", "octal, such as 0644")
    return {"mode": int(text, 8) if text else None, "uid": parsed.number("uid"), "gid": parsed.number("gid")}


def _parents(parsed: Parsed) -> Parameters:
    return {"parents": True if parsed.flag("create-dirs") else None}
