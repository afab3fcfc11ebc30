# SPDX-License-Identifier: Apache-2.0
"""``python3 -m sysd.cli``, for systems that nothing is installed on."""

from __future__ import annotations

from sysd.cli.main import main

if __name__ == "__main__":
    main()
