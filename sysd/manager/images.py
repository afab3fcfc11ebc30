# SPDX-License-Identifier: Apache-2.0
"""Images: imported or built by sandboxed workers, kept once by fingerprint, shared by all instances."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbus_next import Variant

from sysd.images.sources import Source, parse_source
from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.operations import Handle, Operations
from sysd.model import names
from sysd.model.errors import ERRORS, BusyError, ExistsError, FailedError, InvalidError, NotFoundError, SyscontError
from sysd.model.image import Image, Init
from sysd.model.operation import Operation
from sysd.runtime.trees import remove_tree
from sysd.store.database import Store
from sysd.units import helper
from sysd.units.systemd import Systemd

log = logging.getLogger(__name__)

DRAFT = ".draft-"
UNPACK_UNIT = "syscont-image@{}.service"
BUILD_UNIT = "syscont-build@{}.service"
WORKER = ("/usr/bin/python3", "-I", "-m", "sysd.images.worker")
MAX_METADATA = 16 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """Descriptors of what to import; either unified, or metadata and rootfs. The importer closes them."""

    unified: int = -1
    metadata: int = -1
    rootfs: int = -1

    def check(self) -> None:
        """Only what can be read without surprises, as Upload's docstring says; raises InvalidError."""
        if (self.unified >= 0) == (self.rootfs >= 0) or (self.rootfs >= 0) != (self.metadata >= 0):
            raise InvalidError("give one image file, or a metadata file and a root file system")
        for fd in self.all():
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise InvalidError("an image must come from a regular file or a pipe")

    def all(self) -> list[int]:
        return [fd for fd in (self.unified, self.metadata, self.rootfs) if fd >= 0]

    def close(self) -> None:
        for fd in self.all():
            os.close(fd)


