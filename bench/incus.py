# SPDX-License-Identifier: Apache-2.0
"""Incus ready to run containers on a container host, with the very images that syscont has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from hosts import Host, images
from hosts.cache import cache_dir, made

# The host's /sys was mounted by systemd-nspawn from outside of the host's network namespace, and so shows the
# machine's links; Incus looks for its bridge there. lxcfs is told that a container host is a host.
# Its pool gets memory for a disk: unpacking an image at each launch costs it seconds on a real one, which says more
# of the disk than of Incus, and the writes slow syscont down too.
SET_UP = """
mkdir -p /run/sysfs /etc/systemd/system/lxcfs.service.d
mount -t sysfs sysfs /run/sysfs
for part in devices/virtual/net class/net; do mount --bind /run/sysfs/$part /sys/$part; done
printf '[Unit]\\nConditionVirtualization=\\n' >/etc/systemd/system/lxcfs.service.d/bench.conf
systemctl daemon-reload
mkdir -p /var/lib/incus/storage-pools
mount -t tmpfs -o mode=0711 tmpfs /var/lib/incus/storage-pools
systemctl start lxcfs.service incus.service
incus admin init --minimal
"""

# From the root file system that `syscont image build busybox` made.
BUSYBOX = """
cd /var/lib/syscont/images/$1
tar -cf /var/tmp/busybox.tar -C rootfs .
echo '{"architecture": "x86_64", "creation_date": 1}' >/var/tmp/metadata.yaml
tar -cf /var/tmp/busybox.metadata.tar -C /var/tmp metadata.yaml
incus image import /var/tmp/busybox.metadata.tar /var/tmp/busybox.tar --alias busybox
"""


def set_up(host: Host) -> None:
    host.sh(SET_UP, timeout=120)


def debian_images() -> tuple[Path, Path, Path]:
    """Metadata, root file system as syscont gets it, and the same as Incus gets it, made once."""
    metadata, rootfs = images.debian()
    squashfs = cache_dir("bench") / rootfs.with_suffix(".squashfs").name
    made(squashfs, lambda path: _squash(rootfs, path), "packing the image for Incus")
    return metadata, rootfs, squashfs


def _squash(rootfs: Path, path: Path) -> None:
    if not shutil.which("tar2sqfs"):
        raise FileNotFoundError("tar2sqfs is missing: apt-get install squashfs-tools-ng")
    with rootfs.open("rb") as stream:
        subprocess.run(
            ["tar2sqfs", "--quiet", "--compressor", "zstd", str(path)],
            stdin=stream,
            stderr=subprocess.DEVNULL,
            check=True,
        )


def import_images(host: Host) -> None:
    """Debian as `deb` and busybox as `busybox`, on both sides."""
    for file, name in zip(debian_images(), ("metadata.tar", "deb.tar", "deb.squashfs"), strict=True):
        host.push(file, f"/var/tmp/{name}")
    host.sh("syscont image import /var/tmp/metadata.tar /var/tmp/deb.tar --alias deb", timeout=120)
    host.sh("incus image import /var/tmp/metadata.tar /var/tmp/deb.squashfs --alias deb", timeout=120)
    host.sh("syscont image build busybox", timeout=120)
    fingerprint = host.sh("ls -t /var/lib/syscont/images | head -1").strip()
    host.run(["sh", "-ec", BUSYBOX, "busybox", fingerprint], timeout=120)
