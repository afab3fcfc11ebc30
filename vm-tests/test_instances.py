# SPDX-License-Identifier: Apache-2.0
"""The life of instances, from the command line and from systemd's own tools."""

import csv
import io
import json
import time

import pytest
import yaml
from conftest import Launch
from guests import Instance, on_terminal, syscont, unique, until
from hosts import Host

STATES = {"active": "running", "inactive": "stopped", "failed": "failed"}


def agree(instance: Instance, state: str) -> None:
    assert (instance.state, STATES[instance.systemd("ActiveState")]) == (state, state)


def test_a_life(host: Host, launch: Launch) -> None:
    instance = launch(verb="create")
    agree(instance, "stopped")
    instance.do("start")
    agree(instance, "running")
    first = instance.leader
    instance.do("restart", "--force")
    agree(instance, "running")
    assert instance.leader != first
    instance.do("stop")
    agree(instance, "stopped")
    instance.do("delete")
    assert not instance.seen()
    assert instance.systemd("LoadState") == "not-found"


def test_launch_prints_the_name_and_makes_one_up(host: Host, busybox: str) -> None:
    name = syscont(host, "launch", busybox).stdout.strip()
    assert Instance(host, name).state == "running"
    syscont(host, "delete", "--force", name)


def test_pause_and_resume(host: Host, guest: Instance, launch: Launch) -> None:
    instance = launch()
    instance.sh("(while :; do echo x >>/tick; sleep 0.05; done) >/dev/null 2>&1 &")
    instance.do("pause")
    assert instance.state == "frozen"
    assert instance.systemd("FreezerState") == "frozen"
    refused = instance.exec("true", check=False)
    assert refused.returncode == 125
    assert f"{instance.name} is frozen" in refused.stderr
    tick = instance.on_disk("/tick")
    before = host.read_text(tick)
    time.sleep(0.3)
    assert host.read_text(tick) == before
    instance.do("resume")
    assert instance.state == "running"
    until(host, lambda: host.read_text(tick) != before)
    instance.do("pause")
    instance.do("stop", "--force")  # what is paused can be stopped
    assert instance.state in ("stopped", "failed")


def test_pause_needs_a_running_instance(launch: Launch) -> None:
    refused = launch(verb="create").do("pause", check=False)
    assert refused.returncode == 1
    assert "is stopped" in refused.stderr


def test_rename(host: Host, launch: Launch) -> None:
    instance = launch()
    instance.sh("echo mine >/root/mine")
    renamed = Instance(host, unique("renamed"))
    refused = syscont(host, "rename", instance.name, renamed.name, check=False)
    assert "stop it" in refused.stderr
    instance.do("stop")
    syscont(host, "rename", instance.name, renamed.name)
    assert not instance.seen()
    renamed.do("start")
    agree(renamed, "running")
    assert renamed.exec("cat", "/root/mine").stdout == "mine\n"
    assert renamed.exec("hostname").stdout.strip() == renamed.name
    renamed.do("delete", "--force")


def rows_of(form: str, text: str) -> list[list[str]]:
    """The rows of `syscont list --columns nstp`."""
    if form == "csv":
        return list(csv.reader(io.StringIO(text)))
    if form == "table":
        return [[*line.split(), "0"] for line in text.splitlines()]
    loaded = json.loads(text) if form == "json" else yaml.safe_load(text)
    return [[one["name"], one["state"], one["type"], str(one["leader"])] for one in loaded]


@pytest.mark.parametrize("form", ["json", "yaml", "csv", "table"])
def test_list_formats(host: Host, guest: Instance, launch: Launch, form: str) -> None:
    off = launch(verb="create")
    text = syscont(host, "list", "--format", form, "--columns", "nstp").stdout
    wanted = [row for row in rows_of(form, text) if row and row[0] in (off.name, guest.name)]
    found = {row[0]: (row[1], row[2], int(row[3].strip("-") or 0)) for row in wanted}
    assert found[off.name] == ("stopped", "container", 0)
    assert found[guest.name] == ("running", "container", int(guest.systemd("MainPID")))


