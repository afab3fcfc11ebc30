# SPDX-License-Identifier: Apache-2.0
"""ACLs on varlink."""

from __future__ import annotations

from typing import Any

from sysd.manager.acls import AclUpdate
from sysd.manager.actions import Action
from sysd.manager.manager import Manager
from sysd.model import acls
from sysd.model.acls import Acl
from sysd.varlink.service import Call, Method


class AclMethods:
    def __init__(self, manager: Manager) -> None:
        self._catalog = manager.catalog
        self._acls = manager.acls

    def table(self) -> list[Method]:
        manage = Action.MANAGE_NETWORKS
        return [
            Method("ListAcls", self.list_acls),
            Method("GetAcl", self.get_acl),
            Method("CreateAcl", self.create_acl, manage),
            Method("UpdateAcl", self.update_acl, manage),
            Method("ChangeAcl", self.change_acl, manage),
            Method("RenameAcl", self.rename_acl, manage),
            Method("DeleteAcl", self.delete_acl, manage),
            Method("AddAclRule", self.add_rule, manage),
            Method("RemoveAclRule", self.remove_rule, manage),
        ]

    async def list_acls(self, call: Call) -> None:
        call.reply({"acls": [self._acl(acl) for acl in self._catalog.acls()]})

    async def get_acl(self, call: Call) -> None:
        call.reply({"acl": self._acl(self._catalog.acl(call.text("name")))})

    async def create_acl(self, call: Call) -> None:
        await self._acls.create(call.text("name"), _update(call))
        call.reply({})

    async def update_acl(self, call: Call) -> None:
        await self._acls.update(call.text("name"), _update(call), call.caller.uid)
        call.reply({})

    async def change_acl(self, call: Call) -> None:
        await self._acls.change_config(call.text("name"), call.mapping("set"), call.texts("unset"), call.caller.uid)
        call.reply({})

    async def rename_acl(self, call: Call) -> None:
        await self._acls.rename(call.text("name"), call.text("newName"))
        call.reply({})

    async def delete_acl(self, call: Call) -> None:
        await self._acls.delete(call.text("name"))
        call.reply({})

    async def add_rule(self, call: Call) -> None:
        direction, rule = acls.check_direction(call.text("direction")), call.mapping("rule")
        await self._acls.change_rules(
            call.text("name"), direction, lambda acl: acls.with_rule(acl, direction, rule), call.caller.uid
        )
        call.reply({})

    async def remove_rule(self, call: Call) -> None:
        direction, rule = acls.check_direction(call.text("direction")), call.mapping("rule")
        force = call.flag("force")

        def without(acl: Acl) -> list[dict[str, str]]:
            return acls.without_rule(acl, direction, rule, all_of_them=force)

        await self._acls.change_rules(call.text("name"), direction, without, call.caller.uid)
        call.reply({})

    def _acl(self, value: Acl) -> dict[str, Any]:
        return {
            "name": value.name,
            "description": value.description,
            "config": value.config,
            "ingress": value.ingress,
            "egress": value.egress,
            "usedBy": self._acls.users(value.name),
        }


def _update(call: Call) -> AclUpdate:
    return AclUpdate(
        description=call.text("description") if call.has("description") else None,
        config=call.mapping("config") if call.has("config") else None,
        ingress=call.rows("ingress") if call.has("ingress") else None,
        egress=call.rows("egress") if call.has("egress") else None,
    )
