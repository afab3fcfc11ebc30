# SPDX-License-Identifier: Apache-2.0
"""Debian images as `syscont image build` makes them, built once on the machine and kept.

In a host it would go with the host, and be built anew each time.
"""

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from sysd.images.sources import Source, parse_source

from . import apt
from .cache import cache_dir, key_of, made
from .command import CommandError

SUITE = "debian/trixie"


def debian(*packages: str) -> tuple[Path, Path]:
    """Metadata archive and root file system archive, LXD's split form; with packages beside those it always has."""
    apt.ensure("mmdebstrap")
    return _made("debian", _with(parse_source(SUITE), packages))


def debian_vm(*packages: str) -> tuple[Path, Path]:
    """The same of a virtual machine: `syscont image import METADATA ROOTFS --vm` makes a disk of it."""
    apt.ensure("mmdebstrap", "mtools", "dosfstools", "e2fsprogs")
    return _made("debian-vm", _with(parse_source(SUITE, vm=True), packages))


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
    made(metadata, lambda path: _describe(source, path), "describing it")
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


def _describe(source: Source, path: Path) -> None:
    facts = {key: source.facts[key] for key in ("architecture", "properties")}
    described = {"creation_date": int(time.time()), **facts}
    folder = path.with_suffix(".d")
    folder.mkdir(exist_ok=True)
    # JSON is YAML.
    (folder / "metadata.yaml").write_text(json.dumps(described))
    subprocess.run(["tar", "-C", folder, "-cf", path, "metadata.yaml"], check=True)
    (folder / "metadata.yaml").unlink()
    folder.rmdir()
