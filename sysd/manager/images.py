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
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dbus_next import Variant

from sysd.images import answers
from sysd.images.sources import parse_source
from sysd.manager.events import Event, EventBus
from sysd.manager.events import Kind as Happening
from sysd.manager.operations import Handle, Operations
from sysd.manager.uploads import Upload, spool
from sysd.model import names
from sysd.model.backup import SETTLED_STAGE
from sysd.model.errors import BusyError, ExistsError, FailedError, InvalidError, NotFoundError, SyscontError
from sysd.model.image import Image
from sysd.model.instance import Kind
from sysd.model.operation import Operation
from sysd.model.templates import Template
from sysd.runtime.trees import remove_tree, sync_directory
from sysd.store.database import Store
from sysd.units import helper
from sysd.units.answers import Progress
from sysd.units.bus import BusError
from sysd.units.systemd import Systemd

log = logging.getLogger(__name__)

DRAFT = ".draft-"
METADATA = "metadata"
ROOTFS = "rootfs"
DISK = "disk.img"
KERNEL = "kernel"
INITRD = "initrd"
NVRAM = "nvram.fd"
VM_ALIAS = "/vm"
UNPACK_UNIT = "syscont-image@{}.service"
BUILD_UNIT = "syscont-build@{}.service"
WORKER = ("/usr/bin/python3", "-I", "-m", "sysd.images.worker")
BACKUP_WORKER = ("/usr/bin/python3", "-I", "-m", "sysd.images.backup")
_GRACE = 1.0
"""Seconds that a builder without a reader may take to fail, and to say why."""


@dataclass(frozen=True, slots=True)
class Builder:
    """What writes a root file system's tar to its output; facts is what metadata.yaml would say of it, and templates
    are those that the image gets. check is asked at the end, and raises when the image must not be. flags are the
    worker's (see sysd.images.worker): that it becomes the disk of a virtual machine, or comes with one."""

    name: str
    facts: dict[str, Any]
    helper: helper.Helper
    templates: list[Template] = field(default_factory=list)
    check: Callable[[], None] = lambda: None
    flags: Sequence[str] = ()


