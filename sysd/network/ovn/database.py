# SPDX-License-Identifier: Apache-2.0
"""A database of OVSDB's, for asyncio: a thread keeps a copy of it, and makes one change after the other.

The thread is started by the first use and connects then, and again when the connection was lost and the next use
comes. Each use ends within PATIENCE seconds after its turn came, well or with FailedError; when nobody answers, so do
those that wait behind it. A change is a function that looks at the copy and writes what differs: it is one transaction,
and is done anew, on newer data, when another's change came in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import os
import queue
import re
import select
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sysd.model.errors import FailedError, InvalidError
from sysd.network.ovn.rows import View

PATIENCE = 5.0
_RETRY = 0.1
_NEWS = 1.0
"""How long to wait, in seconds: to try to connect again, and for what came in between a change."""
T = TypeVar("T")
_PORT = re.compile(r"(tcp|ssl):(\[[0-9A-Fa-f:.]+\]|[0-9.]+):([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Identity:
    """Files of PEM for TLS: our key, our certificate, and of whom theirs has to be."""

    key: Path
    certificate: Path
    authority: Path


@dataclass(frozen=True, slots=True)
class Schema:
    """title: what a user knows the database by. tables: what is copied of it. answers: columns that others fill in, of
    which we want to hear, and unheard, of which not; by table. all_rows: whether others' rows matter, too."""

    name: str
    title: str
    tables: Mapping[str, tuple[str, ...]]
    answers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unheard: Mapping[str, frozenset[str]] = field(default_factory=dict)
    all_rows: bool = False


News = Callable[[bool], None]
"""Told whether something has changed that is as we say, and not only what others answer to that."""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[View], Any]
    changes: bool
    settled: bool
    future: Future[Any]


class _Closed(Exception):
    pass


def check_remotes(text: str) -> list[str]:
    """``unix:PATH``, ``tcp:ADDRESS:PORT`` or ``ssl:ADDRESS:PORT``; of a cluster all, with commas between."""
    found = [word.strip() for word in text.split(",")]
    for word in found:
        match = _PORT.fullmatch(word)
        if not match and not (word.startswith("unix:/") and word.isprintable()):
            raise InvalidError(f"not a connection to OVSDB: {word[:80]!r}", "unix:/PATH, tcp:ADDRESS:PORT or ssl:...")
        if match:
            _check_address(word, match[2].strip("[]"), int(match[3]))
    return found


def _check_address(word: str, address: str, port: int) -> None:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        port = 0
    if not 0 < port < 65536:
        raise InvalidError(f"not an address and port: {word[:80]!r}")


class Database:
    """remotes as check_remotes() takes them. Made and used in one event loop, in which news is called when something
    that matters has changed, or the copy was lost, while nothing was asked of it."""

    def __init__(
        self,
        remotes: str,
        schema: Schema,
        identity: Identity | None = None,
        *,
        patience: float = PATIENCE,
        news: News = lambda whole: None,
    ) -> None:
        self.news = news
        self.remotes = check_remotes(remotes)
        self.schema = schema
        self.identity = identity
        self.patience = patience
        if identity is None and any(remote.startswith("ssl:") for remote in self.remotes):
            raise InvalidError(f"{schema.title}: ssl: needs a key, a certificate and an authority")
        self._worker: _Worker | None = None

    async def change(self, work: Callable[[View], object], *, settled: bool = False) -> bool:
        """Do in one transaction what work writes; whether that changed anything. settled: return when ovn-northd has
        passed it on to the southbound database."""
        return bool(await self._ask(work, True, settled))

    async def read(self, work: Callable[[View], T]) -> T:
        """What work finds in the copy; it is called in another thread and has to return what stays as it is."""
        found: T = await self._ask(work, False, False)
        return found

    async def _ask(self, work: Callable[[View], Any], changes: bool, settled: bool) -> Any:
        if self._worker is None:
            self._worker = _Worker(self, asyncio.get_running_loop())
        future: Future[Any] = Future()
        self._worker.put(_Job(work, changes, settled, future))
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """End the connection and its thread; what waits fails. A later use starts anew."""
        worker, self._worker = self._worker, None
        if worker:
            await asyncio.to_thread(worker.close)

    def fail(self, why: str, hint: str = "") -> FailedError:
        return FailedError(f"{self.schema.title} at {','.join(self.remotes)}: {why}", hint)


