# SPDX-License-Identifier: Apache-2.0
"""config: what is in force and why, what there is to set, and values that come from elsewhere."""

from __future__ import annotations

import json

import pytest
import yaml

from sysd.cli import keys
from sysd.cli.config import in_force
from sysd.cli.options import parse
from sysd.cli.verbs import VERBS
from sysd.model.config import KEYS
from sysd.model.schema import Key
from sysd.model.values import anything
from tests.cli.conftest import Command, Serve
from tests.cli.test_cli_verbs import HANDLERS

ANSWER = {
    "config": {"limits.memory": "1GiB", "volatile.eth0.hwaddr": "02:00:00:00:00:01"},
    "expanded": {
        "limits.memory": "1GiB",
        "limits.processes": "50",
        "security.core_scheduling": "false",
        "user.note": "of all\n",
        "volatile.eth0.hwaddr": "02:00:00:00:00:01",
    },
    "origins": {"limits.processes": "small", "user.note": "default"},
}


def test_each_key_is_shown_with_where_its_value_comes_from() -> None:
    found = {item["key"]: (item["value"], item["from"]) for item in in_force(ANSWER)}
    assert found["limits.memory"] == ("1GiB", "instance")
    assert found["limits.processes"] == ("50", "profile small")
    assert found["user.note"] == ("of all\n", "profile default")
    assert found["security.core_scheduling"] == ("false", "server")
    assert found["volatile.eth0.hwaddr"] == ("02:00:00:00:00:01", "syscontd")
    assert found["boot.host_shutdown_timeout"] == ("30", "default")
    offered = {key.name for key in KEYS if key.prefix is None and not key.refused}
    assert offered <= set(found)


def test_show_all(serve: Serve, syscont: Command) -> None:
    serve({"GetConfig": lambda call: call.reply(ANSWER)})
    lines = syscont("config", "show", "--all", "web1").stdout.splitlines()
    assert lines[0].split() == ["KEY", "VALUE", "FROM"]
    assert ["boot.autostart", "false", "default"] in [line.split() for line in lines]
    assert json.loads(syscont("config", "show", "-a", "web1", "--format", "json").stdout) == in_force(ANSWER)
    short = syscont("config", "show", "web1", "--format", "csv").stdout
    assert "limits.processes,50,profile small\n" in short
    assert "default\n" not in short.replace("profile default\n", "")


def test_the_hosts_own(serve: Serve, syscont: Command) -> None:
    serve({**HANDLERS, "GetServerConfig": lambda call: call.reply({"config": {"user.a": "x"}})})
    assert yaml.safe_load(syscont("config", "show").stdout) == {"config": {"user.a": "x"}}
    assert syscont("config", "show", "--format", "csv").stdout == "user.a,x,server\n"
    lines = [line.split() for line in syscont("config", "show", "--all").stdout.splitlines()]
    assert ["instances.security.core_scheduling", "true", "default"] in lines
    assert syscont("config", "get", "user.a").stdout == "x\n"
    assert syscont("config", "get", "core.proxy_http").stdout == ""
    assert syscont("config", "get", "core.x").returncode == 2
    listed = syscont("config", "keys", "--server", "--format", "csv").stdout
    assert listed.startswith("core.proxy_http,")
    refused = syscont("config", "keys", "--server", "--refused").stdout
    assert "core.trust_password" in refused


def test_show_expanded(serve: Serve, syscont: Command) -> None:
    serve({**HANDLERS, "GetConfig": lambda call: call.reply(ANSWER)})
    own, expanded = (
        json.loads(syscont("config", "show", "web1", "--format", "json", *option).stdout) for option in ([], ["-e"])
    )
    assert own["config"] == ANSWER["config"]
    assert expanded["config"] == ANSWER["expanded"]


@pytest.mark.parametrize(
    ("key", "given", "sent"),
    [
        ("limits.memory", "1GiB\n", "1GiB"),
        ("limits.memory", "1GiB\n\n", "1GiB\n"),
        ("user.notes", "one\ntwo\n", "one\ntwo\n"),
        ("user.notes", "", ""),
    ],
)
def test_a_value_from_standard_input(serve: Serve, syscont: Command, key: str, given: str, sent: str) -> None:
    daemon = serve({"ChangeConfig": lambda call: call.reply({})})
    done = syscont("config", "set", "web1", f"{key}=-", "user.x=y", stdin=given)
    assert (done.returncode, done.stderr) == (0, "")
    assert daemon.calls[0].parameters["set"] == {key: sent, "user.x": "y"}


def test_one_value_only_from_standard_input(serve: Serve, syscont: Command) -> None:
    daemon = serve({})
    done = syscont("config", "set", "web1", "user.a=-", "user.b=-", stdin="x")
    assert (done.returncode, daemon.calls) == (2, [])
    assert "user.a and user.b" in done.stderr


def test_keys_of_devices(syscont: Command) -> None:
    options = syscont("config", "keys", "--device", "nic", "--format", "csv").stdout
    assert options.startswith("type,")
    assert "\nhwaddr," in options
    assert "nic,hwaddr," in syscont("config", "keys", "--device", "all", "--format", "csv").stdout
    done = syscont("config", "keys", "--device", "nick")
    assert (done.returncode, done.stderr) == (2, "syscont: no devices of type 'nick' (did you mean 'nic'?)\n")


def test_refused_keys_say_why(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    known = (
        Key("one.that.is", anything, "", "Works."),
        Key("one.that.is.not", anything, "", "", refused="There is none."),
    )
    monkeypatch.setattr("sysd.model.config.KEYS", known)
    assert keys.run(parse(VERBS["config keys"], ["--refused", "--format", "csv"])) == 0
    assert capfd.readouterr().out == "one.that.is.not,There is none.\n"
    assert keys.run(parse(VERBS["config keys"], ["--format", "csv"])) == 0
    assert capfd.readouterr().out == "one.that.is,,no,Works.\n"
