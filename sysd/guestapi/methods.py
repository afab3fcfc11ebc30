# SPDX-License-Identifier: Apache-2.0
"""org.syscont.Guest, on /dev/syscont/sock: varlink for an instance that asks about itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from socket import socket

from sysd.guestapi.door import Host, Room
from sysd.guestapi.view import changes
from sysd.manager.actions import Authority, Caller
from sysd.model import cloudinit
from sysd.model.errors import InvalidError
from sysd.varlink.protocol import Limits, credentials
from sysd.varlink.service import Answers, Call, Interface, Method

INTERFACE = "org.syscont.Guest"
LIMITS = Limits(message=1 << 16, fds=0, unread=1 << 18)


class VarlinkServer:
    def __init__(self, host: Host, description: str, authority: Authority) -> None:
        self._host = host
        methods = [
            Method("GetInstance", self.get_instance),
            Method("GetConfig", self.get_config),
            Method("GetDevices", self.get_devices),
            Method("Monitor", self.monitor),
        ]
        self._answers = Answers(Interface(INTERFACE, description, methods), authority)

    def serve(self, room: Room, sock: socket, ended: Callable[[], None]) -> Callable[[], None]:
        pid, uid = credentials(sock)
        caller = Caller(uid, pid=pid, guest=room.uuid, pace=room.pace)
        return self._answers.add(sock, caller, ended, LIMITS).close

    async def get_instance(self, call: Call) -> None:
        instance = self._host.instance(call.caller.guest)
        call.reply(
            {
                "name": instance.name,
                "uuid": instance.uuid,
                "project": instance.project,
                "type": instance.kind,
                "metaData": cloudinit.meta_data(instance),
            }
        )

    async def get_config(self, call: Call) -> None:
        call.reply({"config": self._host.view(call.caller.guest).config})

    async def get_devices(self, call: Call) -> None:
        call.reply({"devices": self._host.view(call.caller.guest).devices})

    async def monitor(self, call: Call) -> None:
        if not call.more:
            raise InvalidError("Monitor was called without more")
        changed = asyncio.Event()
        seen = self._host.view(call.caller.guest)
        end = self._host.watch(call.caller.guest, changed.set)
        call.reply({}, continues=True)
        try:
            while await changed.wait():
                changed.clear()
                before, seen = seen, self._host.view(call.caller.guest)
                for change in changes(before, seen):
                    text = {"value": change.after, "oldValue": change.before}
                    options = {"device": change.after, "oldDevice": change.before}
                    shown = text if change.kind == "config" else options
                    what = {"kind": change.kind, "action": change.action, "name": change.name}
                    call.reply({"change": what | shown}, continues=True)
        finally:
            end()
