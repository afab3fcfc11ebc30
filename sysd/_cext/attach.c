/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach PIDFD CGROUP REPORT ENVIRONMENT FILTER USERNS TTY ROWS COLUMNS UID GID GROUPS CWD LEADER LIMITS
 *        [COMMAND...]
 *
 * Runs a command in the namespaces of an instance, in its own leaf of the instance's cgroup, with our stdio.
 * The daemon starts this instead of forking itself: a fork of a small program is cheap, and nothing of the
 * daemon's memory is ever in a process that a guest can see. Without a command, writes the guest's user database
 * to stdout: /etc/passwd, a NUL, /etc/group.
 *
 *   PIDFD   descriptor of the instance's PID 1
 *   CGROUP  descriptor of the cgroup's folder
 *   REPORT  socket that keeps messages apart: gets an errno, or from the command itself a 0, whose sender
 *           (SCM_CREDENTIALS) is the command
 *   ENVIRONMENT   descriptor of a file with the command's environment, each entry ended by a NUL. It must not
 *           be ours: LD_PRELOAD and its like would then act on the host, as root
 *   FILTER  descriptor of a file with the compiled filter of system calls, which may be empty
 *   USERNS  1 if the instance has a user namespace of its own, 0 if it is privileged
 *   TTY     -1, or a socket that gets the controlling side of a terminal made inside
 *   ROWS, COLUMNS   its size
 *   UID, GID, GROUPS (a comma-separated list, may be empty), CWD   as the guest counts them
 *   LEADER  the number of the instance's PID 1 here
 *   LIMITS  NUMBER:SOFT:HARD for each resource that has one (setrlimit(2)), with commas between
 *
 * Three processes, all children of our parent and in our process group, which the daemon reaps and kills as one:
 * ourselves, one that enters the cgroup and the namespaces, and the command. The guest may stop or kill the last
 * two at any instruction. The command leaves the group only after it has reported: so the daemon always knows a
 * process by its group or by its report.
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
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include "clone.h"
#include "confine.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
#define DEVPTS_MAGIC 0x1cd1
#define MAX_GROUPS 64
#define MAX_ID 65535 /* what a guest has; (uid_t)-1 would mean "leave it", that is the host's root */
#define MAX_SIDE 65535
#define MAX_DATABASE (1 << 20)
#define SOFT_DESCRIPTORS 1024 /* what systemd gives: select(2) breaks above */
#define MAX_LIMITS 16

struct limit {
    unsigned int resource;
    struct rlimit value;
};

struct request {
    int pidfd, cgroup, report, environment, filter, tty;
    unsigned int userns;
    void *program;
    size_t program_size;
    unsigned int rows, columns;
    uid_t uid;
    gid_t gid, groups[MAX_GROUPS];
    size_t group_count;
    const char *cwd;
    int leader;
    struct limit limits[MAX_LIMITS];
    size_t limit_count;
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

/* Message 0: we are the command. Fails when the daemon has given us up. */
static int report(const struct request *r, int failure)
{
    return send(r->report, &failure, sizeof failure, MSG_NOSIGNAL) == sizeof failure ? 0 : -1;
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
    if (report(r, 0) < 0)
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
    execvpe(r->argv[0], r->argv, environ);
    fail(errno == ENOENT ? 127 : 126, "cannot run the command");
}

/*
 * In the cgroup: enter the namespaces, then fork once more, for a pid namespace is entered by children only.
 * First of all we become the guest's root: all that is done or opened inside is then done with its rights, not with
 * those of the host's. A change of ids sets the dumpable flag anew, so that is cleared again.
 */
static void enter(const struct request *r)
{
    int namespaces = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP;
    pid_t command = -1;
    if (r->userns)
        namespaces |= CLONE_NEWUSER;
    if (prctl(PR_SET_DUMPABLE, 0) == 0 && setns(r->pidfd, namespaces) == 0 && become(0, 0, 0, NULL) == 0 &&
        prctl(PR_SET_DUMPABLE, 0) == 0)
        command = fork_raw(CLONE_PARENT, -1, 0);
    if (command == 0)
        run(r);
    if (command < 0)
        report(r, errno);
    _exit(0);
}

/* All of a file of the daemon's, with a NUL after it. */
static char *read_file(int fd, size_t *size)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return NULL;
    char *block = malloc(status.st_size + 1);
    if (!block || pread(fd, block, status.st_size, 0) != status.st_size)
        return NULL;
    block[status.st_size] = 0;
    *size = status.st_size;
    return block;
}

