# SPDX-License-Identifier: Apache-2.0
"""DNS servers that follow a zone of a test's host: BIND, Knot and NSD of Debian, each at an address and with a key of
its own."""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass

from hosts import Host

ZONE = "lab.example"
PRIMARY = "127.0.0.11"
SECRETS = {
    name: base64.b64encode(bytes([number]) * 32).decode() for number, name in enumerate(("bind", "knot", "nsd"))
}


@dataclass(frozen=True)
class Secondary:
    """config is of (key, secret, address); command gets the path of its file; whole is what it logs of a transfer of
    the whole zone."""

    name: str
    address: str
    command: tuple[str, ...]
    config: Callable[[str, str, str], str]
    whole: str

    @property
    def key(self) -> str:
        return f"{ZONE}_{self.name}."

    @property
    def unit(self) -> str:
        return f"secondary-{self.name}.service"

    def start(self, host: Host) -> None:
        file = f"/etc/secondary-{self.name}.conf"
        host.run(["ip", "address", "add", f"{self.address}/32", "dev", "lo"])
        host.write_text(file, self.config(self.key, SECRETS[self.name], self.address))
        folder = f"/var/lib/secondary-{self.name}"
        host.run(["mkdir", "-p", folder])
        command = [word.replace("CONFIG", file) for word in self.command]
        host.run(["systemd-run", "-q", f"--unit={self.unit}", f"--working-directory={folder}", *command])

    def records(self, host: Host) -> set[str]:
        return records(host, self.address, self.address)

    def whole_transfers(self, host: Host) -> int:
        log = host.run(["journalctl", "--no-pager", "-o", "cat", "-u", self.unit]).stdout
        return len(re.findall(self.whole, log))


def _bind(key: str, secret: str, address: str) -> str:
    return f"""
        key "{key}" {{ algorithm hmac-sha256; secret "{secret}"; }};
        options {{ directory "/var/cache/bind"; listen-on {{ {address}; }}; listen-on-v6 {{ none; }}; recursion no;
          dnssec-validation no; notify no; transfer-source {address}; query-source address {address};
          allow-query {{ any; }}; allow-transfer {{ any; }}; }};
        zone "{ZONE}" {{ type secondary; file "followed.db"; primaries {{ {PRIMARY} key "{key}"; }}; }};
        """


def _knot(key: str, secret: str, address: str) -> str:
    return f"""
server:
    listen: {address}@53
    rundir: /var/lib/secondary-knot
log:
  - target: stderr
    any: debug
database:
    storage: /var/lib/secondary-knot
key:
  - id: {key}
    algorithm: hmac-sha256
    secret: {secret}
remote:
  - id: primary
    address: {PRIMARY}@53
    via: {address}
    key: {key}
acl:
  - id: told
    key: {key}
    action: notify
  - id: anyone
    address: 127.0.0.0/8
    action: transfer
zone:
  - domain: {ZONE}
    storage: /var/lib/secondary-knot
    master: primary
    acl: [told, anyone]
"""


def _nsd(key: str, secret: str, address: str) -> str:
    return f"""
server:
    ip-address: {address}
    username: ""
    zonesdir: "/var/lib/secondary-nsd"
    database: ""
    xfrdfile: "/var/lib/secondary-nsd/xfrd.state"
    zonelistfile: "/var/lib/secondary-nsd/zone.list"
    pidfile: ""
    verbosity: 2
    xfrd-reload-timeout: 0
remote-control:
    control-enable: no
key:
    name: "{key}"
    algorithm: hmac-sha256
    secret: "{secret}"
zone:
    name: "{ZONE}"
    zonefile: "followed.zone"
    request-xfr: {PRIMARY}@53 {key}
    allow-notify: {PRIMARY} {key}
    outgoing-interface: {address}
    provide-xfr: 127.0.0.0/8 NOKEY
"""


SECONDARIES = (
    Secondary("bind", "127.0.0.12", ("named", "-g", "-c", "CONFIG"), _bind, "Transfer completed:.* [0-9]{4,} bytes"),
    Secondary("knot", "127.0.0.14", ("knotd", "-c", "CONFIG"), _knot, "AXFR, incoming"),
    Secondary("nsd", "127.0.0.15", ("nsd", "-d", "-c", "CONFIG"), _nsd, "of [0-9]{4,} bytes"),
)


def records(host: Host, server: str, source: str, *options: str) -> set[str]:
    """All of a zone, as a transfer gives it, but for its serial."""
    argv = ["dig", "+norecurse", "+timeout=2", "+tries=1", "-b", source, f"@{server}", *options, ZONE, "AXFR"]
    lines = host.run(argv, check=False).stdout.splitlines()
    return {" ".join(line.split()) for line in lines if line and not line.startswith(";") and "TSIG" not in line}


def published(host: Host) -> set[str]:
    first = SECONDARIES[0]
    return records(host, PRIMARY, first.address, f"-yhmac-sha256:{first.key}:{SECRETS[first.name]}")
