# SPDX-License-Identifier: Apache-2.0
"""The program that writes an archive of a root file system which is in use: first all of it, of a copy of its layer,
and on SIGUSR1, when nobody uses it any more, what has changed since.

Its plan is that of sysd.storage.pack, with a program that compresses, and has as well:
    rest      layers of the tree as it is then, the uppermost first
    copied    those of the copy, which is one of the trees
    since     nanoseconds of the epoch at which the copy had not been begun

What comes after the trees, in this order:
    backup/settled    who reads this has read all that came before it
    backup/gone/N     paths, each with a zero byte behind it, of what is to be removed
    backup/rest/      what is new or another, to be laid over the tree
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from sysd.model.backup import GONE, REST, SETTLED
from sysd.storage.changes import TooDeepError, changes
from sysd.storage.pack import CHUNK, TAR, lay_out, pass_on

BLOCK = 512
TAIL = 32 * BLOCK
"""Bytes at the end of an archive in which its end mark is, whose last record tar fills up."""
PADDING = 1 << 20
"""Bytes that can't be compressed: more than a compressor, and what undoes its work, keep to themselves."""
GONE_AT_ONCE = 1 << 20
BEFORE = "before"


def main() -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    plan = json.load(sys.stdin)
    root = Path(tempfile.mkdtemp())
    lay_out(root, plan)
    (root / SETTLED).write_bytes(os.urandom(PADDING))
    try:
        with _compressed(plan["compress"]) as out:
            _archive(root, [*plan["members"], SETTLED], out, ends=False)
            signal.sigwait({signal.SIGUSR1})
            lay_out(root, {"files": {}, "trees": {REST: plan["rest"], BEFORE: plan["copied"]}})
            _list(root, plan["since"])
            _archive(root, ["--no-recursion", "--null", "--files-from=list"], out, ends=True)
    except (OSError, subprocess.CalledProcessError, TooDeepError) as error:
        print(f"what was packed can't be written: {error}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _compressed(program: str) -> Iterator[int]:
    """Where the archive goes, through a program."""
    with subprocess.Popen(program.split(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        passing = threading.Thread(target=_pass_on, args=(process.stdout.fileno(),))
        passing.start()
        try:
            yield process.stdin.fileno()
        finally:
            process.stdin.close()
            passing.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, program)


def _pass_on(source: int) -> None:
    try:
        pass_on(source, sys.stdout.fileno())
    except OSError as error:
        print(f"what was packed can't be written: {error.strerror}", file=sys.stderr)
        os._exit(1)


def _archive(root: Path, members: list[str], out: int, *, ends: bool) -> None:
    """Append members to the archive, with its end mark or without; then the last of them must not end with zeros."""
    argv = [*TAR, f"--directory={root}", *members]
    held = b""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout
        while data := process.stdout.read(CHUNK):
            held += data
            _write(out, held[:-TAIL])
            held = held[-TAIL:]
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "tar")
    _write(out, held if ends else _without_zeros(held))


def _without_zeros(data: bytes) -> bytes:
    """Data without the zero blocks at its end."""
    return data[: -(-len(data.rstrip(b"\0")) // BLOCK) * BLOCK]


def _write(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


def _list(root: Path, since: int) -> None:
    """Write lists of what is gone, and the list of what tar is to archive: those come first."""
    before, after = (os.open(root / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for name in (BEFORE, REST))
    gone: list[bytes] = []
    listed: list[bytes] = []
    for change in changes(before, after, since):
        if change.gone:
            gone.append(change.path)
        else:
            listed.append(os.path.join(os.fsencode(REST), change.path).rstrip(b"/"))
    (root / GONE).mkdir()
    names = []
    for number, text in enumerate(_batches(gone)):
        names.append(f"{GONE}/{number}".encode())
        (root / os.fsdecode(names[-1])).write_bytes(text)
    (root / "list").write_bytes(b"".join(name + b"\0" for name in (*names, *listed)))


def _batches(paths: list[bytes]) -> Iterator[bytes]:
    batch: list[bytes] = []
    size = 0
    for path in paths:
        batch.append(path + b"\0")
        size += len(batch[-1])
        if size >= GONE_AT_ONCE:
            yield b"".join(batch)
            batch, size = [], 0
    if batch:
        yield b"".join(batch)


if __name__ == "__main__":
    sys.exit(main())
