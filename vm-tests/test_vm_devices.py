# SPDX-License-Identifier: Apache-2.0
"""Devices of virtual machines: folders of the host, a TPM, and what cloud-init is told. One machine for all of them, as
to boot one takes a while."""

import json
from collections.abc import Iterator

import pytest
from guests import Instance, syscont, systemd_property, until
from hosts import Host

# Minutes, most of them of booting.
pytestmark = pytest.mark.heavy

PATIENCE = 300.0
USER_DATA = "#cloud-config\n{}\n"
FOLDER, KEPT, LATER = "/srv/work", "/srv/kept", "/srv/later"
INDEX = "01500016"
DEFINE = f"8002 0000002d 0000012a 40000001 00000009 40000009 0000 00 0000 0000 000e {INDEX} 000b 02020002 0000 0008"
READ_PUBLIC = f"8001 0000000e 00000169 {INDEX}"
"""TPM2_NV_DefineSpace of 8 bytes by the owner, and TPM2_NV_ReadPublic of them (TPM 2.0 library, part 3)."""


@pytest.fixture(scope="module")
def machine(vm_host: Host, debian_vm: str) -> Iterator[Instance]:
    for path in (FOLDER, KEPT, LATER):
        vm_host.run(["mkdir", "--parents", path])
        vm_host.write_text(f"{path}/host", f"of {path}\n")
    devices = [
        f"work,type=disk,source={FOLDER},path=/mnt/to work",
        f"kept,type=disk,source={KEPT},path=/mnt/kept,readonly=true",
        "chip,type=tpm",
    ]
    options = [word for one in devices for word in ("--device", one)]
    config = ["--config", f"cloud-init.user-data={USER_DATA}", "--config", "boot.mode=direct"]
    one = Instance(vm_host, "devices")
    syscont(vm_host, "launch", *options, *config, debian_vm, one.name)
    until(vm_host, lambda: one.exec("true", check=False).returncode == 0, patience=PATIENCE)
    until(vm_host, lambda: one.state == "running", patience=PATIENCE)
    yield one
    syscont(vm_host, "delete", "--force", one.name)


def unit(machine: Instance, device: str) -> str:
    kind = "tpm" if device == "chip" else "virtiofs"
    return f"syscont-{kind}@{machine.name}.{device}.service"


def ask_tpm(machine: Instance, command: str) -> int:
    """What the TPM answers, 0 for yes."""
    text = "".join(f"\\{byte:03o}" for byte in bytes.fromhex(command))
    answer = "dd bs=4096 count=1 status=none <&3 | od -An -tx1 -j6 -N4"
    return int(machine.sh(f"exec 3<>/dev/tpmrm0; printf '{text}' >&3; {answer}").replace(" ", ""), 16)


def test_a_folder_is_seen_from_both_sides(machine: Instance) -> None:
    assert machine.sh("cat '/mnt/to work/host'") == f"of {FOLDER}\n"
    machine.sh("echo of the guest >'/mnt/to work/guest'; chown 1000:1001 '/mnt/to work/guest'")
    assert machine.host.read_text(f"{FOLDER}/guest") == "of the guest\n"
    assert machine.host.sh(f"stat --format %u:%g {FOLDER}/guest").strip() == "1000:1001"


def test_what_is_readonly_is_not_written_to(machine: Instance) -> None:
    assert machine.sh("cat /mnt/kept/host") == f"of {KEPT}\n"
    assert machine.exec("touch", "/mnt/kept/guest", check=False).returncode != 0
    # The guest's word for it is not what counts.
    machine.sh("mkdir -p /mnt/again && mount -t virtiofs -o rw kept /mnt/again")
    assert "Read-only" in machine.exec("touch", "/mnt/again/guest", check=False).stderr
    machine.sh("umount /mnt/again")
    assert machine.host.sh(f"ls {KEPT}").split() == ["host"]


def test_nodes_of_devices_are_not_made(machine: Instance) -> None:
    assert machine.exec("mknod", "/mnt/to work/null", "c", "1", "3", check=False).returncode != 0
    assert machine.host.run(["test", "-e", f"{FOLDER}/null"], check=False).returncode != 0


