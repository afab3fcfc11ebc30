# SPDX-License-Identifier: Apache-2.0
"""Configuration keys of instances, a module for each first word or group of them."""
