# SPDX-License-Identifier: Apache-2.0
"""What a distribution gets: the files that `make install` lays out, and that they agree with each other."""

from __future__ import annotations

import re
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import sysd
from sysd.runtime import execute
from sysd.runtime.vm import keys, ports, ssh

ROOT = Path(__file__).resolve().parent.parent

# Handed down to commands in guests, where they can't be undone.
INHERITED = {
    "AmbientCapabilities", "CapabilityBoundingSet", "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges",
    "PrivateDevices", "ProtectClock", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
    "ProtectKernelTunables", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
    "SecureBits", "SystemCallArchitectures", "SystemCallFilter",
}  # fmt: skip


def settings(unit: str) -> dict[str, str]:
    lines = (ROOT / "data/systemd" / unit).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def installed(destination: Path, *variables: str) -> set[str]:
    subprocess.run(
        ["make", "-s", "install", f"DESTDIR={destination}", *variables],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {path.relative_to(destination).as_posix() for path in destination.rglob("*") if path.is_file()}


def test_install(tmp_path: Path) -> None:
    files = installed(tmp_path, "PREFIX=/usr")
    assert files >= {
        "usr/bin/syscont",
        "usr/share/bash-completion/completions/syscont",
        "usr/share/fish/vendor_completions.d/syscont.fish",
        "usr/share/man/man1/syscont.1",
        "usr/share/zsh/vendor-completions/_syscont",
        "usr/libexec/syscont/launch",
        "usr/libexec/syscont/launch-vm",
        "usr/libexec/syscont/plug",
        "usr/libexec/syscont/session",
        "usr/libexec/syscont/syscontd",
        "usr/lib/python3/dist-packages/sysd/__init__.py",
        "usr/lib/python3/dist-packages/sysd/py.typed",
        "usr/lib/systemd/system/syscont.slice",
        "usr/lib/systemd/system/syscont-exec.service",
        "usr/lib/systemd/system/syscont-exec.socket",
        "usr/lib/systemd/system/syscont-ssh.socket",
        "usr/lib/systemd/system/syscont-ssh@.service",
        "usr/lib/systemd/system/syscontd-handover.socket",
        "usr/lib/systemd/system/syscontd.service",
        "usr/lib/systemd/system/syscontd.socket",
        "usr/lib/sysusers.d/syscont.conf",
        "usr/lib/tmpfiles.d/syscont.conf",
        "usr/lib/udev/rules.d/99-syscont.rules",
        "usr/share/dbus-1/system-services/org.syscont.Manager.service",
        "usr/share/dbus-1/system.d/org.syscont.Manager.conf",
        "usr/share/polkit-1/actions/org.syscont.policy",
        "usr/share/syscont/org.syscont.Guest.varlink",
        "usr/share/syscont/org.syscont.Manager.varlink",
    }
    assert not [name for name in files if "__pycache__" in name or name.endswith((".c", ".h", "build.py"))]
    for program in ("bin/syscont", "libexec/syscont/files", "libexec/syscont/syscontd"):
        assert (tmp_path / "usr" / program).stat().st_mode & 0o777 == 0o755
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("sysd/**/*.py")} - {"sysd/_cext/build.py"}
    assert {name.removeprefix("usr/lib/python3/dist-packages/") for name in files if name.endswith(".py")} == modules


def test_install_elsewhere(tmp_path: Path) -> None:
    installed(tmp_path, "PREFIX=/opt/sc")
    assert '"/opt/sc/lib/python3/dist-packages"' in (tmp_path / "opt/sc/libexec/syscont/files").read_text()
    unit = (tmp_path / "opt/sc/lib/systemd/system/syscontd.service").read_text()
    assert "/usr/lib/python3" not in (tmp_path / "opt/sc/bin/syscont").read_text()
    assert "ExecStart=/opt/sc/libexec/syscont/syscontd\n" in unit


def test_programs_shut_out_the_callers_python_environment() -> None:
    for program in ("files", "syscont", "syscontd"):
        assert re.match(r"#!/usr/bin/python3 -IS?\n", (ROOT / "data/bin" / program).read_text())


def test_nothing_is_handed_down_to_commands_in_guests() -> None:
    assert not INHERITED & settings("syscont-exec.service").keys()


