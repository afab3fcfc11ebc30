# SPDX-License-Identifier: Apache-2.0
"""The program that unpacks a backup, in the same sandbox as images: each root file system in it, the instance's and
those of its snapshots, becomes the tree of an image.

    target/0/rootfs      the instance, or a snapshot, in the order in which they come
    target/index.json    what index.yaml says, as maps, lists and texts

One result for each tree; its property "volume" is the snapshot's name, and missing for the instance.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Sequence
from typing import Any

from sysd.archive.extract import Extractor
from sysd.archive.tape import Member, TarReader
from sysd.archive.tree import Parts, directory, show
from sysd.images import facts, metadata, nodes
from sysd.images.answers import INDEX_FILE, MAX_VOLUMES
from sysd.images.stream import Digest, Input, tar_stream
from sysd.images.worker import flush, main, read_small
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.instance import Kind
from sysd.model.names import check_snapshot_name
from sysd.units.answers import Reporter

TOP = b"backup"
ROOTFS = b"rootfs"
INSTANCE = b""
INDEX = (TOP, b"index.yaml")
OLD_INDEX = (TOP, b"container", b"backup.yaml")
"""Of backups whose index has not yet all that this has."""
MAX_YAML = 4 << 20
MAX_EVENTS = 200_000
_OTHERS: dict[Parts, str] = {
    (TOP, b"container.bin"): "a storage driver",
    (TOP, b"virtual-machine"): "a virtual machine",
    (TOP, b"virtual-machine.bin"): "a virtual machine",
    (TOP, b"virtual-machine.img"): "a virtual machine",
}


class Unpacking:
    def __init__(self, target: int, limit: int) -> None:
        self._target = target
        self._limit = limit
        self._numbers: dict[bytes, int] = {}
        self._indexes: dict[Parts, bytes] = {}
        self._reader: TarReader | None = None

    def run(self, archive: int) -> list[dict[str, Any]]:
        digest = Digest(Reporter("unpack"), os.fstat(archive).st_size)
        with tar_stream(Input(archive, digest), self._target, self._limit) as read:
            self._reader = TarReader(read)
            Extractor(self._target, self._reader, self._limit, self._place, depth=2).run(self._beside)
        if INSTANCE not in self._numbers:
            raise InvalidError("this is no backup of a container", "it has no backup/container/rootfs")
        architecture = self._write_index()
        results = [
            self._result(name, number, digest.hexdigest(), architecture) for name, number in self._numbers.items()
        ]
        flush(self._target)
        return results

    def _place(self, parts: Parts) -> Parts | None:
        if parts[:3] == (TOP, b"container", ROOTFS):
            return self._folder(INSTANCE) + parts[3:]
        if parts[:2] == (TOP, b"snapshots") and parts[3:4] == (ROOTFS,):
            return self._folder(parts[2]) + parts[4:]
        return None

    def _folder(self, name: bytes) -> Parts:
        if name not in self._numbers:
            if name:
                check_snapshot_name(name.decode("utf-8", "backslashreplace"))
            if len(self._numbers) >= MAX_VOLUMES:
                raise InvalidError(f"the backup has more than {MAX_VOLUMES} snapshots")
            self._numbers[name] = len(self._numbers)
        return (str(self._numbers[name]).encode(), ROOTFS)

    def _beside(self, parts: Parts, member: Member) -> None:
        if kind := _OTHERS.get(parts[:2]):
            raise UnsupportedError(f"this is the backup of {kind}", "only containers' in plain form can be imported")
        if parts in (INDEX, OLD_INDEX):
            if parts in self._indexes:
                raise InvalidError(f"{show(parts[-1])} comes twice in the backup")
            assert self._reader is not None
            self._indexes[parts] = read_small(self._reader, member, parts[-1].decode(), MAX_YAML)

    def _write_index(self) -> str:
        """Returns the architecture that it names, this host's when none."""
        if INDEX not in self._indexes:
            raise InvalidError("the backup has no backup/index.yaml")
        found = {parts: self._parse(data, parts[-1].decode()) for parts, data in self._indexes.items()}
        index = found[INDEX]
        if not isinstance(index, dict):
            raise InvalidError("index.yaml is not a mapping of fields to values")
        index["config"] = index.get("config") or found.get(OLD_INDEX) or {}
        fd = os.open(INDEX_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._target)
        with os.fdopen(fd, "w") as stream:
            json.dump(index, stream)
        config = index["config"] if isinstance(index["config"], dict) else {}
        own = config.get("container") or config.get("instance")
        named = own.get("architecture") if isinstance(own, dict) else None
        return metadata.runnable(named) if isinstance(named, str) else metadata.host_architecture()

    def _parse(self, data: bytes, name: str) -> Any:
        return nodes.plain(nodes.compose(data, name, MAX_YAML, MAX_EVENTS), name)

    def _result(self, name: bytes, number: int, digest: str, architecture: str) -> dict[str, Any]:
        with directory(self._target, (str(number).encode(), ROOTFS)) as root:
            init = facts.find_init(root)
            facts.make_mount_points(root)
            size = _size(root)
        return {
            "fingerprint": hashlib.sha256(f"{digest} {name.decode()}".encode()).hexdigest(),
            "architecture": architecture,
            "init": init.value,
            "size": size,
            "properties": {"volume": name.decode()} if name else {},
            "created": time.time_ns() // 1000,
            "templates": [],
            "kind": Kind.CONTAINER,
            "disk_size": 0,
            "kernel_command": "",
        }


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
    options = parser.parse_args(argv)
    target = os.open(options.target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    return Unpacking(target, options.limit).run(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], run))
