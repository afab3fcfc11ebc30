# SPDX-License-Identifier: Apache-2.0
"""Clone a folder with one large file on the file system mounted at argv[1]: how much of the copy's data is shared with
the original (FIEMAP), and whether the file system would hold an instance to a size."""

import json
import os
import subprocess
import sys
from pathlib import Path

from sysd.storage.dir import Dir

SIZE = 8 << 20

here = Path(sys.argv[1])
source, target = here / "source", here / "target"
source.mkdir()
(source / "large").write_bytes(os.urandom(SIZE))
os.sync()
Dir().clone(source, target, lambda: False)
os.sync()
same = (source / "large").read_bytes() == (target / "large").read_bytes()
extents = subprocess.run(["filefrag", "-v", target / "large"], check=True, capture_output=True, text=True).stdout
rows = [line for line in extents.splitlines() if line.split(":")[0].strip().isdecimal()]
print(json.dumps({"same": same, "extents": len(rows), "shared": sum("shared" in row for row in rows),
                  "limited": Dir().is_limited(here)}))  # fmt: skip
