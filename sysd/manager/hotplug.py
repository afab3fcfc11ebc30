# SPDX-License-Identifier: Apache-2.0
"""Devices of instances that run: what a change of their configuration comes to is worked out from what they have."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sysd.model.errors import FailedError
from sysd.runtime.guest import ContainerGuest
from sysd.runtime.plugging import Change, plug
from sysd.runtime.spec import LaunchSpec, Plugged, Share

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One device more or less, and how that is undone."""

    do: Change
    undo: Change


def steps(shares: Sequence[Share], nics: Mapping[str, Plugged], wanted: LaunchSpec) -> list[Step]:
    """From what a guest has to what it is to have. What is mounted below another goes first and comes last."""
    gone_nics = [each for name, each in nics.items() if not each.same_link(wanted.nics.get(name))]
    new_nics = [each for name, each in wanted.nics.items() if not each.same_link(nics.get(name))]
    kept_nics = [(nics[name], each) for name, each in wanted.nics.items() if each.same_link(nics.get(name))]
    gone = [Change(remove=[share]) for share in reversed(shares) if share not in wanted.shares]
    new = [Change(add=[share]) for share in wanted.shares if share not in shares]
    return [
        *(Step(Change(links=each.unplug), Change(links=[*each.plug, *each.tune])) for each in gone_nics),
        *(Step(each, Change(add=each.remove)) for each in gone),
        *(Step(Change(links=[*each.plug, *each.tune]), Change(links=each.unplug)) for each in new_nics),
        *(Step(Change(links=new.tune), Change(links=old.tune)) for old, new in kept_nics if old.tune != new.tune),
        *(Step(each, Change(remove=each.add)) for each in new),
    ]


async def change(guest: ContainerGuest, todo: Sequence[Step]) -> None:
    """Do all steps, or leave the guest as it was; then FailedError says why."""
    for number, step in enumerate(todo):
        try:
            await plug(guest, step.do)
        except FailedError:
            # Of several requests for a link some may have been heeded.
            begun = todo[: number + 1] if step.do.links else todo[:number]
            await _undo(guest, begun)
            raise


async def _undo(guest: ContainerGuest, done: Sequence[Step]) -> None:
    for step in reversed(done):
        try:
            await plug(guest, step.undo)
        except FailedError as error:
            log.warning("%s: a change that failed could not be undone: %s", guest.unit, error.message)
