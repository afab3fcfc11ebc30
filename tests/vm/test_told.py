# SPDX-License-Identifier: Apache-2.0
"""What a machine is made of, as another host tells it: what is right comes through, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.model.errors import FailedError, InvalidError
from sysd.runtime.vm import parts, told
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.moving import Streams
from sysd.runtime.vm.state import KEYS, Kept

IMAGE = "1f" * 32
GIB = 1 << 30
DISK = Part(0, {"driver": "virtio-blk-pci", "id": "dev-root", "drive": "root"}, files={"root-file": ("/secret", True)})
KEPT = Kept(
    model="pc-q35-10.0",
    qemu="10.0.2",
    mapped=True,
    accelerated=False,
    vsock=True,
    memory=GIB,
    most_memory=4 * GIB,
    cpus=1,
    most_cpus=4,
    plugged=[{"driver": "max-x86_64-cpu", "id": "cpu-0-0-1-0", "core-id": 1, "socket-id": 0, "thread-id": 0}],
    image="2e" * 32,
    config=dict.fromkeys((*KEYS, "size"), ""),
    parts=parts.store({"root": DISK}),
)
SAID: dict[str, Any] = json.loads(json.dumps(told.say(KEPT)))


def test_there_and_back() -> None:
    """What files its devices are made of is nobody else's business."""
    found = told.read(SAID, IMAGE)
    seen = {"root": Part(DISK.port, DISK.device)}
    assert found == replace(KEPT, mapped=False, image=IMAGE, parts=parts.store(seen))
    assert "secret" not in json.dumps(SAID)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "q35,accel=kvm"),
        ("model", "pc-i440fx-9.0"),
        ("model", "q35\n"),
        ("qemu", "10"),
        ("accelerated", 1),
        ("memory", 0),
        ("memory", True),
        ("memory", 1 << 60),
        ("memory", 1.5),
        ("most_memory", GIB - 1),
        ("cpus", 0),
        ("most_cpus", 1 << 20),
        ("plugged", [{"driver": "vfio-pci", "id": "cpu-1", "host": "00:01.0"}]),
        ("plugged", [{"driver": "max-x86_64-cpu", "id": "x"}]),
        ("plugged", 7),
        ("config", {}),
        ("config", {**SAID["config"], "limits.cpu": 7}),
        ("parts", {"root": {"port": -1, "device": {}}}),
        ("parts", {"root": {"port": 1 << 20, "device": {}}}),
        ("parts", {"root": {"port": 0, "device": 7}}),
        ("parts", {"root": {"port": 0}}),
        ("parts", {str(number): SAID["parts"]["root"] for number in range(300)}),
        ("parts", []),
    ],
)
def test_what_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidError, match="in the right form"):
        told.read({**SAID, name: value}, IMAGE)


def test_what_else_is_said_of_a_processor_is_left_out() -> None:
    said = {**SAID, "plugged": [{**SAID["plugged"][0], "x-device": "1", "bus": "pcie.0"}]}
    assert told.read(said, IMAGE).plugged == KEPT.plugged


@given(st.dictionaries(st.sampled_from(sorted(SAID)), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)))  # fmt: skip
def test_anything(changed: dict[str, Any]) -> None:
    try:
        told.read({**SAID, **changed}, IMAGE)
    except InvalidError:
        return


def check(kept: Kept, said: dict[str, Any] | None = None, **config: str) -> None:
    limits = {"limits.memory": "1GiB", "limits.cpu": "2"}
    limits |= {key.replace("__", "."): value for key, value in config.items()}
    told.check(kept, said or SAID, "vm1", limits, 8 * GIB)


def test_limits_hold() -> None:
    check(KEPT)
    for more in (replace(KEPT, memory=2 * GIB, most_memory=4 * GIB), replace(KEPT, cpus=2)):
        with pytest.raises(FailedError, match="more memory or processors than its limits say"):
            check(more)


def test_processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nvendor_id\t: A\nflags\t\t: one two\n\nprocessor\t: 1\nflags\t\t: three\n")
    ours = told.processor(info)
    assert ours == {"vendor_id": "A", "flags": "one two"}
    monkeypatch.setattr(told, "processor", lambda: ours)
    kept = replace(KEPT, accelerated=True)
    check(kept, {"processor": {"vendor_id": "A", "flags": "two"}})
    with pytest.raises(FailedError, match="lack: three"):
        check(kept, {"processor": {"vendor_id": "A", "flags": "two three"}})
    check(kept, {"processor": {"vendor_id": "A", "flags": "two three"}}, limits__cpu__model="x86-64-v2")
    for other in ({"vendor_id": "B", "flags": "two"}, {}, None, "A"):
        with pytest.raises(FailedError, match="another maker"):
            check(kept, {"processor": other})


@pytest.mark.parametrize("streams", [Streams(), Streams(64), Streams(2, "zstd")])
def test_streams_there_and_back(streams: Streams) -> None:
    assert told.read_streams(json.loads(json.dumps(told.say_streams(streams)))) == streams


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"streams": None},
        {"streams": {"channels": 1}},
        {"streams": {"channels": 0, "compression": "none"}},
        {"streams": {"channels": 65, "compression": "none"}},
        {"streams": {"channels": True, "compression": "none"}},
        {"streams": {"channels": 2, "compression": "qatzip"}},
        {"streams": {"channels": 2, "compression": ["zstd"]}},
    ],
)
def test_streams_that_are_none(said: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        told.read_streams(said)
