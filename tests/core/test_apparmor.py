# SPDX-License-Identifier: Apache-2.0
"""AppArmor profiles: which is for whom, and what rules of one's own may be."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysd.model.apparmor import check_rules
from sysd.model.config import check_config
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.runtime.apparmor import own, profiles

SHIPPED = Path(__file__).resolve().parents[2] / "data/apparmor.d"

KINDS = {
    "syscont-container": {},
    "syscont-container-nesting": {"security.nesting": "true"},
    "syscont-privileged": {"security.privileged": "true"},
    "syscont-privileged-nesting": {"security.privileged": "true", "security.nesting": "true"},
}

GOOD = [
    *("", "mount fstype=nfs,", "mount,\n# why\ndeny /etc/shadow r,", "deny /srv/{a,b,{c,d}}/** rwklx,", "mount,"),
    *("mount options=(rw, bind) /a -> /b/,", "capability sys_admin, capability mknod,", '"/a b/c" r,'),
    *("/run/{,lock/}x w,", "@{PROC}/sys/** w,", "signal (receive) peer=unconfined,", "change_profile -> unconfined,"),
    *("/bin/foo ix,", "network inet stream, # all of it, too", "mount fstype=(ext4,\n  xfs),", "audit owner /x w,"),
]
BAD = [
    *("mount", "}", "} profile x {", "mount,}", "include <abstractions/base>,", "#include <x>", "# include <x>\n"),
    *("profile x { mount, },", "/bin/x { mount, },", "/bin/x {mount,},", "hat x {mount,},", "^x {/a r,},", "deny,"),
    *("mount,\n\n}\nprofile unconfined2 {capability,", "abi <abi/3.0>,", "if defined x { mount, }", '"/a\nb" r,', ","),
    *("deny,{#},", "mount\0,", "mount,\x1b[1m", "{a,b} r,", "alias /a -> /b,", "/x/{a r,}", '"}" r,', '"/{" r,', "a,"),
    *("mount,\r", "mount,\x85}", "mount,\u2028}", "# }\nmount,", "mount, /a", "$x = /a,"),
]


@pytest.mark.parametrize("text", GOOD)
def test_rules(text: str) -> None:
    assert check_config({"raw.apparmor": text}) == {"raw.apparmor": text}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_config({"raw.apparmor": text})
    assert caught.value.message.startswith("raw.apparmor")


@settings(deadline=None)
@given(st.text(alphabet="/{}(),#\" \nam^@=-><", max_size=40).map(lambda text: f"mount, {text}"))
def test_no_rules_leave_the_profile(text: str) -> None:
    """However comments and quotes are read: no block opens, and the profile ends where it should."""
    try:
        check_rules(text)
    except InvalidError:
        return
    assert not re.search(r"\s\{|\{[^}]*\s", text)
    depth = 0
    for c in text:
        depth += (c == "{") - (c == "}")
        assert depth >= 0
    assert depth == 0


@pytest.mark.parametrize(("name", "config"), KINDS.items())
def test_each_kind_has_a_profile(
    name: str, config: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = (SHIPPED / "syscont").read_text()
    found = re.search(rf"^profile {name} [^{{]*\{{\n([^}}]*)\}}", shipped, re.M)
    assert found
    assert re.findall(r"<abstractions/syscont/(\w+)>", found[1]) == list(profiles.parts(config))

    _have(monkeypatch, tmp_path, f"/usr/bin/man (enforce)\n{name} (enforce)\n")
    assert profiles.available("u1", config) == name
    assert profiles.available("u1", config | {"raw.apparmor": "mount,"}) == "syscont-u1"


def _have(monkeypatch: pytest.MonkeyPatch, folder: Path, loaded: str) -> None:
    for name, text in (("ENABLED", "Y\n"), ("LOADED", loaded)):
        (folder / name).write_text(text)
        monkeypatch.setattr(profiles, name, folder / name)


def test_a_host_without_apparmor_or_its_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _have(monkeypatch, tmp_path, "syscont-container-nesting (enforce)\n")
    assert profiles.available("u1", {}) == ""
    (tmp_path / "ENABLED").unlink()
    assert profiles.available("u1", KINDS["syscont-container-nesting"]) == ""
    assert profiles.available("u1", {"raw.apparmor": "mount,"}) == ""
    assert profiles.current(0) == ""


def test_rules_of_one_s_own_need_apparmor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "ENABLED", tmp_path / "none")
    asyncio.run(own.load("u1", {}))
    with pytest.raises(UnsupportedError, match=r"^raw\.apparmor: this host has no AppArmor"):
        asyncio.run(own.load("u1", {"raw.apparmor": "mount,"}))


def test_a_profile_of_one_s_own() -> None:
    text = own.text("u1", {"raw.apparmor": "mount fstype=nfs,", "security.nesting": "true"})
    assert text.count("{") == text.count("}") == 1
    assert "profile syscont-u1 " in text
    assert [line for line in text.splitlines() if "syscont/" in line] == [
        "include <abstractions/syscont/container>",
        "include <abstractions/syscont/nesting>",
    ]
    assert text.endswith("mount fstype=nfs,\n}\n")
    with pytest.raises(InvalidError):
        own.text("u1", {"raw.apparmor": "} profile x {"})
