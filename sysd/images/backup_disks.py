# SPDX-License-Identifier: Apache-2.0
"""What backups of virtual machines have in the place of root file systems, as LXD's and Incus' generic driver has it:

    backup/virtual-machine.img     the disk, raw
    backup/virtual-machine/        a folder with, among others, the firmware's variables: qemu.nvram, mostly a link to
                                   a file beside it that is called as the variables that came with the firmware
    backup/virtual-machine-snapshots/NAME.img, NAME/
    backup/syscont-kernels/FINGERPRINT/   kernel, initrd and command: ours alone, of disks that came with these
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sysd.archive.extract import refuse
from sysd.archive.tape import Member, TarReader
from sysd.archive.tree import Parts, directory, open_directory
from sysd.images import disk
from sysd.images.answers import MAX_COMMAND, MAX_VOLUMES
from sysd.images.bootable import INITRD, KERNEL
from sysd.images.stream import write_all
from sysd.images.worker import read_small
from sysd.model.backup import COMMAND, KERNELS
from sysd.model.errors import InvalidError
from sysd.model.image import Init
from sysd.model.instance import Kind
from sysd.model.names import is_fingerprint

TOP = b"backup"
OWN = b"virtual-machine"
OTHERS = b"virtual-machine-snapshots"
DISK_END = b".img"
NVRAM = b"nvram.fd"
NVRAM_SIZE = 540672
"""Of OVMF's variables where its flash has 4 MiB, as on all hosts of ours."""
_LINK = b"qemu.nvram"
_VARIABLES = re.compile(rb"qemu\.nvram|(?:OVMF|AAVMF)_VARS[A-Za-z0-9._-]{0,60}")
_MAX_VARIABLES = 8
_DRAFT = b".draft-"
_COMMAND = COMMAND.encode()
_MAX_KERNEL = 512 << 20


@dataclass(slots=True)
class _Variables:
    """Names of the files that may be the firmware's variables, and whether they are there, having the size that ours
    have. link: which of them is meant."""

    files: dict[bytes, bool] = field(default_factory=dict)
    link: bytes = _LINK


