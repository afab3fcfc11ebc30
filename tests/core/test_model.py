# SPDX-License-Identifier: Apache-2.0
"""Names, sizes and configuration: what is accepted and what is refused."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.model import config, names
from sysd.model.errors import ERRORS, InvalidError, SyscontError
from sysd.model.sizes import format_size, parse_size

GOOD_NAMES = ["a", "web1", "W-1", "a" * 63]
BAD_NAMES = ["", "..", "a/b", "a" * 64, "a\n", "-x", "ünï", "a b", "%n", "$x", "a\0", "1web", "web-", "a_b", "a.b"]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_instance_names(name: str) -> None:
    assert names.check_instance_name(name) == name


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_instance_names(name: str) -> None:
    with pytest.raises(InvalidError) as caught:
        names.check_instance_name(name)
    assert repr(name) in caught.value.message


@pytest.mark.parametrize("name", ["ignore", "Infinite", "LOCALHOST", "wpad", "gateway"])
def test_names_that_mean_something_else(name: str) -> None:
    with pytest.raises(InvalidError) as caught:
        names.check_instance_name(name)
    assert repr(name) in caught.value.message
    assert caught.value.hint


def test_dns_does_not_tell_capitals() -> None:
    assert names.same_host("Web1", "wEB1")
    assert not names.same_host("web1", "web2")


@pytest.mark.parametrize("alias", ["deb", "debian/trixie", "a.b_c+d-e", "x/y/z"])
def test_good_aliases(alias: str) -> None:
    assert names.check_alias(alias) == alias


@pytest.mark.parametrize("alias", ["", "/a", "a/", "a//b", "../a", "a/../b", "a" * 129, "a b", "-a", "f" * 64, "a\n"])
def test_bad_aliases(alias: str) -> None:
    with pytest.raises(InvalidError):
        names.check_alias(alias)


@pytest.mark.parametrize("name", ["", "a" * 16, "1a", "a/b", "a b", "..", "a\n"])
def test_bad_network_names(name: str) -> None:
    with pytest.raises(InvalidError):
        names.check_network_name(name)


# As sd_bus_path_encode(3) gives them.
ENCODED = {"web1": "web1", "1web": "_31web", "a-b": "a_2db", "": "_", "ü": "_c3_bc", "a_b": "a_5fb"}


@pytest.mark.parametrize(("name", "encoded"), ENCODED.items())
def test_path_encoding(name: str, encoded: str) -> None:
    assert names.path_encode(name) == encoded
    assert names.path_decode(encoded) == name


@given(st.text())
def test_path_encoding_can_be_undone(name: str) -> None:
    encoded = names.path_encode(name)
    assert set(encoded) <= set(string.ascii_letters + string.digits + "_")
    assert names.path_decode(encoded) == name


@pytest.mark.parametrize(("project", "name"), [("default", "web1"), ("lab", "web1")])
def test_unit_names(project: str, name: str) -> None:
    assert names.from_unit_name(names.unit_name(project, name)) == (project, name)


@pytest.mark.parametrize("unit", ["syscont.service", "syscont-net@br0.service", "syscont@a.scope", "x@a.service"])
def test_other_units_are_no_instances(unit: str) -> None:
    assert names.from_unit_name(unit) is None


SIZES = {"0": 0, "1024": 1024, "1kB": 1000, "1KiB": 1024, "512MiB": 512 << 20, "2GB": 2 * 10**9, "3GiB": 3 << 30}


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5GiB", "1 GiB", "1gib", "1GiB\n", "9" * 19, "9EiB", "\u0661MB"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_size(text)


@given(st.integers(0, 1 << 62))
def test_formatted_sizes_name_a_unit(size: int) -> None:
    assert format_size(size).endswith("B")


GOOD_CONFIG = {
    "boot.autostart": "true",
    "boot.autostart.priority": "-10",
    "limits.memory": "512MiB",
    "limits.processes": "100",
    "environment.PATH": "/bin",
    "user.note": "two\nlines",
}


@pytest.mark.parametrize(("key", "value"), GOOD_CONFIG.items())
def test_good_config(key: str, value: str) -> None:
    assert config.check_config({key: value}) == {key: value}


BAD_CONFIG = [
    ("nope", "1"),
    ("boot.autostart", "maybe"),
    ("boot.autostart.priority", "10000001"),
    ("boot.host_shutdown_timeout", "-1"),
    ("limits.memory", "lots"),
    ("limits.memory", "1kB"),
    ("limits.processes", "0"),
    ("environment.A", "x\ny"),
    ("environment.A=B", "x"),
    ("environment.", "x"),
    ("environment.1", "x"),
    ("user.", "x"),
    ("user.a", "nul\0"),
    ("user.a", "x" * 70000),
    ("user.a b", "x"),
    ("user.a\nb", "x"),
    ("security.protection.delete", ""),
]


@pytest.mark.parametrize(("key", "value"), BAD_CONFIG)
def test_bad_config_names_the_key(key: str, value: str) -> None:
    with pytest.raises(InvalidError) as caught:
        config.check_config({"user.fine": "yes", key: value})
    assert key in caught.value.message or repr(key) in caught.value.message


def test_every_default_is_valid() -> None:
    for key in config.KEYS:
        if key.default:
            key.check(key.default)


def test_every_error_has_its_own_names() -> None:
    assert len(ERRORS) == len({cls("x").dbus_name for cls in ERRORS.values()})
    for code, cls in ERRORS.items():
        error: SyscontError = cls("it broke", "mend it")
        assert error.dbus_name == f"org.syscont.Error.{code}"
        assert error.code == code
        assert error.text == "it broke (mend it)"
