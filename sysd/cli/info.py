# SPDX-License-Identifier: Apache-2.0
"""info: one instance, or the host, at a glance."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.output import clean, out, yaml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed

    Rows = list[tuple[str, str]]


def run(parsed: Parsed) -> int:
    """``syscont info``"""
    shown: object
    if parsed.args:
        shown = _instance(parsed.args[0])
        rows = instance_rows(shown)
    else:
        shown = client.call("GetInfo")
        rows = host_rows(shown)
    form = parsed.value("format", "text")
    if form == "json":
        from sysd.codec import pretty

        out(pretty(shown) + "\n")
    elif form == "yaml":
        out(yaml(shown))
    else:
        out(render(rows))
    return 0


def _instance(name: str) -> Parameters:
    connection = client.connect()
    answer = connection.call("GetInstance", {"name": name})
    usage = connection.call("GetInstanceState", {"name": name}).get("state")
    connection.close()
    return {**(answer.get("instance") or {}), "disk": answer.get("disk"), "usage": usage}


def render(rows: Rows) -> str:
    """Labels to the right, values to the left of one line, as ``machinectl status`` has them."""
    width = max((len(label) for label, _ in rows), default=0)
    lines = []
    for label, value in rows:
        first, *more = clean(value, "\n").split("\n")
        lines.append(f"{label:>{width}}: {first}\n")
        lines.extend(f"{'':{width}}  {line}\n" for line in more)
    return "".join(lines)


def instance_rows(item: Parameters) -> Rows:
    from sysd.cli import usage

    rows = [
        ("Name", _text(item, "name")),
        ("Description", _text(item, "description")),
        ("Project", _text(item, "project")),
        ("Type", _text(item, "type") + (" (ephemeral)" if item.get("ephemeral") else "")),
        ("Profiles", ", ".join(map(str, item.get("profiles") or ()))),
        ("State", _text(item, "state") + (", its memory is kept" if item.get("stateful") else "")),
        ("Lost", _lost(item)),
        ("Unit", _text(item, "unit")),
        ("Leader", _text(item, "leader") if item.get("leader") else ""),
        *usage.machine_rows(item),
        ("Core scheduling", usage.cookies(item)),
        ("AppArmor", _text(item, "appArmor")),
        ("Image", " ".join(filter(None, (_text(item, "imageAlias"), _text(item, "image"))))),
        ("Addresses", "\n".join(map(str, item.get("addresses") or ()))),
        ("UUID", _text(item, "uuid")),
        ("Host user ids", _id_range(item.get("idBase"))),
        ("Created", _time(item.get("created"))),
        *usage.rows(item),
        ("Limits", _pairs(_limits(item))),
        ("Config", _pairs(item.get("config"))),
        ("Devices", _devices(item.get("expandedDevices") or item.get("devices"))),
    ]
    return [(label, value) for label, value in rows if value]


def host_rows(item: Parameters) -> Rows:
    rows = [
        ("syscontd", _text(item, "version")),
        ("systemd", _text(item, "systemdVersion")),
        ("Kernel", _text(item, "kernel")),
        ("Instances", _text(item, "instances")),
        ("Images", _text(item, "images")),
        ("Certificate", _text(item, "fingerprint")),
        ("Config", _pairs(item.get("config"))),
    ]
    return [(label, value) for label, value in rows if value]


def _text(item: Parameters, field: str) -> str:
    return str(item.get(field, ""))


def _lost(item: Parameters) -> str:
    """Devices that the guest is without, why, and what helps."""
    lost = ", ".join(map(str, item.get("lostDevices") or ()))
    return f"{lost} (nobody serves it any more; a restart has it back)" if lost else ""


def _id_range(base: object) -> str:
    return f"{base} to {base + 65535}" if isinstance(base, int) and base else ""


def _time(microseconds: object) -> str:
    import time

    if not isinstance(microseconds, int) or microseconds <= 0:
        return ""
    return time.strftime("%a %Y-%m-%d %H:%M:%S %Z", time.localtime(microseconds // 1_000_000))


def _pairs(values: object) -> str:
    if not isinstance(values, dict):
        return ""
    # A value of several lines is cut at the first: this is a glance, 'config show' has it whole.
    return "\n".join(f"{key}={_first_line(str(value))}" for key, value in sorted(values.items()))


def _limits(item: Parameters) -> Parameters:
    """Those in force, from wherever they come."""
    config = item.get("expandedConfig")
    values = config if isinstance(config, dict) else {}
    return {key: value for key, value in values.items() if key.startswith("limits.")}


def _first_line(value: str) -> str:
    first, more, _ = value.partition("\n")
    return first + "..." if more else first


def _devices(devices: object) -> str:
    if not isinstance(devices, dict):
        return ""
    return "\n".join(
        f"{name}: {_pairs(device).replace(chr(10), ' ')}" for name, device in sorted(devices.items())
    )
