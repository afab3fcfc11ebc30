# SPDX-License-Identifier: Apache-2.0
"""What info and list show of what instances take, and warnings of operations that went well."""

from __future__ import annotations

import os
import pty
import subprocess
from contextlib import suppress
from typing import Any

import pytest

from sysd.cli import usage
from tests.cli.conftest import Command, Serve
from tests.cli.fake_daemon import Call
from tests.cli.test_cli_verbs import HANDLERS, operation

MIB, GIB = 1 << 20, 1 << 30
KVM = {"accelerator": "kvm", "boot": "uefi", "secureBoot": True, "cid": 70000, "agent": True, "processors": 2}
TCG = {"accelerator": "tcg", "why": "/dev/kvm: No such file", "boot": "direct", "processors": 1}
TRAFFIC = {"receivedBytes": 2048, "receivedPackets": 1, "sentBytes": 0, "sentPackets": 0}


def _rows(state: dict[str, Any], kind: str = "container") -> dict[str, str]:
    item = {"type": kind, "leader": 7, "coreCookie": 5, "usage": state}
    found = [*usage.machine_rows(item), *usage.rows(item), ("Core scheduling", usage.cookies(item))]
    return {label: value for label, value in found if value}


def _cookies(*pairs: tuple[int, int]) -> list[dict[str, int]]:
    return [{"cookie": cookie, "processors": count} for cookie, count in pairs]


SHOWN = [
    ({}, {"Core scheduling": "cookie 0x5"}),
    ({"cpuNSec": 0, "tasks": 12}, {"CPU time": "0.000s", "Tasks": "12"}),
    ({"memory": {"current": MIB, "host": MIB, "peak": 2 * MIB}}, {"Memory": "1.00MiB (2.00MiB at most)"}),
    ({"memory": {"current": MIB, "limit": GIB, "swap": 0}}, {"Memory": "1.00MiB of 1.00GiB"}),
    ({"memory": {"current": MIB, "limit": GIB, "swap": 512}}, {"Memory": "1.00MiB of 1.00GiB (512B of swap)"}),
    ({"memory": {"current": 0, "host": MIB}}, {"Memory": "0B (1.00MiB of the host's)"}),
    ({"memory": {"limit": GIB}}, {"Memory": "at most 1.00GiB"}),
    ({"memory": {"host": MIB, "peak": GIB}}, {"Memory": "1.00MiB of the host's, 1.00GiB at most"}),
    ({"disks": {"root": {"used": MIB, "size": GIB}}}, {"Disk": "1.00MiB of 1.00GiB"}),
    ({"disks": {"root": {"read": 0, "written": MIB}}}, {"Disk": "read 0B, wrote 1.00MiB"}),
    ({"disks": {"a": {"used": 0}, "b": {"size": MIB}}}, {"Disk": "a: 0B\nb: at most 1.00MiB"}),
    (
        {"interfaces": {"eth0": TRAFFIC, "eth1": {**TRAFFIC, "sentPackets": 2}}},
        {
            "Network": "eth0: received 2.00KiB in 1 packet, sent 0B in 0 packets\n"
            "eth1: received 2.00KiB in 1 packet, sent 0B in 2 packets"
        },
    ),
]
MACHINES = [
    (
        {**KVM, "cookies": _cookies((0x1A, 2))},
        {
            "Accelerator": "KVM",
            "Boot": "UEFI, secure boot on",
            "vsock CID": "70000",
            "Guest agent": "there",
            "Processors": "2",
            "Core scheduling": "cookie 0x1a on 2 vCPUs",
        },
    ),
    (
        {**TCG, "cookies": _cookies((0, 1))},
        {
            "Accelerator": "none: emulated, which is slow (/dev/kvm: No such file)",
            "Boot": "direct, without firmware",
            "Guest agent": "not there",
            "Processors": "1",
        },
    ),
    ({**KVM, "secureBoot": False}, {"Boot": "UEFI, secure boot off"}),
    ({**KVM, "cookies": _cookies((0, 1), (3, 1))}, {"Core scheduling": "off on 1 vCPU, cookie 0x3 on 1 vCPU"}),
    ({"accelerator": "tcg", "why": ""}, {"Accelerator": "none: emulated, which is slow"}),
]


