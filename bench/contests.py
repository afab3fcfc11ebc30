# SPDX-License-Identifier: Apache-2.0
"""What is measured, and the goals of it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hosts import Host

from bench import names
from bench.measure import WARM_UP, Sample, Stopwatch, interleaved
from bench.memory import Memory, memory_of
from bench.rivals import Incus, Rival, Syscont

RIVALS: tuple[Rival, Rival] = (Syscont(), Incus())
NETWORK = "syscontbr0"
CROWD = 200
MANY = 50
FEW_ROUNDS = 9
"""Of what takes long."""
MEMORY_GOAL = 64 << 20
SETTLE = 0.3


@dataclass(frozen=True)
class Result:
    """goal: the most that ours may be, as a part of theirs; None where there is only something to know."""

    title: str
    ours: Sample
    theirs: Sample
    goal: float | None

    @property
    def ratio(self) -> float:
        return self.ours.median / self.theirs.median

    @property
    def passed(self) -> bool:
        return self.goal is None or self.ratio <= self.goal


@dataclass(frozen=True)
class SizeResult(Result):
    """In bytes."""


@dataclass(frozen=True)
class MemoryResult:
    title: str
    ours: Memory
    theirs: Memory
    goal: int = MEMORY_GOAL

    @property
    def passed(self) -> bool:
        return self.ours.daemon_rss <= self.goal


@dataclass(frozen=True)
class AloneResult:
    """Of what there is no rival in: the most seconds that it may take."""

    title: str
    ours: Sample
    goal: float

    @property
    def passed(self) -> bool:
        return self.ours.median <= self.goal


class Contests:
    """All contests on one host, each leaving it as it was; those with a crowd come last and leave that there."""

    def __init__(self, host: Host, watch: Stopwatch, rounds: int) -> None:
        self._host = host
        self._watch = watch
        self._rounds = rounds

    def launch(self) -> Iterator[Result]:
        """Make an instance of a cached Debian image and run it, until its PID 1 runs."""
        yield self._launch("launch, until PID 1 runs", 1 / 3, wait=False)

    def boot(self) -> Iterator[Result]:
        yield self._launch("launch, until the guest has booted", 2 / 3, wait=True)

    def _launch(self, title: str, goal: float, *, wait: bool) -> Result:
        def one(rival: Rival) -> Callable[[int], float]:
            def run(number: int) -> float:
                name = f"bench{number}"
                seconds = self._watch.seconds(*rival.launch("deb", name, wait=wait))
                self._watch.seconds(*rival.delete(name))
                time.sleep(SETTLE)
                return seconds

            return run

        return self._compare(title, goal, one)

    def start(self) -> Iterator[Result]:
        """Without the making, at which Incus unpacks the image anew with the storage that it has by default."""

        def one(rival: Rival) -> Callable[[int], float]:
            def run(number: int) -> float:
                seconds = self._watch.seconds(*rival.start("started"))
                self._watch.seconds(*rival.stop("started"))
                time.sleep(SETTLE)
                return seconds

            return run

        for rival in RIVALS:
            self._watch.seconds(*rival.create("deb", "started"))
        yield self._compare("start, until PID 1 runs", None, one)
        for rival in RIVALS:
            self._watch.seconds(*rival.delete("started"))

    def create(self) -> Iterator[Result]:
        """From a cached Debian image, without a start."""

        def one(rival: Rival) -> Callable[[int], float]:
            def run(number: int) -> float:
                name = f"bench{number}"
                seconds = self._watch.seconds(*rival.create("deb", name))
                self._watch.seconds(*rival.delete(name))
                return seconds

            return run

        yield self._compare("create", 1 / 10, one)

    def remove(self) -> Iterator[Result]:
        """Stop a running Debian at once, then delete it."""

        def one(rival: Rival) -> Callable[[int], float]:
            def run(number: int) -> float:
                name = f"bench{number}"
                self._watch.seconds(*rival.launch("deb", name, wait=True))
                time.sleep(SETTLE)
                return self._watch.seconds(*rival.stop(name)) + self._watch.seconds(*rival.delete(name))

            return run

        yield self._compare("stop and delete", 1 / 2, one)

    def snapshot(self) -> Iterator[Result]:
        """Of a stopped Debian that has booted once: another one each time, as backups are made."""
        for rival in RIVALS:
            self._watch.seconds(*rival.launch("deb", "kept", wait=True))
            self._watch.seconds(*rival.stop("kept"))
        yield self._compare("snapshot", 1 / 5, self._snapshot_of)
        for rival in RIVALS:
            self._watch.seconds(*rival.delete("kept"))

    def _snapshot_of(self, rival: Rival) -> Callable[[int], float]:
        return lambda number: self._watch.seconds(*rival.snapshot("kept", f"snap{number}"))

    def many(self) -> Iterator[Result]:
        """That many commands, all started at once."""
        names = [f"many{number}" for number in range(MANY)]

        def one(rival: Rival) -> Callable[[int], float]:
            def run(number: int) -> float:
                seconds = self._watch.seconds(*at_once(rival.launch("busybox", name) for name in names))
                self._watch.seconds(*at_once(rival.delete(name) for name in names))
                time.sleep(SETTLE)
                return seconds

            return run

        yield self._compare(f"launch {MANY} of busybox at once", 1 / 5, one, FEW_ROUNDS)

    def names(self) -> Iterator[AloneResult]:
        """From the launch of an instance until somebody's own DNS server has its name."""
        names.set_up(self._host, NETWORK)
        subnet = self._host.sh(f"syscont network get {NETWORK} ipv4.address").rpartition(".")[0]
        taken = [names.seconds(self._host, NETWORK, f"{subnet}.{200 + n % 50}") for n in range(WARM_UP + self._rounds)]
        names.take_away(self._host, NETWORK)
        yield AloneResult("launch, until Knot has the name", Sample(taken[WARM_UP:]), names.GOAL)

    def exec(self) -> Iterator[Result]:
        self._with_one_instance()
        yield self._compare("exec true", 1 / 2, lambda rival: self._timed(rival.exec("only", "true")))

    def list(self) -> Iterator[Result]:
        self._with_one_instance()
        yield self._list("list with 1 instance")
        self._with_crowd(running=False)
        yield self._list(f"list with {CROWD} instances, {CROWD - 1} of them stopped")
        self._with_crowd(running=True)
        yield self._list(f"list with {CROWD} running instances")

    def _list(self, title: str) -> Result:
        return self._compare(title, 1.0, lambda rival: self._timed(rival.list()))

    def memory(self) -> Iterator[MemoryResult]:
        self._with_one_instance()
        self._with_crowd(running=True)
        ours, theirs = (memory_of(self._host, rival) for rival in RIVALS)
        yield MemoryResult(f"memory with {CROWD} running instances", ours, theirs)

    # what contests stand on; made by the first that needs it

    _instances = 0
    _started = 0

    def _with_one_instance(self) -> None:
        if not self._instances:
            for rival in RIVALS:
                self._watch.seconds(*rival.launch("deb", "only", wait=True))
            self._instances = self._started = 1
            time.sleep(1)

    def _with_crowd(self, *, running: bool) -> None:
        """CROWD instances, all but one of them with busybox."""
        names = [f"crowd{number}" for number in range(1, CROWD)]
        if self._instances < CROWD:
            for rival in RIVALS:
                for name in names:
                    self._watch.seconds(*rival.create("busybox", name))
            self._instances = CROWD
        if running and self._started < CROWD:
            for rival in RIVALS:
                for name in names:
                    self._watch.seconds(*rival.start(name))
            self._started = CROWD
        time.sleep(2)

    def _timed(self, argv: Sequence[str]) -> Callable[[int], float]:
        return lambda number: self._watch.seconds(*argv)

    def _compare(
        self, title: str, goal: float | None, one: Callable[[Rival], Callable[[int], float]], most_rounds: int = 1000
    ) -> Result:
        ours, theirs = (one(rival) for rival in RIVALS)
        return Result(title, *interleaved(min(self._rounds, most_rounds), ours, theirs), goal)


def at_once(commands: Iterable[Sequence[str]]) -> list[str]:
    """One command that runs many side by side and fails when one of them does."""
    lines = "".join(f"{shlex.join(command)} & jobs=\"$jobs $!\"\n" for command in commands)
    return ["sh", "-c", f'{lines}status=0; for job in $jobs; do wait "$job" || status=1; done; exit $status']
