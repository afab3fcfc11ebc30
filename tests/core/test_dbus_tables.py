# SPDX-License-Identifier: Apache-2.0
"""The tables behind the D-Bus door, and the files that tell others about them."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from dbus_next import Variant

from sysd.dbus.interface import Call, Interface, Method, document
from sysd.dbus.objects import InstanceObjects
from sysd.manager.actions import Action, Caller
from sysd.model.errors import InvalidError
from sysd.model.instance import Instance
from tools.interfaces import FOLDER, interfaces

INTERFACES = interfaces()
READS = ("List", "Get")
OWNER_MAY = {"Cancel", "CancelOperation"}
"""Ask for permission themselves, since the owner of an operation needs none."""
ASKS = {"GetConfig", "GetServerConfig"}
"""Reads that need permission."""

POLICY = Path(__file__).resolve().parents[2] / "data/polkit-1/actions"


@pytest.mark.parametrize("interface", INTERFACES, ids=lambda i: i.name)
def test_shipped_files_are_what_is_served(interface: Interface) -> None:
    assert (FOLDER / f"{interface.name}.xml").read_text() == document(interface)


def test_no_other_files_are_shipped() -> None:
    assert {path.stem for path in FOLDER.glob("*.xml")} == {interface.name for interface in INTERFACES}


METHODS = [(interface.name, method) for interface in INTERFACES for method in interface.methods]


@pytest.mark.parametrize(("interface", "method"), METHODS, ids=lambda x: getattr(x, "name", x))
def test_what_changes_things_needs_permission(interface: str, method: Method) -> None:
    reads = (method.name.startswith(READS) and method.name not in ASKS) or method.name in OWNER_MAY
    assert (method.action is None) == reads


def test_every_action_is_known_to_polkit() -> None:
    known = {
        action.attrib["id"] for path in POLICY.glob("*.policy") for action in ET.parse(path).getroot().iter("action")
    }
    assert {action.value for action in Action} <= known


def test_secrets_are_no_property() -> None:
    config = {"user.cloud-init.user-data": "secret", "environment.TOKEN": "secret", "limits.memory": "1GiB"}
    manager = MagicMock()
    manager.table.get.return_value = Instance("u", "c1", "f", 65536, config=config)
    interface = InstanceObjects(manager).interface()
    assert interface.values("c1", ["Config"])["Config"].value == {"limits.memory": "1GiB"}
    method = interface.method("GetConfig")
    assert method

    async def ask() -> list[Any]:
        return await method.run("c1", Call([], Caller(0), []))

    assert asyncio.run(ask()) == [config]


async def _nothing(name: str, call: Call) -> list[Any]:
    return []


def test_trailing_options_may_be_left_out() -> None:
    method = Method("Start", [("s", "name"), ("a{sv}", "options")], [], _nothing)
    assert method.accepts("sa{sv}")
    assert method.accepts("s")
    assert not method.accepts("")
    assert asyncio.run(_nothing("", Call([], Caller(0), []))) == []


def _call(options: dict[str, Variant], fds: list[int] | None = None) -> Call:
    return Call([options], Caller(0), fds or [])


def test_options_are_checked() -> None:
    options = _call({"force": Variant("b", True), "timeout": Variant("s", "10")}).options
    assert options.flag("force") is True
    with pytest.raises(InvalidError, match="timeout"):
        options.take("timeout", "u", None)
    left = _call({"colour": Variant("s", "red")}).options
    with pytest.raises(InvalidError, match="colour"):
        left.end()


def test_a_descriptor_is_taken_once() -> None:
    call = _call({"stdin": Variant("h", 0), "stdout": Variant("h", 0)}, [99])
    assert call.options.fd("stdin") == 99
    with pytest.raises(InvalidError):
        call.options.fd("stdout")
