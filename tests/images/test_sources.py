# SPDX-License-Identifier: Apache-2.0
"""What can be built, and from where."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from sysd.images import apt, busybox, debian, debian_vm, sources
from sysd.model import names
from sysd.model.errors import InvalidError, NotFoundError, UnsupportedError
from tests.images.conftest import Place

DEBIAN_SOURCES = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: trixie trixie-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: trixie-security
Components: main
Signed-By:
 /usr/share/keyrings/debian-archive-keyring.gpg
"""
# Sorts before debian.sources, and looks like it.
OTHER_SOURCES = """\
Types: deb
URIs: https://packages.example/stable/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/other.gpg
"""


def etc(tmp_path: Path, files: dict[str, str]) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "suite", "lines"),
    [
        (
            {"sources.list.d/a.sources": OTHER_SOURCES, "sources.list.d/debian.sources": DEBIAN_SOURCES},
            "trixie",
            [
                "deb http://mirror.example/debian trixie main",
                "deb http://mirror.example/debian trixie-updates main",
                "deb http://security.example/debian-security trixie-security main",
            ],
        ),
        (
            {"sources.list.d/debian.sources": DEBIAN_SOURCES},
            "bookworm",
            ["deb http://mirror.example/debian bookworm main"],
        ),
        (
            {"sources.list": "#deb http://no.example sid main\n deb [arch=amd64] https://a.example/x  sid  main #\n"},
            "forky",
            ["deb https://a.example/x forky main"],
        ),
        (
            {"sources.list": "deb cdrom:[Debian]/ bookworm main\ndeb [trusted=yes] http://a.example bookworm main\n"},
            "bookworm",
            ["deb [trusted=yes] http://a.example bookworm main"],
        ),
        ({"sources.list.d/a.list": "deb http://a.example stable main\n"}, "sid", ["deb http://a.example sid main"]),
    ],
)
def test_mirror_of_the_host(tmp_path: Path, files: dict[str, str], suite: str, lines: list[str]) -> None:
    assert apt.debian_lines(suite, etc(tmp_path, files)) == lines


def test_list_of_mirrors(tmp_path: Path) -> None:
    (tmp_path / "mirrors").write_text("# first is best\nhttps://a.example/debian/\tpriority:1\nhttps://b.example/\n")
    text = DEBIAN_SOURCES.replace("http://mirror.example/debian/", f"mirror+file://{tmp_path}/mirrors")
    found = apt.debian_lines("sid", etc(tmp_path, {"sources.list.d/debian.sources": text}))
    assert found == ["deb https://a.example/debian sid main"]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"sources.list": "nonsense\ndeb\n"},
        {"sources.list.d/a.sources": OTHER_SOURCES},
        {"sources.list.d/a.sources": DEBIAN_SOURCES.replace("Types:", "Enabled: no\nTypes:")},
        {"sources.list.d/a.sources.save": DEBIAN_SOURCES},
    ],
)
def test_no_mirror(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(NotFoundError, match="no Debian mirror"):
        apt.debian_lines("trixie", etc(tmp_path, files))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ubuntu",
        "ubuntu/noble",
        "busybox/",
        "busybox/x",
        "debian",
        "debian/",
        "debian/Sid",
        "debian/a b",
        "debian/-x",
    ],
)
@pytest.mark.parametrize("suffix", ["", "\n", "/.."])
def test_unknown_source(name: str, suffix: str) -> None:
    with pytest.raises(InvalidError) as caught:
        sources.parse_source(name + suffix)
    assert "debian/trixie" in caught.value.hint


def test_debian_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(apt, "debian_lines", lambda suite: [f"deb http://mirror.example {suite} main"])
    found = sources.parse_source("debian/trixie")
    assert found.argv[0] == "mmdebstrap"
    assert found.argv[-3:] == ("trixie", "-", "deb http://mirror.example trixie main")
    assert found.facts["properties"]["release"] == "trixie"
    assert json.loads(json.dumps(found.facts)) == found.facts


