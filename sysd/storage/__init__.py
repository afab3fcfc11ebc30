# SPDX-License-Identifier: Apache-2.0
"""Storage drivers: how the writable layers of instances are kept, a module for each."""
