# SPDX-License-Identifier: Apache-2.0
"""Speak varlink by hand. stdin: a JSON list of tasks; prints the list of answers.

{"send": text, or "hex": bytes, "times": n, "fds": n, "limit": seconds} -> the first reply, or "closed", or "silence"
{"call": method, "parameters": {...}} -> the reply
{"connections": n, "hold": seconds} -> how many of them were closed
"""

import json
import os
import socket
import sys
import time
from typing import Any

PATH = "/run/syscont/org.syscont.Manager"


def exchange(data: bytes, fds: int = 0, limit: float = 20.0, hang_up: bool = False) -> Any:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(limit)
        sock.connect(PATH)
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            if fds:
                sent = socket.send_fds(sock, [data], [null] * fds)
                data = data[sent:]
            sock.sendall(data)
            if hang_up:
                return "gone"
            answer = b""
            while not answer.endswith(b"\0"):
                got = sock.recv(1 << 16)
                if not got:
                    return "closed"
                answer += got
            return json.loads(answer[:-1].split(b"\0")[0])
        except TimeoutError:
            return "silence"
        except (BrokenPipeError, ConnectionResetError):
            return "closed"
        finally:
            os.close(null)


def run(task: dict[str, Any]) -> Any:
    if "call" in task:
        message = {"method": "org.syscont.Manager." + task["call"], "parameters": task["parameters"]}
        return exchange(json.dumps(message).encode() + b"\0", task.get("fds", 0))
    if "connections" in task:
        held = []
        for _ in range(task["connections"]):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(10)
            sock.connect(PATH)
            held.append(sock)
        closed = 0
        for sock in held:
            sock.setblocking(False)
        time.sleep(task["hold"])
        for sock in held:
            try:
                closed += sock.recv(1) == b""
            except BlockingIOError:
                pass
            except ConnectionResetError:
                closed += 1
        for sock in held:
            sock.close()
        return closed
    data = bytes.fromhex(task["hex"]) if "hex" in task else task["send"].encode()
    data *= task.get("times", 1)
    return exchange(data, task.get("fds", 0), task.get("limit", 20.0), task.get("hang up", False))


print(json.dumps([run(task) for task in json.load(sys.stdin)]))
