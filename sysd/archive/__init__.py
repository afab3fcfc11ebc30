# SPDX-License-Identifier: Apache-2.0
"""Tar archives become files, and files archives: by descriptors that follow no links, with hostile input in mind."""
