# SPDX-License-Identifier: Apache-2.0
"""The program that writes an archive of whole root file systems, in a unit of its own.

Its plan is a JSON object on standard input:
    files     path in the archive -> text
    trees     path in the archive -> layers, the uppermost first: overlayfs puts them together, as for the guest
    members   what tar is told to archive, in this order; first says what stands before the path of each
    compress  a program that compresses, or nothing
The archive goes to standard output; how many bytes that were, now and then, in lines to standard error, where tar says
what is wrong too.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sysd import _cext as c

CHUNK = 1 << 20
INTERVAL = 0.2
TAR = (
    "tar",
    "--create",
    "--format=posix",
    "--numeric-owner",
    "--sparse",
    "--xattrs",
    # What is overlayfs's own, or the host's security module's, is of no use elsewhere.
    "--xattrs-include=user.*",
    "--xattrs-include=security.capability",
    "--xattrs-include=system.posix_acl_*",
    "--warning=no-file-ignored",
)


def main() -> int:
    plan = json.load(sys.stdin)
    root = Path(tempfile.mkdtemp())
    lay_out(root, plan)
    argv = [*TAR, f"--directory={root / plan['first']}"]
    if plan["compress"]:
        argv.append(f"--use-compress-program={plan['compress']}")
    packer = subprocess.Popen([*argv, "--", *plan["members"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert packer.stdout
    try:
        pass_on(packer.stdout.fileno(), sys.stdout.fileno())
    except OSError as error:
        packer.kill()
        print(f"what was packed can't be written: {error.strerror}", file=sys.stderr)
        return 1
    return packer.wait()


def lay_out(root: Path, plan: dict[str, Any]) -> None:
    """Make the archive's tree, which is gone with our mount namespace."""
    for path, text in plan["files"].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for path, layers in plan["trees"].items():
        (root / path).mkdir(parents=True)
        options: dict[str, str | None] = {"source": "syscont", "lowerdir": ":".join(layers), "redirect_dir": "follow"}
        mount = c.new_mount("overlay", options, c.ATTR_RDONLY | c.ATTR_NOSUID | c.ATTR_NODEV | c.ATTR_NOEXEC)
        place = os.open(root / path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        c.move_mount(mount, place)
        os.close(place)
        os.close(mount)


def pass_on(source: int, target: int) -> None:
    """Copy to target, which may be non-blocking: whoever gave it shares its flags."""
    done, said = 0, 0.0
    while data := os.read(source, CHUNK):
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(target, view) :]
            except BlockingIOError:
                select.select([], [target], [])
        done += len(data)
        if time.monotonic() - said >= INTERVAL:
            said = time.monotonic()
            print(done, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
