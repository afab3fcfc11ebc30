# SPDX-License-Identifier: Apache-2.0
"""Filters of system calls, compiled by libseccomp to what the kernel takes (seccomp(2), SECCOMP_SET_MODE_FILTER).

Which architectures a filter knows is as in LXC: the host's own and those whose programs its kernel runs too.
"""

from __future__ import annotations

import functools
import tempfile

import seccomp

from sysd.model.errors import InvalidError
from sysd.model.syscalls import ALL, Condition, Policy, Rule

MAX_SIZE = 4096 * 8
"""What the kernel takes (BPF_MAXINSNS)."""

ENOSYS = 38
UNKNOWN = -1
"""What libseccomp says of a name that is no call; other negative numbers are calls of other architectures."""

_BY_NAME = {
    "x86": "X86", "i686": "X86", "x86_64": "X86_64", "amd64": "X86_64", "x32": "X32",
    "arm": "ARM", "arm64": "AARCH64", "aarch64": "AARCH64", "ppc": "PPC", "ppc64": "PPC64", "ppc64le": "PPC64LE",
    "s390": "S390", "s390x": "S390X", "mips": "MIPS", "mips64": "MIPS64", "mips64n32": "MIPS64N32",
    "mipsel": "MIPSEL", "mipsel64": "MIPSEL64", "mipsel64n32": "MIPSEL64N32",
}
_ALSO_RUNS = {"X86_64": ("X86", "X32"), "AARCH64": ("ARM",), "S390X": ("S390",), "PPC64": ("PPC",)}


def _number(architecture: str) -> int:
    return int(getattr(seccomp.Arch, architecture))


def _own() -> str:
    # The binding gives this number unsigned and the others signed.
    here = int(seccomp.system_arch()) & 0xFFFFFFFF
    return next(name for name in dir(seccomp.Arch) if name.isupper() and _number(name) & 0xFFFFFFFF == here)


@functools.lru_cache(maxsize=256)
def compile_policy(policy: Policy) -> bytes:
    """The program of a policy, empty if it filters nothing. Raises InvalidError for a call that there is not."""
    if policy.is_empty:
        return b""
    own = _own()
    program = _filter_of(policy, own, own)
    if policy.compat:
        for other in _ALSO_RUNS.get(own, ()):
            program.merge(_filter_of(policy, other, own))
    with tempfile.TemporaryFile() as stream:
        program.export_bpf(stream)
        stream.seek(0)
        compiled = stream.read()
    if len(compiled) > MAX_SIZE:
        raise InvalidError("the rules for system calls are too many", f"their filter has {len(compiled) // 8} steps")
    return compiled


def _filter_of(policy: Policy, architecture: str, own: str) -> seccomp.SyscallFilter:
    made = seccomp.SyscallFilter(_action(policy.rest))
    made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS if policy.compat else seccomp.ERRNO(ENOSYS))
    if architecture != own:
        made.add_arch(_number(architecture))
        made.remove_arch(_number(own))
    for rule in policy.rules:
        if rule.architecture == ALL or _BY_NAME.get(rule.architecture) == architecture:
            _add(made, rule, architecture)
    return made


def _add(made: seccomp.SyscallFilter, rule: Rule, architecture: str) -> None:
    """Add a rule if its call is one of the architecture's."""
    number = seccomp.resolve_syscall(_number(architecture), rule.call)
    if number == UNKNOWN:
        raise InvalidError(f"there is no system call {rule.call!r}", "see syscalls(2)")
    action = _action(rule)
    if number < 0 or action == made.get_attr(seccomp.Attr.ACT_DEFAULT):
        return
    try:
        made.add_rule(action, rule.call, *(_argument(condition) for condition in rule.conditions))
    except (RuntimeError, ValueError) as error:
        raise InvalidError(f"libseccomp does not take the rule for {rule.call!r}: {error}") from None


def _action(rule: Rule) -> int:
    actions = {"allow": seccomp.ALLOW, "kill": seccomp.KILL_PROCESS, "trap": seccomp.TRAP}
    return int(actions[rule.action] if rule.action else seccomp.ERRNO(rule.errno))


def _argument(condition: Condition) -> seccomp.Arg:
    comparison = getattr(seccomp, condition.comparison)
    if condition.comparison == "MASKED_EQ":
        return seccomp.Arg(condition.index, comparison, condition.mask, condition.value)
    return seccomp.Arg(condition.index, comparison, condition.value)
