# SPDX-License-Identifier: Apache-2.0
"""The ``syscont`` command. Hot verbs import almost nothing: tests/cli/test_import_budget.py holds the list."""
