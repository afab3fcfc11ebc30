# SPDX-License-Identifier: Apache-2.0
"""datagram.py PORT SECONDS: waits for a datagram; prints who sent it, and what it says."""

import socket
import sys

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("0.0.0.0", int(sys.argv[1])))
    sock.settimeout(float(sys.argv[2]))
    data, (address, _) = sock.recvfrom(65536)
    print(address, data.decode())
