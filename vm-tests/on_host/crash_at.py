# SPDX-License-Identifier: Apache-2.0
"""Run a command and break something after a delay. stdin: a JSON object; prints one too.

{"argv": the client, "delay": seconds, "break": a shell line, "limit": seconds that the client may take}
"""

import json
import os
import signal
import subprocess
import sys
import time

task = json.load(sys.stdin)
breaker = task["break"]
pid = 0
if breaker == "kill":
    show = ["systemctl", "show", "--value", "-p", "MainPID", "syscontd.service"]
    pid = int(subprocess.run(show, capture_output=True, text=True).stdout)
client = subprocess.Popen(
    task["argv"],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
)
begin = time.monotonic()
time.sleep(max(0.0, begin + task["delay"] - time.monotonic()))
if pid:
    os.kill(pid, signal.SIGKILL)
elif breaker:
    subprocess.run(["sh", "-c", breaker], check=False)
broken = time.monotonic() - begin
try:
    out, err = client.communicate(timeout=task["limit"])
    hung = False
except subprocess.TimeoutExpired:
    hung = True
    os.killpg(client.pid, signal.SIGKILL)
    out, err = client.communicate()
took = time.monotonic() - begin
print(json.dumps({"status": client.returncode, "out": out, "err": err, "hung": hung, "took": took, "broken": broken}))
