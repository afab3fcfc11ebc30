# SPDX-License-Identifier: Apache-2.0
"""raw.dnsmasq: options of dnsmasq's that say what it answers. None of them names a file, a program, a link, a user or a
listening address: dnsmasq runs as root, and who may configure networks is not always root."""

from __future__ import annotations

import re

from sysd.model.errors import InvalidError, UnsupportedError

# dnsmasq(8), by what they are for.
OPTIONS = frozenset(
    {
        # names
        "address", "alias", "auth-ttl", "bogus-nxdomain", "bogus-priv", "cache-size", "caa-record", "cname",
        "dns-forward-max", "dns-loop-detect", "dnssec-check-unsigned", "domain-needed", "filter-A", "filter-AAAA",
        "filterwin2k", "host-record", "ignore-address", "local", "local-ttl", "localise-queries", "localmx",
        "max-cache-ttl", "max-ttl", "min-cache-ttl", "mx-host", "mx-target", "naptr-record", "neg-ttl", "no-negcache",
        "no-resolv",
        "ptr-record", "rebind-domain-ok", "rebind-localhost-ok", "rev-server", "selfmx", "server", "srv-host",
        "stop-dns-rebind", "strict-order", "synth-domain", "txt-record", "all-servers",
        # DHCP and router advertisements
        "dhcp-boot", "dhcp-circuitid", "dhcp-generate-names", "dhcp-ignore", "dhcp-ignore-clid", "dhcp-mac",
        "dhcp-match", "dhcp-name-match", "dhcp-no-override", "dhcp-option", "dhcp-option-force", "dhcp-remoteid",
        "dhcp-sequential-ip", "dhcp-subscrid", "dhcp-ttl", "dhcp-userclass", "dhcp-vendorclass", "pxe-prompt",
        "pxe-service", "tag-if",
        # what it logs
        "log-dhcp", "log-queries",
    }
)  # fmt: skip
MAX_OPTIONS = 256
_LINE = re.compile(r"([A-Za-z0-9-]+)(?:\s*=\s*(\S(?:.*\S)?))?", re.ASCII)
_VALUE = re.compile(r"[\x20-\x7e]{1,512}", re.ASCII)
_LINK = re.compile(r"@")


def check(text: str) -> list[str]:
    return arguments(text)


def arguments(text: str) -> list[str]:
    """dnsmasq's own arguments, one for each line that is neither empty nor a comment."""
    lines = [line.strip() for line in text.splitlines()]
    found = [_argument(line) for line in lines if line and not line.startswith("#")]
    if len(found) > MAX_OPTIONS:
        raise InvalidError("too many options", f"at most {MAX_OPTIONS}")
    return found


def _argument(line: str) -> str:
    match = _LINE.fullmatch(line)
    if not match:
        raise InvalidError(f"not an option of dnsmasq's: {line[:80]!r}", "OPTION or OPTION=VALUE, one a line")
    name, value = match[1], match[2]
    if name not in OPTIONS:
        raise UnsupportedError(f"{name[:80]} can't be set here", "only what says how it answers: no files, no links")
    if value is None:
        return f"--{name}"
    if not _VALUE.fullmatch(value):
        raise InvalidError(f"{name}: not a value for dnsmasq", "at most 512 printable characters of ASCII")
    if name in ("server", "local", "rev-server") and _LINK.search(value):
        raise InvalidError(f"{name}: it can't say by which link or address it is asked", "leave out what follows '@'")
    return f"--{name}={value}"
