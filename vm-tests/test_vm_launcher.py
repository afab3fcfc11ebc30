# SPDX-License-Identifier: Apache-2.0
"""The launcher of virtual machines by itself: how QEMU is held, what it has, and what is told when it can't start."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guests import program
from hosts import Host, Recipe

OWNER = 0x40000000
QMP, FAKE_QMP_FD = "/run/syscont/vm/m.qmp", 10
QEMU = """-nodefaults -no-user-config -display none -machine q35,graphics=off -accel tcg -smp 2 -m 64 -S
  -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
  -chardev socket,id=qmp,fd=10,server=on,wait=off -mon chardev=qmp,mode=control
  -chardev socket,id=console,fd=11 -serial chardev:console
  -add-fd fd=12,set=1 -blockdev driver=raw,node-name=disk,file.driver=file,file.filename=/dev/fdset/1
  -device virtio-blk-pci,drive=disk -netdev tap,id=net,fd=13 -device virtio-net-pci,netdev=net""".split()

GREETING, RETURN = '{"QMP": {}}\n', '{"return": {}}\n'
EVENT = '{"event": "STOP", "data": {"return": 1}}\n'
# Answers one command after the other, the first before there is one; then waits for ever.
FAKE = """
import os, signal, socket, sys
server = socket.socket(fileno=10)
peer = server.accept()[0]
for answer in eval(sys.argv[1]):
    if not answer:
        peer.close()
        server.close()
        break
    peer.sendall(answer.replace("PID", str(os.getpid())).encode())
    peer.recv(4096)
