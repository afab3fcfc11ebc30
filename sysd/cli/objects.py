# SPDX-License-Identifier: Apache-2.0
"""What apply and edit can say of each kind of object: its fields, how they are read and checked, what there is now,
and the calls that make the one into the other.

Values are plain data by field: texts, flags, lists of texts, and maps (config, and devices of them). A field that a
document does not have is not in its values, and stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sysd.cli import client
from sysd.cli.document import Node
from sysd.cli.errors import CliError, UsageError
from sysd.cli.lifecycle import ALIVE
from sysd.model import acls, bridge, names, network, project, server, zones
from sysd.model.config import SCHEMA
from sysd.model.devices.check import check_device
from sysd.model.errors import InvalidError, SyscontError
from sysd.model.profile import DEFAULT_PROFILE
from sysd.model.schema import Schema
from sysd.model.values import check_description

Values = dict[str, Any]
# Method and parameters.
Call = tuple[str, dict[str, Any]]

# What syscontd remembers of an instance for itself.
OWN = "volatile."
# What there is of the host: the one object of its kind.
CONFIG = "config"
# How a device is called in a plan; devices come and go while guests run.
DEVICE = "device "


class Kind:
    """One kind of object."""

    name = ""
    section = ""
    """How a document calls all of them."""
    listed_by = ""
    """The verb that shows all of them."""
    fields: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ("name",)
    """Fields that say which object it is, or that only matter when it is made."""
    schema: Schema = SCHEMA
    check_name: Callable[[str], str] = staticmethod(names.check_instance_name)

    def reference(self, values: Values) -> str:
        return names.qualified(values.get("project", names.DEFAULT_PROJECT), values["name"])

    def current(self, references: Iterable[str]) -> dict[str, Values]:
        """Those of references that there are, as the daemon tells, with all of their configuration."""
        raise NotImplementedError

    def making(self, reference: str, wanted: Values) -> Call:
        raise NotImplementedError

    def finishing(self, reference: str, wanted: Values) -> list[Call]:
        """What comes when all of the kind are made, of what needs others of them."""
        return []

    def changing(self, reference: str, changed: Values) -> Call:
        """changed has the fields that get new values."""
        raise NotImplementedError

    def completed(self, current: Values, wanted: Values) -> Values:
        """What is wanted, with what stays although a field that is given is made just so."""
        return wanted

    def runs(self, reference: str, current: Values) -> list[str]:
        """The running instances that a change is about."""
        return []

    def is_live(self, key: str) -> bool:
        """Whether a change, by its name in a plan, is in force at once in what runs."""
        if key in self.fields or key.startswith(DEVICE):
            return True
        try:
            return self.schema.find(key).live
        except InvalidError:
            return False

    def read_all(self, section: Node) -> Iterator[tuple[Node, Values]]:
        """What a document's section says of each object, with the place of that."""
        for item in section.items():
            node = _named(item)
            yield node, self.read(node)

    def read(self, node: Node) -> Values:
        """What a document says of one object; raises UsageError with the place of the first mistake."""
        fields = node.fields(self.fields, ("name",))
        return {name: self._read_field(name, part) for name, part in fields.items()}

    def read_editable(self, node: Node) -> Values:
        """What of one object can be edited."""
        fields = node.fields(self.editable)
        return {name: self._read_field(name, part) for name, part in fields.items()}

    @property
    def editable(self) -> tuple[str, ...]:
        return tuple(field for field in self.fields if field not in self.fixed)

    def _read_field(self, field: str, node: Node) -> Any:
        match field:
            case "name":
                return checked(node, self.check_name)
            case "project":
                return checked(node, names.check_project_name)
            case "description":
                return checked(node, check_description)
            case "config":
                return read_config(node, self.schema)
            case "devices":
                return read_devices(node)
            case "ingress" | "egress":
                return read_rules(field, node)
            case "profiles":
                return [checked(item, names.check_profile_name) for item in node.items()]
            case "ephemeral":
                return node.boolean()
            case "type":
                return checked(node, network.check_type)
            case "state":
                return node.choice("running", "stopped")
        return node.text()


class Server(Kind):
    """The host: its section is its configuration itself."""

    name = "server"
    section = "config"
    fields = ("config",)
    fixed = ()
    schema = server.SCHEMA

    def reference(self, values: Values) -> str:
        return CONFIG

    def read_all(self, section: Node) -> Iterator[tuple[Node, Values]]:
        yield section, {"config": read_config(section, self.schema)}

    def current(self, references: Iterable[str]) -> dict[str, Values]:
        return {CONFIG: {"config": client.call("GetServerConfig").get("config") or {}}}

    def changing(self, reference: str, changed: Values) -> Call:
        return ("UpdateServerConfig", changed)


