# SPDX-License-Identifier: Apache-2.0
"""`vm-tests/host`: hosts for a developer's own use."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from . import KINDS, Host, HostError, Recipe, registry

_CHECKOUT = Path(__file__).resolve().parents[2]


def newest_deb() -> Path | None:
    """The package built last in this checkout, if any was."""
    built = sorted(_CHECKOUT.glob("dist/*.deb"), key=lambda path: path.stat().st_mtime)
    return built[-1] if built else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="host", description="Real hosts to try syscont on.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, help in (
        ("shell", "open a shell on a fresh host, which goes when the shell ends"),
        ("run", "run a command on a fresh host and end with its exit status"),
        ("prepare", "fill the caches, so that the next host boots at once"),
    ):
        one = verbs.add_parser(verb, help=help, description=help)
        one.add_argument("--kind", choices=sorted(KINDS), default="container")
        one.add_argument("--suite", default="trixie", help="Debian release (default: trixie)")
        one.add_argument("--variant", default="plain", help="plain, or incus: with Incus in it")
        if verb != "prepare":
            one.add_argument(
                "--deb", type=Path, help="package to install (default: newest in dist/)"
            )
            one.add_argument("--bare", action="store_true", help="install no package")
            one.add_argument("--no-uplink", action="store_true", help="no way to the network")
        if verb == "run":
            one.add_argument("command", nargs="+", metavar="CMD", help="after --")
    verbs.add_parser("list", help="list the hosts that there are")
    verbs.add_parser("sweep", help="remove hosts that a crashed run left behind")
    return parser


def _fresh(options: argparse.Namespace) -> Host:
    recipe = Recipe(options.suite, options.variant)
    host = KINDS[options.kind](recipe=recipe, uplink=not options.no_uplink)
    deb = None if options.bare else options.deb or newest_deb()
    if deb:
        try:
            host.install_deb(deb)
        except BaseException:
            host.close()
            raise
    return host


def _shell(options: argparse.Namespace) -> int:
    with _fresh(options) as host:
        return host.shell()


def _run(options: argparse.Namespace) -> int:
    with _fresh(options) as host:
        streams = {"stdin": None, "stdout": None, "stderr": None}
        with host.spawn(options.command, **streams, tty=sys.stdin.isatty()) as process:
            return process.wait()


def _prepare(options: argparse.Namespace) -> int:
    KINDS[options.kind].prepare(Recipe(options.suite, options.variant))
    return 0


def _list(_: argparse.Namespace) -> int:
    print(f"{'NAME':<16}{'KIND':<12}{'STATE':<12}OWNER")
    for record in registry.records():
        state = "left behind" if not record.owned() else "running" if record.alive() else "off"
        print(f"{record.name:<16}{record.kind:<12}{state:<12}{record.owner}")
    return 0


def _sweep(_: argparse.Namespace) -> int:
    registry.sweep()
    return 0


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "shell": _shell, "run": _run, "prepare": _prepare, "list": _list, "sweep": _sweep,
}  # fmt: skip


def main() -> int:
    options = _parser().parse_args()
    try:
        return _VERBS[options.verb](options)
    except KeyboardInterrupt:
        return 130
    except (HostError, subprocess.CalledProcessError) as error:
        print(f"host: {error}", file=sys.stderr)
        return 1
