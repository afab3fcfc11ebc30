# SPDX-License-Identifier: Apache-2.0
"""The same virtual machine beside Incus', on a VM host whose processors run both (KVM)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hosts import Host, HostError, images

from bench import report
from bench.contests import Result, SizeResult
from bench.measure import Sample

MEMORY = 512 << 20
IMAGE = "machine"
PATIENCE = 1800.0
ROUNDS = 5
LAUNCHES = 10
LAUNCH = 60.0
SETTLE = 5.0
"""Seconds for what has to be written and given back after the boot, on both sides."""
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


# QEMU without any of the things that managers give it, which is what both of them start.
BARE = (
    "qemu-system-x86_64 -machine q35,accel=kvm,usb=off,sata=off -m {memory}M -nodefaults -no-user-config -display none"
    f" -S -qmp stdio {QEMU}"
)


@dataclass(frozen=True)
class Contender:
    """A machine that is made once, and started and stopped each round. launch: until its guest runs; boot: the same, or
    longer. log and main_pid: shell, which print QEMU's log and its process."""

    name: str
    create: str
    launch: tuple[str, ...]
    boot: tuple[str, ...]
    stop: str
    log: str
    main_pid: str


def _syscont(name: str, *options: str) -> Contender:
    words = " ".join(f"-c '{option}'" for option in (*options, f"limits.memory={MEMORY}", f"raw.qemu={QEMU}"))
    return Contender(
        name,
        f"syscont create {IMAGE} {name} --vm {words}",
        ("syscont", "start", name),
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
    ("incus", "start", "incus"),
    "incus stop --force incus",
    "cat /var/log/incus/incus/qemu.log",
    "cat /run/incus/incus/qemu.pid",
)
DIRECT = _syscont("direct", "boot.mode=direct")
UEFI = _syscont("uefi", "security.secureboot=false")
SYSTEMCTL = replace(DIRECT, name="systemctl", launch=("systemctl", "start", "--no-block", "syscont@direct.service"))
"""The same machine, asked of systemd."""


@dataclass(frozen=True)
class Boot:
    """Seconds from the request until the guest has booted; bytes beside its own."""

    seconds: float
    beside: int


def set_up(host: Host) -> None:
    metadata, rootfs = images.debian_vm()
    host.push(metadata, "/var/tmp/m.tar")
    host.push(rootfs, "/var/tmp/r.tar")
    host.sh(f"syscont image import /var/tmp/m.tar /var/tmp/r.tar --vm --alias {IMAGE}", timeout=PATIENCE)
    host.sh(SET_UP, timeout=PATIENCE)


def contests(host: Host, rounds: int) -> Iterator[Result]:
    for script in ("bare.py", "booted.py", "machine_memory.py"):
        host.push(Path(__file__).with_name(script), f"/run/{script}")
    for one in (DIRECT, UEFI, INCUS):
        host.sh(one.create, timeout=PATIENCE)
    yield from _launches(host)
    yield from _boots(host, rounds)


def _in_turn(contenders: list[Contender], rounds: int) -> Iterator[tuple[bool, Contender]]:
    """Whether it counts, and who is next: a warm-up, and rounds of all, each beginning with another."""
    for number in range(rounds + 1):
        first = number % len(contenders)
        yield from ((number > 0, one) for one in contenders[first:] + contenders[:first])


# until the guest runs


def _launches(host: Host) -> Iterator[Result]:
    found: dict[str, list[float]] = {one.name: [] for one in (DIRECT, UEFI, SYSTEMCTL, INCUS)}
    bare: list[float] = []
    for counts, one in _in_turn([DIRECT, UEFI, SYSTEMCTL, INCUS], LAUNCHES):
        seconds = _launch(host, one)
        print(f"{one.name}: {seconds:.3f} s until the guest runs", flush=True)
        if counts:
            found[one.name].append(seconds)
            bare.append(float(host.sh(f"python3 -IS /run/bare.py {BARE.format(memory=MEMORY >> 20)}")))
    own = Sample(bare).median
    titles = {"direct": "boot.mode=direct", "uefi": "UEFI, as Incus", "systemctl": "direct, by systemctl start"}
    for name, title in titles.items():
        ours, theirs = found[name], found["incus"]
        yield Result(f"{title}: start, until the guest runs", Sample(ours), Sample(theirs), 1 / 5)
        less = Sample([value - own for value in ours]), Sample([value - own for value in theirs])
        yield Result(f"{title}: the same, less what a bare QEMU takes ({own * 1000:.0f} ms)", *less, 1 / 5)


def _launch(host: Host, one: Contender) -> float:
    said = host.run(["python3", "-IS", "/run/booted.py", "--", *one.launch], timeout=PATIENCE).stdout
    asked = float(json.loads(said)[0])
    deadline = time.monotonic() + LAUNCH
    while not (began := [at for at in map(float, _RUNS.findall(host.sh(f"{one.log} || true"))) if at >= asked]):
        if time.monotonic() > deadline:
            raise HostError(f"{one.name}: QEMU's log does not tell when the guest began")
    host.sh(one.stop, timeout=PATIENCE)
    return began[-1] - asked


# until it has booted


def _boots(host: Host, rounds: int) -> Iterator[Result]:
    found: dict[str, list[Boot]] = {one.name: [] for one in (DIRECT, UEFI, INCUS)}
    for counts, one in _in_turn([DIRECT, UEFI, INCUS], rounds):
        result = _boot(host, one)
        print(f"{one.name}: {result}", flush=True)
        if counts:
            found[one.name].append(result)

    def pair(ours: str, value: Callable[[Boot], float]) -> tuple[Sample, Sample]:
        return Sample([value(one) for one in found[ours]]), Sample([value(one) for one in found["incus"]])

    for name, title, goal in (("direct", "boot.mode=direct", 2 / 3), ("uefi", "UEFI, as Incus", None)):
        yield Result(f"{title}: start, until the guest has booted", *pair(name, lambda one: one.seconds), goal)
        yield SizeResult(f"{title}: memory beside the guest's", *pair(name, lambda one: one.beside), 1 / 2)


def _boot(host: Host, one: Contender) -> Boot:
    said = host.run(["python3", "-IS", "/run/booted.py", *one.boot], timeout=PATIENCE).stdout
    seconds = float(json.loads(said)[1])
    time.sleep(SETTLE)
    beside = host.sh(f"python3 -IS /run/machine_memory.py $({one.main_pid}) {MEMORY}")
    host.sh(one.stop, timeout=PATIENCE)
    return Boot(seconds, int(beside))


def about(rounds: int, versions: dict[str, str]) -> str:
    """How machines are compared."""
    return f"""\
- Host: a VM host of the tests' (QEMU in emulation, Debian 13, KVM in it), with {report.names(versions)}. Whatever
  computes takes some ten times as long there as on hardware, and what waits does not.
- Both run virtual machines with the same Debian disk, one processor and {MEMORY >> 20} MiB, QEMU's qemu64 for a
  processor, and without secure boot. Incus boots by UEFI; syscont by UEFI, and with the image's own kernel.
- Until the guest runs: from the command to QEMU's first instruction of the guest (its log, vm_state_notify); a bare
  QEMU is the same program with the same machine, and nothing else. {LAUNCHES} rounds. Until it has booted: to READY=1
  of the guest's systemd, by vsock. Memory: PSS of QEMU and its helpers without the guest's own, {SETTLE:.0f} s later.
  {rounds} rounds.
- Medians of the rounds after one that does not count (10th to 90th percentile), all in every round, each beginning
  with another. Compare ratios of one run only."""
