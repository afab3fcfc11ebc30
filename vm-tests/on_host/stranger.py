# SPDX-License-Identifier: Apache-2.0
"""Knocks at a door of TLS: stranger ADDRESS PORT none|FILE [1.2]. FILE is a key with its certificate.

Prints the fingerprint that the door shows, then what it answers to a question, or why there is no answer.
"""

import hashlib
import socket
import ssl
import sys

address, port, own, *version = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
if version:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
if own != "none":
    context.load_cert_chain(own)
try:
    with socket.create_connection((address, int(port)), 10) as sock, context.wrap_socket(sock) as connection:
        print(hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest())
        connection.sendall(b'{"method":"org.varlink.service.GetInfo"}\0')
        print(connection.recv(65536).decode() or "closed")
except OSError as error:
    print(getattr(error, "reason", None) or error)
