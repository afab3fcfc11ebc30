# SPDX-License-Identifier: Apache-2.0
"""What all unit tests need of their surroundings."""

from __future__ import annotations

import signal

import hypothesis


def pytest_configure() -> None:
    """A shell starts what runs in its background with these ignored, and children inherit that (bash(1), SIGNALS)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    # How long an example takes says more of what else the machine does than of the example.
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")
