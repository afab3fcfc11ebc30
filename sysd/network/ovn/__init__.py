# SPDX-License-Identifier: Apache-2.0
"""Networks of Open Virtual Network: what its northbound database is to say, and what the local Open vSwitch is to.

Databases are spoken to by `database`, which alone knows threads; `replica` is all that knows the library. `rows` makes
rows of a database be what is wanted; the other modules say what is wanted, and have no state.
"""
