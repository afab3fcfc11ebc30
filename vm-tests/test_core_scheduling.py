# SPDX-License-Identifier: Apache-2.0
"""Core scheduling: each instance has a cookie that no task outside of it has."""

import json
import subprocess

import pytest
from conftest import Launch, MakeHost
from guests import Instance, python, syscont, until
from hosts import Host

pytestmark = pytest.mark.needs_smt


def cookies(host: Host) -> dict[int, int]:
    """Of all tasks of the host."""
    return {int(task): cookie for task, cookie in json.loads(python(host, "core_cookies").stdout).items()}


def threads(instance: Instance) -> set[int]:
    pids = " ".join(f"/proc/{pid}/task" for pid in instance.processes())
    return {int(task) for task in instance.host.sh(f"ls {pids} 2>/dev/null | grep '^[0-9]' || :").split()}


def only_cookie(instance: Instance) -> int:
    """That of all its tasks, which are alike in it."""
    seen = cookies(instance.host)
    found = {seen[task] for task in threads(instance) if task in seen}
    assert len(found) == 1, found
    return found.pop()


def shown(instance: Instance) -> str:
    lines = instance.do("info").stdout.splitlines()
    return next(line for line in lines if "Core scheduling:" in line).split(": ")[1]


def in_background(instance: Instance, script: str) -> subprocess.Popen[str]:
    started = instance.host.spawn(["syscont", "exec", instance.name, "--", "sh", "-c", f"echo here; {script}"])
    assert started.stdout
    assert started.stdout.readline() == "here\n"
    return started


def test_every_task_of_an_instance_and_no_other_has_its_cookie(host: Host, launch: Launch) -> None:
    one, two = launch(), launch()
    running = [in_background(instance, "sleep 1000 & wait") for instance in (one, two)]
    one.sh("sleep 1000 >/dev/null 2>&1 &")
    try:
        own = {instance.name: only_cookie(instance) for instance in (one, two)}
        assert all(own.values())
        assert own[one.name] != own[two.name]
        inside = {instance.name: threads(instance) for instance in (one, two)}
        assert len(inside[one.name]) >= 4  # init, the command that runs and its child, the one left behind
        seen = cookies(host)
        assert 1 in seen
        for name, cookie in own.items():
            assert {task for task, value in seen.items() if value == cookie} <= inside[name]
    finally:
        for one_running in running:
            one_running.kill()
            one_running.wait()


def test_info_shows_it_and_daemon_and_guest_may_start_anew(host: Host, launch: Launch) -> None:
    instance = launch()
    first = only_cookie(instance)
    assert shown(instance) == f"cookie {first:#x}"
    assert instance.seen()["coreCookie"] == first
    host.run(["systemctl", "restart", "syscontd.service"])
    assert shown(instance) == f"cookie {first:#x}"
    instance.do("restart", "--force")
    again = only_cookie(instance)
    assert again
    assert shown(instance) == f"cookie {again:#x}"
    instance.do("stop", "--force")
    assert "Core scheduling" not in instance.do("info").stdout


def test_a_guest_that_makes_cookies_gets_no_other_instances(host: Host, debian_guest: Instance, launch: Launch) -> None:
    neighbour = launch()
    program = (
        "import ctypes\n"
        "prctl = ctypes.CDLL(None).prctl\n"
        "assert prctl(62, 1, 0, 0, 0) == 0\n"
        # Those of the host, by numbers that mean others or none inside.
        f"for pid in (1, {neighbour.leader}, 2): prctl(62, 3, pid, 0, 0); prctl(62, 2, pid, 0, 0)\n"
    )
    debian_guest.exec("sh", "-c", 'command -v python3 >/dev/null || exit 0; exec python3 -c "$1"', "sh", program)
    seen = cookies(host)
    assert len({seen[task] for task in threads(neighbour) if task in seen}) == 1
    assert not {seen[task] for task in threads(neighbour)} & {
        value for task, value in seen.items() if task not in threads(neighbour)
    }


def test_an_instance_may_go_without(host: Host, launch: Launch) -> None:
    instance = launch("", "--config", "security.core_scheduling=false")
    assert only_cookie(instance) == 0
    assert shown(instance) == "off"
    instance.exec("true")


def test_default_of_the_server(make_host: MakeHost) -> None:
    host = make_host()
    setting = "[Service]\nEnvironment=SYSCONT_CORE_SCHEDULING=no\n"
    host.sh("mkdir -p /etc/systemd/system/syscontd.service.d")
    host.write_text("/etc/systemd/system/syscontd.service.d/cores.conf", setting)
    host.sh("systemctl daemon-reload; systemctl restart syscontd.service")
    syscont(host, "image", "build", "busybox")
    for name, options in {"without": (), "with": ("-c", "security.core_scheduling=true")}.items():
        syscont(host, "launch", *options, "busybox", name)
    assert shown(Instance(host, "without")) == "off"
    assert until(host, lambda: only_cookie(Instance(host, "with")))
