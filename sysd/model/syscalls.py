# SPDX-License-Identifier: Apache-2.0
"""Which system calls a guest may make: LXD's keys, and the rules of LXC (lxc.container.conf(5), seccomp version 2).

A line is a call, then what becomes of it, then conditions on its arguments::

    mount errno 1
    ioctl errno 25 [1,21522,SCMP_CMP_EQ]
    [x86]
    # a comment
    vm86 kill

Whether there is a call of a name is for libseccomp to say (sysd/runtime/seccomp.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sysd.model.errors import InvalidError
from sysd.model.values import boolean

ALL = "all"
ARCHITECTURES = (
    *(ALL, "x86", "i686", "x86_64", "x32", "amd64", "arm", "arm64", "aarch64"),
    *("ppc", "ppc64", "ppc64le", "s390", "s390x", "mips", "mips64", "mips64n32", "mipsel", "mipsel64", "mipsel64n32"),
)
MAX_RULES = 1024
MAX_ERRNO = 4095
FORCED_UMOUNT = "reject_force_umount"
MNT_FORCE = 1
EACCES = 13

COMPARISONS = {
    **{name: name for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")},
    "!=": "NE", "<": "LT", "<=": "LE", "==": "EQ", ">=": "GE", ">": "GT", "&=": "MASKED_EQ",
}
DEFAULT_DENIED = f"""\
{FORCED_UMOUNT}
kexec_load errno 38
open_by_handle_at errno 38
init_module errno 38
finit_module errno 38
delete_module errno 38
"""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}", re.ASCII)
_NUMBER = r"(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})"
_CONDITION = re.compile(rf"\[ *([0-5]) *, *({_NUMBER}) *, *([A-Z_!<>=&]+) *(?:, *({_NUMBER}) *)?\]", re.ASCII)
_KIND_OF_LIST = re.compile(r"(allow|deny|white|black)list(?: +(kill|trap|allow|errno +[0-9]{1,4}))?", re.ASCII)
_RULE = re.compile(r"(\S+)(?: +(kill|trap|allow|errno +([0-9]{1,4})))?((?: *\[[^\[\]]*\])*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Condition:
    """On argument number index; mask is for MASKED_EQ only."""

    index: int
    comparison: str
    value: int
    mask: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """action is allow, kill, trap, or empty for errno."""

    call: str
    action: str
    errno: int = 0
    architecture: str = ALL
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """rest: what becomes of calls without a rule. compat: calls of other architectures are made too."""

    rest: Rule = Rule("", "allow")
    compat: bool = True
    rules: tuple[Rule, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self.rest.action == "allow" and self.compat and not self.rules


def check_allow(text: str) -> list[Rule]:
    return list(parse(text, "allow"))


def check_deny(text: str) -> list[Rule]:
    return list(parse(text, "kill"))


def check_raw(text: str) -> Policy:
    """A whole policy as LXC has it in a file: its version, then what kind of list it is and what becomes of calls that
    are not on it, then the rules."""
    version, _, more = text.partition("\n")
    kind, _, rules = more.partition("\n")
    if version.strip(" \t") != "2":
        raise InvalidError(f"no policy of version 2: {version[:80]!r}", "the first line is '2'")
    found = _KIND_OF_LIST.fullmatch(kind.strip(" \t"))
    if not found:
        raise InvalidError(f"not a kind of list: {kind[:80]!r}", "the second line is 'denylist' or 'allowlist'")
    allows = found[1] in ("allow", "white")
    rest = _parse_rule(f"rest {found[2] or ''}".strip(), "kill" if allows else "allow", ALL)
    return Policy(rest, rules=tuple(_last_of_each(parse(rules, "allow" if allows else "kill"))))


def parse(text: str, action: str) -> Iterator[Rule]:
    """The rules of a list whose lines mean action when they say none. Raises InvalidError naming the line."""
    architecture = ALL
    for number, full in enumerate(text.split("\n")):
        line = full.partition("#")[0].strip(" \t")
        if number >= MAX_RULES:
            raise InvalidError("too many lines", f"at most {MAX_RULES}")
        if line.startswith("["):
            architecture = line.strip("[]")
            if line != f"[{architecture}]" or architecture not in ARCHITECTURES:
                raise InvalidError(f"unknown architecture: {line[:80]!r}", f"one of {', '.join(ARCHITECTURES)}")
        elif line == FORCED_UMOUNT:
            yield Rule("umount2", "", EACCES, ALL, (Condition(1, "MASKED_EQ", MNT_FORCE, MNT_FORCE),))
        elif line:
            yield _parse_rule(line, action, architecture)


def _parse_rule(line: str, action: str, architecture: str) -> Rule:
    found = _RULE.fullmatch(line)
    if not found or not _NAME.fullmatch(found[1]):
        raise InvalidError(f"not a rule: {line[:80]!r}", "NAME [kill|trap|allow|errno N] [INDEX,VALUE,OPERATOR]...")
    conditions = tuple(_parse_condition(part, line) for part in re.findall(r"\[[^\]]*\]", found[4]))
    if len(conditions) > 6:
        raise InvalidError(f"a call has six arguments at most: {line[:80]!r}")
    if found[3] is not None:
        errno = int(found[3])
        if errno > MAX_ERRNO:
            raise InvalidError(f"no such error number: {line[:80]!r}", f"0 to {MAX_ERRNO}")
        return Rule(found[1], "", errno, architecture, conditions)
    return Rule(found[1], found[2] or action, 0, architecture, conditions)


def _parse_condition(text: str, line: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    comparison = COMPARISONS.get(found[3].removeprefix("SCMP_CMP_")) if found else None
    if not found or not comparison:
        raise InvalidError(f"not a condition: {text[:80]!r} in {line[:80]!r}", "[INDEX,VALUE,OPERATOR] or with ,MASK")
    value, mask = int(found[2], 0) if found[2][:2] in ("0x", "0X") else int(found[2]), int(found[4] or "0", 0)
    if max(value, mask) >= 1 << 64:
        raise InvalidError(f"number too large: {text[:80]!r}")
    return Condition(int(found[1]), comparison, value, mask)


def policy_of(config: Mapping[str, str]) -> Policy:
    """What expanded configuration says. A whole policy stands for all keys, an allow list for all others, as in LXD."""
    if raw := config.get("raw.seccomp"):
        return check_raw(raw)
    allowed = _either(config, "allow", "whitelist")
    if allowed:
        return Policy(Rule("", "kill"), rules=tuple(check_allow(allowed)))
    rules: list[Rule] = []
    if boolean(_either(config, "deny_default", "blacklist_default") or "true"):
        rules += check_deny(DEFAULT_DENIED)
    rules += check_deny(_either(config, "deny", "blacklist"))
    compat = not boolean(_either(config, "deny_compat", "blacklist_compat") or "false")
    return Policy(compat=compat, rules=tuple(_last_of_each(rules)))


def _either(config: Mapping[str, str], name: str, old: str) -> str:
    return config.get(f"security.syscalls.{name}") or config.get(f"security.syscalls.{old}", "")


def _last_of_each(rules: Iterable[Rule]) -> Iterable[Rule]:
    """One rule for a call and its conditions: libseccomp refuses two."""
    return {(rule.call, rule.architecture, rule.conditions): rule for rule in rules}.values()
