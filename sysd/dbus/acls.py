# SPDX-License-Identifier: Apache-2.0
"""ACLs as D-Bus objects, and the manager's methods for them."""

from __future__ import annotations

from typing import Any

from sysd.dbus.interface import Call, Interface, Method, Options, Property
from sysd.dbus.operation import OPTIONS
from sysd.dbus.service import Kind
from sysd.manager.acls import AclUpdate
from sysd.manager.actions import Action
from sysd.manager.manager import Manager
from sysd.model import acls
from sysd.model.acls import Acl

RULES = "aa{ss}"
"""Of each, what is said in it: action, state, source and so on, as the command line has it."""
RULE = [("s", "direction"), ("a{ss}", "rule")]


def _update(options: Options) -> AclUpdate:
    """description (s), config (a{ss}), ingress and egress (aa{ss}); what is not given stays."""
    update = AclUpdate(
        description=options.take("description", "s", None),
        config=options.take("config", "a{ss}", None),
        ingress=options.take("ingress", RULES, None),
        egress=options.take("egress", RULES, None),
    )
    options.end()
    return update


class AclObjects:
    """org.syscont.NetworkACL"""

    def __init__(self, manager: Manager) -> None:
        self._catalog = manager.catalog
        self._acls = manager.acls

    def kind(self) -> Kind:
        return Kind("acl", self.interface(), lambda: [acl.name for acl in self._catalog.acls()], self._catalog.has_acl)

    def manager_methods(self) -> list[Method]:
        give = [("o", "acl")]
        return [
            Method("ListNetworkACLs", [], [("a(sso)", "acls")], self._list),
            Method("GetNetworkACL", [("s", "name")], give, self._get),
            Method("CreateNetworkACL", [("s", "name"), OPTIONS], give, self._create, Action.MANAGE_NETWORKS),
        ]

    def interface(self) -> Interface:
        manage, find = Action.MANAGE_NETWORKS, self._catalog.acl
        return Interface(
            "org.syscont.NetworkACL",
            [
                Method("Update", [OPTIONS], [], self._update, manage),
                Method("ChangeConfig", [("a{ss}", "set"), ("as", "unset")], [], self._change_config, manage),
                Method("AddRule", RULE, [], self._add_rule, manage),
                Method("RemoveRule", [*RULE, OPTIONS], [], self._remove_rule, manage),
                Method("Rename", [("s", "new_name")], [("o", "acl")], self._rename, manage),
                Method("Delete", [], [], self._delete, manage),
            ],
            [
                Property("Name", "s", lambda name: name, changes=False),
                Property("Description", "s", lambda name: find(name).description),
                Property("Config", "a{ss}", lambda name: find(name).config),
                Property("Ingress", RULES, lambda name: find(name).ingress),
                Property("Egress", RULES, lambda name: find(name).egress),
            ],
        )

    async def _list(self, _: str, call: Call) -> list[Any]:
        """Of each: name, description, object."""
        path = self.kind().path
        return [[[acl.name, acl.description, path(acl.name)] for acl in self._catalog.acls()]]

    async def _get(self, _: str, call: Call) -> list[Any]:
        return [self.kind().path(self._catalog.acl(call.body[0]).name)]

    async def _create(self, _: str, call: Call) -> list[Any]:
        """Options: those of Update."""
        acl = await self._acls.create(call.body[0], _update(call.options))
        return [self.kind().path(acl.name)]

    async def _update(self, name: str, call: Call) -> list[Any]:
        await self._acls.update(name, _update(call.options), call.caller.uid)
        return []

    async def _change_config(self, name: str, call: Call) -> list[Any]:
        await self._acls.change_config(name, call.body[0], call.body[1], call.caller.uid)
        return []

    async def _add_rule(self, name: str, call: Call) -> list[Any]:
        direction, rule = acls.check_direction(call.body[0]), call.body[1]
        await self._acls.change_rules(
            name, direction, lambda acl: acls.with_rule(acl, direction, rule), call.caller.uid
        )
        return []

    async def _remove_rule(self, name: str, call: Call) -> list[Any]:
        """rule: what is said of it. Options: force (b), to remove all of which so much is said."""
        direction, rule, options = acls.check_direction(call.body[0]), call.body[1], call.options
        force = options.flag("force")
        options.end()

        def without(acl: Acl) -> list[dict[str, str]]:
            return acls.without_rule(acl, direction, rule, all_of_them=force)

        await self._acls.change_rules(name, direction, without, call.caller.uid)
        return []

    async def _rename(self, name: str, call: Call) -> list[Any]:
        await self._acls.rename(name, call.body[0])
        return [self.kind().path(call.body[0])]

    async def _delete(self, name: str, call: Call) -> list[Any]:
        await self._acls.delete(name)
        return []
