/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine's unit runs to stop it (ExecStop=, systemd.service(5)): the power button, pressed until the guest has
 * gone. A guest that is about to boot may not see it at first. How long that may take is the service manager's to say.
 */
#include "machine.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum { AGAIN = 3000, ANSWER = 5000, LAST = 1000 }; /* milliseconds */

/* Not of one that ends just now, as it was to: its socket does so first. */
static void complain(const char *message)
{
    if (!qmp_ended(LAST))
        fprintf(stderr, "cannot ask the guest to power off: %s\n", message);
}

/* Its guest runs on another host, or might: never let it run here. QEMU just ends then, by the service manager's word. */
static bool is_elsewhere(json spec)
{
    static const char *const states[] = { "inmigrate", "finish-migrate", "postmigrate" };
    bool found = truth(spec, "arrives");
    json status = qmp_call("query-status", NULL);
    const char *name = json_object_get_string(qmp_part(status, "status", json_type_string));
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        found = found || strcmp(name, states[i]) == 0;
    json_object_put(status);
    return found;
}

_Noreturn void stop_machine(const char *path)
{
    const char *main_process = getenv("MAINPID");
    on_problem(complain);
    if (!main_process || atoi(main_process) <= 0)
        exit(0); /* it has ended by itself */
    int pidfd = syscall(SYS_pidfd_open, atoi(main_process), 0);
    if (pidfd < 0)
        exit(0);
    json spec = read_words(must(open(path, O_RDONLY | O_CLOEXEC), "%s", path));
    qmp_watch(pidfd, ANSWER);
    qmp_open(text(spec, "qmp"));
    do {
        qmp_watch(pidfd, ANSWER);
        if (is_elsewhere(spec))
            exit(0);
        drop_kept(spec);
        json_object_put(qmp_call("cont", NULL)); /* one that is paused sees no button */
        json_object_put(qmp_call("system_powerdown", NULL));
    } while (!qmp_ended(AGAIN));
    exit(0);
}
