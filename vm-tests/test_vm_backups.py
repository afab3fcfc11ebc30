# SPDX-License-Identifier: Apache-2.0
"""Backups of virtual machines, and images made of them: what went out comes back, here and in Incus."""

import json
from collections.abc import Iterator

import pytest
from guests import Instance, syscont, until
from hosts import Host

BOOT = 180.0
"""Seconds that a machine may take to boot on a host that does other things too."""
FOLDER = "/var/tmp/backups"
DIRECT = ("--vm", "-c", "boot.mode=direct")


@pytest.fixture
def vm(vm_host: Host, debian_vm: str) -> Iterator[Instance]:
    vm_host.sh(f"mkdir -p {FOLDER}")
    syscont(vm_host, "launch", debian_vm, "saved", *DIRECT, "-c", "user.note=kept")
    one = Instance(vm_host, "saved")
    try:
        booted(one)
        yield one
    finally:
        for name in ("saved", "made"):
            syscont(vm_host, "delete", "--force", name, check=False)
        syscont(vm_host, "image", "delete", "then", check=False)
        vm_host.sh(f"rm -rf {FOLDER}")


def booted(one: Instance) -> None:
    """And lets commands in."""
    until(one.host, lambda: one.state == "running", patience=BOOT)
    until(one.host, lambda: one.exec("true", check=False).returncode == 0, patience=BOOT)


def test_a_machine_comes_back(vm: Instance) -> None:
    """With its snapshot, of which an image is made."""
    host, file = vm.host, f"{FOLDER}/saved"
    vm.sh("echo before >/root/mark; sync")
    syscont(vm.host, "snapshot", "create", vm.name, "s")
    vm.sh("echo after >/root/mark; sync")
    syscont(host, "export", "saved", file, "--compression", "zstd")
    assert vm.state == "running"
    listed = host.sh(f"tar -tf {file} | sort").split()
    expected = ["backup/index.yaml", "backup/virtual-machine.img", "backup/virtual-machine-snapshots/s.img"]
    assert set(expected) <= set(listed)
    vm.do("delete --force")
    done = syscont(host, "import", file)
    assert (done.stdout, done.stderr) == ("saved\n", "")
    seen = vm.seen()
    assert (seen["type"], seen["config"]["user.note"]) == ("virtual-machine", "kept")
    vm.do("start")
    booted(vm)
    assert vm.sh("cat /root/mark") == "after\n"
    vm.do("stop --force")

    fingerprint = syscont(host, "publish", "saved/s", "--alias", "then").stdout.strip()
    shown = json.loads(syscont(host, "image", "show", "then", "--format", "json").stdout)
    assert (shown["type"], shown["fingerprint"]) == ("virtual-machine", fingerprint)
    syscont(host, "launch", "then", "made", *DIRECT)
    made = Instance(host, "made")
    booted(made)
    assert made.sh("cat /root/mark") == "before\n"
    refused = syscont(host, "image", "delete", "then", check=False)
    assert "is used by" in refused.stderr


def test_a_backup_that_can_not_be_written(vm: Instance) -> None:
    """Leaves nothing behind, and the machine running."""
    host = vm.host
    before = host.sh("find /var/lib/syscont/instances -maxdepth 4 -type f | sort")
    host.sh("syscont export saved - | head -c 1000 >/dev/null; true")
    assert host.sh("find /var/lib/syscont/instances -maxdepth 4 -type f | sort") == before
    assert vm.state == "running"
