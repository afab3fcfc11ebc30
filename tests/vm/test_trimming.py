# SPDX-License-Identifier: Apache-2.0
"""Which of a process's mappings are of files and its own, in text as proc_pid_maps(5) has it."""

import mmap
import os
from pathlib import Path

from sysd.runtime.vm import trimming

MAPS = """\
55e0a000-55e0b000 r--p 00000000 fd:00 1201                               /usr/bin/qemu
55e0b000-55e0d000 r-xp 00001000 fd:00 1201                               /usr/bin/qemu
55e0d000-55e0e000 rw-p 00003000 fd:00 1201                               /usr/bin/qemu
55e0e000-55e1e000 rw-p 00000000 00:00 0                                  [heap]
7f000000-9f000000 rw-s 00000000 00:01 77                                 /memfd:memory-backend-memfd (deleted)
a0000000-a0001000 ---p 00000000 00:00 0
b0000000-b0004000 r--p 00000000 fd:00 9                                  /a place/with 1 word - more
"""


def test_only_files_that_are_mapped_privately() -> None:
    found = trimming.ranges(MAPS.splitlines())
    assert found == [(0x55E0A000, 0x1000), (0x55E0B000, 0x2000), (0x55E0D000, 0x1000), (0xB0000000, 0x4000)]


def test_what_is_written_stays(tmp_path: Path) -> None:
    """Of this very process, which goes on; also where it may not be done."""
    path = tmp_path / "file"
    path.write_bytes(b"old" * 10000)
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[:3] = b"new"
        trimming.trim(os.getpid(), os.pidfd_open(os.getpid()))
        assert mapped[:6] == b"newold"


def test_a_process_that_is_gone() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    os.waitpid(pid, 0)
    trimming.trim(pid, pidfd)
    assert not os.path.exists(f"/proc/self/fd/{pidfd}")
