/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls that Python has no door to. Thin: no policy, no allocation.
 *
 * sc_userns forks a process that may have threads, so what runs in its child is
 * async-signal-safe only.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/dqblk_xfs.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <linux/quota.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/netlink.h>
#include <unistd.h>
#include <grp.h>
#include "clone.h"
#include "native.h"

/* Kernel ABI numbers that are the same on every architecture (since 5.1). */
enum { NR_OPEN_TREE = 428, NR_MOVE_MOUNT, NR_FSOPEN, NR_FSCONFIG, NR_FSMOUNT,
       NR_OPENAT2 = 437, NR_MOUNT_SETATTR = 442, NR_QUOTACTL_FD };

struct mount_attributes { uint64_t set, clear, propagation, userns; };

int sc_open_tree(int dir, const char *path, unsigned int flags)
{
    return syscall(NR_OPEN_TREE, dir, path, flags);
}

int sc_move_mount(int from, int to_dir, const char *to)
{
    unsigned int flags = 0x4 /* MOVE_MOUNT_F_EMPTY_PATH */;
    if (!*to)
        flags |= 0x40; /* MOVE_MOUNT_T_EMPTY_PATH */
    return syscall(NR_MOVE_MOUNT, from, "", to_dir, to, flags);
}

int sc_idmap_mount(int tree, int userns, int recursive)
{
    struct mount_attributes a = { .set = 0x00100000 /* MOUNT_ATTR_IDMAP */, .userns = userns };
    unsigned int flags = AT_EMPTY_PATH | (recursive ? 0x8000 /* AT_RECURSIVE */ : 0);
    return syscall(NR_MOUNT_SETATTR, tree, "", flags, &a, sizeof a);
}

int sc_unmount(const char *path)
{
    return syscall(SYS_umount2, path, 2 /* MNT_DETACH */);
}

int sc_mount_attributes(int dir, const char *path, uint64_t set, uint64_t propagation, int recursive)
{
    struct mount_attributes a = { .set = set, .propagation = propagation };
    unsigned int flags = (*path ? 0 : AT_EMPTY_PATH) | (recursive ? 0x8000 /* AT_RECURSIVE */ : 0);
    return syscall(NR_MOUNT_SETATTR, dir, path, flags, &a, sizeof a);
}

/* A detached mount of a new file system. options: keys and values in turn, ended by NULL; "" for a flag. */
int sc_new_mount(const char *type, const char *const *options, unsigned int attributes)
{
    int mount = -1, failure, fs = syscall(NR_FSOPEN, type, 1 /* FSOPEN_CLOEXEC */);
    if (fs < 0)
        return -1;
    for (; *options; options += 2) {
        const char *value = *options[1] ? options[1] : NULL;
        if (syscall(NR_FSCONFIG, fs, value ? 1 /* FSCONFIG_SET_STRING */ : 0, options[0], value, 0) < 0)
            break;
    }
    if (!*options && syscall(NR_FSCONFIG, fs, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0) == 0)
        mount = syscall(NR_FSMOUNT, fs, 1 /* FSMOUNT_CLOEXEC */, attributes);
    failure = errno;
    close(fs);
    errno = failure;
    return mount;
}

int sc_openat2(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
    return syscall(NR_OPENAT2, dir, path, &how, sizeof how);
}

int sc_syncfs(int fd)
{
    return syncfs(fd);
}

int sc_unshare(int flags)
{
    return unshare(flags);
}

int sc_setns(int fd, int flags)
{
    return setns(fd, flags);
}

/* Make the working directory the root of this mount namespace and drop the old one, as pivot_root(2) NOTES shows. */
int sc_pivot_root(void)
{
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return -1;
    return syscall(SYS_umount2, ".", 2 /* MNT_DETACH */);
}

int sc_set_ids(unsigned int uid, unsigned int gid)
{
    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0)
        return -1;
    return setresuid(uid, uid, uid);
}

/* File system ids alone, keeping the capabilities that setfsuid(2) would take away. */
int sc_set_fs_ids(unsigned int uid, unsigned int gid)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct caps[2];
    if (syscall(SYS_capget, &header, caps) < 0)
        return -1;
    setfsgid(gid);
    setfsuid(uid);
    return syscall(SYS_capset, &header, caps);
}

static int write_map(pid_t pid, const char *which, const char *map)
{
    char path[64];
    ssize_t length = strlen(map);
    snprintf(path, sizeof path, "/proc/%d/%s", pid, which);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int ok = write(fd, map, length) == length ? 0 : -1, failure = errno;
    close(fd);
    errno = failure;
    return ok;
}

