# SPDX-License-Identifier: Apache-2.0
"""What may need permission: the polkit actions, and who asks. Doors authorise before they parse further."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sysd.runtime.pace import Pace


class Action(StrEnum):
    """Names as in data/polkit-1; reading needs none."""

    MANAGE_INSTANCES = "org.syscont.manage-instances"
    EXECUTE = "org.syscont.exec"
    FILES = "org.syscont.files"
    MANAGE_IMAGES = "org.syscont.manage-images"
    MANAGE_NETWORKS = "org.syscont.manage-networks"
    MANAGE_ZONES = "org.syscont.manage-zones"
    MANAGE_PROFILES = "org.syscont.manage-profiles"
    MANAGE_PROJECTS = "org.syscont.manage-projects"
    MANAGE_SERVER = "org.syscont.manage-server"
    MANAGE_OPERATIONS = "org.syscont.manage-operations"
    MANAGE_TRUST = "org.syscont.manage-trust"


ROOT = 0
NOBODY = -1
"""Of no user of the host."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: on the bus by unique name, on the socket by process; guest: from inside the instance of this UUID;
    remote: from another host, with a certificate that is trusted under this name, and certificate is its fingerprint.
    pace: how often it may ask, if there is a limit to that."""

    uid: int
    bus_name: str = ""
    pid: int = 0
    guest: str = ""
    remote: str = ""
    certificate: str = ""
    pace: Pace | None = None

    @property
    def is_root(self) -> bool:
        """Whether all is permitted: to root, and to whom root trusts from elsewhere."""
        return self.uid == ROOT


def trusted_remote(name: str, certificate: str = "") -> Caller:
    """Who has a trusted certificate is as good as root here."""
    return Caller(ROOT, remote=name, certificate=certificate)


def invited(invitation: str) -> Caller:
    """Who has no more than a token, which is all that may be asked of it; remote is what the token is known by."""
    return Caller(NOBODY, remote=invitation)


def awaited(certificate: str) -> Caller:
    """A host that is to show a secret, and is told nothing before."""
    return Caller(NOBODY, remote=certificate, certificate=certificate)


class Authority(Protocol):
    async def check(self, caller: Caller, action: Action, details: dict[str, str]) -> None:
        """Return when caller may do action; else raise DeniedError."""
