# SPDX-License-Identifier: Apache-2.0
"""The daemon's own unit."""

import re

from conftest import Launch
from guests import systemd_property
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


# instances when the host goes down


def test_instances_stop_with_their_target(host: Host, launch: Launch) -> None:
    """As it stops at shutdown, and each in its own way: init is asked."""
    instance = launch()
    instance.sh("echo '::shutdown:/bin/touch /root/asked' >>/etc/inittab; kill -HUP 1; sleep 0.2")
    asked = instance.on_disk("/root/asked")
    host.run(["systemctl", "stop", "syscont.target"])
    instance.wait_for("stopped")
    host.run(["test", "-e", asked])
    instance.do("start")
    assert systemd_property(host, "syscont.target", "ActiveState") == "active"


def test_instances_stop_before_what_they_need(host: Host, launch: Launch) -> None:
    """What stops at shutdown does so in the reverse order of After=."""
    assert {"syscont.target", "syscont.slice"} <= set(launch().systemd("After").split())
    after = set(systemd_property(host, "syscont.target", "After").split())
    assert {"basic.target", "network.target", "syscontd.service"} <= after
    assert systemd_property(host, "syscont.target", "RequiresMountsFor") == "/var/lib/syscont"
    assert "shutdown.target" in systemd_property(host, "syscont.target", "Conflicts").split()
