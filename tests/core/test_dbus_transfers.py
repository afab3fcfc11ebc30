# SPDX-License-Identifier: Apache-2.0
"""What goes over the bus for transfers has the types that it is said to have."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import MagicMock

import pytest
from dbus_next import Variant
from dbus_next.signature import SignatureTree

from sysd.dbus.interface import Options
from sysd.dbus.transfers import OFFER, TransferMethods
from sysd.manager.departures import Send
from sysd.manager.transfers import Receive
from sysd.model.errors import InvalidError
from sysd.model.operation import Operation
from sysd.model.transfer import Offer

MADE = Offer(["192.0.2.1:8443", "[2001:db8::1]:8443"], "certificate", "secret", 5)
SAID = Variant(OFFER, [MADE.addresses, MADE.certificate, MADE.secret, MADE.expires])


def ask(name: str, made: Offer | None, word: str, options: dict[str, Variant]) -> tuple[list[Any], Any]:
    """What is answered, and what the manager was asked."""
    manager = MagicMock()
    verb = {"SendInstance": "send", "ReceiveInstance": "receive"}[name]
    asked = getattr(manager.transfers, verb)
    asked.return_value = (Operation("op1", "kind", "target"), made)
    (method,) = [each for each in TransferMethods(manager).manager_methods() if each.name == name]
    call = MagicMock(body=[word, {}])
    call.caller.uid = 7
    call.options = Options(options, call)

    async def run() -> list[Any]:
        return await method.run("", call)

    body = asyncio.run(run())
    SignatureTree("".join(signature for signature, _ in method.gives)).verify(body)
    return body, asked.call_args.args


@pytest.mark.parametrize("offer", [MADE, None])
def test_what_is_answered(offer: Offer | None) -> None:
    body, _ = ask("SendInstance", offer, "web1", {"peer": Variant("s", "theirs")})
    assert body[1] == ([MADE.addresses, "certificate", "secret", 5] if offer else [[], "", "", 0])


def test_what_is_asked_for() -> None:
    options = {"instance-only": Variant("b", True), "move": Variant("b", True), "peer": Variant("s", "theirs")}
    assert ask("SendInstance", None, "web1", options)[1] == (Send("web1", True, True), "theirs", 7)
    options = {"config": Variant("a{ss}", {"user.a": "b"}), "profiles": Variant("as", []), "offer": SAID,
               "refresh": Variant("b", True)}  # fmt: skip
    wanted = Receive("lab:", {"user.a": "b"}, profiles=[], refresh=True)
    assert ask("ReceiveInstance", None, "lab:", options)[1] == (wanted, MADE, 7)


@pytest.mark.parametrize("options", [{}, {"peer": Variant("s", "x"), "offer": SAID}, {"offer": Variant("s", "x")}])
def test_one_of_the_two(options: dict[str, Variant]) -> None:
    with pytest.raises(InvalidError):
        ask("SendInstance", None, "web1", options)
