# SPDX-License-Identifier: Apache-2.0
"""What is kept of an honest image, in every format that LXD's can have."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from sysd.images import facts, stream
from sysd.images.metadata import host_architecture
from sysd.model.errors import InvalidError, UnsupportedError
from tests.images.archives import (
    METADATA,
    MINIMAL,
    Entry,
    directory,
    hard_link,
    metadata,
    symlink,
    tar,
    unified,
    with_field,
)
from tests.images.conftest import Place

ROOT = Path(__file__).parents[2]
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
OLD_NAMESPACE = struct.pack("<IIIIII", 0x03000001, 1 << 13, 0, 0, 0, 100000)
COMPRESSORS = {
    "gzip": ["gzip", "-c"],
    "bzip2": ["bzip2", "-c"],
    "xz": ["xz", "-c"],
    "lzma": ["xz", "-c", "--format=lzma"],
    "zstd": ["zstd", "-cq"],
    "lz4": ["lz4", "-cq"],
}
SPLIT_ROOT = [directory("sbin"), Entry("sbin/init", mode=0o755, data=b"x")]


def raw(value: bytes) -> str:
    """Bytes as tarfile wants them in a pax header."""
    return value.decode("utf-8", "surrogateescape")


def compress(name: str, data: bytes) -> bytes:
    return subprocess.run(COMPRESSORS[name], input=data, capture_output=True, check=True).stdout


def squashfs(tmp: Path, *options: str) -> bytes:
    tree = tmp / "squash"
    (tree / "sbin").mkdir(parents=True)
    (tree / "sbin/init").write_bytes(b"#!/bin/sh\n")
    (tree / "sbin/init").chmod(0o755)
    os.link(tree / "sbin/init", tree / "sbin/hard")
    (tree / "sbin/link").symlink_to("init")
    os.chown(tree / "sbin", 7, 8)
    os.setxattr(tree / "sbin/init", "security.capability", CAPABILITY)
    tree.chmod(0o711)
    subprocess.run(["mksquashfs", tree, tmp / "image", "-quiet", "-no-progress", *options], check=True)
    data = (tmp / "image").read_bytes()
    shutil.rmtree(tree)
    (tmp / "image").unlink()
    return data


def test_minimal(place: Place) -> None:
    image = unified()
    result = place.unified(image)
    assert result == {
        "fingerprint": hashlib.sha256(image).hexdigest(),
        "architecture": host_architecture(),
        "init": "other",
        "size": 10,
        "properties": {"os": "Test", "release": "1"},
        "created": 1424284563_000000,
        "templates": [],
        "kind": "container",
        "disk_size": 0,
        "kernel_command": "",
    }
    assert os.listdir(place.target) == ["rootfs"]
    assert sorted(os.listdir(place.rootfs)) == ["dev", "proc", "run", "sbin", "sys", "tmp"]
    assert stat.S_IMODE((place.rootfs / "tmp").stat().st_mode) == 0o1777


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compression(place: Place, name: str) -> None:
    image = compress(name, unified(Entry("rootfs/x", data=os.urandom(300_000))))
    assert place.unified(image)["fingerprint"] == hashlib.sha256(image).hexdigest()
    assert (place.rootfs / "x").stat().st_size == 300_000


@pytest.mark.parametrize("name", COMPRESSORS)
def test_truncated_compression(place: Place, name: str) -> None:
    image = compress(name, unified(Entry("rootfs/x", data=os.urandom(300_000))))
    for length in (9, len(image) // 2, len(image) - 3):
        with pytest.raises(InvalidError, match="damaged"):
            place.unified(image[:length])


@pytest.mark.parametrize("fmt", stream.FORMATS, ids=lambda fmt: fmt.name)
def test_missing_program(place: Place, monkeypatch: pytest.MonkeyPatch, fmt: stream.Format) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UnsupportedError, match=f"program {fmt.argv[0]} is missing") as caught:
        place.unified(fmt.magic + bytes(1000))
    assert fmt.package in caught.value.hint


@pytest.mark.parametrize("name", ["gzip", "xz", "zstd"])
def test_squashfs(place: Place, name: str) -> None:
    rootfs = squashfs(place.base / "store", "-comp", name)
    described = tar([metadata()])
    result = place.split(described, rootfs)
    assert result["templates"] == [], "nothing asks for it"
    assert result["fingerprint"] == hashlib.sha256(described + rootfs).hexdigest()
    init = place.rootfs / "sbin/init"
    assert init.samefile(place.rootfs / "sbin/hard")
    assert os.getxattr(init, "security.capability") == CAPABILITY
    assert os.readlink(place.rootfs / "sbin/link") == "init"
    assert (place.rootfs / "sbin").stat().st_uid == 7
    assert stat.S_IMODE(place.rootfs.stat().st_mode) == 0o711
    assert os.listdir(place.target) == ["rootfs"]


def test_damaged_squashfs(place: Place) -> None:
    rootfs = squashfs(place.base / "store")
    (used,) = struct.unpack_from("<Q", rootfs, 40)
    for damaged in (rootfs[:50], rootfs[:200], rootfs[: used - 20], rootfs[:4] + bytes(len(rootfs))):
        with pytest.raises(InvalidError, match="damaged"):
            place.split(tar([metadata()]), damaged)


def test_split_with_templates_and_compression(place: Place) -> None:
    described = compress("xz", tar([Entry("templates/hostname.tpl", data=b"x"), metadata()]))
    rootfs = compress("zstd", tar([directory("./", mode=0o750), *SPLIT_ROOT]))
    result = place.split(described, rootfs)
    assert result["fingerprint"] == hashlib.sha256(described + rootfs).hexdigest()
    assert stat.S_IMODE(place.rootfs.stat().st_mode) == 0o750


WANTED = b"\ntemplates: {/etc/hostname: {when: [create, copy], template: hostname.tpl, properties: {a: 1}}}\n"


def with_templates(*entries: Entry, wanted: bytes = WANTED) -> bytes:
    return tar([*entries, metadata(METADATA + wanted), directory("rootfs"), Entry("rootfs/sbin/init", mode=0o755)])


def test_templates(place: Place) -> None:
    result = place.unified(with_templates(Entry("templates/hostname.tpl", data=b"{{ container.name }}\n")))
    made = {"path": "/etc/hostname", "text": "{{ container.name }}\n", "when": ["create", "copy"]}
    assert result["templates"] == [made | {"properties": {"a": "1"}, "create_only": False}]
    assert os.listdir(place.target) == ["rootfs"]


@pytest.mark.parametrize(
    ("entries", "wanted", "why"),
    [
        ([], WANTED, "has no file templates/hostname.tpl"),
        ([symlink("templates/hostname.tpl", "/etc/shadow")], WANTED, "is not a plain file"),
        ([Entry("templates/hostname.tpl", data=b"\xff")], WANTED, "not UTF-8"),
        ([Entry("templates/hostname.tpl", data=b"x" * 30_000)], WANTED, "bytes"),
        ([Entry(f"templates/{n}", data=b"x") for n in range(65)], b"", "more than 64"),
        ([Entry("templates/a")], b"\ntemplates: {/../x: {when: [start], template: a}}\n", "not the path"),
        ([Entry("templates/a")], b"\ntemplates: {/x: {when: [never], template: a}}\n", "is made neither"),
        ([Entry("templates/a")], b"\ntemplates: {/x: {when: start, template: a}}\n", "not a list"),
        ([Entry("templates/a")], b"\ntemplates: {/x: {when: [start]}}\n", "template is missing"),
        ([Entry("templates/a")], b"\ntemplates: {/x: null}\n", "not a mapping"),
        ([Entry("templates/a")], b"\ntemplates: [x]\n", "not a mapping"),
    ],
)
def test_templates_that_are_refused(place: Place, entries: list[Entry], wanted: bytes, why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        place.unified(with_templates(*entries, wanted=wanted))


def test_split_given_as_unified(place: Place) -> None:
    with pytest.raises(InvalidError, match="no rootfs/") as caught:
        place.unified(tar([metadata()]))
    assert "two files" in caught.value.hint


def test_members_in_any_order_and_below_dot(place: Place) -> None:
    entries = [
        directory("./"),
        Entry("./rootfs/sbin/init", mode=0o755),
        Entry("./templates/a", data=b"x" * 600),
        directory("./rootfs", mode=0o700),
        Entry("./metadata.yaml", data=METADATA),
    ]
    place.unified(tar(entries))
    assert stat.S_IMODE(place.rootfs.stat().st_mode) == 0o700
    assert os.listdir(place.target) == ["rootfs"]


def test_attributes(place: Place) -> None:
    xattrs = {
        "SCHILY.xattr.security.capability": raw(CAPABILITY),
        "SCHILY.xattr.user.colour": raw(b"\xff\0red\n"),
        "SCHILY.xattr.user.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.security.selinux": "system_u:object_r:bin_t:s0",
    }
    place.unified(
        unified(
            directory("rootfs/d", mode=0o2775, uid=5, gid=65535, mtime=1234567890),
            Entry("rootfs/d/suid", mode=0o4755, uid=65535, gid=3, data=b"x", pax=xattrs),
            symlink("rootfs/d/link", "/nowhere"),
            Entry("rootfs/d/fifo", tarfile.FIFOTYPE, mode=0o622, uid=9),
            Entry("rootfs/dev/null", tarfile.CHRTYPE, device=(1, 3)),
        )
    )
    file = place.rootfs / "d/suid"
    info = file.stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == (0o4755, 65535, 3, 1000000000)
    assert {name: os.getxattr(file, name) for name in os.listxattr(file)} == {
        "security.capability": CAPABILITY,
        "user.colour": b"\xff\0red\n",
    }
    folder = (place.rootfs / "d").stat()
    assert (folder.st_mode & 0o7777, folder.st_uid, folder.st_gid, folder.st_mtime) == (0o2775, 5, 65535, 1234567890)
    fifo = (place.rootfs / "d/fifo").stat()
    assert stat.S_ISFIFO(fifo.st_mode)
    assert (stat.S_IMODE(fifo.st_mode), fifo.st_uid) == (0o622, 9)
    assert (place.rootfs / "d/link").lstat().st_mtime == 1000000000
    assert os.listdir(place.rootfs / "dev") == []


def test_capability_of_another_namespace(place: Place) -> None:
    pax = {"SCHILY.xattr.security.capability": raw(OLD_NAMESPACE)}
    place.unified(unified(Entry("rootfs/x", mode=0o755, pax=pax)))
    assert os.getxattr(place.rootfs / "x", "security.capability") == CAPABILITY


def test_default_acl_is_not_inherited_while_unpacking(place: Place) -> None:
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, 7, number) for tag, number in ((1, 0xFFFFFFFF), (2, 5), (4, 0xFFFFFFFF))
    )
    acl += struct.pack("<HHI", 0x10, 7, 0xFFFFFFFF) + struct.pack("<HHI", 0x20, 5, 0xFFFFFFFF)
    pax = {"SCHILY.xattr.system.posix_acl_default": raw(acl)}
    place.unified(unified(directory("rootfs/a/b", pax=pax), Entry("rootfs/a/b/c")))
    assert os.getxattr(place.rootfs / "a/b", "system.posix_acl_default") == acl
    assert os.listxattr(place.rootfs / "a/b/c") == []


def test_hard_links(place: Place) -> None:
    place.unified(
        unified(
            Entry("rootfs/a/x", data=b"x", mode=0o755),
            directory("rootfs/b", mtime=1111111111),
            hard_link("rootfs/b/y", "./rootfs/a/x"),
            symlink("rootfs/l", "a"),
            hard_link("rootfs/b/l", "rootfs/l"),
        )
    )
    assert (place.rootfs / "a/x").stat().st_nlink == 2
    assert (place.rootfs / "b/l").is_symlink()
    assert (place.rootfs / "b").stat().st_mtime == 1111111111


def test_later_member_replaces_earlier(place: Place) -> None:
    result = place.unified(
        unified(Entry("rootfs/x", data=b"long text"), symlink("rootfs/x", "/etc/passwd"), Entry("rootfs/x", data=b"2"))
    )
    assert (place.rootfs / "x").read_bytes() == b"2"
    assert result["size"] == 10 + 1


def test_old_sparse_and_pax_sparse(place: Place) -> None:
    source = place.base / "store" / "holes"
    with source.open("wb") as file:
        file.seek(5 << 20)
        file.write(b"middle")
        file.truncate(9 << 20)
    for options in (["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))):
        out = subprocess.run(
            ["tar", "-cS", *options, "-C", source.parent, "--transform", "s,^,rootfs/,", "holes"],
            check=True,
            capture_output=True,
        ).stdout
        assert len(out) < 1 << 20
        place.unified(tar([*MINIMAL], b"") + out)
        copy = place.rootfs / "holes"
        assert copy.read_bytes() == source.read_bytes(), options
        assert copy.stat().st_blocks * 512 < 1 << 20


def test_names_that_are_not_utf8(place: Place) -> None:
    name = raw(b"rootfs/\xe4\xf6")
    place.unified(unified(Entry(name), symlink("rootfs/l", raw(b"\xfc")), hard_link("rootfs/h", name)))
    assert b"\xe4\xf6" in os.listdir(bytes(place.rootfs))
    assert os.readlink(bytes(place.rootfs / "l")) == b"\xfc"


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ([symlink("sbin", "usr/sbin"), symlink("usr/sbin/init", "../lib/systemd/systemd")], "systemd"),
        ([symlink("sbin", "/usr/sbin"), symlink("usr/sbin/init", "/lib/systemd/systemd")], "systemd"),
        ([symlink("sbin/init", "/../../../bin/busybox")], "busybox"),
        ([symlink("sbin/init", "../bin/runit-init")], "other"),
    ],
)
def test_init(place: Place, entries: list[Entry], kind: str) -> None:
    programs = ["usr/lib/systemd/systemd", "bin/busybox", "bin/runit-init"]
    made = [symlink("lib", "usr/lib"), *(Entry(name, mode=0o755, data=b"x") for name in programs), *entries]
    assert place.split(tar([metadata()]), tar(made))["init"] == kind


def test_identity_is_taken_out(place: Place) -> None:
    place.unified(
        unified(
            Entry("rootfs/etc/hostname", data=b"builder\n"),
            Entry("rootfs/etc/machine-id", data=b"0123456789abcdef0123456789abcdef\n"),
            hard_link("rootfs/kept", "rootfs/etc/machine-id"),
        )
    )
    assert os.listdir(place.rootfs / "etc") == ["machine-id"]
    assert (place.rootfs / "etc/machine-id").read_bytes() == b""
    assert (place.rootfs / "kept").stat().st_size == 33


def test_identity_that_is_a_link_stays(place: Place) -> None:
    place.unified(unified(symlink("rootfs/etc/hostname", "/run/name")))
    assert os.readlink(place.rootfs / "etc/hostname") == "/run/name"


def test_needed_directories_are_in_order() -> None:
    assert sorted(facts.NEEDED_DIRECTORIES) == list(facts.NEEDED_DIRECTORIES)


class Cli:
    """The worker as the daemon runs it, but from the source tree."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def run(self, image: bytes, *options: str) -> tuple[int, list[dict[str, object]]]:
        done = subprocess.run(
            [sys.executable, "-m", "sysd.images.worker", "--target", self.target, *options],
            input=image,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            check=False,
        )
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_command_line(tmp_path: Path) -> None:
    image = unified(Entry("rootfs/x", data=os.urandom(3 << 20)))
    status, lines = Cli(tmp_path).run(image, "--limit", str(1 << 30), "--image", "0")
    assert status == 0
    assert lines[0]["stage"] == "unpack"
    assert lines[0]["total"] == 0, "a pipe has no size"
    assert isinstance(lines[-1]["result"], dict)
    assert lines[-1]["result"]["fingerprint"] == hashlib.sha256(image).hexdigest()


