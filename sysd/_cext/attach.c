/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach PIDFD CGROUP REPORT ENVIRONMENT TTY UID GID GROUPS CWD COMMAND...
 *
 * Runs a command in the namespaces of an instance, in its own leaf of the instance's cgroup, with our stdio. The daemon starts this instead of forking itself: a fork of a small program is
 * cheap, and nothing of the daemon's memory is ever in a process that a guest can see.
 *
 *   PIDFD   descriptor of the instance's PID 1
 *   CGROUP  descriptor of the cgroup's folder
 *   REPORT  socket: gets {our child's PID, the command's PID, errno}; both are children of our parent, to reap
 *   ENVIRONMENT   descriptor of a file with the command's environment, each entry ended by a NUL. It must not
 *           be ours: LD_PRELOAD and its like would then act on the host, as root
 *   TTY     -1, or a socket that gets the controlling side of a terminal made inside
 *   UID, GID, GROUPS (a comma-separated list, may be empty), CWD   as the guest counts them
 *
 * A command that can't be run ends with 126 or 127 and a line on its stderr.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include "clone.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
#define DEVPTS_MAGIC 0x1cd1
#define MAX_GROUPS 64

struct request {
    int pidfd, cgroup, report, environment, tty;
    uid_t uid;
    gid_t gid, groups[MAX_GROUPS];
    size_t group_count;
    const char *cwd;
    char **argv;
};

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
static int open_terminal(int sock, uid_t uid)
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

static void use_terminal(const struct request *r)
{
    int slave = open_terminal(r->tty, r->uid);
    if (slave < 0)
        fail(126, "no terminal in the instance");
    ioctl(slave, TIOCSCTTY, 0);
    for (int i = 0; i < 3; i++)
        dup2(slave, i);
}

/* In the guest's namespaces: become the command. */
static void run(const struct request *r)
{
    sigset_t none;
    setsid();
    if (r->tty >= 0)
        use_terminal(r);
    close_range(3, ~0U, 0);
    umask(022);
    if (bound_capabilities() < 0 || setgroups(r->group_count, r->groups) < 0 ||
        setresgid(r->gid, r->gid, r->gid) < 0 || setresuid(r->uid, r->uid, r->uid) < 0)
        fail(126, "cannot become the user");
    if (chdir(r->cwd) < 0 && chdir("/") < 0)
        fail(126, "no working directory");
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvpe(r->argv[0], r->argv, environ);
    fail(errno == ENOENT ? 127 : 126, "cannot run the command");
}

/* In the cgroup: enter the namespaces, then fork once more, for a pid namespace is entered by children only. */
static void enter(const struct request *r)
{
    int namespaces = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC |
                     CLONE_NEWCGROUP;
    pid_t command = -1;
    prctl(PR_SET_DUMPABLE, 0);
    if (setns(r->pidfd, namespaces) == 0)
        command = fork_raw(CLONE_PARENT, -1, 0);
    if (command == 0)
        run(r);
    int report[3] = { getpid(), command, command < 0 ? errno : 0 };
    (void)!write(r->report, report, sizeof report);
    _exit(0);
}

/* Take the command's environment for our own; what we run from here on is the command. */
static int read_environment(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -1;
    size_t size = status.st_size, count = 0;
    char *block = malloc(size + 1);
    if (!block || pread(fd, block, size, 0) != (ssize_t)size)
        return -1;
    block[size] = 0;
    for (size_t i = 0; i < size; i++)
        count += block[i] == 0;
    char **entries = calloc(count + 1, sizeof *entries);
    if (!entries)
        return -1;
    for (size_t i = 0; i < count; i++, block += strlen(block) + 1)
        entries[i] = block;
    environ = entries;
    return 0;
}

static size_t parse_groups(char *text, gid_t *groups)
{
    size_t count = 0;
    for (char *word = strtok(text, ","); word && count < MAX_GROUPS; word = strtok(NULL, ","))
        groups[count++] = strtoul(word, NULL, 10);
    return count;
}

int main(int argc, char **argv)
{
    if (argc < 11)
        return 64;
    struct request r = {
        .pidfd = atoi(argv[1]),
        .cgroup = atoi(argv[2]),
        .report = atoi(argv[3]),
        .environment = atoi(argv[4]),
        .tty = atoi(argv[5]),
        .uid = strtoul(argv[6], NULL, 10),
        .gid = strtoul(argv[7], NULL, 10),
        .cwd = argv[9],
        .argv = argv + 10,
    };
    r.group_count = parse_groups(argv[8], r.groups);
    if (read_environment(r.environment) < 0)
        return 74;
    pid_t middle = fork_raw(CLONE_PARENT, r.cgroup, 0);
    if (middle == 0)
        enter(&r);
    if (middle < 0) {
        int report[3] = { 0, -1, errno };
        (void)!write(r.report, report, sizeof report);
    }
    return 0;
}
