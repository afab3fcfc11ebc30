# SPDX-License-Identifier: Apache-2.0
"""Each key there is, of instances, projects, devices and the host, is given what would break out of its place."""

import pytest

from sysd.model import project, server
from sysd.model.config import SCHEMA
from sysd.model.devices.check import SCHEMAS
from sysd.model.errors import SyscontError
from sysd.model.schema import Key, Schema

LINES = [f"1{end}[Service]{end}ExecStart=/bin/false" for end in ("\n", "\r", "\r\n")]
NO_TEXT = ["1\0", "\0", "\ud800", "1\udcff"]

# Those that may span lines; what is done with them is shown by vm-tests/test_bad_input.py.
MULTILINE = {
    "cloud-init.network-config",
    "cloud-init.user-data",
    "cloud-init.vendor-data",
    "systemd.credential.sample",
    "user.sample",
}


def names_of(schema: Schema) -> list[str]:
    """One name that fits for each key."""
    return [_sample(key) for key in schema.keys]


def _sample(key: Key) -> str:
    return next(
        name
        for member in ("sample", "net.ipv4.ip_forward", "64KB", "as", "eth0.name", "nofile")
        if key.matches(name := key.name.replace("*", member))
    )


def accepted(schema: Schema, values: list[str]) -> set[str]:
    return {name for name in names_of(schema) for value in values if not _refused(schema, name, value)}


def _refused(schema: Schema, name: str, value: str) -> bool:
    """Whether it is, and then with one line that names the key."""
    try:
        schema.check({name: value})
    except SyscontError as error:
        message = error.message
    else:
        return False
    assert name in message
    assert message.isprintable()
    return True


def test_lines_in_keys_of_instances() -> None:
    assert accepted(SCHEMA, LINES) == MULTILINE
    assert accepted(SCHEMA, NO_TEXT) == set()


@pytest.mark.parametrize("schema", [project.SCHEMA, server.SCHEMA])
def test_lines_in_keys_of_projects_and_of_the_host(schema: Schema) -> None:
    assert accepted(schema, LINES) == {"user.sample"}
    assert accepted(schema, NO_TEXT) == set()


@pytest.mark.parametrize("kind", SCHEMAS)
def test_lines_in_options_of_devices(kind: str) -> None:
    assert accepted(SCHEMAS[kind], LINES) == {"user.sample"}
    assert accepted(SCHEMAS[kind], NO_TEXT) == set()


@pytest.mark.parametrize("schema", [SCHEMA, project.SCHEMA, server.SCHEMA, *SCHEMAS.values()])
@pytest.mark.parametrize("end", ["\n", "\0", "/..", " ", "=", "\x1b", "\ud800", "\u2028"])
def test_names_of_keys(schema: Schema, end: str) -> None:
    for key in schema.keys:
        # A slash is of no meaning in the free ones; the names of others become paths.
        if key.prefix is not None and not (end == "/.." and key.prefix in ("user.", "image.")):
            with pytest.raises(SyscontError):
                schema.check({f"{key.prefix}a{end}b": "1"})
