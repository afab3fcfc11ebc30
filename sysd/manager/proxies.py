# SPDX-License-Identifier: Apache-2.0
"""Proxies of instances that run: they come with the guest, change with its devices, and systemd ends them with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence

from sysd.manager.table import Table
from sysd.model.errors import FailedError, SyscontError
from sysd.model.instance import Instance
from sysd.network import links, translation
from sysd.runtime import proxies
from sysd.runtime.guest import ContainerGuest, Guest
from sysd.runtime.plugging import Change, plug
from sysd.runtime.proxies import Proxy
from sysd.runtime.spec import Share
from sysd.units.bus import BusError
from sysd.units.systemd import JobError, Systemd

log = logging.getLogger(__name__)


class Proxies:
    def __init__(self, table: Table, systemd: Systemd) -> None:
        self._table = table
        self._systemd = systemd
        self._shown: dict[str, Share] = {}
        self._served: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    async def started(self, uuid: str) -> None:
        """A guest came up, or was found again."""
        instance = self._table.find_uuid(uuid)
        try:
            if instance:
                await self.sync(self._table.expanded(instance))
        except (SyscontError, BusError) as error:
            log.error("%s: proxies do not work: %s", instance.reference if instance else uuid, error)

    async def sync(self, expanded: Instance) -> None:
        """Let an instance that runs have the proxies of its configuration: those that are as they should be stay, with
        all their connections. Raises FailedError when one can't be made; the others are."""
        guest = self._table.live(expanded).guest
        if guest is None:
            return
        lock = self._locks.setdefault(expanded.uuid, asyncio.Lock())
        async with lock:
            wanted = _carried(expanded, guest)
            wanted += [Proxy(unit, {}, service) for unit, service in translation.of_instance(expanded)]
            for version in translation.versions(expanded):
                await asyncio.to_thread(links.enable_forwarding, version)
            if not wanted and expanded.uuid not in self._served:
                return
            self._served.add(expanded.uuid)
            running = await self._running(expanded)
            for unit in {_stem(unit) for unit in running} - {proxy.unit for proxy in wanted}:
                await self._stop(guest, unit)
            await self._start_all(guest, wanted, running)

    async def _start_all(self, guest: Guest, wanted: Sequence[Proxy], running: dict[str, str]) -> None:
        failed = []
        for proxy in wanted:
            if running.get(proxy.main) == proxy.description:
                self._remember(proxy)  # one that outlived an earlier daemon, too
                continue
            if proxy.unit in {_stem(unit) for unit in running}:
                await self._stop(guest, proxy.unit)
            try:
                await self._start(guest, proxy)
            except FailedError as error:
                failed.append(error.message)
        if failed:
            raise FailedError("; ".join(failed))

    async def _running(self, instance: Instance) -> dict[str, str]:
        """Names and descriptions of the units that there are; no description of one that is not active."""
        units = await self._systemd.list_units(proxies.pattern(instance))
        return {unit.name: unit.description if unit.active_state == "active" else "" for unit in units}

    async def _start(self, guest: Guest, proxy: Proxy) -> None:
        properties = proxy.socket or proxy.service
        others = {f"{proxy.unit}.service": proxy.service} if proxy.socket else {}
        try:
            job = await self._systemd.start_transient(proxy.main, properties, auxiliary=others)
            await self._systemd.finish(proxy.main, job)
        except (BusError, JobError) as error:
            raise FailedError(f"{proxy.unit} can't listen: {error}", f"journalctl -u {proxy.main}") from None
        if proxy.share and isinstance(guest, ContainerGuest):
            os.chown(proxy.share.source, *proxy.owner)
            await plug(guest, Change(add=[proxy.share]))
            self._remember(proxy)

    def _remember(self, proxy: Proxy) -> None:
        if proxy.share:
            self._shown[proxy.unit] = proxy.share

    async def _stop(self, guest: Guest, unit: str) -> None:
        share = self._shown.pop(unit, None)
        if share and isinstance(guest, ContainerGuest):
            with contextlib.suppress(FailedError):  # of the guest before its reboot, or not where it was any more
                await plug(guest, Change(remove=[share]))
        for suffix in (".socket", ".service"):
            with contextlib.suppress(BusError):
                await self._systemd.wait_job(await self._systemd.stop_unit(unit + suffix))
            with contextlib.suppress(SyscontError):
                await self._systemd.forget(unit + suffix)


def _carried(expanded: Instance, guest: Guest) -> list[Proxy]:
    """Those that processes of ours carry; a virtual machine has none (sysd.model.kinds)."""
    if not isinstance(guest, ContainerGuest):
        return []
    return proxies.of_instance(expanded, proxies.Inside(guest.leader, guest.confinement.ids))


def _stem(unit: str) -> str:
    return unit.rpartition(".")[0]
