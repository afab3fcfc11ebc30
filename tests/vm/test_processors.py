# SPDX-License-Identifier: Apache-2.0
"""Processors of levels, as a real QEMU makes them."""

from __future__ import annotations

import asyncio
import platform
import subprocess
from pathlib import Path

import pytest

from sysd.model.errors import UnsupportedError
from sysd.model.keys.machine import HOST, LEVELS
from sysd.runtime.vm import processors
from sysd.runtime.vm.qmp import Qmp
from tests.vm.peers import program

# What /proc/cpuinfo calls them where it is not as QEMU does.
LAST_OF = {"x86-64-v2": "sse4.2", "x86-64-v3": "avx2"}

on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="they are processors of x86_64")


def test_the_hosts() -> None:
    assert processors.option(HOST, accelerated=True) == "host"
    assert processors.option(HOST, accelerated=False) == "max"


@on_x86
@pytest.mark.parametrize("level", sorted(LAST_OF))
def test_a_level_is_what_the_guest_has_and_no_more(tmp_path: Path, level: str) -> None:
    path = tmp_path / "qmp"
    cpu = processors.option(level, accelerated=False)
    argv = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", cpu, "-nodefaults", "-S", "-display",
            "none", "-qmp", f"unix:{path},server=on,wait=off"]  # fmt: skip

    async def ask() -> dict[str, bool]:
        qmp = await Qmp.connect(path, lambda *_: None, lambda: None)
        try:
            (one,) = await qmp.execute("query-cpus-fast")
            names = (*LAST_OF.values(), "avx512f", "pni", "aes")
            return {
                name: bool(await qmp.execute("qom-get", {"path": one["qom-path"], "property": name}))
                for name in names
            }
        finally:
            qmp.close()

    with program(argv, path):
        found = asyncio.run(ask())
    assert found["pni"]
    assert found["aes"]
    assert found["sse4.2"]
    assert found["avx2"] == (level == "x86-64-v3")
    assert not found["avx512f"]


@on_x86
def test_what_the_host_can_not_do_does_not_start() -> None:
    """Emulation has no AVX-512."""
    cpu = processors.option("x86-64-v4", accelerated=False)
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", cpu, "-nodefaults", "-S", "-display", "none"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "TCG doesn't support requested features" in done.stderr


def test_memory_of_a_level_has_addresses() -> None:
    tib = 1 << 40
    assert processors.most_memory(HOST, 4 * tib) == 4 * tib
    assert processors.most_memory(LEVELS[0], 4 * tib) < tib
    assert processors.most_memory(LEVELS[0], tib // 2) == tib // 2


def test_each_level_has_those_below_it() -> None:
    features = [set(processors._FEATURES[level]) for level in LEVELS]
    assert features[0] < features[1] < features[2]


def test_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert processors.option(HOST, accelerated=True) == "host"
    with pytest.raises(UnsupportedError, match=r"limits\.cpu\.model"):
        processors.option(LEVELS[0], accelerated=True)
