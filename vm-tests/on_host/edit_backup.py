# SPDX-License-Identifier: Apache-2.0
"""Make a backup of ours say something else. Arguments: the backup, as a plain tar, and what is written. stdin: JSON,

{"index": keys that index.yaml sets, "backup": those that backup.yaml sets, "snapshots": those of each snapshot in both}
"""

import io
import json
import sys
import tarfile
from typing import Any

source, target = sys.argv[1:]
wanted = json.load(sys.stdin)


def edited(contents: dict[str, Any], which: str) -> None:
    contents["container"]["config"] |= wanted.get(which, {})
    for snapshot in contents["snapshots"]:
        snapshot["config"] |= wanted.get("snapshots", {})


with tarfile.open(source) as old, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as new:
    for member in old:
        stream = old.extractfile(member) if member.isreg() else None
        if stream and member.name in ("backup/index.yaml", "backup/container/backup.yaml"):
            said = json.load(stream)
            if member.name.endswith("index.yaml"):
                edited(said["config"], "index")
            else:
                edited(said, "backup")
            data = json.dumps(said).encode()
            member.size = len(data)
            stream = io.BytesIO(data)
        new.addfile(member, stream)