signal.pause()
"""


@pytest.fixture(scope="module")
def machines(host_kind: type[Host], deb: Path) -> Iterator[Host]:
    """A host with QEMU."""
    with host_kind(recipe=Recipe(variant="vms")) as one:
        one.install_deb(deb)
        yield one


def spec(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "uuid": "b6e9a2f4-1111-4222-8333-444455556666", "name": "m1", "state_dir": "/run/syscont/state", "owner": OWNER,
        "waits_for_guest": False, "core_scheduling": False, "pins": [], "program": "/usr/bin/qemu-system-x86_64",
        "arguments": QEMU, "qmp": QMP, "incoming": "", "prepare": [], "nodes": [], "host_links": [],
        "arrives": False,
        "descriptors": [
            {"fd": 10, "kind": "listen", "path": QMP},
            {"fd": 11, "kind": "stream", "hand": "console"},
            {"fd": 12, "kind": "file", "path": "/run/syscont/state/disk", "write": True},
            {"fd": 13, "kind": "tap", "name": "tap-m1"},
        ],
    }  # fmt: skip
    return plain | changes


def launch(host: Host, spec: dict[str, Any], *ask: str, **more: Any) -> dict[str, Any]:
    """more: see on_host/launch_vm.py."""
    given = {"spec": spec, "ask": ask, "lock": False, "also": ["true"], "hear": "", "save": ""} | more
    done = host.run(["unshare", "--mount", *program("launch_vm")], input=json.dumps(given))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fake(*answers: str, written: str = "", **changes: Any) -> dict[str, Any]:
    """Of something that is no QEMU; written is Python for what it answers."""
    arguments = ["-c", FAKE, written or repr(answers)]
    listener = [{"fd": FAKE_QMP_FD, "kind": "listen", "path": QMP}]
    return spec(program="/usr/bin/python3", arguments=arguments, descriptors=listener, **changes)


def refused(host: Host, spec: dict[str, Any], *, lock: bool = False) -> str:
    """Why a machine could not be started, which all are told alike."""
    found = launch(host, spec, lock=lock)
    why = str(found["told"]["error"])
    assert found["told"] == {"uuid": spec["uuid"], "error": why}
    assert found["notified"] == [f"STATUS={why}"]
    assert f"cannot start the instance: {why}\n" in found["stderr"]
    assert found["code"] not in (None, 0)
    return why


# how it is held


@pytest.fixture(scope="module")
def held(machines: Host) -> dict[str, Any]:
    machines.run(["modprobe", "--quiet", "tun"], check=False)
    return launch(machines, spec(pins=[[1], []], nodes=["/dev/kvm"]), "query-status", "query-cpus-fast", hear="SeaBIOS")


def test_it_runs_and_all_are_told(held: dict[str, Any]) -> None:
    assert held["told"] == {"uuid": spec()["uuid"], "leader": held["pid"], "fds": ["console"]}
    assert held["notified"] == ["STATUS=\nREADY=1"]
    assert held["code"] is None
    assert held["answers"][0]["status"] == "running"
    assert "SeaBIOS" in held["said"][0]
    assert held["arguments"] == ["/usr/bin/qemu-system-x86_64", *QEMU]


def test_it_has_no_rights(held: dict[str, Any]) -> None:
    status = held["status"]
    assert status["Uid"].split() == status["Gid"].split() == [str(OWNER)] * 4
    assert status["Groups"] == ""
    for which in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[which], 16) == 0, which
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert held["environment"] == ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"]


def test_it_is_nowhere(held: dict[str, Any]) -> None:
    assert held["private"] == ["ipc", "mnt", "net", "uts"]
    tree = held["tree"]
    assert set(tree) - {"lib64"} == {
        "usr", "bin", "lib", "sbin", "etc", "etc/ld.so.cache", "proc", "tmp", "dev", "dev/null", "dev/zero", "dev/full",
        "dev/random", "dev/urandom", "dev/fd", "dev/vfio", "dev/kvm",
    }  # fmt: skip
    assert tree["tmp"] == "drwxrwxrwt 0"
    assert tree["dev/kvm"] == f"crw------- {OWNER}"
    assert tree["dev/null"] == "crw-rw-rw- 0"
    assert held["in_view"]
    assert not set(held["in_view"]) - {"qemu-system-x86", "sh", "ls", "grep"}


def test_its_mounts_are_read_only_but_for_tmp(held: dict[str, Any]) -> None:
    mounts = {line.split()[4]: set(line.split()[5].split(",")) for line in held["mounts"]}
    assert set(mounts) == {"/", "/usr", "/etc/ld.so.cache", "/dev", "/proc", "/tmp"}
    for place, options in mounts.items():
        assert "nosuid" in options, place
        assert "nodev" in options or place == "/dev"
        assert "ro" in options or place in ("/tmp", "/proc")


def test_it_has_what_it_is_to_have_and_no_more(held: dict[str, Any]) -> None:
    open_ = {re.sub(r"\[\d+\]", "", target) for target in held["descriptors"].values()}
    assert open_ >= {"socket:", "/run/syscont/state/disk", "/dev/net/tun"}
    own = {"/dev/null", "pipe:", "anon_inode:", "/memfd:tcg-jit (deleted)"}
    own |= {f"anon_inode:{name}" for name in ("[eventfd]", "[eventpoll]", "[signalfd]", "[io_uring]")}
    assert not open_ - {"socket:", "/run/syscont/state/disk", "/dev/net/tun"} - own
    assert "tap-m1" in held["links"]


def test_processors_are_pinned_by_their_number(held: dict[str, Any]) -> None:
    threads = {cpu["cpu-index"]: str(cpu["thread-id"]) for cpu in held["answers"][1]}
    assert held["affinity"][threads[0]] == [1]
    assert held["affinity"][threads[1]] == held["affinity"][str(held["pid"])] != [1]


def test_a_guest_that_says_itself_when_it_is_ready(machines: Host) -> None:
    assert launch(machines, spec(waits_for_guest=True))["notified"] == ["STATUS="]


def test_links_are_set_up_after_the_taps_are_there(machines: Host) -> None:
    """IFF_UP by RTM_NEWLINK, with the index that the tap has."""
    request = "@tap-m1:20:" + "20000000" + "1000" + "0500" + "0" * 16 + "00" * 4 + "00000000" + "01000000" + "01000000"
    assert "leader" in launch(machines, spec(host_links=[request]))["told"]
    assert "network set-up: " in refused(machines, spec(host_links=[request.replace("tap-m1", "tap-m2")]))


def test_commands_come_before_the_machine_runs(machines: Host) -> None:
    prepare = [{"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 12345}}]
    found = launch(machines, spec(prepare=prepare), "query-migrate-parameters")
    assert found["answers"][0]["max-bandwidth"] == 12345


def incoming(path: str) -> dict[str, Any]:
    """What was saved there."""
    descriptors = [*spec()["descriptors"], {"fd": 14, "kind": "file", "path": path, "write": False}]
    return spec(incoming="fd:14", arguments=[*QEMU, "-incoming", "defer"], descriptors=descriptors)


def test_a_machine_goes_on_where_it_was_saved(machines: Host) -> None:
    first = launch(machines, spec(), hear="SeaBIOS", save="/var/tmp/saved")
    assert "SeaBIOS" in first["said"][0]
    again = launch(machines, incoming("/var/tmp/saved"), "query-status")
    assert again["answers"][0]["status"] == "running"
    assert "SeaBIOS" not in again["said"][0]
    machines.run(["truncate", "--size=100000", "/var/tmp/saved"])
    assert refused(machines, incoming("/var/tmp/saved")).startswith("QEMU ended before the machine ran")
    machines.run(["rm", "/var/tmp/saved"])


@pytest.mark.needs_smt
def test_only_its_processors_have_a_cookie_and_all_the_same(machines: Host) -> None:
    found = launch(machines, spec(core_scheduling=True), "query-cpus-fast", also=program("core_cookies"))
    processors = {str(cpu["thread-id"]) for cpu in found["answers"][0]}
    cookies = json.loads(found["also"])
    assert len(processors) == 2
    (cookie,) = {cookies[thread] for thread in processors}
    assert cookie
    assert {thread for thread, has in cookies.items() if has == cookie} == processors


# PCI functions of IOMMU groups; nodes of anything stand for theirs

FUNCTIONS = {"0000:01:00.0": "7", "0000:01:00.1": "7"}
SHOWN = {
    "vfio": OWNER, "7": OWNER, "0000:01:00.0": 0, "0000:01:00.0/iommu_group": "7", "0000:01:00.1": 0,
    "0000:01:00.1/iommu_group": "7",
}  # fmt: skip


@pytest.fixture
def groups(machines: Host) -> Iterator[None]:
    machines.sh("mkdir /dev/vfio; mknod /dev/vfio/vfio c 1 3; mknod /dev/vfio/7 c 1 5; mknod /dev/vfio/8 c 1 7")
    yield
    machines.sh("rm -r /dev/vfio")


@pytest.mark.usefixtures("groups")
def test_it_sees_the_groups_of_its_functions(machines: Host) -> None:
    other, both = {"0000:02:00.0": "8"}, {**FUNCTIONS, "0000:02:00.0": "8"}
    tasks = [{"owner": OWNER, "functions": each} for each in (FUNCTIONS, both, other, {}, {"0000:03:00.0": "9"})]
    found = launch(machines, spec(functions=FUNCTIONS), also=program("hand", str(OWNER), json.dumps(tasks)))
    assert found["tree"]["dev/vfio/7"] == f"crw------- {OWNER}"
    same, more, less, none, absent = json.loads(found["also"])
    assert same == ["", SHOWN]
    others = {"8": OWNER, "0000:02:00.0": 0, "0000:02:00.0/iommu_group": "8"}
    assert more == ["", SHOWN | others]
    assert less == ["", {"vfio": OWNER, **others}]
    assert none == ["", {}]
    assert absent == ["/dev/vfio/9: No such file or directory", {}]
    (mount,) = [line.split() for line in found["mounts"] if line.split()[4] == "/dev/vfio"]
    assert {"nosuid", "noexec"} <= set(mount[5].split(","))


@pytest.mark.usefixtures("groups")
def test_one_that_had_none_gets_functions(machines: Host) -> None:
    tasks = [{"owner": OWNER, "functions": FUNCTIONS}]
    found = launch(machines, spec(), also=program("hand", str(OWNER), json.dumps(tasks)))
    assert json.loads(found["also"]) == [["", SHOWN]]


@pytest.mark.usefixtures("groups")
def test_what_is_no_node_is_no_group(machines: Host) -> None:
    assert "/dev/vfio/9: No such file or directory" in refused(machines, spec(functions={"0000:01:00.0": "9"}))


# interfaces on links of the host's


FRAME = "ffffffffffff" + "020000000001" + "88b5" + "73797363" * 12
"""For all, of a type for experiments (IEEE 802)."""
SPEAK = """
import os, threading, time
def speak():
    for _ in range(100):
        os.write(13, bytes(10) + bytes.fromhex("{frame}"))
        time.sleep(0.2)
