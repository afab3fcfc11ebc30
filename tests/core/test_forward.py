# SPDX-License-Identifier: Apache-2.0
"""The forwarder of proxies, as systemd starts it: with sockets that listen, and somewhere to pass on to."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import resource
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FORWARD = Path(__file__).parents[2] / "build/forward"
FLOWS = 1024
CONNECTIONS = 512
HERE = "127.0.0.1"
IP_PKTINFO = 8  # ip(7)

START = """
import os, sys
fds = [int(word) for word in sys.argv[1].split(",")]
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number)
    os.close(fd)
os.execve(sys.argv[2], sys.argv[2:], {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds))})
"""

Forward = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    socket.setdefaulttimeout(5)
    yield
    socket.setdefaulttimeout(None)


@pytest.fixture
def forward() -> Iterator[Forward]:
    """forward(sockets, *argv): run it with the sockets passed to it, until the test ends."""
    running: list[subprocess.Popen[bytes]] = []

    def start(sockets: list[socket.socket], *argv: str) -> subprocess.Popen[bytes]:
        # Numbers that are out of the way of those that it expects.
        fds = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, 100) for one in sockets]
        given = ",".join(map(str, fds))
        running.append(subprocess.Popen([sys.executable, "-ISc", START, given, str(FORWARD), *argv], pass_fds=fds))
        for fd in fds:
            os.close(fd)
        return running[-1]

    yield start
    for one in running:
        one.kill()
        one.wait()


@contextlib.contextmanager
def _socket(kind: int, address: str, family: int = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.socket(family, kind) as one:
        one.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            one.listen(16)
        elif family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            one.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        yield one


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with _socket(socket.SOCK_STREAM, HERE) as one:
        yield one


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with _socket(socket.SOCK_STREAM, HERE) as one:
        yield one


@pytest.fixture
def post() -> Iterator[socket.socket]:
    """Where datagrams are listened for."""
    with _socket(socket.SOCK_DGRAM, HERE) as one:
        yield one


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    """Where they go."""
    with _socket(socket.SOCK_DGRAM, HERE) as one:
        yield one


def _address(of: socket.socket) -> str:
    host, port = of.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sender(to: socket.socket) -> socket.socket:
    one = socket.socket(to.family, socket.SOCK_DGRAM)
    one.connect(to.getsockname()[:2])
    return one


def _read(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := peer.recv(size - len(data))):
        data += more
    return data


# datagrams


def test_answers_find_who_asked(forward: Forward, post: socket.socket, receiver: socket.socket) -> None:
    forward([post], "udp", _address(receiver))
    with _sender(post) as one, _sender(post) as other:
        one.send(b"one")
        other.send(b"")
        first, second = receiver.recvfrom(9), receiver.recvfrom(9)
        assert (first[0], second[0]) == (b"one", b"")
        receiver.sendto(b"to other", second[1])
        receiver.sendto(b"x" * 65507, first[1])
        assert other.recv(99) == b"to other"
        assert one.recv(1 << 16) == b"x" * 65507
        one.send(b"again")
        assert receiver.recvfrom(9) == (b"again", first[1])


def test_an_answer_comes_from_the_address_that_was_asked(forward: Forward, receiver: socket.socket) -> None:
    with _socket(socket.SOCK_DGRAM, "0.0.0.0") as post, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        forward([post], "udp", _address(receiver))
        asked = ("127.0.0.9", post.getsockname()[1])
        sender.sendto(b"?", asked)
        receiver.sendto(b"!", receiver.recvfrom(9)[1])
        assert sender.recvfrom(9) == (b"!", asked)


@pytest.mark.parametrize("address", ["::1", "::"])
def test_datagrams_of_ipv6(forward: Forward, address: str) -> None:
    """Where it listens at all addresses, of IPv4 as well."""
    with (
        _socket(socket.SOCK_DGRAM, address, socket.AF_INET6) as post,
        _socket(socket.SOCK_DGRAM, "::1", socket.AF_INET6) as receiver,
    ):
        forward([post], "udp", _address(receiver))
        for target in ("::1", HERE) if address == "::" else ("::1",):
            with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.connect((target, post.getsockname()[1]))
                sender.send(b"?")
                receiver.sendto(b"!", receiver.recvfrom(9)[1])
                assert sender.recv(9) == b"!"


def test_several_ports_go_to_one(forward: Forward, post: socket.socket, receiver: socket.socket) -> None:
    with _socket(socket.SOCK_DGRAM, HERE) as second:
        forward([post, second], "udp", _address(receiver))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for to in (post, second):
                sender.sendto(b"?", to.getsockname())
                receiver.sendto(b"!", receiver.recvfrom(9)[1])
                assert sender.recvfrom(9) == (b"!", to.getsockname())


def test_a_flood_of_senders_leaves_those_that_were_answered(
    forward: Forward, post: socket.socket, receiver: socket.socket
) -> None:
    """And does not make it take more sockets than it has flows."""
    running = forward([post], "udp", _address(receiver))
    with _sender(post) as one:
        one.send(b"first")
        name = receiver.recvfrom(9)[1]
        receiver.sendto(b"yes", name)
        assert one.recv(9) == b"yes"
        for _ in range(2 * FLOWS):
            with _sender(post) as other:
                other.send(b"flood")
                assert receiver.recv(9) == b"flood"
        assert len(os.listdir(f"/proc/{running.pid}/fd")) <= FLOWS + 10
        one.send(b"still")
        assert receiver.recvfrom(9) == (b"still", name)


def test_nobody_at_home_is_no_end(forward: Forward, post: socket.socket) -> None:
    with _socket(socket.SOCK_DGRAM, HERE) as receiver:
        running = forward([post], "udp", _address(receiver))
        name = receiver.getsockname()
    with _sender(post) as one:
        for _ in range(3):
            one.send(b"lost")
            select.select([], [], [], 0.05)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(name)
            one.send(b"there")
            assert again.recv(9) == b"there"
    assert running.poll() is None


# connections


def test_a_header_goes_first(forward: Forward, listener: socket.socket, server: socket.socket) -> None:
    forward([listener], "--proxy-protocol", "tcp", _address(server))
    with socket.create_connection(listener.getsockname()) as client:
        mine, theirs = client.getsockname(), listener.getsockname()
        client.sendall(b"hello")
        peer, _ = server.accept()
        with peer:
            expected = f"PROXY TCP4 {HERE} {HERE} {mine[1]} {theirs[1]}\r\nhello".encode()
            assert _read(peer, len(expected)) == expected
            peer.sendall(b"good day")
            assert client.recv(99) == b"good day"


def test_a_header_of_ipv4_that_came_to_ipv6_and_one_of_a_unix_socket(
    forward: Forward, server: socket.socket, tmp_path: Path
) -> None:
    with _socket(socket.SOCK_STREAM, "::", socket.AF_INET6) as listener:
        forward([listener], "--proxy-protocol", "tcp", _address(server))
        for address, kind in ((HERE, b"TCP4 127.0.0.1 127.0.0.1"), ("::1", b"TCP6 ::1 ::1")):
            with socket.create_connection((address, listener.getsockname()[1])), server.accept()[0] as peer:
                assert peer.recv(200).startswith(b"PROXY " + kind + b" ")
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "s"))
        local.listen()
        forward([local], "--proxy-protocol", "tcp", _address(server))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            with server.accept()[0] as peer:
                assert peer.recv(200) == b"PROXY UNKNOWN\r\n"


def test_much_both_ways_and_ends_one_by_one(forward: Forward, listener: socket.socket, server: socket.socket) -> None:
    forward([listener], "tcp", _address(server))
    data = os.urandom(1 << 20) * 8
    with socket.create_connection(listener.getsockname()) as client, server.accept()[0] as peer:
        child = os.fork()
        if not child:
            client.sendall(data)
            os._exit(0)
        assert _read(peer, len(data)) == data
        os.waitpid(child, 0)
        client.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b""
        peer.sendall(b"the rest")
        peer.shutdown(socket.SHUT_WR)
        assert _read(client, 99) == b"the rest"


def test_descriptors_pass_between_unix_sockets(forward: Forward, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as server:
        listener.bind(str(tmp_path / "listen"))
        server.bind(f"\0{tmp_path}/server")
        for one in (listener, server):
            one.listen()
        running = forward([listener], "unix", f"@{tmp_path}/server")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "listen"))
            with server.accept()[0] as peer, (tmp_path / "file").open("w+b") as file:
                socket.send_fds(client, [b"take it"], [file.fileno()] * 253)
                client.sendall(b" and more")
                data, fds, _, _ = socket.recv_fds(peer, 99, 253)
                assert len(fds) == 253
                assert data + _read(peer, 16 - len(data)) == b"take it and more"
                os.write(fds[0], b"written")
                assert os.pread(file.fileno(), 9, 0) == b"written"
                for fd in fds:
                    os.close(fd)
                assert len(os.listdir(f"/proc/{running.pid}/fd")) < 12


def test_more_descriptors_than_it_may_have_end_the_connection_only(forward: Forward, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as server:
        for one, path in ((listener, "listen"), (server, "server")):
            one.bind(str(tmp_path / path))
            one.listen()
        running = forward([listener], "unix", str(tmp_path / "server"))
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (32, 32))
        for fds in (array.array("i", [0] * 100), array.array("i", [0])):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "listen"))
                with server.accept()[0] as peer:
                    client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                    data, got, _, _ = socket.recv_fds(peer, 9, 253)
                    for fd in got:
                        os.close(fd)
                    assert (data, len(got)) == ((b"x", 1) if len(fds) == 1 else (b"", 0))


def test_a_chunk_is_a_datagram(forward: Forward, listener: socket.socket, receiver: socket.socket) -> None:
    forward([listener], "udp", _address(receiver))
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"one")
        data, name = receiver.recvfrom(9)
        assert data == b"one"
        client.shutdown(socket.SHUT_WR)
        receiver.sendto(b"", name)
        receiver.sendto(b"answer", name)
        assert client.recv(9) == b"answer"


def test_who_says_nothing_makes_room(forward: Forward, listener: socket.socket, server: socket.socket) -> None:
    running = forward([listener], "tcp", _address(server))
    with contextlib.ExitStack() as held:
        talker = held.enter_context(socket.create_connection(listener.getsockname()))
        talker.sendall(b"hello")
        served = held.enter_context(server.accept()[0])
        assert served.recv(9) == b"hello"
        for _ in range(CONNECTIONS + 100):
            held.enter_context(socket.create_connection(listener.getsockname()))
            held.enter_context(server.accept()[0])
        assert len(os.listdir(f"/proc/{running.pid}/fd")) <= 2 * CONNECTIONS + 10
        served.sendall(b"still")
        assert talker.recv(9) == b"still"


def test_it_ends_when_idle_and_not_before(forward: Forward, listener: socket.socket, server: socket.socket) -> None:
    running = forward([listener], "--idle=1", "tcp", _address(server))
    with (
        socket.create_connection(listener.getsockname()),
        server.accept()[0],
        pytest.raises(subprocess.TimeoutExpired),
    ):
        running.wait(1.2)
    assert running.wait(5) == 0


@pytest.mark.parametrize("path", ["/run/../../s", "/link/s", "/loop/s", "/s"])
def test_nothing_leads_out_of_a_guests_tree(
    forward: Forward, listener: socket.socket, tmp_path: Path, path: str
) -> None:
    """With a path that starts outside there would be a socket, too: none gets there."""
    root = tmp_path / "root"
    (root / "run").mkdir(parents=True)
    (root / "link").symlink_to("/")
    (root / "loop").symlink_to(tmp_path)
    with socket.socket(socket.AF_UNIX) as outside, socket.socket(socket.AF_UNIX) as inside:
        for one, place in ((outside, tmp_path / "s"), (inside, root / "s")):
            one.bind(str(place))
            one.listen()
        forward([listener], f"--beneath={root}", "unix", path)
        with socket.create_connection(listener.getsockname()) as client:
            if path == "/loop/s":
                assert client.recv(9) == b""
            else:
                inside.accept()[0].close()
        outside.settimeout(0.05)
        with pytest.raises(TimeoutError):
            outside.accept()


@pytest.mark.parametrize(
    "argv",
    [
        ("tcp",),
        ("tcp", "localhost:80"),
        ("tcp", "127.0.0.1"),
        ("tcp", "127.0.0.1:65536"),
        ("tcp", "127.0.0.1:-1"),
        ("tcp", "[::1:80"),
        ("tcp", "[" + ":" * 60 + "]:80"),
        ("tcp", "::1:80"),
        ("sctp", "127.0.0.1:80"),
        ("unix", "relative"),
        ("unix", "@"),
        ("unix", "/" + "x" * 107),
        ("--idle=x", "tcp", "127.0.0.1:80"),
        ("--user=0", "tcp", "127.0.0.1:80"),
        ("--user=1:4294967295", "tcp", "127.0.0.1:80"),
        ("--other", "tcp", "127.0.0.1:80"),
    ],
)
def test_bad_arguments(forward: Forward, listener: socket.socket, argv: tuple[str, ...]) -> None:
    assert forward([listener], *argv).wait(5) == 64


def test_datagrams_go_to_datagrams_only(forward: Forward, post: socket.socket, server: socket.socket) -> None:
    assert forward([post], "tcp", _address(server)).wait(5) == 1
    assert subprocess.run([FORWARD, "udp", "127.0.0.1:1"], env={}, check=False).returncode == 64