def test_descriptor_that_does_not_block(tmp_path: Path) -> None:
    image = unified()
    out, into = os.pipe()
    os.set_blocking(out, False)
    argv = [sys.executable, "-m", "sysd.images.worker", "--target", str(tmp_path), "--limit", "1000", "--image", "0"]
    with subprocess.Popen(argv, stdin=out, stdout=subprocess.PIPE, cwd=ROOT) as process:
        os.close(out)
        assert process.stdout
        with open(into, "wb") as file:
            time.sleep(0.3)
            file.write(image)
        assert "result" in json.loads(process.stdout.read().splitlines()[-1])


@pytest.mark.parametrize(
    ("image", "options", "code"),
    [
        (b"nonsense" * 100, ["--limit", "1000", "--image", "0"], "InvalidArgument"),
        (b"", ["--limit", "1000"], "Failed"),
        (b"", ["--limit", "1000", "--image", "77"], "Failed"),
        (b"x" * 600, ["--limit", "1000", "--rootfs-stream", "0", "--facts", "{"], "Failed"),
    ],
)
def test_command_line_errors(tmp_path: Path, image: bytes, options: list[str], code: str) -> None:
    status, lines = Cli(tmp_path).run(image, *options)
    assert status == 1
    assert isinstance(lines[-1]["error"], dict)
    assert lines[-1]["error"]["code"] == code
    assert set(lines[-1]["error"]) == {"code", "message", "hint"}


MEASURE = """
import os, re, sys
from sysd.images.worker import main
status = main(sys.argv[1:])
os.write(2, re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1].encode())
sys.exit(status)
"""


def peak_memory(target: Path, members: int) -> int:
    out = io.BytesIO(unified())
    out.seek(len(tar(MINIMAL, b"")))
    for number in range(members):
        pax = {"SCHILY.xattr.user.number": str(number), "comment": "x" * 100}
        kind = tarfile.DIRTYPE if number % 3 == 0 else tarfile.REGTYPE
        out.write(Entry(f"rootfs/{number % 100}/{number}", kind, pax=pax).encode())
    out.write(bytes(1024))
    target.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "--target", target, "--limit", "1000000", "--image", "0"],
        input=out.getvalue(),
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    return int(done.stderr)


def test_memory_stays_flat(tmp_path: Path) -> None:
    assert peak_memory(tmp_path / "many", 20_000) - peak_memory(tmp_path / "few", 500) < 2048


def test_mode_keeps_only_its_bits(place: Place) -> None:
    header = with_field(Entry("rootfs/x"), 100, bytes([0x80]) + b"\xff" * 7)
    place.unified(unified(header))
    assert stat.S_IMODE((place.rootfs / "x").stat().st_mode) == 0o7777
