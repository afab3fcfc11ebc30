#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Hold every import of sysd against the house in DESIGN.md: a request walks one way, from door to kernel.

Imports inside functions and below TYPE_CHECKING count too: a cycle of types is a cycle of thoughts.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DRIVERS = frozenset({"network", "images", "runtime", "storage", "dns", "migration"})
BELOW_MANAGER = DRIVERS | {"model", "store", "units", "_cext", "archive"}

# Part of sysd -> what it may import besides itself. A new part has to be put here before it can be used.
ALLOWED: dict[str, frozenset[str]] = {
    "model": frozenset(),
    "_cext": frozenset(),
    "codec": frozenset(),
    "archive": frozenset({"model"}),
    # What hosts and the command line speak among themselves, also where there is nothing else of ours.
    "remote": frozenset({"model", "codec"}),
    "store": frozenset({"model"}),
    "units": frozenset({"model", "_cext"}),
    **dict.fromkeys(DRIVERS, frozenset({"model", "_cext", "units"})),
    # Of storage the format of disks, which come as images and are what instances write to.
    "images": frozenset({"model", "_cext", "units", "archive", "storage"}),
    # The launcher's JSON: what the command line has, for the same reason.
    "runtime": frozenset({"model", "_cext", "units", "codec", "archive"}),
    "manager": BELOW_MANAGER | {"remote"},
    # The bus itself, and descriptors of what runs in an instance, pass through a door as they are.
    "dbus": frozenset({"manager", "model", "units", "runtime"}),
    "varlink": frozenset({"manager", "model", "units", "runtime", "remote"}),
    # A door, too, that opens inside guests.
    "guestapi": frozenset({"manager", "model", "runtime", "varlink"}),
    "daemon": BELOW_MANAGER | {"manager", "dbus", "varlink", "guestapi"},
    # Of a guest's folder that is pulled the command line gets an archive, which is as hostile as an image's.
    "cli": frozenset({"model", "codec", "archive", "remote"}),
}
# What each use of the command line imports; all else of the command line is loaded by the verb that needs it.
HOT_ENTRY = "sysd.cli.main"


@dataclass(frozen=True, slots=True)
class Import:
    module: str
    line: int
    at_start: bool


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    path: Path
    imports: tuple[Import, ...]

    @property
    def part(self) -> str:
        return part_of(self.name)


def part_of(module: str) -> str:
    """``manager`` for ``sysd.manager.images``, and nothing for sysd itself."""
    return module.split(".")[1] if "." in module else ""


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _walk(node: ast.AST, at_start: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether it runs when its module is imported."""
    for child in ast.iter_child_nodes(node):
        inside = at_start and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield child, inside
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            for statement in child.body:
                yield statement, False
                yield from _walk(statement, False)
            for statement in child.orelse:
                yield statement, inside
                yield from _walk(statement, inside)
        else:
            yield from _walk(child, inside)


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    base = module.split(".")
    base = base[: len(base) - node.level + is_package]
    return ".".join([*base, node.module] if node.module else base)


def _imported(node: ast.AST, module: str, is_package: bool) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = _absolute(node, module, is_package)
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if function in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def read_module(root: Path, path: Path) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    imports = (
        Import(target, getattr(node, "lineno", 0), at_start)
        for node, at_start in _walk(ast.parse(path.read_text(), str(path)), True)
        for target in _imported(node, name, is_package)
        if target.split(".")[0] == "sysd"
    )
    return Module(name, path, tuple(imports))


def _direction(module: Module) -> Iterator[str]:
    if module.part and module.part not in ALLOWED:
        yield f"{module.path}: sysd.{module.part} is in no layer; put it into ALLOWED of tools/layers.py"
        return
    allowed = ALLOWED.get(module.part, frozenset()) | {module.part}
    for used in module.imports:
        target = part_of(used.module)
        if target in {"", "__version__"} or target in allowed:
            continue
        yield f"{module.path}:{used.line}: {module.name} must not import {used.module}"


def _hot(modules: dict[str, Module]) -> Iterator[str]:
    """Complain of sysd.model where each start of the command line would pay for it."""
    todo, seen = [HOT_ENTRY], set[str]()
    while todo:
        module = modules.get(todo.pop())
        if module is None or module.name in seen:
            continue
        seen.add(module.name)
        for used in module.imports:
            if not used.at_start:
                continue
            if part_of(used.module) == "model":
                yield f"{module.path}:{used.line}: {module.name} is loaded by every verb: no {used.module} at its top"
            # "from sysd.cli import table" and "from sysd.cli.table import draw" look alike here.
            todo += [used.module, used.module.rpartition(".")[0]]


def check(root: Path) -> list[str]:
    """Complaints about the sysd package below root, one line each."""
    modules = {m.name: m for m in (read_module(root, p) for p in sorted((root / "sysd").rglob("*.py")))}
    complaints = [line for module in modules.values() for line in _direction(module)]
    return complaints + list(_hot(modules))


def main(argv: list[str]) -> int:
    root = Path(argv[1]) if len(argv) > 1 else Path(__file__).resolve().parent.parent
    complaints = check(root)
    for line in complaints:
        print(line, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
