# SPDX-License-Identifier: Apache-2.0
"""Files go into instances and come out of them, running or stopped; a hostile guest gains and breaks nothing."""

import json
import time
from collections.abc import Iterator

import leftovers
import pytest
from conftest import Launch
from guests import Instance, on_terminal, python, syscont, until
from hosts import Host

SCRATCH = "/var/tmp/files"
STALL = "sleep 61.5"


@pytest.fixture(scope="module", params=["running", "stopped", "privileged"])
def instance(request: pytest.FixtureRequest, host: Host, busybox: str) -> Iterator[Instance]:
    one = Instance(host, f"files-{request.param}")
    options = ["--config", "security.privileged=true"] if request.param == "privileged" else []
    syscont(host, "create" if request.param == "stopped" else "launch", *options, busybox, one.name)
    yield one
    syscont(host, "delete", "--force", one.name)


@pytest.fixture(autouse=True)
def scratch(host: Host) -> Iterator[None]:
    host.sh(f"mkdir {SCRATCH}")
    yield
    host.sh(f"rm -r {SCRATCH}")


def file(host: Host, *words: str, check: bool = True, **options: object) -> str:
    """`syscont file WORDS` in the scratch folder; its output."""
    argv = ["sh", "-c", f'cd {SCRATCH} && exec syscont file "$@"', "sh", *words]
    done = host.run(argv, check=check, **options)  # type: ignore[arg-type]
    assert "Traceback" not in done.stderr
    if not check:
        assert done.returncode in range(1, 5), done
        assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stdout if check else done.stderr


def test_a_file_there_and_back(host: Host, instance: Instance) -> None:
    at = f"{instance.name}/root/file"
    host.sh(f"cd {SCRATCH}; head -c 3000000 /dev/urandom >a; chown 1000:1001 a; chmod 0640 a")
    with leftovers.nothing_happens(host):
        file(host, "push", "a", at)
        file(host, "pull", at, "b")
    assert host.sh(f"cd {SCRATCH}; cmp a b; stat -c '%a %u %g' b") == "640 1000 1001\n"
    file(host, "push", "a", at, "--mode", "4711", "--uid", "5")
    file(host, "pull", at, ".")
    # What is set-user-id in the guest must not be so for the users of the host.
    assert host.sh(f"stat -c '%a %u %g' {SCRATCH}/file") == "711 5 1001\n"
    file(host, "delete", at)
    assert "is not there" in file(host, "pull", at, "b", check=False)


def test_streams(host: Host, instance: Instance) -> None:
    at = f"{instance.name}/srv/new/text"
    assert "no directory" in file(host, "push", "-", at, input="typed\n", check=False)
    file(host, "push", "-", at, "--create-dirs", input="typed\n")
    assert file(host, "pull", at, "-") == "typed\n"
    file(host, "edit", at, input="edited\n")
    assert file(host, "pull", at, "-") == "edited\n"
    pull = f"syscont file pull {at} -"
    assert host.sh(f"cd {SCRATCH}; echo old >log; {pull} >>log; {pull} | cat >>log; cat log") == "old\nedited\nedited\n"
    file(host, "delete", "-r", f"{instance.name}/srv/new")


def test_terminals_are_copied_to_and_from(host: Host, instance: Instance) -> None:
    at = f"{instance.name}/root/typed"
    status, _ = on_terminal(host, ["syscont", "file", "push", "-", at], ("", "typed\r\x04"))
    assert status == 0
    status, output = on_terminal(host, ["syscont", "file", "pull", at, "-"])
    assert (status, "typed\r\n" in output) == (0, True)


def test_edit_in_an_editor(host: Host, instance: Instance) -> None:
    at = f"{instance.name}/root/hosts"
    file(host, "push", "-", at, "--mode", "0600", "--uid", "3", input="one\n")
    host.sh(f"printf '#!/bin/sh\\nstat -c %%a \"$1\" >{SCRATCH}/seen; sed -i s/one/two/ \"$1\"\\n' >{SCRATCH}/ed")
    host.sh(f"chmod +x {SCRATCH}/ed")
    argv = ["env", f"EDITOR={SCRATCH}/ed", "TMPDIR=/var/tmp", "syscont", "file", "edit", at]
    for _ in range(2):
        status, output = on_terminal(host, argv)
        assert status == 0, output
    assert host.read_text(f"{SCRATCH}/seen") == "600\n"
    file(host, "pull", at, "out")
    assert host.sh(f"cat {SCRATCH}/out; stat -c '%a %u' {SCRATCH}/out") == "two\n600 3\n"
    assert host.sh("ls /var/tmp | grep ^syscont- || true") == ""


