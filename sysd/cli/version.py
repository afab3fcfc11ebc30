# SPDX-License-Identifier: Apache-2.0
"""version: ours, and the daemon's when it can be reached."""

from __future__ import annotations

from sysd import __version__
from sysd.cli import client
from sysd.cli.errors import CliError
from sysd.cli.output import clean, out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.options import Parsed


def run(parsed: Parsed) -> int:
    """``syscont version`` and ``syscont --version``"""
    if parsed.flag("client"):
        out(f"syscont {__version__}\n")
        return 0
    try:
        server = clean(str(client.call("GetInfo").get("version", "unknown")))
    except CliError as error:
        server = error.message
    out(f"syscont {__version__}\nsyscontd {server}\n")
    return 0