class Images:
    def __init__(
        self,
        store: Store,
        events: EventBus,
        operations: Operations,
        systemd: Systemd,
        directory: Path,
        users: Callable[[str], Iterable[str]],
    ) -> None:
        """users gives the names of the instances made from a fingerprint."""
        self._store = store
        self._events = events
        self._operations = operations
        self._systemd = systemd
        self._directory = directory
        self._users = users
        self._images = {image.fingerprint: image for image in store.images()}
        self._aliases = store.aliases()

    # asking

    def all(self) -> list[Image]:
        return list(self._images.values())

    def has(self, fingerprint: str) -> bool:
        return fingerprint in self._images

    def aliases(self, fingerprint: str) -> list[str]:
        return [alias for alias, target in self._aliases.items() if target == fingerprint]

    def find(self, reference: str) -> Image:
        """By alias, fingerprint, or the unique beginning of a fingerprint of at least 6 digits."""
        if fingerprint := self._aliases.get(reference):
            return self._images[fingerprint]
        if image := self._images.get(reference):
            return image
        if re.fullmatch(r"[0-9a-f]{6,63}", reference, re.ASCII):
            matches = [image for key, image in self._images.items() if key.startswith(reference)]
            if len(matches) > 1:
                raise InvalidError(f"image {reference!r} is ambiguous", "give more digits of the fingerprint")
            if matches:
                return matches[0]
        raise NotFoundError(f"no image {reference!r}", "'syscont image list' shows what there is")

    # aliases

    def add_alias(self, alias: str, reference: str) -> None:
        names.check_alias(alias)
        if alias in self._aliases:
            raise ExistsError(f"image alias {alias!r} exists already")
        self._set_aliases(self.find(reference).fingerprint, [alias])

    def remove_alias(self, alias: str) -> None:
        if alias not in self._aliases:
            raise NotFoundError(f"no image alias {alias!r}")
        fingerprint = self._aliases[alias]
        self._store.delete_alias(alias)
        del self._aliases[alias]
        self._events.publish(Event(Kind.IMAGE_CHANGED, fingerprint, changed=("Aliases",)))

    def _set_aliases(self, fingerprint: str, aliases: Iterable[str]) -> None:
        changed = {fingerprint} | {self._aliases[alias] for alias in aliases if alias in self._aliases}
        for alias in aliases:
            self._store.put_alias(alias, fingerprint)
            self._aliases[alias] = fingerprint
        for each in changed:
            self._events.publish(Event(Kind.IMAGE_CHANGED, each, changed=("Aliases",)))

    # making and deleting

    def import_image(self, upload: Upload, aliases: list[str], owner: int) -> Operation:
        try:
            upload.check()
            for alias in aliases:
                names.check_alias(alias)
                if alias in self._aliases:
                    raise ExistsError(f"image alias {alias!r} exists already", "delete the alias first")
        except SyscontError:
            upload.close()
            raise

        async def work(handle: Handle) -> None:
            try:
                async with self._draft(handle) as draft:
                    arguments = ["--image", "0"]
                    if upload.rootfs >= 0:
                        metadata = draft / "metadata"
                        await _spool(upload.metadata, metadata)
                        arguments = ["--metadata", str(metadata), "--rootfs", "0"]
                    stdin = upload.rootfs if upload.rootfs >= 0 else upload.unified
                    facts = await self._unpack(handle, draft, arguments, stdin)
                    self._adopt(handle, draft, facts, aliases)
            finally:
                upload.close()

        return self._operations.begin("import-image", aliases[0] if aliases else "image", work, owner)

    def build(self, source_name: str, aliases: list[str], owner: int) -> Operation:
        """Build from a source; its name, which moves on from an older build, and aliases point to the result."""
        source = parse_source(source_name)
        for alias in aliases:
            names.check_alias(alias)

        async def work(handle: Handle) -> None:
            async with self._draft(handle) as draft:
                facts = await self._build(handle, draft, source)
                self._adopt(handle, draft, facts, [source.name, *aliases])

        return self._operations.begin("build-image", source_name, work, owner)

    def delete(self, reference: str, owner: int) -> Operation:
        image = self.find(reference)
        self._check_unused(image)

        async def work(handle: Handle) -> None:
            self._check_unused(image)
            gone = self._directory / f"{DRAFT}{handle.id}"
            aliases = self.aliases(image.fingerprint)
            # Out of sight first: what a crash leaves of the tree is swept at start.
            self._store.delete_image(image.fingerprint)
            del self._images[image.fingerprint]
            for alias in aliases:
                del self._aliases[alias]
            (self._directory / image.fingerprint).rename(gone)
            self._events.publish(Event(Kind.IMAGE_REMOVED, image.fingerprint))
            await asyncio.to_thread(remove_tree, gone)

        return self._operations.begin("delete-image", image.fingerprint[:12], work, owner)

    def _check_unused(self, image: Image) -> None:
        if image.fingerprint not in self._images:
            raise NotFoundError(f"no image {image.fingerprint[:12]!r}")
        if used := sorted(self._users(image.fingerprint)):
            raise BusyError(f"image {image.fingerprint[:12]} is used by {', '.join(used[:5])}", "delete those first")

    @contextlib.asynccontextmanager
    async def _draft(self, handle: Handle) -> Any:
        """A folder for an image in the making, removed unless it was adopted."""
        draft = self._directory / f"{DRAFT}{handle.id}"
        draft.mkdir(mode=0o700)
        try:
            yield draft
        finally:
            await asyncio.to_thread(remove_tree, draft)

    async def _unpack(self, handle: Handle, draft: Path, arguments: list[str], stdin: int) -> dict[str, Any]:
        """Run the worker; returns its facts about the image or raises its refusal."""
        disk = os.statvfs(self._directory)
        limit = disk.f_bavail * disk.f_frsize * 9 // 10
        argv = [*WORKER, "--target", str(draft), "--limit", str(limit), *arguments]
        running = await helper.start(
            self._systemd,
            helper.Helper(
                unit=UNPACK_UNIT.format(handle.id),
                description="Unpack an image",
                argv=argv,
                properties=helper.sandbox(str(draft)),
                stdin=stdin,
            ),
        )
        errors = asyncio.create_task(_log_errors(running))
        try:
            answer = await self._follow(handle, running)
            await running.wait()
        except BaseException:
            await running.stop()
            raise
        finally:
            await errors
        return answer

    async def _follow(self, handle: Handle, running: helper.RunningHelper) -> dict[str, Any]:
        answer: dict[str, Any] | None = None
        async for line in running.lines():
            message = json.loads(line)
            if "error" in message:
                error = message["error"]
                raise ERRORS.get(error["code"], FailedError)(error["message"], error.get("hint", ""))
            if "result" in message:
                answer = message["result"]
            else:
                handle.progress(message["stage"], message["done"], message["total"])
        if answer is None:
            raise FailedError("the image could not be unpacked", "the journal of syscontd.service says more")
        return answer

    async def _build(self, handle: Handle, draft: Path, source: Source) -> dict[str, Any]:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            builder = await helper.start(
                self._systemd,
                helper.Helper(
                    unit=BUILD_UNIT.format(handle.id),
                    description=f"Build image {source.name}",
                    argv=source.argv,
                    properties={"PrivateTmp": Variant("b", True)},
                    environment=[f"{key}={value}" for key, value in source.env.items()],
                ),
                stdout=write_end,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        stages = asyncio.create_task(_show_stages(handle, builder))
        try:
            arguments = ["--rootfs-stream", "0", "--facts", json.dumps(source.facts)]
            unpacking = asyncio.create_task(self._unpack(handle, draft, arguments, read_end))
            try:
                facts = await unpacking
            except SyscontError:
                if not await builder.wait():
                    raise _build_error(source, builder) from None
                raise
            if not await builder.wait():
                raise _build_error(source, builder)
            return facts
        except asyncio.CancelledError:
            await builder.stop()
            raise
        finally:
            os.close(read_end)
            stages.cancel()

    def _adopt(self, handle: Handle, draft: Path, facts: dict[str, Any], aliases: list[str]) -> None:
        """Make a finished draft an image. The row comes last: a tree without one is swept at start."""
        image = Image(**facts | {"init": Init(facts["init"])})
        handle.set_result("fingerprint", image.fingerprint)
        if image.fingerprint not in self._images:
            with contextlib.suppress(FileNotFoundError):
                (draft / "metadata").unlink()
            place = self._directory / image.fingerprint
            if place.exists():
                remove_tree(place)
            draft.rename(place)
            sync_directory(self._directory)
            self._store.put_image(image)
            self._images[image.fingerprint] = image
            self._events.publish(Event(Kind.IMAGE_ADDED, image.fingerprint))
        self._set_aliases(image.fingerprint, aliases)

    async def sweep(self) -> None:
        """At start: remove drafts and trees without a row; name images whose tree is gone."""
        for pattern in (UNPACK_UNIT, BUILD_UNIT):
            await helper.stop_all(self._systemd, pattern.format("*"))
        for entry in self._directory.iterdir():
            if entry.name not in self._images:
                log.info("removing %s, left by an interrupted operation", entry)
                await asyncio.to_thread(remove_tree, entry)
        for fingerprint in self._images:
            if not (self._directory / fingerprint / "rootfs").is_dir():
                log.error("the files of image %s are missing; delete it and import it again", fingerprint)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


async def _spool(fd: int, path: Path) -> None:
    """Copy what is to be read from fd. A pipe is waited for here, where that takes no thread and can be cancelled."""
    is_pipe, size = stat.S_ISFIFO(os.fstat(fd).st_mode), 0
    with path.open("xb") as target:
        while True:
            if is_pipe:
                await _readable(fd)
            try:
                data = await asyncio.to_thread(os.read, fd, 1 << 20)
            except BlockingIOError:
                continue
            if not data:
                return
            size += len(data)
            if size > MAX_METADATA:
                raise InvalidError("the metadata archive is too large", f"at most {MAX_METADATA >> 20} MiB")
            target.write(data)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


async def _log_errors(running: helper.RunningHelper) -> None:
    async for line in running.errors():
        log.info("unpack: %s", line)


async def _show_stages(handle: Handle, builder: helper.RunningHelper) -> None:
    async for line in builder.errors():
        handle.progress(line.removeprefix("I: ")[:120])


def _build_error(source: Source, builder: helper.RunningHelper) -> FailedError:
    wrong = [line for line in builder.tail if line.startswith(("E:", "error"))] or builder.tail[-1:]
    return FailedError(f"building {source.name} failed: {' '.join(wrong)[:500] or 'no message'}")
