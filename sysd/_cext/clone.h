/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the extension module, the launcher and the attach program: clone3(2) as a fork, core scheduling. */
#ifndef SYSCONT_CLONE_H
#define SYSCONT_CLONE_H

#include <errno.h>
#include <linux/sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif

#ifndef PR_SCHED_CORE
#define PR_SCHED_CORE 62
#endif
enum { CORE_COOKIE_GET, CORE_COOKIE_CREATE, CORE_COOKIE_SHARE_TO, CORE_COOKIE_SHARE_FROM };

static inline pid_t fork_raw(uint64_t flags, int cgroup, uint64_t exit_signal)
{
    struct clone_args args = { .flags = flags, .exit_signal = exit_signal };
    if (cgroup >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup;
    }
    return syscall(SYS_clone3, &args, sizeof args);
}

/*
 * Core scheduling (prctl(2), core-scheduling.rst): tasks with different cookies never run on one core at once.
 * Process 0 is ourselves. A kernel or a machine without it has no cookies to make, to share or to tell: 0 then.
 */
static inline int core_cookie(int operation, pid_t pid, uint64_t *cookie)
{
    if (prctl(PR_SCHED_CORE, operation, pid, 0 /* this thread */, (unsigned long)cookie) == 0)
        return 0;
    return errno == EINVAL || errno == ENODEV ? 0 : -1;
}

#endif