/* Take the command's environment for our own; what we run from here on is the command. */
static int read_environment(int fd)
{
    size_t size, count = 0;
    char *block = read_file(fd, &size);
    if (!block)
        return -1;
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

/* What the daemon has for itself and a command must not inherit. */
static void drop_privileges_of_daemon(void)
{
    struct rlimit limit;
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, "0", 1);
        close(fd);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > SOFT_DESCRIPTORS) {
        limit.rlim_cur = SOFT_DESCRIPTORS;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
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

/* Digits and nothing else: strtoul alone takes signs, blanks and whatever follows. */
static bool parse(const char *text, unsigned long most, unsigned int *number)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 9 || text[digits])
        return false;
    unsigned long value = strtoul(text, NULL, 10);
    *number = value;
    return value <= most;
}

static bool parse_fd(const char *text, int *fd)
{
    unsigned int number;
    if (!parse(text, INT_MAX, &number))
        return false;
    *fd = number;
    return true;
}

static bool parse_groups(char *text, struct request *r)
{
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ","))
        if (r->group_count == MAX_GROUPS || !parse(word, MAX_ID, &r->groups[r->group_count++]))
            return false;
    return true;
}

static bool parse_limit(const char *text, struct limit *limit)
{
    unsigned long long soft, hard;
    int end = 0;
    if (text[strspn(text, "0123456789:")] ||
        sscanf(text, "%2u:%20llu:%20llu%n", &limit->resource, &soft, &hard, &end) != 3 || text[end])
        return false;
    limit->value = (struct rlimit){ soft, hard };
    return true;
}

static bool parse_limits(char *text, struct request *r)
{
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ","))
        if (r->limit_count == MAX_LIMITS || !parse_limit(word, &r->limits[r->limit_count++]))
            return false;
    return true;
}

static bool parse_request(char **argv, struct request *r)
{
    r->tty = -1;
    r->cwd = argv[13];
    r->argv = argv + 16;
    return parse_fd(argv[1], &r->pidfd) && parse_fd(argv[2], &r->cgroup) && parse_fd(argv[3], &r->report) &&
           parse_fd(argv[4], &r->environment) && parse_fd(argv[5], &r->filter) && parse(argv[6], 1, &r->userns) &&
           (strcmp(argv[7], "-1") == 0 || parse_fd(argv[7], &r->tty)) && parse(argv[8], MAX_SIDE, &r->rows) &&
           parse(argv[9], MAX_SIDE, &r->columns) && parse(argv[10], MAX_ID, &r->uid) &&
           parse(argv[11], MAX_ID, &r->gid) && parse_groups(argv[12], r) && parse_fd(argv[14], &r->leader) &&
           parse_limits(argv[15], r);
}

int main(int argc, char **argv)
{
    struct request r = { 0 };
    if (argc < 16 || !parse_request(argv, &r))
        return 64;
    r.program = read_file(r.filter, &r.program_size);
    if (!r.program || read_environment(r.environment) < 0)
        return 74;
    drop_privileges_of_daemon();
    /* Cookie and limits pass to what we fork. Was the number another's by now, the leader's pidfd leads nowhere. */
    pid_t middle = -1;
    if (core_cookie(CORE_COOKIE_SHARE_FROM, r.leader, NULL) == 0 && take_limits(&r) == 0)
        middle = fork_raw(CLONE_PARENT, r.cgroup, 0);
    if (middle == 0)
        enter(&r);
    if (middle < 0)
        report(&r, errno);
    return 0;
}
