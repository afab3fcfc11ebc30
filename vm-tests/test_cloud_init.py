# SPDX-License-Identifier: Apache-2.0
"""cloud-init in guests: it finds what it is told, one way or the other, and sets the guest up by it."""

import json
from collections.abc import Iterator

import pytest
from guests import Instance, syscont, until
from hosts import Host

USER_DATA = """#cloud-config
write_files:
- {path: /root/written, content: "by user-data"}
runcmd:
- [sh, -c, "echo $(hostname) >/root/ran; echo once >>/root/times"]
"""
VENDOR_DATA = """#cloud-config
bootcmd: [[touch, /root/vendor]]
"""
SEED = "/var/lib/cloud/seed/nocloud-net"


def wait_for_cloud_init(guest: Instance) -> None:
    seen = until(guest.host, lambda: status(guest), patience=60)
    assert seen
    assert seen["status"] == "done", seen


def status(guest: Instance) -> dict[str, object] | None:
    text = guest.exec("cloud-init", "status", "--format", "json", check=False).stdout
    seen = dict(json.loads(text)) if text else {"status": "running"}
    return None if seen["status"] in ("running", "not started", "not run") else seen


@pytest.fixture(scope="module")
def cloud_guest(host: Host, debian_with_cloud_init: str) -> Iterator[Instance]:
    """A guest that cloud-init has set up: user-data by the key of today, vendor-data by that of old."""
    yield from _set_up(host, debian_with_cloud_init, "cloud-guest")


@pytest.fixture(scope="module")
def seeded_guest(host: Host, debian_with_cloud_init: str) -> Iterator[Instance]:
    """The same, which has only files to go by."""
    yield from _set_up(host, debian_with_cloud_init, "seeded-guest", "security.devlxd=false")


def _set_up(host: Host, image: str, name: str, *config: str) -> Iterator[Instance]:
    guest = Instance(host, name)
    data = [f"cloud-init.user-data={USER_DATA}", f"user.vendor-data={VENDOR_DATA}", "user.user-data=#!/bin/false"]
    options = [word for one in (*data, *config) for word in ("--config", one)]
    syscont(host, "launch", *options, image, guest.name)
    wait_for_cloud_init(guest)
    yield guest
    syscont(host, "delete", "--force", guest.name)


def asked(guest: Instance, name: str) -> str:
    return guest.exec("cloud-init", "query", name).stdout.strip()


def check_what_was_done(guest: Instance) -> None:
    assert guest.sh("cat /root/written") == "by user-data"
    assert guest.sh("ls /root/vendor")
    assert guest.sh("cat /root/ran") == f"{guest.name}\n"
    assert guest.sh("hostname") == f"{guest.name}\n"
    assert "10-cloud-init-eth0" in guest.sh("ls /run/systemd/network /etc/systemd/network")
    assert guest.address()
    assert f'"{asked(guest, "instance_id")}"' in guest.sh(f"cat {SEED}/meta-data"), "one identity, however it is told"


def test_told_by_lxds_api(cloud_guest: Instance) -> None:
    assert asked(cloud_guest, "cloud_id") == "lxd"
    check_what_was_done(cloud_guest)


def test_told_by_the_seed(seeded_guest: Instance) -> None:
    assert asked(seeded_guest, "cloud_id") == "nocloud"
    assert seeded_guest.sh(f"stat -c '%a %u' {SEED}/*").splitlines() == ["600 0"] * 4
    check_what_was_done(seeded_guest)


@pytest.mark.heavy
def test_it_runs_once_until_it_is_told_other_things(host: Host, seeded_guest: Instance) -> None:
    seeded_guest.do("restart")
    wait_for_cloud_init(seeded_guest)
    assert seeded_guest.sh("cat /root/times") == "once\n"
    new = USER_DATA.replace("once", "again")
    syscont(host, "config", "set", seeded_guest.name, f"cloud-init.user-data={new}")
    seeded_guest.do("restart")
    wait_for_cloud_init(seeded_guest)
    assert seeded_guest.sh("cat /root/times") == "once\nagain\n"


def test_links_in_the_way_of_the_seed_lead_nowhere(host: Host, canary: None, seeded_guest: Instance) -> None:
    """A guest that puts links where the seed goes starts without it, and nothing is written where they lead."""
    # A link for a folder, a pipe for a file.
    for script in (
        f"rm -rf {SEED}; mkdir -p $(dirname {SEED}); ln -s /canary {SEED}",
        f"rm -rf {SEED}; mkdir -p {SEED}; ln -s /canary/user-data {SEED}/user-data; mkfifo {SEED}/vendor-data",
    ):
        seeded_guest.sh(script)
        seeded_guest.do("restart", "--force")
        until(host, lambda: seeded_guest.exec("true", check=False).returncode == 0)
    assert seeded_guest.sh(f"stat -c %F {SEED}/*").splitlines() == ["regular file"] * 4
    assert "/meta-data was not written: no plain folders lead there: " in seeded_guest.logs()


def test_images_without_cloud_init_get_no_seed(guest: Instance) -> None:
    assert guest.exec("ls", "/var/lib/cloud", check=False).returncode != 0
