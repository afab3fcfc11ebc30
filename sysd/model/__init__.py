# SPDX-License-Identifier: Apache-2.0
"""What things are: frozen, typed, validated values. No I/O happens here."""
