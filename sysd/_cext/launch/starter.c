/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The starter: a process with the host's rights that QEMU, executed beside it, does not have. It starts the machine's
 * processors when all is as it should be, or ends QEMU. What QEMU says is not believed.
 *
 * Sources: QEMU's docs/interop/qmp-qemu-qapi, the kernel's admin-guide/hw-vuln/core-scheduling.rst, sched_setaffinity(2).
 */
#include "machine.h"
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include "../clone.h"

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

enum { MOST_PROCESSORS = 8192, PAUSE = 20 };

static struct qemu qemu;

static void end_machine(const char *message)
{
    char said[1200];
    snprintf(said, sizeof said, "%s (its memory was kept: 'syscont start --stateless' starts without it)", message);
    tell_failure(qemu.kept ? said : message);
    syscall(SYS_pidfd_send_signal, qemu.pidfd, SIGKILL, NULL, 0);
}

/* The launcher closes its end by executing QEMU, or says why it does not. */
static void await_exec(void)
{
    char message[1024];
    qmp_wait(qemu.launcher);
    ssize_t got = recv(qemu.launcher, message, sizeof message - 1, 0);
    message[must(got, "the launcher")] = 0;
    if (!got)
        return;
    on_problem(tell_failure); /* it ends by itself */
    give_up("%s", message);
}

/* What the machine was when it was saved, or still is elsewhere. The service manager's limit is the one of this. */
static void await_incoming(const char *from)
{
    json arguments = json_object_new_object();
    json_object_object_add(arguments, "uri", json_object_new_string(from));
    json_object_put(qmp_call("migrate-incoming", arguments));
    qmp_watch(qemu.pidfd, -1);
    for (bool there = false; !there;) {
        json status = qmp_call("query-status", NULL);
        there = strcmp(json_object_get_string(qmp_part(status, "status", json_type_string)), "inmigrate") != 0;
        json_object_put(status);
        if (!there)
            nanosleep(&(struct timespec){ .tv_nsec = PAUSE * 1000000 }, NULL);
    }
    qmp_watch(qemu.pidfd, START_LIMIT);
}

/* A thread of QEMU's, whatever it says. */
static pid_t thread_of(json processor)
{
    char path[64];
    int64_t thread = json_object_get_int64(qmp_part(processor, "thread-id", json_type_int));
    snprintf(path, sizeof path, "/proc/%d/task/%lld", qemu.pid, (long long)thread);
    if (thread <= 0 || access(path, F_OK) < 0)
        give_up("QEMU names a thread that it does not have");
    return thread;
}

/* The kernel leaves out silently what it does not have, as long as anything is left. */
static void pin(int64_t index, pid_t thread, json processors)
{
    static cpu_set_t wanted[MOST_PROCESSORS / CPU_SETSIZE], given[MOST_PROCESSORS / CPU_SETSIZE];
    CPU_ZERO_S(sizeof wanted, wanted);
    for (size_t i = 0; i < json_object_array_length(processors); i++) {
        json processor = json_object_array_get_idx(processors, i);
        int64_t which = json_object_get_int64(processor);
        if (!json_object_is_type(processor, json_type_int) || which < 0 || which >= MOST_PROCESSORS)
            give_up("vCPU %lld can't be pinned to what is no processor", (long long)index);
        CPU_SET_S(which, sizeof wanted, wanted);
    }
    CPU_ZERO_S(sizeof given, given);
    int failed = sched_setaffinity(thread, sizeof wanted, wanted);
    if ((failed && errno != EINVAL) || sched_getaffinity(thread, sizeof given, given) < 0)
        give_up("vCPU %lld can't be pinned: %m", (long long)index);
    if (failed || !CPU_EQUAL_S(sizeof wanted, wanted, given))
        give_up("vCPU %lld can't be pinned to processors %s: not all of them are there, or for it to use",
                (long long)index, json_object_to_json_string_ext(processors, JSON_C_TO_STRING_PLAIN));
}

static void place_processor(json processor, bool cookie, json pins)
{
    pid_t thread = thread_of(processor);
    int64_t index = json_object_get_int64(qmp_part(processor, "cpu-index", json_type_int));
    json processors = index < 0 ? NULL : json_object_array_get_idx(pins, index);
    if (cookie)
        must(core_cookie(CORE_COOKIE_SHARE_TO, thread, NULL), "core scheduling of vCPU %lld", (long long)index);
    if (json_object_is_type(processors, json_type_array) && json_object_array_length(processors))
        pin(index, thread, processors);
}

/* The cookie is ours first, and goes with us where it is not shared: QEMU's other threads have none. */
static void place_processors(json spec)
{
    bool cookie = truth(spec, "core_scheduling");
    if (cookie)
        must(core_cookie(CORE_COOKIE_CREATE, 0, NULL), "core scheduling");
    json processors = qmp_call("query-cpus-fast", NULL);
    if (!json_object_is_type(processors, json_type_array))
        give_up("QEMU names no processors");
    for (size_t i = 0; i < json_object_array_length(processors); i++)
        place_processor(json_object_array_get_idx(processors, i), cookie, member(spec, "pins", json_type_array));
    json_object_put(processors);
}

_Noreturn void start_machine(json spec, struct qemu executed, const struct sockets *sockets)
{
    qemu = executed;
    bool goes_on = executed.kept, arrives = truth(spec, "arrives");
    on_problem(end_machine);
    close_descriptors();
    qmp_watch(qemu.pidfd, START_LIMIT);
    await_exec();
    qmp_open(text(spec, "qmp"));
    json prepare = member(spec, "prepare", json_type_array);
    for (size_t i = 0; i < json_object_array_length(prepare); i++)
        json_object_put(qmp_run(json_object_array_get_idx(prepare, i)));
    if (*text(spec, "incoming"))
        await_incoming(text(spec, "incoming"));
    place_processors(spec);
    if (qemu.kept)
        drop_kept(spec);
    qemu.kept = false;
    if (!arrives)
        json_object_put(qmp_call("cont", NULL));
    tell_running(qemu.pid, sockets);
    if (arrives)
        _exit(0); /* the daemon has it run, and says so, when all of it is there */
    bool boots = truth(spec, "waits_for_guest") && !goes_on;
    must(notify(boots ? "STATUS=" : "STATUS=\nREADY=1"), "the service manager");
    _exit(0);
}
