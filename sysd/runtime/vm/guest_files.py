# SPDX-License-Identifier: Apache-2.0
"""The shell's program that does to a guest's files what sysd.runtime.files.actions does to a container's.

What it has to say it says at the end of its stderr: a byte 036, and fields with bytes 037 between: a result's names and
values after a "=", or an error's code, message and hint.
"""

from __future__ import annotations

from collections.abc import Sequence

from sysd.model.files import Action, FileRequest, split

RECORD, FIELD = "\x1e", "\x1f"
RESULT = "="
MAX_UNSIZED = 64 << 20
"""What is read at most of a file that says it has no bytes, as those of /proc do."""

# Names end at a byte that no path has; $() would take the newlines at a name's end with it.
PROGRAM = rf"""
action=$1 path=$2 above=$3 base=$4 slash=$5 name=$6 mode=$7 uid=$8 gid=$9
shift 9
parents=$1 recursive=$2 size=$3
umask 022
answer() {{
    printf '\036{RESULT}' >&2
    for word; do printf '\037%s' "$word" >&2; done
    exit 0
}}
fail() {{
    printf '\036%s\037%s\037%s' "$1" "$2" "$3" >&2
    exit 1
}}
kind() {{
    if [ -d "$1" ]; then echo 'a directory'
    elif [ -c "$1" ] || [ -b "$1" ]; then echo 'a device node'
    elif [ -p "$1" ]; then echo 'a fifo'
    elif [ -S "$1" ]; then echo 'a socket'
    else echo 'no file'
    fi
}}
there() {{
    [ -e "$1" ] || [ -L "$1" ]
}}
usual() {{
    mode=${{mode:-$1}} uid=${{uid:-$2}} gid=${{gid:-$3}}
}}
give() {{
    chown "$uid:$gid" "$1" && chmod "$mode" "$1"
}}
folder() {{
    [ -d "$1" ] && return
    there "$1" && fail InvalidArgument "$1 is no directory, or goes through what is none"
    fail NotFound "no directory $1" '--create-dirs makes it'
}}

push() {{
    if [ -n "$parents" ]; then
        if [ -n "$slash" ]; then mkdir -p "$path"; else mkdir -p "$above"; fi || exit 1
    fi
    place=$path
    if [ -d "$path" ]; then
        [ -n "$name" ] || fail InvalidArgument "$path is a directory" 'name the file in it'
        place=${{path%/}}/$name
    elif [ -n "$slash" ]; then
        fail NotFound "no directory $path/" '--create-dirs makes it'
    fi
    if [ -e "$place" ]; then
        place=$(readlink -f "$place" && echo .) || exit 1
        place=${{place%??}}
        [ -f "$place" ] || fail InvalidArgument "$place is $(kind "$place")" 'only files are written'
        usual $(stat -c '%a %u %g' "$place")
    fi
    usual 644 0 0
    above=${{place%/*}}
    folder "${{above:-/}}"
    draft=$(mktemp "$above/.syscont-XXXXXX" && echo .) || exit 1
    draft=${{draft%??}}
    trap 'rm -f "$draft"' EXIT
    trap 'exit 1' HUP INT TERM
    cat >"$draft" || exit 1
    came=$(stat -c %s "$draft")
    [ -z "$size" ] || [ "$came" = "$size" ] || fail Failed 'the data ended early'
    give "$draft" || exit 1
    if [ -n "$size" ]; then
        mv -f "$draft" "$place" || exit 1
    fi
    trap - EXIT
    answer size "$came" draft "$draft" place "$place"
}}

pull() {{
    there "$path" || fail NotFound "$path is not there"
    [ ! -d "$path" ] || fail InvalidArgument "$path is a directory" '--recursive takes all that is in it'
    [ -f "$path" ] || fail InvalidArgument "$path is $(kind "$path")" 'only files are read'
    exec 3<"$path" || exit 1
    set -- $(stat -L -c '%a %u %g %s' /proc/self/fd/3)
    if [ "$4" != 0 ]; then
        head -c "$4" <&3 || exit 1
        answer mode "$1" uid "$2" gid "$3" size "$4"
    fi
    draft=$(mktemp) || exit 1
    trap 'rm -f "$draft"' EXIT
    head -c {MAX_UNSIZED} <&3 >"$draft" && cat "$draft" || exit 1
    answer mode "$1" uid "$2" gid "$3" size "$(stat -c %s "$draft")"
}}

make() {{
    [ "$path" != / ] || fail AlreadyExists 'the root folder exists already'
    if [ -n "$parents" ]; then
        mkdir -p "$above" || exit 1
        if there "$path"; then
            folder "$path"
            answer
        fi
    fi
    folder "$above"
    there "$path" && fail AlreadyExists "$path exists already"
    usual 755 0 0
    mkdir -m 700 "$path" || exit 1
    if ! give "$path"; then
        rmdir "$path"
        exit 1
    fi
    answer
}}

delete() {{
    [ "$path" != / ] || fail InvalidArgument "an instance's root folder can't be deleted" \
        "'syscont delete' deletes the instance"
    there "$path" || fail NotFound "$path is not there"
    if [ -L "$path" ] || [ ! -d "$path" ]; then
        rm -f "$path" || exit 1
        answer
    fi
    cd -P "$above" || exit 1
    while read -r source point rest; do
        case $point in
        "${{PWD%/}}/$base") fail InvalidArgument "$path is in use as a mount point" ;;
        "${{PWD%/}}/$base"/*) fail InvalidArgument "$path has something mounted in it" 'unmount that first' ;;
        esac
    done </proc/self/mounts
    if [ -n "$recursive" ]; then
        rm -rf "./$base" || exit 1
    elif [ -n "$(ls -A "./$base")" ]; then
        fail InvalidArgument "$path is not empty" '--recursive deletes all that is in it'
    else
        rmdir "./$base" || exit 1
    fi
    answer
}}

push_tree() {{
    [ -z "$parents" ] || mkdir -p "$path" || exit 1
    folder "$path"
    tar -x -p --numeric-owner -f - -C "$path" || exit 1
    answer
}}

pull_tree() {{
    folder "$path"
    cd "$above" || exit 1
    stay=
    case $(tar --version 2>/dev/null) in *GNU*) stay='--one-file-system --warning=no-file-ignored' ;; esac
    tar -c $stay --numeric-owner -f - -- "${{base:-.}}"
    # 1: something changed while it was read.
    [ $? -le 1 ] || exit 1
    answer
}}

case $action in
push | pull | delete) $action ;;
mkdir) make ;;
push-tree) push_tree ;;
pull-tree) pull_tree ;;
commit) mv -f "$path" "$name" && answer ;;
discard) rm -f "$path" && answer ;;
esac
"""


def words(request: FileRequest, size: int | None) -> list[str]:
    """What has the guest's shell do request; size is that of the data, where it is known."""
    parts = split(request.path)
    path, above, base = "/" + "/".join(parts), "/" + "/".join(parts[:-1]), parts[-1] if parts else ""
    slash = request.path.endswith("/") and bool(parts)
    mode = f"{request.mode:o}" if request.mode >= 0 else ""
    uid, gid = (str(number) if number >= 0 else "" for number in (request.uid, request.gid))
    flags = [_flag(request.parents), _flag(request.recursive), "" if size is None else str(size)]
    return _program(request.action.value, path, above, base, _flag(slash), request.name, mode, uid, gid, *flags)


def commit(draft: str, place: str) -> list[str]:
    return _program("commit", draft, "", "", "", place)


def discard(draft: str) -> list[str]:
    return _program("discard", draft)


def is_reading(action: Action) -> bool:
    return action in (Action.PUSH, Action.PUSH_TREE)


def _program(*arguments: str) -> list[str]:
    filled: Sequence[str] = [*arguments, *[""] * (12 - len(arguments))]
    return ["/bin/sh", "-c", PROGRAM, "sh", *filled]


def _flag(value: bool) -> str:
    return "1" if value else ""
