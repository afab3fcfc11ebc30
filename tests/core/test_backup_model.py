# SPDX-License-Identifier: Apache-2.0
"""index.yaml of backups: what is written is read again, what others write is understood, what is wrong is refused."""

import json
from typing import Any

import pytest

from sysd.images import nodes
from sysd.model import backup, snapshot
from sysd.model.compression import check_compression
from sysd.model.errors import InvalidError, SyscontError, UnsupportedError
from sysd.model.instance import Instance, Kind


def parse(text: str) -> Any:
    return nodes.plain(nodes.compose(text.encode(), "index.yaml", 1 << 20, 10_000), "index.yaml")


def test_what_is_written_is_read_again() -> None:
    instance = Instance(
        "u1", "web1", "f" * 64, 1 << 20, config={"user.a": "1\n2", "volatile.eth0.hwaddr": "x", "volatile.other": "y"},
        devices={"eth0": {"type": "nic"}}, profiles=["default"], description="mine", created=1_700_000_000_000_000,
    )  # fmt: skip
    taken = snapshot.take(instance, "u2", "s0", expires=1_800_000_000_000_000)
    index = backup.index(instance, [taken], "x86_64", instance)
    found = backup.read(parse(json.dumps(index)))
    assert found.instance.name == "web1"
    assert found.instance.config == {
        "user.a": "1\n2", "volatile.eth0.hwaddr": "x", "volatile.last_state.idmap": "[]",
    }  # fmt: skip
    assert found.instance.devices == instance.devices
    assert (found.instance.profiles, found.instance.description) == (["default"], "mine")
    assert found.instance.created == instance.created
    assert found.snapshots["s0"].expires == taken.expires
    assert found.snapshots["s0"].config == found.instance.config


def test_keys_that_no_other_daemon_knows() -> None:
    config = {"boot.mode": "direct", "security.core_scheduling": "false", "user.syscont.x": "y"}
    instance = Instance("u1", "vm1", "f" * 64, 1 << 20, kind=Kind.VM, config=config)
    index = backup.index(instance, [snapshot.take(instance, "u2", "s0")], "x86_64", instance)
    for written in (index["config"]["container"], *index["config"]["snapshots"]):
        assert written["config"] == {
            "user.syscont.boot.mode": "direct", "user.syscont.security.core_scheduling": "false", "user.syscont.x": "y",
        }  # fmt: skip
    assert (index["type"], index["config"]["volume"]["content_type"]) == ("virtual-machine", "block")
    found = backup.read(parse(json.dumps(index)))
    assert (found.kind, found.instance.config, found.snapshots["s0"].config) == (Kind.VM, config, config)


LXD = """
name: c1
backend: zfs
pool: fast
snapshots: [snap0]
optimized: false
type: container
config:
  container:
    architecture: x86_64
    config: {image.os: Debian, limits.cpu: "2", boot.autostart: true}
    devices: {root: {path: /, pool: fast, type: disk}}
    ephemeral: false
    profiles: [default, web]
    created_at: 2021-11-03T10:11:12.123456789Z
  snapshots:
  - config: {}
    name: snap0
    created_at: 2021-11-04 10:11:12 +0000 UTC
    expires_at: 0001-01-01T00:00:00Z
"""


def test_lxd_wrote_it() -> None:
    found = backup.read(parse(LXD))
    assert found.instance.config == {"image.os": "Debian", "limits.cpu": "2", "boot.autostart": "true"}
    assert found.instance.profiles == ["default", "web"]
    assert found.instance.created // 1_000_000 == 1635934272
    assert (found.snapshots["snap0"].created // 1_000_000, found.snapshots["snap0"].expires) == (1636020672, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00+14:00", 0), ("1969-12-31T23:59:59Z", 0), ("0001-01-01T00:00:00+23:59", 0),
        ("9999-12-31T23:59:59-23:59", 253402387139), ("2021-11-03 10:11:12 +0000 UTC", 1635934272), ("soon", 0),
        ("2021-11-31T00:00:00Z", 0), ("-2021-11-03", 0), ("", 0),
    ],
)  # fmt: skip
def test_moments_are_never_before_the_epoch(text: str, seconds: int) -> None:
    described = {"created_at": text, "expires_at": text}
    found = backup.read({"name": "c1", "config": {"container": described}}).instance
    assert (found.created, found.expires) == (seconds * 1_000_000, seconds * 1_000_000)


@pytest.mark.parametrize(
    "data",
    [None, [], "x", {"config": ["x"]}, {"config": {"container": ["x"]}}, {"config": {"container": {"config": ["x"]}}},
     {"config": {"container": {"config": {"a": {}}}}}, {"config": {"container": {"devices": {"a": "b"}}}},
     {"config": {"container": {"profiles": [{}]}}}, {"config": {"container": {"profiles": "a"}}},
     {"config": {"snapshots": [[]]}}, {"config": {"snapshots": {"a": "b"}}}, {"name": ["x"]},
     {"config": {"container": {"ephemeral": "maybe"}}}, {"optimized": "x"}],
)  # fmt: skip
def test_what_is_no_index(data: object) -> None:
    with pytest.raises(InvalidError):
        backup.read(data)


@pytest.mark.parametrize("data", [{"type": "custom"}, {"optimized": "true"}])
def test_kinds_that_are_not_imported(data: object) -> None:
    with pytest.raises(UnsupportedError):
        backup.read(data)


@pytest.mark.parametrize(
    "text", ["a: &x 1\nb: *x", "a: !!python/name:os.system x", "[" * 50 + "]" * 50, "a: 1\na: 2", "{[1]: 2}", "a: \x00"]
)
def test_yaml_that_is_refused(text: str) -> None:
    with pytest.raises(SyscontError):
        parse(text)


def test_compressions() -> None:
    assert check_compression("zstd") == "zstd"
    for name in ("", "gzip -9", "rar", "../gzip", "sh -c reboot"):
        with pytest.raises(InvalidError):
            check_compression(name)
