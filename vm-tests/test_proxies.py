# SPDX-License-Identifier: Apache-2.0
"""Proxy devices: connections from the host into guests and the other way round, and how they live with both."""

import subprocess
from collections.abc import Iterator

import pytest
from conftest import Launch
from guests import Instance, syscont, until
from hosts import Host

ASK = """
import socket, sys
kind, address = sys.argv[1], sys.argv[2]
if kind == "unix":
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(address.replace("@", chr(0), 1))
else:
    host, port = address.rsplit(":", 1)
    peer = socket.create_connection((host, int(port)), 5)
peer.settimeout(5)
print(peer.recv(100).decode(), end="")
"""
SERVE = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    peer, _ = listener.accept()
    peer.sendall(b"the host")
    peer.close()
"""


def ask(host: Host, kind: str, address: str) -> str:
    done = host.run(["/usr/bin/python3", "-c", ASK, kind, address], check=False)
    return done.stdout if not done.returncode else f"error {done.stderr.splitlines()[-1]}"


def serve(instance: Instance, port: int, text: str) -> None:
    """Have the guest say text to whoever connects to its loopback address."""
    script = f"(nc -ll -p {port} -e echo {text} >/dev/null 2>&1 &)"
    instance.exec("sh", "-c", script)


def units(host: Host) -> list[str]:
    lines = host.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "syscont-proxy@*"])
    return [line.split()[0] for line in lines.stdout.splitlines()]


def device(instance: Instance, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    verb, *rest = words
    return syscont(instance.host, "device", verb, instance.name, *rest, check=check)


@pytest.fixture
def server(host: Host) -> Iterator[int]:
    """A port of the host's loopback address on which someone says "the host"."""
    process = host.spawn(["/usr/bin/python3", "-c", SERVE, "7070"])
    until(host, lambda: ask(host, "tcp", "127.0.0.1:7070") == "the host")
    yield 7070
    host.run(["sh", "-c", "kill $(ss -Hltnp 'sport = 7070' | grep -o 'pid=[0-9]*' | cut -d= -f2)"])
    process.wait()


def test_a_port_of_the_host_leads_into_the_guest(host: Host, launch: Launch) -> None:
    words = "type=proxy,listen=tcp:127.0.0.1:9080,connect=tcp:127.0.0.1:80"
    one = launch("", "-d", f"http,{words}")
    until(host, lambda: f"syscont-proxy@{one.name}.http:0.socket" in units(host))
    serve(one, 80, "inside")
    until(host, lambda: ask(host, "tcp", "127.0.0.1:9080") == "inside\n")
    assert ask(host, "tcp", "127.0.0.1:80").startswith("error")
    leader = one.leader
    one.exec("reboot", check=False)
    until(host, lambda: one.state == "running" and one.leader not in (0, leader))
    serve(one, 80, "again")
    until(host, lambda: ask(host, "tcp", "127.0.0.1:9080") == "again\n")
    host.run(["systemctl", "restart", "syscontd"])
    assert ask(host, "tcp", "127.0.0.1:9080") == "again\n"
    one.do("stop --force")
    until(host, lambda: not units(host))
    assert ask(host, "tcp", "127.0.0.1:9080").startswith("error")


def test_ports_come_and_go_while_the_guest_runs(host: Host, guest: Instance) -> None:
    serve(guest, 8081, "one")
    serve(guest, 8082, "two")
    listen = "listen=tcp:[::1]:9081-9082"
    device(guest, "add", "pair", "proxy", listen, "connect=tcp:127.0.0.1:8081-8082")
    until(host, lambda: ask(host, "tcp", "::1:9081") == "one\n")
    assert ask(host, "tcp", "::1:9082") == "two\n"
    device(guest, "set", "pair", "connect=tcp:127.0.0.1:8081")
    assert ask(host, "tcp", "::1:9082") == "one\n"
    device(guest, "remove", "pair")
    assert ask(host, "tcp", "::1:9081").startswith("error")
    assert not units(host)


def test_a_port_of_the_guest_leads_to_the_host(host: Host, guest: Instance, server: int) -> None:
    words = ("listen=tcp:127.0.0.1:700", f"connect=tcp:127.0.0.1:{server}", "bind=instance")
    device(guest, "add", "up", "proxy", *words)
    assert guest.exec("sh", "-c", "sleep 1 | nc 127.0.0.1 700").stdout == "the host"
    assert ask(host, "tcp", "127.0.0.1:700").startswith("error")
    device(guest, "remove", "up")
    assert guest.exec("nc", "127.0.0.1", "700", check=False).returncode


def test_a_unix_socket_in_the_guest_leads_to_the_host(host: Host, guest: Instance, server: int) -> None:
    words = ("listen=unix:/srv/up.sock", f"connect=tcp:127.0.0.1:{server}", "bind=instance")
    device(guest, "add", "up", "proxy", *words, "uid=7", "gid=8", "mode=0660")
    assert guest.exec("stat", "-c", "%F %u %g %a", "/srv/up.sock").stdout == "socket 7 8 660\n"
    assert ask(host, "unix", f"/proc/{guest.leader}/root/srv/up.sock") == "the host"
    device(guest, "remove", "up")
    assert guest.exec("stat", "-c", "%F", "/srv/up.sock", check=False).stdout != "socket\n"


def test_a_unix_socket_of_the_host_leads_into_the_guest(host: Host, guest: Instance) -> None:
    serve(guest, 8083, "through")
    words = ("listen=unix:/run/into-guest.sock", "connect=tcp:127.0.0.1:8083", "mode=0600")
    device(guest, "add", "down", "proxy", *words)
    assert host.sh("stat -c '%U %a' /run/into-guest.sock") == "root 600\n"
    until(host, lambda: ask(host, "unix", "/run/into-guest.sock") == "through\n")
    denied = host.run(["/usr/bin/python3", "-c", ASK, "unix", "/run/into-guest.sock"], user="alice", check=False)
    assert "Permission" in denied.stderr
    device(guest, "remove", "down")
    assert host.run(["ls", "/run/into-guest.sock"], check=False).returncode


def test_a_port_that_is_taken_is_refused(host: Host, guest: Instance, server: int) -> None:
    words = (f"listen=tcp:127.0.0.1:{server}", "connect=tcp:127.0.0.1:80")
    done = device(guest, "add", "bad", "proxy", *words, check=False)
    assert done.returncode
    assert "can't listen" in done.stderr
    assert "bad" not in guest.seen()["devices"]
    assert not units(host)


def test_an_idle_proxy_is_no_process_and_a_used_one_has_no_rights(host: Host, guest: Instance) -> None:
    serve(guest, 8084, "yes")
    words = ("listen=tcp:127.0.0.1:9084", "connect=tcp:127.0.0.1:8084")
    device(guest, "add", "idle", "proxy", *words)
    service = f"syscont-proxy@{guest.name}.idle:0.service"
    show = ["systemctl", "show", "--value", "--property=MainPID", service]
    assert host.run(show).stdout == "0\n"
    until(host, lambda: ask(host, "tcp", "127.0.0.1:9084") == "yes\n")
    pid = host.run(show).stdout.strip()
    status = host.read_text(f"/proc/{pid}/status")
    assert "CapEff:\t0000000000000000" in status
    inside = host.sh(f"readlink /proc/{pid}/ns/net /proc/{guest.leader}/ns/net").split()
    assert inside[0] == inside[1]
    device(guest, "remove", "idle")
    assert not units(host)
