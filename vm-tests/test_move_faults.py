# SPDX-License-Identifier: Apache-2.0
"""Whatever breaks while a machine goes to another host, and whenever: one of the two has it, with its data, nothing of
it is left on the other, and who moved it is told."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import disks
import far_host
import pytest
from conftest import imported
from far_host import names
from guests import Instance, program, syscont, unique, until
from hosts import ContainerHost, Host, images
from test_copy_between import image_count, moves_settled, settled

pytestmark = pytest.mark.heavy

BOOT = 240.0
OPTIONS = ("--vm", "-c", "boot.mode=direct", "-c", "limits.memory=256MiB", "-c", "migration.stateful=true")
KILL = "systemctl kill --signal=KILL --kill-whom=main syscontd.service"
CUT, JOINED = "ip link set lan0 down", "ip link set lan0 up"
ENDED = ("stopped", "failed")
STALLED_FOR, CUT_FOR = 5.0, 40.0
ROOM, SMALL = "/var/lib/syscont/instances/.room", "/var/lib/syscont/instances"


@dataclass(frozen=True)
class Stage:
    """When something breaks: as QEMU on near tells of an event, or, without one, as soon as near sends."""

    name: str
    event: tuple[str, ...] = ()


STAGES = (
    Stage("begin"),
    Stage("disk", ("JOB_STATUS_CHANGE", "status=running")),
    Stage("memory", ("MIGRATION", "status=active")),
    Stage("switch", ("STOP",)),
)


@dataclass(frozen=True)
class Lab:
    near: Host
    far: Host
    name: str

    def uuid(self) -> str:
        return str(Instance(self.near, self.name).seen()["uuid"])


@dataclass(frozen=True)
class Fault:
    """now: what is run on near at once. later: what the test does while the cable is cut for that."""

    name: str
    now: str = ""
    later: Callable[[Lab], None] | None = None
    ends: bool = False
    """The guest may have to be started again."""
    stays: bool = False
    """It does not arrive."""
    arrives: bool = False


def kill_qemu(host: Host, name: str) -> None:
    host.sh(f"pkill -KILL -f '[q]emu-system.*guest={name}' || true")


def cancel(lab: Lab) -> None:
    found = json.loads(syscont(lab.near, "operation", "list", "--format", "json").stdout)
    running = [str(one["id"]) for one in found if one["kind"] == "send-instance" and one["status"] == "running"]
    for each in running:
        syscont(lab.near, "operation", "cancel", each, check=False)


def power_cut(lab: Lab, host: Host) -> None:
    host.power_cut()
    host.boot()
    far_host.bridge(lab.near, lab.far)


def kill_far(lab: Lab) -> None:
    lab.far.run(KILL.split())


def restart_far(lab: Lab) -> None:
    lab.far.run(["systemctl", "restart", "syscontd"])


def fill(lab: Lab) -> None:
    lab.far.sh(f"head -c 1G /dev/zero >{ROOM} || true")


def take_name(lab: Lab) -> None:
    """It is the arriving one's already, and nothing of either is harmed."""
    assert syscont(lab.far, "create", "busybox", lab.name, check=False).returncode != 0


def distrust(lab: Lab) -> None:
    syscont(lab.far, "trust", "remove", "near")


FAULTS = (
    Fault("source QEMU killed", "pkill -KILL -f '[q]emu-system.*guest={name}'", ends=True, stays=True),
    Fault("target QEMU killed", later=lambda lab: kill_qemu(lab.far, lab.name)),
    Fault("source daemon killed", KILL),
    Fault("target daemon killed", later=kill_far),
    Fault("source daemon restarted", "systemctl restart syscontd"),
    Fault("target daemon restarted", later=restart_far),
    Fault("source host cut off its power", later=lambda lab: power_cut(lab, lab.near), ends=True),
    Fault("target host cut off its power", later=lambda lab: power_cut(lab, lab.far), ends=True),
    Fault("cable cut", later=lambda lab: time.sleep(CUT_FOR)),
    Fault("network stalled", later=lambda lab: time.sleep(STALLED_FOR)),
    Fault("network slow", "tc qdisc add dev lan0 root tbf rate 20mbit burst 64k latency 400ms", arrives=True),
    Fault("target disk full", later=fill),
    Fault("certificate no longer trusted", later=distrust),
    Fault("name wanted by another", later=take_name, arrives=True),
    Fault("cancelled", later=cancel),
)


@pytest.fixture(scope="module")
def hosts(deb: Path) -> Iterator[tuple[Host, Host]]:
    with far_host.installed(ContainerHost, deb, "vms") as base, far_host.joined(base, bridged=True) as both:
        imported(both[0], "tiny", *images.tiny_vm(), "--vm")
        syscont(both[1], "image", "build", "busybox")
        yield both


