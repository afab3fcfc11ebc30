# SPDX-License-Identifier: Apache-2.0
"""Proxies that are more than a stream of bytes: UDP, the PROXY protocol, sockets in a guest's files, translation of
addresses; and hostile ends."""

import contextlib
import ipaddress
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Launch
from guests import Instance, syscont, systemd_property, until
from hosts import Host
from test_proxies import device, units

PEER = (Path(__file__).parent / "on_host/peer.py").read_text()
FLOWS = 1024
CONNECTIONS = 512
SERVER = """
use IO::Socket::UNIX;
unlink $ARGV[0];
my $server = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 9) or die $!;
chmod 0700, $ARGV[0];
while (my $peer = $server->accept) { print $peer "inside"; close $peer }
"""


def within(instance: Instance | None) -> list[str]:
    """Runs a program of the host's in the network of a guest, where the test's own asks and answers in that way."""
    return ["nsenter", f"--net=/proc/{instance.leader}/ns/net"] if instance else []


@contextlib.contextmanager
def serving(host: Host, inside: Instance | None, kind: str, address: str) -> Iterator[None]:
    """An echo on the host, or in the network of a guest."""
    argv = [*within(inside), "/usr/bin/python3", "-c", PEER, "serve", kind, address]
    process = host.spawn(argv, stdin=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def ask(host: Host, inside: Instance | None, kind: str, address: str, *texts: str) -> list[str]:
    """Lines that come back; none when nothing does."""
    argv = [*within(inside), "/usr/bin/python3", "-c", PEER, "ask", kind, address, *texts]
    return host.run(argv, check=False).stdout.splitlines()


def service(instance: Instance, name: str) -> str:
    return f"syscont-proxy@{instance.name}.{name}:0.service"


def main_pid(instance: Instance, name: str) -> int:
    return int(systemd_property(instance.host, service(instance, name), "MainPID"))


@pytest.fixture
def host_echo(host: Host) -> Iterator[None]:
    with serving(host, None, "udp", "127.0.0.1:7090"), serving(host, None, "tcp", "127.0.0.1:7090"):
        yield


def test_datagrams_into_a_guest_outlive_the_daemon_and_a_reboot(host: Host, launch: Launch) -> None:
    one = launch("", "-d", "dns,type=proxy,listen=udp:127.0.0.1:9053,connect=udp:127.0.0.1:53")
    until(host, lambda: f"syscont-proxy@{one.name}.dns:0.socket" in units(host))
    assert main_pid(one, "dns") == 0
    with serving(host, one, "udp", "127.0.0.1:53"):
        first, second = ask(host, None, "udp", "127.0.0.1:9053", "one", "two")
        assert first.split()[0] == second.split()[0]
        assert (first.split()[1], second.split()[1]) == ("one", "two")
        pid = main_pid(one, "dns")
        host.run(["systemctl", "restart", "syscontd"])
        assert ask(host, None, "udp", "127.0.0.1:9053", "three")
        assert main_pid(one, "dns") == pid
        device(one, "set", "dns", "connect=udp:127.0.0.1:54")
        assert main_pid(one, "dns") == 0
        with serving(host, one, "udp", "127.0.0.1:54"):
            assert ask(host, None, "udp", "127.0.0.1:9053", "four")[0].endswith(" four")
    leader = one.leader
    one.exec("reboot", check=False)
    until(host, lambda: one.state == "running" and one.leader not in (0, leader))
    with serving(host, one, "udp", "127.0.0.1:54"):
        until(host, lambda: ask(host, None, "udp", "127.0.0.1:9053", "five"))
    device(one, "remove", "dns")
    assert not units(host)


def test_datagrams_out_of_a_guest_from_an_address_that_comes_later(
    host: Host, guest: Instance, host_echo: None
) -> None:
    listen = "listen=udp:192.0.2.77:5000-5001"
    device(guest, "add", "out", "proxy", listen, "connect=udp:127.0.0.1:7090", "bind=instance")
    guest.exec("ip", "address", "add", "192.0.2.77/32", "dev", "lo")
    for port in (5000, 5001):
        assert ask(host, guest, "udp", f"192.0.2.77:{port}", "hello")[0].endswith(" hello")
    assert not ask(host, None, "udp", "127.0.0.1:5000", "hello")
    guest.exec("ip", "address", "delete", "192.0.2.77/32", "dev", "lo")
    device(guest, "remove", "out")


def test_a_server_in_the_guest_is_told_who_connects(host: Host, guest: Instance) -> None:
    words = ("listen=tcp:127.0.0.1:9086", "connect=tcp:127.0.0.1:86", "proxy_protocol=true")
    device(guest, "add", "web", "proxy", *words)
    with serving(host, guest, "tcp", "127.0.0.1:86"):
        header, text = ask(host, None, "tcp", "127.0.0.1:9086", "hello")
        assert re.fullmatch(r"PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 [0-9]+ 9086", header)
        assert text == "hello"
        device(guest, "set", "web", "proxy_protocol=false")
        assert ask(host, None, "tcp", "127.0.0.1:9086", "hello") == ["hello"]
    device(guest, "remove", "web")


def test_a_stream_can_go_to_datagrams_and_datagrams_to_nothing_else(host: Host, guest: Instance) -> None:
    device(guest, "add", "log", "proxy", "listen=tcp:127.0.0.1:9087", "connect=udp:127.0.0.1:87")
    with serving(host, guest, "udp", "127.0.0.1:87"):
        script = "exec 3<>/dev/tcp/127.0.0.1/9087; echo hi >&3; read -r -t 5 answer <&3; echo $answer"
        assert host.run(["bash", "-c", script]).stdout.endswith(" hi\n")
    done = device(guest, "set", "log", "listen=udp:127.0.0.1:9087", "connect=tcp:127.0.0.1:87", check=False)
    assert "can go to udp only" in done.stderr
    device(guest, "remove", "log")


@pytest.mark.parametrize("words", [(), ("security.uid=1000", "security.gid=7")])
def test_who_connects_is_a_user_of_the_guest(host: Host, guest: Instance, words: tuple[str, ...]) -> None:
    """To plain streams and to what the forwarder is for alike."""
    base = int(host.sh(f"awk 'NR==1 {{print $2}}' /proc/{guest.leader}/uid_map"))
    expected = f"{base + 1000}:{base + 7} " if words else f"{base}:{base} "
    host.run(["rm", "-f", "/run/in.sock"])
    with serving(host, guest, "unix", "@inside"):
        for listen, client in (("tcp:127.0.0.1:9088", ("tcp", "127.0.0.1:9088")), ("unix:/run/in.sock", None)):
            device(guest, "add", "who", "proxy", f"listen={listen}", "connect=unix:@inside", *words)
            kind, address = client or ("unix", "/run/in.sock")
            assert ask(host, None, kind, address, "x") == [expected + "x"]
            status = host.read_text(f"/proc/{main_pid(guest, 'who')}/status")
            assert re.search(r"CapEff:\t0+\n", status)
            assert re.search(r"CapPrm:\t0+\n", status)
            assert "NoNewPrivs:\t1" in status
            assert "Seccomp:\t2" in status
            device(guest, "remove", "who")


def test_a_socket_in_the_guests_files_and_what_it_becomes(host: Host, debian_guest: Instance) -> None:
    """A guest that makes a link of it reaches nothing of the host's: not even what is at the same path there."""
    guest = debian_guest
    words = ("listen=tcp:127.0.0.1:9089", "connect=unix:/srv/in/app.sock")
    device(guest, "add", "app", "proxy", *words)
    guest.sh("mkdir -p /srv/in /srv/real; nohup perl -e '" + SERVER + "' /srv/real/app.sock >/dev/null 2>&1 &")
    guest.sh("ln -sfn /srv/real/app.sock /srv/in/app.sock")
    until(host, lambda: ask(host, None, "tcp", "127.0.0.1:9089") == ["inside"])
    host.run(["mkdir", "-p", "/srv/in"])
    with serving(host, None, "unix", "/srv/in/app.sock"), serving(host, None, "unix", "/run/canary.sock"):
        for link in ("/run/canary.sock", "../../../../../run/canary.sock", "/proc/1/root/run/canary.sock",
                     "/srv/in/app.sock", "/nowhere"):  # fmt: skip
            guest.sh(f"ln -sfn {link} /srv/in/app.sock")
            assert ask(host, None, "tcp", "127.0.0.1:9089") == []
        guest.sh("rm -r /srv/in; ln -s /proc/self/root /srv/in")
        assert ask(host, None, "tcp", "127.0.0.1:9089") == []
    host.run(["rm", "-rf", "/srv/in", "/run/canary.sock"])
    guest.sh("rm /srv/in; ln -s /srv/real /srv/in")
    assert ask(host, None, "tcp", "127.0.0.1:9089") == ["inside"]
    device(guest, "set", "app", "security.uid=5")
    assert ask(host, None, "tcp", "127.0.0.1:9089") == []  # its mode is 0700
    device(guest, "remove", "app")
    guest.sh("rm -r /srv/in /srv/real; pkill -x perl", check=False)


def test_a_privileged_guests_files(host: Host, launch: Launch, debian: str) -> None:
    words = "app,type=proxy,listen=tcp:127.0.0.1:9091,connect=unix:/srv/app.sock"
    one = launch(debian, "--wait", "-c", "security.privileged=true", "-d", words)
    one.sh("nohup perl -e '" + SERVER + "' /srv/app.sock >/dev/null 2>&1 &")
    until(host, lambda: ask(host, None, "tcp", "127.0.0.1:9091") == ["inside"])
    assert re.search(r"CapEff:\t0+\n", host.read_text(f"/proc/{main_pid(one, 'app')}/status"))


def test_a_socket_that_is_shown_in_a_guest_goes_after_a_restart_of_the_daemon_too(
    host: Host, guest: Instance, host_echo: None
) -> None:
    words = ("listen=unix:/srv/late.sock", "connect=tcp:127.0.0.1:7090", "bind=instance", "mode=0666")
    device(guest, "add", "late", "proxy", *words)
    host.run(["systemctl", "restart", "syscontd"])
    until(host, lambda: guest.state == "running")
    device(guest, "remove", "late")
    assert guest.exec("stat", "-c", "%F", "/srv/late.sock", check=False).stdout != "socket\n"
    assert "/srv/late.sock" not in guest.exec("cat", "/proc/self/mounts").stdout


def test_a_guest_that_floods_a_proxy_with_senders(host: Host, guest: Instance, host_echo: None) -> None:
    device(guest, "add", "out", "proxy", "listen=udp:127.0.0.1:99", "connect=udp:127.0.0.1:7090", "bind=instance")
    with serving(host, guest, "udp", "127.0.0.1:98"):
        device(guest, "add", "in", "proxy", "listen=udp:127.0.0.1:9098", "connect=udp:127.0.0.1:98")
        flood = [*within(guest), "/usr/bin/python3", "-c", PEER, "flood", "udp", "127.0.0.1:99", str(4 * FLOWS)]
        host.run(flood)
        pid = main_pid(guest, "out")
        assert int(host.sh(f"ls /proc/{pid}/fd | wc -l")) <= FLOWS + 10
        assert ask(host, guest, "udp", "127.0.0.1:99", "still")[0].endswith(" still")
        assert ask(host, None, "udp", "127.0.0.1:9098", "other")[0].endswith(" other")
        assert main_pid(guest, "out") == pid
        assert int(systemd_property(host, service(guest, "out"), "NRestarts")) == 0
    device(guest, "remove", "in")
    device(guest, "remove", "out")


def test_a_guest_that_holds_connections_and_says_nothing(host: Host, guest: Instance, host_echo: None) -> None:
    words = ("listen=tcp:127.0.0.1:97", "connect=tcp:127.0.0.1:7090", "bind=instance", "proxy_protocol=true")
    device(guest, "add", "out", "proxy", *words)
    argv = [*within(guest), "/usr/bin/python3", "-c", PEER, "hold", "tcp", "127.0.0.1:97", "700"]
    holder = host.spawn(argv, stdin=subprocess.PIPE)
    assert holder.stdin
    assert holder.stdout
    assert int(holder.stdout.readline()) == 700
    assert ask(host, guest, "tcp", "127.0.0.1:97", "hello")[-1] == "hello"
    assert int(host.sh(f"ls /proc/{main_pid(guest, 'out')}/fd | wc -l")) <= 2 * CONNECTIONS + 10
    holder.stdin.close()
    holder.wait()
    device(guest, "remove", "out")


def test_a_forwarder_is_no_way_into_the_host(host: Host, guest: Instance) -> None:
    device(guest, "add", "dns", "proxy", "listen=udp:127.0.0.1:9096", "connect=udp:127.0.0.1:96")
    host.run(["/usr/bin/python3", "-c", PEER, "flood", "udp", "127.0.0.1:9096", "1"])
    until(host, lambda: main_pid(guest, "dns"))
    score = host.run(["systemd-analyze", "security", "--no-pager", service(guest, "dns")]).stdout.splitlines()[-1]
    assert float(re.search(r"([0-9.]+) ", score.split(":")[-1] + " ").group(1)) < 3.0, score  # type: ignore[union-attr]
    pid = main_pid(guest, "dns")
    for path in ("run/syscont", "var/lib", "root/.profile"):
        assert host.run(["ls", f"/proc/{pid}/root/{path}"], check=False).returncode
    device(guest, "remove", "dns")


# translated addresses


@pytest.fixture
def outside(host: Host) -> Iterator[list[str]]:
    """What runs a program on a neighbour of the host's, 198.51.100.2; the host is 198.51.100.1 to it."""
    host.sh(
        "ip netns add outside; ip link add nat0 type veth peer name eth0 netns outside;"
        "ip address add 198.51.100.1/24 dev nat0; ip link set nat0 up;"
        "ip -n outside address add 198.51.100.2/24 dev eth0; ip -n outside link set eth0 up"
    )
    yield ["ip", "netns", "exec", "outside"]
    host.sh("ip netns delete outside; ip link delete nat0", check=False)


def tables(host: Host) -> list[str]:
    return re.findall(r"syscont_proxy_\w+", host.sh("nft list tables"))


def asked(host: Host, where: list[str], *argv: str) -> list[str]:
    return host.run([*where, "/usr/bin/python3", "-c", PEER, "ask", *argv], check=False).stdout.splitlines()


def test_addresses_are_translated(host: Host, launch: Launch, outside: list[str]) -> None:
    one = launch(
        "",
        *("-d", "eth0,type=nic,nictype=routed,ipv4.address=192.0.2.55,name=lan0"),
        *("-d", "dns,type=proxy,nat=true,listen=udp:198.51.100.1:9053,connect=udp:192.0.2.55:53"),
    )
    until(host, lambda: tables(host))
    with serving(host, one, "udp", "192.0.2.55:53"), serving(host, one, "tcp", "192.0.2.55:81"):
        assert asked(host, outside, "udp", "198.51.100.1:9053", "hello")[0].startswith("198.51.100.2:")
        assert asked(host, [], "udp", "198.51.100.1:9053", "hello")[0].endswith(" hello")
        assert asked(host, within(one), "udp", "198.51.100.1:9053", "hello")[0].endswith(" hello")
        words = ("nat=true", "listen=tcp:198.51.100.1:9080-9081", "connect=tcp:0.0.0.0:80-81")
        device(one, "add", "web", "proxy", *words)
        assert len(set(tables(host))) == 2
        host.run(["systemctl", "restart", "syscontd"])
        assert asked(host, outside, "tcp", "198.51.100.1:9081", "hello") == ["hello"]
        device(one, "set", "web", "listen=tcp:198.51.100.1:9090-9091")
        assert asked(host, outside, "tcp", "198.51.100.1:9091", "hello") == ["hello"]
        assert asked(host, outside, "tcp", "198.51.100.1:9081", "hello") == []
    for change in (["remove", "eth0"], ["set", "web", "connect=tcp:192.0.2.56:80-81"]):
        assert "no interface has the address" in device(one, *change, check=False).stderr
    device(one, "remove", "web")
    assert len(set(tables(host))) == 1
    one.do("stop --force")
    until(host, lambda: not tables(host))


def test_addresses_of_a_managed_network_are_translated(host: Host, launch: Launch, outside: list[str]) -> None:
    (network,) = json.loads(syscont(host, "network", "list", "--format", "json").stdout)
    own = str(ipaddress.ip_interface(network["ipv4"]).network[77])
    one = launch(
        "",
        *("-d", f"eth0,type=nic,network={network['name']},ipv4.address={own}"),
        *("-d", "web,type=proxy,nat=true,listen=tcp:198.51.100.1:9070,connect=tcp:0.0.0.0:70"),
    )
    assert one.address() == own
    with serving(host, one, "tcp", f"{own}:70"):
        for where in (outside, []):
            assert asked(host, where, "tcp", "198.51.100.1:9070", "hello") == ["hello"]
