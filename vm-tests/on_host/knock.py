# SPDX-License-Identifier: Apache-2.0
"""knock.py [NAMESPACE ADDRESS PORT]...: connects by TCP out of network namespaces (paths); prints what came of each:
open, refused (by an answer), or silent."""

import os
import socket
import sys
import threading

PATIENCE = 1.0


def knock(namespace: str, address: str, port: str) -> str:
    fd = os.open(namespace, os.O_RDONLY)
    os.setns(fd, os.CLONE_NEWNET)  # type: ignore[attr-defined]  # Python 3.12's
    os.close(fd)
    try:
        socket.create_connection((address, int(port)), timeout=PATIENCE).close()
    except TimeoutError:
        return "silent"
    except OSError:
        return "refused"
    return "open"


def run(index: int, words: list[str]) -> None:
    found[index] = knock(*words)


asked = [sys.argv[at : at + 3] for at in range(1, len(sys.argv), 3)]
found = [""] * len(asked)
threads = [threading.Thread(target=run, args=one) for one in enumerate(asked)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\n".join(found))