def test_who_serves_sees_nothing_else(machine: Instance) -> None:
    pid = systemd_property(machine.host, unit(machine, "work"), "MainPID")
    root = f"/proc/{pid}/root"
    assert machine.host.sh(f"ls {root}/srv").split() == ["run", "share"]
    assert all(name.startswith("socket") for name in machine.host.sh(f"ls {root}/srv/run").split())
    # systemd shows it the folder of its sockets by the name that it has on the host, too.
    seen = machine.host.sh(f"find {root}/run/syscont ! -type d -printf '%f\\n'").split()
    assert all(name.startswith("socket") for name in seen), seen
    for place in ("/var/lib", "/root", "/home", "/etc"):
        assert machine.host.sh(f"ls {root}{place} 2>/dev/null || true").split() in ([], ["ld.so.cache"], ["private"])
    status = machine.host.read_text(f"/proc/{pid}/status")
    assert "NoNewPrivs:\t1" in status


def test_a_folder_comes_and_goes(machine: Instance) -> None:
    syscont(machine.host, "device", "add", machine.name, "later", "disk", f"source={LATER}", "path=/mnt/later")
    assert machine.sh("cat /mnt/later/host") == f"of {LATER}\n"
    assert systemd_property(machine.host, unit(machine, "later"), "ActiveState") == "active"
    syscont(machine.host, "device", "remove", machine.name, "later")
    assert machine.exec("mountpoint", "--quiet", "/mnt/later", check=False).returncode != 0
    until(machine.host, lambda: systemd_property(machine.host, unit(machine, "later"), "ActiveState") == "inactive")


def test_a_folder_of_a_long_name_is_refused(machine: Instance) -> None:
    argv = ["device", "add", machine.name, "x" * 37, "disk", f"source={LATER}", "path=/mnt/later"]
    done = syscont(machine.host, *argv, check=False)
    assert done.returncode != 0
    assert "36 letters at most" in done.stderr


def test_cloud_init_finds_its_disk(machine: Instance) -> None:
    machine.sh("mkdir -p /mnt/seed && mount -o ro -L cidata /mnt/seed")
    assert machine.sh("cat /mnt/seed/user-data") == USER_DATA
    assert "local-hostname: \"devices\"\n" in machine.sh("cat /mnt/seed/meta-data")
    (interface,) = json.loads(machine.sh("cat /mnt/seed/network-config"))["config"]
    assert interface["mac_address"] in machine.sh("cat /sys/class/net/*/address").split()
    assert machine.exec("sh", "-c", "echo >$(findfs LABEL=cidata)", check=False).returncode != 0
    machine.sh("umount /mnt/seed")


def test_a_tpm_can_be_spoken_to(machine: Instance) -> None:
    assert machine.sh("test -c /dev/tpmrm0; cat /sys/class/tpm/tpm0/tpm_version_major").strip() == "2"
    owner = machine.host.sh(f"stat --format %u {machine.on_disk('tpm')}").strip()
    pid = systemd_property(machine.host, unit(machine, "chip"), "MainPID")
    status = machine.host.read_text(f"/proc/{pid}/status")
    assert f"Uid:\t{owner}\t{owner}\t{owner}\t{owner}\n" in status
    assert owner != "0"
    assert "CapEff:\t0000000000000000\n" in status


def test_all_ends_with_the_machine_and_comes_back_with_it(machine: Instance) -> None:
    """The TPM with what it knew; by systemctl, with the daemon away."""
    host, units = machine.host, [unit(machine, device) for device in ("work", "kept", "chip")]
    assert ask_tpm(machine, READ_PUBLIC) != 0
    assert ask_tpm(machine, DEFINE) == 0
    assert ask_tpm(machine, READ_PUBLIC) == 0
    machine.do("stop")
    for one in units:
        until(host, lambda one=one: systemd_property(host, one, "ActiveState") == "inactive")  # type: ignore[misc]
    machine.do("start")
    for one in units:
        assert systemd_property(host, one, "ActiveState") == "active"
    until(host, lambda: machine.exec("true", check=False).returncode == 0, patience=PATIENCE)
    assert ask_tpm(machine, READ_PUBLIC) == 0
    assert machine.sh("cat /mnt/kept/host") == f"of {KEPT}\n"


def test_who_serves_and_is_killed_is_missed(machine: Instance) -> None:
    host, name = machine.host, unit(machine, "work")
    host.run(["systemctl", "kill", "--signal=KILL", name])
    until(host, lambda: systemd_property(host, name, "ActiveState") == "failed")
    assert "its guest is without it until the instance is started anew" in host.journal()
    assert machine.systemd("ActiveState") == "active"
