# SPDX-License-Identifier: Apache-2.0
"""Guests that set themselves up by what they are told: cloud-init, and systemd's credentials."""

import json
from collections.abc import Iterator

import pytest
from conftest import Launch
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


def test_links_in_the_way_of_the_seed_lead_nowhere(host: Host, seeded_guest: Instance) -> None:
    """A guest that puts links where the seed goes starts without it, and nothing is written where they lead."""
    host.sh("mkdir -p /canary; echo untouched >/canary/user-data")
    before = host.sh("stat -c '%a %u %Y %i' /canary/user-data; ls /canary")
    # A link for a folder, a pipe for a file.
    for script in (
        f"rm -rf {SEED}; mkdir -p $(dirname {SEED}); ln -s /canary {SEED}",
        f"rm -rf {SEED}; mkdir -p {SEED}; ln -s /canary/user-data {SEED}/user-data; mkfifo {SEED}/vendor-data",
    ):
        seeded_guest.sh(script)
        seeded_guest.do("restart", "--force")
        until(host, lambda: seeded_guest.exec("true", check=False).returncode == 0)
    assert host.sh("stat -c '%a %u %Y %i' /canary/user-data; ls /canary") == before
    assert seeded_guest.sh(f"stat -c %F {SEED}/*").splitlines() == ["regular file"] * 4
    assert "no seed for cloud-init: /var/lib/cloud/seed/nocloud-net of the instance is not" in host.sh(
        f"journalctl -o cat -u {seeded_guest.unit}"
    )
    host.sh("rm -r /canary")


def test_images_without_cloud_init_get_no_seed(guest: Instance) -> None:
    assert guest.exec("ls", "/var/lib/cloud", check=False).returncode != 0


# credentials

CREDENTIALS = {
    "systemd.credential.tmpfiles.extra": "f /root/by-credential 0600 root root - yes",
    "systemd.credential.secret": "line\nand a \\ and a ' and \t",
    "systemd.credential-binary.bytes": "AP8KDQ==",
    "environment.CREDENTIALS_DIRECTORY": "/somewhere/else",
}


@pytest.fixture(scope="module")
def told_guest(host: Host, debian: str) -> Iterator[Instance]:
    guest = Instance(host, "told-guest")
    options = [word for key, value in CREDENTIALS.items() for word in ("--config", f"{key}={value}")]
    syscont(host, "launch", "--wait", *options, debian, guest.name)
    yield guest
    syscont(host, "delete", "--force", guest.name)


def test_systemd_takes_its_credentials(told_guest: Instance) -> None:
    assert told_guest.sh("cat /root/by-credential") == "yes"
    script = "systemd-run -q --pipe --wait -p ImportCredential=secret -p ImportCredential=bytes sh -c"
    read = "cat $CREDENTIALS_DIRECTORY/secret; od -An -tx1 $CREDENTIALS_DIRECTORY/bytes"
    text = told_guest.exec(*script.split(), read).stdout
    assert text == CREDENTIALS["systemd.credential.secret"] + " 00 ff 0a 0d\n"


def test_credentials_are_where_the_container_interface_wants_them(told_guest: Instance) -> None:
    environ = told_guest.sh("tr '\\0' '\\n' </proc/1/environ").splitlines()
    assert "CREDENTIALS_DIRECTORY=/run/host/credentials" in environ
    assert told_guest.sh("stat -c '%a %u' /run/host/credentials /run/host/credentials/secret") == "700 0\n400 0\n"
    kind, options = told_guest.sh("grep ' /run/host/credentials ' /proc/mounts").split()[2:4]
    assert kind == "ramfs" or "noswap" in options
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options.split(","))
    assert told_guest.exec("sh", "-c", "echo x >/run/host/credentials/new", check=False).returncode != 0
    nobody = told_guest.exec("su", "-s", "/bin/sh", "nobody", "-c", "cat /run/host/credentials/secret", check=False)
    assert "ermission denied" in nobody.stderr


def test_secrets_are_nobodys_on_the_host(host: Host, told_guest: Instance) -> None:
    secret = CREDENTIALS["systemd.credential.tmpfiles.extra"]
    for argv in (["systemctl", "show", told_guest.unit], ["syscont", "list", "--format", "json"]):
        assert secret not in host.run(argv, user="alice", check=False).stdout
    assert secret not in host.run(["journalctl", "-b", "-o", "export"]).stdout
    spec = f"/run/syscont/instances/{told_guest.seen()['uuid']}.json"
    assert host.run(["stat", "-c", "%a %u", spec]).stdout == "600 0\n"


def test_no_credentials_no_folder(launch: Launch) -> None:
    one = launch()
    assert one.exec("ls", "/run/host/credentials", check=False).returncode != 0
    assert "CREDENTIALS_DIRECTORY" not in one.sh("cat /proc/1/environ")
