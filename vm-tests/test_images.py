# SPDX-License-Identifier: Apache-2.0
"""Images: built, imported in LXD's forms, shared, looked after."""

import base64
import hashlib
import io
import json
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
import yaml
from conftest import Launch
from guests import Instance, on_terminal, syscont, unique
from hosts import Host, images

LIBRARY = "/var/lib/syscont/images"


def listed(host: Host) -> dict[str, dict[str, object]]:
    found = json.loads(syscont(host, "image", "list", "--format", "json").stdout)
    return {image["fingerprint"]: image for image in found}


def show(host: Host, reference: str) -> dict[str, object]:
    text = syscont(host, "image", "show", reference).stdout
    shown: dict[str, object] = yaml.safe_load(text)
    return shown


# what LXD writes


def described(tree: str, name: str) -> bytes:
    """A metadata.yaml as `lxc image export` has it, templates and all."""
    return yaml.safe_dump(
        {
            "architecture": "x86_64",
            "creation_date": 1700000000,
            "expiry_date": 1800000000,
            "properties": {"description": name, "os": tree, "release": "1", "serial": "x"},
            "templates": {"/etc/hostname": {"when": ["create", "copy"], "template": "hostname.tpl"}},
        }
    ).encode()


def busybox_tree(path: Path, busybox: bytes, mark: str) -> Path:
    """The root file system of a minimal system, in a folder."""
    for folder in ("bin", "sbin", "dev", "proc", "sys", "run", "tmp", "etc", "root"):
        (path / folder).mkdir(parents=True)
    (path / "bin/busybox").write_bytes(busybox)
    (path / "bin/busybox").chmod(0o755)
    for applet in ("bin/sh", "bin/cat", "bin/ls", "bin/id", "sbin/init"):
        (path / applet).symlink_to("/bin/busybox")
    (path / "etc/mark").write_text(mark)
    (path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    return path


@pytest.fixture(scope="session")
def busybox_binary(host: Host) -> bytes:
    """The host's own, which the machine has not."""
    return base64.b64decode(host.run(["base64", "/bin/busybox"]).stdout)


@pytest.fixture
def lxd(host: Host, busybox_binary: bytes, tmp_path: Path) -> "Lxd":
    return Lxd(host, busybox_binary, tmp_path)


class Lxd:
    """Writes images as LXD exports them, into the host's /var/tmp."""

    def __init__(self, host: Host, busybox: bytes, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.mark = unique("mark-")
        self.tree = busybox_tree(folder / "image/rootfs", busybox, self.mark)
        (folder / "image/metadata.yaml").write_bytes(described("busybox", self.mark))
        (folder / "image/templates").mkdir()
        (folder / "image/templates/hostname.tpl").write_text("{{ container.name }}\n")

    def _push(self, path: Path) -> str:
        remote = f"/var/tmp/{self.mark}-{path.name}"
        self.host.push(path, remote)
        return remote

    def unified(self, compression: str) -> tuple[str, str]:
        """Where it is on the host, and its SHA-256."""
        path = self.folder / f"image.tar.{compression}"
        program = {"gz": "gzip", "xz": "xz -1", "zst": "zstd", "bz2": "bzip2", "none": "cat"}
        tar = ["tar", "-C", str(self.folder / "image"), "--owner=0", "--group=0", "-cf", str(path)]
        subprocess.run([*tar, "-I", program[compression], "metadata.yaml", "templates", "rootfs"], check=True)
        return self._push(path), hashlib.sha256(path.read_bytes()).hexdigest()

    def split(self, kind: str) -> tuple[str, str, str]:
        metadata, rootfs = self.folder / "metadata.tar.xz", self.folder / f"rootfs.{kind}"
        with tarfile.open(metadata, "w:xz") as out:
            data = (self.folder / "image/metadata.yaml").read_bytes()
            info = tarfile.TarInfo("metadata.yaml")
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
            out.add(self.folder / "image/templates", "templates")
        make = {
            "squashfs": ["mksquashfs", str(self.tree), str(rootfs), "-all-root", "-no-progress"],
            "tar.xz": ["tar", "-C", str(self.tree), "--owner=0", "--group=0", "-cJf", str(rootfs), "."],
        }
        subprocess.run(make[kind], check=True, capture_output=True)
        both = metadata.read_bytes() + rootfs.read_bytes()
        return self._push(metadata), self._push(rootfs), hashlib.sha256(both).hexdigest()

    def check(self, launch: Launch, fingerprint: str) -> None:
        shown = show(self.host, fingerprint)
        assert shown["description"] == self.mark
        assert shown["init"] == "busybox"
        instance = launch(fingerprint)
        assert instance.exec("/bin/cat", "/etc/mark").stdout == self.mark
        instance.do("delete", "--force")
        syscont(self.host, "image", "delete", fingerprint)
        self.host.sh(f"rm /var/tmp/{self.mark}-*")


@pytest.mark.parametrize("compression", ["none", "gz", "bz2", "xz", "zst"])
def test_unified_import(host: Host, lxd: Lxd, launch: Launch, compression: str) -> None:
    path, digest = lxd.unified(compression)
    assert syscont(host, "image", "import", path).stdout.strip() == digest
    lxd.check(launch, digest)


@pytest.mark.parametrize("kind", ["squashfs", "tar.xz"])
def test_split_import(host: Host, lxd: Lxd, launch: Launch, kind: str) -> None:
    metadata, rootfs, digest = lxd.split(kind)
    # LXD's fingerprint of a split image is that of both files in a row.
    assert syscont(host, "image", "import", metadata, rootfs).stdout.strip() == digest
    lxd.check(launch, digest)


def test_import_from_a_pipe(host: Host, lxd: Lxd, launch: Launch) -> None:
    path, digest = lxd.unified("gz")
    assert host.sh(f"cat {path} | syscont image import -").strip() == digest
    lxd.check(launch, digest)


def test_the_same_image_twice_is_one(host: Host, lxd: Lxd, launch: Launch) -> None:
    path, digest = lxd.unified("gz")
    first, second = unique("alias"), unique("alias")
    syscont(host, "image", "import", path, "--alias", first)
    before = len(listed(host))
    assert syscont(host, "image", "import", path, "--alias", second).stdout.strip() == digest
    assert len(listed(host)) == before
    assert listed(host)[digest]["aliases"] == [first, second]
    lxd.check(launch, digest)


def test_an_lxd_debian_gets_an_address(host: Host, launch: Launch, tmp_path: Path) -> None:
    """One that knows nothing of us: networkd set up for eth0 only, as on images.linuxcontainers.org."""
    metadata, rootfs = images.debian()
    for path in (metadata, rootfs):
        host.push(path, f"/var/tmp/lxd-{path.name}")
    script = f"""
        mkdir /var/tmp/lxd && cd /var/tmp/lxd && mkdir rootfs
        tar -C rootfs -xf /var/tmp/lxd-{rootfs.name}
        rm rootfs/etc/systemd/network/*
        printf '[Match]\\nName=eth0\\n\\n[Network]\\nDHCP=true\\n' >rootfs/etc/systemd/network/eth0.network
        echo lxd-made >rootfs/etc/hostname
        tar -xf /var/tmp/lxd-{metadata.name}
        tar -cf image.tar --zstd metadata.yaml rootfs
        syscont image import image.tar --alias lxd-debian
        rm -r /var/tmp/lxd /var/tmp/lxd-*"""
    host.sh(script)
    instance = launch("lxd-debian", "--wait")
    address = instance.address()
    host.run(["ping", "-c1", "-W5", address])
    assert instance.address(version=6)
    assert instance.exec("hostname").stdout.strip() == instance.name
    instance.do("delete", "--force")
    syscont(host, "image", "delete", "lxd-debian")


# ours


def test_build_is_fast_and_always_the_same(host: Host, busybox: str) -> None:
    begin = time.monotonic()
    first = syscont(host, "image", "build", "busybox").stdout
    assert time.monotonic() - begin < 5 * host.slowness
    assert syscont(host, "image", "build", "busybox").stdout == first
    assert show(host, busybox)["fingerprint"] == first.strip()


KILL_WORKER = """
for i in $(seq 1000); do
    unit=$(systemctl list-units --plain --no-legend 'syscont-image@*' | cut -d' ' -f1)
    [ -z "$unit" ] || { systemctl kill --signal=KILL "$unit" && exit 0; }
done
exit 1
"""


def test_a_worker_that_is_killed_ends_its_build(host: Host, busybox: str) -> None:
    before = host.run(["ls", "-A", LIBRARY]).stdout
    script = f"({KILL_WORKER}) & timeout 30 syscont image build busybox 2>&1 || echo status $?; wait $!"
    said = host.sh(script)
    assert "the image could not be unpacked" in said
    assert "status 1" in said
    units = ["systemctl", "list-units", "--all", "--plain", "--no-legend"]
    assert not host.run([*units, "syscont-image@*", "syscont-build@*"]).stdout
    assert host.run(["ls", "-A", LIBRARY]).stdout == before


def test_two_imports_with_one_alias(host: Host, lxd: Lxd) -> None:
    """The later one is told, and leaves nothing."""
    path, digest = lxd.unified("none")
    script = f"syscont image import {path} --alias {lxd.mark} 2>&1 && echo status 0 || echo status $?"
    both = host.sh(f"({script}) >/tmp/first & ({script}) >/tmp/second; wait; cat /tmp/first /tmp/second")
    assert sorted(line for line in both.splitlines() if line.startswith("status")) == ["status 0", "status 1"]
    assert f"image alias '{lxd.mark}' exists already" in both
    assert listed(host)[digest]["aliases"] == [lxd.mark]
    syscont(host, "image", "delete", digest)
    host.run(["rm", path])


def test_strange_entries_do_not_keep_the_daemon_from_starting(host: Host, busybox: str) -> None:
    strange = [f"{LIBRARY}/{name}" for name in ("lost+found", "note", "0" * 64, ".draft-file")]
    host.run(["mkdir", strange[0], f"{LIBRARY}/.draft-folder"])
    host.run(["touch", *strange[1:]])
    try:
        host.run(["systemctl", "restart", "syscontd.service"])
        assert show(host, busybox)
        host.run(["ls", "-d", *strange[:2]])
        assert host.run(["test", "-e", f"{LIBRARY}/.draft-folder"], check=False).returncode
    finally:
        host.run(["rm", "-rf", *strange])


def test_debian_is_recognised(host: Host, debian: str) -> None:
    shown = show(host, debian)
    assert shown["init"] == "systemd"
    properties = shown["properties"]
    assert isinstance(properties, dict)
    assert properties["os"] == "Debian"


def test_instances_share_their_image(host: Host, debian: str, launch: Launch) -> None:
    """Creating copies nothing: what an instance takes on disk has nothing to do with its image's size."""
    size = show(host, debian)["size"]
    assert isinstance(size, int)
    assert size > 50 << 20
    one, two = launch(debian, verb="create"), launch(debian, verb="create")
    used = sum(int(host.sh(f"du -sb {one.on_disk('/')}/..").split()[0]) for one in (one, two))
    assert used < 1 << 20
    one.do("start", "--wait")
    two.do("start", "--wait")
    one.sh("echo mine >/etc/motd; rm /etc/debian_version")
    assert two.exec("cat", "/etc/motd", check=False).stdout != "mine\n"
    two.exec("cat", "/etc/debian_version")
    for each in (one, two):
        assert "/run/syscont/launch/image" in each.sh("grep ' / ' /proc/mounts")
    assert int(host.sh(f"du -sb {one.on_disk('/')}").split()[0]) < size / 10


def test_what_a_guest_writes_never_reaches_its_image(host: Host, busybox: str, launch: Launch) -> None:
    fingerprint = show(host, busybox)["fingerprint"]
    rootfs = f"{LIBRARY}/{fingerprint}/rootfs"
    digest = f"cd {rootfs} && find . -ls | cut -c11- | sha256sum; tar -c . | sha256sum"
    before = host.sh(digest)
    instance = launch()
    instance.sh("echo bad >/etc/passwd; rm -r /var; chmod 777 /bin; chown 5 /etc; mv /usr /moved || true")
    instance.do("delete", "--force")
    assert host.sh(digest) == before


def test_aliases(host: Host, busybox: str) -> None:
    alias = unique("some/alias-")
    syscont(host, "image", "alias", "add", alias, busybox)
    assert show(host, alias)["fingerprint"] == show(host, busybox)["fingerprint"]
    text = syscont(host, "image", "alias", "list", "--format", "json").stdout
    assert alias in [row["alias"] for row in json.loads(text)]
    taken = syscont(host, "image", "alias", "add", alias, busybox, check=False)
    assert taken.returncode == 1
    syscont(host, "image", "alias", "remove", alias)
    assert syscont(host, "image", "show", alias, check=False).returncode == 3
    assert syscont(host, "image", "show", busybox).stdout


def test_the_beginning_of_a_fingerprint_will_do(host: Host, busybox: str) -> None:
    fingerprint = str(show(host, busybox)["fingerprint"])
    assert show(host, fingerprint[:12])["fingerprint"] == fingerprint


def test_an_image_in_use_stays(host: Host, busybox: str, guest: Instance) -> None:
    refused = syscont(host, "image", "delete", busybox, check=False)
    assert refused.returncode == 1
    assert f"used by {guest.name}" in refused.stderr or "is used by" in refused.stderr
    guest.sh("true")


def test_delete_leaves_nothing(host: Host, lxd: Lxd) -> None:
    path, digest = lxd.unified("none")
    syscont(host, "image", "import", path, "--alias", lxd.mark)
    host.run(["test", "-d", f"{LIBRARY}/{digest}"])
    syscont(host, "image", "delete", lxd.mark)
    assert digest not in listed(host)
    assert digest not in host.run(["ls", "-A", LIBRARY]).stdout
    assert syscont(host, "image", "show", lxd.mark, check=False).returncode == 3


def test_progress_on_a_terminal_and_silence_in_a_pipe(host: Host, lxd: Lxd) -> None:
    (lxd.tree / "root/ballast").write_bytes(bytes(range(256)) * 400_000)
    path, digest = lxd.unified("none")
    status, shown = on_terminal(host, ["syscont", "image", "import", path])
    assert status == 0
    assert "%" in shown
    syscont(host, "image", "delete", digest)
    quiet = syscont(host, "image", "import", path)
    assert (quiet.stdout.strip(), quiet.stderr) == (digest, "")
    syscont(host, "image", "delete", digest)
    host.run(["rm", path])
