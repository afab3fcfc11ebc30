# SPDX-License-Identifier: Apache-2.0
"""The command against other hosts: how they come to be known, what names them, and that all goes as it does here."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysd.remote import certificate
from tests.cli.conftest import Command
from tests.cli.test_cli_exec import on_terminal
from tests.remote.lab import WAIT, Commands, Host, echo, listing, until


class FarCommand(Command):
    """Without a daemon here."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "no-socket")
        self.config = folder / "config"

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "XDG_CONFIG_HOME": str(self.config)}


@pytest.fixture
def syscont(tmp_path: Path) -> FarCommand:
    return FarCommand(tmp_path)


def token(host: Host, name: str = "") -> str:
    return host.do(lambda: str(host.trust.invite(name)))


@pytest.fixture
def r1(host: Host, syscont: FarCommand) -> Host:
    """A host that is known as r1."""
    assert syscont("remote", "add", "r1", token(host, "alice")).returncode == 0
    return host


@pytest.fixture
def r2(tmp_path: Path, syscont: FarCommand) -> Iterator[Host]:
    made = Host(tmp_path / "second", {"Echo": echo, **listing("web9")})
    assert syscont("remote", "add", "r2", token(made)).returncode == 0
    yield made
    made.close()


def names(syscont: FarCommand, *words: str) -> list[str]:
    return syscont("list", "--format", "csv", "-c", "n", *words).stdout.split()


# to know one


def test_a_host_is_added(r1: Host, syscont: FarCommand) -> None:
    assert names(syscont, "r1:") == ["web1", "web2"]
    assert [one.name for one in r1.do(r1.trust.trusted)] == ["alice"]
    own = syscont.config / "syscont/client.pem"
    assert own.stat().st_mode & 0o777 == 0o600
    assert "r1" in syscont("remote", "list").stdout


def test_a_token_from_standard_input(host: Host, syscont: FarCommand) -> None:
    assert syscont("remote", "add", "r1", stdin=token(host) + "\n").returncode == 0
    assert names(syscont, "r1:")


def test_a_token_that_is_used(host: Host, r1: Host, syscont: FarCommand) -> None:
    text = token(host)
    other = FarCommand(syscont.config / "other")
    assert other("remote", "add", "r1", text).returncode == 0
    third = FarCommand(syscont.config / "third")
    done = third("remote", "add", "r1", text)
    assert done.returncode == 4
    assert "does not know this token" in done.stderr
    assert not (third.config / "syscont/remotes/r1.json").exists()


