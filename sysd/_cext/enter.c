/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the host into an instance, and what a process becomes there: the two processes of attach.c that the guest may
 * stop or kill at any instruction.
 *
 * A command that can't be run ends with 126 or 127 and a line on its stderr.
 */
#include "enter.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include "clone.h"
#include "confine.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
#define DEVPTS_MAGIC 0x1cd1
#define MAX_DATABASE (1 << 20)

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
static int open_terminal(const struct request *r)
{
    struct statfs fs;
    struct winsize size = { .ws_row = r->rows, .ws_col = r->columns };
    int unlocked = 0;
    int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (master < 0 || fstatfs(master, &fs) < 0)
        return -1;
    if (fs.f_type != DEVPTS_MAGIC) {
        errno = ENOTTY;
        return -1;
    }
    fcntl(master, F_SETFL, 0);
    if (ioctl(master, TIOCSPTLCK, &unlocked) < 0 || ioctl(master, TIOCSWINSZ, &size) < 0)
        return -1;
    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
    if (slave < 0 || send_fd(r->tty, master) < 0)
        return -1;
    close(master);
    (void)!fchown(slave, r->uid, -1);
    return slave;
}

static void fail(int status, const char *what)
{
    const char *why = strerrordesc_np(errno);
    (void)!write(2, "syscont: ", 9);
    (void)!write(2, what, strlen(what));
    (void)!write(2, ": ", 2);
    (void)!write(2, why ? why : "unknown error", strlen(why ? why : "unknown error"));
    (void)!write(2, "\n", 1);
    _exit(status);
}

/* Fails when the daemon has given us up. */
int tell(int peer, int kind, int value)
{
    struct message message = { kind, value };
    return send(peer, &message, sizeof message, MSG_NOSIGNAL) == sizeof message ? 0 : -1;
}

/* Be this user of the guest's and no one else; what came of it is looked at, not believed. */
static int become(uid_t uid, gid_t gid, size_t count, const gid_t *groups)
{
    uid_t uids[3];
    gid_t gids[3];
    if (setgroups(count, groups) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0 ||
        getresuid(&uids[0], &uids[1], &uids[2]) < 0 || getresgid(&gids[0], &gids[1], &gids[2]) < 0)
        return -1;
    for (int i = 0; i < 3; i++)
        if (uids[i] != uid || gids[i] != gid) {
            errno = EPERM;
            return -1;
        }
    return 0;
}

/* A file of the guest's, which may be anything, to stdout. */
static void copy_out(const char *path)
{
    char buffer[1 << 14];
    struct stat status;
    size_t left = MAX_DATABASE;
    ssize_t got;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        while (left && (got = read(fd, buffer, left < sizeof buffer ? left : sizeof buffer)) > 0) {
            if (write(1, buffer, got) != got)
                _exit(74);
            left -= got;
        }
    close(fd);
}

static void show_users(void)
{
    copy_out("/etc/passwd");
    if (write(1, "", 1) != 1)
        _exit(74);
    copy_out("/etc/group");
    _exit(0);
}

static void use_terminal(const struct request *r)
{
    int slave = open_terminal(r);
    if (slave < 0)
        fail(126, "no terminal in the instance");
    ioctl(slave, TIOCSCTTY, 0);
    for (int i = 0; i < 3; i++)
        dup2(slave, i);
}

/*
 * The last step before the command's own program, so that the filter need allow no call of ours but execve(2). It
 * takes a capability that a user other than root has only been left by PR_SET_KEEPCAPS; the exec takes all of them.
 */
static int confine(const struct request *r)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct caps[2];
    if (!r->program_size)
        return 0;
    if (syscall(SYS_capget, &header, caps) < 0)
        return -1;
    caps[0].effective |= 1U << CAP_SYS_ADMIN;
    if (syscall(SYS_capset, &header, caps) < 0)
        return -1;
    return install_filter(r->program, r->program_size);
}

