# SPDX-License-Identifier: Apache-2.0
"""Debian images: a small systemd system of any suite, made by mmdebstrap, which writes a tar to standard output."""

from __future__ import annotations

import time
from collections.abc import Sequence

PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "libpam-systemd",
    "procps",
    "systemd",
    "systemd-sysv",
)
# Before bookworm systemd-resolved is part of the package systemd.
_RESOLVED = "systemd-resolved"
_WITHOUT_RESOLVED = ("buster", "bullseye")

_APT = ('Acquire::Languages "none"',)
_DPKG = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/lintian/*",
)

def network(match: str) -> str:
    """A hook: interfaces that match, lines of systemd.network(5), are configured by DHCP. It sorts before systemd's own
    80-container-host0.network, which would match the alternative name host0."""
    return f"""\
cat >"$1/etc/systemd/network/50-syscont.network" <<'END'
[Match]
{match}

[Link]
RequiredForOnline=routable

[Network]
DHCP=yes
IPv6AcceptRA=yes
LLMNR=no
MulticastDNS=no

[DHCPv4]
ClientIdentifier=mac
UseDomains=yes

[IPv6AcceptRA]
UseDomains=yes
END
chmod 0644 "$1/etc/systemd/network/50-syscont.network"
"""


# Waiting for the network would hold up every boot; scrubbing ext4 is the host's business.
UNITS = """\
chroot "$1" systemctl --quiet enable systemd-networkd.service systemd-resolved.service
chroot "$1" systemctl --quiet disable systemd-networkd-wait-online.service
chroot "$1" systemctl --quiet set-default multi-user.target
for unit in e2scrub_reap.service e2scrub_all.timer; do
    ! test -e "$1/usr/lib/systemd/system/$unit" || chroot "$1" systemctl --quiet disable "$unit"
done
"""

IDENTITY = """\
rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1/var/lib/dbus/machine-id"
: >"$1/etc/machine-id"
ln -s ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
printf '127.0.0.1 localhost\\n::1 localhost ip6-localhost ip6-loopback\\n' >"$1/etc/hosts"
"""

# Otherwise the first boot of every instance rebuilds the linker's cache and the journal's catalogue,
# see ConditionNeedsUpdate= in systemd.unit(5). dpkg has just done all that.
UPDATED = """\
chroot "$1" journalctl --update-catalog
touch -r "$1/usr" "$1/etc/.updated" "$1/var/.updated"
"""

HOOKS = (network("Name=eth0 host0"), UNITS, IDENTITY, UPDATED)


def argv(suite: str, mirrors: Sequence[str]) -> list[str]:
    """The command that writes the tar; mirrors are lines of sources.list."""
    return command(suite, mirrors, (), HOOKS)


def command(
    suite: str, mirrors: Sequence[str], packages: Sequence[str], hooks: Sequence[str], options: Sequence[str] = ()
) -> list[str]:
    """That of an image with more packages, hooks of its own and more of mmdebstrap's options."""
    wanted = {*PACKAGES, *packages, *(() if suite in _WITHOUT_RESOLVED else (_RESOLVED,))}
    return [
        "mmdebstrap",
        "--variant=minbase",
        "--format=tar",
        f"--include={','.join(sorted(wanted))}",
        *(f"--aptopt={option}" for option in _APT),
        *(f"--dpkgopt={option}" for option in _DPKG),
        *options,
        # Perl warns about a name that ends with a newline when mmdebstrap looks whether the hook is a file.
        *(f"--customize-hook={hook.rstrip()}" for hook in hooks),
        suite,
        "-",
        *mirrors,
    ]


def environment() -> dict[str, str]:
    """Times are cut off at the day, so that the same packages give the same fingerprint all day long."""
    return {"SOURCE_DATE_EPOCH": str(int(time.time()) // 86400 * 86400), "LC_ALL": "C.UTF-8"}