def hear():  # the host says things of its own there, too
    while True:
        os.write(14, os.read(13, 2048).hex().encode() + b" ")
for work in (speak, hear):
    threading.Thread(target=work, daemon=True).start()
"""
LISTEN = """
import socket, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
sock.bind(("end0", 0))
sock.settimeout(20)
print(sock.recv(2048).hex())
sock.send(bytes.fromhex(sys.argv[1]))
"""
MAKE = """
from sysd.network.nics import Nic, passing_name, requests
import socket
nic = Nic("macvlan", "eth0", mac="02:00:00:00:00:01", parent=socket.if_nametoindex("wire0"), tap=True)
print(passing_name(nic), requests(nic, 100, 101).macvtap)
"""


def test_a_macvtap_carries_frames_both_ways(machines: Host) -> None:
    """What is no QEMU sends one again and again, and says on its console what it is sent."""
    machines.sh("ip link add wire0 type veth peer name end0; ip link set wire0 up; ip link set end0 up")
    try:
        name, request = machines.run(["/usr/bin/python3", "-c", MAKE]).stdout.split()
        one = fake(GREETING, RETURN, PROCESSORS, RETURN)
        one["arguments"][1] = SPEAK.format(frame=FRAME) + FAKE
        one["descriptors"] += [
            {"fd": 13, "kind": "macvtap", "name": name, "data": request},
            {"fd": 14, "kind": "stream", "hand": "console"},
        ]
        answer = "020000000001" + FRAME[12:]
        also = ["/usr/bin/python3", "-c", LISTEN, answer]
        found = launch(machines, one, also=also, hear=answer)
        assert found["also"].strip() == FRAME
        assert answer in found["said"][0]
        assert name not in machines.sh("ip link")
    finally:
        machines.sh("ip link del wire0")


# memory that was kept

KEPT_IN = "/var/tmp/kept"
RESUME = {
    "fd": 199,
    "arguments": ["-incoming", "defer", "-add-fd", "fd=199,set=199"],
    "prepare": [],
    "incoming": "file:/dev/fdset/199",
}


@pytest.fixture
def kept(machines: Host) -> Iterator[str]:
    """A file with what is no machine's memory."""
    machines.sh(f"mkdir -p {KEPT_IN}/upper && echo nonsense >{KEPT_IN}/upper/state")
    yield f"{KEPT_IN}/upper/state"
    machines.sh(f"rm -r {KEPT_IN}")


