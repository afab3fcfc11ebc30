# SPDX-License-Identifier: Apache-2.0
"""Whether there is a door for other hosts: not before core.https_address is set, for OpenSSL takes some MB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sysd.manager.actions import Authority
from sysd.manager.manager import Manager
from sysd.model.server import HTTPS_ADDRESS
from sysd.varlink.service import Interface

if TYPE_CHECKING:
    from sysd.varlink.remote import RemoteDoor


class RemoteEntrance:
    def __init__(self, manager: Manager, interface: Interface, authority: Authority) -> None:
        """Open where the host's configuration says, as soon as it can be."""
        self._manager = manager
        self._interface = interface
        self._authority = authority
        self._door: RemoteDoor | None = None
        manager.server.before_change(self._check_server_config)
        if where := manager.server.config.get(HTTPS_ADDRESS):
            self._load().listen_sometime(where)

    def close(self) -> None:
        if self._door:
            self._door.close()

    def _check_server_config(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        if HTTPS_ADDRESS in after or self._door:
            self._load().check_server_config(before, after)

    def _load(self) -> RemoteDoor:
        if self._door is None:
            from sysd.varlink.remote import RemoteDoor

            manager = self._manager
            self._door = RemoteDoor(
                manager.trust, manager.meetings, manager.settlements, self._interface, self._authority
            )
        return self._door
