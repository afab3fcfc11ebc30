# SPDX-License-Identifier: Apache-2.0
"""What each of two hosts does not do, whatever the other one says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from sysd.manager.departures import Departures, Peer, Send, check_free_to_go, introduce
from sysd.manager.transfers import Receive, Transfers, _Coming
from sysd.model.errors import (
    BusyError,
    DeniedError,
    ExistsError,
    FailedError,
    InvalidError,
    NotFoundError,
    UnsupportedError,
)
from sysd.model.image import Image, Init
from sysd.model.instance import Instance, Kind, Phase
from sysd.model.snapshot import Snapshot
from sysd.model.transfer import Introduction, Taken

UUID = "265bafa7-606b-445b-a733-199a45a1450a"
WEB1 = Instance(UUID, "web1", "f" * 64, 0, phase=Phase.READY, profiles=["default"])
SAID = Introduction(Kind.CONTAINER, "web1", UUID, 5, "", ["default"], [Taken("s1", 3), Taken("s2", 4)])
PEER = Peer("certificate", [])


def image(volume: str) -> Image:
    return Image("e" * 64, "x86_64", Init.OTHER, 1, "", {"volume": volume} if volume else {}, 1)


def talk(*heard: dict[str, Any]) -> MagicMock:
    made = MagicMock()
    made.hear = AsyncMock(side_effect=heard)
    return made


def transfers(*volumes: str) -> Transfers:
    """Where what is unpacked has these volumes."""
    made: Any = Transfers(*(MagicMock() for _ in range(13)))

    async def unpack(
        handle: object, fd: int, hold: Callable[[list[Image]], None], *, fresh: bool, settled: Callable[[], None]
    ) -> object:
        settled()
        hold([image(volume) for volume in volumes])
        return {"type": "container"}

    made._images.unpack_backup = unpack
    made._arrivals.make = AsyncMock()
    made._refreshes.check = AsyncMock()
    made._table.find.return_value = None
    made._catalog.project.return_value.restricted = False
    made._catalog.check_profiles.return_value = ["default"]
    return made  # type: ignore[no-any-return]


def take(made: Transfers, said: Introduction, wanted: Receive, *more: dict[str, Any]) -> MagicMock:
    words = talk({"say": "instance", **said.said()}, *more)
    asyncio.run(made._take(MagicMock(), words, wanted, _Coming(PEER, [], 0)))
    return words


SENT = {"say": "sent"}
BYE = {"say": "bye"}


def test_one_that_comes() -> None:
    made: Any = transfers("", "s1", "s2")
    words = take(made, SAID, Receive("default:"), SENT, BYE)
    words.say.assert_any_call("wanted", snapshots=["s1", "s2"])
    words.say.assert_any_call("made")
    arrival = made._arrivals.make.call_args.args[1]
    assert (arrival.reference, arrival.uuid, arrival.created, arrival.arriving) == ("web1", "", 0, None)
    assert arrival.taken["s1"].created == 3


def test_only_one_that_runs_is_waited_for() -> None:
    for runs in (False, True):
        made: Any = transfers("", "s1", "s2")
        made._lifecycle.check_startable = AsyncMock()
        words = take(made, replace(SAID, runs=runs), Receive("default:"), SENT, BYE)
        assert (("settled",) in [call.args for call in words.say.call_args_list]) is runs
        assert made._lifecycle.check_startable.called is runs


@pytest.mark.parametrize("volumes", [("",), ("", "s1"), ("", "s1", "s2", "s3"), ("s1", "s2"), ("", "s1", "s3")])
def test_other_snapshots_than_those_that_were_told_of(volumes: tuple[str, ...]) -> None:
    made: Any = transfers(*volumes)
    with pytest.raises(FailedError, match="other snapshots"):
        take(made, SAID, Receive("default:"), SENT, BYE)
    made._arrivals.make.assert_not_called()


def test_nothing_is_made_before_it_was_all() -> None:
    made: Any = transfers("", "s1", "s2")
    words = talk({"say": "instance", **SAID.said()})
    words.hear = AsyncMock(side_effect=[{"say": "instance", **SAID.said()}, FailedError("lost")])
    with pytest.raises(FailedError, match="lost"):
        asyncio.run(made._take(MagicMock(), words, Receive("default:"), _Coming(PEER, [], 0)))
    made._arrivals.make.assert_not_called()


@pytest.mark.parametrize("move", ["", "a" * 64])
def test_a_copy_is_no_move(move: str) -> None:
    with pytest.raises(FailedError, match="a copy, and the other one for a move"):
        take(transfers(""), replace(SAID, move=move), Receive("default:", move=not move))


def test_what_can_be_known_before_it_comes() -> None:
    """So nothing is asked for."""
    for name, error in (("check_free", ExistsError), ("check_new", ExistsError)):
        made: Any = transfers("")
        getattr(made._instances, name).side_effect = error("there is one")
        with pytest.raises(error):
            take(made, replace(SAID, move="a" * 64), Receive("default:", move=True))
    made = transfers("")
    made._catalog.project.return_value.restricted = True
    with pytest.raises(DeniedError):
        take(made, SAID, Receive("default:"))
    made = transfers("")
    made._catalog.check_profiles.side_effect = NotFoundError("no profile special")
    with pytest.raises(NotFoundError, match="where web1 is to be"):
        take(made, SAID, Receive("default:"))


def test_what_the_target_wants() -> None:
    taken = [Snapshot("u1", UUID, "s1", "f" * 64), Snapshot("u2", UUID, "s2", "f" * 64)]
    for wanted, chosen in ((["s2"], ["s2"]), ([], []), (["s1", "s1", "s2"], ["s1", "s2"])):
        found = asyncio.run(introduce(talk({"say": "wanted", "snapshots": wanted}), WEB1, taken))
        assert [each.name for each in found] == chosen
    for strange in (None, "s1", ["s3"], [["s1"]], [None], {"s1": 1}):
        with pytest.raises(FailedError):
            asyncio.run(introduce(talk({"say": "wanted", "snapshots": strange}), WEB1, taken))


# what a source does not give up


def source() -> Any:
    made: Any = Departures(*(MagicMock() for _ in range(8)))
    made._table.ready.return_value = WEB1
    made._snapshots.find.return_value = (WEB1, None)
    made._snapshots.of.return_value = []
    made._lifecycle.refresh = AsyncMock()
    made._lifecycle.forget = AsyncMock()
    made._states.is_kept.return_value = False
    return made


def offer(made: Any) -> None:
    asyncio.run(made._offer(MagicMock(), talk(), MagicMock(id="a" * 64, instance=UUID), Send("web1", move=True)))


def test_what_would_be_lost_with_it() -> None:
    made = source()
    made._states.is_kept.return_value = True
    with pytest.raises(UnsupportedError, match="memory"):
        offer(made)
    made = source()
    made._snapshots.of.return_value = [Snapshot("u1", UUID, "s1", "f" * 64, stateful=True)]
    with pytest.raises(UnsupportedError, match="snapshot s1"):
        offer(made)
    made._lifecycle.forget.assert_not_called()


def test_one_that_runs_or_is_protected() -> None:
    made = source()
    made._instances.check_movable.side_effect = BusyError("it runs")
    with pytest.raises(BusyError):
        made.check(Send("web1", move=True))
    with pytest.raises(BusyError):
        offer(made)


def test_with_its_memory_or_not_at_all() -> None:
    made = source()
    with pytest.raises(InvalidError, match="when it moves"):
        made.check(Send("web1", stateful=True))
    made._states.check_memory.assert_not_called()
    made.check(Send("web1", move=True))
    made._states.check_memory.assert_not_called()
    made._states.check_memory.side_effect = UnsupportedError("it is a container")
    with pytest.raises(UnsupportedError):
        made.check(Send("web1", move=True, stateful=True))


def test_nobody_is_awaited_for_what_may_not_go() -> None:
    made: Any = transfers()
    made._departures.check.side_effect = BusyError("it is protected")
    with pytest.raises(BusyError):
        made.send(Send("web1", move=True), "peer", 0)
    made._meetings.offer.assert_not_called()


NIC = {"type": "nic", "network": "lab0"}


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (NIC, ""), (NIC | {"nictype": "macvlan"}, ""), ({"type": "disk", "path": "/", "pool": "default"}, ""),
        ({"type": "proxy"}, ""), ({"type": "none"}, ""), ({"type": "disk", "source": "/x", "path": "/x"}, "a folder"),
        ({"type": "disk", "source": "/", "path": "/"}, "a folder"), ({"type": "unix-char", "path": "/x"}, "hardware"),
        ({"type": "usb"}, "hardware"), ({"type": "gpu"}, "hardware"), ({"type": "anything new"}, "hardware"),
        ({"type": "nic", "nictype": "physical", "parent": "eno1"}, "hardware"),
        ({"type": "nic", "nictype": "sriov", "parent": "eno1"}, "hardware"),
        ({"type": "nic", "network": "blue", "acceleration": "sriov"}, "hardware"),
    ],
)  # fmt: skip
def test_what_ties_a_container_that_runs_to_its_host(device: dict[str, str], why: str) -> None:
    one = replace(WEB1, devices={"d": device})
    if not why:
        check_free_to_go(one)
        return
    with pytest.raises(UnsupportedError, match=rf"while it runs: device d \({why}"):
        check_free_to_go(one)


def test_a_snapshot_alone() -> None:
    made = source()
    made._snapshots.find.return_value = (WEB1, Snapshot("u1", UUID, "s1", "f" * 64))
    with pytest.raises(InvalidError):
        made.check(Send("web1/s1", move=True))


def test_nothing_is_moved_in_the_place_of_another() -> None:
    with pytest.raises(InvalidError):
        transfers().receive(Receive("default:x", move=True, refresh=True), "peer", 0)
