/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ExecStopPost= of an instance's unit: what it had of the host's hardware goes back (sysd.runtime.sriov.lending, and
 * sysd.runtime.vm.lending, which the former takes along).
 */
#include "launch.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PYTHON "/usr/bin/python3"

static bool has(const char *place, const char *uuid)
{
    char folder[128];
    snprintf(folder, sizeof folder, "%s/%s", place, uuid);
    return access(folder, F_OK) == 0;
}

/* Most have none, and need no Python to know that. */
_Noreturn void give_back(const char *uuid)
{
    if (has(FUNCTIONS_DIR, uuid))
        execl(PYTHON, PYTHON, "-I", "-m", "sysd.runtime.sriov.lending", "give-back", uuid, NULL);
    else if (has(LENT_DIR, uuid))
        execl(PYTHON, PYTHON, "-I", "-m", "sysd.runtime.vm.lending", "give-back", uuid, NULL);
    exit(has(FUNCTIONS_DIR, uuid) || has(LENT_DIR, uuid));
}
