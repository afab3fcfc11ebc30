# SPDX-License-Identifier: Apache-2.0
"""launch_vm.py: run launch-vm by what stdin says, as JSON: {"spec": ..., "lock": whether its files are
locked, "ask": [QMP commands], "also": a command line for while it runs, "hear": a word that its
console is to say, "save": where its memory goes at the end}.

It has a /run/syscont of its own, in a mount namespace of its own, so what it tells is told to us. Prints as JSON what
was told, and where a machine runs, how it is held; then ends it.
"""

import contextlib
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RUN = Path("/run/syscont")
LAUNCHER = "/usr/libexec/syscont/launch-vm"
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
HANDOVER, NOTIFY = RUN / "handover", RUN / "notify"


def mailbox(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.setblocking(False)
    return sock


def letters(sock: socket.socket) -> list[tuple[str, list[int]]]:
    found: list[tuple[str, list[int]]] = []
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(sock, 1 << 16, 8)
        except BlockingIOError:
            return found
        found.append((data.decode(), fds))


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def tree(root: Path) -> dict[str, str]:
    """What is in it, but for what is in /usr and of /proc; each with its mode and owner."""
    found = {}
    for folder, names, files in os.walk(root):
        for name in names + files:
            at = (Path(folder) / name).lstat()
            path = str((Path(folder) / name).relative_to(root))
            found[path] = f"{stat.filemode(at.st_mode)} {at.st_uid}"
        names[:] = [name for name in names if Path(folder) != root or name not in ("usr", "proc")]
    return found


class Monitor:
    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(60)
        self._sock.connect(path)
        self._lines = self._sock.makefile("r")
        self.run("qmp_capabilities")

    def run(self, command: str, *fds: int, **arguments: str) -> Any:
        """What it answers."""
        words = json.dumps({"execute": command, "arguments": arguments}).encode()
        socket.send_fds(self._sock, [words], fds)
        while "return" not in (answer := json.loads(self._lines.readline())):
            assert "error" not in answer, answer
        return answer["return"]

    def save(self, path: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.run("stop")
        self.run("getfd", fd, fdname="save")
        self.run("migrate", uri="fd:save")
        while (status := self.run("query-migrate").get("status")) != "completed":
            assert status != "failed"
            time.sleep(0.05)


def processes_in_view(pid: int, owner: int) -> list[str]:
    """What its /proc shows to its user."""
    script = "ls /proc | grep '^[0-9]'"
    argv = ["nsenter", f"--target={pid}", "--mount", "setpriv", f"--reuid={owner}", f"--regid={owner}",
            "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "sh", "-c", script]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    names = [Path(f"/proc/{one}/comm") for one in done.stdout.split()]
    return [name.read_text().strip() for name in names if name.exists()]


def locked(folder: str) -> bool:
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def how_held(pid: int, spec: dict[str, Any]) -> dict[str, Any]:
    root, fds = Path(f"/proc/{pid}/root"), Path(f"/proc/{pid}/fd")
    own = {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES}
    return {
        "status": status(pid),
        "affinity": {task.name: sorted(os.sched_getaffinity(int(task.name)))
                     for task in Path(f"/proc/{pid}/task").iterdir()},
        "tree": tree(root),
        "mounts": Path(f"/proc/{pid}/mountinfo").read_text().splitlines(),
        "private": [name for name in NAMESPACES if os.readlink(f"/proc/{pid}/ns/{name}") != own[name]],
        "environment": Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")[:-1],
        "arguments": Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1],
        "descriptors": {fd.name: os.readlink(fd) for fd in fds.iterdir()},
        "in_view": processes_in_view(pid, spec["owner"]),
        "locked": locked(spec["state_dir"]),
        "links": [name for _, name in socket.if_nameindex()],
    }  # fmt: skip


def heard(fd: int, until: str) -> str:
    """What comes out of it, until there is such a word; or within a second, when it is to say nothing known."""
    found = ""
    deadline = time.monotonic() + (30 if until else 1)
    with socket.socket(fileno=fd) as sock:
        sock.settimeout(0.2)
        while time.monotonic() < deadline and not (until and until in found):
            with contextlib.suppress(TimeoutError):
                found += sock.recv(4096).decode(errors="replace")
    return found


def questions(given: dict[str, Any]) -> list[Any]:
    if not given["ask"] and not given["save"]:
        return []
    monitor = Monitor(given["spec"]["qmp"])
    answers = [monitor.run(command) for command in given["ask"]]
    if given["save"]:
        monitor.save(given["save"])
    return answers


def starter_ended(launched: int) -> None:
    """It is a child of ours, as it is the service manager's on a host."""
    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    assert ended
    assert ended.si_pid != launched, "QEMU ended first"
    found = os.waitpid(ended.si_pid, 0)[1]
    assert found == 0, found


def run(given: dict[str, Any]) -> dict[str, Any]:
    spec = given["spec"]
    handover, notes = mailbox(HANDOVER), mailbox(NOTIFY)
    (RUN / "spec").write_text(json.dumps(spec))
    with subprocess.Popen([LAUNCHER, RUN / "spec"], env={"NOTIFY_SOCKET": str(NOTIFY)}, stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as launched:  # fmt: skip
        found: dict[str, Any] = {"pid": launched.pid}
        told: list[tuple[str, list[int]]] = []
        deadline = time.monotonic() + 50
        try:
            # All is told before the end.
            while not told and launched.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
                told = letters(handover)
            told = told or letters(handover)
            message = json.loads(told[0][0]) if told else {}
            if "leader" in message:
                starter_ended(launched.pid)
                found |= how_held(launched.pid, spec)
                found["also"] = subprocess.run(given["also"], capture_output=True, text=True, check=True).stdout
                found["said"] = [heard(fd, given["hear"]) for fd in told[0][1]]
                found["answers"] = questions(given)
            else:
                launched.wait(10)
        finally:
            code = launched.poll()
            launched.kill()
        assert launched.stderr
        notified = [text for text, _ in letters(notes)]
        return found | {"told": message, "notified": notified, "code": code, "stderr": launched.stderr.read()}


def main() -> None:
    given = json.load(sys.stdin)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", RUN], check=True)
    for folder in ("launch/root", "vm", "state"):
        (RUN / folder).mkdir(parents=True)
    (RUN / "state/disk").write_bytes(bytes(1 << 20))
    if given["lock"]:
        fcntl.flock(os.open(RUN / "state", os.O_RDONLY), fcntl.LOCK_EX)
    print(json.dumps(run(given)))


main()
