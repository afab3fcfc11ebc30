# SPDX-License-Identifier: Apache-2.0
"""The program that unpacks a backup, in the same sandbox as images: each root file system or disk in it, the
instance's and those of its snapshots, becomes an image.

    target/0/rootfs      the instance, or a snapshot, in the order in which they come; of virtual machines:
    target/0/disk.img    with nvram.fd, kernel and initrd beside it where the backup has them
    target/index.json    what index.yaml says, as maps, lists and texts

A container that was in use when another host began to send it comes in two parts (sysd.storage.pack_rest): the first of
them is on disk when the stage is "settled".

One result for each image; its property "volume" is the snapshot's name, and missing for the instance.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sysd.archive.extract import Extractor, split_name
from sysd.archive.tape import Member, TarReader
from sysd.archive.tree import Parts, directory, show
from sysd.images import facts, metadata, nodes
from sysd.images.answers import INDEX_FILE, MAX_VOLUMES
from sysd.images.backup_disks import Machine, made
from sysd.images.stream import Digest, Input, tar_stream
from sysd.images.worker import flush, main, read_small
from sysd.model.backup import GONE, LEFT_OUT, REST, SETTLED, SETTLED_STAGE
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.instance import Kind
from sysd.model.names import check_snapshot_name
from sysd.units.answers import Reporter, emit

TOP = b"backup"
ROOTFS = b"rootfs"
INSTANCE = b""
INDEX = (TOP, b"index.yaml")
OLD_INDEXES = ((TOP, b"container", b"backup.yaml"), (TOP, b"virtual-machine", b"backup.yaml"))
"""Of backups whose index has not yet all that this has."""
REST_TREE, GONE_LISTS = tuple(REST.encode().split(b"/")), tuple(GONE.encode().split(b"/"))
SETTLED_MARK = tuple(SETTLED.encode().split(b"/"))
MAX_GONE = 4 << 20
"""Bytes of one list of what is gone."""
MAX_YAML = 4 << 20
MAX_EVENTS = 200_000
_OTHERS: dict[Parts, str] = {
    (TOP, b"container.bin"): "a storage driver",
    (TOP, b"virtual-machine.bin"): "a storage driver",
    (TOP, b"volume"): "a volume",
    (TOP, b"volume.img"): "a volume",
}


class Unpacking:
    def __init__(self, target: int, limit: int, *, fresh: bool = False) -> None:
        """fresh: the instance gets an identity of its own."""
        self._fresh = fresh
        self._target = target
        self._limit = limit
        self._numbers: dict[bytes, int] = {}
        self._indexes: dict[Parts, bytes] = {}
        self._trees: set[bytes] = set()
        self._machine = Machine(target, limit, self._opened)
        self._reader: TarReader | None = None

    def run(self, archive: int) -> list[dict[str, Any]]:
        digest = Digest(Reporter("unpack"), os.fstat(archive).st_size)
        with tar_stream(Input(archive, digest), self._target, self._limit) as read:
            self._reader = TarReader(read)
            self._extractor = Extractor(self._target, self._reader, self._limit, self._place, depth=2)
            self._extractor.unbounded = self._machine.is_disk
            self._extractor.run(self._beside)
        self._check_whole()
        index, architecture = self._read_index()
        results = [
            self._result(name, number, digest.hexdigest(), architecture, index)
            for name, number in self._numbers.items()
        ]
        self._write_index(index)
        flush(self._target)
        return results

    def _check_whole(self) -> None:
        disks = self._machine.disks.keys()
        if INSTANCE not in self._trees | disks:
            raise InvalidError("this is no backup of an instance", "it has neither a root file system nor a disk")
        if self._trees and disks:
            raise InvalidError("the backup has both disks and root file systems")
        if missing := self._numbers.keys() - self._trees - disks:
            raise InvalidError(f"the backup has no disk of {show(min(missing)) or 'the instance'}")

    def _place(self, parts: Parts) -> Parts | None:
        if parts[:3] == (TOP, b"container", ROOTFS):
            return self._tree(INSTANCE) + parts[3:]
        if parts[:2] == REST_TREE:
            return self._tree(INSTANCE) + parts[2:]
        if parts[:2] == (TOP, b"snapshots") and parts[3:4] == (ROOTFS,):
            return self._tree(parts[2]) + parts[4:]
        return None

    def _tree(self, name: bytes) -> Parts:
        self._trees.add(name)
        return (self._folder(name), ROOTFS)

    @contextmanager
    def _opened(self, name: bytes) -> Iterator[int]:
        with made(self._target, self._folder(name)) as fd:
            yield fd

    def _folder(self, name: bytes) -> bytes:
        """Of what goes by this name."""
        if name not in self._numbers:
            if name:
                check_snapshot_name(name.decode("utf-8", "backslashreplace"))
            if len(self._numbers) >= MAX_VOLUMES:
                raise InvalidError(f"the backup has more than {MAX_VOLUMES} snapshots")
            self._numbers[name] = len(self._numbers)
        return str(self._numbers[name]).encode()

    def _beside(self, parts: Parts, member: Member) -> None:
        if kind := _OTHERS.get(parts[:2]):
            raise UnsupportedError(f"this is the backup of {kind}", "only instances' in plain form can be imported")
        assert self._reader is not None
        if parts in (INDEX, *OLD_INDEXES):
            if parts in self._indexes:
                raise InvalidError(f"{show(parts[-1])} comes twice in the backup")
            self._indexes[parts] = read_small(self._reader, member, parts[-1].decode(), MAX_YAML)
            return
        if parts == SETTLED_MARK:
            flush(self._target)
            emit({"stage": SETTLED_STAGE, "done": 0, "total": 0})
        elif parts[:2] == GONE_LISTS:
            self._take_away(read_small(self._reader, member, "what is gone", MAX_GONE))
        else:
            self._machine.take(parts, member, self._reader)

    def _take_away(self, listed: bytes) -> None:
        for path in filter(None, listed.split(b"\0")):
            parts = split_name(os.fsdecode(path))
            if not parts:
                raise InvalidError("the root of a tree can't be gone")
            self._extractor.remove(self._tree(INSTANCE) + parts)

    def _read_index(self) -> tuple[dict[str, Any], str]:
        """What it says, and the architecture that it names, this host's when none."""
        if INDEX not in self._indexes:
            raise InvalidError("the backup has no backup/index.yaml")
        found = {parts: self._parse(data, parts[-1].decode()) for parts, data in self._indexes.items()}
        index = found[INDEX]
        if not isinstance(index, dict):
            raise InvalidError("index.yaml is not a mapping of fields to values")
        old = next((found[parts] for parts in OLD_INDEXES if found.get(parts)), None)
        index["config"] = index.get("config") or old or {}
        kind = Kind.VM if self._machine.disks else Kind.CONTAINER
        if index.get("type", Kind.CONTAINER) != kind:
            raise InvalidError(f"the backup has what a {kind} has, and its index.yaml says something else")
        config = index["config"] if isinstance(index["config"], dict) else {}
        own = config.get("container") or config.get("instance")
        named = own.get("architecture") if isinstance(own, dict) else None
        return index, metadata.runnable(named) if isinstance(named, str) else metadata.host_architecture()

    def _write_index(self, index: dict[str, Any]) -> None:
        index[LEFT_OUT] = self._machine.left_out
        fd = os.open(INDEX_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._target)
        with os.fdopen(fd, "w") as stream:
            json.dump(index, stream)

    def _parse(self, data: bytes, name: str) -> Any:
        return nodes.plain(nodes.compose(data, name, MAX_YAML, MAX_EVENTS), name)

    def _result(
        self, name: bytes, number: int, digest: str, architecture: str, index: dict[str, Any]
    ) -> dict[str, Any]:
        with directory(self._target, (str(number).encode(),)) as folder:
            own = self._machine.finish(name, folder, index) if self._machine.disks else self._container(name, folder)
        # No snapshot is called so.
        word = "/fresh" if self._fresh and name == INSTANCE else name.decode()
        return {
            "fingerprint": hashlib.sha256(f"{digest} {word}".encode()).hexdigest(),
            "architecture": architecture,
            "properties": {"volume": name.decode()} if name else {},
            "created": time.time_ns() // 1000,
            "templates": [],
            **own,
        }

    def _container(self, name: bytes, folder: int) -> dict[str, Any]:
        with directory(folder, (ROOTFS,)) as root:
            init = facts.find_init(root)
            facts.make_mount_points(root)
            if self._fresh and name == INSTANCE:
                facts.forget_identity(root)
            size = _size(root)
        return {"init": init.value, "size": size, "kind": Kind.CONTAINER, "disk_size": 0, "kernel_command": ""}


def _size(root: int) -> int:
    total = 0
    for _, _, files, folder in os.fwalk(b".", dir_fd=root):
        for name in files:
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
            total += info.st_size if stat.S_ISREG(info.st_mode) else 0
    return total


def run(argv: Sequence[str]) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(prog="sysd.images.backup", description=__doc__)
    parser.add_argument("--target", required=True, help="empty folder on the image store's file system")
    parser.add_argument("--limit", type=int, required=True, help="bytes that the unpacked trees may have")
    parser.add_argument("--fresh", action="store_true", help="the instance gets an identity of its own")
    options = parser.parse_args(argv)
    target = os.open(options.target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    return Unpacking(target, options.limit, fresh=options.fresh).run(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], run))
