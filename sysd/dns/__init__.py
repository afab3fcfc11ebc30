# SPDX-License-Identifier: Apache-2.0
"""DNS for zones: what they hold, what changed, and a server for them. Loads dnspython, so only with the first zone."""
