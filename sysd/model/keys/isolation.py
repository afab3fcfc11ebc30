# SPDX-License-Identifier: Apache-2.0
"""What keeps a guest apart from the host: whose ids its users have there, and what it may see of it."""

from __future__ import annotations

from sysd.model.apparmor import check_rules
from sysd.model.idmap import check_base, check_size, parse_raw
from sysd.model.schema import Key
from sysd.model.syscalls import check_raw
from sysd.model.values import boolean


def _check_seccomp(text: str) -> None:
    if text:
        check_raw(text)


KEYS = (
    Key(
        "security.privileged",
        boolean,
        "false",
        "Run without a user namespace: the guest's root is the host's, and is not kept from leaving the container.",
    ),
    Key(
        "security.idmap.isolated",
        boolean,
        "true",
        "Ids that no other instance has. All instances have such; false is taken for LXD's sake and changes nothing.",
    ),
    Key(
        "security.nesting",
        boolean,
        "false",
        "Let the guest run containers of its own: it gets an unmasked /proc and /sys beneath /dev/.syscont, without "
        "which its own user namespaces may not mount any.",
    ),
    Key("security.idmap.base", check_base, "", "First of the ids on the host, instead of one that syscontd finds."),
    Key("security.idmap.size", check_size, "65536", "How many ids the instance has."),
    Key(
        "raw.idmap",
        parse_raw,
        "",
        "Ids of the host that the guest has too, a line each: 'both 1000 1000' or 'uid 50-60 500-510', the host's "
        "first. The administrator has to allow them to root or syscont in /etc/subuid and /etc/subgid.",
        multiline=True,
    ),
    Key(
        "security.protection.shift",
        boolean,
        "false",
        "Keep the instance's files from being shifted. That never happens, as ids are mapped when it is mounted: true "
        "and false are the same.",
    ),
    Key(
        "raw.apparmor",
        check_rules,
        "",
        "Rules that are added to the instance's AppArmor profile, as apparmor.d(5) has them: 'mount fstype=nfs,'. The "
        "instance starts only where the host has AppArmor.",
        multiline=True,
    ),
    Key(
        "raw.seccomp",
        _check_seccomp,
        "",
        "A whole seccomp policy of LXC's, in place of all security.syscalls keys: '2', then 'denylist' or 'allowlist' "
        "and what becomes of calls that are not on it, then a rule a line.",
        multiline=True,
    ),
)
