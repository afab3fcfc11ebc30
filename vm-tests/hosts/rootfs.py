# SPDX-License-Identifier: Apache-2.0
"""Debian root file systems for hosts, made once by mmdebstrap and kept in the cache."""

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import apt
from .cache import cache_dir, digest_tree, key_of, made
from .command import HostError

_FILES = Path(__file__).parent / "files"

_PACKAGES = Path(__file__).parent / "packages"
_SETUP = Path(__file__).parent / "setup-rootfs"


@dataclass(frozen=True)
class Recipe:
    """What a root file system is made from; equal recipes share one tree."""

    suite: str = "trixie"
    variant: str = "plain"

    def packages(self) -> list[str]:
        variants = sorted(path.name for path in _PACKAGES.iterdir() if not path.suffix)
        if self.variant not in variants:
            raise HostError(f"no host variant {self.variant!r}; there are: {', '.join(variants)}")
        wanted = dict.fromkeys(("plain", self.variant))
        # Beside a variant's list may be one of what only a suite has.
        lists = [_PACKAGES / name for variant in wanted for name in (variant, f"{variant}.{self.suite}")]
        return [name for path in lists if path.exists() for name in _names(path)]

    def key(self) -> str:
        made_with = (_SETUP.read_text(), digest_tree(_FILES))
        return key_of(platform.machine(), self.suite, self.packages(), *made_with)

    def path(self) -> Path:
        return cache_dir("rootfs") / f"{self.suite}-{self.variant}-{self.key()}"


def _names(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [name for line in lines if not line.startswith("#") for name in line.split()]


def tree(recipe: Recipe) -> Path:
    """The directory of a recipe's root file system. Nobody may write to it."""
    path = recipe.path()
    return made(path, lambda to: _build(recipe, to), f"root file system {path.name}")


def _build(recipe: Recipe, to: Path) -> None:
    if os.geteuid() != 0:
        raise HostError("making a host needs root")
    apt.ensure("mmdebstrap", "debian-archive-keyring")
    argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join(recipe.packages())}"]
    argv += [f"--customize-hook=copy-in {item} /" for item in sorted(_FILES.iterdir())]
    argv += [f"--customize-hook={_SETUP}", recipe.suite, str(to), apt.mirror()]
    subprocess.run(argv, check=True, stdout=2)
