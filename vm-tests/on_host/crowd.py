# SPDX-License-Identifier: Apache-2.0
"""Run many commands at once. stdin: a JSON list of command lines; prints the JSON list of [status, output, errors]."""

import json
import subprocess
import sys

NOTHING = subprocess.DEVNULL


def main() -> None:
    lines = json.load(sys.stdin)
    # Pipes of so few bytes are never full before they are read.
    running = [
        subprocess.Popen(line, stdin=NOTHING, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in lines
    ]
    answers = []
    for process in running:
        output, errors = process.communicate()
        answers.append([process.returncode, output, errors])
    print(json.dumps(answers))


main()
