# SPDX-License-Identifier: Apache-2.0
"""The small image: a root file system of nothing but busybox, written as a tar to standard output.

It is made from the host's busybox-static in a moment, and always the same: its fingerprint changes only with busybox
and with this file.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import sys
import tarfile

from sysd.model.errors import SyscontError, UnsupportedError

CANDIDATES = ("/usr/bin/busybox", "/bin/busybox")
# Any fixed time will do; a fresh one would change the fingerprint. 2020-01-01.
TIME = 1577836800
_INSTALL = "apt install busybox-static"
_PT_INTERP = 3
_TOP = ("bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var")
_BELOW = ("etc/udhcpc", "usr/bin", "usr/sbin", "var/empty", "var/lib", "var/log", "var/tmp")
_MODES = {"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777}

# The host mounts everything and sets the host name before init runs. The console is the unit's log.
INITTAB = """\
::sysinit:/etc/init.d/rcS
::ctrlaltdel:/sbin/reboot
::shutdown:/etc/init.d/rcK
::restart:/sbin/init
"""

START = """\
#!/bin/sh
# Brings the network up without keeping the boot waiting for an address. Each program started is a
# millisecond of a boot of ten: what the shell can do itself it does, and most hosts have done the rest.
for link in lo eth0; do
    [ -e /sys/class/net/$link/flags ] || exit 0
    read -r flags </sys/class/net/$link/flags
    [ $((flags & 1)) = 1 ] || ip link set $link up
done
read -r name </proc/sys/kernel/hostname
exec udhcpc -i eth0 -b -t 5 -T 1 -A 10 -R -p /run/udhcpc.eth0.pid \\
    -s /etc/udhcpc/default.script -x hostname:"$name" </dev/null >/dev/null 2>&1 &
"""

STOP = """\
#!/bin/sh
# Gives the address back, so that its name leaves DNS with it.
[ -e /run/udhcpc.eth0.pid ] && kill -TERM "$(cat /run/udhcpc.eth0.pid)" 2>/dev/null
exit 0
"""

DHCP = """\
#!/bin/sh
# Called by udhcpc(8) with what happened, and the lease in the environment.
case "$1" in
deconfig)
    # Takes the address away, and sets the link up.
    ifconfig "$interface" 0.0.0.0
    ;;
bound|renew)
    ip -4 addr replace "$ip/$mask" ${broadcast:+broadcast "$broadcast"} dev "$interface"
    for gateway in $router; do
        ip -4 route replace default via "$gateway" dev "$interface"
        break
    done
    {
        [ -n "$domain" ] && echo "search $domain"
        for server in $dns; do echo "nameserver $server"; done
    } >/etc/resolv.conf.new && mv /etc/resolv.conf.new /etc/resolv.conf
    ;;
esac
"""

# (path, mode, content). Root is locked: the way in is `syscont exec` and `syscont shell`.
FILES = (
    ("etc/group", 0o644, "root:x:0:\ndaemon:x:1:\ntty:x:5:\nnobody:x:65534:\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"),
    ("etc/init.d/rcK", 0o755, STOP),
    ("etc/init.d/rcS", 0o755, START),
    ("etc/inittab", 0o644, INITTAB),
    ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/os-release", 0o644, 'ID=busybox\nNAME="BusyBox"\nPRETTY_NAME="BusyBox"\n'),
    ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/var/empty:/bin/false\n"),
    ("etc/profile", 0o644, "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"),
    ("etc/shadow", 0o600, "root:*:18262:0:99999:7:::\nnobody:*:18262:0:99999:7:::\n"),
    ("etc/udhcpc/default.script", 0o755, DHCP),
)


def find_busybox() -> str:
    """Path of a busybox that needs no libraries; raises UnsupportedError that says what to install."""
    found = next((path for path in CANDIDATES if os.access(path, os.X_OK)), None)
    if found is None:
        raise UnsupportedError("there is no busybox on this host", _INSTALL)
    with open(found, "rb") as file:
        if not is_static(file.read(1 << 16)):
            raise UnsupportedError(f"{found} is not a static program", _INSTALL)
    return found


def is_static(head: bytes) -> bool:
    """Whether the start of an ELF file names no program interpreter, see elf(5)."""
    if head[:4] != b"\x7fELF" or len(head) < 64:
        return False
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    (offset,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    if offset + size * count > len(head):
        return False
    types = [struct.unpack_from(order + "I", head, offset + size * index)[0] for index in range(count)]
    return _PT_INTERP not in types


def applets(busybox: str) -> list[str]:
    """Paths, without leading slash, under which busybox wants to be called."""
    listing = subprocess.run([busybox, "--list-full"], check=True, capture_output=True, text=True).stdout
    found = {line.strip().lstrip("/") for line in listing.splitlines()}
    return sorted(path for path in found if path and path not in ("linuxrc", "bin/busybox"))


def entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    """A member that belongs to root and has the fixed time."""
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.mtime = kind, mode, TIME
    return info


def write(out: tarfile.TarFile, busybox: str) -> None:
    """Write the whole tree: directories first, then the program, then the links to it."""
    links = applets(busybox)
    directories = {*_TOP, *_BELOW, *(os.path.dirname(path) for path in (*links, *(path for path, _, _ in FILES)))}
    for path in sorted(directories - {""}):
        out.addfile(entry(path, tarfile.DIRTYPE, _MODES.get(path, 0o755)))
    for path, mode, text in FILES:
        add_file(out, path, mode, text.encode())
    with open(busybox, "rb") as file:
        add_file(out, "bin/busybox", 0o755, file.read())
    for path in links:
        info = entry(path, tarfile.SYMTYPE, 0o777)
        info.linkname = "/bin/busybox"
        out.addfile(info)


def add_file(out: tarfile.TarFile, path: str, mode: int, content: bytes) -> None:
    info = entry(path, tarfile.REGTYPE, stat.S_IMODE(mode))
    info.size = len(content)
    out.addfile(info, io.BytesIO(content))


def main() -> int:
    """Write the tar to standard output; the exit status is 1, with a line on standard error, when it can't be made."""
    try:
        busybox = find_busybox()
    except SyscontError as error:
        print(error.text, file=sys.stderr)
        return 1
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as out:
        write(out, busybox)
    return 0


if __name__ == "__main__":
    sys.exit(main())
