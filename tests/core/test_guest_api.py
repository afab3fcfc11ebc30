# SPDX-License-Identifier: Apache-2.0
"""What guests are told, and how their requests are read."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import varlink
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sysd.guestapi import websocket
from sysd.guestapi.lxd import RequestError, answer, parse
from sysd.guestapi.view import Change, changes, view
from sysd.model import cloudinit
from sysd.model.config import check_config
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.instance import Instance
from sysd.model.secrets import public
from sysd.runtime import container
from sysd.runtime.pace import Pace
from sysd.units import processes

DESCRIPTION = Path(__file__).resolve().parents[2] / "data/varlink/org.syscont.Guest.varlink"
INSTANCE = Instance(
    uuid="11111111-2222-4333-8444-555555555555",
    name="no",  # a boolean in YAML, if it is not written with care
    image="0" * 64,
    id_base=1 << 20,
    config={
        "user.a": "1",
        "cloud-init.user-data": "#cloud-config\n{}",
        "environment.A": "x",
        "volatile.eth0.hwaddr": "m",
    },
    devices={
        "eth0": {"type": "nic", "network": "lan", "name": "eth0", "user.note": "mine"},
        "data": {"type": "disk", "source": "/srv/secret", "path": "/data", "pool": "p"},
    },
)


def test_a_guest_sees_its_own_side_of_things() -> None:
    seen = view(INSTANCE)
    assert seen.config == {"user.a": "1", "cloud-init.user-data": "#cloud-config\n{}"}
    assert seen.devices == {
        "eth0": {"type": "nic", "name": "eth0", "hwaddr": "m", "user.note": "mine"},
        "data": {"type": "disk", "path": "/data"},
    }


def test_changes() -> None:
    before = view(INSTANCE)
    devices = {"data": INSTANCE.devices["data"] | {"path": "/new", "source": "/srv/other"}}
    after = view(replace(INSTANCE, config={"user.a": "2", "user.b": ""}, devices=devices))
    assert changes(before, after) == [
        Change("config", "removed", "cloud-init.user-data", "#cloud-config\n{}", None),
        Change("config", "changed", "user.a", "1", "2"),
        Change("config", "added", "user.b", None, ""),
        Change("device", "changed", "data", {"type": "disk", "path": "/data"}, {"type": "disk", "path": "/new"}),
        Change("device", "removed", "eth0", before.devices["eth0"], None),
    ]
    assert changes(after, after) == []


def test_what_the_host_alone_sees_is_no_change() -> None:
    moved = replace(INSTANCE, devices=INSTANCE.devices | {"data": INSTANCE.devices["data"] | {"source": "/elsewhere"}})
    assert changes(view(INSTANCE), view(moved)) == []


def test_the_description_can_be_read() -> None:
    described = varlink.Interface(DESCRIPTION.read_text())
    methods = {name for name, member in described.members.items() if isinstance(member, varlink.scanner._Method)}
    assert methods == {"GetInstance", "GetConfig", "GetDevices", "Monitor"}


# cloud-init


def test_keys_of_today_win_over_those_of_old() -> None:
    both = {"cloud-init.user-data": "new", "user.user-data": "old", "user.vendor-data": "old vendor"}
    files = cloudinit.seed(replace(INSTANCE, config=both))
    assert (files["user-data"], files["vendor-data"]) == ("new", "old vendor")


def test_a_seed_of_nothing() -> None:
    files = cloudinit.seed(replace(INSTANCE, config={}))
    assert yaml.safe_load(files["user-data"]) == yaml.safe_load(files["vendor-data"]) == {}
    dhcp = [{"type": "dhcp", "control": "auto"}]
    interfaces = [{"type": "physical", "name": "eth0", "subnets": dhcp}]
    assert yaml.safe_load(files["network-config"]) == {"version": 1, "config": interfaces}


def test_link_local_network() -> None:
    files = cloudinit.seed(replace(INSTANCE, config={"user.network_mode": "link-local"}))
    assert yaml.safe_load(files["network-config"])["config"][0]["subnets"][0]["type"] == "manual"


def test_meta_data() -> None:
    told = yaml.safe_load(cloudinit.meta_data(replace(INSTANCE, config={"user.meta-data": "extra: 1\n"})))
    assert told == {"instance-id": told["instance-id"], "local-hostname": "no", "extra": 1}


def test_an_instance_is_new_to_cloud_init_when_it_is_told_other_things() -> None:
    one = cloudinit.instance_id(INSTANCE)
    assert cloudinit.instance_id(replace(INSTANCE, config=INSTANCE.config | {"user.a": "2"}, name="other")) == one
    assert cloudinit.instance_id(replace(INSTANCE, config={"cloud-init.user-data": "x"})) != one
    assert cloudinit.instance_id(replace(INSTANCE, uuid="21111111-2222-4333-8444-555555555555")) != one


GOOD = {
    "cloud-init.user-data": ["#cloud-config\npackages: [x]\n", "#!/bin/sh\n: {[\n", "", "## template: jinja\n{{ v1 }}"],
    "cloud-init.vendor-data": ["#cloud-config\n{}"],
    "cloud-init.network-config": ["version: 2\nethernets: {eth0: {dhcp4: true}}\n", "{}"],
    "systemd.credential.passwd.hashed-password.root": ["$6$x\n"],
    "systemd.credential-binary.x": [base64.b64encode(bytes(range(256))).decode(), ""],
}
BAD = {
    "cloud-init.user-data": ["#cloud-config\n{", "#cloud-config\na: b: c", "#cloud-config\n" + "[" * 60_000, "a\0b"],
    "cloud-init.vendor-data": ["#cloud-config\n\t- x"],
    "cloud-init.network-config": ["a: *b: c", "[", "x" * 70_000, '"', "%YAML 9"],
    "cloud-init.ssh-keys": ["x"],
    "systemd.credential.": ["x"],
    "systemd.credential...": ["x"],
    "systemd.credential.a/b": ["x"],
    "systemd.credential.a\nb": ["x"],
    "systemd.credential.a:b": ["x"],
    "systemd.credential-binary.x": ["%", "YQ", "YQ==\n"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in GOOD.items() for value in values])
def test_good_values(key: str, value: str) -> None:
    assert check_config({key: value}) == {key: value}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_bad_values_name_the_key(key: str, value: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_config({key: value})
    assert key in caught.value.message or repr(key) in caught.value.message


def test_images_are_not_handed_to_guests() -> None:
    with pytest.raises(UnsupportedError):
        check_config({"security.devlxd.images": "true"})


def test_credentials_for_the_launcher() -> None:
    config = {
        "systemd.credential.text": "ü\n",
        "systemd.credential.both": "text",
        "systemd.credential-binary.both": base64.b64encode(b"\xff\0").decode(),
        "user.systemd.credential.x": "no",
    }
    found = {name: bytes.fromhex(value) for name, value in container.credentials(config).items()}
    assert found == {"text": "ü\n".encode(), "both": b"\xff\0"}


def test_what_is_for_the_guest_is_not_for_other_users() -> None:
    private = ["cloud-init.user-data", "systemd.credential.x", "systemd.credential-binary.x", "user.x"]
    assert public(dict.fromkeys([*private, "limits.memory"], "1GiB")) == {"limits.memory": "1GiB"}


# LXD's API


def test_requests() -> None:
    request = parse(b"GET /1.0/config/user.a%20b?x=y HTTP/1.1\r\nHost: lxd\r\nCONNECTION: Keep-Alive\r\n\r\n")
    assert request.path == "/1.0/config/user.a b"
    assert request.headers == {"host": "lxd", "connection": "Keep-Alive"}
    assert not request.last


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_nothing_is_read_behind_the_last_request(head: bytes) -> None:
    assert parse(head).last


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET /\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET  / HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET http://x/ HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/2\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nname : x\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"PATCH /1.0 HTTP/1.1\r\n\r\n", HTTPStatus.METHOD_NOT_ALLOWED),
    ],
)
def test_requests_that_are_none(head: bytes, status: HTTPStatus) -> None:
    with pytest.raises(RequestError) as caught:
        parse(head)
    assert caught.value.status is status


@given(st.binary(max_size=512))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    for head in (data + b"\r\n\r\n", b"GET /" + data + b" HTTP/1.1\r\n" + data + b"\r\n\r\n"):
        with suppress(RequestError):
            assert isinstance(parse(head).path, str)


def test_an_answer() -> None:
    text = answer(HTTPStatus.OK, "ü", last=True).decode()
    assert text.startswith("HTTP/1.1 200 OK\r\n")
    assert text.endswith("Content-Length: 2\r\nConnection: close\r\n\r\nü")


def test_websocket_handshake() -> None:
    assert websocket.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "the RFC's own"
    assert [websocket.accept_key(bad) for bad in ("", "x", "AAAA", "ü" * 22 + "==")] == [None] * 4


@pytest.mark.parametrize(
    ("size", "head"), [(0, "8100"), (125, "817d"), (126, "817e007e"), (1 << 16, f"817f{1 << 16:016x}")]
)
def test_websocket_frames(size: int, head: str) -> None:
    assert websocket.frame(bytes(size)) == bytes.fromhex(head) + bytes(size)


# who asks, and how often


@pytest.mark.parametrize(
    ("line", "unit"),
    [
        ("0::/syscont.slice/syscont@a.service", "syscont@a.service"),
        ("0::/syscont.slice/syscont@lab:a.service/init.scope", "syscont@lab:a.service"),
        ("0::/syscont.slice/syscont@a.service/syscont@b.service", "syscont@a.service"),
        ("0::/syscont.slice/x/../syscont@a.service", "syscont@a.service"),
        ("0::/user.slice/syscont.slice/syscont@a.service", ""),
        ("0::/syscont.slice", ""),
        ("0::/", ""),
        ("1:name=systemd:/syscont.slice/syscont@a.service\n0::/system.slice/x.service", ""),
        ("", ""),
    ],
)
def test_unit_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, unit: str) -> None:
    path = tmp_path / "cgroup"
    path.write_text(f"{line}\n")
    real: Any = Path
    monkeypatch.setattr(processes, "Path", lambda asked: path if str(asked) == "/proc/7/cgroup" else real(asked))
    assert processes.unit_of(7) == unit


@pytest.mark.parametrize("option", [processes.SO_PEERPIDFD, 9999], ids=["pidfd", "before Linux 6.5"])
def test_whose_the_other_end_is(monkeypatch: pytest.MonkeyPatch, option: int) -> None:
    monkeypatch.setattr(processes, "SO_PEERPIDFD", option)
    monkeypatch.setattr(processes, "unit_of", lambda pid: "ours" if pid == os.getpid() else "another's")
    one, other = socket.socketpair()
    with one, other:
        before = len(os.listdir("/proc/self/fd"))
        assert processes.peer_is_in(one, "ours")
        assert not processes.peer_is_in(one, "another's")
        assert len(os.listdir("/proc/self/fd")) == before


def test_who_has_gone_is_nobodys(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
        subprocess.run([sys.executable, "-c", script, path], check=True)
        sock, _ = listening.accept()
        with sock:
            assert not processes.peer_is_in(sock, "")


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = Pace(rate=10, burst=5)
    assert [round(pace.step(), 3) for _ in range(8)] == [0, 0, 0, 0, 0, 0.1, 0.2, 0.3]
    now += 60
    assert [round(pace.step(), 3) for _ in range(6)] == [0, 0, 0, 0, 0, 0.1]
