# SPDX-License-Identifier: Apache-2.0
"""Debian images as `syscont image build` makes them, built once on the machine and kept.

In a host it would go with the host, and be built anew each time. And a small machine of what they are made of.
"""

import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sysd.images import busybox
from sysd.images.metadata import host_architecture
from sysd.images.sources import Source, parse_source

from . import apt
from .cache import cache_dir, key_of, made
from .command import CommandError

SUITE = "debian/trixie"

# What is written is on disk when the console says so.
WRITTEN = "the file is written"
_START = f"""\
#!/bin/sh
mount -o remount,rw /
dd if=/dev/urandom of=/srv.data bs=64k count=16 2>/dev/null && md5sum </srv.data >/srv.sum && sync &&
    echo {WRITTEN} >/dev/console
"""
# Named as the kernel and the boot loader of Debian's machines are.
_OF_DEBIAN = re.compile(r"\./(boot/(vmlinuz|initrd\.img)-.*|usr/lib/systemd/boot/efi/systemd-boot[^/]*)")


def debian(*packages: str) -> tuple[Path, Path]:
    """Metadata archive and root file system archive, LXD's split form; with packages beside those it always has."""
    apt.ensure("mmdebstrap")
    return _made("debian", _with(parse_source(SUITE), packages))


def debian_vm(*packages: str) -> tuple[Path, Path]:
    """The same of a virtual machine: `syscont image import METADATA ROOTFS --vm` makes a disk of it."""
    apt.ensure("mmdebstrap", "mtools", "dosfstools", "e2fsprogs")
    return _made("debian-vm", _with(parse_source(SUITE, vm=True), packages))


def tiny_vm() -> tuple[Path, Path]:
    """A machine of busybox alone, with Debian's kernel, that runs as soon as it is started: nobody in it says when it
    has booted. It writes a file, /srv.data, and its sum beside it."""
    apt.ensure("busybox-static")
    _, rootfs = debian_vm()
    path = rootfs.with_name(f"tiny-vm-{key_of(rootfs.name, _START)}.tar")
    made(path, lambda path: _build_tiny(rootfs, path), "making a small machine's image, kept for the next time")
    metadata = path.with_suffix(".metadata.tar")
    facts = {"architecture": host_architecture(), "properties": {"os": "busybox"}}
    made(metadata, lambda path: _describe(facts, path), "describing it")
    return metadata, path


def _build_tiny(debian: Path, path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out, tarfile.open(debian) as source:
        busybox.write(out, busybox.find_busybox())
        busybox.add_file(out, "etc/init.d/rcS", 0o755, _START.encode())
        for member in source:
            if member.isreg() and _OF_DEBIAN.fullmatch(member.name):
                out.addfile(member, source.extractfile(member))


def _with(source: Source, packages: tuple[str, ...]) -> Source:
    if not packages:
        return source
    command, *options = source.argv
    return replace(source, argv=(command, f"--include={','.join(packages)}", *options))


def _made(name: str, source: Source) -> tuple[Path, Path]:
    # Still where the demo has always kept it.
    rootfs = cache_dir("demo") / f"{name}-{key_of(source.argv)}.tar"
    made(rootfs, lambda path: _build(source, path), f"building {source.name}, kept for the next time")
    metadata = rootfs.with_suffix(".metadata.tar")
    facts = {key: source.facts[key] for key in ("architecture", "properties")}
    made(metadata, lambda path: _describe(facts, path), "describing it")
    return metadata, rootfs


def _build(source: Source, path: Path) -> None:
    with path.open("wb") as output:
        done = subprocess.run(
            source.argv, env=os.environ | source.env, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.PIPE,
        )  # fmt: skip
    if done.returncode:
        errors = done.stderr.decode(errors="replace")
        raise CommandError(done.returncode, list(source.argv), "", errors)


def _describe(facts: Mapping[str, Any], path: Path) -> None:
    described = {"creation_date": int(time.time()), **facts}
    folder = path.with_suffix(".d")
    folder.mkdir(exist_ok=True)
    # JSON is YAML.
    (folder / "metadata.yaml").write_text(json.dumps(described))
    subprocess.run(["tar", "-C", folder, "-cf", path, "metadata.yaml"], check=True)
    (folder / "metadata.yaml").unlink()
    folder.rmdir()
