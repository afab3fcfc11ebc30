# SPDX-License-Identifier: Apache-2.0
"""Machines as they are when nothing is said of how they boot: by firmware that runs only what is signed."""

from collections.abc import Iterator

import pytest
from guests import Instance, syscont, until
from hosts import Host

BOOT = 300.0
LOADER = "/efi/EFI/BOOT/grubx64.efi"
"""What the shim starts."""
VARIABLE = "/sys/firmware/efi/efivars/Word-6f1a3a5e-4a52-4b1c-8a51-1f6b3b8f7c11"


@pytest.fixture(scope="module")
def vm(vm_host: Host, debian_vm: str) -> Iterator[Instance]:
    syscont(vm_host, "launch", debian_vm, "uefi1", "--vm", "-c", "limits.memory=512MiB")
    one = Instance(vm_host, "uefi1")
    until(vm_host, lambda: one.state == "running", patience=BOOT)
    yield one
    syscont(vm_host, "delete", "--force", "uefi1")


def secure_boot(vm: Instance) -> str:
    return vm.sh("od -An -t u1 -j 4 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c").strip()


def boot_anew(vm: Instance) -> None:
    vm.do("stop", "--force")
    vm.do("start")
    until(vm.host, lambda: vm.state == "running", patience=BOOT)


def test_what_boots_is_signed(vm: Instance) -> None:
    assert secure_boot(vm) == "1"
    shown = syscont(vm.host, "info", vm.name).stdout
    assert "Boot: UEFI, secure boot on" in shown


def test_firmware_is_not_the_guests_to_change(vm: Instance) -> None:
    """Its code is read-only, its variables are a file that QEMU has, and nothing else of the host."""
    folder = f"/var/lib/syscont/instances/{vm.seen()['uuid']}/upper"
    assert vm.host.sh(f"stat -c '%a %u' {folder}/nvram-secure.fd").split()[0] == "600"
    opened = vm.host.sh(f"for fd in /proc/{vm.leader}/fd/*; do readlink $fd; done")
    assert f"{folder}/nvram-secure.fd" in opened


@pytest.mark.heavy
def test_variables_are_kept(vm: Instance) -> None:
    vm.sh(f"printf '\\007\\000\\000\\000word' >{VARIABLE}")
    boot_anew(vm)
    assert vm.sh(f"tail -c 4 {VARIABLE}") == "word"


@pytest.mark.heavy
def test_without_it_what_is_not_signed_boots(vm: Instance) -> None:
    """A loader whose signature is broken: refused while secure boot is on, started when it is off."""
    # In what it says of itself, which is signed and does nothing. What is behind the signature the shim refuses in any
    # case.
    vm.sh(f"sed -i 's/#### LoaderInfo/#### LoaderInfx/' {LOADER}; grep -q LoaderInfx {LOADER}; sync -f {LOADER}")
    vm.do("stop", "--force")
    vm.do("start")
    until(vm.host, lambda: "Security Violation" in vm.logs() or "Verification failed" in vm.logs(), patience=BOOT)
    assert vm.state == "starting"
    vm.do("stop", "--force")
    syscont(vm.host, "config", "set", vm.name, "security.secureboot=false")
    boot_anew(vm)
    assert secure_boot(vm) == "0"
