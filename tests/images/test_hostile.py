# SPDX-License-Identifier: Apache-2.0
"""Archives made to do harm: each is refused by name and reason, and nothing outside the target is touched."""

from __future__ import annotations

import os
import tarfile
import time
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysd.model.errors import InvalidError, SyscontError
from tests.images.archives import (
    INIT,
    METADATA,
    MINIMAL,
    Entry,
    compressed_bomb,
    directory,
    hard_link,
    metadata,
    sparse,
    symlink,
    tar,
    unified,
    with_size,
)
from tests.images.conftest import LIMIT, Place

CHR, BLK, FIFO = tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE
GNU: Literal[1] = 1
assert tarfile.GNU_FORMAT == GNU
TIB = 1 << 40

HOSTILE: dict[str, tuple[bytes, str]] = {
    "absolute path": (unified(Entry("/tmp/x")), r"'/tmp/x' is an absolute path"),
    "dot dot at the start": (unified(Entry("../x")), r"'\.\./x' leads out"),
    "dot dot inside": (unified(Entry("rootfs/../../canary/file")), "leads out"),
    "dot dot at the end": (unified(directory("rootfs/a/..")), "leads out"),
    "dot dot beside the tree": (unified(Entry("templates/../../x")), "leads out"),
    "empty name": (unified(Entry("", format=GNU)), "empty name"),
    "slash only": (unified(directory("/")), "empty name|absolute"),
    "zero byte": (unified(Entry("rootfs/a", pax={"path": "rootfs/a\0b"})), "zero byte"),
    "long component": (unified(Entry("rootfs/" + "a" * 256)), "more than 4096"),
    "long path": (unified(Entry("rootfs/" + "a/" * 2100 + "b")), "more than 4096"),
    "deep path": (unified(directory("rootfs/" + "a/" * 400)), "nested more than"),
    "through a link": (unified(symlink("rootfs/a", "/"), Entry("rootfs/a/x")), "'a' is not a directory"),
    "through a link that leads out": (
        unified(symlink("rootfs/a", "../../../canary"), Entry("rootfs/a/file", data=b"!")),
        "'a' is not a directory",
    ),
    "through two links": (
        unified(symlink("rootfs/a", "b"), symlink("rootfs/b", "/tmp"), directory("rootfs/a/c")),
        "'a' is not a directory",
    ),
    "below a file": (unified(Entry("rootfs/a"), Entry("rootfs/a/b")), "'a' is not a directory"),
    "directory becomes link": (unified(directory("rootfs/a"), symlink("rootfs/a", "/")), "was a directory before"),
    "directory becomes file": (unified(directory("rootfs/a"), Entry("rootfs/a")), "was a directory before"),
    "directory becomes hard link": (
        unified(directory("rootfs/a"), Entry("rootfs/b"), hard_link("rootfs/a", "rootfs/b")),
        "was a directory before",
    ),
    "link becomes directory": (unified(symlink("rootfs/a", "/"), directory("rootfs/a")), "was something else"),
    "file becomes directory": (unified(Entry("rootfs/a"), directory("rootfs/a")), "was something else"),
    "rootfs is a link": (tar([metadata(), symlink("rootfs", "/"), INIT]), "'rootfs' should be a directory"),
    "rootfs is a link late": (unified(symlink("rootfs", "../canary")), "'rootfs' should be a directory"),
    "./rootfs is a link": (tar([metadata(), symlink("./rootfs", "/"), INIT]), "should be a directory"),
    "rootfs is a file": (tar([metadata(), Entry("rootfs"), INIT]), "should be a directory"),
    "rootfs is a hard link": (unified(hard_link("rootfs", "metadata.yaml")), "should be a directory"),
    "hard link to the host": (unified(hard_link("rootfs/x", "/etc/passwd")), "absolute"),
    "hard link out": (unified(hard_link("rootfs/x", "../../canary/file")), "leads out"),
    "hard link beside the tree": (unified(hard_link("rootfs/x", "metadata.yaml")), "not in the tree"),
    "hard link to the tree": (unified(hard_link("rootfs/x", "rootfs")), "not in the tree"),
    "hard link to nothing": (unified(hard_link("rootfs/x", "rootfs/later"), Entry("rootfs/later")), "not a file"),
    "hard link to a directory": (unified(hard_link("rootfs/x", "rootfs/sbin")), "not a file"),
    "hard link to itself": (unified(Entry("rootfs/x"), hard_link("rootfs/x", "rootfs/./x")), "itself"),
    "hard link through a link": (
        unified(symlink("rootfs/a", "/etc"), hard_link("rootfs/x", "rootfs/a/passwd")),
        "'a' is not a directory",
    ),
    "hard link without a name": (unified(hard_link("rootfs/x", "")), "not in the tree"),
    "character device": (unified(Entry("rootfs/x", CHR, device=(1, 3))), "device node"),
    "block device": (unified(Entry("rootfs/x", BLK, device=(8, 0))), "device node"),
    "whiteout": (unified(Entry("rootfs/x", CHR, device=(0, 0))), "device node"),
    "dev is a device": (unified(Entry("rootfs/dev", CHR, device=(1, 3))), "device node"),
    "dev is a link": (unified(symlink("rootfs/dev", "/dev")), "/dev of the image is not a directory"),
    "dev is a fifo": (unified(Entry("rootfs/dev", FIFO)), "/dev of the image is not a directory"),
    "tmp is a link": (unified(symlink("rootfs/tmp", "/tmp")), "/tmp of the image is not a directory"),
    "etc is a link": (unified(symlink("rootfs/etc", "/etc")), "/etc of the image is not a directory"),
    "sparse, 1 TiB": (unified(sparse("rootfs/x", TIB)), r"needs 1024\.00GiB|needs 1\.00TiB"),
    "sparse, 8 EiB": (unified(sparse("rootfs/x", (1 << 63) - 1)), "needs .*limit 64.00MiB"),
    "large, 1 TiB": (unified(with_size(Entry("rootfs/x"), TIB)), "needs .*limit 64.00MiB"),
    "large beside the tree": (unified(with_size(Entry("templates/x"), TIB)), "needs .*limit"),
    "large of unknown type": (unified(with_size(Entry("templates/x", b"V"), TIB)), "needs .*limit"),
    "negative size": (unified(with_size(Entry("rootfs/x"), -512)), "negative|invalid offset"),
    "sparse, negative": (unified(sparse("rootfs/x", -1)), "negative|malformed|invalid offset"),
    "compressed zeros": (compressed_bomb(LIMIT + (1 << 20)), "needs 65.00MiB, limit 64.00MiB"),
    "user of another world": (unified(Entry("rootfs/x", uid=65536)), "'rootfs/x' belongs to user 65536"),
    "group of another world": (unified(Entry("rootfs/x", gid=(1 << 32) - 1)), "belongs to group 4294967295"),
    "negative user": (unified(Entry("rootfs/x", pax={"uid": "-1"})), "belongs to user -1"),
    "unknown type": (unified(Entry("rootfs/x", b"V")), "unknown type"),
    "link to nowhere": (unified(symlink("rootfs/x", "")), "bad name"),
    "link with zero byte": (unified(Entry("rootfs/x", tarfile.SYMTYPE, pax={"linkpath": "a\0b"})), "bad name"),
    "huge extended header": (unified(Entry("rootfs/x", pax={"comment": "x" * (2 << 20)})), "a header of more than"),
    "digits without end": (unified(Entry("rootfs/x", pax={"comment": "1" * 500_000})), "thousand digits"),
    "huge attribute": (
        unified(Entry("rootfs/x", pax={"SCHILY.xattr.user.a": "x" * 70_000})),
        "'rootfs/x': an extended attribute",
    ),
    "malformed capability": (
        unified(Entry("rootfs/x", pax={"SCHILY.xattr.security.capability": "x"})),
        "'rootfs/x': its file capability",
    ),
    "metadata is a link": (tar([symlink("metadata.yaml", "/etc/passwd"), *MINIMAL[1:]]), "not a plain file"),
    "metadata is a device": (tar([Entry("metadata.yaml", CHR), *MINIMAL[1:]]), "not a plain file"),
    "metadata twice": (unified(metadata()), "twice"),
    "metadata too large": (tar([metadata(METADATA + b"#" * (1 << 20)), *MINIMAL[1:]]), "at most|bytes"),
    "metadata missing": (tar(MINIMAL[1:]), "metadata.yaml is missing"),
    "rootfs missing": (tar(MINIMAL[:1]), "no rootfs/"),
    "nothing": (b"", "empty"),
    "end mark only": (bytes(10240), "no rootfs|missing"),
    "no archive": (b"this is not an archive, but a text" * 100, "damaged"),
    "no end mark": (tar(MINIMAL, b""), "without an end mark"),
    "no init": (tar(MINIMAL[:3]), "no init"),
    "init is a directory": (tar([*MINIMAL[:3], directory("rootfs/sbin/init")]), "no init"),
    "init leads nowhere": (tar([*MINIMAL[:3], symlink("rootfs/sbin/init", "/bin/none")]), "no init"),
    "init leads in a circle": (tar([*MINIMAL[:3], symlink("rootfs/sbin/init", "init")]), "no init"),
    "init leads out": (tar([*MINIMAL[:3], symlink("rootfs/sbin/init", "../../../../bin/sh")]), "no init"),
    "init is not a program": (tar([*MINIMAL[:3], Entry("rootfs/sbin/init")]), "no init"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refused(place: Place, case: str) -> None:
    archive, message = HOSTILE[case]
    started = time.monotonic()
    with pytest.raises(InvalidError, match=message) as caught:
        place.unified(archive)
    assert caught.value.message.isprintable()
    assert time.monotonic() - started < 5


def test_control_characters_in_names_stay_out_of_messages(place: Place) -> None:
    with pytest.raises(InvalidError) as caught:
        place.unified(unified(Entry("/\x1b[31m\n" + "a" * 1000)))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


def test_deep_chain_of_headers(place: Place) -> None:
    header = tarfile.TarInfo.create_pax_global_header({"comment": "x"})
    with pytest.raises(InvalidError, match="damaged"):
        place.unified(tar([header * 5000, *MINIMAL]))


def test_global_headers_do_not_add_up(place: Place) -> None:
    parts: list[Entry | bytes] = [*MINIMAL]
    for number in range(30):
        parts += [tarfile.TarInfo.create_pax_global_header({f"key{number}": "x" * 50_000}), Entry(f"rootfs/{number}")]
    with pytest.raises(InvalidError, match="global headers"):
        place.unified(tar(parts))


def test_limit_counts_all_files_together(place: Place) -> None:
    half = b"x" * 600
    with pytest.raises(InvalidError, match=r"'rootfs/b' has 600B: the archive needs 1\.\d+KiB, limit 1000B"):
        place.unified(unified(Entry("rootfs/a", data=half), Entry("rootfs/b", data=half)), limit=1000)


def test_nothing_is_written_before_the_limit_is_checked(place: Place) -> None:
    with pytest.raises(InvalidError):
        place.unified(unified(sparse("rootfs/big", TIB)))
    assert not (place.rootfs / "big").exists()


def test_truncated_anywhere(place: Place) -> None:
    whole = unified(Entry("rootfs/data", data=os.urandom(3000)), symlink("rootfs/link", "data"))
    for length in range(1, len(whole) - 1024, 509):
        with pytest.raises(InvalidError):
            place.unified(whole[:length])


SEED = tar(
    [
        *MINIMAL,
        directory("rootfs/usr", pax={"mtime": "1000000000.25"}),
        Entry("rootfs/usr/file", data=b"content" * 100, pax={"SCHILY.xattr.user.a": "b", "uid": "77"}),
        symlink("rootfs/usr/link", "file"),
        hard_link("rootfs/usr/hard", "rootfs/usr/file"),
        Entry("rootfs/" + "long/" * 40 + "name", data=b"x", format=GNU),
        sparse("rootfs/usr/hole", 4096),
        Entry("rootfs/dev/null", CHR, device=(1, 3)),
        Entry("rootfs/usr/fifo", FIFO),
    ]
)
INTERESTING = st.sampled_from([b"\0", b"/", b"..", b"../", b"\xff", b"\x80", b"2", b"1", b"5", b"3", b"L", b"x", b"S"])


def fixed_checksums(data: bytearray) -> bytes:
    """Headers with right checksums, so that mutations get past the first check."""
    for start in range(0, len(data) - 511, 512):
        block = data[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(data)


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(SEED) - 1), INTERESTING | st.binary(max_size=12)), max_size=6),
    cut=st.none() | st.integers(0, len(SEED)),
    honest=st.booleans(),
)
def test_mutations(place: Place, changes: list[tuple[int, bytes]], cut: int | None, honest: bool) -> None:
    data = bytearray(SEED)
    for position, replacement in changes:
        data[position : position + len(replacement)] = replacement
    archive = fixed_checksums(data) if honest else bytes(data)
    error = outcome(place, archive[:cut])
    assert error is None or error.message.isprintable()


def outcome(place: Place, archive: bytes) -> SyscontError | None:
    """How the archive was refused, if it was; other exceptions pass."""
    try:
        result = place.unified(archive, limit=1 << 22)
    except SyscontError as error:
        return error
    assert len(result["fingerprint"]) == 64
    return None
