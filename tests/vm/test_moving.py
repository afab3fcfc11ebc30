# SPDX-License-Identifier: Apache-2.0
"""A machine from one QEMU to another, both real: memory, a disk that is written meanwhile, keys, and ways back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sysd.model.errors import FailedError
from sysd.runtime.vm import joining, moving
from sysd.runtime.vm.moving import Arriving, Fits, Leaving, Limits, Streams
from sysd.runtime.vm.qmp import Broken, Qmp
from tests.vm.peers import program

MIB = 1 << 20
SIZE = 64 * MIB


class Monitor:
    """QEMU's, with what is expected of it."""

    def __init__(self) -> None:
        self._expected: list[tuple[Fits, asyncio.Future[Mapping[str, Any]]]] = []
        self.heard: list[str] = []
        self.qmp: Qmp

    async def connect(self, path: Path) -> Monitor:
        for left in reversed(range(100)):
            try:
                self.qmp = await Qmp.connect(path, self._happened, lambda: None)
                break
            except Broken:  # it has made the socket, and does not listen yet
                if not left:
                    raise
                await asyncio.sleep(0.05)
        return self

    def _happened(self, name: str, data: Mapping[str, Any]) -> None:
        self.heard.append(name)
        for fits, coming in self._expected:
            if not coming.done() and fits(name, data):
                coming.set_result(data)

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> Any:
        return await self.qmp.execute(command, arguments, **options)

    @contextlib.contextmanager
    def expecting(self, fits: Fits) -> Iterator[asyncio.Future[Mapping[str, Any]]]:
        entry = (fits, asyncio.get_running_loop().create_future())
        self._expected.append(entry)
        try:
            yield entry[1]
        finally:
            self._expected.remove(entry)

    async def status(self) -> str:
        return str((await self.execute("query-status"))["status"])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.write_bytes(os.urandom(MIB))
    os.truncate(path, SIZE)
    return path


def overlay(path: Path, base: Path) -> Path:
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(path), str(SIZE)]
    subprocess.run(argv, check=True)
    return path


def write(path: Path, at: int, size: int, pattern: int) -> None:
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} {at} {size}", path], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


@contextlib.contextmanager
def machine(folder: Path, name: str, disk: Path, base: Path, *more: str) -> Iterator[Path]:
    """One whose guest does no more than look for something to boot."""
    path = folder / f"{name}.qmp"
    argv = [
        "qemu-system-x86_64", "-machine", "q35,sata=off", "-accel", "tcg", "-m", "64", "-nodefaults", "-S",
        "-display", "none", "-qmp", f"unix:{path},server=on,wait=off",
        "-blockdev", f"driver=file,node-name=base-file,read-only=on,filename={base}",
        "-blockdev", "driver=raw,node-name=base,read-only=on,file=base-file",
        "-blockdev", f"driver=file,node-name=root-file,filename={disk}",
        "-blockdev", "driver=qcow2,node-name=root,file=root-file,backing=base",
        "-device", "virtio-blk-pci,drive=root", *more,
    ]  # fmt: skip
    with program(argv, path):
        yield path


def folder_of(key: bytes, place: Path) -> int:
    place.mkdir()
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    moving.write_key(fd, key)
    return fd


@pytest.fixture(autouse=True)
def join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "JOIN", Path(__file__).parents[2] / "build/join")


class Both:
    """A machine that runs, one that waits, and what connects them."""

    def __init__(self, source: Monitor, target: Monitor, folder: Path) -> None:
        self.source, self.target = source, target
        self.stages: list[str] = []
        self.leaving = Leaving(source, lambda stage, _: self.stages.append(stage))
        self.arriving = Arriving(target)
        self.folder = folder

    async def get_ready(self, theirs: bytes | None = None) -> None:
        key = os.urandom(32)
        ours, other = folder_of(key, self.folder / "ours"), folder_of(theirs or key, self.folder / "theirs")
        listening = socket.create_server(("127.0.0.1", 0))
        self.address = listening.getsockname()
        self.folders = ours, other
        await self.arriving.get_ready(other, listening.fileno())
        await self.leaving.get_ready(ours)
        listening.close()

    async def copy_disk(self) -> None:
        with socket.create_connection(self.address) as connection:
            await self.leaving.copy_disk(connection.fileno())

    async def spread(self, streams: Streams) -> None:
        """By connections that are joined with others of the network's."""
        near, far = (joining.Place(fd, os.geteuid()) for fd in self.folders)
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        loop = asyncio.get_running_loop()

        async def dial() -> socket.socket:
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, listening.getsockname())
            return sock

        async def admit(join: joining.Join) -> None:
            for _ in range(streams.connections):
                await join((await loop.sock_accept(listening))[0], joining.reach(far, joining.MEMORY))

        with listening:
            await self.arriving.listen(streams)
            async with joining.joining() as join, joining.outward(near, dial, streams.connections):
                admitting = asyncio.ensure_future(admit(join))
                await self.leaving.spread(streams, Limits(downtime=300))
                await admitting
                await self.switch()

    async def send(self) -> None:
        near, far = socket.socketpair()
        with near, far:
            await self.arriving.receive(far.fileno())
            await self.leaving.send(near.fileno(), Limits(downtime=300))

    async def switch(self) -> None:
        arrived = asyncio.ensure_future(self.arriving.arrived())
        await self.leaving.switch()
        await arrived


