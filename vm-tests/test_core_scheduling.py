# SPDX-License-Identifier: Apache-2.0
"""Core scheduling: each instance has a cookie that no task outside of it has."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import Launch
from guests import Instance, python, syscont
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


# A guest may part its own tasks further, but not join those of others: it does not see them.
HOSTILE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int joined = 0, made = prctl(62 /* PR_SCHED_CORE */, 1 /* CREATE */, 0, 0, 0);
    for (int i = 1; i < argc; i++)
        joined += prctl(62, 3 /* SHARE_FROM */, atoi(argv[i]), 0, 0) == 0;
    printf("%d %d\n", made, joined);
    fflush(stdout);
    pause();
}
"""


def test_a_guest_that_makes_cookies_joins_no_one(host: Host, launch: Launch, tmp_path: Path) -> None:
    hostile, neighbour = launch(), launch()
    (tmp_path / "hostile.c").write_text(HOSTILE)
    subprocess.run(["gcc", "-static", "-o", "hostile", "hostile.c"], cwd=tmp_path, check=True)
    host.push(tmp_path / "hostile", hostile.on_disk("hostile"))
    host.sh(f"chmod 755 {hostile.on_disk('hostile')}")
    others = [str(neighbour.leader), str(max(neighbour.processes())), "2"]
    running = host.spawn(["syscont", "exec", hostile.name, "--", "/hostile", *others])
    assert running.stdout
    assert running.stdout.readline() == "0 0\n"
    seen, inside = cookies(host), threads(hostile)
    running.kill()
    running.wait()
    own = {seen[task] for task in inside if task in seen}
    assert len(own) == 2
    assert all(own)
    assert not own & {cookie for task, cookie in seen.items() if task not in inside}


def test_an_instance_may_go_without(host: Host, launch: Launch) -> None:
    instance = launch("", "--config", "security.core_scheduling=false")
    assert only_cookie(instance) == 0
    assert shown(instance) == "off"
    instance.exec("true")


def test_default_of_the_host(host: Host, launch: Launch) -> None:
    """Also of an instance that was there before, and is started by systemctl."""
    before = launch(verb="create")
    syscont(host, "config", "set", "instances.security.core_scheduling=false")
    try:
        host.run(["systemctl", "start", before.unit])
        assert [shown(before), shown(launch())] == ["off", "off"]
        assert only_cookie(launch("", "--config", "security.core_scheduling=true"))
    finally:
        syscont(host, "config", "unset", "instances.security.core_scheduling")
    assert only_cookie(launch())
