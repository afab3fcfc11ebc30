# SPDX-License-Identifier: Apache-2.0
"""Disks of VM hosts: an ext4 image of a root file system, and what a host changed on top."""

from pathlib import Path

from . import rootfs
from .cache import cache_dir, key_of, made
from .command import machine

_SIZE = "16G"
_MAKE = ("mke2fs", "-q", "-t", "ext4", "-L", "root", "-E", "lazy_itable_init=1")


def image(recipe: rootfs.Recipe) -> Path:
    """The raw disk made from a recipe's tree. Nobody may write to it."""
    name = f"{recipe.path().name}-{key_of(_SIZE, _MAKE)[:8]}.ext4"

    def build(to: Path) -> None:
        machine(*_MAKE, "-d", str(rootfs.tree(recipe)), str(to), _SIZE)

    return made(cache_dir("disk") / name, build, f"disk {name}")


def on_top_of(base: Path, layer: Path) -> None:
    """Begin a disk that holds the differences from another one."""
    kind = "raw" if base.suffix == ".ext4" else "qcow2"
    machine("qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", str(base), str(layer))
