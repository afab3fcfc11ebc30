# SPDX-License-Identifier: Apache-2.0
"""The host's configuration: its grammar, and what it gives to instances."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysd.manager.catalog import Catalog
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.instance import Instance
from sysd.model.profile import Profile
from sysd.model.secrets import public
from sysd.model.server import SCHEMA, defaults, proxies
from sysd.store.database import Store

CORES = "security.core_scheduling"
GOOD = [
    ("core.proxy_http", "http://proxy.example:3128"), ("core.proxy_https", "https://[fd42::1]:3128/"),
    ("core.proxy_ignore_hosts", "localhost,127.0.0.1,*.example"), (f"instances.{CORES}", "false"),
    ("user.note", "a\nb"), ("core.dns_address", ":53"), ("core.dns_address", "192.0.2.1"),
    ("core.dns_address", "[fd42::1]:5353"), ("core.dns_address", "[::]:53"), ("core.dns_address", "fd42::1"),
    ("core.dns_address", "192.0.2.1:5353"), ("core.https_address", ":8443"), ("core.https_address", "[::]"),
    ("core.https_address", "192.0.2.1:9999"), ("core.remote_token_expiry", "30M"),
    ("core.remote_token_expiry", "1d 12H"),
]  # fmt: skip
BAD = [
    ("core.proxy_http", "proxy.example"), ("core.proxy_http", "http://a b"), ("core.proxy_http", "http://u:p@proxy"),
    ("core.proxy_http", ""), ("core.proxy_https", "http://a\nX=1"), ("core.proxy_ignore_hosts", "a, b"),
    ("core.proxy_ignore_hosts", "a\nb"), (f"instances.{CORES}", "perhaps"), ("instances.limits.memory", "1GiB"),
    ("core.dns_address", "fd42::1::"), ("core.dns_address", "a:53"), ("core.dns_address", ":0"),
    ("core.dns_address", "192.0.2.1:99999"), ("core.dns_address", ""), ("core.dns_address", "1.2.3.4:53\n"),
    ("core.https_address", "host:8443"), ("core.https_address", ""), ("core.remote_token_expiry", ""),
    ("core.remote_token_expiry", "5 minutes"),
    ("core.", "x"), ("limits.memory", "1GiB"), ("user.", "x"), ("user.a b", "x"), ("user.a", "\0"), ("", ""),
]  # fmt: skip
REFUSED = [
    ("core.https_allowed_origin", "*"), ("core.trust_ca_certificates", "true"),
    ("images.auto_update_interval", "6"),
    ("cluster.offline_threshold", "20"), ("instances.placement.scriptlet", "x"), ("core.trust_password", "x"),
    ("backups.compression_algorithm", "gzip"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), GOOD)
def test_good_values(key: str, value: str) -> None:
    assert SCHEMA.check({key: value}) == {key: value}


@pytest.mark.parametrize(("key", "value"), BAD)
def test_bad_values(key: str, value: str) -> None:
    with pytest.raises(InvalidError):
        SCHEMA.check({key: value})


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_what_is_not_offered_says_why(key: str, value: str) -> None:
    with pytest.raises(UnsupportedError, match=key):
        SCHEMA.check({key: value})


def test_what_it_means() -> None:
    config = {"core.proxy_http": "http://a", "core.proxy_ignore_hosts": "b", f"instances.{CORES}": "no", "user.x": "y"}
    assert defaults(config) == {CORES: "no"}
    assert proxies(config) == {"http_proxy": "http://a", "no_proxy": "b"}
    assert "user.x" not in public(config)


def test_instances_and_their_profiles_win(tmp_path: Path) -> None:
    catalog = Catalog(Store(tmp_path / "db"))
    catalog.remember_server_config({f"instances.{CORES}": "false"})
    catalog.remember(Profile("own", config={CORES: "true"}))

    def cores(profiles: list[str], config: dict[str, str]) -> str:
        instance = Instance("u1", "web1", "f" * 64, 0, profiles=profiles, config=config)
        assert CORES not in catalog.origins(instance) or profiles
        return catalog.expand(instance).config[CORES]

    assert cores([], {}) == "false"
    assert cores(["own"], {}) == "true"
    assert cores([], {CORES: "1"}) == "1"


def test_it_is_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    Catalog(store).remember_server_config({"user.a": "x", "user.b": "y"})
    Catalog(store).remember_server_config({"user.a": "z"})
    assert Catalog(store).server_config == {"user.a": "z"}
