# SPDX-License-Identifier: Apache-2.0
"""Work on the files of instances: a worker in the instance's tree (worker), and the daemon's end of it (run)."""
