# SPDX-License-Identifier: Apache-2.0
"""Real servers of OVSDB and a real ovn-northd, below a test's own folder; no root, no network."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NORTHBOUND = Path("/usr/share/ovn/ovn-nb.ovsschema")
SOUTHBOUND = Path("/usr/share/ovn/ovn-sb.ovsschema")
VSWITCH = Path("/usr/share/openvswitch/vswitch.ovsschema")
NAMES = {NORTHBOUND: "OVN_Northbound", SOUTHBOUND: "OVN_Southbound", VSWITCH: "Open_vSwitch"}


def until(done: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


class Server:
    """An ovsdb-server with one database; its content is what JSON says."""

    def __init__(self, folder: Path, schema: Path) -> None:
        self.name = NAMES[schema]
        self.socket = folder / f"{schema.stem}.sock"
        self.remote = f"unix:{self.socket}"
        self._folder = folder
        self._file = folder / f"{schema.stem}.db"
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(["ovsdb-tool", "create", str(self._file), str(schema)], check=True)
        self.start()

    def start(self, *options: str) -> None:
        """options: of ovsdb-server(1), besides."""
        command = [
            "ovsdb-server", str(self._file), f"--remote=punix:{self.socket}", "--no-chdir", "-vconsole:off",
            "-vsyslog:off", f"--unixctl={self._folder / (self.name + '.ctl')}", *options,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, env={"PATH": "/usr/sbin:/usr/bin", "OVS_RUNDIR": str(self._folder)})
        until(self.socket.exists)
        until(lambda: self._answers())

    def _answers(self) -> bool:
        return subprocess.run(["ovsdb-client", "list-dbs", self.remote], capture_output=True).returncode == 0

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.socket.unlink(missing_ok=True)

    def transact(self, *operations: dict[str, Any]) -> list[Any]:
        answer = subprocess.run(
            ["ovsdb-client", "transact", self.remote, json.dumps([self.name, *operations])],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found: list[Any] = json.loads(answer.stdout)
        assert not [each for each in found if "error" in each], found
        return found

    def rows(self, table: str, *columns: str) -> list[dict[str, Any]]:
        operation: dict[str, Any] = {"op": "select", "table": table, "where": []}
        if columns:
            operation["columns"] = list(columns)
        found: list[dict[str, Any]] = self.transact(operation)[0]["rows"]
        return found

    def dump(self) -> str:
        """All of it, with each row's UUID and version: two that are equal saw no transaction in between."""
        command = ["ovsdb-client", "dump", "--format=json", self.remote, self.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def delete(self, table: str, column: str, value: object) -> None:
        assert self.transact({"op": "delete", "table": table, "where": [[column, "==", value]]})[0]["count"]


class Northd:
    """ovn-northd between two servers."""

    def __init__(self, folder: Path, north: Server, south: Server) -> None:
        self.north, self.south = north, south
        command = [
            "ovn-northd", f"--ovnnb-db={north.remote}", f"--ovnsb-db={south.remote}", "--no-chdir", "-vconsole:off",
            "-vsyslog:off", f"--unixctl={folder / 'northd.ctl'}",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, env={"PATH": "/usr/sbin:/usr/bin", "OVN_RUNDIR": str(folder)})
        until(lambda: north.rows("NB_Global", "nb_cfg"))

    def chassis(self, name: str, address: str = "127.0.0.1") -> None:
        self._south("chassis-add", name, "geneve", address)

    def bind(self, port: str, chassis: str) -> None:
        self._south("lsp-bind", port, chassis)

    def _south(self, *command: str) -> None:
        subprocess.run(["ovn-sbctl", f"--db={self.south.remote}", *command], check=True, capture_output=True)

    def neighbour(self, port: str, address: str, mac: str) -> None:
        """As if a router had learned it."""
        (binding,) = [row for row in self.south.rows("Port_Binding") if row["logical_port"] == port]
        row = {"logical_port": port, "ip": address, "mac": mac, "datapath": binding["datapath"]}
        self.south.transact({"op": "insert", "table": "MAC_Binding", "row": row})

    def trace(self, datapath: str, flow: str, *options: str) -> str:
        """What becomes of a packet."""
        command = ["ovn-trace", f"--db={self.south.remote}", *options, datapath, flow]
        done = subprocess.run(command, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        return done.stdout

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
