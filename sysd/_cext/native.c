/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls that Python has no door to. Thin: no policy, no allocation.
 *
 * sc_userns and sc_attach fork a process that may have threads (the daemon), so what
 * runs in their children is async-signal-safe only: system calls on memory laid out
 * before the fork.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <linux/netlink.h>
#include <unistd.h>
#include <grp.h>
#include "native.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
#define DEVPTS_MAGIC 0x1cd1

/* Kernel ABI numbers that are the same on every architecture (since 5.1). */
enum { NR_OPEN_TREE = 428, NR_MOVE_MOUNT, NR_FSOPEN, NR_FSCONFIG, NR_FSMOUNT,
       NR_CLONE3 = 435, NR_CLOSE_RANGE = 436, NR_OPENAT2 = 437, NR_MOUNT_SETATTR = 442 };

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

int sc_idmap_mount(int tree, int userns)
{
    struct mount_attributes a = { .set = 0x00100000 /* MOUNT_ATTR_IDMAP */, .userns = userns };
    return syscall(NR_MOUNT_SETATTR, tree, "", AT_EMPTY_PATH, &a, sizeof a);
}

int sc_mount_attributes(int dir, const char *path, uint64_t set, uint64_t propagation, int recursive)
{
    struct mount_attributes a = { .set = set, .propagation = propagation };
    unsigned int flags = (*path ? 0 : AT_EMPTY_PATH) | (recursive ? 0x8000 /* AT_RECURSIVE */ : 0);
    return syscall(NR_MOUNT_SETATTR, dir, path, flags, &a, sizeof a);
}

int sc_fsopen(const char *type)
{
    return syscall(NR_FSOPEN, type, 1 /* FSOPEN_CLOEXEC */);
}

/* key NULL: create the file system; value NULL: a flag. */
int sc_fsconfig(int fs, const char *key, const char *value)
{
    if (!key)
        return syscall(NR_FSCONFIG, fs, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0);
    return syscall(NR_FSCONFIG, fs, value ? 1 : 0, key, value, 0);
}

int sc_fsmount(int fs, unsigned int attributes)
{
    return syscall(NR_FSMOUNT, fs, 1 /* FSMOUNT_CLOEXEC */, attributes);
}

