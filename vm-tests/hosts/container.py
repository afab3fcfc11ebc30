# SPDX-License-Identifier: Apache-2.0
"""Container hosts: systemd-nspawn on the machine's own kernel, native speed."""

import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from . import apt, cgroup, network, registry, rootfs
from .cache import locked
from .command import HostError, machine
from .host import Host, Wire

_SYSTEM_CALLS = (
    "@system-service @mount @module @raw-io @privileged @obsolete @debug bpf keyctl "
    "perf_event_open open_tree move_mount fsopen fsmount fsconfig mount_setattr"
)
_DEVICES = ("/dev/net/tun", "/dev/kvm", "/dev/fuse")
# Written to by things that make overlays of their own there, which overlayfs can't carry.
_OWN_DISK = ("/var/lib/syscont", "/var/lib/incus", "/var/tmp")

# The mounts belong to a namespace that ends with the host, so a crash leaves none behind.
_LAUNCH = """
echo $$ >"$CGROUP/cgroup.procs"
exec unshare --mount --propagation private sh -ec '
mount -t overlay overlay -o "$OVERLAY" "$1/root"; shift; exec "$@"' sh "$@"
"""
_ENTER = 'echo $$ >"$1/cgroup.procs" || exit 255; shift; exec "$@"'


class ContainerHost(Host):
    kind: ClassVar[str] = "container"
    serves: ClassVar[frozenset[str]] = frozenset()

    _leader = 0

    @classmethod
    def prepare(cls, recipe: rootfs.Recipe) -> None:
        apt.ensure("systemd-container", "iproute2", "nftables")
        rootfs.tree(recipe)

    def _prepare(self) -> None:
        self.prepare(self.recipe)
        self._lowers = [rootfs.tree(self.recipe)]
        for part in ("upper", "work", "root"):
            (self.directory / part).mkdir()
        for place in _OWN_DISK:
            self._disk(place).mkdir(mode=0o1777 if place == "/var/tmp" else 0o755)
        self._disk("/var/tmp").chmod(0o1777)
        if self.base:
            self._start_from(self.base)
        if self.uplink:
            self._claim_uplink()

    def _start_from(self, base: Host) -> None:
        if not isinstance(base, ContainerHost) or base.running():
            raise HostError(f"{base.name} can't be the base of a container host now")
        self._lowers = [base.directory / "upper", *base._lowers]
        for place in _OWN_DISK:
            machine("cp", "-a", f"{base._disk(place)}/.", str(self._disk(place)))
        self._upper("etc/machine-id", "")

    def _disk(self, place: str) -> Path:
        return self.directory / place.strip("/").replace("/", "-")

    def _claim_uplink(self) -> None:
        with locked(registry.runs_dir() / ".lock"):
            taken = {record.uplink for record in registry.records()}
            self.record.uplink = network.free_uplink(taken)
            self.record.save()
        self._upper("etc/systemd/resolved.conf.d/uplink.conf", _resolvers())

    def _upper(self, path: str, text: str) -> None:
        target = self.directory / "upper" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def _start(self) -> None:
        network.create(self.name)
        if self.uplink:
            network.add_uplink(self.name, self.record.uplink, registry.runs_dir())
        for wire in self.wires:
            if all(end is self or end.running() for end in (wire.left, wire.right)):
                self._lay(wire)
        argv = ["sh", "-ec", _LAUNCH, "launch", str(self.directory), *self._nspawn()]
        env = os.environ | {
            "CGROUP": str(cgroup.create(self.name)),
            "OVERLAY": self._overlay(),
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes",
        }
        with (self.directory / "console").open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                start_new_session=True,
            )  # fmt: skip
        self._leader = 0
        self.record.watch(self._process.pid)

    def _overlay(self) -> str:
        parts = {
            "lowerdir": ":".join(map(str, self._lowers)),
            "upperdir": self.directory / "upper",
            "workdir": self.directory / "work",
        }
        return ",".join(f"{name}={path}" for name, path in parts.items())

    def _nspawn(self) -> list[str]:
        argv = [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot",
            "--console=pipe", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
            "--capability=all", f"--system-call-filter={_SYSTEM_CALLS}",
            f"--directory={self.directory}/root", f"--machine={self.name}",
            f"--network-namespace-path={network.path_of(self.name)}",
        ]  # fmt: skip
        argv += [f"--bind={device}" for device in _DEVICES if Path(device).exists()]
        return argv + [f"--bind={self._disk(place)}:{place}" for place in _OWN_DISK]

    def leader(self) -> int:
        """The host's PID 1, as the machine counts."""
        if not self._leader:
            scope = cgroup.path_of(self.name) / "payload" / "init.scope" / "cgroup.procs"
            with contextlib.suppress(OSError):
                for pid in scope.read_text().split():
                    if _is_init(pid):
                        self._leader = int(pid)
        if not self._leader:
            raise HostError(f"{self.name} has no PID 1 yet")
        return self._leader

    def _command(self, argv: Sequence[str], user: str | None, tty: bool) -> list[str]:
        leader = self.leader()
        group = cgroup.path_of(self.name)
        service = group / "payload" / "system.slice" / "syscont-harness.service"
        if service.exists():
            group = service
        enter = ["nsenter", "-t", str(leader), "--all", "--", *self._environment(argv, user)]
        return ["sh", "-c", _ENTER, "enter", str(group), *enter]

    def console(self) -> str:
        return (self.directory / "console").read_text(errors="replace")

    def _lay(self, wire: Wire) -> None:
        network.wire(wire.left.name, wire.right.name, wire.link, wire.addresses)


def _is_init(pid: str) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return line.split()[-1] == "1"
    return False


def _resolvers() -> str:
    """The machine's name servers, for the host's systemd-resolved."""
    servers: list[str] = []
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        with contextlib.suppress(FileNotFoundError):
            lines = [line.split() for line in Path(path).read_text().splitlines()]
            servers += [words[1] for words in lines if words[:1] == ["nameserver"]]
    # A stub on the machine's own loopback can't be reached from the host.
    usable = dict.fromkeys(one for one in servers if not one.startswith("127."))
    return f"[Resolve]\nDNS={' '.join(usable)}\nFallbackDNS=\nDNSSEC=no\n"