/* In the guest's namespaces: become the command. */
static void run(const struct request *r)
{
    sigset_t none;
    if (tell(r->peer, STARTED, 0) < 0)
        _exit(125);
    setsid();
    if (r->tty >= 0)
        use_terminal(r);
    close_range(3, ~0U, 0);
    umask(022);
    if (!r->argv[0])
        show_users();
    if (leave_keyring() < 0)
        fail(126, "no session keyring");
    if (bound_capabilities(!r->userns) < 0 || prctl(PR_SET_KEEPCAPS, 1) < 0 ||
        become(r->uid, r->gid, r->group_count, r->groups) < 0)
        fail(126, "cannot become the user");
    if (chdir(r->cwd) < 0 && chdir("/") < 0)
        fail(126, "no working directory");
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (confine(r) < 0)
        fail(126, "no filter of system calls");
    environ = r->environment;
    execvpe(r->argv[0], r->argv, environ);
    fail(errno == ENOENT ? 127 : 126, "cannot run the command");
}

/* Where we may not raise a limit, the nearest to it, as systemd does for the instance's own processes. */
static int take_limits(const struct request *r)
{
    struct rlimit now;
    for (size_t i = 0; i < r->limit_count; i++) {
        struct rlimit wanted = r->limits[i].value;
        if (setrlimit(r->limits[i].resource, &wanted) == 0)
            continue;
        if (errno != EPERM || getrlimit(r->limits[i].resource, &now) < 0)
            return -1;
        wanted.rlim_max = wanted.rlim_max < now.rlim_max ? wanted.rlim_max : now.rlim_max;
        wanted.rlim_cur = wanted.rlim_cur < wanted.rlim_max ? wanted.rlim_cur : wanted.rlim_max;
        if (setrlimit(r->limits[i].resource, &wanted) < 0)
            return -1;
    }
    return 0;
}

/* Our streams become the command's. Through numbers beyond theirs, so that none is overwritten before it is used. */
static int take_streams(const struct request *r)
{
    int lifted[3];
    for (int i = 0; i < 3; i++)
        if ((lifted[i] = fcntl(r->stdio[i], F_DUPFD_CLOEXEC, 3)) < 0)
            return -1;
    for (int i = 0; i < 3; i++)
        if (dup2(lifted[i], i) < 0)
            return -1;
    return 0;
}

/*
 * Where AppArmor is told who we are to be. Opened with the host's /proc in view: what the guest has there may be a file
 * of its own. Only the process that has opened it can use it (proc_pid_attr_write in the kernel's fs/proc/base.c).
 */
static int open_profile(const struct request *r)
{
    return *r->profile ? open("/proc/thread-self/attr/apparmor/current", O_WRONLY | O_CLOEXEC) : -1;
}

static int take_profile(const struct request *r, int door)
{
    char words[MAX_PROFILE + sizeof "changeprofile "];
    if (!*r->profile)
        return 0;
    int length = snprintf(words, sizeof words, "changeprofile %s", r->profile);
    return length < (int)sizeof words && write(door, words, length) == length ? 0 : -1;
}

/*
 * In the cgroup: enter the namespaces, then fork once more, for a pid namespace is entered by children only. Streams,
 * cookie and limits pass to what we fork. Was the leader's number another's by now, its pidfd leads nowhere.
 *
 * First of all inside we become the guest's root: all that is done or opened there is then done with its rights, not
 * with those of the host's. A change of ids sets the dumpable flag anew, so that is cleared again.
 */
void enter(const struct request *r)
{
    int namespaces = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP;
    pid_t command = -1;
    int door = open_profile(r);
    if (r->userns)
        namespaces |= CLONE_NEWUSER;
    if (prctl(PR_SET_DUMPABLE, 0) == 0 && take_streams(r) == 0 &&
        core_cookie(CORE_COOKIE_SHARE_FROM, r->leader, NULL) == 0 && take_limits(r) == 0 &&
        setns(r->pidfd, namespaces) == 0 && become(0, 0, 0, NULL) == 0 && prctl(PR_SET_DUMPABLE, 0) == 0 &&
        take_profile(r, door) == 0)
        command = fork_raw(CLONE_PARENT, -1, 0);
    if (command == 0)
        run(r);
    if (command < 0)
        tell(r->peer, FAILED, errno);
    _exit(0);
}
