# SPDX-License-Identifier: Apache-2.0
"""Who gets through the door for other hosts, how far, and for how long."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sysd.model.errors import DeniedError, FailedError, SyscontError
from sysd.model.server import HTTPS_ADDRESS
from sysd.remote import certificate, dial, tls
from sysd.remote.certificate import Identity
from sysd.remote.frames import CREDIT, DATA, END, HEAD, MESSAGE, MOST_DATA, STOP, WINDOW
from sysd.remote.token import Token
from sysd.varlink import remote as door
from tests.remote.lab import WAIT, Host, Talk, free_port, handshake, stranger, until

INFO = b'{"method":"org.varlink.service.GetInfo"}\0'


def invite(host: Host, name: str = "") -> Token:
    return host.do(lambda: host.trust.invite(name))


def join(host: Host, token: Token, own: Identity, said: str = "bob@box") -> dict[str, Any]:
    with certificate.temporary(token.secret) as invited:
        connection, server = dial.dial_unknown(token.addresses, invited, token.fingerprint)
        assert server == host.certificate
    talk = Talk(host.linked(connection))
    try:
        return talk.ask("Join", certificate=certificate.pem(own.certificate), name=said)
    finally:
        talk.close()


def strangers(host: Host) -> int:
    return host.do(lambda: len(host.door._visitors))


@contextlib.contextmanager
def raw(host: Host) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", host.port), WAIT) as sock:
        yield sock


def context(own: Identity | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Of a client that takes any server."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if version:
        made.maximum_version = version
    if own:
        made.load_cert_chain(own.path)
    return made


# the handshake


def test_one_who_is_trusted(host: Host) -> None:
    assert b"org.syscont.Manager" in handshake(host.address, context(host.trust_client("alice")))


def test_no_certificate(host: Host) -> None:
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        handshake(host.address, context(None))


def test_another_certificate(host: Host, tmp_path: Path) -> None:
    host.trust_client("alice")
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        handshake(host.address, context(stranger(tmp_path, "eve")))


def test_a_certificate_without_its_key(host: Host, tmp_path: Path) -> None:
    """Another key, with the certificate of one who is trusted: OpenSSL itself does not let that go out."""
    alice, eve = host.trust_client("alice"), stranger(tmp_path, "eve")
    key = Path(eve.path).read_text().partition("-----BEGIN CERTIFICATE")[0]
    (tmp_path / "mixed.pem").write_text(key + certificate.pem(alice.certificate))
    with pytest.raises(ssl.SSLError):
        context(Identity(str(tmp_path / "mixed.pem"), alice.certificate))


def test_one_that_a_trusted_certificate_has_signed(host: Host, tmp_path: Path) -> None:
    """As an authority's would be: what is trusted is the one certificate."""
    commands = f"""
        cd {tmp_path}
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -subj /CN=ca
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.pem -out leaf.csr -subj /CN=leaf
        openssl x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out leaf.crt
        cat leaf.crt >>leaf.pem
    """
    subprocess.run(["sh", "-ec", commands], check=True, capture_output=True)
    host.do(lambda: host.trust.add((tmp_path / "ca.crt").read_text(), "authority"))
    with contextlib.suppress(OSError):
        assert handshake(host.address, context(certificate.load(str(tmp_path / "leaf.pem")))) == b""


