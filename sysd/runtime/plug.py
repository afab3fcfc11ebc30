# SPDX-License-Identifier: Apache-2.0
"""Changes what a guest has of the host.

    plug PIDFD       a child of the daemon, for one change of a running guest's devices, which comes on stdin
    plug --release SPEC   ExecStopPost= of an instance's unit: what has to be put back when its guest is gone

What needs the host's rights comes first, in the host's own mount namespace (the daemon has a sandboxed one of its own).
Then the guest's namespaces are entered for good, and what is left is done with no more rights than its root has. A line
on stderr says what went wrong; what was done before that is not undone here.
"""

from __future__ import annotations

import os
import signal
import sys

from sysd import _cext as c
from sysd.codec import decode
from sysd.runtime import shares
from sysd.runtime.beneath import LaunchError
from sysd.runtime.replay import HOST_NETNS_FD, NETNS_FD, open_netlink, replay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from sysd.runtime.shares import Share

    class Spec(TypedDict):
        """What is needed here of the launcher's."""

        uuid: str
        put_back: list[tuple[str, str]]

    class Change(TypedDict):
        """sysd.runtime.plugging.Change as it comes out of JSON."""

        id_base: int
        privileged: bool
        leader: int
        remove: list[Share]
        add: list[Share]
        links: list[tuple[str, str]]


GUEST = "guest"
PIN_DIR = "/run/syscont/netns"


def main() -> None:
    try:
        if sys.argv[1] == "--release":
            with open(sys.argv[2], "rb") as stream:
                spec: Spec = decode(stream.read().decode())
            release(spec)
        else:
            with open(0, "rb") as stream:
                change: Change = decode(stream.read().decode())
            apply(change, int(sys.argv[1]))
    except (OSError, LaunchError) as error:
        sys.stderr.write(str(error) + "\n")
        sys.exit(1)


def release(spec: Spec) -> None:
    """Physical links go back, the host answers for the guest no more, and the guest's network namespace ends."""
    pin = f"{PIN_DIR}/{spec['uuid']}"
    try:
        if spec["put_back"]:
            change_links(spec["put_back"], os.open(pin, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        c.unmount(pin)
        os.unlink(pin)


def apply(change: Change, pidfd: int) -> None:
    c.setns(os.open("/proc/1/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), c.CLONE_NEWNS)
    if change["links"]:
        change_links(change["links"], pidfd)
    if change["add"] or change["remove"]:
        change_shares(change, pidfd)


def change_links(links: list[tuple[str, str]], guest: int) -> None:
    """guest is a descriptor of one of its processes, or of its network namespace. Ends in the one we began in."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    host_netlink = open_netlink()
    c.setns(guest, c.CLONE_NEWNET)
    guest_netlink = open_netlink()
    inside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(inside, NETNS_FD, inheritable=False)
    os.dup2(here, HOST_NETNS_FD, inheritable=False)
    for side, request in links:
        c.setns(inside if side == GUEST else here, c.CLONE_NEWNET)
        replay(guest_netlink if side == GUEST else host_netlink, [request])
    c.setns(here, c.CLONE_NEWNET)


def change_shares(change: Change, pidfd: int) -> None:
    known = list(shares.identities(change["remove"]))
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    c.unshare(c.CLONE_NEWNS)
    c.mount_attributes(os.open("/", os.O_PATH | os.O_CLOEXEC), propagation=c.MS_SLAVE, recursive=True)
    if change["add"]:
        own = not change["privileged"]
        userns = os.open(f"/proc/{change['leader']}/ns/user", os.O_RDONLY | os.O_CLOEXEC) if own else -1
        signal.pidfd_send_signal(pidfd, 0)  # the number was its own, then
        shares.prepare(change["add"], userns, change["id_base"])
    # From here on the guest's files may come into view: no module may ever be loaded from them.
    sys.path.clear()
    sys.meta_path.clear()
    if not change["privileged"]:
        c.setns(pidfd, c.CLONE_NEWUSER)
    c.set_ids(0, 0)
    c.unshare(c.CLONE_NEWNS)
    collected = shares.collect(change["add"])
    c.setns(pidfd, c.CLONE_NEWNS)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for share, identity in zip(change["remove"], known, strict=True):
        shares.detach(share, identity, root, proc)
    shares.attach(collected, root)


if __name__ == "__main__":
    main()
