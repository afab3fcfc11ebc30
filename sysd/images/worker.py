# SPDX-License-Identifier: Apache-2.0
"""The program that unpacks an image, in a sandbox of its own: the daemon never parses an archive itself.

Progress, then one result or one error, go to standard output as lines of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sysd.archive.extract import Extractor, Place
from sysd.archive.tape import Member, TarReader
from sysd.archive.tree import Parts, open_directory
from sysd.images import bootable, disk, facts, metadata, templates
from sysd.images.bootable import Disk
from sysd.images.disk import Format
from sysd.images.stream import QCOW2, Digest, Input, tar_stream
from sysd.model.errors import FailedError, InvalidError, SyscontError, failed
from sysd.model.image import Init
from sysd.model.instance import Kind
from sysd.units.answers import Reporter, emit, emit_error

ROOTFS = b"rootfs"
METADATA = (b"metadata.yaml",)
TEMPLATES = b"templates"
VM = "virtual-machine"
_VM_DISKS = ((b"rootfs.img",), (b"disk.qcow2",))
_NO_COMMAND = ""


@dataclass(slots=True)
class Worker:
    """One import: reads the given descriptors, fills target: rootfs/, or of a virtual machine disk.img, kernel and
    initrd. vm: a tree is to become a virtual machine's disk."""

    target: int
    limit: int
    digest: Digest = field(default_factory=lambda: Digest(Reporter("unpack")))
    vm: bool = False
    _metadata: bytes | None = None
    _templates: dict[str, bytes] = field(default_factory=dict)
    _reader: TarReader | None = None
    _disk_size: int = 0

    def unified(self, image: int) -> dict[str, Any]:
        """One archive with metadata.yaml and rootfs/, or with the disk of a virtual machine."""
        self.digest.total = _size(image)
        return self._unpack(Input(image, self.digest), _below_rootfs, self._parsed)

    def split(self, described: int, rootfs: int, form: Format | None = None) -> dict[str, Any]:
        """One archive with metadata.yaml, another (or a squashfs) with the tree. Or a disk: in the format form, else as
        the form's inventor has it, in qcow2."""
        self.digest.total = _size(described) + _size(rootfs) if _size(described) and _size(rootfs) else 0
        with tar_stream(Input(described, self.digest), self.target, self.limit) as read:
            self._reader = TarReader(read)
            Extractor(self.target, self._reader, self.limit, _nowhere).run(self._beside)
        found = self._parsed()
        source = Input(rootfs, self.digest)
        # What else could come here is an archive, and none begins so.
        if form is None and source.start().startswith(QCOW2):
            form = Format.QCOW2
        if form is not None:
            return self._receive(source, form, found)
        return self._unpack(source, _everywhere, lambda: found)

    def bare(self, disk: int, form: Format, known: str) -> dict[str, Any]:
        """The disk of a virtual machine alone."""
        self.digest.total = _size(disk)
        return self._receive(Input(disk, self.digest), form, parse_facts(known))

    def built(self, rootfs: int, known: str) -> dict[str, Any]:
        """The tree alone, from one of our own builders, of which known (JSON) says what metadata.yaml would."""
        self.digest.total = _size(rootfs)
        found = parse_facts(known)
        return self._unpack(Input(rootfs, self.digest), _everywhere, lambda: found)

    def packed(self, archive: int, known: str) -> dict[str, Any]:
        """Of our own packer: the raw disk of a virtual machine, and kernel and initrd where known (JSON) has words for
        the kernel."""
        self.digest.total = _size(archive)
        facts_known = json.loads(known)
        command = str(facts_known.get("kernel_command", ""))
        with tar_stream(Input(archive, self.digest), self.target, self.limit) as read:
            reader = TarReader(read)

            def take(parts: Parts, member: Member) -> None:
                if _is_disk(parts):
                    self._disk_size, _ = disk.unpack(reader, member, self.target, self.limit)

            Extractor(self.target, reader, self.limit, _beside_disk, unbounded=_is_disk).run(take)
        if not self._disk_size:
            raise InvalidError("the archive has no disk")
        init = Init(facts_known.get("init", Init.OTHER))
        return self._result(parse_facts(known), init, self._on_disk(), Disk(self._disk_size, command))

    def _unpack(self, archive: Input, place: Place, described: Callable[[], metadata.Metadata]) -> dict[str, Any]:
        os.mkdir(ROOTFS, 0o755, dir_fd=self.target)
        root = open_directory(ROOTFS, self.target)
        try:
            os.fchmod(root, 0o755)
            with tar_stream(archive, self.target, self.limit) as read:
                self._reader = TarReader(read)
                extractor = Extractor(root, self._reader, self.limit, place)
                extractor.run(self._beside)
            if self._disk_size and extractor.placed:
                raise InvalidError("the image has both a disk and rootfs/")
            if self._disk_size:
                os.rmdir(ROOTFS, dir_fd=self.target)
                return self._result(described(), Init.OTHER, self._on_disk(), Disk(self._disk_size, _NO_COMMAND))
            if not extractor.placed:
                raise InvalidError("the image has no rootfs/", "if it has two files, give the root file system too")
            return self._finish(root, extractor.size, described())
        finally:
            os.close(root)

    def _finish(self, root: int, size: int, found: metadata.Metadata) -> dict[str, Any]:
        init = facts.find_init(root)
        facts.normalise(root)
        if not self.vm:
            flush(root)
            return self._result(found, init, size)
        emit({"stage": "make the disk", "done": 0, "total": 0})
        made = bootable.make(root, self.target, self._fingerprint(VM), found.architecture, self.limit - size)
        shutil.rmtree(os.fsdecode(ROOTFS), dir_fd=self.target)
        return self._result(found, init, self._on_disk(), made, VM)

    def _receive(self, source: Input, form: Format, found: metadata.Metadata) -> dict[str, Any]:
        size = disk.receive(source.read, form, self.target, self.limit)
        # The same bytes can be said to be either.
        word = form if form is Format.RAW else ""
        return self._result(found, Init.OTHER, self._on_disk(), Disk(size, _NO_COMMAND), word)

    def _beside(self, parts: Parts, member: Member) -> None:
        """A member that is not part of the tree."""
        if parts in _VM_DISKS:
            self._take_disk(member)
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

    def _take_disk(self, member: Member) -> None:
        """The disk of a virtual machine in a unified image, which is qcow2 by the form's definition."""
        assert self._reader is not None
        if self._disk_size:
            raise InvalidError("the image has two disks")
        if not member.isreg() or member.issparse():
            raise InvalidError("the image's disk is not a plain file")
        tape, left = self._reader.tape, [member.size]

        def read(size: int) -> bytes:
            data = tape.read_some(min(size, left[0])) if left[0] else b""
            left[0] -= len(data)
            return data

        self._disk_size = disk.receive(read, Format.QCOW2, self.target, self.limit)

    def _fingerprint(self, word: str) -> str:
        """That of what came; with a word, that of something else that is made of the same."""
        digest = self.digest.hexdigest()
        return hashlib.sha256(f"{digest} {word}".encode()).hexdigest() if word else digest

    def _on_disk(self) -> int:
        return os.stat(disk.NAME, dir_fd=self.target, follow_symlinks=False).st_blocks * 512

    def _result(
        self, found: metadata.Metadata, init: Init, size: int, made: Disk | None = None, word: str = ""
    ) -> dict[str, Any]:
        if made:
            flush(self.target)
        # Nobody could write templates into a disk.
        known = [] if made else templates.resolve(found.templates, self._templates)
        return {
            "fingerprint": self._fingerprint(word),
            "architecture": found.architecture,
            "init": init.value,
            "size": size,
            "properties": found.properties,
            "created": found.created,
            "templates": [asdict(each) for each in known],
            "kind": Kind.VM if made else Kind.CONTAINER,
            "disk_size": made.size if made else 0,
            "kernel_command": made.kernel_command if made else "",
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


def _beside_disk(parts: Parts) -> Parts | None:
    return parts if parts in ((bootable.KERNEL,), (bootable.INITRD,)) else None


def _is_disk(parts: Parts) -> bool:
    return parts == (disk.NAME.encode(),)


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
    parser.add_argument("--vm", action="store_true", help="make a virtual machine's disk of the tree")
    parser.add_argument("--disk", action="store_true", help="the root file system comes as a disk already")
    parser.add_argument("--format", type=Format, help="--image or --rootfs is a disk in this format")
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> dict[str, Any]:
    target = os.open(options.target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    worker = Worker(target, options.limit, vm=options.vm)
    if options.image is not None and options.format is not None:
        return worker.bare(options.image, options.format, options.facts)
    if options.image is not None:
        return worker.unified(options.image)
    if options.metadata is not None and options.rootfs is not None:
        metadata_archive = os.open(options.metadata, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return worker.split(metadata_archive, options.rootfs, options.format)
    if options.rootfs_stream is not None and options.disk:
        return worker.packed(options.rootfs_stream, options.facts)
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
        emit_error(failed("unpacking failed", error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