def test_certificates_that_others_make(host: Host, tmp_path: Path) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2"]
    key, made = tmp_path / "k", tmp_path / "c"
    subprocess.run([*make, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    (tmp_path / "both.pem").write_text(key.read_text() + made.read_text())
    host.do(lambda: host.trust.add(made.read_text(), "rsa"))
    assert b"syscont" in handshake(host.address, context(certificate.load(str(tmp_path / "both.pem"))))


def test_an_older_tls(host: Host) -> None:
    with pytest.raises(ssl.SSLError, match=r"VERSION|PROTOCOL"):
        handshake(host.address, context(host.trust_client("alice"), ssl.TLSVersion.TLSv1_2))


def test_a_session_is_not_taken_up_again(host: Host) -> None:
    """It would be, without another look at the certificate."""
    made = context(host.trust_client("alice"))
    with raw(host) as sock, made.wrap_socket(sock) as connection:
        connection.sendall(INFO)
        assert connection.recv(1 << 16)
        session = connection.session
    assert session is None or not session.has_ticket


def test_strangers_are_not_told_who_is_trusted(host: Host) -> None:
    """A server may name whom it takes (RFC 8446, 4.2.4): no CA names are sent."""
    host.trust_client("alice")
    done = subprocess.run(
        ["openssl", "s_client", "-connect", host.address], input=b"", capture_output=True, check=False, timeout=WAIT
    )
    assert b"No client certificate CA names sent" in done.stdout


def test_not_tls_at_all(host: Host) -> None:
    for said in (b"GET / HTTP/1.1\r\n\r\n", INFO, os.urandom(4000), b"\0" * 100):
        with raw(host) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(said)
            # An alert of TLS at most.
            assert len(sock.recv(1 << 16)) <= 7
    assert handshake(host.address, context(host.trust_client("alice")))


def test_one_who_says_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HANDSHAKE", 0.5)
    with raw(host) as sock:
        assert sock.recv(1) == b""
    until(lambda: strangers(host) == 0)


def test_one_who_takes_his_time(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is not enough."""
    monkeypatch.setattr(door, "HANDSHAKE", 0.5)
    monkeypatch.setattr(door, "HEAR", 0.1)

    def drip(sock: socket.socket) -> None:
        for byte in b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc" + bytes(4096):
            sock.sendall(bytes((byte,)))
            time.sleep(0.05)

    start = time.monotonic()
    with raw(host) as sock, pytest.raises(OSError):  # noqa: PT011
        drip(sock)
    assert time.monotonic() - start < 3


def test_strangers_make_room(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_STRANGERS_EACH", 4)
    alice = host.trust_client("alice")
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(raw(host)) for _ in range(20)]
        until(lambda: strangers(host) == 4)
        assert held[0].recv(1) == b""
        assert handshake(host.address, context(alice))


def test_failures_are_held_against_an_address(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "FAILURES_AT_ONCE", 3)
    alice = host.trust_client("alice")
    for _ in range(10):
        with contextlib.suppress(OSError):
            handshake(host.address, context(None))
    with pytest.raises(OSError):  # noqa: PT011
        handshake(host.address, context(alice))
    time.sleep(2.1)
    assert handshake(host.address, context(alice))


def test_connections_of_one_who_is_trusted_have_a_limit(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_PEERS_EACH", 3)
    alice, bob = host.trust_client("alice"), host.trust_client("bob")
    talks = [Talk(host.call(alice)) for _ in range(3)]
    for talk in talks:
        assert talk.ask("Echo", text="a")
    assert Talk(host.call(alice)).ask("Echo", text="a") == {}
    assert Talk(host.call(bob)).ask("Echo", text="a")
    talks.pop().close()
    until(lambda: strangers(host) <= 3)
    assert Talk(host.call(alice)).ask("Echo", text="a")


# tokens


def test_a_token_makes_a_stranger_one_who_is_trusted(host: Host, tmp_path: Path) -> None:
    bob = stranger(tmp_path, "bob")
    assert join(host, invite(host), bob) == {"parameters": {"name": "bob@box"}}
    assert Talk(host.call(bob)).ask("Echo", text="hi") == {"parameters": {"text": "hi"}}
    assert [one.name for one in host.do(host.trust.trusted)] == ["bob@box"]


def test_a_token_that_says_the_name(host: Host, tmp_path: Path) -> None:
    assert join(host, invite(host, "robert"), stranger(tmp_path, "bob"))["parameters"] == {"name": "robert"}


def test_names_are_made_good_and_told_apart(host: Host, tmp_path: Path) -> None:
    said = ["../ä\x1b[31m b", "../ä\x1b[31m b", "", "x" * 500]
    names = [
        join(host, invite(host), stranger(tmp_path, f"s{number}"), text)["parameters"]["name"]
        for number, text in enumerate(said)
    ]
    assert names == ["31m-b", "31m-b-2", "unnamed", "x" * 64]


def test_a_token_is_good_once(host: Host, tmp_path: Path) -> None:
    token = invite(host)
    join(host, token, stranger(tmp_path, "bob"))
    with pytest.raises(OSError, match="UNKNOWN_CA"), certificate.temporary(token.secret) as invited:
        handshake(host.address, context(invited))


def test_two_who_come_at_once_with_one_token(host: Host, tmp_path: Path) -> None:
    token = invite(host)
    with certificate.temporary(token.secret) as invited:
        found = [dial.dial_unknown(token.addresses, invited, token.fingerprint)[0] for _ in range(2)]
    talks = []
    for number, connection in enumerate(found):
        talks.append(Talk(host.linked(connection)))
        text = certificate.pem(stranger(tmp_path, f"s{number}").certificate)
        talks[-1].send("Join", certificate=text, name="x")
    replies = [talk.reply() for talk in talks]
    assert sum("error" in reply for reply in replies) == 1
    assert len(host.do(host.trust.trusted)) == 1


def test_a_token_expires(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.trust, "_expiry", lambda: int(time.time()) + 1)
    token = invite(host)
    time.sleep(1.1)
    with certificate.temporary(token.secret) as invited, contextlib.suppress(OSError):
        assert handshake(host.address, context(invited)) == b""
    until(lambda: host.do(lambda: not list(host.store.invitations())))
    with certificate.temporary(token.secret) as invited, pytest.raises(OSError, match="UNKNOWN_CA"):
        handshake(host.address, context(invited))


def test_a_token_is_withdrawn(host: Host) -> None:
    token = invite(host, "bob")
    host.do(lambda: host.trust.remove("bob"))
    with certificate.temporary(token.secret) as invited, pytest.raises(OSError, match="UNKNOWN_CA"):
        handshake(host.address, context(invited))


def test_a_token_is_good_for_nothing_else(host: Host, tmp_path: Path) -> None:
    token = invite(host)
    with certificate.temporary(token.secret) as invited:
        for method in ("org.varlink.service.GetInfo", "org.varlink.service.GetInterfaceDescription",
                       "org.syscont.Manager.Echo", "org.syscont.Manager.Exec"):  # fmt: skip
            said = tls.client_context(invited, host.certificate)
            with raw(host) as sock, said.wrap_socket(sock) as connection:
                connection.sendall(b'{"method":"%s","parameters":{"text":"x","interface":"org.syscont.Manager"}}\0'
                                   % method.encode())  # fmt: skip
                assert b"MethodNotFound" in connection.recv(1 << 16)
    for text in ("", "no certificate", certificate.pem(b"0\x82\x01\x00" + bytes(256)), certificate.pem(token.secret)):
        assert "error" in _join_text(host, token, text)
    assert host.do(host.trust.trusted) == []
    assert join(host, token, stranger(tmp_path, "bob"))["parameters"]


def _join_text(host: Host, token: Token, text: str) -> dict[str, Any]:
    with certificate.temporary(token.secret) as invited:
        connection, _ = dial.dial_unknown(token.addresses, invited, token.fingerprint)
    return Talk(host.linked(connection)).ask("Join", certificate=text, name="x")


def test_who_has_a_token_may_not_stay_nor_say_much(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "JOIN", 0.5)
    token = invite(host)
    with certificate.temporary(token.secret) as invited:
        for said in (b"", b"x" * 100_000):
            with raw(host) as sock, context(invited).wrap_socket(sock) as connection, contextlib.suppress(OSError):
                connection.sendall(said)
                assert connection.recv(1) == b""


def test_a_host_that_is_not_the_one(host: Host, tmp_path: Path) -> None:
    """Nothing is said to it, and no certificate of ours is shown."""
    token = invite(host)
    with (
        certificate.temporary(token.secret) as invited,
        pytest.raises(DeniedError, match="not the host"),
    ):
        dial.dial_unknown(token.addresses, invited, "0" * 64)
    alice = host.trust_client("alice")
    with pytest.raises(DeniedError, match="not the host"):
        dial.dial([host.address], alice, stranger(tmp_path, "other").certificate)


# trust that ends, and places that change


def test_trust_that_is_withdrawn_ends_connections(host: Host, tmp_path: Path) -> None:
    alice, bob = host.trust_client("alice"), host.trust_client("bob")
    talks = [Talk(host.call(one)) for one in (alice, bob)]
    for talk in talks:
        assert talk.ask("Echo", text="a")
    with open(os.devnull, "rb") as null:
        busy = Talk(host.call(alice))
        busy.send_with("Exec", [null.fileno()] * 3, set(), command=["sh", "-c", f"echo $$ >{tmp_path}/pid; sleep 60"])
        until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
    host.do(lambda: host.trust.remove("alice"))
    assert talks[0].reply() == {}
    assert busy.reply() == {}
    assert talks[1].ask("Echo", text="b") == {"parameters": {"text": "b"}}
    until(lambda: not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text().strip()}/cwd"))
    assert Talk(host.call(alice)).ask("Echo", text="a") == {}


def change(host: Host, before: str, after: str) -> None:
    wanted = {HTTPS_ADDRESS: after} if after else {}
    host.do(lambda: host.door.check_server_config({HTTPS_ADDRESS: before}, wanted))


def test_another_address_at_once(host: Host) -> None:
    alice = host.trust_client("alice")
    talk = Talk(host.call(alice))
    assert talk.ask("Echo", text="a")
    moved = f"127.0.0.1:{free_port()}"
    change(host, host.address, moved)
    with pytest.raises(ConnectionRefusedError):
        handshake(host.address, context(alice))
    assert handshake(moved, context(alice))
    assert talk.ask("Echo", text="b"), "who is there stays"
    change(host, moved, "")
    with pytest.raises(ConnectionRefusedError):
        handshake(moved, context(alice))
    assert talk.ask("Echo", text="c")


def test_an_address_that_is_taken(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "RETRY_LISTEN", 0.2)
    alice = host.trust_client("alice")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(FailedError, match=HTTPS_ADDRESS):
            change(host, host.address, taken)
        assert handshake(host.address, context(alice))
        host.do(lambda: host.door.listen_sometime(taken))
    until(lambda: _answers(taken, alice))


def _answers(address: str, own: Identity) -> bool:
    try:
        return bool(handshake(address, context(own)))
    except OSError:
        return False


def test_the_key_is_made_once_and_is_nobody_elses(host: Host) -> None:
    path = host.folder / "server.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    change(host, host.address, "")
    change(host, "", host.address)
    assert path.read_text() == before


def test_a_key_that_is_damaged(host: Host) -> None:
    (host.folder / "server.pem").write_text("nothing")
    host.do(lambda: setattr(host.door, "_context", None))
    with pytest.raises(FailedError, match=r"server\.pem"):
        change(host, "", host.address)


# hostile, but trusted


def upgraded(host: Host, own: Identity, *frames: bytes, streams: object = ("r",)) -> bytes:
    """What is said to frames after a call with one stream that a command reads."""
    with raw(host) as sock, context(own).wrap_socket(sock) as connection:
        from sysd.codec import encode

        call = {"method": "org.syscont.Manager.Exec", "upgrade": True, "parameters": {"command": ["cat"]}}
        connection.sendall(encode(call | {"streams": streams}).encode() + b"\0" + b"".join(frames))
        said = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(1 << 16):
                said += piece
        return said


@pytest.mark.parametrize(
    "frame",
    [
        HEAD.pack(99, 0, 0),
        HEAD.pack(MESSAGE, 0, 0),
        HEAD.pack(MESSAGE, 0, 1 << 31),
        HEAD.pack(DATA, 0, MOST_DATA + 1),
        HEAD.pack(DATA, 7, 4) + b"data",
        HEAD.pack(END, 9, 0),
        HEAD.pack(STOP, 200, 0),
        HEAD.pack(CREDIT, 100, 5),
        HEAD.pack(END, 0, 0) + HEAD.pack(DATA, 0, 1) + b"x",
        (HEAD.pack(DATA, 0, MOST_DATA) + bytes(MOST_DATA)) * (WINDOW // MOST_DATA + 2),
        b"\0" * 5,
    ],
)  # fmt: skip
def test_frames_that_are_none(host: Host, frame: bytes) -> None:
    alice = host.trust_client("alice")
    with contextlib.suppress(OSError):
        # Of a frame that is not whole, the rest is waited for.
        upgraded(host, alice, frame + HEAD.pack(77, 0, 0))
    until(lambda: strangers(host) == 0)
    assert handshake(host.address, context(alice))


@pytest.mark.parametrize("streams", [None, 1, "rrr", ["x"], ["=0"], ["r", "=1"], ["=-1"], [["r"]], ["r"] * 9, {"a": 1}])
def test_streams_that_are_none(host: Host, streams: object) -> None:
    alice = host.trust_client("alice")
    assert upgraded(host, alice, streams=streams) == b""
    until(lambda: strangers(host) == 0)


def test_a_message_without_end(host: Host) -> None:
    alice = host.trust_client("alice")
    with raw(host) as sock, context(alice).wrap_socket(sock) as connection, pytest.raises(OSError):  # noqa: PT011
        connection.sendall(b"x" * (64 << 20))
    until(lambda: strangers(host) == 0)


def test_a_connection_that_is_reset(host: Host) -> None:
    alice = host.trust_client("alice")
    with raw(host) as sock, context(alice).wrap_socket(sock) as connection:
        connection.sendall(INFO)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: strangers(host) == 0)


def test_no_address_answers(host: Host) -> None:
    alice = host.trust_client("alice")
    with pytest.raises(SyscontError):
        dial.dial([f"127.0.0.1:{free_port()}"], alice, host.certificate)
    with pytest.raises(SyscontError):
        dial.dial(["no-such-host.invalid:1"], alice, host.certificate)


def test_the_address_that_answers_is_found(host: Host, tmp_path: Path) -> None:
    """Others refuse, or are other hosts."""
    alice = host.trust_client("alice")
    other = Host(tmp_path / "other", {})
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        addresses = [f"127.0.0.1:{free_port()}", other.address, host.address]
        dial.dial(addresses, alice, host.certificate).close()
    other.close()
