# SPDX-License-Identifier: Apache-2.0
"""Disks of virtual machines that have ended, looked at from the host: QEMU's files, and the file system on them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from guests import Instance

COPY, PART = "/var/tmp/disk-of-a-machine", "/var/tmp/root-of-a-machine"


def check(instance: Instance) -> None:
    """Its disk has no error that QEMU's own tool finds."""
    done = instance.host.run(["qemu-img", "check", "-f", "qcow2", instance.on_disk("root.qcow2")], check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def as_seen(instance: Instance) -> str:
    """Its disk as its guest sees it, by a name for QEMU's tools."""
    overlay = {"driver": "file", "filename": instance.on_disk("root.qcow2")}
    image = {"driver": "file", "filename": f"/var/lib/syscont/images/{instance.seen()['image']}/disk.img"}
    return "json:" + json.dumps({"driver": "qcow2", "file": overlay, "backing": {"driver": "raw", "file": image}})


@contextmanager
def file_system(instance: Instance) -> Iterator[str]:
    """The path of a copy of its root file system, which has no errors once its journal is replayed."""
    host = instance.host
    try:
        host.run(["qemu-img", "convert", "-O", "raw", as_seen(instance), COPY])
        table = json.loads(host.run(["sfdisk", "--json", COPY]).stdout)["partitiontable"]
        # In bytes: what a guest has grown to the end of its disk is no whole number of MiB.
        begin, size = (table["partitions"][-1][name] * table["sectorsize"] for name in ("start", "size"))
        of_bytes = ["iflag=skip_bytes,count_bytes", f"skip={begin}", f"count={size}"]
        host.run(["dd", f"if={COPY}", f"of={PART}", "bs=1M", "conv=sparse", *of_bytes])
        host.run(["truncate", f"--size={size}", PART])
        # Not at an offset in the whole: e2fsck forgets that when it has replayed a journal.
        replayed = host.run(["e2fsck", "-fp", PART], check=False)
        assert replayed.returncode in (0, 1), replayed.stdout + replayed.stderr
        found = host.run(["e2fsck", "-fn", PART], check=False)
        assert found.returncode == 0, found.stdout + found.stderr
        yield PART
    finally:
        host.run(["rm", "--force", COPY, PART])


def sum_of_file(instance: Instance, file_system: str, path: str) -> str:
    return instance.host.sh(f"debugfs -R 'cat {path}' '{file_system}' 2>/dev/null | md5sum")


def text_of_file(instance: Instance, file_system: str, path: str) -> str:
    return instance.host.sh(f"debugfs -R 'cat {path}' '{file_system}' 2>/dev/null")