def test_memory_that_nobody_prepared_for_stays(machines: Host, kept: str) -> None:
    why = refused(machines, spec(state_dir=KEPT_IN))
    assert why.startswith("its memory was kept, and it was not prepared to go on from there")
    assert machines.read_text(kept) == "nonsense\n"


def test_memory_that_can_not_be_taken_up_stays(machines: Host, kept: str) -> None:
    assert "'syscont start --stateless' starts without it" in refused(machines, spec(state_dir=KEPT_IN, resume=RESUME))
    assert machines.read_text(kept) == "nonsense\n"


def test_without_memory_it_starts_as_usual(machines: Host) -> None:
    assert "leader" in launch(machines, spec(resume=RESUME))["told"]


# what goes wrong

NONE = "/run/syscont/none"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"owner": 0}, "the owner is to be a user without rights"),
        ({"owner": -1}, "the owner is to be a user without rights"),
        ({"owner": 0xFFFFFFFF}, "the owner is to be a user without rights"),
        ({"program": "/usr/bin/none"}, "/usr/bin/none: No such file or directory"),
        ({"nodes": ["/dev/none"]}, "/dev/none: No such file or directory"),
        ({"nodes": ["/etc/passwd"]}, "/etc/passwd: not in /dev"),
        ({"nodes": ["/dev/shm"]}, "/dev/shm: not a character device"),
        ({"arguments": [*QEMU, "-nonsense"]}, "QEMU ended before the machine ran"),
        ({"prepare": [{"execute": "none"}]}, "QEMU: none: The command none has not been found"),
        ({"pins": [[], [4000]]}, "vCPU 1 can't be pinned to processors [4000]: not all of them are there"),
        ({"pins": [[0, 4000]]}, "vCPU 0 can't be pinned to processors [0,4000]: not all of them are there"),
        ({"pins": [[8192]]}, "vCPU 0 can't be pinned to what is no processor"),
        ({"pins": [["0"]]}, "vCPU 0 can't be pinned to what is no processor"),
    ],
)
def test_what_is_wrong_is_told(machines: Host, changes: dict[str, Any], why: str) -> None:
    assert refused(machines, spec(**changes)).startswith(why)
    assert "lo" in machines.sh("ip -o link")
    assert "tap-m1" not in machines.sh("ip -o link")


