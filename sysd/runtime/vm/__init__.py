# SPDX-License-Identifier: Apache-2.0
"""How a virtual machine runs: QEMU as the main process of the instance's unit, spoken to over QMP."""
