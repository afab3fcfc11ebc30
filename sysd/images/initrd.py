# SPDX-License-Identifier: Apache-2.0
"""The initrd of machines that start with their image's kernel: the modules that it takes to see their disk, and a
program that loads them, mounts the root partition and becomes the init there (sysd/_cext/initrd).

A distribution's own initrd can do more, and does it by a shell and udev, which takes a good part of such a machine's
start. It stays in the firmware's partition. Modules are the image's own, for the kernel beside them.
"""

from __future__ import annotations

import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sysd.images import inside
from sysd.images.metadata import host_architecture

INIT = Path("/usr/libexec/syscont/guest-init")

NEEDED = ("virtio_pci", "virtio_blk", "ext4")
WANTED = ("crc32c_generic", "crc32c_intel")
"""What ext4 asks the kernel for by another name, in kernels that have it as modules."""

_MAX_INDEX = 16 << 20
_MAX_MODULE = 32 << 20
_MAX_MODULES, _MAX_SUM = 64, 64 << 20
_MODE_FILE, _MODE_FOLDER = stat.S_IFREG | 0o755, stat.S_IFDIR | 0o755
_CONSOLE = (stat.S_IFCHR | 0o600, 5, 1)
_FOLDERS = ("dev", "modules", "proc", "root", "sys")


def build(root: int, version: str, architecture: str) -> bytes | None:
    """A cpio archive (initramfs-buffer-format of Linux's documentation); None for a kernel whose modules are not known,
    or can't be read: it starts with its own initrd."""
    if architecture != host_architecture() or not INIT.exists():
        return None
    modules = _modules(root, f"lib/modules/{version}")
    return None if modules is None else _archive(INIT.read_bytes(), modules)


# modules


def _modules(root: int, folder: str) -> list[tuple[str, bytes]] | None:
    """In the order in which they have to be loaded; without those that the kernel has in itself."""
    index = inside.read(root, f"{folder}/modules.dep".encode(), _MAX_INDEX)
    own = inside.read(root, f"{folder}/modules.builtin".encode(), _MAX_INDEX) or b""
    if index is None:
        return None
    depends = dict(_dependencies(index))
    paths = {_name(path): path for path in depends}
    builtin = {_name(line) for line in own.decode(errors="replace").splitlines()}
    if any(name not in paths and name not in builtin for name in NEEDED):
        return None
    order: dict[str, None] = {}
    for name in (*WANTED, *NEEDED):
        if name in paths:
            _follow(paths[name], depends, order)
    return _contents(root, folder, list(order))


def _contents(root: int, folder: str, paths: Sequence[str]) -> list[tuple[str, bytes]] | None:
    found: list[tuple[str, bytes]] = []
    if len(paths) > _MAX_MODULES:
        return None
    for path in paths:
        data = _content(root, f"{folder}/{path}")
        if not data or sum(len(one) for _, one in found) + len(data) > _MAX_SUM:
            return None
        found.append((_name(path), data))
    return found


def _dependencies(index: bytes) -> Iterable[tuple[str, list[str]]]:
    """Of each module, by its path, whatever it needs (depmod(8): also what those need)."""
    for line in index.decode(errors="replace").splitlines():
        path, colon, needs = line.partition(":")
        if colon:
            yield path, needs.split()


def _follow(path: str, depends: Mapping[str, list[str]], order: dict[str, None]) -> None:
    # The last one is needed by those before it.
    for need in reversed(depends[path]):
        order.setdefault(need)
    order.setdefault(path)


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")


def _content(root: int, path: str) -> bytes | None:
    """As the kernel takes it from a process that does not unpack; None where it can't be had."""
    try:
        data = inside.read(root, path.encode(), _MAX_MODULE)
    except (OSError, ValueError):  # no name of a file
        return None
    unpack = _UNPACK.get(os.path.splitext(path)[1])
    return None if data is None or unpack is None else unpack(data)


def _xz(data: bytes) -> bytes | None:
    reader = lzma.LZMADecompressor(memlimit=256 << 20)
    try:
        found = reader.decompress(data, _MAX_MODULE)
    except lzma.LZMAError:
        return None
    return found if reader.eof else None


def _gzip(data: bytes) -> bytes | None:
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        found = reader.decompress(data, _MAX_MODULE)
    except zlib.error:
        return None
    return found if reader.eof else None


_UNPACK: Mapping[str, Callable[[bytes], bytes | None]] = {".ko": lambda data: data, ".xz": _xz, ".gz": _gzip}


# the archive


def _archive(init: bytes, modules: Iterable[tuple[str, bytes]]) -> bytes:
    members = [_member(name, _MODE_FOLDER) for name in _FOLDERS]
    members += [_member("dev/console", *_CONSOLE), _member("init", _MODE_FILE, data=init)]
    members += [_member(f"modules/{at:02}-{name}.ko", _MODE_FILE, data=data) for at, (name, data) in enumerate(modules)]
    return b"".join([*members, _member("TRAILER!!!", 0)])


def _member(name: str, mode: int, major: int = 0, minor: int = 0, data: bytes = b"") -> bytes:
    """In the form that is called newc. The kernel tells files apart by their names where they have one link."""
    path = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(path), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + path
    return head + _padding(head) + data + _padding(data)


def _padding(data: bytes) -> bytes:
    return b"\0" * (-len(data) % 4)
