# SPDX-License-Identifier: Apache-2.0
"""What is printed: cleaned text, tables as systemd's tools draw them, JSON, YAML and CSV."""

from __future__ import annotations

from sysd.cli.system import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from sysd.cli.options import Parsed

    Item = dict[str, Any]
    Column = tuple[str, Callable[[Item], str]]

STDOUT = 1
STDERR = 2


def clean(text: str, keep: str = "") -> str:
    """text without what could steer a terminal; for everything that a guest, an image or a user wrote."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else "?" for c in text)


def write_all(fd: int, data: bytes) -> None:
    """Write all of data, also to a descriptor that someone made non-blocking."""
    while data:
        try:
            data = data[posix.write(fd, data) :]
        except BlockingIOError:
            import select

            select.select([], [fd], [])


def out(text: str) -> None:
    """Text for standard output, at once."""
    write_all(STDOUT, text.encode("utf-8", "backslashreplace"))


def say(text: str) -> None:
    """One line for standard error."""
    write_all(STDERR, f"syscont: {clean(text)}\n".encode("utf-8", "backslashreplace"))


def document(found: object, parsed: Parsed) -> int:
    """Print what there is to know of one thing, as YAML or as JSON."""
    if parsed.value("format") == "json":
        from sysd.codec import pretty

        out(pretty(found) + "\n")
    else:
        out(yaml(found))
    return 0


def show(items: list[Item], columns: Sequence[Column], parsed: Parsed, noun: str) -> None:
    """Print a list of things in the format that was asked for."""
    form = parsed.value("format", "table")
    if form == "json":
        from sysd.codec import pretty

        return out(pretty(items) + "\n")
    if form == "yaml":
        return out(yaml(items))
    rows = [[clean(cell(item), "\n") for _, cell in columns] for item in items]
    if form == "csv":
        return out("".join(csv_line(row) for row in rows))
    legend = not parsed.flag("no-legend")
    headers = [header for header, _ in columns] if legend else []
    if form == "compact":
        return out(table(headers, [[cell.replace("\n", ",") for cell in row] for row in rows], " "))
    footer = legend and posix.isatty(STDOUT)
    if footer and not rows:
        return out(f"No {_plural(noun)}.\n")
    out(table(headers, rows))
    if footer:
        out(f"\n{len(rows)} {noun if len(rows) == 1 else _plural(noun)} listed.\n")


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], gap: str = "  ") -> str:
    """Left-aligned columns; a cell of several lines goes on below, an empty one shows as a dash."""
    lines: list[Sequence[str]] = [headers] if headers else []
    for row in rows:
        if "\n" in "".join(row):
            lines.extend(_spread(row))
        else:
            lines.append([cell or "-" for cell in row])
    if not lines:
        return ""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = gap.join("{:<%d}" % width for width in widths).format  # noqa: UP031
    return "".join(form(*line).rstrip() + "\n" for line in lines)


def _spread(row: Sequence[str]) -> list[list[str]]:
    cells = [cell.split("\n") for cell in row]
    height = max(map(len, cells))
    lines = [[cell[at] if at < len(cell) else "" for cell in cells] for at in range(height)]
    lines[0] = [cell or "-" for cell in lines[0]]
    return lines


def csv_line(row: Sequence[str]) -> str:
    """One record as RFC 4180 has it; the lines of a cell are separated by spaces."""
    return ",".join(_csv_cell(cell.replace("\n", " ")) for cell in row) + "\n"


def _csv_cell(cell: str) -> str:
    if "," in cell or '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return cell


def yaml(value: object, indent: str = "") -> str:
    """value as a YAML document; strings are written quoted, so none can be taken for anything else."""
    if isinstance(value, dict) and value:
        return "".join(_yaml_entry(f"{indent}{_yaml_key(key)}:", item, indent) for key, item in value.items())
    if isinstance(value, list) and value:
        return "".join(_yaml_item(item, indent) for item in value)
    return f"{indent}{_yaml_scalar(value)}\n"


def _yaml_entry(head: str, item: object, indent: str) -> str:
    if isinstance(item, dict | list) and item:
        deeper = indent + ("  " if isinstance(item, dict) else "")
        return f"{head}\n{yaml(item, deeper)}"
    return f"{head} {_yaml_scalar(item)}\n"


def _yaml_item(item: object, indent: str) -> str:
    if isinstance(item, dict | list) and item:
        return f"{indent}- {yaml(item, indent + '  ')[len(indent) + 2 :]}"
    return f"{indent}- {_yaml_scalar(item)}\n"


def _yaml_key(key: str) -> str:
    # A bare word is safe when it can be neither a number nor one of YAML's words for true, false and null.
    bare = key.isascii() and key.isidentifier() and len(key) > 1
    if bare and key.lower() not in ("true", "false", "null", "yes", "no", "on", "off"):
        return key
    return yaml_string(key)


def _yaml_scalar(value: object) -> str:
    if isinstance(value, str):
        return yaml_string(value)
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    return "{}" if value == {} else "[]" if value == [] else repr(value)


def yaml_string(text: str) -> str:
    """A double-quoted YAML string; what does not print is escaped."""
    return '"' + "".join(map(_yaml_char, text)) + '"'


def _yaml_char(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    if c.isprintable():
        return c
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"
