# SPDX-License-Identifier: Apache-2.0
"""A tree becomes the disk of a virtual machine: a partition table, the firmware's partition (vfat) with boot loader,
kernel and initrd, and the tree as ext4. Nothing is mounted: all is written into the image's file.

The tree is a stranger's: what is taken out of it is resolved beneath its root, and is a plain file. For firmware with
secure boot the boot loader is Debian's shim, which Microsoft has signed, with Debian's systemd-boot beside it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sysd.archive.tree import directory, resolve
from sysd.images import gpt, initrd, tools
from sysd.images.disk import NAME
from sysd.images.gpt import MARGIN, MIB, Partition
from sysd.images.inside import is_file, opened
from sysd.images.stream import write_all
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.sizes import format_size

KERNEL = b"kernel"
INITRD = b"initrd"

ESP_SIZE = 256 * MIB
"""Room for some kernels; what is not used takes none on the host."""
_SLACK = 512 * MIB
_BYTES_PER_INODE = 16384
_TOKEN = "syscont"
_VERSION = re.compile(rb"vmlinuz-([A-Za-z0-9][A-Za-z0-9._+~-]{0,63})")
_INITRDS = (b"boot/initrd.img-%s", b"boot/initramfs-%s.img", b"boot/initrd-%s")
# Named, as what the host's mke2fs.conf says may be more than the guest's kernel knows.
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What an architecture calls its boot loader and its root partition, and what its kernel is told beside that."""

    efi: str
    root: uuid.UUID
    command: str