def test_a_host_that_was_forgotten_is_added_again(host: Host, r1: Host, syscont: FarCommand) -> None:
    """It trusts us still; the token is used up as any."""
    assert syscont("remote", "remove", "r1").returncode == 0
    text = token(host)
    assert syscont("remote", "add", "again", text).returncode == 0
    assert names(syscont, "again:") == ["web1", "web2"]
    assert [one.name for one in r1.do(r1.trust.trusted)] == ["alice"]
    assert "does not know this token" in syscont("remote", "add", "twice", text).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("r1", "rubbish"), "not a token"),
        (("local", "x"), "no host can be named"),
        (("a/b", "x"), "no host can be named"),
        (("..", "x"), "no host can be named"),
        (("r1", "x:1", "--fingerprint", "abc"), "--fingerprint"),
        (("r1", "x", "--fingerprint", "0" * 64), "not an address"),
        (("r1", "--fingerprint", "0" * 64), "no address"),
    ],
)
def test_what_adds_nothing(syscont: FarCommand, words: tuple[str, ...], said: str) -> None:
    done = syscont("remote", "add", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (syscont.config / "syscont/remotes").exists()


def test_one_that_trusts_us_already(host: Host, syscont: FarCommand) -> None:
    own = syscont("remote", "certificate").stdout
    assert "PRIVATE" not in own
    host.do(lambda: host.trust.add(own, "alice"))
    fingerprint = certificate.fingerprint(host.certificate)
    assert syscont("remote", "add", "r1", host.address, "--fingerprint", fingerprint.upper()).returncode == 0
    assert names(syscont, "r1:")
    done = syscont("remote", "add", "r2", host.address, "--fingerprint", "0" * 64)
    assert done.returncode == 4


def test_rename_switch_and_remove(r1: Host, syscont: FarCommand) -> None:
    assert syscont("remote", "rename", "r1", "far").returncode == 0
    assert syscont("remote", "switch", "far").returncode == 0
    assert names(syscont) == ["web1", "web2"]
    assert syscont("remote", "current").stdout == "far\n"
    assert syscont("remote", "remove", "far").returncode == 1
    assert syscont("remote", "switch", "local").returncode == 0
    assert names(syscont) == []
    assert names(syscont, "far:")
    assert syscont("remote", "remove", "far").returncode == 0
    assert syscont("remote", "remove", "far").returncode == 3
    assert syscont("remote", "list", "--format", "csv", "--no-legend").stdout.splitlines()[1:] == []


def test_the_environment_says_which(r1: Host, syscont: FarCommand) -> None:
    done = subprocess.run(
        syscont.argv("list", "--format", "csv", "-c", "n"),
        env={**syscont.environment, "SYSCONT_REMOTE": "r1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["web1", "web2"]


def test_another_address(r1: Host, syscont: FarCommand) -> None:
    assert syscont("remote", "set-address", "r1", "127.0.0.1:1").returncode == 0
    assert syscont("list", "r1:").returncode == 1
    assert syscont("remote", "set-address", "r1", "127.0.0.1:1", r1.address).returncode == 0
    assert names(syscont, "r1:")
    assert syscont("remote", "set-address", "r1", "nonsense").returncode == 2


def test_one_that_trusts_us_no_more(r1: Host, syscont: FarCommand) -> None:
    r1.do(lambda: r1.trust.remove("alice"))
    done = syscont("list", "r1:")
    assert done.returncode == 4
    assert "does not trust us" in done.stderr


def test_one_that_is_another(r1: Host, r2: Host, syscont: FarCommand) -> None:
    assert syscont("remote", "set-address", "r1", r2.address).returncode == 0
    done = syscont("list", "r1:")
    assert done.returncode == 4
    assert "certificate is another one" in done.stderr


def test_what_is_remembered_is_damaged(r1: Host, syscont: FarCommand) -> None:
    (syscont.config / "syscont/remotes/r1.json").write_text('{"addresses": 5}')
    done = syscont("list", "r1:")
    assert "is damaged" in done.stderr
    assert "damaged" in syscont("remote", "list").stdout


# to name what is on one


def test_names(r1: Host, r2: Host, syscont: FarCommand) -> None:
    assert names(syscont, "r2:") == ["web9"]
    assert names(syscont, "r1:", "web2") == ["web2"]
    assert names(syscont, "r1:web2") == ["web2"]
    assert "Tasks: 7" in syscont("info", "r1:web1").stdout
    assert "of alice" in syscont("info", "r1:").stdout
    assert syscont("info", "r1:nobody").returncode == 3
    assert "of alice" in syscont("version", "r1:").stdout
    assert "lab" in syscont("project", "list", "r1:").stdout


def test_no_such_host(syscont: FarCommand) -> None:
    # A name before a colon that is no host's is a project's.
    assert "syscontd is not reachable" in syscont("info", "nowhere:web1").stderr
    assert syscont("remote", "switch", "nowhere").returncode == 3
    for verb in (["list"], ["image", "list"]):
        done = syscont(*verb, "nowhere:")
        assert done.returncode == 3
        assert "no host named 'nowhere' is known" in done.stderr


def test_names_on_two_hosts(r1: Host, r2: Host, syscont: FarCommand) -> None:
    for words in (("delete", "r1:web1", "r2:web9"), ("delete", "r1:web1", "web2"),
                  ("launch", "r1:busybox", "web1")):  # fmt: skip
        done = syscont(*words)
        assert done.returncode == 2
        assert "on two hosts" in done.stderr
    assert names(syscont, "r1:") == ["web1", "web2"]
    assert syscont("delete", "r1:web1", "r1:web2").returncode == 0
    assert names(syscont, "r1:") == []


def test_a_project_of_a_host(r1: Host, syscont: FarCommand) -> None:
    assert syscont("info", "r1:lab:web1").returncode == 3
    assert syscont("project", "switch", "r1:lab").returncode == 0
    assert syscont("project", "current", "r1:").stdout == "lab\n"
    assert syscont("project", "current").stdout == "default\n"
    assert names(syscont, "r1:") == []
    assert names(syscont, "r1:", "--all-projects") == ["web1", "web2"]


def test_names_that_are_yet_to_be(r1: Host, syscont: FarCommand) -> None:
    for words in (("project", "create", "r1:x"), ("network", "create", "r1:x", "ipv4.address=none"),
                  ("network", "zone", "create", "r1:x.example"), ("network", "acl", "create", "r1:x"),
                  ("image", "alias", "add", "r1:x", "r1:y"), ("profile", "create", "r1:x"),
                  ("rename", "r1:web1", "r1:web5")):  # fmt: skip
        # The host of this test does none of it, but is asked.
        assert "does not know what was asked of it" in syscont(*words).stderr, words


def test_hosts_and_projects_are_told_apart(syscont: FarCommand, host: Host, r1: Host) -> None:
    assert syscont("remote", "switch", "r1").returncode == 0
    done = syscont("project", "create", "r1")
    assert done.returncode == 2
    assert "a host that you know" in done.stderr


def test_logs(r1: Host, syscont: FarCommand) -> None:
    assert syscont("logs", "r1:web1", "-n", "2", "-o", "cat").stdout == "web1 2 cat\n"
    assert syscont("logs", "r1:web1", "--", "--grep=x").returncode == 2


# to do things there


def run(syscont: FarCommand, script: str, *options: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return syscont("exec", *options, "r1:web1", "--", "sh", "-c", script, stdin=stdin)


@pytest.mark.parametrize(
    ("script", "status"), [("true", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_status_is_the_commands(r1: Host, syscont: FarCommand, script: str, status: int) -> None:
    assert run(syscont, script).returncode == status


def test_streams(r1: Host, syscont: FarCommand) -> None:
    done = run(syscont, "cat; echo oops >&2", stdin="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "oops\n")
    assert run(syscont, "cat", "-n", stdin="not read").stdout == ""
    line = subprocess.list2cmdline(syscont.argv("exec", "r1:web1", "--", "sh", "-c", "cat; exit 5"))
    closed = subprocess.run(["bash", "-c", f"{line} <&- >&- 2>&-"], env=syscont.environment, timeout=WAIT, check=False)
    assert closed.returncode == 5


def test_a_pipeline(r1: Host, syscont: FarCommand) -> None:
    line = subprocess.list2cmdline(syscont.argv("exec", "r1:web1", "--", "yes"))
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -2; echo ${{PIPESTATUS[0]}}"],
        env=syscont.environment, capture_output=True, text=True, timeout=WAIT, check=True,
    )  # fmt: skip
    assert done.stdout == "y\ny\n141\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals(r1: Host, syscont: FarCommand, commands: Commands, number: signal.Signals) -> None:
    process = subprocess.Popen(syscont.argv("exec", "r1:web1", "--", "sleep", "60"), env=syscont.environment)
    until(lambda: bool(commands.running))
    process.send_signal(number)
    assert process.wait(WAIT) == 128 + number
    assert commands.signals == [number]


def test_a_terminal(r1: Host, syscont: FarCommand) -> None:
    script = "tty >/dev/null; stty size; echo term=$TERM; read x; echo got=$x; trap : WINCH; read x; stty size; exit 9"
    with on_terminal(syscont, "exec", "r1:web1", "--", "bash", "-c", script) as terminal:
        terminal.expect(b"30 100")
        terminal.expect(b"term=dumb")
        terminal.type(b"hello\r")
        terminal.expect(b"got=hello\r\n")
        terminal.resize(41, 111)
        terminal.type(b"\r")
        terminal.expect(b"41 111")
        assert terminal.end() == 9


def test_all_output_of_a_terminal(r1: Host, syscont: FarCommand) -> None:
    with on_terminal(syscont, "exec", "r1:web1", "--", "sh", "-c", "seq 1 20000") as terminal:
        terminal.expect(b"\n20000\r\n")
        assert terminal.end() == 0
    assert terminal.seen == b"".join(b"%d\r\n" % number for number in range(1, 20001))


def test_a_long_paste(r1: Host, syscont: FarCommand) -> None:
    script = "stty raw -echo; echo ready; head -c 300000 | wc -c"
    with on_terminal(syscont, "exec", "r1:web1", "--", "sh", "-c", script) as terminal:
        terminal.expect(b"ready")
        paste = threading.Thread(target=lambda: terminal.type_all(b"x" * 300_000))
        paste.start()
        terminal.expect(b"300000")
        paste.join()
        assert terminal.end() == 0


def test_on_a_terminal_without_one_of_its_own(r1: Host, syscont: FarCommand) -> None:
    script = "for i in 0 1 2; do test -t $i && echo tty $i; done; echo one; read x; echo got=$x; cat; exit 4"
    with on_terminal(syscont, "exec", "-T", "r1:web1", "--", "sh", "-c", script) as terminal:
        terminal.expect(b"one")
        terminal.type(b"hello\n")
        terminal.expect(b"got=hello")
        terminal.type(b"\x04")
        assert terminal.end() == 4
    assert b"tty" not in terminal.seen


@pytest.mark.parametrize("end", [b"\x01q", b"end\r"])
def test_the_console(r1: Host, syscont: FarCommand, commands: Commands, end: bytes) -> None:
    """Left by us, or ended there."""
    with on_terminal(syscont, "console", "r1:web1") as terminal:
        terminal.expect(b"login:")
        terminal.type(b"somebody\n")
        terminal.expect(b"got=somebody")
        terminal.type(end.replace(b"\r", b"\n"))
        terminal.expect(b"Disconnected")
        assert terminal.end() == 0
    assert commands.sizes == [(30, 100)]
    until(lambda: r1.do(lambda: not r1.door._visitors))


def test_the_host_dies(r1: Host, syscont: FarCommand, commands: Commands) -> None:
    with on_terminal(syscont, "exec", "r1:web1", "--", "sh", "-c", "echo here; sleep 60") as terminal:
        terminal.expect(b"here")
        r1.close()
        terminal.expect(b"lost the connection to r1")
        assert terminal.end() == 125
    for process in commands.running.values():
        assert process.wait(WAIT) == -signal.SIGHUP


def test_files(r1: Host, syscont: FarCommand, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(os.urandom(3_000_000))
    assert syscont("file", "push", str(tmp_path / "here"), "r1:web1/there").returncode == 0
    assert (tmp_path / "files/there").read_bytes() == (tmp_path / "here").read_bytes()
    assert syscont("file", "pull", "r1:web1/there", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == (tmp_path / "here").read_bytes()
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o640
    assert syscont("file", "push", "-", "r1:web1/said", stdin="words").returncode == 0
    assert syscont("file", "pull", "r1:web1/said", "-").stdout == "words"
    assert syscont("file", "pull", "r1:web1/nothing", str(tmp_path / "no")).returncode == 3
    assert not (tmp_path / "no").exists()


def test_pull_to_a_full_disk(r1: Host, syscont: FarCommand, tmp_path: Path) -> None:
    (tmp_path / "files/big").write_bytes(bytes(1_000_000))
    line = subprocess.list2cmdline(syscont.argv("file", "pull", "r1:web1/big", "-"))
    done = subprocess.run(
        ["bash", "-c", f"{line} >/dev/full"], env=syscont.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
