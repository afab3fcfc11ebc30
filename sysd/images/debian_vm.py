# SPDX-License-Identifier: Apache-2.0
"""Debian images of virtual machines: what sysd.images.debian makes, with a kernel and what a machine needs beside it.

Each disk of such an image is made from the tree by sysd.images.bootable. Nothing in a guest listens on TCP: ssh comes
through vsock (systemd-ssh-generator) or is started by the guest agent as ``sshd -i``.
"""

from __future__ import annotations

from collections.abc import Sequence

from sysd.images import debian
from sysd.images.metadata import host_architecture
from sysd.model.errors import UnsupportedError

PACKAGES = (
    "e2fsprogs",
    "initramfs-tools",
    "kmod",
    "openssh-server",
    "qemu-guest-agent",
    "systemd-boot",
    "udev",
    "zstd",
)
# Linux's name of an architecture, its kernel, and who signs for its boot loader.
_KERNELS = {
    "x86_64": ("linux-image-cloud-amd64", ("shim-signed", "systemd-boot-efi-amd64-signed")),
    "aarch64": ("linux-image-cloud-arm64", ("shim-signed", "systemd-boot-efi-arm64-signed")),
}
# Debian signs systemd-boot, and packages systemd-repart by itself, from trixie on.
_OLD = ("buster", "bullseye", "bookworm")
# Before bookworm systemd has neither credentials of SMBIOS nor systemd-boot a package.
_TOO_OLD = ("buster", "bullseye")

# Written before the kernel's package makes its initrd. A list: what a virtual disk takes, a tenth of all drivers. Those
# in modules.d are loaded at each boot, those of the hook when there is such a device; the database is for keyboards.
INITRD = """\
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks" "$1/usr/share/initramfs-tools/modules.d"
cat >"$1/etc/initramfs-tools/conf.d/syscont" <<'END'
MODULES=list
COMPRESS=zstd
RESUME=none
END
cat >"$1/usr/share/initramfs-tools/modules.d/syscont" <<'END'
virtio_pci
virtio_blk
ext4
END
cat >"$1/etc/initramfs-tools/hooks/syscont" <<'END'
#!/bin/sh
test "$1" != prereqs || exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_mmio virtio_scsi sd_mod ahci nvme
rm -f "$DESTDIR/usr/lib/udev/hwdb.bin" "$DESTDIR/lib/udev/hwdb.bin"
END
chmod 0755 "$1/etc/initramfs-tools/hooks/syscont"
"""

# The disk is as large as the instance's is to be; what the image left unused at its end becomes the root file system's.
# A disk's unused inode tables are zeros already: not to be written again, to each instance's own disk.
_DISK = """\
mkdir -p "$1/efi" "$1/etc/repart.d"
printf '[Partition]\\nType=root\\n' >"$1/etc/repart.d/50-root.conf"
echo 'LABEL=root / ext4 defaults,noinit_itable,x-systemd.growfs 0 1' >"$1/etc/fstab"
chmod 0644 "$1/etc/repart.d/50-root.conf" "$1/etc/fstab"
"""

# Each instance makes a host key of its own, before whatever asks for it.
_SSH = """\
rm -f "$1"/etc/ssh/ssh_host_*
chroot "$1" systemctl --quiet disable ssh.service ssh.socket
! test -e "$1/usr/lib/systemd/system/sshd-keygen.service" || chroot "$1" systemctl --quiet mask sshd-keygen.service
cat >"$1/etc/systemd/system/syscont-host-key.service" <<'END'
[Unit]
Description=Make the ssh host key of this machine
DefaultDependencies=no
After=systemd-remount-fs.service
Before=sysinit.target
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -C "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=sysinit.target
END
mkdir -p "$1/etc/ssh/sshd_config.d"
echo 'HostKey /etc/ssh/ssh_host_ed25519_key' >"$1/etc/ssh/sshd_config.d/50-syscont.conf"
echo 'd /run/sshd 0755' >"$1/etc/tmpfiles.d/syscont.conf"
chmod 0644 "$1/etc/systemd/system/syscont-host-key.service" "$1/etc/ssh/sshd_config.d/50-syscont.conf" \\
    "$1/etc/tmpfiles.d/syscont.conf"
chroot "$1" systemctl --quiet enable syscont-host-key.service
"""

HOOKS = (debian.network("Type=ether\nKind=!*"), debian.UNITS, _DISK, _SSH, debian.IDENTITY, debian.UPDATED)


def argv(suite: str, mirrors: Sequence[str]) -> list[str]:
    """The command that writes the tar; mirrors are lines of sources.list. Raises UnsupportedError."""
    architecture = host_architecture()
    if suite in _TOO_OLD:
        raise UnsupportedError(f"can't make a virtual machine of Debian {suite}", "bookworm is the oldest")
    if architecture not in _KERNELS:
        raise UnsupportedError(f"can't build virtual machines for {architecture}", f"only for {', '.join(_KERNELS)}")
    kernel, signed = _KERNELS[architecture]
    packages = [*PACKAGES, kernel, *(() if suite in _OLD else (*signed, "systemd-repart"))]
    return debian.command(suite, mirrors, packages, HOOKS, (f"--essential-hook={INITRD.rstrip()}",))
