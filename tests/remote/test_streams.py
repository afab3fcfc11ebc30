# SPDX-License-Identifier: Apache-2.0
"""Streams between hosts: whole, in order, at the pace of the slower side, and with their ends told apart."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysd.remote.certificate import Identity
from sysd.remote.frames import WINDOW
from sysd.varlink import gateway
from tests.remote.lab import WAIT, Host, Talk, until

BIG = 40 << 20
DONE = {"parameters": {"exitStatus": 0}}


@pytest.fixture
def client(host: Host) -> Identity:
    return host.trust_client("alice")


@pytest.fixture
def null() -> Iterator[int]:
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


def run(host: Host, client: Identity, script: str, *fds: int) -> Talk:
    talk = Talk(host.call(client))
    talk.send_with("Exec", list(fds), {1, 2}, command=["sh", "-c", script])
    return talk


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_calls(host: Host, client: Identity) -> None:
    talk = Talk(host.call(client))
    for text in ("one", "two", "x" * 300_000):
        assert talk.ask("Echo", text=text) == {"parameters": {"text": text}}
    assert talk.ask("Echo")["error"].endswith(".InvalidArgument")
    assert host.callers[0].remote == "alice"
    assert host.callers[0].is_root
    talk.close()


def test_both_ways_whole(host: Host, client: Identity, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(os.urandom(1 << 20) * (BIG >> 20))
    with open(sent, "rb") as source, open(tmp_path / "got", "wb") as target, open(tmp_path / "said", "wb") as said:
        talk = run(host, client, "tee /dev/fd/3 3>&2 | cat", source.fileno(), target.fileno(), said.fileno())
        assert talk.reply() == DONE
    assert {digest(tmp_path / "got"), digest(tmp_path / "said")} == {digest(sent)}
    assert talk.reply() == {}
    talk.close()


def test_the_end_of_input_is_told(host: Host, client: Identity, null: int) -> None:
    reader, writer = os.pipe()
    talk = run(host, client, "cat >/dev/null", reader, null, null)
    os.write(writer, b"some")
    talk.link.local.settimeout(0.3)
    with pytest.raises(TimeoutError):
        talk.reply()
    os.close(writer)
    talk.link.local.settimeout(WAIT)
    assert talk.reply() == DONE
    os.close(reader)


def test_a_reader_that_leaves_is_told(host: Host, client: Identity, null: int) -> None:
    """As in a pipe, what writes on gets SIGPIPE."""
    reader, writer = os.pipe()
    talk = run(host, client, "exec yes", null, writer, null)
    os.close(writer)
    assert os.read(reader, 2) == b"y\n"
    os.close(reader)
    assert talk.reply() == {"parameters": {"exitStatus": 141}}


def test_input_that_is_not_wanted(host: Host, client: Identity, null: int) -> None:
    zero = os.open("/dev/zero", os.O_RDONLY)
    reader, writer = os.pipe()
    talk = run(host, client, "head -c 10 | wc -c", zero, writer, null)
    assert talk.reply() == DONE
    assert os.read(reader, 10) == b"10\n"
    for fd in (zero, reader, writer):
        os.close(fd)


def test_a_stream_that_nobody_reads_holds_up_no_other(host: Host, client: Identity, null: int) -> None:
    out, out_writer = os.pipe()
    err, err_writer = os.pipe()
    script = "head -c 50000000 /dev/zero & while :; do echo here >&2; sleep 0.01; done"
    talk = run(host, client, script, null, out_writer, err_writer)
    time.sleep(0.5)
    deadline, heard = time.monotonic() + 1, 0
    while time.monotonic() < deadline:
        heard += len(os.read(err, 4096))
    assert heard > 50
    talk.close()
    for fd in (out, out_writer, err, err_writer):
        os.close(fd)


def test_no_more_is_taken_than_there_is_room_for(host: Host, client: Identity, null: int, tmp_path: Path) -> None:
    """What writes is held up by one who does not read, however far away."""
    out, writer = os.pipe()
    script = f"while :; do head -c 1000000 /dev/zero; echo x >>{tmp_path}/written; done"
    talk = run(host, client, script, null, writer, null)
    written = tmp_path / "written"
    before = -1
    while not written.exists() or before != written.stat().st_size:
        before = written.stat().st_size if written.exists() else -1
        time.sleep(0.7)
    assert before // 2 * 1_000_000 < WINDOW + gateway.PIPE + (4 << 20)
    talk.close()
    for fd in (out, writer):
        os.close(fd)


def test_what_goes_to_one_place_stays_in_order(host: Host, client: Identity, null: int, tmp_path: Path) -> None:
    with open(tmp_path / "both", "wb") as both:
        script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done"
        assert run(host, client, script, null, both.fileno(), both.fileno()).reply() == DONE
    lines = [f"{kind} {number}" for number in range(1, 10) for kind in ("out", "err")]
    assert (tmp_path / "both").read_text().splitlines() == lines


def test_all_that_was_said_comes_before_the_end(host: Host, client: Identity, null: int, tmp_path: Path) -> None:
    """Though something is left behind that has the output open."""
    with open(tmp_path / "out", "wb") as out:
        talk = run(host, client, "seq 1 200000; sleep 5 & exit 3", null, out.fileno(), null)
        assert talk.reply() == {"parameters": {"exitStatus": 3}}
        assert (tmp_path / "out").read_bytes().endswith(b"\n200000\n")


def test_one_who_reads_late_gets_all(host: Host, client: Identity, null: int) -> None:
    """When the far side has long said that all is over."""
    out, writer = os.pipe()
    talk = run(host, client, "head -c 3000000 /dev/zero", null, writer, null)
    os.close(writer)
    time.sleep(1)
    got = 0
    while piece := os.read(out, 1 << 16):
        got += len(piece)
    assert talk.reply() == DONE
    assert got == 3_000_000
    os.close(out)


def test_a_disk_that_is_full(host: Host, client: Identity, null: int) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    talk = run(host, client, "head -c 100000 /dev/zero", null, full, null)
    assert talk.reply() == {}
    error = talk.link.error
    assert error
    assert error.errno == errno.ENOSPC
    os.close(full)


def test_input_that_can_not_be_read_has_no_end(host: Host, client: Identity, null: int, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    script = f"cat >/dev/null; touch {tmp_path}/ended"
    talk = run(host, client, script, folder, null, null)
    assert talk.reply() == {}
    assert talk.link.error
    assert talk.link.error.errno == errno.EISDIR
    os.close(folder)
    time.sleep(0.3)
    assert not (tmp_path / "ended").exists()


def test_input_that_breaks_off_has_no_end(
    host: Host, client: Identity, null: int, tmp_path: Path
) -> None:
    """What reads it gets SIGHUP, and no end of file that it could take for the end."""
    reader, writer = os.pipe()
    trap = f"trap 'echo hup >{tmp_path}/hup; exit' HUP; touch {tmp_path}/begun"
    script = f"{trap}; exec 3<&0; cat <&3 >/dev/null & wait $!; touch {tmp_path}/ended"
    talk = run(host, client, script, reader, null, null)
    os.write(writer, b"half of it")
    until(lambda: (tmp_path / "begun").exists())
    talk.link.abort()
    until(lambda: (tmp_path / "hup").exists())
    time.sleep(0.3)
    assert not (tmp_path / "ended").exists()
    os.close(reader)
    os.close(writer)


def test_a_reader_that_does_not_mind_is_not_waited_for(
    host: Host, client: Identity, null: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "HOLD", 0.5)
    reader, writer = os.pipe()
    script = f"trap '' HUP; touch {tmp_path}/begun; cat >/dev/null; touch {tmp_path}/ended"
    talk = run(host, client, script, reader, null, null)
    os.write(writer, b"half of it")
    until(lambda: (tmp_path / "begun").exists())
    talk.link.abort()
    until(lambda: (tmp_path / "ended").exists())
    os.close(reader)
    os.close(writer)


def test_many_at_once(host: Host, client: Identity, null: int, tmp_path: Path) -> None:
    def one(number: int) -> None:
        with open(tmp_path / f"out{number}", "wb") as out:
            assert run(host, client, f"seq 1 {number}0000", null, out.fileno(), null).reply() == DONE

    threads = [threading.Thread(target=one, args=(number,)) for number in range(1, 31)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(1, 31):
        assert (tmp_path / f"out{number}").read_bytes().endswith(f"\n{number}0000\n".encode())


def test_nothing_is_left_open(host: Host, client: Identity, null: int) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    talks = [run(host, client, "true", null, null, null)]
    assert talks.pop().reply() == DONE
    until(lambda: host.do(lambda: not host.door._visitors))
    time.sleep(0.1)
    before = descriptors()
    for _ in range(20):
        talk = run(host, client, "cat", null, null, null)
        assert talk.reply() == DONE
        talk.close()
    until(lambda: host.do(lambda: not host.door._visitors))
    until(lambda: descriptors() <= before)