def test_debian_vm_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path="": f"/usr/bin/{name}")
    monkeypatch.setattr(debian_vm, "host_architecture", lambda: "x86_64")
    monkeypatch.setattr(apt, "debian_lines", lambda suite: [f"deb http://mirror.example {suite} main"])
    found = sources.parse_source("debian/trixie", vm=True)
    assert found.name == "debian/trixie/vm"
    names.check_alias(found.name)
    (include,) = (word for word in found.argv if word.startswith("--include="))
    packages = set(include.removeprefix("--include=").split(","))
    assert set(debian.PACKAGES) < packages
    assert {"linux-image-cloud-amd64", "shim-signed", "systemd-boot-efi-amd64-signed", "systemd-repart"} < packages
    assert found.argv[-3:] == ("trixie", "-", "deb http://mirror.example trixie main")


def test_what_debian_has_no_virtual_machine_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_vm, "host_architecture", lambda: "x86_64")
    assert not [word for word in debian_vm.argv("bookworm", []) if "systemd-repart" in word or "signed" in word]
    with pytest.raises(UnsupportedError, match="Debian bullseye"):
        debian_vm.argv("bullseye", [])
    monkeypatch.setattr(debian_vm, "host_architecture", lambda: "s390x")
    with pytest.raises(UnsupportedError, match="for s390x"):
        debian_vm.argv("trixie", [])
    with pytest.raises(InvalidError, match="it has no kernel"):
        sources.parse_source("busybox", vm=True)
    with pytest.raises(InvalidError, match="no image source"):
        sources.parse_source("ubuntu/noble", vm=True)


def test_vm_sources_need_what_makes_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path="": None if name == "mkfs.vfat" else f"/usr/bin/{name}")
    with pytest.raises(UnsupportedError, match=r"mkfs\.vfat is missing") as caught:
        sources.parse_source("debian/trixie", vm=True)
    assert caught.value.hint == "apt install dosfstools"


def test_missing_mmdebstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UnsupportedError, match="mmdebstrap is missing") as caught:
        sources.parse_source("debian/trixie")
    assert caught.value.hint == "apt install mmdebstrap"


@pytest.mark.parametrize(("suite", "separate"), [("bullseye", False), ("bookworm", True), ("sid", True)])
def test_resolved_is_a_package_of_its_own_from_bookworm(suite: str, separate: bool) -> None:
    include = next(word for word in debian.argv(suite, []) if word.startswith("--include="))
    assert ("systemd-resolved" in include) is separate


def test_hooks_are_shell() -> None:
    hooks = (*debian.HOOKS, *debian_vm.HOOKS, debian_vm.INITRD)
    for hook in (*hooks, busybox.START, busybox.STOP, busybox.DHCP):
        subprocess.run(["sh", "-n", "-c", hook], check=True)
    assert not [word for word in debian.argv("sid", []) if word.endswith("\n")]


@pytest.mark.parametrize(
    ("case", "static"), [("dynamic", False), ("static", True), ("script", False), ("short", False)]
)
def test_static_program(case: str, static: bool) -> None:
    header = struct.pack("<4sBB10xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<I52x", 3 if case == "dynamic" else 1)
    head = {"script": b"#!/bin/sh\n" * 20, "short": header}.get(case, header + segment)
    assert busybox.is_static(head) is static


def test_missing_busybox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busybox, "CANDIDATES", ("/nonexistent",))
    with pytest.raises(UnsupportedError, match="no busybox") as caught:
        sources.parse_source("busybox")
    assert caught.value.hint == "apt install busybox-static"


def build() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        busybox.write(archive, busybox.find_busybox())
    return out.getvalue()


def test_busybox_end_to_end(place: Place) -> None:
    image = build()
    assert build() == image, "the same every time"
    result = place.built(image, json.dumps(sources.parse_source("busybox").facts))
    assert result["fingerprint"] == hashlib.sha256(image).hexdigest()
    assert (result["init"], result["properties"]["os"]) == ("busybox", "BusyBox")
    for applet in ("sbin/init", "bin/sh", "sbin/udhcpc", "sbin/ip", "bin/hostname"):
        assert os.readlink(place.rootfs / applet) == "/bin/busybox"
    answer = subprocess.run(
        ["chroot", place.rootfs, "/bin/sh", "-c", "id -u; hostname >/dev/null; cat /etc/passwd | wc -l"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert answer.stdout.split() == ["0", "2"]