def test_folders_keep_modes_owners_and_links(host: Host, instance: Instance) -> None:
    host.sh(f"""
        cd {SCRATCH}; mkdir -p site/sub/deep; echo 1 >site/sub/f; ln site/sub/f site/hard; ln -s ../nowhere site/link
        ln -s /etc/passwd site/absolute; mkfifo site/fifo; touch "site/odd $(printf '\\n\\377')"
        chown 5:6 site/sub/f; chown -h 7:8 site/link; touch -d @9 site/sub/f
        chmod 0750 site/sub; chmod 1777 site/sub/deep""")
    look = "find . -printf '%P %y %m %U %G %l %n\\n' | LC_ALL=C sort"
    with leftovers.nothing_happens(host):
        file(host, "push", "-r", "site", f"{instance.name}/srv/a", "-p")
        file(host, "pull", "-r", f"{instance.name}/srv/a/site", "back", "-p")
    assert host.sh(f"cd {SCRATCH}/back/site; {look}") == host.sh(f"cd {SCRATCH}/site; {look}")
    assert host.sh(f"stat -c %Y {SCRATCH}/back/site/sub/f") == "9\n"
    assert "not empty" in file(host, "delete", f"{instance.name}/srv/a", check=False)
    file(host, "delete", "-r", f"{instance.name}/srv/a")


def test_folders_are_made(host: Host, instance: Instance) -> None:
    at = f"{instance.name}/srv/x/y"
    assert "is not there" in file(host, "mkdir", at, check=False)
    file(host, "mkdir", "-p", at, "--mode", "0711", "--uid", "9")
    assert "exists already" in file(host, "mkdir", at, check=False)
    file(host, "pull", "-r", at, ".")
    assert host.sh(f"stat -c '%a %u' {SCRATCH}/y") == "711 9\n"
    file(host, "delete", "-r", f"{instance.name}/srv/x")


def test_by_d_bus(host: Host, instance: Instance) -> None:
    path = f"/org/syscont/Manager/instance/{instance.name.replace('-', '_2d')}"
    seen = json.loads(python(host, "bus", "files", path, "by bus").stdout)
    assert (seen["found"], seen["closed"], seen["ended"]) == ("by bus", True, ["done"] * 3)
    assert seen["result"] == {"mode": "0600", "uid": "7", "gid": "0", "size": "6"}


def test_an_ordinary_user_pulls_what_becomes_his(host: Host, instance: Instance) -> None:
    """alice is let in; what comes is hers, and can be removed by her."""
    host.sh(f"""
        cd {SCRATCH}; chmod 1777 .; mkdir -p t/ro; echo 1 >t/ro/f; chmod 0555 t/ro; chown -R 0:0 t
        syscont file push -p -r t {instance.name}/srv; usermod -aG syscont alice""")
    rule = "/etc/polkit-1/rules.d/10-files.rules"
    text = 'polkit.addRule(function(action) { if (action.id == "org.syscont.files") return polkit.Result.YES; });'
    pull = f"cd {SCRATCH}; syscont file pull -r {instance.name}/srv/t ."
    host.write_text(rule, text)
    host.run(["systemctl", "restart", "polkit.service"])
    try:
        host.sh(f"cd {SCRATCH}; rm -r t")
        host.run(["sh", "-c", pull], user="alice")
        assert host.sh(f"cd {SCRATCH}; stat -c '%U %a' t/ro t/ro/f") == "alice 755\nalice 644\n"
    finally:
        host.sh(f"rm {rule}; gpasswd -d alice syscont; systemctl restart polkit.service")
    file(host, "delete", "-r", f"{instance.name}/srv/t")


# hostile guests


ATTACKS = {
    "link to a file": ("ln -s /canary/file $D/a", "a"),
    "link to a folder": ("ln -s /canary $D/a", "a/file"),
    "relative link": ("ln -s ../../../../../../../canary $D/a", "a/file"),
    "chain of links": ("ln -s b $D/a; ln -s ../../../../canary $D/b", "a/file"),
    "through the host's root": ("ln -s /proc/1/root/canary $D/a", "a/file"),
    "through a cwd": ("ln -s /proc/self/cwd/canary $D/a", "a/file"),
    "through a descriptor": ("ln -s /proc/self/fd/0 $D/a", "a"),
    "loop": ("ln -s a $D/a", "a"),
    "fifo": ("mkfifo $D/a", "a"),
    "socket in a name": ("mkdir $D/a; ln -s /run/syscont/org.syscont.Manager $D/a/s", "a/s"),
}  # fmt: skip