class Projects(Kind):
    name = "project"
    section = "projects"
    listed_by = "project list"
    fields = ("name", "description", "config")
    schema = project.SCHEMA
    check_name = staticmethod(names.check_project_name)

    def reference(self, values: Values) -> str:
        return str(values["name"])

    def current(self, references: Iterable[str]) -> dict[str, Values]:
        return {item["name"]: item for item in client.items("ListProjects", "projects") if item["name"] in references}

    def completed(self, current: Values, wanted: Values) -> Values:
        """A project that is made has features that were not asked for; they are not to go away the next time."""
        if "config" not in wanted:
            return wanted
        features = {key: value for key, value in current["config"].items() if key.startswith("features.")}
        return wanted | {"config": features | wanted["config"]}

    def making(self, reference: str, wanted: Values) -> Call:
        return ("CreateProject", wanted)

    def changing(self, reference: str, changed: Values) -> Call:
        return ("UpdateProject", {"name": reference, **changed})


class Zones(Kind):
    name = "zone"
    section = "zones"
    listed_by = "network zone list"
    fields = ("name", "project", "description", "config")
    fixed = ("name", "project")
    schema = zones.SCHEMA
    check_name = staticmethod(zones.check_name)

    def reference(self, values: Values) -> str:
        """Names of zones are the host's, in all projects."""
        return zones.check_name(values["name"])

    def current(self, references: Iterable[str]) -> dict[str, Values]:
        return {
            item["name"]: item | {"config": client.call("GetZoneConfig", {"name": item["name"]}).get("config") or {}}
            for item in client.items("ListZones", "zones")
            if item["name"] in references
        }

    def making(self, reference: str, wanted: Values) -> Call:
        return ("CreateZone", wanted)

    def changing(self, reference: str, changed: Values) -> Call:
        return ("UpdateZone", {"name": reference, **changed})


class Acls(Kind):
    name = "ACL"
    section = "acls"
    listed_by = "network acl list"
    fields = ("name", "description", "config", "ingress", "egress")
    schema = acls.SCHEMA
    check_name = staticmethod(acls.check_name)

    def reference(self, values: Values) -> str:
        return str(values["name"])

    def current(self, references: Iterable[str]) -> dict[str, Values]:
        return {item["name"]: item for item in client.items("ListAcls", "acls") if item["name"] in references}

    def making(self, reference: str, wanted: Values) -> Call:
        return ("CreateAcl", {key: value for key, value in wanted.items() if key not in _naming(wanted)})

    def finishing(self, reference: str, wanted: Values) -> list[Call]:
        """Rules that name other ACLs, which may name this one."""
        rules = {key: wanted[key] for key in _naming(wanted)}
        return [("UpdateAcl", {"name": reference, **rules})] if rules else []

    def changing(self, reference: str, changed: Values) -> Call:
        return ("UpdateAcl", {"name": reference, **changed})


class Networks(Kind):
    name = "network"
    section = "networks"
    listed_by = "network list"
    fields = ("name", "type", "description", "config")
    fixed = ("name", "type")
    schema = network.SCHEMA
    check_name = staticmethod(names.check_network_name)

    def current(self, references: Iterable[str]) -> dict[str, Values]:
        found = {item["name"]: item for item in client.items("ListNetworks", "networks") if item["name"] in references}
        return {
            name: item | {"config": {key: value for key, value in item["config"].items() if not key.startswith(OWN)}}
            for name, item in found.items()
        }

    def completed(self, current: Values, wanted: Values) -> Values:
        """Addresses that were made up, and NAT with them, are not to go away, or to change, because a document leaves
        them to syscontd."""
        if "config" not in wanted or current["type"] != network.BRIDGE:
            return wanted
        config = dict(wanted["config"])
        for version in (4, 6):
            address, nat = f"ipv{version}.address", f"ipv{version}.nat"
            if config.get(address, bridge.AUTO) == bridge.AUTO:
                kept = {key: value for key, value in current["config"].items() if key in (address, nat)}
                config = {key: value for key, value in config.items() if key != address}
                config = kept | config
        return wanted | {"config": config}

    def making(self, reference: str, wanted: Values) -> Call:
        return ("CreateNetwork", wanted)

    def changing(self, reference: str, changed: Values) -> Call:
        return ("UpdateNetwork", {"name": reference, **changed})


