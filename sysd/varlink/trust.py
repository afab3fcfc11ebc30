# SPDX-License-Identifier: Apache-2.0
"""Whom the host trusts, on varlink."""

from __future__ import annotations

from sysd.manager.actions import Action
from sysd.manager.trust import Trust
from sysd.varlink.service import Call, Method


class TrustMethods:
    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    def table(self) -> list[Method]:
        manage = Action.MANAGE_TRUST
        return [
            Method("GetIdentity", self.identity),
            Method("ListTrusted", self.list),
            Method("AddTrusted", self.add, manage),
            Method("RemoveTrusted", self.remove, manage),
            Method("CreateToken", self.create_token, manage),
        ]

    async def identity(self, call: Call) -> None:
        certificate, addresses = self._trust.told()
        call.reply({"certificate": certificate, "addresses": addresses})

    async def list(self, call: Call) -> None:
        trusted = [
            {"name": one.name, "fingerprint": one.fingerprint, "type": "client", "added": one.added, "expires": 0}
            for one in self._trust.trusted()
        ]
        tokens = [
            {
                "name": one.name,
                "fingerprint": one.fingerprint,
                "type": "token",
                "added": 0,
                "expires": one.expires * 1_000_000,
            }
            for one in self._trust.invitations()
        ]
        call.reply({"trusted": trusted + tokens})

    async def add(self, call: Call) -> None:
        call.reply({"fingerprint": self._trust.add(call.text("certificate"), call.text("name")).fingerprint})

    async def remove(self, call: Call) -> None:
        self._trust.remove(call.text("name"))
        call.reply({})

    async def create_token(self, call: Call) -> None:
        token = self._trust.invite(call.text("name", ""))
        call.reply({"token": str(token), "expires": token.expires * 1_000_000})
