# SPDX-License-Identifier: Apache-2.0
"""What a machine that runs is made of, told to the host that it is to go to.

What the other host says is hostile: of all that QEMU can be told, only what is read here gets to its command line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sysd.model.errors import FailedError, InvalidError
from sysd.model.keys.machine import COMPRESSIONS, HOST, LEVELS, MOST_CHANNELS
from sysd.model.machine import memory_of, processors_of
from sysd.runtime.vm import parts
from sysd.runtime.vm.hardware import PORTS, Part
from sysd.runtime.vm.moving import Streams
from sysd.runtime.vm.state import KEYS, Kept

_MODEL = re.compile(r"(pc-)?q35(-[0-9]+\.[0-9]+)?")
_QEMU = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_PROCESSOR = re.compile(r"[A-Za-z0-9_-]+-x86_64-cpu")
_PLACE = re.compile(r"(socket|die|module|core|thread|node)-id")
_NAME = re.compile(r"cpu(-[0-9]+)+")
_COMPRESSION = re.compile("|".join(COMPRESSIONS))
_MOST_MEMORY = 1 << 46
_MOST_CPUS = 8192
_MOST_PARTS = 256
_MOST_TEXT = 4096
_FLAGS = ("vendor_id", "flags")


def say(kept: Kept) -> dict[str, Any]:
    """As JSON has it. Of the processor, what the guest may have found there."""
    return {
        "model": kept.model,
        "qemu": kept.qemu,
        "accelerated": kept.accelerated,
        "vsock": kept.vsock,
        "memory": kept.memory,
        "most_memory": kept.most_memory,
        "cpus": kept.cpus,
        "most_cpus": kept.most_cpus,
        "plugged": kept.plugged,
        "config": kept.config,
        "parts": {name: {"port": part.port, "device": part.device} for name, part in parts.load(kept.parts).items()},
        "processor": processor() if kept.accelerated else {},
    }


def processor(path: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Of the host's first: who makes it, and what it can (proc_cpuinfo(5))."""
    first = path.read_text().partition("\n\n")[0]
    rows = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in rows if name.strip() in _FLAGS}


def read(said: Mapping[str, Any], image: str) -> Kept:
    """Raises InvalidError. image: what its disk is above, here."""
    try:
        return _read(said, image)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InvalidError("the other host does not say in the right form what machine it sends") from None


def _read(said: Mapping[str, Any], image: str) -> Kept:
    memory = _number(said, "memory", 1 << 20, _MOST_MEMORY)
    cpus = _number(said, "cpus", 1, _MOST_CPUS)
    config = {key: _text(said["config"][key]) for key in (*KEYS, "size")}
    if len(said["parts"]) > _MOST_PARTS:
        raise ValueError("parts")
    return Kept(
        model=_matching(_MODEL, said["model"]),
        qemu=_matching(_QEMU, said["qemu"]),
        mapped=False,
        accelerated=_flag(said, "accelerated"),
        vsock=_flag(said, "vsock"),
        memory=memory,
        most_memory=_number(said, "most_memory", memory, _MOST_MEMORY),
        cpus=cpus,
        most_cpus=_number(said, "most_cpus", cpus, _MOST_CPUS),
        plugged=[_plugged(one) for one in said["plugged"][:_MOST_CPUS]],
        image=image,
        config=config,
        parts=parts.store({_text(name): _part(one) for name, one in said["parts"].items()}),
    )


def _part(said: Mapping[str, Any]) -> Part:
    """Its port, and what to compare: the device is made here anew."""
    return Part(_number(said, "port", 0, PORTS + parts.MOST_OTHERS - 1), dict(said["device"]))


def _plugged(said: Mapping[str, Any]) -> dict[str, Any]:
    places = {key: _number(said, key, 0, _MOST_CPUS) for key in said if _PLACE.fullmatch(key)}
    return {"driver": _matching(_PROCESSOR, said["driver"]), "id": _matching(_NAME, said["id"]), **places}


def _number(said: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = said[name]
    if type(value) is not int or not least <= value <= most:
        raise ValueError(name)
    return value


def _flag(said: Mapping[str, Any], name: str) -> bool:
    value = said[name]
    if not isinstance(value, bool):
        raise TypeError(name)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise TypeError("text")
    return value


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    if not pattern.fullmatch(_text(value)[:64]):
        raise ValueError(value)
    return str(value)


def say_streams(streams: Streams) -> dict[str, Any]:
    return {"streams": asdict(streams)}


def read_streams(said: Mapping[str, Any]) -> Streams:
    """How its memory is to come. Raises InvalidError."""
    try:
        found = said["streams"]
        return Streams(_number(found, "channels", 1, MOST_CHANNELS), _matching(_COMPRESSION, found["compression"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InvalidError("the other host does not say in the right form how it sends a machine") from None


def check(kept: Kept, said: Mapping[str, Any], name: str, config: Mapping[str, str], host_memory: int) -> None:
    """Raise FailedError unless this host can go on with such a machine, within what its configuration allows it."""
    count, _ = processors_of(config)
    if kept.memory > memory_of(config, host_memory) or kept.cpus + len(kept.plugged) > count:
        why = f"{name} runs with more memory or processors than its limits say"
        raise FailedError(why, "stop it first, or restart it where it is")
    if not kept.accelerated:
        return
    theirs, ours = said.get("processor"), processor()
    if not isinstance(theirs, dict) or theirs.get("vendor_id") != ours.get("vendor_id"):
        raise FailedError(f"{name} runs on processors of another maker than this host's", "stop it first")
    if config.get("limits.cpu.model", HOST) in LEVELS:
        return  # QEMU looks at what it takes
    if missing := sorted({*str(theirs.get("flags", "")).split()} - {*ours.get("flags", "").split()}):
        why = f"{name} may use what this host's processors lack: {', '.join(missing)[:200]}"
        raise FailedError(why, "stop it first")
