# SPDX-License-Identifier: Apache-2.0
"""Files that an image wants made in its instances: LXD's templates."""

import json
import shlex
from collections.abc import Iterator

import pytest
from conftest import Launch
from guests import Instance, syscont, until
from hosts import Host

FOLDER = "/var/tmp/templated"
TEMPLATES = {
    "/etc/hostname": (["create", "copy"], "{{ container.name }}\n"),
    "/etc/greeting": (["create"], '{{ config_get("user.greeting", properties.default) }}\n'),
    "/etc/log": (["create", "copy", "rename", "start"], "{{ trigger }} {{ instance.name }}\n"),
    "/etc/renamed": (["rename"], "{{ trigger }} {{ instance.name }}\n"),
    "/srv/deep/down/file": (["create"], "deep\n"),
    "/etc/bad": (["create"], "{% include '/etc/shadow' %}"),
}


@pytest.fixture(scope="module")
def templated(host: Host, busybox: str) -> Iterator[str]:
    """An image like LXD's: the small one's tree, with templates."""
    images = json.loads(syscont(host, "image", "list", "--format", "json").stdout)
    tree = next(one["fingerprint"] for one in images if busybox in one["aliases"])
    described = {
        "architecture": host.run(["uname", "-m"]).stdout.strip(),
        "creation_date": 1,
        "templates": {
            path: {"when": when, "template": f"{n}.tpl", "properties": {"default": "hello"}}
            for n, (path, (when, _)) in enumerate(TEMPLATES.items())
        },
    }
    host.run(["mkdir", "-p", f"{FOLDER}/templates"])
    for n, (_, text) in enumerate(TEMPLATES.values()):
        host.sh(f"printf %s {shlex.quote(text)} >{FOLDER}/templates/{n}.tpl")
    host.sh(f"printf %s {shlex.quote(json.dumps(described))} >{FOLDER}/metadata.yaml")
    host.run(["cp", "-a", f"/var/lib/syscont/images/{tree}/rootfs", FOLDER])
    host.run(["tar", "-C", FOLDER, "-cf", f"{FOLDER}.tar", "metadata.yaml", "templates", "rootfs"])
    syscont(host, "image", "import", f"{FOLDER}.tar", "--alias", "templated")
    yield "templated"
    host.run(["rm", "-r", FOLDER, f"{FOLDER}.tar"])


def test_files_are_made_at_the_first_start(host: Host, templated: str, launch: Launch) -> None:
    one = launch(templated, "--config", "user.greeting=hi\n{{ trigger }}")
    assert one.sh("cat /etc/hostname") == f"{one.name}\n"
    assert one.sh("cat /etc/greeting") == "hi\n{{ trigger }}\n"
    assert one.sh("cat /srv/deep/down/file") == "deep\n"
    assert one.sh("stat -c '%u %g %a' /etc/hostname /srv/deep") == "0 0 644\n0 0 755\n"
    assert one.sh("cat /etc/log") == f"start {one.name}\n", "those of each start come last"
    assert one.exec("ls", "/etc/bad", check=False).returncode != 0
    assert "/etc/bad is not made" in host.run(["journalctl", "-o", "cat", "-u", "syscontd"]).stdout


def test_they_are_the_guests_own_from_then_on(host: Host, templated: str, launch: Launch) -> None:
    one = launch(templated)
    one.sh("echo mine >/etc/hostname; echo mine >/etc/greeting; echo mine >/etc/log")
    one.do("restart", "--force")
    assert one.sh("cat /etc/hostname /etc/greeting /etc/log") == f"mine\nmine\nstart {one.name}\n"


def test_copies_have_files_of_their_own(host: Host, templated: str, launch: Launch) -> None:
    one = launch(templated)
    one.sh("echo mine >/etc/greeting")
    other = Instance(host, f"{one.name}-copy")
    syscont(host, "copy", one.name, other.name)
    other.do("start")
    assert other.sh("cat /etc/hostname /etc/greeting") == f"{other.name}\nmine\n"
    other.do("delete", "--force")


def test_a_new_name_is_told_once(host: Host, templated: str, launch: Launch) -> None:
    """At the next start; to an instance that was never started by another name, its first start is all there is."""
    one = launch(templated, name="calledthis")
    assert one.exec("ls", "/etc/renamed", check=False).returncode
    one.do("stop", "--force")
    syscont(host, "rename", one.name, "calledthat")
    other = Instance(host, "calledthat")
    other.do("start")
    assert other.sh("cat /etc/renamed; echo mine >/etc/renamed") == "rename calledthat\n"
    other.do("restart", "--force")
    assert other.sh("cat /etc/renamed") == "mine\n"
    syscont(host, "create", templated, "neverran")
    syscont(host, "rename", "neverran", "runsnow")
    new = Instance(host, "runsnow")
    new.do("start")
    assert new.exec("ls", "/etc/renamed", check=False).returncode
    assert new.sh("cat /etc/hostname") == "runsnow\n"
    for instance in (other, new):
        instance.do("delete", "--force")


def test_links_in_their_way_lead_nowhere(host: Host, templated: str, canary: None, launch: Launch) -> None:
    """A guest that turns folders and files into links starts all the same, and only its own tree is written to."""
    one = launch(templated)
    one.sh("ln -sf /canary/log /etc/log")
    one.do("restart", "--force")
    assert one.sh("cat /etc/log") == f"start {one.name}\n"
    assert one.sh("stat -c %F /etc/log") == "regular file\n"
    one.sh("mv /etc /etc2; ln -s ../../../../canary /etc")
    one.do("restart", "--force")
    until(host, lambda: "/etc/log was not written: no plain folders lead there: " in one.logs())
