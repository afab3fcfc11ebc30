# SPDX-License-Identifier: Apache-2.0
"""A directory of things made once, each named after what went in."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .say import say, step


def cache_dir(kind: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(base) / "syscont" / kind
    path.mkdir(parents=True, exist_ok=True)
    return path


def key_of(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def digest_tree(root: Path) -> list[tuple[str, int, str]]:
    """Names, modes and contents below a directory, in an order of its own."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found.append((str(path.relative_to(root)), path.stat().st_mode & 0o111, digest))
    return found


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; say so if somebody else holds it first."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds {path}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def made(path: Path, build: Callable[[Path], None], what: str) -> Path:
    """Give back path; if it is missing, build it under another name first.

    The rename at the end is what makes a half-built thing impossible to find.
    """
    if path.exists():
        return path
    with locked(path.with_name(f".{path.name}.lock")):
        if path.exists():
            return path
        for stale in path.parent.glob(f".{path.name}.*.tmp"):
            discard(stale)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with step(what):
            build(unfinished)
        unfinished.rename(path)
    return path
