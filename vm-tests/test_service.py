# SPDX-License-Identifier: Apache-2.0
"""The daemon's own unit."""

import re

from hosts import Host


def _exposure(host: Host, unit: str) -> float:
    """From 0 to 10, as systemd sees it."""
    shown = host.run(["systemd-analyze", "security", "--no-pager", unit]).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", shown)
    assert found, shown
    return float(found[1])


def test_exposed_no_more_than_systemds_own_manager_of_machines(host: Host) -> None:
    assert _exposure(host, "syscontd.service") <= min(6.2, _exposure(host, "systemd-machined.service"))


def test_system_calls_of_the_daemon_are_filtered(host: Host) -> None:
    pid = host.run(["systemctl", "show", "--value", "-p", "MainPID", "syscontd.service"]).stdout.strip()
    status = host.read_text(f"/proc/{pid}/status")
    assert re.search(r"^Seccomp:\s*2$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s*1$", status, re.MULTILINE)
