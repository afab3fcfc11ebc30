# SPDX-License-Identifier: Apache-2.0
"""Programs that serve a machine from beside it, each in a unit of its own: virtiofsd(1) for a folder of the host's,
swtpm(8) for a TPM. The machine's unit pulls them in and is ordered after them; they end with it.

Each sees its programs, what it serves and the folder that its socket is in, and nothing else of the host: a guest that
has taken over its QEMU, and by it the program, gets no further.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from dbus_next import Variant

from sysd.model.instance import Instance
from sysd.runtime import container
from sysd.runtime.devices.disk import io_properties
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.spec import VM_DIR
from sysd.units import helper
from sysd.units.systemd import Properties

VIRTIOFSD = "/usr/libexec/virtiofsd"
SWTPM = "/usr/bin/swtpm"
SETPRIV = "/usr/bin/setpriv"
FOLDERS, TPMS = "syscont-virtiofs@", "syscont-tpm@"
TPM_FOLDER = "tpm"
TPM = "+tpm"
"""In place of a device's name, which can't be this one."""
_SHARE, _STATE, _SOCKETS = "/srv/share", "/srv/tpm", "/srv/run"
"""Where what it serves, and its socket, are in the tree of a program."""
_KEPT = frozenset({"bin", "dev", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr"})
_PROGRAMS = ("/usr", "-/bin", "-/lib", "-/lib64", "-/sbin", "/etc/ld.so.cache")
_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_FOWNER, _CAP_FSETID, _CAP_SETGID, _CAP_SETUID = 0, 1, 3, 4, 6, 7
_CAP_SETPCAP, _CAP_SETFCAP = 8, 31
_BECOMES = (_CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP)
_SERVES_FILES = (_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_FOWNER, _CAP_FSETID, _CAP_SETGID, _CAP_SETUID, _CAP_SETFCAP)
_RECURSIVE = 0x4000
"""MS_REC of mount(2)."""
_MAX_FILES = 1 << 19


def socket_of(uuid: str, device: str) -> str:
    return str(VM_DIR / f"{uuid}.{device}" / "socket")


def _folder(part: Part) -> Path:
    """That the socket is in."""
    return Path(next(iter(part.sockets.values()))).parent


def patterns(instance: Instance) -> list[str]:
    """Of the units of all of them; no name of an instance has a dot."""
    return [f"{prefix}{instance.reference}.*.service" for prefix in (FOLDERS, TPMS)]


def unit_of(instance: Instance, device: str, part: Part) -> str:
    """Empty for what nobody serves."""
    if not part.served:
        return ""
    return f"{TPMS if part.tpm else FOLDERS}{instance.reference}.{device}.service"


def reference_of(unit: str) -> str:
    """The instance of one of these units, by its reference; empty for all others."""
    kind, at, rest = unit.partition("@")
    return rest.partition(".")[0] if f"{kind}{at}" in (FOLDERS, TPMS) else ""


def of_instance(instance: Instance, parts: Mapping[str, Part]) -> dict[str, Properties]:
    return {
        unit: _properties(instance, device, part)
        for device, part in parts.items()
        if (unit := unit_of(instance, device, part))
    }


def _properties(instance: Instance, device: str, part: Part) -> Properties:
    served = _tpm(instance, part) if part.tpm else _files(instance, device, part)
    digest = hashlib.sha256(repr(sorted(part.served.items())).encode()).hexdigest()[:8]
    what = "TPM" if part.tpm else "Folder"
    return {
        **helper.hardened(),
        "Description": Variant("s", f"{what} {device} of {instance.reference}, {digest}"),
        "BindsTo": Variant("as", [instance.unit]),
        "Before": Variant("as", [instance.unit]),
        # One that has failed is not to hold the machine's unit, which holds it for as long as it is known itself.
        "CollectMode": Variant("s", "inactive-or-failed"),
        "Slice": Variant("s", "syscont.slice"),
        "Type": Variant("s", "exec"),
        "PrivateNetwork": Variant("b", True),
        "PrivateIPC": Variant("b", True),
        "RestrictAddressFamilies": Variant("(bas)", [True, ["AF_UNIX"]]),
        "ProtectHostname": Variant("b", True),
        "TemporaryFileSystem": Variant("a(ss)", [[path, "mode=0755,ro"] for path in hidden()]),
        "BindReadOnlyPaths": Variant("a(ssbt)", [_bind(path) for path in _PROGRAMS]),
        "RuntimeDirectory": Variant("as", [str(_folder(part).relative_to("/run"))]),
        "LimitCORE": Variant("t", 0),
        "TasksMax": Variant("t", 64),
        **served,
    }


def hidden(root: str = "/") -> list[str]:
    """Folders of the host's that none of them needs: all but those of programs and the kernel's. (For systemd, a
    temporary file system at / itself is none.)"""
    with os.scandir(root) as entries:
        return sorted(f"/{one.name}" for one in entries if one.name not in _KEPT and one.is_dir(follow_symlinks=False))


def _bind(path: str, to: str = "", *, recursive: bool = True) -> list[object]:
    source = path.removeprefix("-")
    return [source, to or source, path.startswith("-"), _RECURSIVE if recursive else 0]


def _sockets(part: Part) -> list[object]:
    return _bind(str(_folder(part)), _SOCKETS)


def _command(argv: list[str], *capabilities: int) -> Properties:
    return {
        "ExecStart": Variant("a(sasb)", [[argv[0], argv, False]]),
        "CapabilityBoundingSet": Variant("t", sum(1 << number for number in capabilities)),
    }


def _files(instance: Instance, device: str, part: Part) -> Properties:
    """As root, for it is to act with the ids that the guest names. Its own sandbox would take more rights to build than
    it needs to run. What may not be written to is mounted so."""
    readonly = "readonly" in part.served
    argv = [
        VIRTIOFSD,
        f"--socket-path={_SOCKETS}/socket",
        f"--shared-dir={_SHARE}",
        "--sandbox=none",
        "--inode-file-handles=never",
        "--modcaps=-mknod",
        "--rlimit-nofile=0",
        "--log-level=warn",
    ]
    share = _bind(part.served["source"], _SHARE, recursive="recursive" in part.served)
    programs = [_bind(path) for path in _PROGRAMS]
    return {
        **_command(argv, *_SERVES_FILES, _CAP_SETPCAP),  # the last to be without it itself
        "RuntimeDirectoryMode": Variant("u", 0o700),
        "BindPaths": Variant("a(ssbt)", [_sockets(part), *([] if readonly else [share])]),
        "BindReadOnlyPaths": Variant("a(ssbt)", [*programs, *([share] if readonly else [])]),
        "LimitNOFILE": Variant("t", _MAX_FILES),
        # It takes SIGTERM for a failure.
        "KillSignal": Variant("i", signal.SIGINT),
        **io_properties({device: instance.devices[device]}),
    }


def _tpm(instance: Instance, part: Part) -> Properties:
    """As the user that QEMU is. What it keeps is among what snapshots and copies take along."""
    owner = instance.id_base
    argv = [SETPRIV, f"--reuid={owner}", f"--regid={owner}", "--clear-groups", "--bounding-set=-all", "--"]
    argv += [SWTPM, "socket", "--tpm2", "--tpmstate", f"dir={_STATE},mode=0600"]
    argv += ["--ctrl", f"type=unixio,path={_SOCKETS}/socket,mode=0600", "--terminate"]
    state = _bind(str(tpm_folder(instance)), _STATE)
    return {
        **_command(argv, *_BECOMES),
        # It makes its socket when it is root no more; the folder above this one is root's alone.
        "RuntimeDirectoryMode": Variant("u", 0o777),
        "BindPaths": Variant("a(ssbt)", [_sockets(part), state]),
        "ProcSubset": Variant("s", "pid"),
        "MemoryMax": Variant("t", 128 << 20),
    }


def tpm_folder(instance: Instance) -> Path:
    return container.state_dir(instance) / "upper" / TPM_FOLDER