class Images:
    def __init__(
        self,
        store: Store,
        events: EventBus,
        operations: Operations,
        systemd: Systemd,
        directory: Path,
        users: Callable[[str], Iterable[str]],
        proxies: Callable[[], dict[str, str]],
    ) -> None:
        """users gives the names of the instances made from a fingerprint, proxies variables for what is fetched."""
        self._store = store
        self._events = events
        self._operations = operations
        self._systemd = systemd
        self._directory = directory
        self.users = users
        self._proxies = proxies
        self._images = {image.fingerprint: image for image in store.images()}
        self._aliases = store.aliases()

    # asking

    def all(self) -> list[Image]:
        return list(self._images.values())

    def has(self, fingerprint: str) -> bool:
        return fingerprint in self._images

    def aliases(self, fingerprint: str) -> list[str]:
        return [alias for alias, target in self._aliases.items() if target == fingerprint]

    def find(self, reference: str, kind: Kind | None = None) -> Image:
        """By alias, fingerprint, or the unique beginning of a fingerprint of at least 6 digits. kind: what it has to be
        for; the alias of a virtual machine's may be said without its end (see sysd.images.sources)."""
        if kind is Kind.VM and reference + VM_ALIAS in self._aliases:
            reference += VM_ALIAS
        found = self._find(reference)
        if kind and found.kind is not kind:
            hint = f"it is for a {found.kind}; 'syscont image list' shows the types"
            raise InvalidError(f"image {reference[:80]!r} is not for a {kind}", hint)
        return found

    def _find(self, reference: str) -> Image:
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
        self.check_free([alias])
        fingerprint = self.find(reference).fingerprint
        self._store.put_alias(alias, fingerprint)
        self._show_aliases(fingerprint, [alias])

    def remove_alias(self, alias: str) -> None:
        if alias not in self._aliases:
            raise NotFoundError(f"no image alias {alias!r}")
        fingerprint = self._aliases[alias]
        self._store.delete_alias(alias)
        del self._aliases[alias]
        self._events.publish(Event(Happening.IMAGE_CHANGED, fingerprint, changed=("Aliases",)))

    def _show_aliases(self, fingerprint: str, aliases: Iterable[str]) -> None:
        """What was stored, in memory and to who listens."""
        changed = {fingerprint} | {self._aliases[alias] for alias in aliases if alias in self._aliases}
        self._aliases |= dict.fromkeys(aliases, fingerprint)
        for each in changed:
            self._events.publish(Event(Happening.IMAGE_CHANGED, each, changed=("Aliases",)))

    def check_free(self, aliases: Iterable[str]) -> None:
        """Raise ExistsError when one of them is the name of an image already."""
        for alias in aliases:
            if alias in self._aliases:
                raise ExistsError(f"image alias {alias!r} exists already", "delete the alias first")

    # making and deleting

    def import_image(self, upload: Upload, aliases: list[str], owner: int) -> Operation:
        """Closes upload, also when it raises."""
        try:
            return self._import(upload, aliases, owner)
        except BaseException:
            upload.close()
            raise

    def _import(self, upload: Upload, aliases: list[str], owner: int) -> Operation:
        upload.check()
        for alias in aliases:
            names.check_alias(alias)
        self.check_free(aliases)

        async def work(handle: Handle) -> None:
            try:
                async with self._draft(handle) as draft:
                    metadata = draft / METADATA
                    if upload.rootfs >= 0:
                        await spool(upload.metadata, metadata)
                    worker = (*WORKER, *upload.arguments(metadata))
                    (image,) = await self._unpack(handle, draft, worker, upload.main)
                    self.check_free(aliases)  # another import may have been faster
                    self._adopt(draft, image, aliases)
                    handle.set_result("fingerprint", image.fingerprint)
            finally:
                upload.close()

        return self._operations.begin("import-image", aliases[0] if aliases else "image", work, owner)

    def build(self, source_name: str, aliases: list[str], owner: int, *, vm: bool = False) -> Operation:
        """Build from a source; its name, which moves on from an older build, and aliases point to the result. vm: a
        virtual machine's, which has a name of its own."""
        source = parse_source(source_name, vm=vm)
        for alias in aliases:
            names.check_alias(alias)

        async def work(handle: Handle) -> None:
            builder = Builder(
                source.name,
                source.facts,
                helper.Helper(
                    unit=BUILD_UNIT.format(handle.id),
                    description=f"Build image {source.name}",
                    argv=source.argv,
                    properties={"PrivateTmp": Variant("b", True)},
                    environment=[f"{key}={value}" for key, value in (source.env | self._proxies()).items()],
                ),
                flags=["--vm"] if vm else [],
            )
            await self.build_with(handle, builder, [source.name, *aliases])

        return self._operations.begin("build-image", source_name, work, owner)

    async def build_with(self, handle: Handle, builder: Builder, aliases: list[str]) -> None:
        """Make an image of what a builder writes; aliases move on from older images."""
        async with self._draft(handle) as draft:
            image = replace(await self._build(handle, draft, builder), templates=builder.templates)
            builder.check()
            self._adopt(draft, image, aliases)
        handle.set_result("fingerprint", image.fingerprint)

    async def unpack_backup(
        self,
        handle: Handle,
        backup: int,
        hold: Callable[[list[Image]], None],
        *,
        fresh: bool = False,
        settled: Callable[[], None] = lambda: None,
    ) -> Any:
        """Make an image of each root file system or disk in a backup, and return what its index says (see
        sysd.images.backup). hold is told of the images before they are there. fresh: the instance becomes another
        one. settled is called when the first part of one in two parts is on disk."""
        async with self._draft(handle) as draft:
            worker = (*BACKUP_WORKER, "--fresh") if fresh else BACKUP_WORKER
            found = await self._unpack(handle, draft, worker, backup, helper.LONG, settled)
            index = answers.read_index(draft)
            hold(found)
            for number, image in enumerate(found):
                self._adopt(draft / str(number), replace(image, own=True), [])
            return index

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
            self._events.publish(Event(Happening.IMAGE_REMOVED, image.fingerprint))
            with contextlib.suppress(FileNotFoundError):  # then somebody removed it by hand
                (self._directory / image.fingerprint).rename(gone)
            await asyncio.to_thread(remove_tree, gone)

        return self._operations.begin("delete-image", image.fingerprint[:12], work, owner)

    def _check_unused(self, image: Image) -> None:
        if image.fingerprint not in self._images:
            raise NotFoundError(f"no image {image.fingerprint[:12]!r}")
        if used := sorted(self.users(image.fingerprint)):
            raise BusyError(f"image {image.fingerprint[:12]} is used by {', '.join(used[:5])}", "delete those first")

    @contextlib.asynccontextmanager
    async def _draft(self, handle: Handle) -> AsyncIterator[Path]:
        """A folder for an image in the making, removed unless it was adopted."""
        draft = self._directory / f"{DRAFT}{handle.id}"
        draft.mkdir(mode=0o700)
        try:
            yield draft
        finally:
            await helper.see_through(asyncio.to_thread(remove_tree, draft))

    async def _unpack(
        self,
        handle: Handle,
        draft: Path,
        worker: Sequence[str],
        stdin: int,
        seconds: int = helper.TIME_LIMIT,
        settled: Callable[[], None] = lambda: None,
    ) -> list[Image]:
        """Run a worker; returns the images that it has made in draft, or raises its refusal."""
        disk = os.statvfs(self._directory)
        limit = disk.f_bavail * disk.f_frsize * 9 // 10
        argv = [*worker, "--target", str(draft), "--limit", str(limit)]
        running = await helper.start(
            self._systemd,
            helper.Helper(
                unit=UNPACK_UNIT.format(handle.id),
                description="Unpack an image",
                argv=argv,
                properties=helper.sandbox(str(draft), seconds),
                stdin=stdin,
            ),
        )
        errors = asyncio.create_task(_log_errors(running))
        try:
            found = await _follow(handle, running, settled)
            if not await running.wait():
                raise _worker_error()
        except BaseException:
            await running.stop()
            raise
        finally:
            await errors
        return found

    async def _build(self, handle: Handle, draft: Path, wanted: Builder) -> Image:
        async with self._builder(wanted) as (builder, output):
            stages = asyncio.create_task(_show_stages(handle, builder))
            try:
                arguments = ["--rootfs-stream", "0", "--facts", json.dumps(wanted.facts)]
                worker = (*WORKER, *arguments, *wanted.flags)
                (image,) = await self._unpack(handle, draft, worker, output)
                if await builder.wait():
                    return image
            except SyscontError:
                # A builder that failed tells more than the worker does, which sees only half an archive. One that
                # goes on, or waits for someone to read its output, is not to blame.
                if await _ends_well(builder):
                    raise
                await asyncio.wait([stages], timeout=_GRACE)  # its last words
            finally:
                stages.cancel()
            raise _build_error(wanted.name, builder) from None

    @contextlib.asynccontextmanager
    async def _builder(self, wanted: Builder) -> AsyncIterator[tuple[helper.RunningHelper, int]]:
        """The running builder and the pipe that its output comes from; neither outlives the block."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                builder = await helper.start(self._systemd, wanted.helper, stdout=write_end)
            finally:
                os.close(write_end)
            try:
                yield builder, read_end
            except BaseException:
                await builder.stop()
                raise
        finally:
            os.close(read_end)

    def _adopt(self, draft: Path, image: Image, aliases: list[str]) -> None:
        """Make a finished draft an image. The row comes last: a tree without one is swept at start."""
        is_new = image.fingerprint not in self._images
        if is_new:
            check_files(draft, image)
            place = self._directory / image.fingerprint
            if place.exists():
                remove_tree(place)
            draft.rename(place)
            sync_directory(self._directory)
        with self._store.transaction():
            if is_new:
                self._store.put_image(image)
            for alias in aliases:
                self._store.put_alias(alias, image.fingerprint)
        if is_new:
            self._images[image.fingerprint] = image
            self._events.publish(Event(Happening.IMAGE_ADDED, image.fingerprint))
        self._show_aliases(image.fingerprint, aliases)

    async def sweep(self) -> None:
        """At start: remove drafts and trees without a row; name images whose tree is gone. Never fails."""
        for pattern in (UNPACK_UNIT, BUILD_UNIT):
            try:
                await helper.stop_all(self._systemd, pattern.format("*"))
            except BusError as error:
                log.error("units %s can't be stopped: %s", pattern.format("*"), error)
        for name in self._leftovers():
            log.info("removing %s, left by an interrupted operation", self._directory / name)
            try:
                await asyncio.to_thread(remove_tree, self._directory / name)
            except OSError as error:
                log.error("%s can't be removed: %s", self._directory / name, error)
        for fingerprint, image in self._images.items():
            if not _has_files(self._directory / fingerprint, image):
                log.error("the files of image %s are missing; delete it and import it again", fingerprint)

    def _leftovers(self) -> list[str]:
        """Other entries, such as lost+found, are not ours."""
        try:
            found = os.listdir(self._directory)
        except OSError as error:
            log.error("%s can't be read: %s", self._directory, error)
            return []
        ours = [name for name in found if name.startswith(DRAFT) or names.is_fingerprint(name)]
        return [name for name in ours if name not in self._images and name not in self._store.unreadable("images")]


def check_files(draft: Path, image: Image) -> None:
    """Raise FailedError unless draft has what an image of its kind has, and nothing else that a worker might leave."""
    draft.joinpath(METADATA).unlink(missing_ok=True)
    found = {entry.name: _file_type(entry) for entry in os.scandir(draft)}
    if image.kind is Kind.CONTAINER:
        if found != {ROOTFS: stat.S_IFDIR}:
            raise FailedError("the image's worker did not leave a root file system")
        return
    wanted = (DISK, KERNEL, INITRD) if image.kernel_command else (DISK,)
    if image.own and NVRAM in found:
        wanted = (*wanted, NVRAM)
    if found != dict.fromkeys(wanted, stat.S_IFREG) or draft.joinpath(DISK).lstat().st_size != image.disk_size:
        raise FailedError("the image's worker did not leave a virtual machine's disk")


def _file_type(entry: os.DirEntry[str]) -> int:
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)


def _has_files(folder: Path, image: Image) -> bool:
    wanted = ROOTFS if image.kind is Kind.CONTAINER else DISK
    return folder.joinpath(wanted).exists()


async def _follow(
    handle: Handle, running: helper.RunningHelper, settled: Callable[[], None] = lambda: None
) -> list[Image]:
    found: list[Image] = []
    stages: set[str] = set()
    async for line in running.lines():
        match answers.parse(line):
            case Progress(stage, done, total):
                handle.progress(stage, done, total)
                if stage == SETTLED_STAGE and stage not in stages:
                    settled()
                stages.add(stage)
            case Image() as image:
                found.append(image)
            case error:
                raise error
    if not found or len(found) > answers.MAX_VOLUMES:
        raise _worker_error()
    return found


def _worker_error() -> FailedError:
    return FailedError("the image could not be unpacked", "the journal of syscontd.service says more")


async def _ends_well(builder: helper.RunningHelper) -> bool:
    """Whether a builder goes on or has ended as it should."""
    try:
        async with asyncio.timeout(_GRACE):
            return await builder.wait()
    except TimeoutError:
        return True


async def _log_errors(running: helper.RunningHelper) -> None:
    async for line in running.errors():
        log.info("unpack: %s", line)


async def _show_stages(handle: Handle, builder: helper.RunningHelper) -> None:
    async for line in builder.errors():
        handle.progress(line.removeprefix("I: ")[:120])


def _build_error(name: str, builder: helper.RunningHelper) -> FailedError:
    wrong = [line for line in builder.tail if line.startswith(("E:", "error"))] or builder.tail[-1:]
    return FailedError(f"building {name} failed: {' '.join(wrong)[:500] or 'no message'}")
