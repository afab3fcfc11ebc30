# SPDX-License-Identifier: Apache-2.0
"""exec, shell and console: descriptors, terminals, signals and exit statuses."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sysd.cli.console import Keys
from tests.cli.conftest import Command, Serve
from tests.cli.fake_daemon import Call, Handler

WAIT = 20


class Runs:
    """Runs what Exec asks for here, as the daemon would in an instance."""

    def __init__(self) -> None:
        self.sessions: dict[str, subprocess.Popen[bytes]] = {}
        self.begun = threading.Event()
        self.signals: list[int] = []

    @property
    def handlers(self) -> dict[str, Handler]:
        return {"Exec": self.execute, "SignalExec": self.signal}

    def execute(self, call: Call) -> None:
        if call.parameters.get("tty"):
            return self.on_terminal(call)
        process = self.start(call, *call.fds)
        call.close_fds()
        call.reply({"exitStatus": ended(process)})

    def on_terminal(self, call: Call) -> None:
        assert call.more
        controller, terminal = pty.openpty()
        process = self.start(call, terminal, terminal, terminal)
        os.close(terminal)
        call.reply({"terminalFd": 0}, continues=True, fds=(controller,))
        os.close(controller)
        call.reply({"exitStatus": ended(process)})

    def start(self, call: Call, *fds: int) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], **call.parameters.get("environment", {})}
        process = subprocess.Popen(
            call.parameters["command"],
            stdin=fds[0],
            stdout=fds[1],
            stderr=fds[2],
            env=environment,
            start_new_session=True,
        )
        self.sessions[call.parameters["session"]] = process
        self.begun.set()
        return process

    def signal(self, call: Call) -> None:
        process = self.sessions.get(call.parameters["session"])
        if process is None:
            return call.error("NotFound", "no such session")
        self.signals.append(call.parameters["signal"])
        process.send_signal(call.parameters["signal"])
        call.reply({})


def ended(process: subprocess.Popen[bytes]) -> int:
    status = process.wait()
    return status if status >= 0 else 128 - status


@pytest.fixture
def runs(serve: Serve) -> Runs:
    runs = Runs()
    serve(runs.handlers)
    return runs


@pytest.mark.parametrize(
    ("script", "status"), [("true", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_status_is_the_commands(runs: Runs, syscont: Command, script: str, status: int) -> None:
    assert syscont("exec", "c1", "--", "sh", "-c", script).returncode == status


def test_streams_are_the_callers_own(runs: Runs, syscont: Command) -> None:
    done = syscont("exec", "c1", "--", "sh", "-c", "cat; echo oops >&2", stdin="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "oops\n")


def test_the_commands_file_is_the_callers_file(runs: Runs, syscont: Command, tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out:
        subprocess.run(
            syscont.argv("exec", "c1", "--", "sh", "-c", "stat -L -c %i /proc/self/fd/1"),
            env=syscont.environment, stdout=out, timeout=WAIT, check=True,
        )  # fmt: skip
    assert int((tmp_path / "out").read_text()) == (tmp_path / "out").stat().st_ino


def test_streams_that_are_closed(runs: Runs, syscont: Command) -> None:
    line = subprocess.list2cmdline(syscont.argv("exec", "c1", "--", "sh", "-c", "cat; exit 5"))
    closed = subprocess.run(["bash", "-c", f"{line} <&- >&- 2>&-"], env=syscont.environment, timeout=WAIT, check=False)
    assert closed.returncode == 5


def test_no_stdin(runs: Runs, syscont: Command) -> None:
    assert syscont("exec", "-n", "c1", "--", "cat", stdin="not read").stdout == ""


def test_what_exec_asks(serve: Serve, syscont: Command) -> None:
    passed: list[int] = []

    def execute(call: Call) -> None:
        passed.append(len(call.fds))
        call.close_fds()
        call.reply({"exitStatus": 0})

    daemon = serve({"Exec": execute})
    line = "exec c1 --user www-data --cwd /srv --env A=1 --env B=x=y -- ls -la -- z"
    assert syscont(*line.split()).returncode == 0
    asked = dict(daemon.calls[0].parameters)
    assert len(bytes.fromhex(asked.pop("session"))) == 16
    assert passed == [3]
    assert asked == {
        "name": "c1",
        "command": ["ls", "-la", "--", "z"],
        "environment": {"A": "1", "B": "x=y"},
        "cwd": "/srv",
        "user": "www-data",
    }


@pytest.mark.parametrize("reply", [{}, {"exitStatus": "0"}, {"exitStatus": 256}, {"exitStatus": -1}])
def test_a_reply_without_a_status(serve: Serve, syscont: Command, reply: dict[str, Any]) -> None:
    serve({"Exec": lambda call: call.reply(reply)})
    assert syscont("exec", "c1", "true").returncode == 125


@pytest.mark.parametrize(
    "words", [("exec", "c1", "true"), ("exec", "c1"), ("exec", "-Z", "c1", "x"), ("exec", "-tT", "c1", "x")]
)
def test_failures_of_our_own_are_125(serve: Serve, syscont: Command, words: tuple[str, ...]) -> None:
    serve({"Exec": lambda call: call.error("NotRunning", "instance 'c1' is not running")})
    done = syscont(*words)
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_signals_go_to_the_command(runs: Runs, syscont: Command, number: signal.Signals) -> None:
    process = subprocess.Popen(syscont.argv("exec", "c1", "--", "sleep", "60"), env=syscont.environment)
    assert runs.begun.wait(WAIT)
    process.send_signal(number)
    assert process.wait(WAIT) == 128 + number
    assert runs.signals == [number]


def test_a_signal_that_comes_early_waits_for_the_command(serve: Serve, syscont: Command) -> None:
    runs = Runs()
    asked = threading.Event()

    def late(call: Call) -> None:
        asked.set()
        time.sleep(0.3)
        runs.execute(call)

    serve({**runs.handlers, "Exec": late})
    process = subprocess.Popen(syscont.argv("exec", "c1", "--", "sleep", "60"), env=syscont.environment)
    assert asked.wait(WAIT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == 143


def test_an_ignored_signal_stays_ignored(runs: Runs, syscont: Command) -> None:
    line = subprocess.list2cmdline(syscont.argv("exec", "c1", "--", "sleep", "0.5"))
    process = subprocess.Popen(["bash", "-c", f"trap '' HUP; exec {line}"], env=syscont.environment)
    assert runs.begun.wait(WAIT)
    process.send_signal(signal.SIGHUP)
    assert process.wait(WAIT) == 0
    assert runs.signals == []


class Terminal:
    """syscont on a terminal of 30 rows and 100 columns."""

    def __init__(self, syscont: Command, *words: str) -> None:
        self.controller, self.terminal = pty.openpty()
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
        self.before = termios.tcgetattr(self.terminal)
        self.process = subprocess.Popen(
            syscont.argv(*words),
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            env=syscont.environment,
            start_new_session=True,
        )
        self.seen = b""

    def type(self, data: bytes) -> None:
        os.write(self.controller, data)

    def type_all(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.controller, data[:1000]) :]

    def expect(self, wanted: bytes) -> None:
        deadline = time.monotonic() + WAIT
        while wanted not in self.seen:
            ready, _, _ = select.select([self.controller], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} not in {self.seen!r}"
            self.seen += os.read(self.controller, 1 << 16)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def is_raw(self) -> bool:
        flags: int = termios.tcgetattr(self.terminal)[3]
        return not flags & (termios.ICANON | termios.ECHO | termios.ISIG)

    def end(self) -> int:
        status = self.process.wait(WAIT)
        assert termios.tcgetattr(self.terminal) == self.before
        return status


@contextlib.contextmanager
def on_terminal(syscont: Command, *words: str) -> Iterator[Terminal]:
    terminal = Terminal(syscont, *words)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.controller)
        os.close(terminal.terminal)


def test_on_a_terminal_the_command_gets_one(runs: Runs, syscont: Command) -> None:
    script = "echo term=$TERM; stty size; read x; echo got=$x; exit 9"
    with on_terminal(syscont, "exec", "c1", "--", "sh", "-c", script) as terminal:
        terminal.expect(b"term=dumb")
        assert terminal.is_raw()
        terminal.type(b"hello\r")
        terminal.expect(b"got=hello\r\n")
        assert terminal.end() == 9


def test_without_a_terminal_the_command_does_not_get_ours(runs: Runs, syscont: Command) -> None:
    script = (
        "for i in 0 1 2; do test -t $i && echo tty $i; done; echo one; echo two >&2; read x; echo got=$x; cat; exit 4"
    )
    with on_terminal(syscont, "exec", "-T", "c1", "--", "sh", "-c", script) as terminal:
        terminal.expect(b"one\r\ntwo\r\n")
        terminal.type(b"hello\n")
        terminal.expect(b"got=hello")
        terminal.type(b"\x04")
        assert terminal.end() == 4
    assert b"tty" not in terminal.seen


@pytest.mark.parametrize("streams", ["<&2 >/dev/null", "</dev/null 2>/dev/null", "</dev/null >/dev/null"])
def test_no_stream_is_ours_when_it_is_a_terminal(runs: Runs, syscont: Command, streams: str, tmp_path: Path) -> None:
    script = f"exec 9>{tmp_path}/seen; for i in 0 1 2; do x=$(readlink /proc/$$/fd/$i); echo $x >&9; done"
    line = shlex.join(syscont.argv("exec", "c1", "--", "sh", "-c", script))
    controller, terminal = pty.openpty()
    done = subprocess.run(
        ["bash", "-c", f"{line} {streams}"],
        stdin=terminal, stdout=terminal, stderr=terminal, env=syscont.environment, timeout=WAIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "pipe:" in (tmp_path / "seen").read_text()
    assert "pts" not in (tmp_path / "seen").read_text()
    os.close(controller)
    os.close(terminal)


def test_output_on_a_terminal_is_whole_without_one_of_its_own(runs: Runs, syscont: Command) -> None:
    with on_terminal(syscont, "exec", "-T", "c1", "--", "sh", "-c", "seq 1 20000; sleep 60 &") as terminal:
        terminal.expect(b"\n20000\r\n")
        assert terminal.end() == 0
    assert terminal.seen == b"".join(b"%d\r\n" % number for number in range(1, 20001))


def test_control_c_without_a_terminal_of_its_own(runs: Runs, syscont: Command) -> None:
    with on_terminal(syscont, "exec", "-T", "c1", "--", "sh", "-c", "echo ready; exec sleep 60") as terminal:
        terminal.expect(b"ready")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130


def test_a_command_that_reads_nothing(runs: Runs, syscont: Command) -> None:
    script = "exec <&-; echo ready; sleep 0.5; exit 6"
    with on_terminal(syscont, "exec", "-T", "c1", "--", "sh", "-c", script) as terminal:
        terminal.expect(b"ready")
        terminal.type(b"typed\n" * 100)
        assert terminal.end() == 6


def test_size_is_passed_on(runs: Runs, syscont: Command) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do read x && break; done; stty size; exit 0"
    with on_terminal(syscont, "exec", "c1", "--", "bash", "-c", script) as terminal:
        terminal.expect(b"ready")
        terminal.resize(41, 111)
        terminal.type(b"x\r")
        terminal.expect(b"41 111")
        assert terminal.end() == 0


def test_control_c_is_for_the_command(runs: Runs, syscont: Command) -> None:
    script = "import os, tty; tty.setraw(0); print('ready', flush=True); print('key', os.read(0, 1)[0])"
    with on_terminal(syscont, "exec", "c1", "--", "python3", "-c", script) as terminal:
        terminal.expect(b"ready")
        terminal.type(b"\x03")
        terminal.expect(b"key 3")
        assert terminal.end() == 0
    assert runs.signals == []


def test_all_output_comes_before_the_end(runs: Runs, syscont: Command) -> None:
    with on_terminal(syscont, "exec", "c1", "--", "sh", "-c", "seq 1 20000") as terminal:
        terminal.expect(b"\n20000\r\n")
        assert terminal.end() == 0
    assert terminal.seen == b"".join(b"%d\r\n" % number for number in range(1, 20001))


def test_a_long_paste_does_not_stall(runs: Runs, syscont: Command) -> None:
    script = "stty raw -echo; echo ready; head -c 300000 | wc -c"
    with on_terminal(syscont, "exec", "c1", "--", "sh", "-c", script) as terminal:
        terminal.expect(b"ready")
        paste = threading.Thread(target=lambda: terminal.type_all(b"x" * 300_000))
        paste.start()
        terminal.expect(b"300000")
        paste.join()
        assert terminal.end() == 0


def test_the_terminal_is_restored_when_the_daemon_dies(serve: Serve, syscont: Command) -> None:
    def die(call: Call) -> None:
        controller, terminal = pty.openpty()
        os.write(terminal, b"here")
        call.reply({"terminalFd": 0}, continues=True, fds=(controller,))
        time.sleep(0.3)
        call.connection.shutdown(2)
        os.close(controller)
        os.close(terminal)

    serve({"Exec": die})
    with on_terminal(syscont, "exec", "c1", "bash") as terminal:
        terminal.expect(b"here")
        terminal.expect(b"lost the connection")
        assert terminal.end() == 125


def test_an_error_comes_before_the_terminal_is_touched(serve: Serve, syscont: Command) -> None:
    serve({"Exec": lambda call: call.error("NotRunning", "not running")})
    with on_terminal(syscont, "shell", "c1") as terminal:
        terminal.expect(b"syscont: not running\r\n")
        assert terminal.end() == 125


def test_a_terminal_without_one_of_our_own(runs: Runs, syscont: Command) -> None:
    done = syscont("exec", "-t", "c1", "--", "sh", "-c", "tty >/dev/null && cat; exit 4", stdin="typed\n")
    assert "typed" in done.stdout
    assert done.returncode == 4


def test_shell_is_a_login_shell(serve: Serve, syscont: Command) -> None:
    daemon = serve({"Exec": lambda call: call.reply({"exitStatus": 0})})
    assert syscont("shell", "c1", "-u", "root").returncode == 0
    assert daemon.calls[0].parameters["command"][:2] == ["/bin/sh", "-c"]
    assert daemon.calls[0].parameters["user"] == "root"


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ([b"abc"], b"abc"),
        ([b"a\x01qb"], None),
        ([b"\x01", b"q"], None),
        ([b"\x01\x01q"], b"\x01q"),
        ([b"\x01x"], b"\x01x"),
        ([b"\x01", b"\x01", b"q"], b"\x01q"),
    ],
)
def test_keys_that_leave_the_console(typed: list[bytes], sent: bytes | None) -> None:
    keys = Keys()
    results = [keys(data) for data in typed]
    assert (None if None in results else b"".join(filter(None, results))) == sent


def test_console(serve: Serve, syscont: Command) -> None:
    sizes: list[dict[str, Any]] = []
    controllers: list[int] = []

    def open_console(call: Call) -> None:
        controller, terminal = pty.openpty()
        controllers.append(terminal)
        os.write(terminal, b"login: ")
        call.reply({"streamFd": 0}, fds=(controller,))
        os.close(controller)

    def resize(call: Call) -> None:
        sizes.append(call.parameters)
        call.reply({})

    serve({"OpenConsole": open_console, "ResizeConsole": resize})
    with on_terminal(syscont, "console", "c1") as terminal:
        terminal.expect(b"Ctrl-a q")
        terminal.expect(b"login: ")
        terminal.type(b"root\r")
        terminal.expect(b"root")
        terminal.type(b"\x01q")
        terminal.expect(b"Disconnected")
        assert terminal.end() == 0
    assert sizes == [{"name": "c1", "columns": 100, "rows": 30}]
    os.close(controllers[0])


def test_progress_on_a_terminal(serve: Serve, syscont: Command) -> None:
    def create(call: Call) -> None:
        assert call.more
        running = {"id": "1", "kind": "create", "target": "c1", "status": "running", "stage": "unpacking"}
        call.reply({"operation": running}, continues=True)
        call.reply({"operation": {**running, "status": "done"}})

    serve({"CreateInstance": create})
    with on_terminal(syscont, "launch", "busybox", "c1") as terminal:
        terminal.expect(b"\rc1: unpacking\x1b[K\r\x1b[Kc1\r\n")
        assert terminal.end() == 0


def test_control_c_cancels_an_operation(serve: Serve, syscont: Command) -> None:
    cancelled = threading.Event()

    def build(call: Call) -> None:
        running = {"id": "op7", "kind": "build", "target": "debian", "status": "running", "stage": "fetching"}
        call.reply({"operation": running}, continues=True)
        assert cancelled.wait(WAIT)
        call.error("Cancelled", "cancelled")

    def cancel(call: Call) -> None:
        assert call.parameters == {"id": "op7"}
        call.reply({})
        cancelled.set()

    serve({"BuildImage": build, "CancelOperation": cancel})
    with on_terminal(syscont, "image", "build", "debian/trixie") as terminal:
        terminal.expect(b"fetching")
        terminal.process.send_signal(signal.SIGINT)
        terminal.expect(b"syscont: cancelled")
        assert terminal.end() == 130