def test_what_a_guest_puts_in_the_way(host: Host, instance: Instance, canary: None) -> None:
    """All that can be asked about each path ends soon, in an error or in the guest, and tells nothing of the host."""
    host.sh(f"cd {SCRATCH}; echo mine >x; mkdir t; echo mine >t/file")
    calls = ("push -p x $at", "push -r t $at", "pull $at out", "pull -r $at .", "mkdir -p $at/d", "delete -r $at/file")
    attempt = "code=0; timeout 10 syscont file $call 2>>said || code=$?; [ $code -le 3 ] || echo $call: $code"
    with leftovers.nothing_happens(host):
        for case, (make, path) in ATTACKS.items():
            inside(instance, f"rm -rf $D; mkdir -p $D; {make}")
            script = f"""cd {SCRATCH}; at={instance.name}/root/evil/{path}
                {"; ".join(f'call="{call}"; {attempt}' for call in calls)}
                grep -rl untouched . || true; grep -E 'Traceback|internal error' said || true"""
            assert (case, host.sh(script)) == (case, "")
    file(host, "delete", "-r", f"{instance.name}/root/evil")


def inside(instance: Instance, script: str) -> None:
    """Done by the guest, or in its layer while it does not run; $D is its /root/evil."""
    if instance.state == "running":
        instance.sh(f"D=/root/evil; {script}")
    else:
        instance.host.sh(f"D={instance.on_disk('/root/evil')}; {script}")


@pytest.mark.parametrize("folder", ["etc", "usr"])
def test_folders_that_became_links(host: Host, launch: Launch, canary: None, folder: str) -> None:
    instance = launch()
    instance.sh(f"cp -a /{folder} /old; rm -rf /{folder}; /bin/busybox ln -s /canary /{folder}")
    for words in (["push", "-", f"{instance.name}/{folder}/file"], ["delete", f"{instance.name}/{folder}/file"]):
        host.run(["syscont", "file", *words], check=False, input="evil")
    instance.exec("true", check=False)
    instance.do("stop", "--force")
    for words in (["push", "-", f"{instance.name}/{folder}/file"], ["delete", f"{instance.name}/{folder}/file"]):
        host.run(["syscont", "file", *words], check=False, input="evil")


def test_devices_and_endless_files(host: Host, instance: Instance) -> None:
    place = instance.on_disk("/root/odd")
    host.sh(f"mkdir -p {place}; mknod {place}/disk b 8 0; mknod {place}/zero c 1 5; truncate -s 2G {place}/sparse")
    for name in ("disk", "zero"):
        assert "is a device node" in file(host, "pull", f"{instance.name}/root/odd/{name}", "out", check=False)
        assert "is a device node" in file(host, "push", "-", f"{instance.name}/root/odd/{name}", check=False, input="x")
    file(host, "pull", f"{instance.name}/root/odd/sparse", "sparse")
    assert host.sh(f"stat -c %s {SCRATCH}/sparse; du -k {SCRATCH}/sparse | cut -f1").split()[0] == str(2 << 30)
    assert int(host.sh(f"du -k {SCRATCH}/sparse | cut -f1")) < 4096
    host.sh(f"rm {place}/sparse")
    done = host.run(["sh", "-c", f"cd {SCRATCH}; syscont file pull -r {instance.name}/root/odd ."])
    assert "2 device nodes" in done.stderr
    assert host.sh(f"ls {SCRATCH}/odd") == ""
    host.sh(f"rm -r {place}")


def test_a_tree_without_end(host: Host, instance: Instance) -> None:
    host.sh(f"cd {SCRATCH}; " + "for i in $(seq 300); do mkdir d; cd d; done")
    assert "nested" in file(host, "push", "-r", "d", f"{instance.name}/srv", check=False)
    file(host, "delete", "-r", f"{instance.name}/srv/d")


def test_what_is_mounted_is_neither_read_nor_deleted(host: Host, launch: Launch) -> None:
    instance = launch()
    instance.sh("mkdir -p /srv/t/m; echo 1 >/srv/t/f; mount -t tmpfs none /srv/t/m; echo 2 >/srv/t/m/kept")
    file(host, "pull", "-r", f"{instance.name}/srv/t", ".")
    assert host.sh(f"cd {SCRATCH}/t; find . | sort").split() == [".", "./f"]
    assert "mounted" in file(host, "delete", "-r", f"{instance.name}/srv/t", check=False)
    assert instance.sh("cat /srv/t/m/kept") == "2\n"