def run(tmp_path: Path, base: Path, work: Callable[[Both], Awaitable[None]]) -> None:
    source, target = overlay(tmp_path / "source", base), overlay(tmp_path / "target", base)
    write(source, 8 * MIB, 3 * MIB, 0x5A)

    async def both(left: Path, right: Path) -> None:
        one, other = await Monitor().connect(left), await Monitor().connect(right)
        await one.execute("cont")
        try:
            await work(Both(one, other, tmp_path))
        finally:
            one.qmp.close()
            other.qmp.close()

    waiting = machine(tmp_path, "right", target, base, "-incoming", "defer")
    with machine(tmp_path, "left", source, base) as left, waiting as right:
        asyncio.run(both(left, right))


def same_disks(tmp_path: Path) -> bool:
    both = [str(tmp_path / name) for name in ("source", "target")]
    argv = ["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", *both]
    return subprocess.run(argv, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_it_moves_with_its_disk(tmp_path: Path, base: Path) -> None:
    async def work(both: Both) -> None:
        await both.get_ready()
        await both.copy_disk()
        assert await both.source.status() == "running"
        await both.send()
        assert await both.source.status() != "running"
        assert both.leaving.still_since
        await both.switch()
        assert (await both.source.status(), await both.target.status()) == ("postmigrate", "paused")
        await both.arriving.run()
        await both.arriving.tidy()
        assert await both.target.status() == "running"

    run(tmp_path, base, work)
    assert same_disks(tmp_path)
    layer = subprocess.run(["qemu-img", "map", "--output=json", tmp_path / "target"], capture_output=True, check=True)
    assert layer.stdout.count(b'"depth": 0') < 20, "only what is above the image was sent"


@pytest.mark.parametrize("streams", [Streams(2), Streams(1, "zstd"), Streams(4, "zstd")])
def test_its_memory_goes_by_several_ways(tmp_path: Path, base: Path, streams: Streams) -> None:
    async def work(both: Both) -> None:
        await both.get_ready()
        await both.copy_disk()
        await both.spread(streams)
        assert (await both.source.status(), await both.target.status()) == ("postmigrate", "paused")
        await both.arriving.run()
        await both.arriving.tidy()
        assert await both.target.status() == "running"

    run(tmp_path, base, work)
    assert same_disks(tmp_path)


@pytest.mark.parametrize("stage", ["ready", "copied", "still", "sent"])
def test_it_stays(tmp_path: Path, base: Path, stage: str) -> None:
    """Whenever it is given up before it runs elsewhere, it goes on here, and can be moved then."""
    async def work(both: Both) -> None:
        await both.get_ready()
        if stage != "ready":
            await both.copy_disk()
        if stage in ("still", "sent"):
            await both.send()
        if stage == "sent":
            await both.switch()
        await both.leaving.stay(runs=True)
        assert await both.source.status() == "running"
        nodes = {node["node-name"] for node in await both.source.execute("query-named-block-nodes")}
        assert not any(name.startswith("moving") for name in nodes)
        assert "moving" not in {each["name"] for each in await both.source.execute("qom-list", {"path": "/objects"})}

    run(tmp_path, base, work)


def test_another_key(tmp_path: Path, base: Path) -> None:
    async def work(both: Both) -> None:
        await both.get_ready(theirs=os.urandom(32))
        with pytest.raises(FailedError):
            await both.copy_disk()
        await both.leaving.stay(runs=True)
        assert await both.source.status() == "running"
        assert await both.target.status() == "inmigrate"

    run(tmp_path, base, work)


@pytest.mark.parametrize("when", ["disk", "memory"])
def test_the_other_dies(tmp_path: Path, base: Path, when: str) -> None:
    async def work(both: Both) -> None:
        await both.get_ready()
        await both.copy_disk()
        if when == "memory":
            await both.send()
        with contextlib.suppress(FailedError):
            await both.target.execute("quit")
        with pytest.raises(FailedError):
            await (both.send() if when == "disk" else both.leaving.switch())
        await both.leaving.stay(runs=True)
        assert await both.source.status() == "running"

    run(tmp_path, base, work)
