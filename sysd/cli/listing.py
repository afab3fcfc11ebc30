# SPDX-License-Identifier: Apache-2.0
"""The list verbs: what there is, as a table or as data."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import CliError, UsageError
from sysd.cli.output import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sysd.cli.options import Parsed
    from sysd.cli.output import Column, Item

DEFAULT = "ns46ti"
IMAGE_DEFAULT = "lftaisud"
SHORT = 12
GLOB = "*?["


def text(field: str) -> Callable[[Item], str]:
    """A cell that shows a field as it is; numbers that are 0 show as nothing."""
    return lambda item: str(item.get(field) or "")


def _ipv4(item: Item) -> str:
    return "\n".join([address for address in item.get("addresses") or () if ":" not in address])


def _ipv6(item: Item) -> str:
    return "\n".join([address for address in item.get("addresses") or () if ":" in address])


def _image(item: Item) -> str:
    return str(item.get("imageAlias") or str(item.get("image") or "")[:SHORT])


def _short(field: str) -> Callable[[Item], str]:
    return lambda item: str(item.get(field) or "")[:SHORT]


def time(field: str) -> Callable[[Item], str]:
    """A cell that shows microseconds since the epoch; 0 shows as nothing."""

    def cell(item: Item) -> str:
        from time import localtime, strftime

        value = item.get(field)
        return strftime("%Y-%m-%d %H:%M", localtime(value // 1_000_000)) if isinstance(value, int) and value else ""

    return cell


def _lines(field: str) -> Callable[[Item], str]:
    return lambda item: "\n".join(map(str, item.get(field) or ()))


def _first_alias(item: Item) -> str:
    aliases = item.get("aliases") or ()
    return str(aliases[0]) if aliases else ""


def _size(field: str) -> Callable[[Item], str]:
    def cell(item: Item) -> str:
        from sysd.model.sizes import format_size

        return format_size(int(item.get(field) or 0))

    return cell


def _memory(item: Item) -> str:
    return _in_use((_usage(item).get("memory") or {}).get("current"))


def _disk(item: Item) -> str:
    found = [disk.get("used") for disk in (_usage(item).get("disks") or {}).values()]
    known = [used for used in found if isinstance(used, int)]
    return _in_use(sum(known)) if known else ""


def _tasks(item: Item) -> str:
    return str(_usage(item).get("tasks") or "")


def _usage(item: Item) -> Item:
    found = item.get("usage")
    return found if isinstance(found, dict) else {}


def _in_use(size: object) -> str:
    from sysd.model.sizes import format_size

    return format_size(size) if isinstance(size, int) else ""


# LXD's letters where it has the same column.
COLUMNS: dict[str, Column] = {
    "n": ("NAME", text("name")),
    "s": ("STATE", text("state")),
    "4": ("IPV4", _ipv4),
    "6": ("IPV6", _ipv6),
    "t": ("TYPE", text("type")),
    "i": ("IMAGE", _image),
    "p": ("PID", text("leader")),
    "c": ("CREATED", time("created")),
    "d": ("DESCRIPTION", text("description")),
    "e": ("PROJECT", text("project")),
    "P": ("PROFILES", _lines("profiles")),
    "f": ("FINGERPRINT", _short("image")),
    "F": ("FINGERPRINT", text("image")),
    "u": ("UNIT", text("unit")),
    "U": ("UUID", text("uuid")),
    "b": ("ID BASE", text("idBase")),
    "m": ("MEMORY USAGE", _memory),
    "D": ("DISK USAGE", _disk),
    "N": ("TASKS", _tasks),
}
ASKED_FOR = [COLUMNS[letter] for letter in "mDN"]
"""What each instance has to be asked for."""
IMAGE_COLUMNS: dict[str, Column] = {
    "l": ("ALIAS", _first_alias),
    "L": ("ALIASES", _lines("aliases")),
    "f": ("FINGERPRINT", _short("fingerprint")),
    "F": ("FINGERPRINT", text("fingerprint")),
    "t": ("TYPE", text("type")),
    "a": ("ARCH", text("architecture")),
    "i": ("INIT", text("init")),
    "s": ("SIZE", _size("size")),
    "D": ("DISK SIZE", _size("diskSize")),
    "u": ("IMPORTED", time("imported")),
    "c": ("CREATED", time("created")),
    "d": ("DESCRIPTION", text("description")),
}

def instances(parsed: Parsed) -> int:
    """``syscont list``"""
    everywhere = parsed.flag("all-projects")
    columns = pick(COLUMNS, parsed.value("columns", "e" + DEFAULT if everywhere else DEFAULT))
    found = [
        item
        for item in client.items("ListInstances", "instances")
        if (everywhere or (item.get("project") or "default") == parsed.project) and matches(item, parsed.args)
    ]
    if not found and not everywhere and parsed.project != "default":
        client.call("GetProject", {"name": parsed.project})  # or else it is not there
    found.sort(key=lambda item: (str(item.get("project")), str(item.get("name"))))
    if any(column in ASKED_FOR for column in columns):
        _ask(found)
    show(found, columns, parsed, "instance")
    return 0


def _ask(items: list[Item]) -> None:
    calls = [{"name": f"{item.get('project') or 'default'}:{item.get('name')}"} for item in items]
    for item, reply in zip(items, client.ask_each("GetInstanceState", calls), strict=True):
        try:
            item["usage"] = reply().get("state")
        except CliError as error:
            if error.name != "NotFound":  # it was deleted meanwhile
                raise


def images(parsed: Parsed) -> int:
    """``syscont image list``"""
    columns = pick(IMAGE_COLUMNS, parsed.value("columns", IMAGE_DEFAULT))
    found = [item for item in client.items("ListImages", "images") if _image_matches(item, parsed.args)]
    found.sort(key=lambda item: (_first_alias(item) or "~", str(item.get("fingerprint"))))
    show(found, columns, parsed, "image")
    return 0


def aliases(parsed: Parsed) -> int:
    """``syscont image alias list``"""
    found: list[Item] = [
        {"alias": alias, "fingerprint": image.get("fingerprint"), "description": image.get("description")}
        for image in client.items("ListImages", "images")
        for alias in image.get("aliases") or ()
    ]
    found.sort(key=lambda item: str(item["alias"]))
    columns = (("ALIAS", text("alias")), ("FINGERPRINT", _short("fingerprint")), ("DESCRIPTION", text("description")))
    show(found, columns, parsed, "alias")
    return 0


def operations(parsed: Parsed) -> int:
    """``syscont operation list``"""
    columns = (
        ("ID", text("id")),
        ("KIND", text("kind")),
        ("TARGET", text("target")),
        ("STATUS", text("status")),
        ("STAGE", text("stage")),
        ("DONE", _done),
        ("MESSAGE", text("message")),
    )
    show(client.items("ListOperations", "operations"), columns, parsed, "operation")
    return 0


def _done(item: Item) -> str:
    done, total = item.get("done"), item.get("total")
    return f"{100 * done // total}%" if isinstance(done, int) and isinstance(total, int) and total > 0 else ""


def pick(table: dict[str, Column], wanted: str) -> list[Column]:
    """The columns of a list such as ``ns4``, ``n,s,4`` or ``n,limits.memory``."""
    columns: list[Column] = []
    for word in wanted.split(","):
        if "." in word:
            columns.append((word.upper(), _config(word)))
            continue
        for letter in word:
            if letter not in table:
                known = ", ".join(f"{letter} {header}" for letter, (header, _) in table.items())
                raise UsageError(f"unknown column '{letter}'", known)
            columns.append(table[letter])
    return columns


def _config(key: str) -> Callable[[Item], str]:
    return lambda item: str((item.get("expandedConfig") or {}).get(key, ""))


def matches(item: Item, filters: Iterable[str]) -> bool:
    """Whether an instance is one of those named by filters, and has every FIELD=VALUE that is among them."""
    names = []
    for word in filters:
        key, equals, value = word.partition("=")
        if not equals:
            names.append(word)
        elif str((item.get("expandedConfig") or {}).get(key, item.get(key, ""))) != value:
            return False
    return not names or any(_name_matches(str(item.get("name")), word) for word in names)


def _image_matches(item: Item, filters: list[str]) -> bool:
    known = [str(item.get("fingerprint")), *map(str, item.get("aliases") or ())]
    return not filters or any(_name_matches(name, word) for word in filters for name in known)


def _name_matches(name: str, word: str) -> bool:
    if not any(c in GLOB for c in word):
        return name.startswith(word)
    from fnmatch import fnmatchcase

    return fnmatchcase(name, word)
