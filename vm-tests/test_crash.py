# SPDX-License-Identifier: Apache-2.0
"""The daemon, and what it depends on, dies at any moment: guests do not notice, and every object is whole or gone.

CRASH_POINTS=24 pytest vm-tests/test_crash.py sweeps each operation with as many moments (2 if not set).
"""

import json
import os
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import leftovers
import pytest
from guests import Instance, python, syscont, until
from hosts import Host

POINTS = int(os.environ.get("CRASH_POINTS", "2"))
CLIENT_LIMIT = 20.0
RESTART = "systemctl restart syscontd"


@pytest.fixture(scope="module")
def crash_host(host_kind: type[Host], installed: Callable[[str], Host]) -> Iterator[Host]:
    """A host with an image, and an instance that must never notice anything."""
    with host_kind(base=installed("plain")) as one:
        syscont(one, "image", "build", "busybox")
        syscont(one, "launch", "busybox", "steady")
        one.sh("tar -cf /root/rootfs.tar -C /var/lib/syscont/images/*/rootfs .", timeout=60)
        one.sh(_MAKE_ARCHIVE, timeout=60)
        yield one


# Big enough that unpacking it takes a while.
_MAKE_ARCHIVE = """
mkdir -p /root/image/rootfs && cd /root/image
tar -xf /root/rootfs.tar -C rootfs
for number in $(seq 2000); do echo $number >rootfs/file$number; done
head -c 40M /dev/urandom >rootfs/large
printf 'architecture: x86_64\\ncreation_date: 1700000000\\n' >metadata.yaml
tar -cf /root/image.tar metadata.yaml rootfs
rm -rf /root/image
"""


@pytest.fixture
def steady(crash_host: Host) -> Iterator[Instance]:
    """The bystander; after the test it must be what it was, and work."""
    one = Instance(crash_host, "steady")
    before = one.seen()
    assert before["state"] == "running"
    use_and_delete_all(crash_host, use=False)
    yield one
    after = one.seen()
    assert (after["state"], after["leader"]) == ("running", before["leader"])
    assert one.sh("cat /proc/1/comm; echo $container") == "init\nsyscont\n"


def crash(host: Host, argv: list[str], delay: float, breaker: str, status: int = 0) -> dict[str, Any]:
    """status: that of the command when nothing happens to it."""
    task = {"argv": argv, "delay": delay, "break": breaker, "limit": CLIENT_LIMIT * host.slowness}
    answer: dict[str, Any] = json.loads(python(host, "crash_at", input=json.dumps(task), timeout=90).stdout)
    assert not answer["hung"], f"{argv} hung when the daemon went after {delay:.3f} s"
    assert "Traceback" not in answer["err"], answer
    if answer["status"]:
        assert len(answer["err"].splitlines()) == 1, answer
        assert answer["status"] in (1, 3, 125, status), answer
    until(host, lambda: _back(host))
    return answer


def _back(host: Host) -> bool:
    states = host.run(["systemctl", "is-active", "syscontd.service"], check=False).stdout
    return states == "active\n" and not syscont(host, "list", check=False).returncode


def instances(host: Host) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(syscont(host, "list", "--format", "json").stdout)
    return [one for one in found if one["name"] != "steady"]


def use_and_delete_all(host: Host, *, use: bool = True) -> None:
    """Each instance there is can be started, entered, stopped and deleted."""
    for found in instances(host):
        one = Instance(host, found["name"])
        if not use:
            one.do("delete", "--force")
            continue
        until(host, lambda one=one: one.state not in ("starting", "stopping"))  # type: ignore[misc]
        state = one.state
        # Failed: it was killed, as asked, and the daemon was before it could say so.
        assert state in ("running", "stopped", "failed"), f"{one.name} is {state}"
        if state != "running":
            one.do("start")
        assert one.sh("echo inside") == "inside\n"
        one.do("stop", "--force")
        assert one.state == "stopped"
        one.do("delete")


def images(host: Host) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(syscont(host, "image", "list", "--format", "json").stdout)
    return [one for one in found if "busybox" not in one["aliases"]]


def use_and_delete_images(host: Host) -> None:
    for image in images(host):
        syscont(host, "launch", image["fingerprint"], "from-image")
        Instance(host, "from-image").sh("test -e /file2000; test -s /large")
        syscont(host, "delete", "--force", "from-image")
        syscont(host, "image", "delete", image["fingerprint"])


@dataclass(frozen=True)
class Operation:
    """argv on an instance x (or an image) that set_up, a shell script, has made."""

    argv: list[str]
    set_up: str = ""
    #: What may be there when it was interrupted: any of these names.
    names: tuple[str, ...] = ("x",)
    status: int = 0