int sc_openat2(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
    return syscall(NR_OPENAT2, dir, path, &how, sizeof how);
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

static int write_map(pid_t pid, const char *which, unsigned int base, unsigned int count)
{
    char path[64], line[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, which);
    int length = snprintf(line, sizeof line, "0 %u %u", base, count);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int ok = write(fd, line, length) == length ? 0 : -1;
    close(fd);
    return ok;
}

static pid_t fork_raw(uint64_t flags, int cgroup, uint64_t exit_signal)
{
    struct clone_args args = { .flags = flags, .exit_signal = exit_signal };
    if (cgroup >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup;
    }
    return syscall(NR_CLONE3, &args, sizeof args);
}

/* A user namespace whose ids 0.. are base.. here, as a descriptor. */
int sc_userns(unsigned int base, unsigned int count)
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
        if (write_map(pid, "uid_map", base, count) == 0 && write_map(pid, "gid_map", base, count) == 0)
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

/* fork(2), but the child is a child of our own parent: born to the service manager, not to us. */
int sc_clone_sibling(void)
{
    /* With CLONE_PARENT the exit signal is the caller's own. */
    return fork_raw(CLONE_PARENT, -1, 0);
}

/*
 * Take from the bounding set what only the host's root can use. A user namespace makes these powerless anyway,
 * but guests look at them (ConditionCapability= of systemd's units) to learn what not to try; systemd-nspawn
 * and LXC leave them out too.
 */
int sc_bound_capabilities(void)
{
    static const int host_only[] = { CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_PACCT, CAP_SYS_TIME, CAP_MAC_OVERRIDE,
                                     CAP_MAC_ADMIN, CAP_SYSLOG, CAP_WAKE_ALARM, CAP_BLOCK_SUSPEND };
    for (size_t i = 0; i < sizeof host_only / sizeof *host_only; i++)
        if (prctl(PR_CAPBSET_DROP, host_only[i], 0, 0, 0) < 0)
            return -1;
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

static int send_fd(int sock, int fd)
{
    char byte = 't', control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = { &byte, 1 };
    struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                              .msg_controllen = sizeof control };
    memset(control, 0, sizeof control);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(sock, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

/* A terminal of the guest's own devpts. The guest may have put anything at the path: check what was opened. */
static int open_terminal(int sock, unsigned int uid)
{
    struct statfs fs;
    int unlocked = 0;
    int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (master < 0 || fstatfs(master, &fs) < 0)
        return -1;
    if (fs.f_type != DEVPTS_MAGIC) {
        errno = ENOTTY;
        return -1;
    }
    fcntl(master, F_SETFL, 0);
    if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        return -1;
    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
    if (slave < 0 || send_fd(sock, master) < 0)
        return -1;
    close(master);
    (void)!fchown(slave, uid, -1);
    return slave;
}

static void say(const char *a, const char *b, const char *c)
{
    (void)!write(2, a, strlen(a));
    (void)!write(2, b, strlen(b));
    (void)!write(2, c, strlen(c));
}

static int exec_in_path(const struct attach *a)
{
    char path[PATH_MAX];
    const char *search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *name = a->argv[0];
    int denied = 0;
    if (strchr(name, '/'))
        return execve(name, a->argv, a->envp);
    for (char **e = a->envp; *e; e++)
        if (!strncmp(*e, "PATH=", 5))
            search = *e + 5;
    while (*search) {
        size_t length = strcspn(search, ":");
        if (length && length + strlen(name) + 2 <= sizeof path) {
            memcpy(path, search, length);
            path[length] = '/';
            strcpy(path + length + 1, name);
            execve(path, a->argv, a->envp);
            if (errno == EACCES)
                denied = 1;
            else if (errno != ENOENT && errno != ENOTDIR)
                return -1;
        }
        search += length;
        search += *search == ':';
    }
    errno = denied ? EACCES : ENOENT;
    return -1;
}

static void reset_signals(void)
{
    sigset_t none;
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the guest's namespaces: become the command. */
static void run_command(const struct attach *a)
{
    int fds[3] = { a->stdio[0], a->stdio[1], a->stdio[2] };
    setsid();
    if (a->tty_socket >= 0) {
        int slave = open_terminal(a->tty_socket, a->uid);
        if (slave < 0)
            _exit(126);
        ioctl(slave, TIOCSCTTY, 0);
        fds[0] = fds[1] = fds[2] = slave;
    }
    /* Lift them above 2 first, so that none is overwritten before it is used. */
    for (int i = 0; i < 3; i++)
        fds[i] = fcntl(fds[i], F_DUPFD, 3);
    for (int i = 0; i < 3; i++)
        if (fds[i] < 0 || dup2(fds[i], i) < 0)
            _exit(126);
    syscall(NR_CLOSE_RANGE, 3, ~0U, 0);
    umask(022);
    if (sc_bound_capabilities() < 0 || setgroups(a->group_count, a->groups) < 0 || setresgid(a->gid, a->gid, a->gid) < 0 ||
        setresuid(a->uid, a->uid, a->uid) < 0) {
        say("syscont: cannot become the user: ", strerrordesc_np(errno), "\n");
        _exit(126);
    }
    if (chdir(a->cwd) < 0 && chdir("/") < 0)
        _exit(126);
    reset_signals();
    exec_in_path(a);
    int status = errno == ENOENT ? 127 : 126;
    say("syscont: cannot run the command: ", strerrordesc_np(errno), "\n");
    _exit(status);
}

/* Enter the namespaces, then fork once more: a pid namespace is entered by children only. */
static void enter(const struct attach *a, int report)
{
    pid_t pid = -1;
    prctl(PR_SET_DUMPABLE, 0);
    if (setns(a->pidfd, CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS |
                            CLONE_NEWIPC | CLONE_NEWCGROUP) == 0)
        pid = fork_raw(CLONE_PARENT, -1, 0);
    if (pid == 0)
        run_command(a);
    int answer[2] = { pid, pid < 0 ? errno : 0 };
    (void)!write(report, answer, sizeof answer);
    _exit(0);
}

/*
 * Run a command in the namespaces and cgroup of an instance. Returns its PID; it is the
 * caller's child. A command that can't be run ends with 126 or 127 and a line on its stderr.
 */
int sc_attach(const struct attach *a)
{
    int report[2], answer[2] = { -1, EIO };
    sigset_t all, before;
    if (pipe2(report, O_CLOEXEC) < 0)
        return -1;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t middle = fork_raw(0, a->cgroup_fd, SIGCHLD);
    if (middle == 0)
        enter(a, report[1]);
    int failure = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    if (middle > 0) {
        if (read(report[0], answer, sizeof answer) != sizeof answer)
            answer[1] = EIO;
        failure = answer[1];
        waitpid(middle, NULL, 0);
    }
    close(report[0]);
    errno = failure;
    return answer[0];
}
