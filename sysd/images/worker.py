# SPDX-License-Identifier: Apache-2.0
"""The program that unpacks an image, in a sandbox of its own: the daemon never parses an archive itself.

Progress, then one result or one error, go to standard output as lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sysd.archive.extract import Extractor, Place
from sysd.archive.tape import Member, TarReader
from sysd.archive.tree import Parts, open_directory
from sysd.images import facts, metadata, templates
from sysd.images.stream import Digest, tar_stream
from sysd.model.errors import FailedError, InvalidError, SyscontError, UnsupportedError
from sysd.units.answers import Reporter, emit, emit_error

ROOTFS = b"rootfs"
METADATA = (b"metadata.yaml",)
TEMPLATES = b"templates"
_VM_DISKS = ((b"rootfs.img",), (b"disk.qcow2",))


@dataclass(slots=True)
class Worker:
    """One import: reads the given descriptors, fills target/rootfs."""

    target: int
    limit: int
    digest: Digest = field(default_factory=lambda: Digest(Reporter("unpack")))
    _metadata: bytes | None = None
    _templates: dict[str, bytes] = field(default_factory=dict)
    _reader: TarReader | None = None

    def unified(self, image: int) -> dict[str, Any]:
        """One archive with metadata.yaml and rootfs/."""
        self.digest.total = _size(image)
        return self._unpack(image, _below_rootfs, self._parsed)

    def split(self, described: int, rootfs: int) -> dict[str, Any]:
        """One archive with metadata.yaml, another (or a squashfs) with the tree."""
        self.digest.total = _size(described) + _size(rootfs) if _size(described) and _size(rootfs) else 0
        with tar_stream(described, self.digest, self.target, self.limit) as read:
            self._reader = TarReader(read)
            Extractor(self.target, self._reader, self.limit, _nowhere).run(self._beside)
        found = self._parsed()
        return self._unpack(rootfs, _everywhere, lambda: found)

    def built(self, rootfs: int, known: str) -> dict[str, Any]:
        """The tree alone, from one of our own builders, of which known (JSON) says what metadata.yaml would."""
        self.digest.total = _size(rootfs)
        found = parse_facts(known)
        return self._unpack(rootfs, _everywhere, lambda: found)

    def _unpack(self, archive: int, place: Place, described: Callable[[], metadata.Metadata]) -> dict[str, Any]:
        os.mkdir(ROOTFS, 0o755, dir_fd=self.target)
        root = open_directory(ROOTFS, self.target)
        try:
            os.fchmod(root, 0o755)
            with tar_stream(archive, self.digest, self.target, self.limit) as read:
                self._reader = TarReader(read)
                extractor = Extractor(root, self._reader, self.limit, place)
                extractor.run(self._beside)
            if not extractor.placed:
                raise InvalidError("the image has no rootfs/", "if it has two files, give the root file system too")
            return self._result(root, extractor.size, described())
        finally:
            os.close(root)

    def _beside(self, parts: Parts, member: Member) -> None:
        """A member that is not part of the tree."""
        if parts in _VM_DISKS:
            raise UnsupportedError("this is a virtual machine's image", "only container images can be imported yet")
        if parts == METADATA:
            if self._metadata is not None:
                raise InvalidError("metadata.yaml comes twice in the archive")
            self._metadata = self._content(member, "metadata.yaml", metadata.MAX_SIZE)
        if len(parts) == 2 and parts[0] == TEMPLATES and not member.isdir():
            name = os.fsdecode(parts[1])
            if len(self._templates) >= templates.MAX_TEMPLATES:
                raise InvalidError(f"the image has more than {templates.MAX_TEMPLATES} templates")
            self._templates[name] = self._content(member, f"template {name[:80]!r}", templates.MAX_TOTAL)

    def _content(self, member: Member, what: str, limit: int) -> bytes:
        assert self._reader is not None
        return read_small(self._reader, member, what, limit)

    def _parsed(self) -> metadata.Metadata:
        if self._metadata is None:
            raise InvalidError("metadata.yaml is missing from the archive", "it stands at the top of an image")
        return metadata.parse(self._metadata)

    def _result(self, root: int, size: int, found: metadata.Metadata) -> dict[str, Any]:
        init = facts.find_init(root)
        facts.normalise(root)
        flush(root)
        return {
            "fingerprint": self.digest.hexdigest(),
            "architecture": found.architecture,
            "init": init.value,
            "size": size,
            "properties": found.properties,
            "created": found.created,
            "templates": [asdict(each) for each in templates.resolve(found.templates, self._templates)],
        }


def read_small(reader: TarReader, member: Member, name: str, most: int) -> bytes:
    """The content of a member that is a plain file of at most that many bytes."""
    if not member.isreg() or member.issparse():
        raise InvalidError(f"{name} is not a plain file")
    if not 0 <= member.size <= most:
        raise InvalidError(f"{name} has {member.size} bytes", f"at most {most}")
    data = b""
    while len(data) < member.size:
        data += reader.tape.read_some(member.size - len(data))
    return data


def parse_facts(text: str) -> metadata.Metadata:
    """Facts about a built image: architecture, description, properties, and created (now, when it is missing)."""
    known = json.loads(text)
    properties = {str(key): str(value) for key, value in known.get("properties", {}).items()}
    if known.get("description"):
        properties.setdefault("description", str(known["description"]))
    created = int(known.get("created") or time.time_ns() // 1000)
    return metadata.Metadata(
        metadata.runnable(str(known["architecture"])), created, metadata.check_properties(properties)
    )


def flush(fd: int) -> None:
    """Wait until the file system has all of it: the daemon renames the tree to its final name next."""
    subprocess.run(["sync", "--file-system", f"/proc/self/fd/{fd}"], pass_fds=(fd,), check=True)


def _below_rootfs(parts: Parts) -> Parts | None:
    return parts[1:] if parts[:1] == (ROOTFS,) else None


def _nowhere(parts: Parts) -> Parts | None:
    return None


def _everywhere(parts: Parts) -> Parts | None:
    return parts


def _size(fd: int) -> int:
    return os.fstat(fd).st_size


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sysd.images.worker", description=__doc__)
    parser.add_argument("--target", required=True, help="empty folder on the image store's file system")
    parser.add_argument("--limit", type=int, required=True, help="bytes that the unpacked tree may have")
    parser.add_argument("--image", type=int, help="descriptor of a unified image")
    parser.add_argument("--metadata", metavar="PATH", help="a split image's metadata archive")
    parser.add_argument("--rootfs", type=int, help="descriptor of a split image's root file system")
    parser.add_argument("--rootfs-stream", type=int, help="descriptor of a root file system that was just built")
    parser.add_argument("--facts", help="JSON: what metadata.yaml would say of it")
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> dict[str, Any]:
    target = os.open(options.target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    worker = Worker(target, options.limit)
    if options.image is not None:
        return worker.unified(options.image)
    if options.metadata is not None and options.rootfs is not None:
        metadata_archive = os.open(options.metadata, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return worker.split(metadata_archive, options.rootfs)
    if options.rootfs_stream is not None and options.facts is not None:
        return worker.built(options.rootfs_stream, options.facts)
    raise FailedError("give --image, or --metadata and --rootfs, or --rootfs-stream and --facts")


def main(argv: Sequence[str], work: Callable[[Sequence[str]], list[dict[str, Any]]] | None = None) -> int:
    """Do work, by default one image's import; the exit status is 1 when it was refused."""
    os.umask(0o022)
    try:
        for result in work(argv) if work else [run(arguments(argv))]:
            emit({"result": result})
    except SyscontError as error:
        emit_error(error)
        return 1
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        emit_error(FailedError(f"unpacking failed: {error}"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