IMPORT = ["syscont", "image", "import", "/root/image.tar", "--alias", "big"]
CREATE_STOPPED = "syscont create busybox x"
LAUNCH = "syscont launch busybox x"

OPERATIONS = {
    "create": Operation(["syscont", "create", "busybox", "x"]),
    "launch": Operation(["syscont", "launch", "busybox", "x"]),
    "start": Operation(["syscont", "start", "x"], CREATE_STOPPED),
    "exec": Operation(["syscont", "exec", "x", "--", "sleep", "0.3"], LAUNCH),
    "stop": Operation(["syscont", "stop", "x"], LAUNCH),
    "restart": Operation(["syscont", "restart", "x"], LAUNCH),
    "delete": Operation(["syscont", "delete", "x"], CREATE_STOPPED),
    "delete a running one": Operation(["syscont", "delete", "--force", "x"], LAUNCH),
    "rename": Operation(["syscont", "rename", "x", "y"], CREATE_STOPPED, ("x", "y")),
    "image build": Operation(["syscont", "image", "build", "busybox"]),
    "image import": Operation(IMPORT),
    "image import in the middle": Operation(
        ["sh", "-c", "(head -c 1M /root/image.tar; sleep 1) | syscont image import -"], status=2
    ),
    "image delete": Operation(["syscont", "image", "delete", "big"], " ".join(IMPORT)),
}


def _duration(host: Host, operation: Operation) -> float:
    """Seconds that it takes when nothing happens."""
    if operation.set_up:
        host.sh(operation.set_up)
    begin = time.monotonic()
    host.run(operation.argv, check=False)
    took = time.monotonic() - begin
    use_and_delete_all(host)
    use_and_delete_images(host)
    return took


@pytest.mark.parametrize("name", OPERATIONS)
def test_daemon_dies_in_the_middle(crash_host: Host, steady: Instance, name: str) -> None:
    operation, host = OPERATIONS[name], crash_host
    took = _duration(host, operation)
    before, place = leftovers.settled(host), leftovers.mark(host)
    for point in range(POINTS):
        if operation.set_up:
            host.sh(operation.set_up)
        delay = took * (point + 0.5) / POINTS
        crash(host, operation.argv, delay, RESTART if point % 4 == 3 else "kill", operation.status)
        assert {one["name"] for one in instances(host)} <= set(operation.names)
        use_and_delete_all(host)
        use_and_delete_images(host)
        assert not instances(host)
        leftovers.expect_same(host, before)
    said = place.since()
    assert "Traceback" not in said, said[-3000:]


def test_profile_changes_are_whole_and_in_force(crash_host: Host, steady: Instance) -> None:
    """With the daemon dying at any moment, a change is made for all that have the profile, or for none."""
    host, users = crash_host, [Instance(crash_host, name) for name in ("x", "y", "z")]
    syscont(host, "profile", "create", "p", "-c", "limits.processes=100", "-c", "user.k=100")
    for user in users:
        syscont(host, "launch", "busybox", user.name, "-p", "default", "-p", "p")
    name = "p"
    try:
        for point in range(POINTS):
            wanted = str(101 + point)
            # It takes about as long as three of these: the command's own start, the change, the units.
            delay = 0.15 * host.slowness * (point + 0.5) / POINTS
            change = ["syscont", "profile", "set", name, f"limits.processes={wanted}", f"user.k={wanted}"]
            crash(host, change, delay, RESTART if point % 4 == 3 else "kill")
            shown = json.loads(syscont(host, "profile", "show", name, "--format", "json").stdout)
            held = shown["config"]["limits.processes"]
            assert shown["config"]["user.k"] == held
            for user in users:
                assert user.seen()["expandedConfig"]["user.k"] == held
                until(host, lambda user=user, held=held: user.systemd("TasksMax") == held)  # type: ignore[misc]
            other = "q" if name == "p" else "p"
            crash(host, ["syscont", "profile", "rename", name, other], delay, "kill")
            listed = json.loads(syscont(host, "profile", "list", "--format", "json").stdout)
            (name,) = {one["name"] for one in listed} - {"default"}
            assert all(user.seen()["profiles"] == ["default", name] for user in users)
    finally:
        for user in users:
            user.do("delete", "--force", check=False)
        syscont(host, "profile", "delete", name, check=False)


def test_projects_are_whole(crash_host: Host, steady: Instance) -> None:
    """A project and its default profile come and go together."""
    host = crash_host
    verbs = (["create", "new"], ["rename", "lab", "yard"], ["delete", "lab"])
    for point in range(POINTS):
        syscont(host, "project", "create", "lab")
        delay = 0.12 * host.slowness * (point + 0.5) / POINTS
        crash(host, ["syscont", "project", *verbs[point % len(verbs)]], delay, "kill")
        projects = {one["name"] for one in json.loads(syscont(host, "project", "list", "--format", "json").stdout)}
        profiles = json.loads(syscont(host, "profile", "list", "--all-projects", "--format", "json").stdout)
        assert {one["project"] for one in profiles} == projects
        for name in projects - {"default"}:
            syscont(host, "project", "delete", name)


