# SPDX-License-Identifier: Apache-2.0
"""What a guest sets itself up by: data for cloud-init, and credentials for systemd."""

from __future__ import annotations

import base64
import binascii

from sysd.model.errors import InvalidError
from sysd.model.schema import Key
from sysd.model.values import anything

MAX_DEPTH = 64

# As systemd has them (credential_name_valid() in its creds-util.c), in what a key's name may hold.
_CREDENTIAL = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}"


def _yaml(text: str) -> str:
    """YAML as far as its syntax goes, which is all that can be said without cloud-init."""
    import yaml  # only where it is needed: it is slow to load

    depth = 0
    try:
        # Events come one by one: no alias of the text's grows into anything. Depth costs libyaml its square.
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise InvalidError("too deeply nested", f"at most {MAX_DEPTH} deep")
    except yaml.YAMLError as error:
        raise InvalidError(f"not YAML: {' '.join(str(error).split())[:200]}") from None
    return text


def _cloud_data(text: str) -> str:
    """A cloud-config, which is YAML, or any other kind that cloud-init knows by its first line (a script...)."""
    return _yaml(text) if text.startswith("#cloud-config") else text


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidError("not base64 (RFC 4648)", "such as 'base64 -w0 FILE' prints") from None


KEYS = (
    Key(
        "cloud-init.user-data",
        _cloud_data,
        "",
        "User data for cloud-init, read when the guest starts. Without it user.user-data is taken.",
        multiline=True,
    ),
    Key(
        "cloud-init.vendor-data",
        _cloud_data,
        "",
        "Vendor data for cloud-init, read when the guest starts. Without it user.vendor-data is taken.",
        multiline=True,
    ),
    Key(
        "cloud-init.network-config",
        _yaml,
        "",
        "Network configuration for cloud-init, version 1 or 2. Without it user.network-config is taken; "
        "without both, each interface is configured by DHCP.",
        multiline=True,
    ),
    Key(
        "systemd.credential.*",
        anything,
        "",
        "A credential for the guest's systemd, by its name: see systemd.system-credentials(7).",
        multiline=True,
        member=_CREDENTIAL,
    ),
    Key(
        "systemd.credential-binary.*",
        _base64,
        "",
        "The same of any bytes, given as base64. It wins over one of the same name in systemd.credential.",
        member=_CREDENTIAL,
    ),
)
