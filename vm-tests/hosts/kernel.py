# SPDX-License-Identifier: Apache-2.0
"""The VM hosts' kernels: our own has what no Debian kernel has (SCHED_CORE, NETDEVSIM), and nothing as a module;
Debian's has drivers for all the hardware there is."""

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import apt, rootfs
from .cache import cache_dir, key_of, made
from .command import HostError
from .say import say

_VERSION = "6.12"
_SUITE = "trixie"
_TESTS = Path(__file__).resolve().parents[1]
_CONFIG = _TESTS / "testkernel" / f"config-{_VERSION}.defconfig"
_READY_MADE = _TESTS.parents[1] / "shared" / "testkernel"
_TOOLS = "gcc make flex bison bc libelf-dev libssl-dev xz-utils cpio kmod patch rsync perl"


@dataclass(frozen=True)
class Boot:
    """What a VM host boots: Debian's kernels need an initrd, ours has none."""

    kernel: Path
    initrd: Path | None = None


def of(recipe: rootfs.Recipe) -> Boot:
    """The kernel that is among a recipe's packages, else our own."""
    for found in rootfs.tree(recipe).glob("boot/vmlinuz-*"):
        return Boot(found, found.with_name(found.name.replace("vmlinuz", "initrd.img")))
    more, patch = (_CONFIG.with_name(f"{recipe.variant}.{kind}") for kind in ("config", "patch"))
    config = _CONFIG.read_text() + (more.read_text() if more.exists() else "")
    return Boot(image(config, patch.read_text() if patch.exists() else ""))


def image(config: str, patch: str = "") -> Path:
    """A bzImage made from our configuration, to which a variant of hosts may add some lines, and from Debian's source,
    which it may change."""
    path = cache_dir("kernel") / f"bzImage-{_VERSION}-{key_of(_VERSION, config, *([patch] if patch else []))}"
    return made(path, lambda to: _fill(config, patch, to), f"test kernel {path.name}")


def _fill(config: str, patch: str, to: Path) -> None:
    ready_made = _READY_MADE / _CONFIG.name
    if not patch and ready_made.exists() and ready_made.read_text() == config:
        shutil.copyfile(_READY_MADE / f"bzImage-{_VERSION}", to)
    else:
        build(config, patch, to)


def build(config: str, patch: str, to: Path) -> None:
    """Build from Debian's source: some eight minutes on two cores."""
    apt.ensure(*_TOOLS.split())
    with tempfile.TemporaryDirectory(prefix="kernel-", dir=cache_dir("kernel")) as work:
        source = _source(Path(work))
        if patch:
            subprocess.run(["patch", "--quiet", "-p1", "-d", source], input=patch, text=True, check=True)
        (source / ".config").write_text(config)
        _make(source, "olddefconfig")
        _make(source, f"-j{os.cpu_count() or 1}", "bzImage")
        shutil.copyfile(source / "arch/x86/boot/bzImage", to)


def _source(work: Path) -> Path:
    package = f"linux-source-{_VERSION}"
    lists = apt.private_lists(_SUITE, [f"deb {apt.mirror()} {_SUITE} main"])
    say(f"downloading {package}")
    apt.apt_get(*lists, "update")
    apt.apt_get(*lists, "download", package, cwd=work)
    for deb in work.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", deb, work], check=True)
    archive = work / "usr" / "src" / f"{package}.tar.xz"
    say(f"unpacking {archive.name}")
    subprocess.run(["tar", "-C", work, "-xf", archive], check=True)
    return work / package


def _make(source: Path, *arguments: str) -> None:
    """Run make, with a line of progress now and then; all it said only if it fails."""
    log = source.parent / "make.log"
    argv = ["make", "-C", str(source), *arguments]
    with log.open("w") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT)
        told = time.monotonic()
        while process.poll() is None:
            time.sleep(0.5)
            if time.monotonic() - told > 15:
                told = time.monotonic()
                say(f"kernel: {log.read_text().count(chr(10))} files made")
    if process.returncode:
        tail = "\n".join(log.read_text().splitlines()[-40:])
        raise HostError(f"{' '.join(argv)} failed:\n{tail}")
