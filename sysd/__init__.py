# SPDX-License-Identifier: Apache-2.0
"""syscont: system containers and virtual machines as systemd units."""

__version__ = "0.1.0"
