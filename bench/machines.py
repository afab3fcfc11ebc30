# SPDX-License-Identifier: Apache-2.0
"""The same virtual machine beside Incus', on a VM host whose processors run both (KVM)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hosts import Host, HostError, images

from bench import report
from bench.contests import Result, SizeResult
from bench.measure import Sample

MEMORY = 512 << 20
IMAGE = "machine"
PATIENCE = 1800.0
ROUNDS = 5
# QEMU's log tells when the guest's processors begin to run. On a host that is emulated itself, clocks stand still in
# guests whose processor is the host's.
QEMU = "-cpu qemu64 -msg timestamp=on -trace vm_state_notify"
# So that Incus' guest tells its host as well when it has booted.
NOTIFY = "-smbios type=11,value=io.systemd.credential:vmm.notify_socket=vsock-stream:2:9980"
_RUNS = re.compile(r"@([0-9]+\.[0-9]+):vm_state_notify running 1 ")

# Incus wants the module by its name, which the hosts' kernel has built in; its search for a free subnet takes QEMU's
# own network, which answers for every address, for a sign that all are taken.
# The disk is the very one that syscont made of the image.
SET_UP = """
modules=/lib/modules/$(uname -r)
mkdir -p $modules
echo kernel/drivers/vhost/vhost_vsock.ko >$modules/modules.builtin
touch $modules/modules.order $modules/modules.builtin.modinfo
depmod
systemctl start incus.service
incus storage create default dir
incus network create incusbr0 ipv4.address=10.99.0.1/24 ipv6.address=none
incus profile device add default root disk path=/ pool=default
incus profile device add default eth0 nic network=incusbr0
cd /var/tmp
fingerprint=$(ls -t /var/lib/syscont/images | head -1)
qemu-img convert -O qcow2 /var/lib/syscont/images/$fingerprint/disk.img incus.qcow2
echo '{"architecture": "x86_64", "creation_date": 1}' >metadata.yaml
tar -cf incus.metadata.tar metadata.yaml
incus image import incus.metadata.tar incus.qcow2 --alias machine
rm incus.qcow2
"""


@dataclass(frozen=True)
class Contender:
    """A machine that is made once, and started and stopped each round. log and main_pid: shell, which print QEMU's log
    and its process."""

    name: str
    create: str
    start: tuple[str, ...]
    stop: str
    log: str
    main_pid: str


def _syscont(name: str, *options: str) -> Contender:
    words = " ".join(f"-c '{option}'" for option in (*options, f"limits.memory={MEMORY}", f"raw.qemu={QEMU}"))
    return Contender(
        name,
        f"syscont create {IMAGE} {name} --vm {words}",
        ("--", "syscont", "start", "--wait", name),
        f"syscont stop --force {name}",
        f"journalctl -u syscont@{name}.service -o cat --grep vm_state_notify",
        f"systemctl show -P MainPID syscont@{name}.service",
    )


INCUS = Contender(
    "incus",
    f"incus create --quiet {IMAGE} incus --vm -c limits.memory={MEMORY} -c limits.cpu=1 -c security.secureboot=false"
    f" -c 'raw.qemu={QEMU} {NOTIFY}'",
    ("incus", "start", "incus"),
    "incus stop --force incus",
    "cat /var/log/incus/incus/qemu.log",
    "cat /run/incus/incus/qemu.pid",
)
DIRECT = _syscont("direct", "boot.mode=direct")
UEFI = _syscont("uefi", "security.secureboot=false")


@dataclass(frozen=True)
class Round:
    """Seconds from the request until the guest's first instruction, and until it has booted; bytes beside its own."""

    until_runs: float
    until_booted: float
    beside: int


def set_up(host: Host) -> None:
    metadata, rootfs = images.debian_vm()
    host.push(metadata, "/var/tmp/m.tar")
    host.push(rootfs, "/var/tmp/r.tar")
    host.sh(f"syscont image import /var/tmp/m.tar /var/tmp/r.tar --vm --alias {IMAGE}", timeout=PATIENCE)
    host.sh(SET_UP, timeout=PATIENCE)


def contests(host: Host, rounds: int) -> Iterator[Result]:
    """A warm-up, which is no part of it, and rounds of all three, each beginning with another."""
    contenders = [DIRECT, UEFI, INCUS]
    for one in contenders:
        host.sh(one.create, timeout=PATIENCE)
    found: dict[str, list[Round]] = {one.name: [] for one in contenders}
    for number in range(rounds + 1):
        for one in contenders[number % 3 :] + contenders[: number % 3]:
            result = _round(host, one)
            print(f"{one.name}: {result}", flush=True)
            if number:
                found[one.name].append(result)
    yield from _results(found, "direct", "boot.mode=direct", 2 / 3)
    yield from _results(found, "uefi", "UEFI, as Incus", None)


def _results(found: dict[str, list[Round]], ours: str, title: str, goal: float | None) -> Iterator[Result]:
    def sample(which: str, value: Callable[[Round], float]) -> Sample:
        return Sample([value(one) for one in found[which]])

    def pair(value: Callable[[Round], float]) -> tuple[Sample, Sample]:
        return sample(ours, value), sample("incus", value)

    yield Result(f"{title}: start, until the guest runs", *pair(lambda one: one.until_runs), 1 / 5)
    yield Result(f"{title}: start, until the guest has booted", *pair(lambda one: one.until_booted), goal)
    yield SizeResult(f"{title}: memory beside the guest's", *pair(lambda one: one.beside), 1 / 2)


def _round(host: Host, one: Contender) -> Round:
    host.push(Path(__file__).with_name("booted.py"), "/run/booted.py")
    host.push(Path(__file__).with_name("machine_memory.py"), "/run/machine_memory.py")
    said = host.run(["python3", "-IS", "/run/booted.py", *one.start], timeout=PATIENCE).stdout
    asked, booted = json.loads(said)
    began = [float(time) for time in _RUNS.findall(host.sh(one.log))]
    if not began or began[-1] < asked:
        raise HostError(f"{one.name}: QEMU's log does not tell when the guest began")
    beside = host.sh(f"python3 -IS /run/machine_memory.py $({one.main_pid}) {MEMORY}")
    host.sh(one.stop, timeout=PATIENCE)
    return Round(began[-1] - asked, booted, int(beside))


def about(rounds: int, versions: dict[str, str]) -> str:
    """How machines are compared."""
    return f"""\
- Host: a VM host of the tests' (QEMU in emulation, Debian 13, KVM in it), with {report.names(versions)}.
- Both run virtual machines with the same Debian disk, one processor and {MEMORY >> 20} MiB, QEMU's qemu64 for a
  processor, and without secure boot. Incus boots by UEFI; syscont by UEFI, and with the image's own kernel.
- Until the guest runs: from the command to QEMU's first instruction of the guest (its log, vm_state_notify). Until it
  has booted: to READY=1 of the guest's systemd, by vsock. Memory: PSS of QEMU and its helpers without the guest's own.
- Medians of {rounds} rounds after one that does not count (10th to 90th percentile), all three in every round, each
  beginning with another. Compare ratios of one run only."""
