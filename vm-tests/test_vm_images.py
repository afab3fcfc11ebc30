# SPDX-License-Identifier: Apache-2.0
"""Images of virtual machines: what they become, and hostile disks, which become nothing. Nothing is started here."""

import json
import struct
from collections.abc import Iterator

import pytest
from guests import Done, syscont, systemd_property, unique, until
from hosts import Host
from test_images import LIBRARY, listed, show

from sysd.storage import qcow2

MIB = 1 << 20
PLACE = "/var/tmp/disks"


@pytest.fixture(scope="module")
def disks(vm_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder on the host with disks in both formats, some of which lead to a file of the host's."""
    vm_host.run(["mkdir", "-p", PLACE])
    vm_host.sh(
        f"cd {PLACE}; head -c 300k /dev/urandom >raw; truncate -s 64M raw; "
        "qemu-img convert -q -f raw -O qcow2 raw good; "
        "echo secret >secret; truncate -s 1M secret; qemu-img create -q -f qcow2 -b secret -F raw backed; "
        "truncate -s 200K backed; qemu-img create -q -f qcow2 -o data_file=data,data_file_raw=on split 1M"
    )
    folder = tmp_path_factory.mktemp("disks")
    for name, data in hostile().items():
        (folder / name).write_bytes(data)
        vm_host.push(folder / name, f"{PLACE}/{name}")
    yield PLACE
    vm_host.run(["rm", "-rf", PLACE])


def hostile() -> dict[str, bytes]:
    """Headers that say too much, and a small file that stands for a disk full of data."""
    empty = qcow2.empty(1 << 30)

    def changed(at: int, form: str, value: int) -> bytes:
        data = bytearray(empty)
        struct.pack_into(f">{form}", data, at, value)
        return bytes(data)

    return {
        "huge": changed(24, "Q", 1 << 62),
        "none": changed(24, "Q", 0),
        "clusters": changed(20, "I", 63),
        "table": changed(36, "I", 1 << 31),
        "counts": changed(56, "I", 1 << 31),
        "unknown": changed(72, "Q", 1 << 40),
        "cut": empty[:100],
        "bomb": bomb(),
    }


def bomb(tables: int = 8) -> bytes:
    """Some MiB that would be written out as 4 TiB: large clusters, all of which are the same."""
    bits, cluster = 21, 1 << 21
    out = bytearray(qcow2.empty(1 << 30)[:104].ljust((5 + tables) * cluster, b"\0"))
    struct.pack_into(">I", out, 20, bits)
    struct.pack_into(">Q", out, 24, tables * (cluster // 8) * cluster)
    struct.pack_into(">IQQ", out, 36, tables, 3 * cluster, cluster)
    for number in range(tables):
        struct.pack_into(">Q", out, 3 * cluster + 8 * number, (4 + number) * cluster)
    full = struct.pack(">Q", (4 + tables) * cluster) * (cluster // 8)
    out[4 * cluster : (4 + tables) * cluster] = full * tables
    return bytes(out)


def import_disk(host: Host, *argv: str, check: bool = True) -> Done:
    return syscont(host, "image", "import", *argv, check=check)


def folder_of(host: Host, fingerprint: str) -> list[str]:
    return sorted(host.run(["ls", "-A", f"{LIBRARY}/{fingerprint}"]).stdout.split())


def library(host: Host) -> str:
    return host.run(["ls", "-A", LIBRARY]).stdout


def test_a_tree_becomes_a_disk(vm_host: Host, debian_vm: str) -> None:
    shown = show(vm_host, debian_vm)
    fingerprint = str(shown["fingerprint"])
    assert (shown["type"], shown["init"]) == ("virtual-machine", "systemd")
    assert folder_of(vm_host, fingerprint) == ["disk.img", "initrd", "kernel"]
    disk = f"{LIBRARY}/{fingerprint}/disk.img"
    size, blocks = map(int, vm_host.run(["stat", "-c", "%s %b", disk]).stdout.split())
    assert size == shown["diskSize"]
    assert blocks * 512 == shown["size"]
    assert blocks * 512 < size / 2, "what is empty takes no room"
    assert vm_host.run(["stat", "-c", "%a %u", disk]).stdout.split() == ["600", "0"]
    said = vm_host.run(["sfdisk", "--json", disk]).stdout
    first, last = json.loads(said)["partitiontable"]["partitions"]
    assert "EFI" in vm_host.run(["mdir", "-b", "-i", f"{disk}@@{first['start'] * 512}", "::"]).stdout
    whole = f"dd if={disk} of={PLACE}.root bs=1M skip={last['start'] // 2048} conv=sparse status=none"
    said = vm_host.sh(f"{whole}; truncate -s {last['size'] * 512} {PLACE}.root; e2fsck -fn {PLACE}.root 2>&1; "
                      f"rm {PLACE}.root")  # fmt: skip
    assert "root: " in said


def test_the_list_tells_kinds_apart(vm_host: Host, debian_vm: str) -> None:
    syscont(vm_host, "image", "build", "busybox")
    text = syscont(vm_host, "image", "list", "--format", "csv", "-c", "ltD").stdout
    rows = {line.split(",")[0]: line.split(",")[1:] for line in text.splitlines()}
    assert rows["busybox"][0] == "container"
    assert rows[debian_vm][0] == "virtual-machine"
    fingerprint = show(vm_host, debian_vm)["fingerprint"]
    path = json.loads(vm_host.run(["busctl", "--json=short", "call", "org.syscont.Manager", "/org/syscont/Manager",
                                   "org.syscont.Manager", "GetImage", "s", debian_vm]).stdout)["data"][0]  # fmt: skip
    named = ["busctl", "--json=short", "get-property", "org.syscont.Manager", path, "org.syscont.Image"]
    values = [json.loads(vm_host.run([*named, name]).stdout)["data"] for name in ("Fingerprint", "Type", "DiskSize")]
    assert values == [fingerprint, "virtual-machine", show(vm_host, debian_vm)["diskSize"]]


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_bare_disks(vm_host: Host, disks: str, form: str) -> None:
    name = {"raw": "raw", "qcow2": "good"}[form]
    digest = import_disk(vm_host, f"{disks}/{name}", "--format", form).stdout.strip()
    try:
        assert folder_of(vm_host, digest) == ["disk.img"]
        vm_host.run(["cmp", f"{LIBRARY}/{digest}/disk.img", f"{disks}/raw"])
        shown = show(vm_host, digest)
        assert (shown["type"], shown["init"], shown["diskSize"]) == ("virtual-machine", "other", 64 * MIB)
        assert int(str(shown["size"])) < MIB
        again = vm_host.sh(f"cat {disks}/{name} | syscont image import - --format {form}")
        assert again.strip() == digest
    finally:
        syscont(vm_host, "image", "delete", digest)
    assert digest not in library(vm_host)


def test_images_of_lxd(vm_host: Host, disks: str) -> None:
    """Unified: metadata.yaml and rootfs.img, which is qcow2 whatever it is called. Split: metadata and disk.qcow2."""
    facts = "architecture: x86_64\ncreation_date: 1700000000\nproperties: {os: Test, description: of LXD}\n"
    vm_host.write_text(f"{disks}/metadata.yaml", facts)
    vm_host.sh(
        f"cd {disks}; cp good rootfs.img; tar -czf unified.tar.gz metadata.yaml rootfs.img; "
        "tar -cJf metadata.tar.xz metadata.yaml"
    )
    for files in (["unified.tar.gz"], ["metadata.tar.xz", "good"]):
        digest = import_disk(vm_host, *(f"{disks}/{name}" for name in files)).stdout.strip()
        try:
            expected = vm_host.sh(f"cd {disks}; cat {' '.join(files)} | sha256sum").split()[0]
            assert digest == expected
            vm_host.run(["cmp", f"{LIBRARY}/{digest}/disk.img", f"{disks}/raw"])
            assert show(vm_host, digest)["description"] == "of LXD"
        finally:
            syscont(vm_host, "image", "delete", digest)


def test_a_header_on_a_raw_disk_is_data(vm_host: Host, disks: str) -> None:
    """Nobody asks such a disk what it is, so it names no file of the host's."""
    digest = import_disk(vm_host, f"{disks}/backed", "--format", "raw").stdout.strip()
    try:
        vm_host.run(["cmp", f"{LIBRARY}/{digest}/disk.img", f"{disks}/backed"])
    finally:
        syscont(vm_host, "image", "delete", digest)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("backed", "has a backing file"),
        ("split", "has its data in another file"),
        ("raw", "not in the format qcow2"),
        ("huge", "a disk can't have"),
        ("none", "a disk can't have"),
        ("clusters", "clusters of 2^63 bytes"),
        ("table", "a table of 2147483648 entries"),
        ("counts", "clusters of reference counts"),
        ("unknown", "features that are not known"),
        ("cut", "ends in its header"),
        ("bomb", "more data than its limit"),
    ],
)
def test_hostile_disks(vm_host: Host, disks: str, name: str, why: str) -> None:
    before = library(vm_host)
    refused = import_disk(vm_host, f"{disks}/{name}", "--format", "qcow2", check=False)
    assert refused.returncode == 2, refused
    assert why in refused.stderr
    assert library(vm_host) == before


def test_a_disk_without_a_word_is_no_archive(vm_host: Host, disks: str) -> None:
    refused = import_disk(vm_host, f"{disks}/good", check=False)
    assert "--format qcow2" in refused.stderr
    refused = import_disk(vm_host, f"{disks}/good", "--format", "vmdk", check=False)
    assert refused.returncode
    assert "raw" in refused.stderr


def test_an_endless_disk(vm_host: Host, disks: str) -> None:
    """Data that is no qcow2 is refused at its beginning; zeros take no room, and can be ended."""
    before = library(vm_host)
    said = vm_host.sh("(yes | timeout 60 syscont image import - --format qcow2) 2>&1 || true")
    assert "not in the format qcow2" in said
    script = "cat /dev/zero | syscont image import - --format raw"
    with vm_host.spawn(["sh", "-c", script]) as importing:
        try:
            draft = until(vm_host, lambda: draft_disk(vm_host))
            assert int(vm_host.run(["stat", "-c", "%b", draft]).stdout) < 1000
            for operation in json.loads(syscont(vm_host, "operation", "list", "--format", "json").stdout):
                if operation["status"] == "running":
                    syscont(vm_host, "operation", "cancel", operation["id"])
            said = importing.communicate(timeout=60)[1]
        finally:
            importing.kill()
    assert "cancelled" in said
    assert library(vm_host) == before
    assert not running(vm_host)


def test_a_worker_that_is_killed_leaves_nothing(vm_host: Host, disks: str) -> None:
    """In the middle of a disk, more of which is still to come."""
    before = library(vm_host)
    script = f"(cat {disks}/raw; exec sleep 60) | syscont image import - --format raw"
    with vm_host.spawn(["sh", "-c", script]) as importing:
        try:
            until(vm_host, lambda: draft_disk(vm_host))
            (unit,) = running(vm_host)
            vm_host.run(["systemctl", "kill", "--signal=KILL", unit])
            until(vm_host, lambda: not running(vm_host))
            until(vm_host, lambda: ended(vm_host, "sleep 60"))
            said = importing.communicate(timeout=60)[1]
        finally:
            importing.kill()
    assert "the image could not be unpacked" in said
    assert library(vm_host) == before


def test_a_daemon_that_is_killed_leaves_nothing(vm_host: Host, disks: str) -> None:
    before = library(vm_host)
    script = f"(cat {disks}/raw; exec sleep 61) | syscont image import - --format raw"
    with vm_host.spawn(["sh", "-c", script]) as importing:
        try:
            until(vm_host, lambda: draft_disk(vm_host))
            vm_host.run(["systemctl", "kill", "--signal=KILL", "syscontd.service"])
            until(vm_host, lambda: systemd_property(vm_host, "syscontd.service", "ActiveState") != "active")
            listed(vm_host)
            until(vm_host, lambda: ended(vm_host, "sleep 61"))
            importing.communicate(timeout=60)
        finally:
            importing.kill()
    until(vm_host, lambda: library(vm_host) == before)
    until(vm_host, lambda: not running(vm_host))


def test_a_disk_that_was_removed_by_hand_is_named(vm_host: Host, disks: str) -> None:
    digest = import_disk(vm_host, f"{disks}/good", "--format", "qcow2", "--alias", unique("gone-")).stdout.strip()
    vm_host.run(["rm", f"{LIBRARY}/{digest}/disk.img"])
    vm_host.run(["systemctl", "restart", "syscontd.service"])
    assert digest in listed(vm_host)
    said = vm_host.run(["journalctl", "-u", "syscontd.service", "--output=cat"]).stdout
    assert f"the files of image {digest} are missing" in said
    syscont(vm_host, "image", "delete", digest)


def test_a_tree_without_a_kernel(vm_host: Host, disks: str) -> None:
    """A container's image can't become a machine, and the builder says which of them can't."""
    facts = "architecture: x86_64\ncreation_date: 1700000000\n"
    vm_host.write_text(f"{disks}/metadata.yaml", facts)
    vm_host.sh(
        f"cd {disks}; mkdir -p tree/sbin; cp /bin/true tree/sbin/init; tar -cf tree.tar -C tree .; "
        "tar -cf metadata.tar metadata.yaml"
    )
    refused = import_disk(vm_host, f"{disks}/metadata.tar", f"{disks}/tree.tar", "--vm", check=False)
    assert "no kernel" in refused.stderr
    refused = syscont(vm_host, "image", "build", "busybox", "--vm", check=False)
    assert "it has no kernel" in refused.stderr


def ended(host: Host, command: str) -> bool:
    """Whether it had begun, and is ended now."""
    return host.run(["pkill", "-f", f"^{command}$"], check=False).returncode == 0


def draft_disk(host: Host) -> str:
    """Of the import that is under way."""
    return host.sh(f"ls -d {LIBRARY}/.draft-*/disk.img 2>/dev/null || true").strip()


def running(host: Host) -> list[str]:
    units = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "syscont-image@*"]
    return [line.split()[0] for line in host.run(units).stdout.splitlines()]
