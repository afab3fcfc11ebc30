# SPDX-License-Identifier: Apache-2.0
"""operation cancel, and monitor: what the daemon is doing."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.output import clean, out
from sysd.codec import encode, quote_ascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.options import Parsed


def cancel(parsed: Parsed) -> int:
    """``syscont operation cancel``"""
    return client.report(client.run_each("CancelOperation", [{"id": identity} for identity in parsed.args]))


def monitor(parsed: Parsed) -> int:
    """``syscont monitor``"""
    connection = client.connect()
    connection.send("Monitor", {}, more=True)
    more = True
    while more:
        event, more = connection.receive()
        out(encode(event, quote_ascii) + "\n" if parsed.value("format") == "json" else _line(event))
    return 0


def _line(event: client.Parameters) -> str:
    import time

    project, name = event.get("project") or "default", event.get("name") or ""
    what = name if project == "default" else f"{project}:{name}"
    text = clean(f"{event.get('event', '')} {what}")
    return f"{time.strftime('%H:%M:%S')} {text}\n"