@pytest.mark.parametrize(
    ("descriptor", "why"),
    [
        ({"kind": "file", "path": NONE, "write": False}, f"{NONE}: No such file or directory"),
        ({"kind": "file", "path": "/run/syscont", "write": False}, "/run/syscont: neither a file nor a device"),
        ({"kind": "file", "path": "/bin", "write": False}, "/bin: Too many levels of symbolic links"),
        ({"kind": "tap", "name": "lo"}, "link lo: there is one of that name already"),
        ({"kind": "tap", "name": "x" * 16}, "not a name that a link can have"),
        ({"kind": "tap", "name": ""}, "not a name that a link can have"),
        ({"kind": "connect", "path": NONE}, f"{NONE}: No such file or directory"),
        ({"kind": "listen", "path": "/run/" + "x" * 104}, "too long for the path of a socket"),
        ({"kind": "other"}, "'other' is no kind of descriptor"),
        ({"kind": "stream"}, "hand is missing"),
        ({"kind": "vfio", "name": "0000:00:00.0"}, "PCI function 0000:00:00.0 is not bound to vfio-pci"),
        ({"kind": "macvtap", "name": "m0", "data": ""}, "network set-up: "),
    ],
)
def test_what_can_t_be_opened_is_named(machines: Host, descriptor: dict[str, Any], why: str) -> None:
    descriptors = [*spec()["descriptors"], descriptor | {"fd": 20}]
    assert why in refused(machines, spec(descriptors=descriptors))


@pytest.mark.parametrize("fd", [0, 9, 12, 201, -1])
def test_numbers_of_descriptors(machines: Host, fd: int) -> None:
    descriptors = [*spec()["descriptors"], {"kind": "stream", "hand": "console", "fd": fd}]
    assert f"descriptor {fd}: not from 10 to 200, or taken" in refused(machines, spec(descriptors=descriptors))


def test_its_files_are_not_worked_on_meanwhile(machines: Host, held: dict[str, Any]) -> None:
    assert not held["locked"]
    why = refused(machines, spec(), lock=True)
    assert why == "its files are being worked on: 'syscont operation list' shows by what"