@dataclass(slots=True)
class Machine:
    """folder makes the place of the instance (empty) or of a snapshot, by its name, and gives a descriptor of it."""

    target: int
    limit: int
    folder: Callable[[bytes], AbstractContextManager[int]]
    disks: dict[bytes, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    _data: int = 0
    _variables: dict[bytes, _Variables] = field(default_factory=dict)
    _kernels: dict[str, str] = field(default_factory=dict)

    def is_disk(self, parts: Parts) -> bool:
        return _of_disk(parts) is not None

    def take(self, parts: Parts, member: Member, reader: TarReader) -> None:
        """What is of no use is left alone."""
        if (name := _of_disk(parts)) is not None:
            self._take_disk(name, member, reader)
        elif (name := _of_folder(parts[:-1])) is not None and _VARIABLES.fullmatch(parts[-1]):
            self._take_variables(name, parts[-1], member, reader)
        elif parts[:2] == (TOP, KERNELS.encode()) and len(parts) == 4:
            self._take_kernel(os.fsdecode(parts[2]), parts[3], member, reader)

    def _take_disk(self, name: bytes, member: Member, reader: TarReader) -> None:
        if name in self.disks:
            raise refuse(member, "comes twice in the backup")
        with self.folder(name) as place:
            self.disks[name], data = disk.unpack(reader, member, place, self.limit - self._data)
        self._data += data

    def _take_variables(self, volume: bytes, name: bytes, member: Member, reader: TarReader) -> None:
        found = self._variables.setdefault(volume, _Variables())
        if member.issym() and name == _LINK:
            found.link = member.linkname.encode("utf-8", "surrogateescape").rpartition(b"/")[2]
        elif member.isreg() and name not in found.files and len(found.files) < _MAX_VARIABLES:
            found.files[name] = member.size == NVRAM_SIZE and not member.issparse()
            if found.files[name]:
                with self.folder(volume) as place:
                    _write(place, _DRAFT + name, reader, member)

    def _take_kernel(self, fingerprint: str, name: bytes, member: Member, reader: TarReader) -> None:
        if not is_fingerprint(fingerprint) or name not in (KERNEL, INITRD, _COMMAND):
            raise refuse(member, "is none of the files of a kernel")
        self._kernels.setdefault(fingerprint, "")
        if len(self._kernels) > MAX_VOLUMES:
            raise InvalidError(f"the backup has more than {MAX_VOLUMES} kernels")
        if name == _COMMAND:
            text = read_small(reader, member, COMMAND, MAX_COMMAND)
            self._kernels[fingerprint] = text.decode("ascii", "backslashreplace")
            return
        if not member.isreg() or member.issparse() or member.size > _MAX_KERNEL:
            raise refuse(member, "should be a kernel or an initrd, and is none")
        with made(self.target, KERNELS.encode()) as top, made(top, fingerprint.encode()) as place:
            _write(place, name, reader, member)

    def finish(self, name: bytes, folder: int, index: Mapping[str, Any]) -> dict[str, Any]:
        """Put what belongs to a disk beside it; returns what is to be said of the image."""
        self._choose_variables(name, folder)
        return {
            "init": Init.OTHER,
            "size": os.stat(disk.NAME, dir_fd=folder, follow_symlinks=False).st_blocks * 512,
            "kind": Kind.VM,
            "disk_size": self.disks[name],
            "kernel_command": self._link_kernel(name, folder, index),
        }

    def _choose_variables(self, name: bytes, folder: int) -> None:
        found = self._variables.get(name, _Variables())
        for file, fits in found.files.items():
            if fits and file == found.link:
                os.rename(_DRAFT + file, NVRAM, src_dir_fd=folder, dst_dir_fd=folder)
            elif fits:
                os.unlink(_DRAFT + file, dir_fd=folder)
        if found.files and not found.files.get(found.link):
            self.left_out.append(f"variables of the firmware of {os.fsdecode(name) or 'the instance'}")

    def _link_kernel(self, name: bytes, folder: int, index: Mapping[str, Any]) -> str:
        """Returns what is said to the kernel, nothing when there is none."""
        listed = index.get(KERNELS)
        wanted = listed.get(os.fsdecode(name)) if isinstance(listed, dict) else None
        if not isinstance(wanted, str) or not self._kernels.get(wanted):
            return ""
        try:
            with directory(self.target, (KERNELS.encode(), wanted.encode())) as place:
                for file in (KERNEL, INITRD):
                    os.link(file, file, src_dir_fd=place, dst_dir_fd=folder, follow_symlinks=False)
        except (OSError, InvalidError):
            raise InvalidError("the backup has only parts of a kernel") from None
        return self._kernels[wanted]


def _of_disk(parts: Parts) -> bytes | None:
    """Whose disk a member is: a snapshot's name, nothing for the instance, None when it is something else."""
    if parts == (TOP, OWN + DISK_END):
        return b""
    if len(parts) == 3 and parts[:2] == (TOP, OTHERS) and parts[2].endswith(DISK_END):
        return parts[2].removesuffix(DISK_END) or None
    return None


def _of_folder(parts: Parts) -> bytes | None:
    """The same of a folder."""
    if parts == (TOP, OWN):
        return b""
    return parts[2] if len(parts) == 3 and parts[:2] == (TOP, OTHERS) else None


def _write(folder: int, name: bytes, reader: TarReader, member: Member) -> None:
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder)
    except FileExistsError:
        raise refuse(member, "comes twice in the backup") from None
    try:
        left = member.size
        while left:
            data = reader.tape.read_some(left)
            write_all(fd, data)
            left -= len(data)
    finally:
        os.close(fd)


@contextmanager
def made(parent: int, name: bytes) -> Iterator[int]:
    """A folder that may be there; nobody else has access to its parent."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
    fd = open_directory(name, parent)
    try:
        yield fd
    finally:
        os.close(fd)
