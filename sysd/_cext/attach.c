/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach, the service syscont-exec: runs commands in the namespaces of instances, each in its instance's own leaf of
 * the cgroup tree. The daemon asks for them instead of starting them itself: what systemd takes from the daemon for
 * good (system calls, capabilities, new privileges) is then not missing in guests, a fork of a small program is
 * cheap, and nothing of the daemon's memory is ever in a process that a guest can see.
 *
 * The listening socket is descriptor 3 (sd_listen_fds(3)) and for root only. Each connection is one command. It begins
 * with one message, a byte with these descriptors:
 *
 *   stdin, stdout, stderr of the command
 *   a pidfd of the instance's PID 1
 *   the folder of the cgroup
 *   a file with words, each ended by a NUL:
 *       USERNS ROWS COLUMNS UID GID GROUPS CWD LEADER LIMITS PROFILE [COMMAND...]
 *     USERNS  1 if the instance has a user namespace of its own, 0 if it is privileged
 *     ROWS, COLUMNS   of the terminal
 *     UID, GID, GROUPS (with commas between, may be empty), CWD   as the guest counts them
 *     LEADER  the number of the instance's PID 1 here
 *     LIMITS  NUMBER:SOFT:HARD for each resource that has one (setrlimit(2)), with commas between
 *     PROFILE the AppArmor profile that the guest is in, or nothing
 *     COMMAND without one, the guest's user database goes to stdout: /etc/passwd, a NUL, /etc/group
 *   a file with the command's environment, each entry ended by a NUL
 *   a file with the compiled filter of system calls, which may be empty
 *   and, for a command that is to have a terminal of the guest's, a socket that gets its controlling side
 *
 * The answers are in enter.h: STARTED or FAILED, then ENDED. Closing the connection before STARTED kills what was
 * begun; later it only says that nobody waits for the end.
 *
 * Three processes: a watcher, outside; one that enters the cgroup and the namespaces; and the command, which is the
 * watcher's child and leaves its process group once it has told that it is there. The guest may stop or kill the last
 * two at any instruction. The watcher does not reap the command before the daemon has closed the connection, so
 * that its number is not another's while the daemon has use for it.
 */
#include "enter.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "clone.h"

enum { LISTENER = 3, PEER = 3, CHILDREN = 4, FIRST_PASSED = 5 };
enum { STREAMS = 0, PIDFD = 3, CGROUP, WORDS, ENVIRONMENT, FILTER, PASSED, TERMINAL = PASSED, MOST_PASSED };
enum { USERNS, ROWS, COLUMNS, UID, GID, GROUPS, CWD, LEADER, LIMITS, PROFILE, COMMAND };
#define PAUSE 10000 /* microseconds: out of memory or descriptors, which others may give back */

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

/* A file's words, and after them a NULL. */
static char **read_words(int fd, size_t *count)
{
    size_t size;
    char *block = read_file(fd, &size);
    if (!block)
        return NULL;
    *count = 0;
    for (size_t i = 0; i < size; i++)
        *count += block[i] == 0;
    char **words = calloc(*count + 1, sizeof *words);
    for (size_t i = 0; words && i < *count; i++, block += strlen(block) + 1)
        words[i] = block;
    return words;
}

/* Digits and nothing else: strtoul alone takes signs, blanks and whatever follows. */
static bool parse(const char *text, unsigned long most, unsigned int *number)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 10 || text[digits])
        return false;
    unsigned long value = strtoul(text, NULL, 10);
    *number = value;
    return value <= most;
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

static bool parse_words(char **words, size_t count, struct request *r)
{
    if (count < COMMAND)
        return false;
    r->cwd = words[CWD];
    r->profile = words[PROFILE];
    r->argv = words + COMMAND;
    unsigned int leader = 0;
    bool parsed = parse(words[USERNS], 1, &r->userns) && parse(words[ROWS], MAX_SIDE, &r->rows) &&
                  parse(words[COLUMNS], MAX_SIDE, &r->columns) && parse(words[UID], MAX_ID, &r->uid) &&
                  parse(words[GID], MAX_ID, &r->gid) && parse_groups(words[GROUPS], r) &&
                  parse(words[LEADER], INT_MAX, &leader) && parse_limits(words[LIMITS], r);
    r->leader = leader;
    return parsed;
}

