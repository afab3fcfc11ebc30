# SPDX-License-Identifier: Apache-2.0
"""The configuration of the host as a whole. Names, values and defaults are LXD's (see its server configuration
reference); ``instances.KEY`` is what KEY is in instances that say nothing of it, nor their profiles."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from sysd.model.addresses import link
from sysd.model.config import find_key
from sysd.model.errors import InvalidError
from sysd.model.schema import Key, Schema
from sysd.model.snapshot import check_expiry
from sysd.model.values import anything

DEFAULTS = "instances."
DNS_ADDRESS = "core.dns_address"
DNS_PORT = 53
HTTPS_ADDRESS = "core.https_address"
HTTPS_PORT = 8443
OVN_NORTHBOUND, OVN_BRIDGE = "network.ovn.northbound_connection", "network.ovn.integration_bridge"
OVN_FILES = ("network.ovn.client_key", "network.ovn.client_cert", "network.ovn.ca_cert")
"""LXD has their contents here; but everybody on the host may read its configuration."""
TOKEN_EXPIRY = "core.remote_token_expiry"
_PROXY = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+/?", re.ASCII)
_IGNORED = re.compile(r"[A-Za-z0-9.:*_-]+(,[A-Za-z0-9.:*_-]+)*", re.ASCII)
_PROXIES = {"core.proxy_http": "http_proxy", "core.proxy_https": "https_proxy", "core.proxy_ignore_hosts": "no_proxy"}

_NO_HTTP = "other hosts speak varlink over TLS, and not HTTP"
_PINNED = "each certificate is trusted for itself, and no authority"
_NO_REMOTES = "images are built here or imported, and never come from image servers by themselves"
_NO_CLUSTER = "there are no clusters"
_NO_VOLUMES = "it comes with storage volumes"
_BGP = "it comes with networks that announce their routes"


def _proxy(text: str) -> str:
    """A URL without name and password: the environment of units is everybody's to read."""
    if "@" in text:
        raise InvalidError("a proxy with a password", "any user of the host could read it")
    if not _PROXY.fullmatch(text):
        raise InvalidError(f"not the URL of a proxy: {text[:80]!r}", "such as http://proxy.example:3128")
    return text


def _hosts(text: str) -> str:
    if not _IGNORED.fullmatch(text):
        raise InvalidError(f"not a list of hosts: {text[:80]!r}", "names and addresses with commas between them")
    return text


def dns_address(text: str) -> tuple[str, int]:
    """Address, empty for all, and port."""
    return _address(text, DNS_PORT)


def https_address(text: str) -> tuple[str, int]:
    """The same."""
    return _address(text, HTTPS_PORT)


def _address(text: str, default: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]*))(?::([0-9]{1,5}))?", text, re.ASCII)
    address, port = (found[1] or found[2], int(found[3] or default)) if found else (text, default)
    try:
        parsed = ipaddress.ip_address(address) if address else None
    except ValueError:
        parsed, port = None, 0
    if not 1 <= port <= 65535 or not text or (parsed and parsed.is_multicast):
        hint = f"such as 192.0.2.1, 192.0.2.1:{default}, [2001:db8::1]:{default} or :{default}"
        raise InvalidError(f"not an address to serve at: {text[:80]!r}", hint)
    return ("" if parsed is None or parsed.is_unspecified else str(parsed)), port


def _ovsdb(text: str) -> str:
    for word in text.split(","):
        kind, _, rest = word.partition(":")
        host, _, port = rest.rpartition(":")
        if kind == "unix" and rest.startswith("/") and rest.isprintable():
            continue
        try:
            good = kind in ("tcp", "ssl") and host and port and _address(rest, 0)[1]
        except InvalidError:
            good = False
        if not good:
            hint = "unix:/PATH, tcp:ADDRESS:PORT or ssl:ADDRESS:PORT, where ADDRESS is no name"
            raise InvalidError(f"not a connection to OVSDB: {word[:80]!r}", hint)
    return text