@pytest.fixture
def lab(hosts: tuple[Host, Host]) -> Iterator[Lab]:
    one = Lab(*hosts, unique("moves"))
    syscont(one.near, "launch", "tiny", one.name, *OPTIONS)
    until(one.near, lambda: images.WRITTEN in Instance(one.near, one.name).logs(), patience=BOOT)
    counts = {host: image_count(host) for host in hosts}
    yield one
    one.near.sh(f"{JOINED}; tc qdisc del dev lan0 root 2>/dev/null || true")
    one.far.sh(f"rm -f {ROOM}")
    for name in (one.name, f"far:{one.name}"):
        syscont(one.near, "delete", "--force", name, check=False)
    for host, count in counts.items():
        settled(host, count)
    one.far.sh(f"mountpoint -q {SMALL} && umount {SMALL} || true")


@contextmanager
def watching(lab: Lab, stage: Stage, script: str) -> Iterator[Callable[[], None]]:
    """The script runs at that moment on near; to be called to wait for it."""
    if not stage.event:
        yield lambda: _begin(lab, script)
        return
    socket = f"/run/syscont/vm/{lab.uuid()}.control"
    argv = program("at_event", socket, *stage.event, "--", script)
    with lab.near.spawn(argv) as process:
        assert process.stdout
        assert process.stdout.readline() == "watching\n"

        def wait() -> None:
            assert process.stdout
            assert process.stdout.readline() == "done\n", process.communicate()

        yield wait


def _begin(lab: Lab, script: str) -> None:
    def there() -> bool:
        found = json.loads(syscont(lab.near, "operation", "list", "--format", "json").stdout)
        return any((one["status"], one["kind"]) == ("running", "send-instance") for one in found)

    until(lab.near, there)
    lab.near.sh(script)


# Before anything has arrived, the name is there for the taking: test_live_migration.py has that.
CASES = [
    pytest.param(fault, stage, id=f"{fault.name}-{stage.name}")
    for fault in FAULTS
    for stage in STAGES
    if stage.event or fault.later is not take_name
]


@pytest.mark.parametrize(("fault", "stage"), CASES)
def test_fault(lab: Lab, fault: Fault, stage: Stage) -> None:
    if fault.later is fill:
        lab.far.sh(f"mount -t tmpfs -o size=512M,mode=700 none {SMALL}")
    script = CUT if fault.later else fault.now.format(name=lab.name)
    move = ["syscont", "move", lab.name, "far:"]
    with watching(lab, stage, script) as happened, lab.near.spawn(move, stdin=subprocess.DEVNULL) as process:
        happened()
        if fault.later:
            fault.later(lab)
            lab.near.sh(JOINED)
        said = process.communicate(timeout=120)[1]
    assert "Traceback" not in said
    here = one_has_it(lab, fault)
    assert (here is lab.far) or process.returncode, "it was said to have gone"
    assert (here is lab.near) or not fault.stays
    assert (here is lab.far) or not fault.arrives, said
    assert process.returncode == 0 or len(said.splitlines()) <= 2, said
    for host in (lab.near, lab.far):
        assert host is here or f"guest={lab.name}" not in host.sh("ps -eo args")
        assert "Traceback" not in host.journal(unit="syscontd.service")
        moves_settled(host)
    whole(Instance(here, lab.name), started=fault.ends)


def one_has_it(lab: Lab, fault: Fault) -> Host:
    """It runs there, if the guest's end was not the fault."""
    for host in (lab.near, lab.far):
        until(host, lambda host=host: not syscont(host, "list", check=False).returncode)  # type: ignore[misc]
    if fault.later is distrust:
        syscont(lab.near, "remote", "remove", "far")
        syscont(lab.near, "remote", "add", "far", far_host.token(lab.far, "near"))
    until(lab.near, lambda: syscont(lab.near, "list", "far:", check=False).returncode == 0)
    until(lab.near, lambda: (lab.name in names(lab.near)) is not (lab.name in names(lab.far)), patience=90)
    here = lab.far if lab.name in names(lab.far) else lab.near
    one = Instance(here, lab.name)
    until(here, lambda: one.state in (("running", *ENDED) if fault.ends else ("running",)))
    return here


def whole(one: Instance, *, started: bool) -> None:
    """It works where it is, and its disk is what it wrote."""
    if started and one.state in ENDED:
        count = one.logs().count(images.WRITTEN)
        syscont(one.host, "start", one.name)
        until(one.host, lambda: one.logs().count(images.WRITTEN) > count, patience=BOOT)
    syscont(one.host, "stop", "--force", one.name)
    disks.check(one)
    with disks.file_system(one) as name:
        assert disks.sum_of_file(one, name, "/srv.data") == disks.text_of_file(one, name, "/srv.sum")
