# SPDX-License-Identifier: Apache-2.0
"""A guest that puts links, devices and pipes where its own files were, before it is entered, stopped and started.

What must hold: the host's canary is as it was, and the guest can still be ended.
"""

import canaries
import pytest
from conftest import Launch
from guests import Instance, syscont
from hosts import Host

CANARY = canaries.PLACE
PLACES = canaries.ROUTES[:3]
pytestmark = pytest.mark.usefixtures("canary")
OWN = ["etc", "dev", "proc", "sys", "run", "tmp", "root"]
FILES = ["etc/passwd", "etc/group", "etc/hostname", "etc/resolv.conf", "etc/machine-id"]


def _use(one: Instance) -> None:
    """All that enters a guest; it may fail, in time."""
    for user in ("root", "0", "daemon"):
        syscont(one.host, "exec", "--user", user, one.name, "--", "true", check=False)
    syscont(one.host, "exec", "--cwd", "/etc", one.name, "--", "true", check=False)
    syscont(one.host, "exec", one.name, "--", "sh", "-c", "echo x >/tmp/x; echo x 1<>/etc/passwd", check=False)
    syscont(one.host, "info", one.name)


def _stop_and_start(one: Instance) -> None:
    one.do("stop", "--force")
    assert one.state == "stopped"
    if one.do("start", check=False).returncode == 0:
        _use(one)
        one.do("stop", "--force")


@pytest.mark.parametrize("own", OWN)
def test_folders_that_are_links(host: Host, launch: Launch, own: str) -> None:
    """On disk, as the guest's next start finds them; while it runs, what is mounted there stays."""
    one = launch()
    one.sh(f"mv /{own} /{own}.old; rm -rf /{own}; ln -s {PLACES[0]} /{own}", check=False)
    _use(one)
    one.do("stop", "--force")
    for place in PLACES:
        host.sh(f"cd {one.on_disk('/')}; rm -rf {own}; ln -s {place} {own}; chown -h 0:0 {own}")
        if one.do("start", check=False).returncode == 0:
            _use(one)
            one.do("stop", "--force")


@pytest.mark.parametrize(
    "made", [f"ln -s {CANARY}/file", "mkfifo", "mkdir", "ln -s /dev/console", "ln -s /proc/self/fd/0"]
)
def test_files_that_are_something_else(launch: Launch, made: str) -> None:
    one = launch()
    for name in FILES:
        one.sh(f"rm -rf /{name}; {made} /{name}", check=False)
    _use(one)
    _stop_and_start(one)


@pytest.mark.parametrize("place", PLACES)
def test_folders_moved_away_by_mounts(launch: Launch, place: str) -> None:
    """The guest's root may mount and unmount what it likes, over what was made for it."""
    one = launch()
    one.sh("umount -l /dev/pts; umount -l /proc/sys/net; umount -l /proc/sys; umount -l /run/host; umount -l /sys")
    one.sh(f"mount -t tmpfs none /dev; ln -s {place} /dev/pts; ln -s {place}/null /dev/null; mkfifo /dev/console")
    _use(one)
    one.sh(f"mount -t tmpfs none /proc; ln -s {place} /proc/self", check=False)
    _use(one)
    _stop_and_start(one)


@pytest.mark.parametrize("init", [f"ln -s {CANARY}/file", "mkfifo", "mkdir", "ln -s /proc/self/exe", "ln -s init"])
def test_no_init_any_more(host: Host, launch: Launch, init: str) -> None:
    one = launch()
    one.do("stop", "--force")
    host.sh(f"cd {one.on_disk('/')}; mkdir -p sbin; rm -rf sbin/init; {init} sbin/init")
    done = one.do("start", check=False)
    one.do("stop", "--force", check=False)
    assert one.state in ("stopped", "failed"), done.stderr


def test_a_guest_with_replaced_programs(host: Host, launch: Launch) -> None:
    """What looks users up, and enters, runs nothing of the guest's but the command."""
    one = launch()
    one.sh(f"for name in id getent nsenter login; do echo 'echo bad >{CANARY}/file' >/bin/$name; done", check=False)
    one.sh("mkdir -p /etc; echo '/bad.so' >/etc/ld.so.preload; echo 'passwd: bad' >/etc/nsswitch.conf", check=False)
    _use(one)
    assert one.exec("echo", "well").stdout == "well\n"


@pytest.mark.parametrize("privileged", ["false", "true"])
def test_sockets_that_are_links(host: Host, launch: Launch, privileged: str) -> None:
    """The guest replaces what it talks to the host by; the daemon, this one and the next, has its own ends."""
    one = launch("", "-c", f"security.privileged={privileged}")
    one.sh(f"rm -rf /dev/syscont /dev/lxd; ln -s {CANARY} /dev/syscont; ln -s {CANARY} /dev/lxd", check=False)
    one.sh(f"umount -l /run/host; rm -rf /run/host; ln -s {CANARY}/host /run/host", check=False)
    one.sh(f"umount -l /dev/console; rm -f /dev/console; ln -s {CANARY}/console /dev/console", check=False)
    host.run(["systemctl", "restart", "syscontd"])
    syscont(host, "config", "set", one.name, "user.told=1", "security.devlxd=false")
    syscont(host, "config", "set", one.name, "security.devlxd=true")
    syscont(host, "logs", one.name)
    _use(one)
    _stop_and_start(one)
