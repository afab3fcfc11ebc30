/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the last process before a guest's program takes from itself, for good. Shared by the launcher (for a
 * guest's PID 1) and the attach program (for executed commands), so that neither is a way around the other.
 */
#ifndef SYSCONT_CONFINE_H
#define SYSCONT_CONFINE_H

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CAP_PERFMON
#define CAP_PERFMON 38
#define CAP_BPF 39
#endif
#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif

static inline int drop_bounding(const int *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        /* A kernel that does not know one has nothing to lose by it. */
        if (prctl(PR_CAPBSET_DROP, list[i], 0, 0, 0) < 0 && errno != EINVAL)
            return -1;
    return 0;
}

/*
 * What is inheritable or ambient passes an exec by the bounding set (capabilities(7)): a host's service manager may
 * have such, as systemd-nspawn gives them to its payload.
 */
static inline int clear_inheritable(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct caps[2];
    if (syscall(SYS_capget, &header, caps) < 0)
        return -1;
    caps[0].inheritable = caps[1].inheritable = 0;
    return syscall(SYS_capset, &header, caps);
}

/*
 * Take from the bounding set what only the host's root can use. A user namespace makes these powerless anyway,
 * but guests look at them (ConditionCapability= of systemd's units) to learn what not to try; systemd-nspawn
 * and LXC leave them out too. Without a user namespace this is what keeps the kernel itself from a guest's root;
 * there, what acts on the whole kernel's programs, counters and processes goes as well.
 */
static inline int bound_capabilities(bool privileged)
{
    static const int host_only[] = { CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_PACCT, CAP_SYS_TIME, CAP_MAC_OVERRIDE,
                                     CAP_MAC_ADMIN, CAP_SYSLOG, CAP_WAKE_ALARM, CAP_BLOCK_SUSPEND, CAP_BPF,
                                     /* Auditing knows no containers: systemd.io CONTAINER_INTERFACE. */
                                     CAP_AUDIT_CONTROL, CAP_AUDIT_READ, CAP_AUDIT_WRITE };
    static const int kernel_wide[] = { CAP_PERFMON, CAP_CHECKPOINT_RESTORE };
    if (clear_inheritable() < 0 || drop_bounding(host_only, sizeof host_only / sizeof *host_only) < 0)
        return -1;
    return privileged ? drop_bounding(kernel_wide, sizeof kernel_wide / sizeof *kernel_wide) : 0;
}

/* A session keyring that nobody of the host has. Where keyrings are forbidden to us they are to the guest, too. */
static inline int leave_keyring(void)
{
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS && errno != EPERM)
        return -1;
    return 0;
}

/* Needs CAP_SYS_ADMIN, and not no_new_privs: sudo in the guest must go on to work. */
static inline int install_filter(const void *program, size_t size)
{
    struct sock_fprog filter = { .len = size / sizeof(struct sock_filter), .filter = (struct sock_filter *)program };
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
}

#endif
