# SPDX-License-Identifier: Apache-2.0
"""Make archives that an importer must refuse, or contain, in /root/bad. A well-formed one is good.tar."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

os.makedirs("/root/bad", exist_ok=True)
(image,) = os.listdir("/var/lib/syscont/images")
BASE = f"/var/lib/syscont/images/{image}/rootfs"
Member = tuple[tarfile.TarInfo, io.BytesIO]
METADATA = b"architecture: x86_64\ncreation_date: 1700000000\n"


def member(
    name: str,
    data: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o755,
    device: tuple[int, int] = (0, 0),
) -> Member:
    one = tarfile.TarInfo(name)
    one.type, one.linkname, one.mode, one.size = kind, link, mode, len(data)
    one.devmajor, one.devminor = device
    return one, io.BytesIO(data)


def write(
    name: str,
    *members: Member,
    metadata: bytes | None = METADATA,
    base: bool = False,
    without: str = "no such folder",
) -> None:
    with tarfile.open(f"/root/bad/{name}.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        if metadata is not None:
            archive.addfile(*member("metadata.yaml", metadata))
        if base:
            left_out = f"rootfs/{without}/"
            archive.add(BASE, "rootfs", filter=lambda one: None if f"{one.name}/".startswith(left_out) else one)
        for one in members:
            archive.addfile(*one)


LINK, HARD, DIR, BLOCK, FIFO = (
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.DIRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
)
root = member("rootfs", kind=DIR)
write("absolute", root, member("/canary/file", b"bad"))
write("up", root, member("rootfs/../../../../canary/file", b"bad"))
write("link-out", root, member("rootfs/out", kind=LINK, link="/canary"), member("rootfs/out/file", b"bad"))
up = "../../../../../../canary"
write("link-up", root, member("rootfs/out", kind=LINK, link=up), member("rootfs/out/file", b"bad"))
write("hard-out", root, member("rootfs/out", kind=HARD, link="/canary/file"), member("rootfs/out", b"bad"))
write("hard-up", root, member("rootfs/out", kind=HARD, link="rootfs/../../../../../canary/file"))
write("rootfs-link", member("rootfs", kind=LINK, link="/canary"), member("rootfs/file", b"bad"))
write("rootfs-file", member("rootfs", b"file"))
write("no-metadata", root, member("rootfs/file", b"x"), metadata=None)
write("no-rootfs")
write("metadata-list", root, metadata=b"- 1\n- 2\n")
write("metadata-binary", root, metadata=bytes(range(256)))
write("metadata-empty", root, metadata=b"")
write("metadata-types", root, metadata=b"architecture: [1]\ncreation_date: {a: b}\nproperties: 7\n")
write(
    "metadata-bomb",
    root,
    metadata=b"a: &a [x,x]\n"
    + b"".join(b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (c, c, *[c - 1] * 7) for c in range(98, 122)),
)
write("metadata-deep", root, metadata=b"[" * 100000)
write("metadata-link", root, member("metadata.yaml", kind=LINK, link="/etc/shadow"), metadata=None)
with open("/root/bad/sparse.tar", "wb") as stream:
    for part in (("metadata.yaml", METADATA),):
        one, data = member(*part)
        stream.write(one.tobuf(tarfile.GNU_FORMAT) + data.read().ljust(512, b"\0"))
    one, _ = member("rootfs/huge")
    one.size = 1 << 40
    stream.write(one.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096)
with open("/root/bad/sparse-file", "wb") as stream:
    stream.truncate(1 << 40)
os.makedirs("/root/bad/tree/rootfs", exist_ok=True)
with open("/root/bad/tree/rootfs/hole", "wb") as stream:
    stream.truncate(1 << 40)
with open("/root/bad/tree/metadata.yaml", "wb") as stream:
    stream.write(METADATA)
os.chdir("/root/bad/tree")
subprocess.run(["tar", "-S", "-cf", "/root/bad/holes.tar", "metadata.yaml", "rootfs"], check=True)
write("good", base=True)
whole = Path("/root/bad/good.tar").read_bytes()
Path("/root/bad/truncated.tar").write_bytes(whole[: len(whole) // 2])
subprocess.run(["sh", "-c", "gzip -1 </root/bad/good.tar | head -c 200000 >/root/bad/truncated.tar.gz"], check=True)
Path("/root/bad/empty.tar").touch()
Path("/root/bad/text.tar").write_bytes(b"this is no archive\n" * 1000)
Path("/root/bad/zeros.tar").write_bytes(b"\0" * 20480)
Path("/root/bad/squash.img").write_bytes(b"hsqs" + b"\xff" * 8192)

# Imported or refused, but contained.
write("devices", member("rootfs/dev/disk", kind=BLOCK, device=(8, 0)), member("rootfs/pipe", kind=FIFO), base=True)
for place in ("dev", "proc", "run", "sys", "sbin", "etc", "tmp"):
    write(f"link-{place}", member(f"rootfs/{place}", kind=LINK, link=f"../{up}"), base=True, without=place)