class Profiles(Kind):
    name = "profile"
    section = "profiles"
    listed_by = "profile list"
    fields = ("name", "project", "description", "config", "devices")
    fixed = ("name", "project")
    check_name = staticmethod(names.check_profile_name)

    def current(self, references: Iterable[str]) -> dict[str, Values]:
        return {name: found for name in references if (found := self._one(name))}

    def _one(self, reference: str) -> Values | None:
        """Asked for by its name: one in a project without profiles of its own is in another."""
        try:
            found = client.call("GetProfile", {"name": reference})["profile"]
            config = client.call("GetProfileConfig", {"name": reference})["config"]
        except CliError as error:
            if error.name == "NotFound":
                return None
            raise
        return {**found, "config": config}

    def making(self, reference: str, wanted: Values) -> Call:
        given = {field: value for field, value in wanted.items() if field != "project"}
        # A project that is made in the same run brings a default profile along.
        method = "UpdateProfile" if wanted["name"] == DEFAULT_PROFILE else "CreateProfile"
        return (method, {**given, "name": reference})

    def changing(self, reference: str, changed: Values) -> Call:
        return ("UpdateProfile", {"name": reference, **changed})

    def runs(self, reference: str, current: Values) -> list[str]:
        running = {
            names.qualified(item["project"], item["name"])
            for item in client.items("ListInstances", "instances")
            if item.get("state") in ALIVE
        }
        return [name for name in current["usedBy"] if name in running]


class Instances(Kind):
    name = "instance"
    section = "instances"
    listed_by = "list"
    fields = ("name", "project", "description", "image", "profiles", "ephemeral", "config", "devices", "state")
    fixed = ("name", "project", "image", "state")

    def current(self, references: Iterable[str]) -> dict[str, Values]:
        wanted, found = set(references), {}
        for item in client.items("ListInstances", "instances"):
            reference = names.qualified(item["project"], item["name"])
            if reference in wanted:
                found[reference] = item | {"config": own_config(reference)}
        return found

    def making(self, reference: str, wanted: Values) -> Call:
        if "image" not in wanted:
            raise InvalidError(f"there is no instance {reference}, and no image to make it from", "add an image")
        given = {field: value for field, value in wanted.items() if field not in ("project", "state")}
        start = {"start": True} if wanted.get("state") == "running" else {}
        return ("CreateInstance", {**given, "name": reference, **start})

    def changing(self, reference: str, changed: Values) -> Call:
        return ("UpdateInstance", {"name": reference, **changed})

    def runs(self, reference: str, current: Values) -> list[str]:
        return [reference] if current.get("state") in ALIVE else []


def _naming(wanted: Values) -> list[str]:
    """The directions in which some rule of an ACL names another one."""
    return [
        direction
        for direction in acls.DIRECTIONS
        if set(acls.Acl(wanted["name"], **{direction: wanted.get(direction, [])}).named_acls) - {wanted["name"]}
    ]


SERVER, PROJECTS, ZONES, ACLS, NETWORKS = Server(), Projects(), Zones(), Acls(), Networks()
PROFILES, INSTANCES = Profiles(), Instances()
# In the order in which they need each other.
KINDS: tuple[Kind, ...] = (SERVER, PROJECTS, ZONES, ACLS, NETWORKS, PROFILES, INSTANCES)


def own_config(reference: str) -> dict[str, str]:
    """An instance's own configuration as people set it, all of it."""
    config = client.call("GetConfig", {"name": reference}).get("config") or {}
    return {key: value for key, value in config.items() if not key.startswith(OWN)}


def _named(item: Node) -> Node:
    """An item of a list, called by its name if it has one."""
    try:
        return item.named(item.members()["name"].text())
    except (KeyError, UsageError):
        return item


def checked(node: Node, check: Callable[[str], str]) -> str:
    """A text that sysd.model accepts."""
    try:
        return check(node.text())
    except SyscontError as error:
        raise node.error(error.message, error.hint) from None


def read_config(node: Node, schema: Schema) -> dict[str, str]:
    """A map of keys, each checked on its own, so that the place of a mistake is known."""
    found: dict[str, str] = {}
    for key, part in node.members().items():
        try:
            found |= schema.check({key: part.text()})
        except SyscontError as error:
            raise _at(part, key, error) from None
    return found


def read_devices(node: Node) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, part in node.members().items():
        options = {option: value.text() for option, value in part.members().items()}
        try:
            found[name] = check_device(name, options)
        except SyscontError as error:
            raise _at(part, f"device {name}", error) from None
    return found


def read_rules(direction: str, node: Node) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for item in node.items():
        said = {key: value.text() for key, value in item.members().items()}
        try:
            found.append(acls.check_rule(direction, said))
        except SyscontError as error:
            raise item.error(error.message, error.hint) from None
    return found


def _at(node: Node, named: str, error: SyscontError) -> UsageError:
    """The place says what the error's own words begin with."""
    return node.error(error.message.removeprefix(f"{named}: "), error.hint)
