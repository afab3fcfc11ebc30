# SPDX-License-Identifier: Apache-2.0
"""Write backups that no importer may accept into the folder named by the first argument."""

import io
import os
import sys
import tarfile
from collections.abc import Callable

folder = sys.argv[1]
GOOD = "name: c1\nbackend: dir\npool: default\noptimized: false\ntype: container\nconfig:\n  container: {name: c1}\n"
ROOT = "backup/container/rootfs"


def member(tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(data), 0o755
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def init(tar: tarfile.TarFile, root: str = ROOT) -> None:
    member(tar, f"{root}/sbin/init", b"#!/bin/sh\n")


def backup(
    name: str, fill: Callable[[tarfile.TarFile], None], index: "str | None" = GOOD, with_init: bool = True
) -> None:
    with tarfile.open(os.path.join(folder, name), "w", format=tarfile.PAX_FORMAT) as tar:
        if index is not None:
            member(tar, "backup/index.yaml", index.encode())
        if with_init:
            init(tar)
        fill(tar)


def nothing(tar: tarfile.TarFile) -> None:
    pass


def through_link(tar: tarfile.TarFile) -> None:
    member(tar, f"{ROOT}/etc", kind=tarfile.SYMTYPE, linkname="/canary")
    member(tar, f"{ROOT}/etc/file", b"evil")


def link_as_root(tar: tarfile.TarFile) -> None:
    member(tar, ROOT, kind=tarfile.SYMTYPE, linkname="/canary")
    member(tar, f"{ROOT}/file", b"evil")


def hard_link_to_snapshot(tar: tarfile.TarFile) -> None:
    init(tar, "backup/snapshots/s/rootfs")
    member(tar, f"{ROOT}/file", kind=tarfile.LNKTYPE, linkname="backup/snapshots/s/rootfs/sbin/init")


def snapshot(name: str) -> Callable[[tarfile.TarFile], None]:
    return lambda tar: init(tar, f"backup/snapshots/{name}/rootfs")


def one(name: str, **more: object) -> Callable[[tarfile.TarFile], None]:
    return lambda tar: member(tar, name, **more)  # type: ignore[arg-type]


backup("no-index", nothing, None)
backup("no-rootfs", nothing, with_init=False)
backup("no-init", one(f"{ROOT}/file"), with_init=False)
backup("index-twice", one("backup/index.yaml", data=GOOD.encode()))
backup("index-link", one("backup/index.yaml", kind=tarfile.SYMTYPE, linkname="/etc/shadow"), None)
backup("index-not-yaml", nothing, "a: [")
backup("index-tag", nothing, "!!python/object/apply:os.system ['touch /canary/file']")
backup("index-list", nothing, "[1, 2]")
backup("index-aliases", nothing, "a: &a [1]\nb: *a\n")
backup("index-binary", nothing, "\x01\x02")
backup("index-config-list", nothing, GOOD.replace("{name: c1}", "[1]"))
backup("index-keys-not-text", nothing, GOOD.replace("{name: c1}", "{config: {a: {b: c}}}"))
backup("index-deep", nothing, "a: " + "[" * 500 + "]" * 500)
backup("index-vm", nothing, GOOD.replace("type: container", "type: virtual-machine"))
backup("index-optimized", nothing, GOOD.replace("optimized: false", "optimized: true"))
backup("index-other-arch", nothing, GOOD.replace("{name: c1}", "{architecture: s390x}"))
backup("vm-disk", one("backup/virtual-machine.img", data=b"x"))
backup("driver-stream", one("backup/container.bin", data=b"x"))
backup("up", one(f"{ROOT}/../../../../../../../canary/file", data=b"evil"))
backup("absolute", one("/canary/file", data=b"evil"))
backup("through-link", through_link)
backup("root-is-a-link", link_as_root, with_init=False)
backup("hard-link-out", one(f"{ROOT}/x", kind=tarfile.LNKTYPE, linkname="/etc/shadow"))
backup("hard-link-up", one(f"{ROOT}/x", kind=tarfile.LNKTYPE, linkname="../../../etc/shadow"))
backup("hard-link-to-snapshot", hard_link_to_snapshot)
backup("device", one(f"{ROOT}/etc/disk", kind=tarfile.BLKTYPE, devmajor=8, devminor=0))
backup("owner", one(f"{ROOT}/x", uid=70000))
backup("snapshot-up", snapshot(".."))
backup("snapshot-hidden", snapshot(".links"))
backup("snapshot-space", snapshot("a b"))
backup("snapshot-newline", snapshot("a\nb"))
backup("snapshot-long", snapshot("x" * 64))
backup("snapshot-no-init", one("backup/snapshots/s/rootfs/x"))
with open(os.path.join(folder, "cut"), "wb") as stream, open(os.path.join(folder, "up"), "rb") as whole:
    stream.write(whole.read()[:1500])
with open(os.path.join(folder, "garbage"), "wb") as stream:
    stream.write(os.urandom(100_000))
open(os.path.join(folder, "empty"), "w").close()
