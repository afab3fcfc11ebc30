# SPDX-License-Identifier: Apache-2.0
"""AppArmor profiles that hold guests, where the host has AppArmor."""
