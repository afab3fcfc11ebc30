# SPDX-License-Identifier: Apache-2.0
"""How a virtual machine runs, and how QEMU and what is inside are talked to."""
