# SPDX-License-Identifier: Apache-2.0
"""A folder of the host's that every attack is aimed at, and how it is told that none has reached it."""

from collections.abc import Iterator
from contextlib import contextmanager

from hosts import Host

PLACE = "/canary"
ROUTES = (PLACE, f"../../../../../../../..{PLACE}", f"/proc/1/root{PLACE}", f"/proc/self/cwd{PLACE}")
"""What a guest may try: a path of the host's, the way up and out, and through links of the kernel's."""

# Files as a guest has them, so that a folder of its own that is a link to ours finds what it needs there.
FILES = (
    *("file", "passwd", "group", "shadow", "hostname", "machine-id", "resolv.conf", "user-data", "meta-data", "log"),
    *("null", "console", "net/tun", "host/notify", "sub/file", "init"),
)
_PUT = f"""
mkdir -m 0751 {PLACE}; cd {PLACE}; ln -s file link
for name in {" ".join(FILES)}; do mkdir -p $(dirname $name); echo untouched >$name; done
chown -R 7:8 *; chmod 0640 file; chmod 4755 init; touch -h -d @1000000000 $(find .)
"""
# Name, kind, mode, owner, times of content and of all else, links, size; and the hash of all that is in files.
_LOOK = f"""
cd {PLACE}; find . -printf '%p %y %m %U:%G %T@ %C@ %n %s %l\\n' | sort; find . -type f | sort | xargs sha256sum
"""


@contextmanager
def unharmed(host: Host) -> Iterator[None]:
    """There is a canary for the block, and it is as it was in the end."""
    host.sh(_PUT)
    try:
        before = host.sh(_LOOK)
        yield
        assert host.sh(_LOOK) == before
    finally:
        host.sh(f"rm -rf {PLACE}")
