# SPDX-License-Identifier: Apache-2.0
"""listeners.py NAMESPACE PORT...: takes TCP connections on ports in a network namespace (a path), of IPv4 and IPv6, and
closes them; says "ready" when it does, and goes on until its input ends."""

import os
import selectors
import socket
import sys

namespace = os.open(sys.argv[1], os.O_RDONLY)
os.setns(namespace, os.CLONE_NEWNET)  # type: ignore[attr-defined]  # Python 3.12's
ready = selectors.DefaultSelector()
for port in sys.argv[2:]:
    ready.register(socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True), 1)
ready.register(sys.stdin, 1)
print("ready", flush=True)
while True:
    for key, _ in ready.select():
        if not isinstance(key.fileobj, socket.socket):
            sys.exit()
        key.fileobj.accept()[0].close()
