# SPDX-License-Identifier: Apache-2.0
"""Ids of guests, and filters of system calls: what is accepted, what is refused, and what comes out."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysd.manager import ids as ids_module
from sysd.manager.events import EventBus
from sysd.manager.ids import FIRST, LAST, Ids
from sysd.manager.table import Table
from sysd.model import idmap, syscalls
from sysd.model.config import check_config
from sysd.model.errors import FailedError, InvalidError, UnsupportedError
from sysd.model.instance import Instance
from sysd.runtime.seccomp import compile_policy

# raw.idmap

RAW = {
    "": [(0, FIRST, 65536)],
    "both 1000 1000": [(0, FIRST, 1000), (1000, 1000, 1), (1001, FIRST + 1001, 64535)],
    "uid 50-60 500-510\n\ngid 7 7": [(0, FIRST, 500), (500, 50, 11), (511, FIRST + 511, 65025)],
    "both 1000 0": [(0, 1000, 1), (1, FIRST + 1, 65535)],
    "both 9 65535": [(0, FIRST, 65535), (65535, 9, 1)],
    "both 9 70000": [(0, FIRST, 65536), (70000, 9, 1)],
    "both 9 2\nboth 8 1": [(0, FIRST, 1), (1, 8, 1), (2, 9, 1), (3, FIRST + 3, 65533)],
}


@pytest.mark.parametrize(("text", "wanted"), RAW.items())
def test_raw_idmap(text: str, wanted: list[tuple[int, int, int]]) -> None:
    made = idmap.make_idmap(FIRST, 65536, check_config({"raw.idmap": text}))
    assert [(one.inside, one.outside, one.count) for one in made.uids] == wanted


BAD_RAW = [
    *("both", "both 1", "both 1 2 3", "all 1 1", "both 1 x", "both -1 1", "both 1-2 1", "both 2-1 2-1", "both 0 0"),
    *("both 0-5 10-15", "uid 5 0", "both 4294967295 1", "both 1 99999999999", "both 1  1", " both 1 1", "both 1 1\r"),
    *("both 1 1\nuid 1 2", "both 1 1\nboth 2 1", "both 1 1;id", "both \u0661 1", "both 1 1\n" * 51),
]


@pytest.mark.parametrize("text", BAD_RAW)
def test_bad_raw_idmap(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_config({"raw.idmap": text})
    assert caught.value.message.startswith("raw.idmap")


def test_longest_map_fits_what_the_kernel_takes() -> None:
    lines = "\n".join(f"both {4294900000 + 2 * n} {4200000000 + 2 * n}" for n in range(idmap.MAX_RAW_LINES))
    made = idmap.make_idmap(FIRST, 65536, {"raw.idmap": lines})
    assert len(made.uid_text) < 4096


def test_ids_outside() -> None:
    made = idmap.make_idmap(FIRST, 65536, {"raw.idmap": "uid 1000 500"})
    assert made.outside(500, 500) == (1000, FIRST + 500)
    with pytest.raises(InvalidError):
        made.outside(65536, 0)
    assert idmap.make_idmap(FIRST, 65536, {"security.privileged": "true"}).outside(0, 5) == (0, 5)


# whose ids are whose


@pytest.fixture
def table() -> Table:
    return Table(EventBus(), lambda instance: instance)


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ids_module, "ETC", tmp_path)
    monkeypatch.setattr(ids_module, "NSPAWN", tmp_path / "nspawn")
    return tmp_path


def _add(table: Table, **config: str) -> Instance:
    config = {key.replace("__", "."): value for key, value in config.items()}
    number = len(table.all())
    instance = Ids(table).give(Instance(f"u{number}", f"web{number}", "f" * 64, 0, config=config))
    Ids(table).check(instance)
    table.add(instance)
    return instance


@settings(deadline=None)
@given(st.lists(st.sampled_from(["65536", "65537", "200000", "131072"]), max_size=12))
def test_ranges_never_overlap(sizes: list[str]) -> None:
    table = Table(EventBus(), lambda instance: instance)
    for size in sizes:
        _add(table, security__idmap__size=size)
    found = sorted((one.id_base, one.id_count) for one in table.all())
    assert all(base % 65536 == 0 and FIRST <= base <= LAST for base, _ in found)
    assert all(one[0] + one[1] <= two[0] for one, two in itertools.pairwise(found))


def test_ids_of_the_host_are_left_alone(table: Table, etc: Path) -> None:
    (etc / "passwd").write_text(f"x:x:{FIRST + 5}:1::/:\nbroken\n")
    (etc / "subuid").write_text(f"root:{FIRST + 65536}:65536\nalice:x:y\n")
    (etc / "subgid").write_text(f"lxd:{FIRST + 2 * 65536}:65536\n")
    (etc / "nspawn").mkdir()
    (etc / "nspawn" / str(FIRST + 3 * 65536)).touch()
    assert _add(table).id_base == FIRST + 4 * 65536


def test_a_freed_range_is_found_again(table: Table, etc: Path) -> None:
    first, _ = _add(table), _add(table)
    table.remove(first)
    assert Ids(table).give(Instance("u9", "web9", "f" * 64, 0)).id_base == first.id_base


def test_no_ids_left(table: Table, etc: Path) -> None:
    for _ in range(3):
        _add(table, security__idmap__size=str(idmap.MAX_COUNT))
    with pytest.raises(FailedError):
        _add(table)


def test_a_base_is_nobody_else_s(table: Table, etc: Path) -> None:
    (etc / "passwd").write_text("alice:x:100005:1::/:\n")
    other = _add(table)
    for base in (other.id_base, other.id_base + 65535, other.id_base - 1, 100000):
        with pytest.raises(InvalidError, match=r"security\.idmap\.base"):
            _add(table, security__idmap__base=str(base))
    assert _add(table, security__idmap__base=str(FIRST + 10**6)).id_base == FIRST + 10**6


def test_raw_ids_must_be_lent(table: Table, etc: Path) -> None:
    (etc / "subuid").write_text("root:1000:1\nroot:1001:5\nalice:2000:10\n")
    (etc / "subgid").write_text("syscont:1000:6\n")
    _add(table, raw__idmap="both 1000-1005 1000-1005")
    _add(table, raw__idmap="both 1000 33")
    for raw in ("both 1000-1006 0-6", "uid 2000 2000", "gid 1006 5", "uid 999-1001 10-12"):
        with pytest.raises(InvalidError, match=r"raw\.idmap"):
            _add(table, raw__idmap=raw)


def test_raw_ids_are_not_another_instance_s(table: Table, etc: Path) -> None:
    for name in ("subuid", "subgid"):
        (etc / name).write_text("root:1:4000000000\n")
    # All is lent, so no range is found for those that do not ask for one.
    other = _add(table, security__idmap__base=str(FIRST))
    with pytest.raises(InvalidError, match=other.name):
        _add(table, security__idmap__base=str(FIRST + 10**6), raw__idmap=f"both {FIRST + 7} 7")


# system calls

POLICIES = {
    "": 0,
    "# nothing\n": 0,
    "mount": 1,
    "mount errno 1": 1,
    "  mount   errno 1  # why\n": 1,
    "mount kill\numount2 trap\nread allow": 3,
    "ioctl errno 25 [1,21522,SCMP_CMP_EQ]": 1,
    "ioctl [1,0x5412,==][0,3,<=]": 1,
    "clone errno 1 [0,0x10000000,SCMP_CMP_MASKED_EQ,0x10000000]": 1,
    "clone errno 1 [0, 268435456, &=, 268435456]": 1,
    "[all]\nmount\n[x86]\nvm86 errno 38": 2,
    "reject_force_umount": 1,
}


@pytest.mark.parametrize(("text", "rules"), POLICIES.items())
def test_rules(text: str, rules: int) -> None:
    config = check_config({"security.syscalls.deny": text, "security.syscalls.deny_default": "false"})
    policy = syscalls.policy_of(config)
    assert len(policy.rules) == rules
    assert bool(compile_policy(policy)) == bool(rules)
    assert len(compile_policy(policy)) % 8 == 0


BAD_RULES = [
    *("Mount", "mount errno", "mount errno x", "mount errno 5000", "mount notify", "mount log", "mount [6,1,==]"),
    *("mount [1,1,=]", "mount [1,-1,==]", "mount [1,18446744073709551616,==]", "mount [1,1", "[sparc]", "[x86", "a/b"),
    *("mount; reboot", "mount\0", "mount\rread", "mount errno 1 errno 2", "m" * 100, "mount\n" * 2000),
    "ioctl [0,1,==][0,1,==][0,1,==][0,1,==][0,1,==][0,1,==][0,1,==]",
]


@pytest.mark.parametrize("key", ["deny", "allow", "blacklist", "whitelist"])
@pytest.mark.parametrize("text", BAD_RULES)
def test_bad_rules(key: str, text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_config({f"security.syscalls.{key}": text})
    assert caught.value.message.startswith(f"security.syscalls.{key}")


@settings(deadline=None)
@given(st.text(alphabet="[]0123,=<>&! abcmount#\n\\x", max_size=60))
def test_rules_are_read_or_refused(text: str) -> None:
    try:
        rules = syscalls.check_deny(text)
    except InvalidError:
        return
    assert all(rule.architecture in syscalls.ARCHITECTURES for rule in rules)


def test_calls_that_there_are_not() -> None:
    with pytest.raises(InvalidError, match="nonsense"):
        compile_policy(syscalls.policy_of({"security.syscalls.deny": "nonsense errno 1"}))


def test_old_names_give_way_to_new_ones() -> None:
    old = {"security.syscalls.blacklist": "mount", "security.syscalls.blacklist_default": "false"}
    assert [rule.call for rule in syscalls.policy_of(old).rules] == ["mount"]
    both = old | {"security.syscalls.deny": "chroot"}
    assert [rule.call for rule in syscalls.policy_of(both).rules] == ["chroot"]


def test_an_allow_list_stands_alone() -> None:
    policy = syscalls.policy_of({"security.syscalls.allow": "read\nwrite", "security.syscalls.deny": "mount"})
    assert policy.rest.action == "kill"
    assert [(rule.call, rule.action) for rule in policy.rules] == [("read", "allow"), ("write", "allow")]


def test_a_later_rule_for_the_same_call_holds() -> None:
    policy = syscalls.policy_of({"security.syscalls.deny": "kexec_load errno 1"})
    assert [rule.errno for rule in policy.rules if rule.call == "kexec_load"] == [1]


def test_interception_is_refused_with_a_reason() -> None:
    for name in ("mknod", "setxattr", "mount", "mount.allowed", "bpf", "bpf.devices"):
        with pytest.raises(UnsupportedError, match=rf"intercept\.{name}"):
            check_config({f"security.syscalls.intercept.{name}": "true"})


# a whole policy

RAW_POLICIES = {
    "2\ndenylist\nmount": ("allow", 0, [("mount", "kill")]),
    "2\nblacklist errno 1\nread allow\n[all]\nmount errno 5": ("", 1, [("read", "allow"), ("mount", "")]),
    "2\nallowlist\nread\nwrite": ("kill", 0, [("read", "allow"), ("write", "allow")]),
    "2\nwhitelist trap\nread": ("trap", 0, [("read", "allow")]),
    "2\ndenylist\n": ("allow", 0, []),
}


@pytest.mark.parametrize(("text", "wanted"), RAW_POLICIES.items())
def test_a_whole_policy(text: str, wanted: tuple[str, int, list[tuple[str, str]]]) -> None:
    policy = syscalls.policy_of(check_config({"raw.seccomp": text, "security.syscalls.allow": "read"}))
    assert (policy.rest.action, policy.rest.errno) == wanted[:2]
    assert [(rule.call, rule.action) for rule in policy.rules] == wanted[2]
    assert bool(compile_policy(policy)) == (not policy.is_empty)


@pytest.mark.parametrize(
    "text",
    [
        *("2", "1\nwhitelist\n103", "3\ndenylist\nmount", "2\nmount", "2\ndenylist notify\nmount"),
        *("2\ndenylist errno\nmount", "2\ndenylist errno 99999\nmount", "2\ndenylist\nmount notify"),
        *("denylist\nmount", "2 denylist\nmount", "2\n\ndenylist\nmount"),
        *("2\ndenylist\n[sparc]\nmount", "2\ndenylist\n; reboot", "2\ndenylist\0", " "),
    ],
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(InvalidError, match=r"^raw\.seccomp"):
        check_config({"raw.seccomp": text})