def test_service_is_always_brought_back() -> None:
    service = settings("syscontd.service")
    assert (service["Restart"], service["StartLimitIntervalSec"]) == ("always", "0")
    assert (service["RuntimeDirectoryPreserve"], service["FileDescriptorStorePreserve"]) == ("yes", "yes")


@pytest.mark.parametrize(
    ("unit", "kind", "address", "mode", "name"),
    [
        ("syscontd.socket", "ListenStream", "/run/syscont/org.syscont.Manager", "0660", "varlink"),
        ("syscontd-handover.socket", "ListenDatagram", "/run/syscont/handover", "0600", "handover"),
    ],
)
def test_sockets(unit: str, kind: str, address: str, mode: str, name: str) -> None:
    socket = settings(unit)
    assert (socket[kind], socket["SocketMode"], socket["FileDescriptorName"]) == (address, mode, name)
    assert socket["Service"] == "syscontd.service"
    assert unit in settings("syscontd.service")["Sockets"].split()
    assert socket["WantedBy"] == "sockets.target"


def test_commands_are_started_outside_of_the_daemons_sandbox() -> None:
    socket = settings("syscont-exec.socket")
    assert (socket["ListenSequentialPacket"], socket["SocketMode"]) == (execute.SERVICE, "0600")
    assert "syscont-exec.socket" in settings("syscontd.service")["Wants"].split()
    assert settings("syscont-exec.service")["KillMode"] == "process"


def test_ssh_is_started_in_a_sandbox() -> None:
    socket = settings("syscont-ssh.socket")
    assert (socket["ListenSequentialPacket"], socket["SocketMode"]) == (ssh.SERVICE, "0600")
    assert "syscont-ssh.socket" in settings("syscontd.service")["Wants"].split()
    service = settings("syscont-ssh@.service")
    assert (service["ExecStart"], service["User"]) == (ssh.PROGRAM, keys.GROUP)
    assert service["CapabilityBoundingSet"] == ""
    assert f"u {keys.GROUP} -" in (ROOT / "data/sysusers.d/syscont.conf").read_text()
    for folder in (keys.FOLDER, ports.FOLDER):
        assert f"-{folder}" in service["BindReadOnlyPaths"].split()


def test_varlink_group_is_made() -> None:
    group = settings("syscontd.socket")["SocketGroup"]
    assert re.search(rf"^g {group} -$", (ROOT / "data/sysusers.d/syscont.conf").read_text(), re.MULTILINE)


def test_bus_activation_starts_the_unit() -> None:
    text = (ROOT / "data/dbus-1/system-services/org.syscont.Manager.service").read_text()
    assert "Name=org.syscont.Manager\n" in text
    assert "SystemdService=syscontd.service\n" in text


def test_only_root_owns_the_bus_name() -> None:
    policies = ET.parse(ROOT / "data/dbus-1/system.d/org.syscont.Manager.conf").getroot().findall("policy")
    owners = [policy.attrib for policy in policies for rule in policy if "own" in rule.attrib]
    assert owners == [{"user": "root"}]


def test_polkit_asks_for_an_administrator() -> None:
    actions = ET.parse(ROOT / "data/polkit-1/actions/org.syscont.policy").getroot().findall("action")
    assert {action.attrib["id"].removeprefix("org.syscont.") for action in actions} == {
        "manage-instances", "exec", "files", "manage-images", "manage-networks", "manage-profiles", "manage-projects",
        "manage-operations", "manage-server", "manage-trust", "manage-zones",
    }  # fmt: skip
    for action in actions:
        answers = [action.findtext(f"defaults/allow_{who}") for who in ("any", "inactive", "active")]
        assert answers == ["auth_admin", "auth_admin", "auth_admin_keep"]


def test_one_version() -> None:
    debian = (ROOT / "debian/changelog").read_text().split("(", 1)[1].split(")", 1)[0]
    assert debian == sysd.__version__
    assert f"## [{sysd.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_debian_depends_on_what_python_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in project["dependencies"]}
    debian = {"cffi": "cffi-backend", "PyYAML": "yaml", "systemd-python": "systemd"}
    control = (ROOT / "debian/control").read_text().split("\nPackage:", 1)[1].split("\nRecommends:", 1)[0]
    for name in names:
        assert f"python3-{debian.get(name, name)},\n" in control