def test_command_in_a_guest_outlives_the_daemon(crash_host: Host, steady: Instance) -> None:
    steady.sh("rm -f /ended")
    begun = crash(crash_host, ["syscont", "exec", "steady", "--", "sh", "-c", "sleep 1; echo yes >/ended"], 0.3, "kill")
    assert begun["status"] == 125
    assert "lost the connection" in begun["err"]
    until(crash_host, lambda: steady.sh("cat /ended 2>/dev/null || true"))


@pytest.mark.parametrize("fraction", [(i + 0.5) / POINTS for i in range(POINTS)])
def test_launcher_is_killed(crash_host: Host, steady: Instance, fraction: float) -> None:
    host = crash_host
    took = _duration(host, OPERATIONS["start"])
    before = leftovers.settled(host)
    syscont(host, "create", "busybox", "x")
    kill = "pkill -9 -f '^/usr/bin/python3.*/usr/libexec/syscont/[l]aunch' || true"
    started = crash(host, ["syscont", "start", "x"], took * fraction, kill)
    one = Instance(host, "x")
    until(host, lambda: one.state in ("running", "stopped", "failed"))
    if started["status"]:
        assert "x" in started["err"]
        until(host, lambda: one.state in ("stopped", "failed"))
    one.do("start")
    assert one.sh("echo inside") == "inside\n"
    one.do("delete", "--force")
    leftovers.expect_same(host, before)


def test_worker_is_killed_during_import(crash_host: Host, steady: Instance) -> None:
    with leftovers.nothing_happens(crash_host):
        kill = "until pkill -9 -f 'sysd.images.[w]orker'; do sleep 0.01; done"
        answer = crash(crash_host, IMPORT, 0.05, kill)
        assert answer["status"] == 1
        assert "could not be unpacked" in answer["err"]
        assert not images(crash_host)


def test_builder_is_killed_during_build(crash_host: Host, steady: Instance) -> None:
    with leftovers.nothing_happens(crash_host):
        kill = "until systemctl kill -s KILL 'syscont-build@*'; do sleep 0.01; done 2>/dev/null"
        answer = crash(crash_host, ["syscont", "image", "build", "busybox"], 0.0, kill)
        assert answer["status"] in (0, 1)
    syscont(crash_host, "image", "build", "busybox")


def test_dnsmasq_is_killed(crash_host: Host, steady: Instance) -> None:
    unit = crash_host.sh("systemctl list-units --plain --no-legend 'syscont-net@*'").split()[0]
    first = crash_host.sh(f"systemctl show --value -p MainPID {unit}")
    crash_host.sh(f"kill -9 {first}")
    until(crash_host, lambda: crash_host.sh(f"systemctl show --value -p MainPID {unit}") not in (first, "0\n"))
    with leftovers.nothing_happens(crash_host):
        syscont(crash_host, "launch", "busybox", "x")
        Instance(crash_host, "x").address()
        syscont(crash_host, "delete", "--force", "x")


def test_works_without_machined(crash_host: Host, steady: Instance) -> None:
    crash_host.sh("systemctl stop systemd-machined; systemctl mask --runtime systemd-machined")
    try:
        syscont(crash_host, "launch", "busybox", "x")
        assert Instance(crash_host, "x").sh("echo inside") == "inside\n"
        syscont(crash_host, "delete", "--force", "x")
    finally:
        crash_host.sh("systemctl unmask --runtime systemd-machined; systemctl start systemd-machined")


def test_system_bus_restarts(crash_host: Host, steady: Instance) -> None:
    before = leftovers.settled(crash_host)
    crash_host.sh("systemctl restart dbus.service")
    until(crash_host, lambda: _back(crash_host))
    crash_host.sh("busctl call org.syscont.Manager /org/syscont/Manager org.syscont.Manager ListInstances")
    syscont(crash_host, "launch", "busybox", "x")
    syscont(crash_host, "delete", "--force", "x")
    leftovers.expect_same(crash_host, before)


def test_pid_1_of_a_guest_is_killed(crash_host: Host, steady: Instance) -> None:
    with leftovers.nothing_happens(crash_host):
        syscont(crash_host, "launch", "busybox", "x")
        one = Instance(crash_host, "x")
        crash_host.sh(f"kill -9 {one.leader}")
        until(crash_host, lambda: one.state in ("failed", "stopped"))
        one.do("start")
        assert one.sh("echo inside") == "inside\n"
        one.do("delete", "--force")


