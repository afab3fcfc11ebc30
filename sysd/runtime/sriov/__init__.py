# SPDX-License-Identifier: Apache-2.0
"""Virtual functions of network cards (SR-IOV), which instances have as interfaces."""
