# SPDX-License-Identifier: Apache-2.0
# The path has to be set before the import.
# ruff: noqa: E402
"""`make bench` and `make bench-vms`: containers, or virtual machines, beside Incus' on one host in one run; the exit
status is 1 when a goal is missed."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "vm-tests")]

from hosts import ContainerHost, HostError, Recipe, VmHost
from hosts.cli import newest_deb

from bench import incus, machines, report
from bench.contests import RIVALS, Contests
from bench.measure import Stopwatch

RESULTS = Path(__file__).with_name("RESULTS.md")
RESULTS_VMS = Path(__file__).with_name("RESULTS-VMS.md")
ALL = ("launch", "boot", "start", "create", "remove", "snapshot", "many", "names", "exec", "list", "memory")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure syscont beside Incus on a test host.")
    parser.add_argument("--machines", action="store_true", help="virtual machines, on a host with KVM: an hour")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each is measured (20, machines 5)")
    parser.add_argument("--only", default=",".join(ALL), metavar="LIST", help=f"some of {','.join(ALL)}")
    parser.add_argument("--deb", type=Path, help="package to measure (default: newest in dist/)")
    options = parser.parse_args()
    options.only = options.only.split(",")
    options.rounds = options.rounds or (machines.ROUNDS if options.machines else 20)
    if unknown := set(options.only) - set(ALL):
        parser.error(f"unknown: {', '.join(unknown)}")
    return options


def run(options: argparse.Namespace) -> bool:
    deb = options.deb or newest_deb()
    if deb is None:
        raise HostError("no package in dist/: run `make bench`")
    return run_machines(deb, options.rounds) if options.machines else run_containers(deb, options)


def run_machines(deb: Path, rounds: int) -> bool:
    before = load()
    with VmHost(recipe=Recipe(variant="incus-vms")) as host:
        host.install_deb(deb)
        machines.set_up(host)
        results = list(machines.contests(host, rounds))
        versions = {rival.name: rival.version(host) for rival in RIVALS}
    print("\n" + report.table(results))
    loads = f"{before} before the run and {load()} after it"
    RESULTS_VMS.write_text(report.markdown(results, machines.about(rounds, versions), loads))
    print(f"\nwritten to {RESULTS_VMS.relative_to(ROOT)}")
    return all(result.passed for result in results)


def run_containers(deb: Path, options: argparse.Namespace) -> bool:
    before = load()
    incus.debian_images()
    with ContainerHost(recipe=Recipe(variant="incus")) as host:
        host.install_deb(deb)
        incus.set_up(host)
        incus.import_images(host)
        results = measure(host, options)
        versions = {rival.name: rival.version(host) for rival in RIVALS}
    print("\n" + report.table(results))
    loads = f"{before} before the run and {load()} after it"
    # Only a full run is worth keeping.
    if set(options.only) == set(ALL):
        RESULTS.write_text(report.markdown(results, report.about(options.rounds, versions), loads))
        print(f"\nwritten to {RESULTS.relative_to(ROOT)}")
    return all(result.passed for result in results)


def load() -> str:
    return Path("/proc/loadavg").read_text().split()[0]


def measure(host: ContainerHost, options: argparse.Namespace) -> list[report.Outcome]:
    watch = Stopwatch(host)
    contests = Contests(host, watch, options.rounds)
    results: list[report.Outcome] = []
    # In the order of ALL: a crowd, once there, stays.
    for name in (name for name in ALL if name in options.only):
        for result in getattr(contests, name)():
            print(report.table([result]).partition("\n")[2], flush=True)
            results.append(result)
    watch.close()
    return results


def main() -> int:
    begin = time.monotonic()
    try:
        passed = run(parse())
    except (HostError, subprocess.SubprocessError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(f"done after {time.monotonic() - begin:.0f} s; {'all goals met' if passed else 'a goal was missed'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