def _file(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise InvalidError(f"not the path of a file: {text[:80]!r}", "such as /etc/ovn/client.key; not what is in it")
    return text


def _expiry(text: str) -> str:
    if not text.strip():
        raise InvalidError("tokens that never expire", "numbers with M, H, d or w: '1d 12H'")
    return check_expiry(text)


def _default_of(key: Key) -> Key:
    return Key(DEFAULTS + key.name, key.check, key.default, f"{key.name} of instances that do not say otherwise.")


def _refused(why: str, *names: str) -> tuple[Key, ...]:
    return tuple(Key(name, anything, "", "", refused=why) for name in names)


KEYS = (
    Key("core.proxy_http", _proxy, "", "Proxy for what image builds fetch over HTTP; else apt's own holds.", live=True),
    Key("core.proxy_https", _proxy, "", "The same over HTTPS.", live=True),
    Key("core.proxy_ignore_hosts", _hosts, "", "Hosts that image builds reach without proxy.", live=True),
    Key(
        DNS_ADDRESS,
        dns_address,
        "",
        "Where network zones are served: ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT, or :PORT for all addresses. Nowhere "
        "when it is not set.",
        live=True,
    ),
    Key(
        HTTPS_ADDRESS,
        https_address,
        "",
        "Where other hosts and their users reach this one: ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT, or :PORT for all "
        "addresses. Nowhere when it is not set. Connections that are there stay.",
        live=True,
    ),
    Key(TOKEN_EXPIRY, _expiry, "1H", "How long a token of 'remote token' holds: minutes (M), hours (H), days (d)...",
        live=True),
    *_refused(
        _NO_HTTP,
        "core.https_allowed_credentials",
        "core.https_allowed_headers",
        "core.https_allowed_methods",
        "core.https_allowed_origin",
        "core.https_trusted_proxy",
    ),
    *_refused(_PINNED, "core.trust_ca_certificates"),
    *_refused("other hosts are trusted by certificate, not by a password that is sent", "core.trust_password"),
    *_refused("it comes with metrics", "core.metrics_address"),
    *_refused(_BGP, "core.bgp_address", "core.bgp_asn", "core.bgp_routerid"),
    *_refused("there is no profiler to listen for; syscontd logs to the journal", "core.debug_address"),
    *_refused(
        "instances run on when syscontd stops, and what it was doing is finished or undone at its next start",
        "core.shutdown_timeout",
    ),
    *_refused(
        _NO_REMOTES,
        "images.auto_update_cached",
        "images.auto_update_interval",
        "images.remote_cache_expiry",
    ),
    *_refused("images are kept unpacked", "images.compression_algorithm"),
    *_refused(_NO_CLUSTER, "images.default_architecture", "cluster.*"),
    _default_of(find_key("security.core_scheduling")),
    *_refused(_NO_CLUSTER, "instances.placement.scriptlet"),
    _default_of(find_key("migration.stateful")),
    *_refused("interfaces of the host's have random names, or those that host_name gives", "instances.nic.host_name"),
    *_refused("it is chosen for each export", "backups.compression_algorithm"),
    *_refused(_NO_VOLUMES, "storage.backups_volume", "storage.images_volume"),
    Key(OVN_NORTHBOUND, _ovsdb, "unix:/run/ovn/ovnnb_db.sock", "Where OVN's northbound database is: unix:PATH or "
        "tcp:ADDRESS:PORT or ssl:ADDRESS:PORT, of a cluster all with commas between.", live=True),
    Key(OVN_BRIDGE, link, "br-int", "The bridge of Open vSwitch in which ports of OVN networks are.", live=True),
    *(Key(key, _file, "", f"File of PEM with {what}, for a northbound database that is reached by ssl:.", live=True)
      for key, what in zip(OVN_FILES, ("our key", "our certificate", "the authority that theirs is of"), strict=True)),
    *_refused("LXD itself has given it up; polkit says who may do what", "candid.*", "rbac.*"),
    *_refused("LXD itself has given it up", "maas.*"),
    Key("user.*", anything, "", "Free for users; may span lines.", live=True, multiline=True),
)
SCHEMA = Schema(KEYS, "server", "see 'syscont config keys --server'")


def defaults(config: Mapping[str, str]) -> dict[str, str]:
    """Keys of instances, with what the host's configuration gives to all that say nothing of them."""
    return {key.removeprefix(DEFAULTS): value for key, value in config.items() if key.startswith(DEFAULTS)}


def proxies(config: Mapping[str, str]) -> dict[str, str]:
    """As environment variables, which programs that fetch something know."""
    return {variable: config[key] for key, variable in _PROXIES.items() if key in config}
