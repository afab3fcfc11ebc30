# SPDX-License-Identifier: Apache-2.0
"""The door that opens inside guests: what an instance may learn of itself, and of nothing else."""
