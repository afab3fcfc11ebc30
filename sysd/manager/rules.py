# SPDX-License-Identifier: Apache-2.0
"""What projects allow, asked before any instance becomes other than it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sysd.manager.catalog import Catalog, Lookup
from sysd.manager.hosts import all_ports, check_devices, check_kept, check_routes
from sysd.manager.ids import Ids
from sysd.manager.published import check_published
from sysd.manager.quotas import Quotas
from sysd.manager.table import Table
from sysd.model import kinds
from sysd.model.devices.nic import published, routes
from sysd.model.errors import InvalidError, NotFoundError
from sysd.model.instance import Instance, Phase
from sysd.model.project import Project
from sysd.model.restrictions import check_limits, check_restrictions
from sysd.network import links


class Rules:
    def __init__(self, catalog: Catalog, table: Table, ids: Ids, quotas: Quotas) -> None:
        self._catalog = catalog
        self._table = table
        self._ids = ids
        self._quotas = quotas

    def check(self, changed: Sequence[Instance], look: Lookup | None = None) -> None:
        """Raise DeniedError, or InvalidError, unless each of changed, in place of what it is now, is what its project
        allows once its profiles are merged into it, and can be kept apart. look: see Catalog.expand."""
        everyone: list[Instance] = []
        for name in {instance.project for instance in changed}:
            staying = [one for one in changed if one.project == name and _stays(one)]
            merged = [self._catalog.expand(one, look) for one in staying]
            if not merged:
                continue
            for own, expanded in zip(staying, merged, strict=True):
                kinds.check(own, expanded)
            project = self._catalog.project(name)
            self._check_profiles(project, merged, look or self._catalog.find_profile)
            for instance in merged:
                self._ids.check(instance)
                self._quotas.check(instance)
                check_devices(instance.devices, self._catalog.find_network, self._catalog.find_acl)
                check_restrictions(project, instance)
            if _has_limits(project):
                check_limits(project, [*self._others(project, changed), *merged])
            everyone += merged
        # Networks are there for all projects.
        self._check_kept(changed, everyone)
        self._check_routes(changed, everyone)
        self._check_links(changed, everyone)

    def _check_profiles(self, project: Project, instances: Iterable[Instance], look: Lookup) -> None:
        """Without a profile that is gone, an instance would be something else than its owner said."""
        for instance in instances:
            for name in instance.profiles:
                if look(project.profile_project, name) is None:
                    raise NotFoundError(f"{instance.reference} has a profile {name!r}, which does not exist")

    def _check_kept(self, changed: Sequence[Instance], merged: Sequence[Instance]) -> None:
        """The addresses that their interfaces always have, beside those of everybody else's."""
        wanted = {
            device.get("network", "")
            for instance in merged
            for device in instance.devices.values()
            if "ipv4.address" in device or "ipv6.address" in device
        }
        for network in filter(None, map(self._catalog.find_network, wanted)):
            check_kept(network, merged, self._all_but(changed))

    def _check_routes(self, changed: Sequence[Instance], merged: Sequence[Instance]) -> None:
        """What is behind their interfaces, beside all that is somewhere else."""
        devices = [device for instance in merged for device in instance.devices.values()]
        if not any(device.get("type") == "nic" and (routes(device) or published(device)) for device in devices):
            return
        others, networks = self._all_but(changed), self._catalog.networks()
        ours = {network.link for network in networks if network.is_bridge}
        ours |= {port.host_name for port in all_ports([*merged, *others])}
        check_routes(merged, others, networks, [one for one in links.host_routes() if one.link not in ours])
        check_published(merged, networks)

    def _check_links(self, changed: Sequence[Instance], merged: Sequence[Instance]) -> None:
        """The names that somebody chose for links of the host's are nobody else's."""
        chosen = [port for port in all_ports(merged) if "host_name" in port.options]
        if not chosen:
            return
        before = [self._table.expanded(one) for one in map(self._table.find_uuid, (i.uuid for i in changed)) if one]
        own = {(port.instance.uuid, port.host_name) for port in all_ports(before)}
        owners = {port.host_name: port for port in all_ports(self._all_but(changed))}
        for port in chosen:
            other = owners.setdefault(port.host_name, port)
            if other is not port:
                raise InvalidError(f"{port}: host_name: {port.host_name} is taken", f"by {other}")
            if (port.instance.uuid, port.host_name) not in own and links.interface_index(port.host_name):
                raise InvalidError(f"{port}: host_name: the host has a link {port.host_name} already")

    def _all_but(self, changed: Sequence[Instance]) -> list[Instance]:
        uuids = {instance.uuid for instance in changed}
        return [self._table.expanded(one) for one in self._table.all() if one.uuid not in uuids and _stays(one)]

    def check_project(self, project: Project) -> None:
        """The same for a project that is to change: all its instances, as they are."""
        merged = self.members(project.name)
        for instance in merged:
            check_restrictions(project, instance)
        check_limits(project, merged)

    def members(self, project: str) -> list[Instance]:
        """The expanded instances of a project, but for those that are being deleted."""
        return [self._table.expanded(i) for i in self._table.all() if i.project == project and _stays(i)]

    def _others(self, project: Project, changed: Iterable[Instance]) -> list[Instance]:
        uuids = {instance.uuid for instance in changed}
        return [instance for instance in self.members(project.name) if instance.uuid not in uuids]


def _has_limits(project: Project) -> bool:
    return any(key.startswith("limits.") for key in project.config)


def _stays(instance: Instance) -> bool:
    return instance.phase is not Phase.DELETING