def test_list_filters(host: Host, guest: Instance, launch: Launch) -> None:
    off = launch(verb="create")
    listed = syscont(host, "list", "state=stopped", "--format", "csv", "-c", "n").stdout.split()
    assert off.name in listed
    assert guest.name not in listed
    assert syscont(host, "list", "gue*", "--format", "csv", "-c", "n").stdout == f"{guest.name}\n"


def test_info(guest: Instance) -> None:
    text = guest.do("info").stdout
    for value in (guest.name, guest.unit, "running", str(guest.leader), guest.seen()["uuid"]):
        assert value in text
    assert json.loads(guest.do("info", "--format", "json").stdout)["name"] == guest.name


def test_what_is_not_there(host: Host) -> None:
    for command in ("info", "start", "stop", "delete", "config show", "console"):
        done = syscont(host, *command.split(), "nobody", check=False)
        assert done.returncode == 3, command
        assert done.stderr.startswith("syscont: no instance 'nobody'"), command
        assert len(done.stderr.splitlines()) == 1, command


def test_a_name_is_taken_once(host: Host, launch: Launch) -> None:
    taken = launch(verb="create")
    done = syscont(host, "create", "busybox", taken.name, check=False)
    assert done.returncode == 1
    assert "exists already" in done.stderr


def test_starting_and_stopping_twice_is_no_error(launch: Launch) -> None:
    instance = launch()
    leader = instance.leader
    instance.do("start")
    assert instance.leader == leader
    instance.do("stop")
    instance.do("stop")
    agree(instance, "stopped")


def test_delete_of_a_running_instance_needs_force(launch: Launch) -> None:
    instance = launch()
    refused = instance.do("delete", check=False)
    assert refused.returncode == 1
    assert "is running" in refused.stderr
    agree(instance, "running")
    instance.do("delete", "--force")
    assert not instance.seen()


# configuration


def test_config(host: Host, launch: Launch) -> None:
    instance = launch("", "--config", "user.first=1")
    name = instance.name
    syscont(host, "config", "set", name, "user.text=a b=c\n\td", "boot.autostart=true")
    assert syscont(host, "config", "get", name, "user.text").stdout == "a b=c\n\td\n"
    shown = yaml.safe_load(syscont(host, "config", "show", name).stdout)["config"]
    assert shown.pop("volatile.eth0.hwaddr").startswith("02:73:63:")
    assert shown.pop("volatile.eth0.host_name").startswith("veth")
    assert shown == {"user.first": "1", "user.text": "a b=c\n\td", "boot.autostart": "true"}
    syscont(host, "config", "unset", name, "user.text", "boot.autostart")
    assert syscont(host, "config", "get", name, "user.text").stdout == ""
    assert instance.config == {"user.first": "1"}


def test_config_is_all_or_nothing(host: Host, guest: Instance) -> None:
    done = syscont(
        host, "config", "set", guest.name, "user.good=1", "limits.memory=much", check=False
    )
    assert done.returncode == 2
    assert "limits.memory" in done.stderr
    assert guest.config == {}


def test_environment_reaches_init_and_commands(host: Host, launch: Launch) -> None:
    instance = launch("", "--config", "environment.COLOUR=blue green")
    assert instance.sh('echo "$COLOUR"') == "blue green\n"
    assert "COLOUR=blue green" in instance.sh("tr '\\0' '\\n' </proc/1/environ").splitlines()


def test_limits_are_properties_of_the_unit(host: Host, launch: Launch) -> None:
    instance = launch("", "--config", "limits.processes=100")
    assert instance.systemd("TasksMax") == "100"
    syscont(host, "config", "set", instance.name, "limits.processes=200", "limits.memory=64MiB")
    assert instance.systemd("TasksMax") == "200"
    assert instance.systemd("MemoryMax") == str(64 << 20)
    syscont(host, "config", "unset", instance.name, "limits.memory")
    assert instance.systemd("MemoryMax") == "infinity"


