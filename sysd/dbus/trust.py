# SPDX-License-Identifier: Apache-2.0
"""What org.syscont.Manager has for other hosts and their users: whom this one trusts."""

from __future__ import annotations

from typing import Any

from sysd.dbus.interface import Call, Method, Property
from sysd.manager.actions import Action
from sysd.manager.trust import Trust

SECOND = 1_000_000


class TrustMethods:
    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    def manager_methods(self) -> list[Method]:
        manage, name = Action.MANAGE_TRUST, ("s", "name")
        return [
            Method("ListTrusted", [], [("a(ssstt)", "trusted")], self._list),
            Method("AddTrusted", [("s", "certificate"), name], [("s", "fingerprint")], self._add, manage),
            Method("RemoveTrusted", [name], [], self._remove, manage),
            Method("CreateToken", [name], [("s", "token"), ("t", "expires")], self._create_token, manage),
        ]

    def manager_properties(self) -> list[Property]:
        return [Property("Trusted", "a(ss)", lambda _: [[one.fingerprint, one.name] for one in self._trust.trusted()])]

    async def _list(self, _: str, call: Call) -> list[Any]:
        """Name, fingerprint, "client" or "token", and microseconds since the epoch: when it came, and when it goes."""
        trusted = [[one.name, one.fingerprint, "client", one.added, 0] for one in self._trust.trusted()]
        invited = self._trust.invitations()
        return [[*trusted, *([one.name, one.fingerprint, "token", 0, one.expires * SECOND] for one in invited)]]

    async def _add(self, _: str, call: Call) -> list[Any]:
        return [self._trust.add(call.body[0], call.body[1]).fingerprint]

    async def _remove(self, _: str, call: Call) -> list[Any]:
        self._trust.remove(call.body[0])
        return []

    async def _create_token(self, _: str, call: Call) -> list[Any]:
        """name: what who comes is to be called, "" for as they say."""
        token = self._trust.invite(call.body[0])
        return [str(token), token.expires * SECOND]
