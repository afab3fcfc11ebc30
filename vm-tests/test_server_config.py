# SPDX-License-Identifier: Apache-2.0
"""The configuration of the host as a whole: both doors, what it gives to instances, and what it does not take."""

import json
from collections.abc import Iterator

import pytest
from conftest import Launch
from guests import syscont
from hosts import Host

MAIN = ["org.syscont.Manager", "/org/syscont/Manager", "org.syscont.Manager"]
DEFAULT = "instances.security.core_scheduling"
PROXY = """
import socket
server = socket.create_server(("127.0.0.1", 3129))
server.settimeout(60)
while True:
    peer, _ = server.accept()
    request = peer.recv(4096)
    peer.close()
    if request:
        print(request.split(b"\\r\\n")[0].decode(), flush=True)
        break
"""


@pytest.fixture(autouse=True)
def as_before(host: Host) -> Iterator[None]:
    assert shown(host) == {}
    yield
    host.run(["busctl", "call", *MAIN, "UpdateServerConfig", "a{ss}", "0"])


def shown(host: Host) -> dict[str, str]:
    found: dict[str, str] = json.loads(syscont(host, "config", "show", "--format", "json").stdout)["config"]
    return found


def test_keys_are_set_and_unset(host: Host) -> None:
    syscont(host, "config", "set", "user.note=a b", f"{DEFAULT}=false")
    assert shown(host) == {"user.note": "a b", DEFAULT: "false"}
    host.run(["systemctl", "restart", "syscontd.service"])
    assert syscont(host, "config", "get", DEFAULT).stdout == "false\n"
    assert f"{DEFAULT}=false" in syscont(host, "info").stdout
    syscont(host, "config", "unset", DEFAULT)
    assert shown(host) == {"user.note": "a b"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["core.trust_password=x"], "core.trust_password can't be set: other hosts are trusted by certificate"),
        (["limits.memory=1GiB"], "unknown server key 'limits.memory'"),
        (["user.fine=x", f"{DEFAULT}=perhaps"], "not a boolean"),
        (["core.proxy_http=http://a\nLD_PRELOAD=/x"], "line break"),
        (["core.proxy_http=http://a\tB=c"], "not the URL of a proxy"),
    ],
)
def test_what_is_wrong_changes_nothing(host: Host, given: list[str], said: str) -> None:
    done = syscont(host, "config", "set", *given, check=False)
    assert (done.returncode != 0, said in done.stderr) == (True, True), done.stderr
    assert shown(host) == {}


def test_instances_have_the_hosts_default(host: Host, launch: Launch) -> None:
    own, other = launch("", "-c", "security.core_scheduling=true", verb="create"), launch(verb="create")
    syscont(host, "config", "set", f"{DEFAULT}=false")
    seen = [one.do("config show", "--all", "--format", "csv").stdout.splitlines() for one in (own, other)]
    assert "security.core_scheduling,true,instance" in seen[0]
    assert "security.core_scheduling,false,server" in seen[1]
    host.run(["systemctl", "start", own.unit, other.unit])
    assert other.state == "running"


def test_the_bus_tells_and_asks(host: Host) -> None:
    """Everybody may read what is public; the rest, and changes, polkit decides."""
    host.run(["busctl", "call", *MAIN, "ChangeServerConfig", "a{ss}as", "2", "user.secret", "hush", DEFAULT, "no", "0"])
    seen = host.run(["busctl", "get-property", *MAIN, "ServerConfig"], user="alice").stdout
    assert (DEFAULT in seen, "hush" in seen) == (True, False)
    for call in (["GetServerConfig"], ["ChangeServerConfig", "a{ss}as", "0", "1", "user.secret"]):
        refused = host.run(["busctl", "call", *MAIN, *call], user="alice", check=False)
        assert "org.syscont.manage-server is not permitted" in refused.stderr
    assert shown(host)["user.secret"] == "hush"


def test_builds_fetch_by_the_proxy(host: Host) -> None:
    listening = host.spawn(["python3", "-c", PROXY])
    syscont(host, "config", "set", "core.proxy_http=http://127.0.0.1:3129")
    done = syscont(host, "image", "build", "debian/trixie", check=False)
    assert done.returncode
    assert listening.stdout
    assert listening.stdout.readline().startswith("GET http://")
    listening.wait()


def test_apply_and_edit(host: Host) -> None:
    text = f"config:\n  {DEFAULT}: false\n"
    first = syscont(host, "apply", "-", "--yes", input=text)
    assert first.stdout.startswith("change     server config\n")
    assert syscont(host, "apply", "-", "--yes", input=text).stdout.startswith("unchanged  server config\n")
    syscont(host, "edit", input="config: {user.note: x}\n")
    assert shown(host) == {"user.note": "x"}
