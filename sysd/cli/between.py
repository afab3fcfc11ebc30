# SPDX-License-Identifier: Apache-2.0
"""copy and move from one host to another. The two daemons get a connection of their own for it, though they need not
know each other: one of them waits for the other, which is told where and by which secret."""

from __future__ import annotations

import threading
import time

from sysd.cli import client
from sysd.cli.errors import CliError
from sysd.cli.output import say
from sysd.cli.remotes import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed

MOST_ADDRESSES = 32
PARTING = 15.0
"""Seconds in which the side that waits ends after the other one."""


class Side:
    """One of the two: a host, and what it is asked for. addresses: where the other one may reach it."""

    def __init__(self, host: str, method: str, parameters: Parameters) -> None:
        self.host = host
        self.method = method
        self.parameters = parameters
        self.addresses: list[str] = []
        self.certificate = ""
        self.result: Parameters = {}

    def look(self) -> None:
        said = client.call("GetIdentity", {}, self.host)
        self.certificate = str(said.get("certificate"))
        own = [str(one) for one in said.get("addresses") or []]
        if self.host == client.LOCAL:
            self.addresses = own
        elif own:
            # Where it is reached from here comes first: what a host knows of itself may be of a network of its own.
            self.addresses = list(dict.fromkeys([*load(self.host).addresses, *own]))[:MOST_ADDRESSES]


class Waiting(threading.Thread):
    """The side that the other one comes to, followed to its end. ended: when that was."""

    def __init__(self, side: Side, peer: str) -> None:
        super().__init__(daemon=True)
        self._side = side
        self._client = client.connect_to(side.host)
        self._client.send(side.method, {**side.parameters, "peer": peer}, more=True)
        first = self._client.receive()[0]
        self.offer: Parameters = {**first["offer"], "addresses": side.addresses}
        self._operation = str((first.get("operation") or {}).get("id"))
        self.error: CliError | None = None
        self.ended = 0.0

    def run(self) -> None:
        try:
            more = True
            while more:
                reply, more = self._client.receive()
            self._side.result = client.ended(reply).get("result") or {}
        except CliError as error:
            self.error = error
        self.ended = time.monotonic()

    def cancel(self) -> None:
        try:
            client.call("CancelOperation", {"id": self._operation}, self._side.host)
        except CliError:
            return  # it has ended, or its host is not there any more


def copy_between(parsed: Parsed, changes: Parameters) -> int:
    """``syscont copy`` of what is on one host to another."""
    only = True if parsed.flag("instance-only") else None
    source = Side(client.host(), "SendInstance", {"source": parsed.args[0], "instanceOnly": only})
    refresh = True if parsed.flag("refresh") else None
    target = Side(parsed.target_host, "ReceiveInstance", {"name": _target(parsed), **changes, "refresh": refresh})
    _transfer(source, target, parsed.value("mode", "auto"))
    return 0


def move_between(parsed: Parsed, changes: Parameters) -> int:
    """``syscont move`` of what is on one host to another."""
    only = True if parsed.flag("instance-only") else None
    source = Side(client.host(), "SendInstance", {"source": parsed.args[0], "instanceOnly": only, "move": True,
                                                   "stateful": True if parsed.flag("stateful") else None})
    target = Side(parsed.target_host, "ReceiveInstance", {"name": _target(parsed), **changes, "move": True})
    _transfer(source, target, parsed.value("mode", "auto"))
    return 0


def _target(parsed: Parsed) -> str:
    """PROJECT:NAME there; without a name that is the source's."""
    name = parsed.args[1] if len(parsed.args) > 1 else ""
    if ":" in name:
        return name
    source = client.host()
    client.use(parsed.target_host)
    try:
        project = parsed.value("target-project") or parsed.value("project") or client.current_project()
    finally:
        client.use(source)
    return f"{project}:{name}"


def _transfer(source: Side, target: Side, mode: str) -> None:
    for side in (source, target):
        side.look()
    ways = [] if mode == "pull" or not target.addresses else [(target, source)]
    ways += [] if mode == "push" or not source.addresses else [(source, target)]
    if not ways:
        raise _unreachable(source, target, mode)
    for waits, dials in ways:
        try:
            _go(waits, dials)
            break
        except CliError as error:
            if error.name != "Unreachable" or (waits, dials) == ways[-1]:
                raise
    if left := target.result.get("left-out"):
        say(f"left out, as {target.host} has no use for it: {left}")
    if pause := source.result.get("pause"):
        say(f"its guest stood still for {pause}")
    if stopped := source.result.get("stopped"):
        say(f"it was stopped for {stopped}")


def _unreachable(source: Side, target: Side, mode: str) -> CliError:
    who = {"pull": source.host, "push": target.host}.get(mode, "")
    why = f"{who} can't be reached by the other host" if who else "neither host can be reached by the other"
    where = {"pull": source.host, "push": target.host}.get(mode) or f"{target.host} or {source.host}"
    return CliError(why, f"'syscont config set core.https_address=:8443' on {where}")


def _go(waits: Side, dials: Side) -> None:
    waiting = Waiting(waits, dials.certificate)
    waiting.start()
    client.use(dials.host)
    try:
        operation = client.run_operation(dials.method, {**dials.parameters, "offer": waiting.offer})
        dials.result = operation.get("result") or {}
    except CliError as error:
        ended = time.monotonic()
        if not waiting.ended:
            waiting.cancel()
        waiting.join(PARTING)
        # Where it went wrong first is where it is known best why; that of Ctrl-C is known here.
        if waiting.error and waiting.ended < ended and error.name != "Cancelled":
            raise waiting.error from None
        raise error from None
    except BaseException:
        waiting.cancel()
        raise
    waiting.join(PARTING)
    if waiting.error:
        raise waiting.error