/* The descriptors of the daemon's one message; how many. */
static size_t receive(int *passed)
{
    char byte, control[CMSG_SPACE(MOST_PASSED * sizeof(int))];
    struct iovec iov = { &byte, 1 };
    struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                              .msg_controllen = sizeof control };
    if (recvmsg(PEER, &message, MSG_CMSG_CLOEXEC) != 1 || message.msg_flags & MSG_CTRUNC)
        return 0;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return 0;
    memcpy(passed, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
    return (header->cmsg_len - CMSG_LEN(0)) / sizeof *passed;
}

static bool take_request(struct request *r)
{
    int passed[MOST_PASSED];
    size_t words, entries, count = receive(passed);
    if (count < PASSED)
        return false;
    memcpy(r->stdio, passed + STREAMS, sizeof r->stdio);
    r->pidfd = passed[PIDFD];
    r->cgroup = passed[CGROUP];
    r->tty = count > TERMINAL ? passed[TERMINAL] : -1;
    r->peer = PEER;
    char **said = read_words(passed[WORDS], &words);
    r->environment = read_words(passed[ENVIRONMENT], &entries);
    r->program = read_file(passed[FILTER], &r->program_size);
    return said && r->environment && r->program && parse_words(said, words, r);
}

/* A child has ended. When it is the command, say how; when there is none left, nothing began, and we end. */
static void look(pid_t middle)
{
    struct signalfd_siginfo ignored;
    siginfo_t ended = { 0 };
    while (read(CHILDREN, &ignored, sizeof ignored) > 0)
        ;
    waitpid(middle, NULL, WNOHANG);
    if (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) < 0)
        _exit(0);
    if (ended.si_pid && ended.si_pid != middle)
        tell(PEER, ENDED, ended.si_code == CLD_EXITED ? ended.si_status : 128 + ended.si_status);
}

/* One connection: see the command begin and end. A closed connection ends us, and with us what has not begun yet. */
static _Noreturn void watch(void)
{
    struct request r = { 0 };
    struct pollfd sources[] = { { PEER, POLLIN, 0 }, { CHILDREN, POLLIN, 0 } };
    pid_t middle = -1;
    if (!take_request(&r))
        errno = EBADMSG;
    else if ((middle = fork_raw(0, r.cgroup, SIGCHLD)) == 0)
        enter(&r);
    if (middle < 0) {
        tell(PEER, FAILED, errno);
        _exit(1);
    }
    /* The streams end when the command's do. */
    close_range(FIRST_PASSED, ~0U, 0);
    while (poll(sources, 2, -1) >= 0 && !sources[0].revents)
        if (sources[1].revents)
            look(middle);
    kill(0, SIGKILL);
    _exit(1);
}

/* In a process of its own: numbers and signals as watch() and what it starts have them. */
static _Noreturn void begin(int peer)
{
    sigset_t child;
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    if (setpgid(0, 0) < 0 || sigprocmask(SIG_BLOCK, &child, NULL) < 0 || dup3(peer, PEER, O_CLOEXEC) < 0 ||
        close_range(CHILDREN, ~0U, 0) < 0 || signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK) != CHILDREN)
        _exit(1);
    watch();
}

int main(void)
{
    const char *passed = getenv("LISTEN_FDS");
    if (!passed || strcmp(passed, "1") != 0) {
        fputs("attach: to be started by syscont-exec.socket\n", stderr);
        return 64;
    }
    signal(SIGCHLD, SIG_IGN); /* watchers have nothing to say to us */
    for (;;) {
        int peer = accept4(LISTENER, NULL, NULL, SOCK_CLOEXEC);
        pid_t watcher = peer < 0 ? -1 : fork();
        if (watcher == 0)
            begin(peer);
        if (watcher < 0)
            usleep(PAUSE);
        if (peer >= 0)
            close(peer);
    }
}
