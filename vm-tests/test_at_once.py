# SPDX-License-Identifier: Apache-2.0
"""Many changes of one object at the same time: none is lost, and of those that exclude each other one is made."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from guests import Instance, syscont
from hosts import Host

MANY = range(20)


def at_once(host: Host, command: str) -> int:
    """Run a command for each number, $n, side by side; returns how many succeeded."""
    script = f"for n in {' '.join(map(str, MANY))}; do ( {command} ) 2>/dev/null && echo done & done; wait"
    return host.sh(script).count("done")


@pytest.fixture(scope="module")
def many_profiles(host: Host) -> Iterator[None]:
    """Of which each has a device."""
    assert at_once(host, "syscont profile create p$n && syscont profile device add p$n d$n none") == len(MANY)
    yield
    host.sh("syscont profile delete $(seq -f p%g 0 19)")


@pytest.fixture
def stopped(host: Host, busybox: str) -> Iterator[Instance]:
    syscont(host, "create", busybox, "crowd")
    yield Instance(host, "crowd")
    syscont(host, "delete", "crowd")


def of_profile(host: Host, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(syscont(host, "profile", "show", name, "--format", "json").stdout)
    return found


def test_profiles_of_an_instance(host: Host, stopped: Instance, many_profiles: None) -> None:
    assert at_once(host, "syscont profile add crowd p$n") == len(MANY)
    assert sorted(stopped.seen()["profiles"]) == sorted(["default", *(f"p{n}" for n in MANY)])
    assert at_once(host, "syscont profile add crowd p$((n / 2))") == 0
    assert at_once(host, "syscont profile remove crowd p$((n / 2))") == len(MANY) // 2
    assert at_once(host, "syscont profile remove crowd p$((n / 2 + 10))") == len(MANY) // 2
    assert stopped.seen()["profiles"] == ["default"]


def test_devices_of_an_instance(host: Host, stopped: Instance) -> None:
    assert at_once(host, "syscont device add crowd d$n none user.n=$n") == len(MANY)
    assert at_once(host, "syscont device add crowd twice none user.n=$n") == 1
    assert at_once(host, "syscont device set crowd twice user.o$n=$n") == len(MANY)
    twice = stopped.seen()["devices"]["twice"]
    assert {twice[f"user.o{n}"] for n in MANY} == {str(n) for n in MANY}
    assert at_once(host, "syscont device unset crowd twice user.o$n") == len(MANY)
    assert set(stopped.seen()["devices"]["twice"]) == {"type", "user.n"}
    assert at_once(host, "syscont device override crowd eth0 user.n=$n") == 1
    assert at_once(host, "syscont device remove crowd d$n") == len(MANY)
    assert set(stopped.seen()["devices"]) == {"twice", "eth0"}


def test_devices_of_a_profile(host: Host, many_profiles: None) -> None:
    assert at_once(host, "syscont profile device add p0 twice none user.n=$n") == 1
    assert at_once(host, "syscont profile device set p0 twice user.o$n=$n") == len(MANY)
    assert len(of_profile(host, "p0")["devices"]["twice"]) == len(MANY) + 2
    assert at_once(host, "syscont profile device unset p0 twice user.o$n") == len(MANY)
    assert at_once(host, "syscont profile set p0 user.o$n=$n") == len(MANY)
    assert len(of_profile(host, "p0")["config"]) == len(MANY)


def test_configurations(host: Host, stopped: Instance) -> None:
    assert at_once(host, "syscont config set crowd user.o$n=$n") == len(MANY)
    assert {stopped.config[f"user.o{n}"] for n in MANY} == {str(n) for n in MANY}
    assert at_once(host, "syscont config set user.o$n=$n") == len(MANY)
    assert len(json.loads(syscont(host, "config", "show", "--format", "json").stdout)["config"]) == len(MANY)
    assert at_once(host, "syscont config unset user.o$n") == len(MANY)
    syscont(host, "project", "create", "crowd")
    try:
        assert at_once(host, "syscont project set crowd user.o$n=$n") == len(MANY)
        shown = json.loads(syscont(host, "project", "show", "crowd", "--format", "json").stdout)
        assert sum(key.startswith("user.o") for key in shown["config"]) == len(MANY)
    finally:
        syscont(host, "project", "delete", "crowd")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("device set crowd eth0 mtu=1400", "crowd has no device 'eth0' of its own (it comes from a profile"),
        ("device unset crowd nothing mtu", "crowd has no device 'nothing'"),
        ("device override crowd nothing mtu=1", "no profile gives crowd a device 'nothing'"),
        ("device add crowd ../x none", "invalid device name"),
        ("profile remove crowd nothing", "crowd does not have profile nothing"),
        ("profile add crowd default", "crowd has profile default already"),
        ("profile add crowd nothing", "no profile 'nothing'"),
        ("profile device set default nothing mtu=1", "profile default has no device 'nothing'"),
    ],
)
def test_what_is_wrong_changes_nothing(host: Host, stopped: Instance, command: str, said: str) -> None:
    before = stopped.seen(), of_profile(host, "default")
    done = syscont(host, *command.split(), check=False)
    assert (done.returncode != 0, said in done.stderr) == (True, True), done.stderr
    assert (stopped.seen(), of_profile(host, "default")) == before
