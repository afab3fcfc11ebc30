/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the extension module and the attach program: clone3(2) as a fork, the capability bound, core
 * scheduling. */
#ifndef SYSCONT_CLONE_H
#define SYSCONT_CLONE_H

#include <errno.h>
#include <linux/capability.h>
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
 * Take from the bounding set what only the host's root can use. A user namespace makes these powerless anyway,
 * but guests look at them (ConditionCapability= of systemd's units) to learn what not to try; systemd-nspawn
 * and LXC leave them out too.
 */
static inline int bound_capabilities(void)
{
    static const int host_only[] = { CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_PACCT, CAP_SYS_TIME, CAP_MAC_OVERRIDE,
                                     CAP_MAC_ADMIN, CAP_SYSLOG, CAP_WAKE_ALARM, CAP_BLOCK_SUSPEND };
    for (size_t i = 0; i < sizeof host_only / sizeof *host_only; i++)
        if (prctl(PR_CAPBSET_DROP, host_only[i], 0, 0, 0) < 0)
            return -1;
    return 0;
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
