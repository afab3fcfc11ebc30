# SPDX-License-Identifier: Apache-2.0
"""Devices of instances: their types and options, a module for each type."""