# work that others get in the way of


def stalled(host: Host) -> str:
    """The operation that has a worker, once there is one."""

    def look() -> list[str]:
        known = json.loads(syscont(host, "operation", "list", "--format", "json").stdout)
        return [one["id"] for one in known if (one["kind"], one["status"]) == ("push-file", "running")]

    until(host, lambda: host.run(["pgrep", "-f", "^/usr/bin/python3.*libexec/syscont/files"], check=False).stdout)
    return until(host, look)[0]


def test_a_push_that_stalls_holds_nobody_else(host: Host, launch: Launch) -> None:
    """The daemon answers; a start says why it can't be; cancelling ends it, and nothing is left."""
    instance, other = launch(verb="create"), launch()
    argv = ["sh", "-c", f"{STALL} | syscont file push - {instance.name}/root/x"]
    with leftovers.nothing_happens(host), host.spawn(argv):
        identity = stalled(host)
        file(host, "push", "-", f"{other.name}/root/x", input="1")
        begin = time.monotonic()
        refused = instance.do("start", check=False)
        assert "are being worked on" in refused.stderr
        assert time.monotonic() - begin < 15 * host.slowness
        syscont(host, "operation", "cancel", identity)
        until(host, lambda: instance.do("start", check=False).returncode == 0)
        assert instance.exec("ls", "-A", "/root").stdout.split() == []
        file(host, "delete", f"{other.name}/root/x")
        instance.do("stop", "--force")
        host.run(["pkill", "-fx", STALL], check=False)


def test_a_guest_that_ends_takes_the_work_with_it(host: Host, launch: Launch) -> None:
    instance = launch()
    argv = ["sh", "-c", f"{STALL} | syscont file push - {instance.name}/root/x 2>&1"]
    with host.spawn(argv):
        stalled(host)
        instance.do("restart", "--force")
        assert instance.exec("true").returncode == 0
        running = syscont(host, "operation", "list", "--format", "json").stdout
        assert all(one["status"] != "running" for one in json.loads(running) if one["kind"] == "push-file")
        host.run(["pkill", "-fx", STALL], check=False)


def test_a_daemon_that_is_killed_takes_the_work_with_it(host: Host, launch: Launch) -> None:
    instance = launch(verb="create")
    with host.spawn(["sh", "-c", f"{STALL} | syscont file push - {instance.name}/root/x 2>/dev/null"]):
        stalled(host)
        host.run(["systemctl", "kill", "-s", "KILL", "--kill-whom=main", "syscontd.service"])
        until(host, lambda: instance.do("start", check=False).returncode == 0)
        host.run(["pkill", "-fx", STALL], check=False)
    assert host.run(["pgrep", "-f", "^/usr/bin/python3.*libexec/syscont/files"], check=False).stdout == ""


def test_paused_guests_too(host: Host, launch: Launch) -> None:
    instance = launch()
    instance.do("pause")
    file(host, "push", "-", f"{instance.name}/root/x", input="1")
    assert file(host, "pull", f"{instance.name}/root/x", "-") == "1"
    instance.do("resume")
    assert instance.sh("cat /root/x") == "1"


# a guest that broke what it boots with


@pytest.mark.parametrize("name", ["dev", "proc", "sys", "run", "tmp"])
def test_a_guest_that_made_links_of_them_starts_again(host: Host, launch: Launch, canary: None, name: str) -> None:
    instance = launch(verb="create")
    place = instance.on_disk(f"/{name}")
    host.sh(f"rm -rf {place}; ln -s /canary {place}")
    instance.do("start")
    assert instance.exec("true").returncode == 0
    assert instance.sh(f"[ -L /{name} ] && echo link || echo folder") == ("link\n" if name == "tmp" else "folder\n")


def test_one_that_made_a_file_of_it_is_told(host: Host, launch: Launch) -> None:
    instance = launch(verb="create")
    place = instance.on_disk("/dev")
    host.sh(f"rm -rf {place}; echo precious >{place}")
    assert "/dev of the instance is not a plain directory" in instance.do("start", check=False).stderr
    assert host.read_text(place) == "precious\n"
    syscont(host, "file", "delete", f"{instance.name}/dev")
    instance.do("start")