@pytest.mark.parametrize(("state", "shown"), SHOWN)
def test_what_an_instance_takes(state: dict[str, Any], shown: dict[str, str]) -> None:
    assert _rows(state) == {"Core scheduling": "cookie 0x5"} | shown


@pytest.mark.parametrize(("machine", "shown"), MACHINES)
def test_how_a_machine_runs(machine: dict[str, Any], shown: dict[str, str]) -> None:
    found = _rows({"machine": machine, "tasks": 9, "disks": {"root": {"used": 1}}}, "virtual-machine")
    assert found["Disk"] == "root: 1B"
    assert {label: found.get(label) for label in shown} == shown
    assert "Tasks" not in found


def test_what_does_not_run_has_no_cookie() -> None:
    assert usage.cookies({"leader": 0, "coreCookie": 0}) == ""


def test_columns_that_have_to_be_asked_for(serve: Serve, syscont: Command) -> None:
    states = {"web1": {"memory": {"current": MIB}, "disks": {"root": {"used": 2 * MIB}, "data": {}}, "tasks": 4}}

    def state(call: Call) -> None:
        project, _, name = call.parameters["name"].partition(":")
        assert project
        if name == "db1":
            call.error("NotFound", "it went meanwhile")
        else:
            call.reply({"state": states.get(name)})

    daemon = serve({**HANDLERS, "GetInstanceState": state})
    shown = syscont("list", "-c", "nmDN", "--format", "csv").stdout.splitlines()
    assert "web1,1.00MiB,2.00MiB,4" in shown
    assert "db1,,," in shown
    assert daemon.methods().count("GetInstanceState") == len(shown)


def test_nobody_is_asked_for_other_columns(serve: Serve, syscont: Command) -> None:
    daemon = serve(HANDLERS)
    assert syscont("list").stdout
    assert daemon.methods() == ["ListInstances"]


def test_an_error_of_one_is_told(serve: Serve, syscont: Command) -> None:
    serve({**HANDLERS, "GetInstanceState": lambda call: call.error("Failed", "no luck")})
    done = syscont("list", "web2", "-c", "nm")
    assert (done.returncode, done.stderr) == (1, "syscont: no luck\n")


def _warned(call: Call) -> None:
    call.reply(operation(warning=f"{call.parameters['name']} is slow\nand \x1b[1mloud"))


WARNINGS = [
    ("launch busybox web1", "CreateInstance", "web1\n", ["web1"]),
    ("start web1", "StartInstance", "", ["web1"]),
    ("restart web1 db1", "RestartInstance", "", ["web1", "db1"]),
]


@pytest.mark.parametrize(("line", "method", "stdout", "names"), WARNINGS)
def test_warnings_are_said_and_no_failure(
    serve: Serve, syscont: Command, line: str, method: str, stdout: str, names: list[str]
) -> None:
    serve({method: _warned})
    done = syscont(*line.split())
    assert (done.returncode, done.stdout) == (0, stdout)
    said = "".join(f"syscont: warning: {name} is slow\nsyscont: warning: and ?[1mloud\n" for name in names)
    assert done.stderr == said


def read_to_end(controller: int) -> bytes:
    """All that a terminal was sent: the kernel hands it on in pieces, and says EIO at the end."""
    shown = b""
    with suppress(OSError):
        while piece := os.read(controller, 4096):
            shown += piece
    return shown


def test_the_line_of_progress_is_gone_before_a_warning(serve: Serve, syscont: Command) -> None:
    def answer(call: Call) -> None:
        call.reply({"operation": {"id": "1", "target": "web1", "stage": "boot", "status": "running"}}, continues=True)
        _warned(call)

    serve({"StartInstance": answer})
    controller, terminal = pty.openpty()
    done = subprocess.run(syscont.argv("start", "web1"), env=syscont.environment, stderr=terminal, check=True)
    os.close(terminal)
    shown = read_to_end(controller)
    os.close(controller)
    assert done.returncode == 0
    assert b"boot\x1b[K\r\x1b[Ksyscont: warning: web1 is slow" in shown