/* A user namespace of these maps, each a text as user_namespaces(7) has it, as a descriptor. */
int sc_userns(const char *uid_map, const char *gid_map)
{
    int gate[2], fd = -1, failure;
    char path[64], byte;
    if (pipe2(gate, O_CLOEXEC) < 0)
        return -1;
    pid_t pid = fork_raw(CLONE_NEWUSER, -1, SIGCHLD);
    if (pid == 0) {
        close(gate[1]);
        (void)!read(gate[0], &byte, 1);
        _exit(0);
    }
    failure = errno;
    if (pid > 0) {
        snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
        if (write_map(pid, "uid_map", uid_map) == 0 && write_map(pid, "gid_map", gid_map) == 0)
            fd = open(path, O_RDONLY | O_CLOEXEC);
        failure = errno;
    }
    close(gate[0]);
    close(gate[1]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    errno = failure;
    return fd;
}

int sc_core_cookie(int pid, uint64_t *cookie)
{
    *cookie = 0;
    return core_cookie(CORE_COOKIE_GET, pid, cookie);
}

/* The calling thread has the cookie afterwards, too. */
int sc_share_core_cookie(int source, int target)
{
    return core_cookie(CORE_COOKIE_SHARE_FROM, source, NULL) < 0 ? -1 : core_cookie(CORE_COOKIE_SHARE_TO, target, NULL);
}

/*
 * Have what another process maps leave memory, until it is touched again (process_madvise(2)). ranges: an address and a
 * size each. Pages that others map as well stay.
 */
int sc_page_out(int pidfd, const uint64_t *ranges, size_t count)
{
    enum { AT_ONCE = 256 };
    struct iovec batch[AT_ONCE];
    while (count > 0) {
        size_t taken = count < AT_ONCE ? count : AT_ONCE;
        for (size_t i = 0; i < taken; i++)
            batch[i] = (struct iovec){ (void *)(uintptr_t)ranges[2 * i], ranges[2 * i + 1] };
        if (syscall(SYS_process_madvise, pidfd, batch, taken, MADV_PAGEOUT, 0) < 0)
            return -1;
        ranges += 2 * taken;
        count -= taken;
    }
    return 0;
}

/* A netlink socket that lives in the network namespace of another process. Touches this thread only. */
int sc_netlink_in(int pidfd, int protocol, unsigned int groups)
{
    int here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), fd = -1, failure;
    if (here < 0)
        return -1;
    if (setns(pidfd, CLONE_NEWNET) == 0) {
        struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = groups };
        fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
        if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
            failure = errno;
            close(fd);
            fd = -1;
            errno = failure;
        }
        failure = errno;
        if (setns(here, CLONE_NEWNET) < 0)
            _exit(70); /* a daemon stuck in a guest's network must not go on */
        errno = failure;
    }
    failure = errno;
    close(here);
    errno = failure;
    return fd;
}

/* The project that a file is counted by (xfs_quota(8), "project"). */
int sc_get_project(int fd, uint32_t *project)
{
    struct fsxattr attributes;
    if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes) < 0)
        return -1;
    *project = attributes.fsx_projid;
    return 0;
}

/* Have a folder, and what is made in it from now on, counted by a project. */
int sc_set_project(int fd, uint32_t project)
{
    struct fsxattr attributes;
    if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes) < 0)
        return -1;
    attributes.fsx_projid = project;
    attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
    return ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
}

static int quotactl_fd(int fd, int command, uint32_t id, void *data)
{
    return syscall(NR_QUOTACTL_FD, fd, QCMD(command, PRJQUOTA), id, data);
}

/* Whether a file system counts projects and holds them to limits: 1 or 0. ext4 may count only. */
int sc_limits_projects(int fd)
{
    struct fs_quota_statv state = { .qs_version = FS_QSTATV_VERSION1 };
    if (quotactl_fd(fd, Q_XGETQSTATV, 0, &state) < 0)
        return -1;
    return (state.qs_flags & FS_QUOTA_PDQ_ENFD) != 0;
}

/* Bytes that a project takes, and the most it may, 0 for no limit. xfs says ENOENT for one that it does not know. */
int sc_project_quota(int fd, uint32_t project, uint64_t *used, uint64_t *limit)
{
    struct if_dqblk quota = { 0 };
    if (quotactl_fd(fd, Q_GETQUOTA, project, &quota) < 0 && errno != ENOENT)
        return -1;
    *used = quota.dqb_curspace;
    *limit = quota.dqb_bhardlimit << QIF_DQBLKSIZE_BITS;
    return 0;
}

int sc_limit_project(int fd, uint32_t project, uint64_t limit)
{
    struct if_dqblk quota = { .dqb_bhardlimit = limit >> QIF_DQBLKSIZE_BITS, .dqb_valid = QIF_BLIMITS };
    return quotactl_fd(fd, Q_SETQUOTA, project, &quota);
}
