# SPDX-License-Identifier: Apache-2.0
"""What starts ssh (sysd/_cext/session.c) and how its end is read, with programs in the place of ssh."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.model.errors import FailedError
from sysd.runtime.execute import Command
from sysd.runtime.vm import ssh

PROGRAM = str(Path(__file__).resolve().parents[2] / "build/session")


@pytest.fixture(name="service", autouse=True)
def _service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """syscont-ssh.socket, without systemd."""
    monkeypatch.setattr(ssh, "SERVICE", str(tmp_path / "ssh"))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(ssh.SERVICE)
    listener.listen()
    processes: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                processes.append(subprocess.Popen([PROGRAM], stdin=sock.fileno()))

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()
    for process in processes:
        process.wait(timeout=10)


async def _nothing(number: int) -> None:
    return


def _instead(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have a script run in the place of ssh; $1 is the file for its log."""
    argv = ["/bin/sh", "-c", script, "ssh", "%LOG%"]
    monkeypatch.setattr(ssh, "words", lambda where, line, tty: argv)


async def _run(stdin: bytes = b"") -> tuple[int, bytes]:
    given, out = os.memfd_create("in"), os.memfd_create("out")
    try:
        os.write(given, stdin)
        os.lseek(given, 0, os.SEEK_SET)
        status = await ssh.start("", "", Command(("x",), stdio=(given, out, -1)), _nothing).wait()
        return status, os.pread(out, 1000, 0)
    finally:
        os.close(given)
        os.close(out)


def test_streams_and_status(monkeypatch: pytest.MonkeyPatch) -> None:
    _instead(monkeypatch, "cat; env; ls /proc/self/fd | wc -l; exit 7")
    status, output = asyncio.run(_run(b"hello\n"))
    said, *rest = output.decode().splitlines()
    assert (status, said) == (7, "hello")
    # Three streams, and the folder that ls reads.
    assert rest.pop() == "4"
    assert (
        {"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
        <= set(rest)
        <= {"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PWD=" + os.getcwd()}
    )


LOGS = {
    "debug1: Exit status 255": 255,
    "": 255,
    "Killed by signal 1.": 129,
}


@pytest.mark.parametrize(("log", "status"), LOGS.items())
def test_status_of_ssh_that_is_the_commands(monkeypatch: pytest.MonkeyPatch, log: str, status: int) -> None:
    _instead(monkeypatch, f"[ -z '{log}' ] || echo '{log}' >>$1; exit 255")
    assert asyncio.run(_run())[0] == status


ERRORS = {
    "debug1: x\nroot@instance: Permission denied": "lets no command in: root@instance: Permission denied",
    "debug1: Exit status -1": "was lost",
    "debug1: only": "lets no command in",
}


@pytest.mark.parametrize(("log", "words"), ERRORS.items())
def test_errors_of_ssh(monkeypatch: pytest.MonkeyPatch, log: str, words: str) -> None:
    _instead(monkeypatch, f"echo '{log}' >>$1; exit 255")
    with pytest.raises(FailedError, match=words):
        asyncio.run(_run())


def test_log_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is kept; a guest that has ssh complain has nobody wait."""
    _instead(monkeypatch, "yes 'debug1: noise' | head -c 2800000 >>$1; echo 'debug1: Exit status 255' >>$1; exit 255")
    assert asyncio.run(_run())[0] == 255


def test_no_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "SSH", "/no/such/ssh")
    with pytest.raises(FailedError, match="/no/such/ssh can't be run"):
        asyncio.run(_run())


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the program's own, has the size that was asked for, and tells of another; ssh does what is left."""
    _instead(monkeypatch, "trap 'stty size; exit 5' WINCH; stty size; tty </dev/tty; while :; do sleep 0.1; done")

    async def talk() -> None:
        session = ssh.start("", "", Command(("x",), tty=True, size=(33, 77)), _nothing)
        os.set_blocking(session.terminal, False)
        assert (await _said(session.terminal, b"/dev/pts/")).startswith(b"33 77\r\n")
        fcntl.ioctl(session.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        assert b"40 100" in await _said(session.terminal, b"40 100")
        assert await session.wait() == 5
        os.close(session.terminal)

    asyncio.run(talk())


async def _said(terminal: int, until: bytes) -> bytes:
    said = b""
    for _ in range(500):
        with contextlib.suppress(BlockingIOError):
            said += os.read(terminal, 1000)
        if until in said:
            return said
        await asyncio.sleep(0.02)
    return said


def test_hang_up(monkeypatch: pytest.MonkeyPatch) -> None:
    _instead(monkeypatch, "sleep 60")

    async def talk() -> int:
        session = ssh.start("", "", Command(("x",), tty=True), _nothing)
        await asyncio.sleep(0.2)
        os.close(session.terminal)
        return await session.wait()

    assert asyncio.run(talk()) == 128 + signal.SIGHUP


def test_one_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ssh ends, even one that does not want to; the command gets its signal by other means."""
    _instead(monkeypatch, f"trap '' TERM; echo $$ >{tmp_path}/pid; while :; do sleep 0.1; done")
    sent = []

    async def kill(number: int) -> None:
        sent.append(number)

    async def talk() -> None:
        ended = []
        session = ssh.start("", "", Command(("x",)), kill, lambda: ended.append(True))
        waiting = asyncio.ensure_future(session.wait(signal.SIGUSR1))
        await asyncio.sleep(0.5)
        session.signal(signal.SIGINT)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(0.1)
        assert sent == [signal.SIGINT, signal.SIGUSR1]
        assert ended == [True]

    asyncio.run(talk())
    path = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}")
    deadline = time.monotonic() + 10
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not path.exists()


def test_guest_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    _instead(monkeypatch, "sleep 60")

    async def talk() -> None:
        session = ssh.start("", "", Command(("x",)), _nothing)
        asyncio.get_running_loop().call_later(0.2, session.lose)
        with pytest.raises(FailedError, match="was lost"):
            await session.wait()

    asyncio.run(talk())


def test_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "SERVICE", "/no/such/service")

    async def talk() -> None:
        with pytest.raises(FailedError, match="does not answer") as caught:
            ssh.start("", "", Command(("x",), tty=True), _nothing)
        assert "syscont-ssh.socket" in caught.value.hint

    asyncio.run(talk())


def test_connections_for_ssh(tmp_path: Path) -> None:
    """ssh gets one to the path that it is told (ssh_config(5), ProxyUseFdpass)."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "port"))
        listener.listen()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            subprocess.run([PROGRAM, str(tmp_path / "port")], stdout=theirs.fileno(), check=True)
            _, (fd,), _, _ = socket.recv_fds(ours, 1, 1)
        with socket.socket(fileno=fd) as one, listener.accept()[0] as other:
            one.sendall(b"x")
            assert other.recv(1) == b"x"
    for where in ("/no/such/path", "vsock:1:1x", "x" * 200):
        assert subprocess.run([PROGRAM, where], capture_output=True, check=False).returncode == 1


@given(st.binary(max_size=200), st.integers(-5, 300))
def test_any_answer(log: bytes, status: int) -> None:
    for answer in (log, struct.pack("i", status) + log):
        with contextlib.suppress(FailedError):
            assert isinstance(ssh.read_answer(answer), int)