# Emulated by a busy host, an interrupt may come so late that the kernel takes the timer for broken, and stops.
_X86 = "console=ttyS0 no_timer_check"
_MACHINES = {
    "x86_64": Machine("x64", uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"), _X86),
    "aarch64": Machine("aa64", uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"), "console=ttyAMA0"),
}


@dataclass(frozen=True, slots=True)
class Disk:
    """size is what the guest sees."""

    size: int
    kernel_command: str


@dataclass(frozen=True, slots=True)
class _Kernel:
    version: str
    path: bytes
    initrd: bytes


def make(root: int, target: int, fingerprint: str, architecture: str, room: int) -> Disk:
    """Make disk.img, kernel and initrd in the folder target of the tree below root; at most room bytes are written.

    Names of file systems and partitions follow from the fingerprint, so that the same image is the same disk.
    """
    machine = _MACHINES.get(architecture)
    if machine is None:
        raise UnsupportedError(f"can't make disks for {architecture}", f"only for {', '.join(_MACHINES)}")
    kernel = _find_kernel(root)
    loaders = _find_loaders(root, machine)
    partition, volume = _id(fingerprint, "root"), _id(fingerprint, "volume")
    command = f"root=PARTUUID={partition} ro {machine.command} quiet"
    _remember(root, command)
    used, inodes = _measure(root)
    if used + ESP_SIZE > room:
        raise InvalidError(f"the image's disk takes more than the {format_size(room)} that are left for it")
    _copy_out(root, kernel.path, target, KERNEL)
    _write_initrd(root, kernel, architecture, target)
    size = _round(max(used + used // 8, inodes * _BYTES_PER_INODE)) + _SLACK
    parts = [
        Partition(gpt.ESP, _id(fingerprint, "esp"), "esp", MARGIN, ESP_SIZE),
        Partition(machine.root, partition, "root", MARGIN + ESP_SIZE, size, gpt.GROW),
    ]
    total = parts[-1].start + size + MARGIN
    fd = os.open(NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
    try:
        os.ftruncate(fd, total)
        gpt.write(fd, total, _id(fingerprint, "disk"), parts)
        _fill_esp(fd, parts[0], root, _esp_files(kernel, loaders), _entry(kernel.version, command))
        _fill_root(fd, parts[1], root, volume)
        os.fsync(fd)
    finally:
        os.close(fd)
    return Disk(total, command)


# what is in the tree


def _find_kernel(root: int) -> _Kernel:
    """The newest that has an initrd; raises InvalidError when there is none."""
    for version in sorted(_versions(root), key=_age, reverse=True):
        path = b"boot/vmlinuz-" + version
        for pattern in _INITRDS:
            if is_file(root, path) and is_file(root, pattern % version):
                return _Kernel(version.decode(), path, pattern % version)
    raise InvalidError("the image has no kernel with an initrd in /boot", "a machine needs one")


def _versions(root: int) -> list[bytes]:
    found = resolve(root, b"boot")
    if found is None or not stat.S_ISDIR(found[1].st_mode):
        return []
    with directory(root, found[0]) as boot:
        return [match[1] for name in os.listdir(boot) if (match := _VERSION.fullmatch(os.fsencode(name)))]


def _age(version: bytes) -> list[tuple[int, bytes]]:
    return [(int(part), b"") if part.isdigit() else (-1, part) for part in re.findall(rb"\d+|\D+", version)]


def _find_loaders(root: int, machine: Machine) -> dict[str, bytes]:
    """By their place in the firmware's partition: the shim and what it starts, or systemd-boot alone."""
    shim = f"usr/lib/shim/shim{machine.efi}.efi.signed".encode()
    loader = f"usr/lib/systemd/boot/efi/systemd-boot{machine.efi}.efi".encode()
    first = f"EFI/BOOT/BOOT{machine.efi.upper()}.EFI"
    if is_file(root, shim) and is_file(root, loader + b".signed"):
        return {first: shim, f"EFI/BOOT/grub{machine.efi}.efi": loader + b".signed"}
    for path in (loader, loader + b".signed"):
        if is_file(root, path):
            return {first: path}
    raise InvalidError("the image has no boot loader", "it needs systemd-boot: apt install systemd-boot-efi")


def _remember(root: int, command: str) -> None:
    """Tell kernel-install(8) in the guest what new kernels are started with, and whose they are."""
    found = resolve(root, b"etc/kernel")
    if found is None or not stat.S_ISDIR(found[1].st_mode):
        return
    with directory(root, found[0]) as folder:
        for name, text in (("cmdline", command), ("entry-token", _TOKEN)):
            draft = f".{name}.syscont"
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder)
            with os.fdopen(fd, "w") as stream:
                stream.write(f"{text}\n")
            os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)


def _measure(root: int) -> tuple[int, int]:
    """Bytes on disk, and number of inodes."""
    used, inodes = 0, 1
    for _, folders, files, parent in os.fwalk(b".", dir_fd=root):
        for name in (*folders, *files):
            used += os.stat(name, dir_fd=parent, follow_symlinks=False).st_blocks * 512
            inodes += 1
    return used, inodes


# what becomes of it


def _write_initrd(root: int, kernel: _Kernel, architecture: str, target: int) -> None:
    small = initrd.build(root, kernel.version, architecture)
    if small is None:
        _copy_out(root, kernel.initrd, target, INITRD)
        return
    with _beside(target, INITRD) as out:
        write_all(out, small)


def _copy_out(root: int, path: bytes, target: int, name: bytes) -> None:
    with _beside(target, name) as out, opened(root, path) as fd:
        while data := os.read(fd, MIB):
            write_all(out, data)


@contextmanager
def _beside(target: int, name: bytes) -> Iterator[int]:
    """A new file, on disk at the end. Readable by all: QEMU, which has no rights, opens it anew. Its folder is
    root's."""
    out = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=target)
    try:
        yield out
        os.fsync(out)
    finally:
        os.close(out)


def _esp_files(kernel: _Kernel, loaders: dict[str, bytes]) -> dict[str, bytes]:
    place = f"{_TOKEN}/{kernel.version}"
    return loaders | {f"{place}/linux": kernel.path, f"{place}/initrd": kernel.initrd}


def _entry(version: str, command: str) -> dict[str, str]:
    """The menu of systemd-boot, which nobody sees unless they hold a key down."""
    place = f"/{_TOKEN}/{version}"
    lines = [f"title Linux {version}", f"version {version}", f"linux {place}/linux", f"initrd {place}/initrd"]
    entry = "\n".join([*lines, f"options {command}", ""])
    return {"loader/loader.conf": "timeout 0\n", f"loader/entries/{_TOKEN}-{version}.conf": entry}


def _fill_esp(fd: int, partition: Partition, root: int, files: dict[str, bytes], texts: dict[str, str]) -> None:
    disk = f"/proc/self/fd/{fd}"
    label = ["-F", "32", "-s", "2", "-n", "ESP", "-i", partition.id.hex[:8]]
    place = ["--offset", str(partition.start // gpt.SECTOR), disk, str(partition.size // 1024)]
    tools.run(["mkfs.vfat", *label, *place], fd)
    image = ["-i", f"{disk}@@{partition.start}"]
    folders = sorted({path[:end] for path in (*files, *texts) for end in range(len(path)) if path[end] == "/"})
    tools.run(["mmd", *image, *(f"::/{folder}" for folder in folders)], fd)
    for place_there, path in files.items():
        with opened(root, path) as source:
            tools.run(["mcopy", *image, f"/proc/self/fd/{source}", f"::/{place_there}"], fd, source)
    for place_there, text in texts.items():
        tools.run(["mcopy", *image, "-", f"::/{place_there}"], fd, text=text)


def _fill_root(fd: int, partition: Partition, root: int, volume: uuid.UUID) -> None:
    extended = f"offset={partition.start},root_owner=0:0,hash_seed={volume},assume_storage_prezeroed=1"
    kind = ["-t", "ext4", "-O", _FEATURES, "-b", "4096", "-I", "256", "-i", str(_BYTES_PER_INODE), "-m", "1"]
    names = ["-L", "root", "-U", str(volume), "-E", extended, "-d", f"/proc/self/fd/{root}"]
    size = f"{partition.size // 1024}k"
    tools.run(["mke2fs", "-q", "-F", *kind, *names, f"/proc/self/fd/{fd}", size], fd, root)


def _round(size: int) -> int:
    return -(-size // MIB) * MIB


def _id(fingerprint: str, what: str) -> uuid.UUID:
    return uuid.UUID(bytes=hashlib.sha256(f"{fingerprint} {what}".encode()).digest()[:16], version=4)