# what is no QEMU

STRANGER = "QEMU names a thread that it does not have"
PROCESSORS = '{"return": [{"cpu-index": 0, "thread-id": PID}]}\n'


def test_events_are_no_answers(machines: Host) -> None:
    talk = (GREETING, EVENT * 1000 + RETURN, EVENT + PROCESSORS, EVENT + RETURN)
    assert "leader" in launch(machines, fake(*talk))["told"]


def test_incoming_takes_its_time(machines: Host) -> None:
    waiting, there = '{"return": {"status": "inmigrate"}}\n', '{"return": {"status": "paused"}}\n'
    talk = (GREETING, RETURN, RETURN, *[waiting] * 5, there, PROCESSORS, RETURN)
    assert "leader" in launch(machines, fake(*talk, incoming="fd:1"))["told"]
    talk = (GREETING, RETURN, RETURN, waiting, RETURN)
    assert refused(machines, fake(*talk, incoming="fd:1")) == "QEMU's answer has no status"


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (["nonsense\n"], "QEMU's answer is none: nonsense"),
        (["\n"], "QEMU's answer is none: "),
        (["[]\n"], "QEMU's answer is none: []"),
        (["{} {}\n"], "QEMU's answer is none: {} {}"),
        (['{"QMP": {}\n'], 'QEMU\'s answer is none: {"QMP": {}'),
        (["{}\n"], "QEMU's answer has no QMP"),
        ([""], "QEMU ended before the machine ran"),
        ([GREETING, ""], "QEMU ended before the machine ran"),
        ([GREETING, "{}\n"], "QEMU's answer to qmp_capabilities is none"),
        ([GREETING, '{"error": {}}\n'], "QEMU's answer has no desc"),
        ([GREETING, '{"error": []}\n'], "QEMU's answer has no desc"),
        ([GREETING, '{"error": {"desc": "not now"}}\n'], "QEMU: qmp_capabilities: not now"),
        ([GREETING, '{"error": {"desc": "no\\nREADY=1\\u001b"}}\n'], "QEMU: qmp_capabilities: no READY=1 "),
        ([GREETING, RETURN, RETURN], "QEMU names no processors"),
        ([GREETING, RETURN, '{"return": [5]}\n'], "QEMU's answer has no thread-id"),
        ([GREETING, RETURN, '{"return": [{"thread-id": "1"}]}\n'], "QEMU's answer has no thread-id"),
        ([GREETING, RETURN, '{"return": [{"thread-id": PID}]}\n'], "QEMU's answer has no cpu-index"),
        ([GREETING, RETURN, '{"return": [{"cpu-index": 0, "thread-id": 1}]}\n'], STRANGER),
        ([GREETING, RETURN, PROCESSORS.replace("PID", "-1")], STRANGER),
        ([GREETING, RETURN, PROCESSORS, '{"error": {"desc": "no disk"}}\n'], "QEMU: cont: no disk"),
    ],
)
def test_nonsense_ends_it(machines: Host, answers: list[str], why: str) -> None:
    assert why in refused(machines, fake(*answers))
    assert machines.sh("pgrep -u $((0x40000000)) || :") == ""


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("['x' * 2000000]", "QEMU says too much at once"),
        ("[' ' * 1048576 + chr(10)]", "QEMU says too much at once"),
        ("""['{"QMP":' * 500 + chr(10)]""", "QEMU's answer is none"),
        ("[chr(0) + chr(10)]", "QEMU's answer is none"),
        ("exit(3)", "QEMU ended before the machine ran"),
    ],
)
def test_too_much_ends_it(machines: Host, written: str, why: str) -> None:
    assert why in refused(machines, fake(written=written))


@pytest.mark.heavy
def test_silence_ends_it(machines: Host) -> None:
    assert refused(machines, fake(written="[]")) == "QEMU does not answer"
