# SPDX-License-Identifier: Apache-2.0
"""Programs of the shell's that begin commands in virtual machines, and send them signals.

What they are to do they are told by arguments. sh is all that they take for granted, and what is in both coreutils
and busybox.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from sysd.model.errors import InvalidError
from sysd.runtime.execute import DEFAULT_PATH, Command

FOLDER = "/run/syscont-guest/commands"
"""In the guest: for each command that was begun a file with the number of its process."""
MAX_LINE = 120_000
"""Bytes: sshd hands a command to the user's shell as one word, and no word may be longer than 128 KiB (execve(2))."""

# A shell stays above the command: sshd's own way of telling that a signal ended it reaches no one (RFC 4254, 6.10).
# Its complaints of such a signal are nobody's.
BEGIN = f"""
folder=$1 token=$2 user=$3 cwd=$4
shift 4
umask 022
fail() {{
    echo "syscont: $1" >&2
    exit 126
}}
find_user() {{
    while IFS=: read -r name password uid gid comment home shell; do
        [ "$name" = "$user" ] || [ "$uid" = "$user" ] && return
    done
    return 1
}}
name=root uid=0 gid=0 home=/root groups=--clear-groups
if [ -n "$user" ]; then
    if find_user </etc/passwd || {{ line=$(getent passwd -- "$user" 2>/dev/null) && find_user <<.
$line
.
    }}; then
        groups=--init-groups
    else
        case $user in
        *[!0-9]*) fail "no user '$user' in the instance" ;;
        esac
        name=$user uid=$user gid=$user home=/
    fi
fi
set -- env -i -- PATH={DEFAULT_PATH} HOME="${{home:-/}}" USER="$name" LANG=C.UTF-8 "$@"
if [ "$uid" = 0 ]; then
    :
elif setpriv --reuid="$uid" --regid="$gid" $groups true 2>/dev/null; then
    set -- setpriv --reuid="$uid" --regid="$gid" $groups -- "$@"
elif [ $groups = --init-groups ]; then
    set -- su -s /bin/sh -c 'exec "$0" "$@"' "$name" "$@"
else
    fail "no program in the instance can become user $uid: setpriv is of util-linux"
fi
mkdir -p "$folder" && chmod 700 "$folder" || fail "no folder $folder in the instance"
trap : HUP INT QUIT TERM
exec 3>&2 2>/dev/null
(
    exec 2>&3 3>&-
    read -r pid rest </proc/self/stat
    echo "$pid" >"$folder/$token"
    cd -- "${{cwd:-$home}}" 2>/dev/null || cd /
    exec "$@"
)
status=$?
rm -f "$folder/$token"
exit $status
"""

# The command may be about to begin.
SIGNAL = """
tries=0
until read -r pid <"$1/$2"; do
    tries=$((tries + 1))
    [ $tries -lt 20 ] || exit 1
    sleep 0.1
done 2>/dev/null
kill -"$3" "$pid"
"""


def begin(command: Command, token: str) -> list[str]:
    """Words that run a command in a guest as its root. Limits of resources are a container's: a guest has its own."""
    variables = [f"{key}={value}" for key, value in command.environment.items()]
    argv = list(command.argv)
    if "=" in argv[0]:  # env(1) takes it for a variable
        argv = ["sh", "-c", 'exec "$0" "$@"', *argv]
    return ["/bin/sh", "-c", BEGIN, "sh", FOLDER, token, command.user, command.cwd, *variables, *argv]


def send_signal(token: str, number: int) -> list[str]:
    return ["/bin/sh", "-c", SIGNAL, "sh", FOLDER, token, str(number)]


def line(words: Sequence[str]) -> str:
    """Words as one line for a guest's login shell, which takes none of them apart."""
    text = "exec " + " ".join(shlex.quote(word) for word in words)
    if len(text.encode(errors="surrogateescape")) > MAX_LINE:
        raise InvalidError("the command is too long", f"at most {MAX_LINE} bytes with its environment and its quotes")
    return text


NO_SSHD = 3
"""The status of OPEN where the guest has no sshd."""
_OWN = "/run/syscont-guest/ssh"
# A server for this one connection, of which nothing is configured in the guest: it has keys of its own, and lets in
# ours alone. The port can be open once (EBUSY), and has to have someone at its other end before it is read.
_SERVE = (
    'exec "$0" -i -f /dev/null -o "UsePAM=$2" -o StrictModes=no -o PermitRootLogin=prohibit-password'
    f" -o HostKey={_OWN}/host_key -o AuthorizedKeysFile={_OWN}/authorized_keys"
    " -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o DisableForwarding=yes"
    " -o PermitUserRC=no -o UseDNS=no -o PrintMotd=no -o PrintLastLog=no -o PidFile=none"
    ' 0<>"$1" 1>&0 2>/dev/null'
)
# sshd without PAM lets nobody in whose account is locked; with it each session is one of logind's.
OPEN = f"""
name=$1 key=$2
umask 022
for sshd in /usr/sbin/sshd /usr/local/sbin/sshd /usr/bin/sshd ''; do
    [ -x "$sshd" ] && break
done
[ -n "$sshd" ] || exit {NO_SSHD}
mkdir -p {_OWN} /run/sshd || exit 1
chmod 700 {_OWN}
if ! [ -s {_OWN}/host_key ]; then
    ssh-keygen -q -t ed25519 -N '' -C '' -f {_OWN}/$$ || exit 1
    mv {_OWN}/$$ {_OWN}/host_key
    rm {_OWN}/$$.pub
fi
echo "$key" >{_OWN}/$$
mv {_OWN}/$$ {_OWN}/authorized_keys
pam=no
while IFS=: read -r user password rest; do
    case $user$password in 'root!'*) pam=yes ;; esac
done </etc/shadow
find_port() {{
    for port in /sys/class/virtio-ports/*; do
        if read -r found <$port/name && [ "$found" = "$name" ]; then
            device=/dev/${{port##*/}}
            [ -c "$device" ]
            return
        fi
    done 2>/dev/null
    return 1
}}
tries=0
until find_port; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || exit 1
    sleep 0.05
done
set -- /bin/sh -c '{_SERVE}' "$sshd" "$device" $pam
if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null; then
    set -- --property=KillMode=process --description='Command of the host' -- "$@"
    exec systemd-run --quiet --collect --no-block --unit="$name" "$@"
fi
setsid "$@" </dev/null >/dev/null 2>&1 &
"""


def open_port(name: str, key: str) -> tuple[list[str], bytes]:
    """Words, and their input, that have sshd at a port, for one connection of whoever has key. The agent writes the
    words to the guest's log."""
    return ["/bin/sh", "-s", "--", name, key], OPEN.encode()