class _Worker(threading.Thread):
    def __init__(self, database: Database, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name=f"syscont-{database.schema.name}", daemon=True)
        self._database = database
        self._loop = loop
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closing = False
        self._library: Any = None
        self._replica: Any = None
        self._told = 0
        """Of what others have answered, how much was news."""
        self.start()

    def put(self, job: _Job) -> None:
        self._jobs.put(job)
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self.join()
        os.close(self._wake)

    def run(self) -> None:
        try:
            while not self._closing:
                self._serve_all()
                if not self._closing:
                    self._idle()
        except _Closed:
            pass
        finally:
            self._drop()
            self._fail_all(self._database.fail("it is being closed"))

    def _next(self) -> _Job | None:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            return None

    def _fail_all(self, error: Exception) -> None:
        while job := self._next():
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)

    def _serve_all(self) -> None:
        while not self._closing and (job := self._next()):
            if job.future.set_running_or_notify_cancel():
                self._serve(job)

    def _serve(self, job: _Job) -> None:
        deadline = time.monotonic() + self._database.patience
        try:
            try:
                self._connect(deadline)
            except FailedError as error:
                self._fail_all(error)
                raise
            job.future.set_result(self._changed(job, deadline) if job.changes else job.work(View(self._replica)))
        except _Closed:
            job.future.set_exception(self._database.fail("it is being closed"))
            raise
        except Exception as error:
            job.future.set_exception(error)

    def _idle(self) -> None:
        """Until there is something to do; what the server tells is taken in meanwhile."""
        if self._library is None:
            select.select([self._wake], [], [])  # there is nobody else who could say something
            self._awoken()
            return
        # What changed of what we say while jobs were done, these have done; what was answered, others.
        seen = self._heard()[0], self._told if self._replica else -1
        while self._jobs.empty():
            if seen == self._heard():
                self._wait(None)
                with contextlib.suppress(FailedError):
                    self._take_in()
            before, seen = seen, self._heard()
            self._told = seen[1]
            if before != seen:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(self._database.news, before[0] != seen[0])

    def _heard(self) -> tuple[int, int]:
        """How often of what we say, and of what others answer."""
        return (self._replica.said, self._replica.answered) if self._replica else (-1, -1)

    def _take_in(self) -> None:
        """Let go of a copy that is no longer one. Raises FailedError."""
        if self._replica:
            self._listen()
            if not self._replica.is_whole:
                self._drop()

    def _listen(self) -> None:
        """To what the server says. The library raises one thing or another where that makes no sense."""
        try:
            self._replica.run()
        except Exception as error:
            self._drop()
            raise self._useless(error) from None

    def _useless(self, error: Exception) -> FailedError:
        return self._database.fail(f"no use can be made of it: {error or type(error).__name__}")

    def _awoken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def _wait(self, deadline: float | None, add: Callable[[Any], object] | None = None) -> None:
        """Until the server says something, or another use comes. Raises TimeoutError and _Closed."""
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError
        poll = self._library.poller()
        poll.fd_wait(self._wake, select.POLLIN)
        if add:
            add(poll)
        elif self._replica:
            self._replica.wait(poll)
        if deadline is not None:
            poll.timer_wait(max(1, int((deadline - time.monotonic()) * 1000)))
        poll.block()
        self._awoken()
        if self._closing:
            raise _Closed

    def _load(self) -> None:
        try:
            self._library = importlib.import_module("sysd.network.ovn.replica")
        except ImportError as error:
            raise self._database.fail(f"Python lacks ovsdbapp ({error})", "install python3-ovsdbapp") from None
        if identity := self._database.identity:
            for path in (identity.key, identity.certificate, identity.authority):
                if not path.is_file():
                    raise self._database.fail(f"there is no file {path}", "TLS needs it")
            self._library.use_files(str(identity.key), str(identity.certificate), str(identity.authority))

    def _drop(self) -> None:
        replica, self._replica = self._replica, None
        if replica:
            replica.close()

    def _connect(self, deadline: float) -> None:
        """Have a whole copy, of a moment ago at most. Raises FailedError and _Closed."""
        with contextlib.suppress(FailedError):
            self._take_in()
        if self._replica:
            return
        self._load()
        while True:
            try:
                self._copy(deadline)
                return
            except (_Closed, FailedError):
                self._drop()
                raise
            except self._library.Away as error:
                self._drop()
                self._pause(deadline, str(error))
            except TimeoutError:
                self._drop()
                raise self._silent() from None
            except Exception as error:
                # Nonsense, and what the library raises of others, mostly where it verifies certificates.
                self._drop()
                raise self._useless(error) from None

    def _copy(self, deadline: float) -> None:
        database = self._database
        self._replica = self._library.connect(
            database.remotes, database.schema, lambda add: self._wait(deadline, add)
        )
        self._replica.run()
        while not self._replica.is_whole:
            self._wait(deadline)
            self._replica.run()

    def _pause(self, deadline: float, why: str) -> None:
        if time.monotonic() + _RETRY >= deadline:
            raise self._database.fail(f"it can't be reached: {why}", "is its server running?")
        with contextlib.suppress(TimeoutError):
            self._wait(time.monotonic() + _RETRY)

    def _silent(self) -> FailedError:
        return self._database.fail(f"no answer within {self._database.patience:g} s", "is its server well?")

    def _changed(self, job: _Job, deadline: float) -> bool:
        kinds, refused = self._library.Transaction, ""
        while True:
            self._connect(deadline)
            seen = self._replica.change_seqno
            transaction = self._prepared(job)
            status = self._committed(transaction, deadline)
            if status in (kinds.UNCHANGED, kinds.SUCCESS):
                break
            if status != kinds.TRY_AGAIN:
                # Once: another host may have just made what we are making, and the server has told us since.
                if refused:
                    raise self._database.fail(f"it refuses a change: {refused}")
                refused = transaction.get_error()
            self._await_news(seen, deadline)
        if status == kinds.SUCCESS and job.settled:
            self._await_settled(transaction.get_increment_new_value(), deadline)
        return bool(status == kinds.SUCCESS)

    def _prepared(self, job: _Job) -> Any:
        transaction = self._library.Transaction(self._replica)
        try:
            view = View(self._replica, transaction)
            job.work(view)
            if job.settled:
                self._global().increment("nb_cfg")
        except BaseException:
            transaction.abort()
            raise
        return transaction

    def _committed(self, transaction: Any, deadline: float) -> str:
        status = transaction.commit()
        try:
            while status == self._library.Transaction.INCOMPLETE:
                self._listen()
                status = transaction.commit()
                if status == self._library.Transaction.INCOMPLETE:
                    if not self._replica.is_whole:
                        self._drop()
                        return str(self._library.Transaction.TRY_AGAIN)
                    self._wait(deadline)
        except TimeoutError:
            self._drop()
            raise self._silent() from None
        return str(status)

    def _await_news(self, seen: int, deadline: float) -> None:
        until = min(deadline, time.monotonic() + _NEWS)
        with contextlib.suppress(TimeoutError):
            while self._replica and self._replica.change_seqno == seen:
                self._wait(until)
                self._take_in()
        if time.monotonic() >= deadline:
            raise self._database.fail("others change the same all the time", "try again")

    def _await_settled(self, number: int, deadline: float) -> None:
        try:
            while self._global().sb_cfg < number:
                self._wait(deadline)
                self._take_in()
                self._connect(deadline)
        except TimeoutError:
            hint = "is ovn-northd running? The change is made, and takes effect when it is"
            raise self._database.fail("ovn-northd does not take up what changed", hint) from None

    def _global(self) -> Any:
        for row in self._replica.tables["NB_Global"].rows.values():
            return row
        raise self._database.fail("it has no row NB_Global", "ovn-northd makes it; is that running?")
