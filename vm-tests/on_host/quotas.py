# SPDX-License-Identifier: Apache-2.0
"""What the pool counts: {"of": {name: [used, most]}, "stray": numbers of ours that count or limit for no instance}."""

import json
import os
import sqlite3

from sysd import _cext
from sysd.manager.quotas import FIRST

POOL = "/var/lib/syscont"
LOOKED_AT = 64

rows = sqlite3.connect(f"file:{POOL}/syscont.db?mode=ro", uri=True).execute("SELECT body FROM instances")
instances = [json.loads(body) for (body,) in rows]
numbers = {one["name"]: one["quota_id"] for one in instances}
pool = os.open(POOL, os.O_RDONLY)
found = {number: _cext.project_quota(pool, number) for number in range(FIRST, FIRST + LOOKED_AT)}
stray = [number for number, quota in found.items() if any(quota) and number not in numbers.values()]
assert len(set(numbers.values())) == len(numbers), f"shared: {numbers}"
print(json.dumps({"of": {name: _cext.project_quota(pool, number) for name, number in numbers.items()}, "stray": stray}))