def test_a_protected_instance_stays(host: Host, launch: Launch) -> None:
    instance = launch("", "-c", "security.protection.delete=true", verb="create")
    refused = instance.do("delete", "--force", check=False)
    assert "protected" in refused.stderr
    assert instance.seen()
    syscont(host, "config", "unset", instance.name, "security.protection.delete")


# stopping


def test_init_is_asked_to_stop(launch: Launch) -> None:
    instance = launch()
    instance.sh("echo '::shutdown:/bin/touch /root/asked' >>/etc/inittab; kill -HUP 1; sleep 0.2")
    asked = instance.on_disk("/root/asked")
    instance.do("stop")
    instance.host.run(["test", "-e", asked])
    assert instance.systemd("Result") == "success"


def hung(instance: Instance) -> Instance:
    """With a PID 1 that is stopped, and so deaf to all but SIGKILL."""
    instance.host.run(["kill", "-STOP", str(instance.leader)])
    return instance


@pytest.mark.parametrize(
    ("options", "at_least", "below"), [(["--force"], 0.0, 1.5), (["--timeout", "1"], 0.9, 3.0)]
)
def test_a_deaf_guest_is_killed(
    launch: Launch, options: list[str], at_least: float, below: float
) -> None:
    instance = hung(launch())
    begin = time.monotonic()
    instance.do("stop", *options)
    taken = time.monotonic() - begin
    assert at_least <= taken < below * instance.host.slowness
    assert instance.state in ("stopped", "failed")
    assert instance.seen()["leader"] == 0


def test_the_time_to_stop_can_be_configured(launch: Launch) -> None:
    instance = hung(launch("", "-c", "boot.host_shutdown_timeout=1"))
    assert instance.systemd("TimeoutStopUSec") == "1s"
    begin = time.monotonic()
    instance.host.run(["systemctl", "stop", instance.unit])
    assert time.monotonic() - begin < 4 * instance.host.slowness
    assert instance.state in ("stopped", "failed")


# from inside


@pytest.mark.parametrize("image", ["busybox", "debian"])
def test_reboot_and_power_off_from_inside(
    host: Host, launch: Launch, request: pytest.FixtureRequest, image: str
) -> None:
    instance = launch(request.getfixturevalue(image), "--wait")
    first, leader = instance.systemd("InvocationID"), instance.leader
    instance.sh("echo kept >/root/kept")
    instance.exec("reboot", check=False)
    until(host, lambda: instance.systemd("NRestarts") == "1")
    until(host, lambda: instance.systemd("ActiveState") == "active")
    until(host, lambda: instance.seen()["leader"] not in (0, leader))
    assert instance.systemd("InvocationID") != first
    assert instance.exec("cat", "/root/kept").stdout == "kept\n"
    instance.address()
    instance.exec("poweroff", check=False)
    instance.wait_for("stopped")
    assert instance.systemd("ActiveState") == "inactive"
    instance.do("start")
    assert instance.exec("cat", "/root/kept").stdout == "kept\n"


# systemd's side


def test_active_means_booted(debian: str, launch: Launch) -> None:
    instance = launch(debian, verb="create")
    instance.do("start", "--wait")
    agree(instance, "running")
    assert instance.sh("systemctl is-system-running") == "running\n"


def test_systemctl_starts_and_stops(host: Host, debian: str, launch: Launch) -> None:
    instance = launch(debian, "--wait")
    host.run(["systemctl", "stop", instance.unit])
    agree(instance, "stopped")
    host.run(["systemctl", "start", instance.unit])
    assert instance.sh("systemctl is-system-running") == "running\n"
    agree(instance, "running")
    host.run(["systemctl", "restart", instance.unit])
    assert instance.sh("systemctl is-system-running") == "running\n"


