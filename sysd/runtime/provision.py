# SPDX-License-Identifier: Apache-2.0
"""What the launcher leaves in a guest's tree for it to find: sockets on which it can ask the host, credentials for its
systemd, and the seed of its cloud-init.

Sources: systemd.io CONTAINER_INTERFACE and CREDENTIALS, systemd-nspawn's mount_credentials(), cloud-init's NoCloud.
"""

from __future__ import annotations

import _socket
import binascii
import errno
import posix as os
import sys

from sysd import _cext as c
from sysd.runtime.beneath import LaunchError, beneath, write_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypedDict

    class Spec(TypedDict):
        uuid: str
        name: str
        state_dir: str
        templates: dict[str, list[tuple[str, str, str]]]

CREDENTIALS = "/run/host/credentials"
SEED = "var/lib/cloud/seed/nocloud-net"
MADE_FOR = "made-for"
BACKLOG = 64


def listen(dev: int, folder: str) -> _socket.socket:
    """The socket /dev/FOLDER/sock, for root of the guest. The daemon accepts on it, this one or the next."""
    os.mkdir(folder, 0o755, dir_fd=dev)
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dev)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    sock.bind(f"/proc/self/fd/{place}/sock")
    os.chmod("sock", 0o600, dir_fd=place)
    sock.listen(BACKLOG)
    os.close(place)
    return sock


def put_credentials(host: int, credentials: Mapping[str, str]) -> None:
    """Put credentials, given as base64, into CREDENTIALS, the directory host being /run/host."""
    if not credentials:
        return
    os.mkdir("credentials", 0o700, dir_fd=host)
    mount = _memory_never_swapped()
    c.move_mount(mount, os.open("credentials", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=host))
    for name, encoded in credentials.items():
        write_at(mount, name, binascii.a2b_base64(encoded), 0o400)
    c.mount_attributes(mount, attributes=c.ATTR_RDONLY | c.ATTR_NOSUID | c.ATTR_NODEV | c.ATTR_NOEXEC)


def _memory_never_swapped() -> int:
    """A file system for secrets. Its folder belongs to whom we act for on file systems (set_fs_ids): guest's root."""
    try:
        return c.new_mount("tmpfs", {"source": "credentials", "mode": "0700", "noswap": None})
    except OSError as error:
        if error.errno != errno.EINVAL:  # no such option before Linux 6.4
            raise
        return c.new_mount("ramfs", {"source": "credentials", "mode": "0700"})


def put_seed(root: int, seed: Mapping[str, str]) -> None:
    """Write cloud-init's seed into an image that has cloud-init; the guest does not run yet. Where the guest has put
    something in the way it goes without: that is no reason not to start."""
    resolve = c.RESOLVE_BENEATH | c.RESOLVE_NO_MAGICLINKS
    try:
        os.close(c.openat2(root, "etc/cloud", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, resolve))
    except OSError:
        return
    for name, text in seed.items():
        if not put_file(root, f"{SEED}/{name}", text.encode(), 0o600):
            return


def put_templates(root: int, spec: Spec) -> None:
    """Make the files that the image wants made: at the first start, at those after the instance was copied or renamed,
    and at each start. What was made last is remembered beside the instance's layer, where the guest can't reach."""
    if not spec["templates"]:
        return
    identity = f"{spec['uuid']} {spec['name']}"
    marker = f"{spec['state_dir']}/{MADE_FOR}"
    try:
        with open(marker) as stream:
            known = stream.read(256)
    except FileNotFoundError:
        known = ""
    due = ["start"]
    if known != identity:
        due.insert(0, "create" if not known else "copy" if known.split()[0] != spec["uuid"] else "rename")
    for trigger in due:
        for path, text, new in spec["templates"].get(trigger, ()):
            put_file(root, path.lstrip("/"), text.encode(), 0o644, only_new=bool(new))
    if known != identity:
        with open(marker + ".new", "w") as stream:
            stream.write(identity)
        os.rename(marker + ".new", marker)


def put_file(root: int, path: str, data: bytes, mode: int, *, only_new: bool = False) -> bool:
    """Write a file in the guest's tree, in place of what is there; returns whether that could be done."""
    parent, _, name = path.rpartition("/")
    try:
        folder = beneath(root, parent) if parent else os.dup(root)
        try:
            _replace(folder, name, data, mode, only_new)
        finally:
            os.close(folder)
    except (OSError, LaunchError) as error:
        sys.stderr.write(f"/{path} was not written: {error}\n")
        sys.stderr.flush()
        return False
    return True


def _replace(folder: int, name: str, data: bytes, mode: int, only_new: bool) -> None:
    try:
        write_at(folder, name, data, mode)
    except FileExistsError:
        if not only_new:
            os.unlink(name, dir_fd=folder)
            write_at(folder, name, data, mode)
