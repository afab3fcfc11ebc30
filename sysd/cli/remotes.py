# SPDX-License-Identifier: Apache-2.0
"""The other hosts that a user knows, and which of them the words of a command line name.

Each is a file in ~/.config/syscont/remotes, with the addresses and the certificate of the host. The user's own key and
certificate are in ~/.config/syscont/client.pem.
"""

from __future__ import annotations

from sysd.cli.client import LOCAL, folder
from sysd.cli.errors import NOT_FOUND, CliError, UsageError
from sysd.cli.options import BETWEEN
from sysd.cli.output import clean
from sysd.cli.system import CLOEXEC, posix, replace
from sysd.codec import decode, pretty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysd.cli.options import Parsed
    from sysd.remote.certificate import Identity

SUFFIX = ".json"
MOST = 1 << 20
MOST_NAME = 63
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

# Kinds of arguments that name something which is on a host.
STRICT = ("instance", "new-instance", "target")
NAMING = (*STRICT, "instance-or-key", "filter", "profile", "new-profile", "plain-profile", "image", "network", "acl",
          "zone", "project", "operation", "new")  # fmt: skip
"""Of STRICT ones, a name without a host is on the default host; other ones are on that of the rest."""


class Remote:
    """A host: addresses are HOST:PORT each, certificate is DER."""

    def __init__(self, name: str, addresses: list[str], certificate: bytes) -> None:
        self.name = name
        self.addresses = addresses
        self.certificate = certificate


def is_name(text: str) -> bool:
    return 0 < len(text) <= MOST_NAME and text[0] in _LETTERS and set(text) <= {*_LETTERS, *"-_."}


def check_name(text: str) -> str:
    """A name for a host that is yet to be known."""
    if not is_name(text) or text == LOCAL:
        hint = f"letters, digits, '-', '_' and '.'; {LOCAL} is this host"
        raise UsageError(f"no host can be named '{clean(text)}'", hint)
    if exists(text):
        raise CliError(f"a host named {text} is known already", "see 'syscont remote list'")
    return text


# what is remembered


def path_of(name: str) -> str:
    place = folder()
    if not place:
        raise CliError("there is no place to keep what is known of other hosts in", "set HOME")
    return f"{place}/remotes/{name}{SUFFIX}"


def exists(name: str) -> bool:
    try:
        posix.stat(path_of(name))
    except (OSError, CliError):
        return False
    return True


def names() -> list[str]:
    """Of the hosts that are known, without this one."""
    try:
        found = posix.listdir(f"{folder()}/remotes")
    except OSError:
        return []
    return sorted(file.removesuffix(SUFFIX) for file in found if file.endswith(SUFFIX) and is_name(file[:-5]))


def load(name: str) -> Remote:
    if not is_name(name) or not exists(name):
        hint = "'syscont remote list' shows those that are; 'syscont help remote add' tells how to add one"
        raise CliError(f"no host named '{clean(name)}' is known", hint, NOT_FOUND)
    path = path_of(name)
    try:
        said = decode(_content(path))
        return Remote(name, [str(one) for one in said["addresses"]], bytes.fromhex(said["certificate"]))
    except (ValueError, KeyError, TypeError):
        raise CliError(f"{path} is damaged", f"'syscont remote remove {name}' removes it") from None


def _content(path: str) -> str:
    fd = posix.open(path, posix.O_RDONLY | CLOEXEC)
    try:
        return posix.read(fd, MOST).decode()
    finally:
        posix.close(fd)


def save(remote: Remote) -> None:
    path = path_of(remote.name)
    make_folder(f"{folder()}/remotes")
    text = pretty({"addresses": remote.addresses, "certificate": remote.certificate.hex()})
    replace(f"{path}.{posix.getpid()}", path, text + "\n")


def make_folder(path: str) -> None:
    import os

    os.makedirs(path, 0o700, exist_ok=True)


def remember(what: str, word: str) -> None:
    """Keep a word in a file of the user's, or none for an empty one."""
    place = folder()
    if not place:
        raise CliError("there is no place to remember it in", "set HOME")
    make_folder(f"{place}/{what}".rpartition("/")[0])
    if word:
        replace(f"{place}/{what}.{posix.getpid()}", f"{place}/{what}", word + "\n")
        return
    try:
        posix.unlink(f"{place}/{what}")
    except FileNotFoundError:
        return


def identity() -> Identity:
    """The user's own, made when it is first asked for."""
    from sysd.cli.client import error_of
    from sysd.model.errors import SyscontError
    from sysd.remote.certificate import load_or_make

    path_of("")  # there is a folder
    make_folder(folder())
    try:
        return load_or_make(f"{folder()}/client.pem")
    except SyscontError as error:
        raise error_of(error, f"{folder()}/client.pem: ") from None


# what command lines name


def take_bare(args: list[str]) -> tuple[str, list[str]]:
    """The host that an argument of the form REMOTE: names, "" for none, and the others."""
    for at, arg in enumerate(args):
        if arg.endswith(":") and is_known(arg[:-1]):
            return arg[:-1], args[:at] + args[at + 1 :]
    return "", args


def is_known(name: str) -> bool:
    return name == LOCAL or (is_name(name) and exists(name))


def resolve(parsed: Parsed, default: str) -> str:
    """The one host that a command line is about, whose name is taken off its arguments."""
    for at in _places(parsed, NAMING):
        if parsed.args[at].endswith(":"):  # nothing is called so; a list would just be empty
            load(parsed.args[at][:-1])
    named = dict(_named(parsed))
    if parsed.verb.name in BETWEEN:
        return _two(parsed, named, default)
    if parsed.remote:
        default = parsed.remote
    strict = [named.get(at, default) for at in _places(parsed, STRICT)]
    found = [*strict, *named.values(), *([parsed.remote] if parsed.remote else [])]
    host = found[0] if found else default
    if other := next((one for one in found if one != host), ""):
        hint = f"name all of them with {host}: before, or with {other}:"
        raise UsageError(f"{parsed.verb.name}: what is named is on two hosts, {host} and {other}", hint)
    for at in named:
        parsed.args[at] = parsed.args[at].partition(":")[2]
    return host


def _two(parsed: Parsed, named: dict[int, str], default: str) -> str:
    """The host of the source; the other one is remembered, if it is another."""
    source = named.get(0, default)
    target = parsed.remote or (named.get(1, default) if len(parsed.args) > 1 else source)
    parsed.target_host = target if target != source else ""
    for at in named:
        parsed.args[at] = parsed.args[at].partition(":")[2]
    return source


def _places(parsed: Parsed, kinds: tuple[str, ...]) -> list[int]:
    count = len(parsed.args)
    return [at for at in range(count) if parsed.verb.kind(at, count) in kinds]


def _named(parsed: Parsed) -> Iterator[tuple[int, str]]:
    """Places of arguments that name their host, and its name."""
    for at in _places(parsed, NAMING):
        host, colon, _ = parsed.args[at].partition(":")
        if colon and is_known(host):
            yield at, host