def test_guest_reboots_while_the_daemon_is_away(crash_host: Host, steady: Instance) -> None:
    before, place = leftovers.settled(crash_host), leftovers.mark(crash_host)
    syscont(crash_host, "launch", "busybox", "x")
    one = Instance(crash_host, "x")
    first = one.leader
    one.sh("echo written before >/dev/console; (sleep 0.7; reboot -f) >/dev/null 2>&1 &")
    crash_host.sh("systemctl stop syscontd.service; sleep 1.5; systemctl start syscontd.service")
    until(crash_host, lambda: one.state == "running")
    assert one.leader != first
    assert one.leader == int(one.systemd("MainPID"))
    until(crash_host, lambda: "console-" in crash_host.sh("systemd-analyze fdstore syscontd.service"))
    one.sh("echo written after >/dev/console")
    until(crash_host, lambda: "written after" in one.logs())
    one.do("delete", "--force")
    leftovers.expect_same(crash_host, before)
    assert "Traceback" not in place.since()


def test_who_writes_to_the_console_does_not_wait_for_a_daemon_that_is_stopped(
    crash_host: Host, steady: Instance
) -> None:
    """However much that is, and nothing of it is lost."""
    script = "for i in $(seq 1 300); do printf 'away-%04d %01000d\\n' $i 0; done >/dev/console; echo >/written"
    steady.sh("rm -f /written")
    crash_host.sh("systemctl stop syscontd.socket syscontd.service")
    leader = int(steady_main_pid(crash_host))
    crash_host.run(["nsenter", "-t", str(leader), "-a", "sh", "-c", script], timeout=20)
    count = "journalctl --sync; journalctl -u syscont@steady.service -o cat | grep -c away- || :"
    until(crash_host, lambda: int(crash_host.sh(count)) >= 300)
    crash_host.sh("systemctl start syscontd.socket syscontd.service")
    logged = steady.logs()
    assert [i for i in range(1, 301) if f"away-{i:04}" not in logged] == []
    assert not crash_host.sh("systemctl list-units --all --no-legend syscont-drain.service")
    steady.sh("test -e /written; echo here again >/dev/console")
    until(crash_host, lambda: "here again" in steady.logs())


def test_guests_end_before_the_daemon_when_the_host_does(crash_host: Host, steady: Instance) -> None:
    assert "syscont.target" in steady.systemd("After").split()
    assert "syscontd.service" in crash_host.sh("systemctl show --value -p After syscont.target").split()


def steady_main_pid(host: Host) -> str:
    return host.sh("systemctl show --value -p MainPID syscont@steady.service").strip()


def test_last_words_of_a_guest_that_ends_while_the_daemon_is_away(crash_host: Host, steady: Instance) -> None:
    before = leftovers.settled(crash_host)
    syscont(crash_host, "launch", "busybox", "x")
    one = Instance(crash_host, "x")
    leader = one.leader
    crash_host.sh("systemctl stop syscontd.socket syscontd.service")
    script = "for i in $(seq 100); do echo last-$i; done >/dev/console"
    crash_host.sh(f"nsenter -t {leader} -a sh -c {shlex.quote(script)}; kill -9 {leader}")
    crash_host.sh("systemctl start syscontd.socket syscontd.service")
    until(crash_host, lambda: "last-100" in one.logs())
    one.do("start")
    one.do("delete", "--force")
    leftovers.expect_same(crash_host, before)


def test_an_ephemeral_instance_outlives_its_restart(crash_host: Host) -> None:
    """The daemon dies while the guest is on its way down; that was to come up again."""
    before = leftovers.settled(crash_host)
    syscont(crash_host, "launch", "busybox", "x", "--ephemeral")
    one = Instance(crash_host, "x")
    one.sh("echo '::shutdown:/bin/sleep 2' >>/etc/inittab; kill -HUP 1; sleep 0.2")
    client = crash_host.spawn(["syscont", "restart", "x"])
    until(crash_host, lambda: one.state == "stopping")
    crash_host.run(["systemctl", "kill", "--signal=KILL", "syscontd.service"])
    client.communicate()
    until(crash_host, lambda: one.state == "stopped")
    one.do("start")
    one.do("stop", "--force")
    until(crash_host, lambda: not one.seen())
    leftovers.expect_same(crash_host, before)


def test_last_words_on_the_console_are_logged(crash_host: Host, steady: Instance) -> None:
    with leftovers.nothing_happens(crash_host):
        syscont(crash_host, "launch", "busybox", "x")
        one = Instance(crash_host, "x")
        one.sh("for i in $(seq 200); do echo last-$i; done >/dev/console; poweroff -f", check=False)
        until(crash_host, lambda: one.state == "stopped")
        until(crash_host, lambda: "last-200" in one.logs())
        one.do("delete")