def test_systemctl_starts_what_never_ran(host: Host, launch: Launch) -> None:
    instance = launch(verb="create")
    host.run(["systemctl", "start", instance.unit])
    until(host, lambda: instance.seen()["leader"])
    agree(instance, "running")
    instance.do("stop", "--force")
    host.run(["systemctl", "restart", "syscontd.service"])
    host.run(["systemctl", "start", instance.unit])
    until(host, lambda: instance.seen()["leader"])
    assert instance.state == "running"


def test_systemctl_starts_what_syscont_stopped(host: Host, launch: Launch) -> None:
    instance = launch()
    instance.do("stop")
    host.run(["systemctl", "start", instance.unit])
    until(host, lambda: instance.seen()["leader"])
    agree(instance, "running")
    instance.sh("true")


def test_the_unit_sits_in_its_slice(guest: Instance) -> None:
    assert guest.systemd("Slice") == "syscont.slice"
    assert guest.systemd("Delegate") == "yes"
    assert guest.systemd("MainPID") == str(guest.leader)


# consoles and logs


def test_boot_output_is_in_the_journal(host: Host, debian_guest: Instance) -> None:
    until(host, lambda: "Reached target multi-user.target" in debian_guest.logs())
    assert "Welcome to" in host.run(["journalctl", "-u", debian_guest.unit, "-o", "cat"]).stdout


def test_console_lines_are_in_the_journal(host: Host, guest: Instance) -> None:
    mark = unique("console-mark-")
    guest.sh(f"printf 'a \\033[31m{mark}\\033[0m line\\n' >/dev/console")
    until(host, lambda: f"a {mark} line" in guest.logs().splitlines())


def test_console_reaches_a_getty(host: Host, launch: Launch) -> None:
    instance = launch()
    instance.sh("echo '::respawn:/sbin/getty -L 0 console vt100' >>/etc/inittab; kill -HUP 1")
    _, shown = on_terminal(
        host,
        ["syscont", "console", instance.name],
        ("", "\r"),
        ("login:", "somebody\r"),
        ("assword:", "\x01q"),
    )
    assert "somebody" in shown


# no process of syscont's


def test_only_the_guests_processes_run_for_it(host: Host, debian_guest: Instance) -> None:
    leader, processes = debian_guest.leader, debian_guest.processes()
    assert leader in processes
    inside = host.run(["readlink", f"/proc/{leader}/ns/pid"]).stdout
    assert set(host.sh(_LINKS.format(kind="pid", pids=" ".join(map(str, processes)))).split()) == {
        inside.strip()
    }
    # And nobody elsewhere has one of its namespaces.
    for kind in ("user", "pid", "mnt", "net", "uts", "ipc", "cgroup"):
        link = host.run(["readlink", f"/proc/{leader}/ns/{kind}"]).stdout.strip()
        script = f"""
            for p in /proc/[0-9]*; do
                [ "$(readlink $p/ns/{kind})" != '{link}' ] || echo ${{p#/proc/}}
            done"""
        strangers = set(map(int, host.sh(script).split())) - set(processes)
        assert not strangers, f"{kind}: {strangers}"


_LINKS = "for p in {pids}; do readlink /proc/$p/ns/{kind} || true; done"


def test_an_instance_outlives_the_daemon(host: Host, guest: Instance) -> None:
    leader, address = guest.leader, guest.address()
    host.run(["systemctl", "stop", "syscontd.service"])
    host.run(["kill", "-0", str(leader)])
    host.run(["ping", "-c1", "-W5", address])
    assert guest.systemd("ActiveState") == "active"
    host.run(["systemctl", "start", "syscontd.service"])
    assert guest.leader == leader
    assert guest.sh("echo still here") == "still here\n"
    until(host, lambda: address in guest.seen()["addresses"])
