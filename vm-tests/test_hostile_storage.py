# SPDX-License-Identifier: Apache-2.0
"""A guest, privileged or not, fills its tree with what leads out of it; then all is done that reads and writes such a
tree: files, snapshots, copies, backups, images, devices, stop and start, running and stopped.

Each ends in time, in an error or in the guest, and the host's canary is as it was.
"""

import shlex
from collections.abc import Iterator

import canaries
import leftovers
import pytest
from conftest import Launch
from guests import Instance, syscont
from hosts import Host

CANARY = canaries.PLACE
pytestmark = pytest.mark.usefixtures("canary")

# Links to the canary under each route, of folders and files; names that are options of tar and of others, and bytes
# that are no text; kinds of files that nobody should open; a tree too deep for a path, a file too large for a disk.
TREE = f"""
mkdir -p /srv/evil; cd /srv/evil; number=0
for route in {" ".join(canaries.ROUTES)}; do
    number=$((number + 1)); ln -s $route d$number; ln -s $route/file f$number; ln -s $route/new/deep n$number; done
ln f1 hard; ln -s loop loop; ln -s d1/../d2 chain; ln -s . self; ln -s / root
touch -- --checkpoint=1 '--checkpoint-action=exec=touch {CANARY}/ran' --to-command=reboot -rf '*' '$(reboot)' .wh.file
touch "$(printf 'a\\nb')" "$(printf '\\377')" "$(printf '\\033[31m')" ..links upper.links
mkfifo pipe; mknod whiteout c 0 0; mknod disk b 8 0; mknod memory c 1 1
cp /bin/busybox suid; chmod 6755 suid; truncate -s 500G hole
mkdir -p {"d/" * 200}
"""

# What is in the place of what programs of the host's look for in a guest.
FILES = "passwd group shadow hostname machine-id resolv.conf"
OWN = {
    "files": f"for name in {FILES}; do ln -sf {CANARY}/$name /etc/$name; done",
    "etc": f"mv /etc /etc.was; ln -s {CANARY} /etc",
    "pipe": "mv /etc /etc.was; mkfifo /etc",
    "up": f"mv /etc /etc.was; ln -s ../../../../..{CANARY} /etc",
}
# These are mounted over while it runs: in its layer, as the next start finds them.
MOUNTED = "dev proc sys run tmp root"


def attempt(host: Host, *argv: str, **options: object) -> bool:
    """Whether it went well. If not it says why in one line, in time."""
    done = syscont(host, *argv, check=False, timeout=60, **options)
    assert "Traceback" not in done.stderr, done
    assert "internal error" not in done.stderr, done
    if done.returncode and argv[0] != "exec":
        assert len(done.stderr.splitlines()) == 1, done
    return not done.returncode


def enter(one: Instance) -> None:
    """All that goes into a tree by a path."""
    host, at = one.host, f"{one.name}/srv/evil"
    for options in ("--user=root", "--user=daemon", "--cwd=/etc", "--cwd=/srv/evil/d1"):
        attempt(host, "exec", options, one.name, "--", "true")
    for path in (f"{at}/d1/file", f"{at}/f2", f"{at}/n3", f"{at}/chain/new", f"{one.name}/etc/passwd"):
        attempt(host, "file", "push", "-", path, "--create-dirs", input="evil")
        attempt(host, "file", "delete", path)
        attempt(host, "file", "mkdir", "-p", f"{path}/d")
    pulled = host.sh("mktemp -d").strip()
    attempt(host, "file", "pull", "-r", at, pulled)
    assert host.sh(f"grep -rl untouched {pulled} || true") == ""
    host.sh(f"rm -rf {pulled}")


def plug(one: Instance) -> None:
    for name in ("d1", "d2", "d3", "chain", "n4"):
        path = f"path=/srv/evil/{name}/x"
        attempt(one.host, "device", "add", one.name, name, "disk", "source=/usr", "readonly=true", path)
        attempt(one.host, "device", "add", one.name, f"node-{name}", "unix-char", "source=/dev/null", f"{path}y")
        attempt(one.host, "device", "remove", one.name, name)
        attempt(one.host, "device", "remove", one.name, f"node-{name}")


def use_and_delete(host: Host, reference: str) -> None:
    """One that was made of the hostile one."""
    if attempt(host, "start", reference):
        attempt(host, "exec", "--user=daemon", "--cwd=/etc", reference, "--", "true")
    attempt(host, "file", "push", "-", f"{reference}/etc/passwd", input="evil")
    syscont(host, "delete", "--force", reference)


def store(one: Instance) -> None:
    """All that copies a tree."""
    host, made = one.host, f"{one.name}-made"
    assert attempt(host, "snapshot", "create", one.name, "s")
    for source in (one.name, f"{one.name}/s"):
        assert attempt(host, "copy", source, made)
        use_and_delete(host, made)
    if attempt(host, "publish", one.name, "--alias", made):
        attempt(host, "create", made, made)
        use_and_delete(host, made)
        syscont(host, "image", "delete", made)
    backup = f"/var/tmp/{made}"
    assert attempt(host, "export", one.name, backup, "--compression", "none")
    if attempt(host, "import", backup, made):
        use_and_delete(host, made)
    host.sh(f"rm {backup}")
    assert attempt(host, "snapshot", "restore", one.name, "s")
    assert attempt(host, "snapshot", "delete", one.name, "s")


@pytest.fixture
def evil(request: pytest.FixtureRequest, host: Host, guest: Instance, launch: Launch) -> Iterator[Instance]:
    """A running instance; after the test nothing of it is left."""
    privileged, own = request.param
    before, place = leftovers.settled(host), leftovers.mark(host)
    one = launch("", "-c", f"security.privileged={privileged}")
    one.sh(TREE, check=False)
    one.sh(OWN[own], check=False)
    yield one
    one.do("delete", "--force")
    leftovers.expect_same(host, before)
    assert "Traceback" not in place.since()


def put_links_for_mount_points(one: Instance) -> None:
    layer = shlex.quote(one.on_disk("/"))
    one.host.sh(f"cd {layer}; for name in {MOUNTED}; do rm -rf $name; ln -s {CANARY} $name; done")


def cases(*now: tuple[str, str]) -> pytest.MarkDecorator:
    """All of them; those that are not to run in make check are heavy."""
    every = [(privileged, own) for privileged in ("false", "true") for own in OWN]
    marked = [pytest.param(each, marks=[] if each in now else [pytest.mark.heavy]) for each in every]
    return pytest.mark.parametrize("evil", marked, indirect=True, ids=[f"privileged={p}, {own}" for p, own in every])


@cases(("false", "etc"), ("true", "files"))
def test_what_enters_a_guest_stays_in_it(host: Host, evil: Instance) -> None:
    enter(evil)
    plug(evil)
    evil.do("stop", "--force")
    put_links_for_mount_points(evil)
    enter(evil)
    if attempt(host, "start", evil.name):
        host.run(["systemctl", "restart", "syscontd"])  # which takes it up again
        enter(evil)
        evil.do("stop", "--force")


@cases(("false", "etc"))
def test_what_copies_a_guest_takes_nothing_else(evil: Instance) -> None:
    store(evil)
    evil.do("stop", "--force")
    put_links_for_mount_points(evil)
    store(evil)
