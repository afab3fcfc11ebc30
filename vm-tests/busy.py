# SPDX-License-Identifier: Apache-2.0
"""A Debian machine that is busy while it is moved from host to host, and what is heard of it."""

import json
import subprocess
from dataclasses import dataclass

from far_host import BRIDGE, NEAR
from guests import Instance, program, syscont, until
from hosts import Host

PORT = 9999
_GUEST = "198.19.0.50"
OPTIONS = (
    "--vm", "-c", "boot.mode=direct", "-c", "migration.stateful=true", "-c", "limits.memory=512MiB",
    "-d", f"eth1,type=nic,nictype=bridged,parent={BRIDGE}",
)  # fmt: skip
# A heartbeat each millisecond; numbers by one connection; a file that is written anew all the time, each block of it
# with its number; and memory that is.
_BEAT = f"""
use Socket; socket(S, PF_INET, SOCK_DGRAM, 17); my $to = sockaddr_in({PORT}, inet_aton("{NEAR}"));
while (1) {{ send(S, pack("Q<", $n++), 0, $to); select(undef, undef, undef, 0.001); }}
"""
_TALK = f"""
use Socket; socket(S, PF_INET, SOCK_STREAM, 6); connect(S, sockaddr_in({PORT}, inet_aton("{NEAR}"))) or die;
while (1) {{ syswrite(S, pack("Q<", $n++)) == 8 or die; select(undef, undef, undef, 0.01); }}
"""
_WRITE = """
open(F, "+>", "/srv/blocks"); while (1) { seek(F, ($n % 200) * 65536, 0); syswrite(F, pack("Q", $n++) x 8192);
system("sync") if $n % 50 == 0; select(undef, undef, undef, 0.005); }
"""
_DIRTY = """
my $s = "x" x (64 << 20); while (1) { for (my $i = 0; $i < length $s; $i += 4096) { substr($s, $i, 1) = "y" } }
"""
_CHECK = """
open(F, "<", "/srv/blocks"); while (read(F, $b, 65536)) { my $one = substr($b, 0, 8); die if $b ne $one x 8192;
$n++; die unless unpack("Q", $one) % 200 == $n - 1; } print "$n whole\\n";
"""
# As it is in memory, and on the disk.
_LOOK = """systemctl kill --signal=STOP write; sleep 0.3; perl /root/check.pl; sync; echo 3 >/proc/sys/vm/drop_caches
perl /root/check.pl; systemctl kill --signal=CONT write"""
_PROGRAMS = {"beat": _BEAT, "talk": _TALK, "write": _WRITE, "dirty": _DIRTY, "check": _CHECK}


@dataclass(frozen=True)
class Heard:
    """Of heartbeats: how many, how many of those in between never came, and the longest and the usual time between two,
    in seconds. stream: how many numbers came by the connection; broken: why it is not what it was, or nothing."""

    heard: int
    missing: int
    longest: float
    usual: float
    stream: int
    broken: str


class Listener:
    """Hears a guest on near."""

    def __init__(self, near: Host) -> None:
        self._process = near.spawn(program("heartbeats", NEAR, str(PORT)), stdin=subprocess.PIPE)
        assert self._next() == "ready\n"

    def since(self) -> Heard:
        """What has come since this was last asked for."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Heard(**json.loads(self._next()))

    def _next(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def close(self) -> None:
        self._process.communicate(timeout=60)


def launch(near: Host, image: str, name: str, patience: float, *options: str) -> Instance:
    """Booted. It does nothing yet."""
    syscont(near, "launch", image, name, *OPTIONS, *options)
    one = Instance(near, name)
    until(near, lambda: one.state == "running", patience=patience)
    for each, text in _PROGRAMS.items():
        near.write_text(f"/root/{each}.pl", text)
        syscont(near, "file", "push", f"/root/{each}.pl", f"{name}/root/{each}.pl")
    # Of the two, the one whose address ends as that of the device that is on the bridge.
    address = one.seen()["config"]["volatile.eth1.hwaddr"]
    link = one.sh(f"grep -l {address} /sys/class/net/*/address").split("/")[4]
    one.sh(f"ip link set {link} up; ip addr add {_GUEST}/24 dev {link}")
    return one


def begin(one: Instance, *works: str) -> None:
    """Of beat, talk, write and dirty."""
    for each in works:
        one.sh(f"systemd-run --quiet --unit {each} perl /root/{each}.pl")


def end(one: Instance, *works: str) -> None:
    one.sh(f"systemctl stop {' '.join(works)}")


def check(one: Instance, *works: str) -> None:
    """It does them still, and all that it has written is there."""
    assert one.sh(f"systemctl is-active {' '.join(works)}") == "active\n" * len(works)
    if "write" in works:
        assert one.sh(_LOOK).count("200 whole") == 2
