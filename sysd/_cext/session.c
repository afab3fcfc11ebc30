/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session, the service syscont-ssh@: one ssh to a virtual machine, in a sandbox and as a user who is nobody.
 *
 * Without arguments: standard input is a connection of the daemon's. It begins with one message, a byte with these
 * descriptors:
 *
 *   stdin, stdout, stderr of the command; for a terminal three times its side that programs have
 *   a file with words, each ended by a NUL: TERMINAL COMMAND...
 *     TERMINAL  1 if the streams are a terminal that is to be the command's own, else 0
 *     COMMAND   and its arguments; %LOG% alone is a file for what it has to say of itself
 *
 * The answer is one message when the command has ended: its status, an int, 128 plus the number of a signal; then the
 * end of its log. A connection that is closed before ends the command.
 *
 * With an argument: what ssh calls to get a connection (ssh_config(5), ProxyUseFdpass). It is passed over standard
 * output. "vsock:CID:PORT" or the path of a socket.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PEER = 0, STREAMS = 0, WORDS = 3, PASSED = 4 };
#define MAX_LOG 4000
#define GRACE 2 /* seconds that a command has to end by itself */

struct log {
    size_t size;
    char text[MAX_LOG];
};

static int pass(int sock, int fd)
{
    char byte = 0, control[CMSG_SPACE(sizeof fd)] = { 0 };
    struct iovec iov = { &byte, 1 };
    struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                              .msg_controllen = sizeof control };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(sock, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

static int reach(const char *where)
{
    struct sockaddr_vm vm = { .svm_family = AF_VSOCK };
    struct sockaddr_un path = { .sun_family = AF_UNIX };
    int end = 0;
    if (sscanf(where, "vsock:%u:%u%n", &vm.svm_cid, &vm.svm_port, &end) == 2 && !where[end]) {
        int sock = socket(AF_VSOCK, SOCK_STREAM, 0);
        return sock >= 0 && connect(sock, (struct sockaddr *)&vm, sizeof vm) == 0 ? sock : -1;
    }
    if (strlen(where) >= sizeof path.sun_path)
        return -1;
    strcpy(path.sun_path, where);
    int sock = socket(AF_UNIX, SOCK_STREAM, 0);
    return sock >= 0 && connect(sock, (struct sockaddr *)&path, sizeof path) == 0 ? sock : -1;
}

/* The descriptors of the daemon's one message; 0 when there are as many as are to be. */
static int receive(int *passed)
{
    char byte, control[CMSG_SPACE(PASSED * sizeof *passed)];
    struct iovec iov = { &byte, 1 };
    struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                              .msg_controllen = sizeof control };
    if (recvmsg(PEER, &message, MSG_CMSG_CLOEXEC) != 1 || message.msg_flags & MSG_CTRUNC)
        return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(PASSED * sizeof *passed))
        return -1;
    memcpy(passed, CMSG_DATA(header), PASSED * sizeof *passed);
    return 0;
}

/* A file's words, and after them a NULL; none without both of the first. */
static char **read_words(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return NULL;
    char *block = calloc(1, status.st_size + 1), **words = calloc(status.st_size + 1, sizeof *words);
    if (!block || !words || pread(fd, block, status.st_size, 0) != status.st_size)
        return NULL;
    size_t count = 0;
    for (char *word = block; word < block + status.st_size; word += strlen(word) + 1)
        words[count++] = word;
    return count < 2 ? NULL : words;
}

/* Another process's name of a descriptor of ours: the command closes what it inherits. */
static void name_log(char **words, int fd)
{
    static char name[64];
    snprintf(name, sizeof name, "/proc/%d/fd/%d", getpid(), fd);
    for (; *words; words++)
        if (strcmp(*words, "%LOG%") == 0)
            *words = name;
}

static _Noreturn void become(const int *streams, char **words, int log)
{
    static char *environment[] = { "PATH=/usr/bin:/bin", "LANG=C.UTF-8", NULL };
    int lifted[3];
    sigset_t none;
    setsid();
    for (int i = 0; i < 3; i++)
        if ((lifted[i] = fcntl(streams[i], F_DUPFD_CLOEXEC, 3)) < 0)
            _exit(255);
    for (int i = 0; i < 3; i++)
        dup2(lifted[i], i);
    if (strcmp(words[0], "1") == 0)
        ioctl(0, TIOCSCTTY, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    execve(words[1], words + 1, environment);
    dprintf(log, "%s can't be run: %s\n", words[1], strerrordesc_np(errno));
    _exit(255);
}

/* Keep the end of what is said; whether there may be more. */
static int read_log(int fd, struct log *log)
{
    char chunk[MAX_LOG / 4];
    ssize_t got = read(fd, chunk, sizeof chunk);
    if (got <= 0)
        return 0;
    if (log->size + got > MAX_LOG) {
        log->size = MAX_LOG - got;
        memmove(log->text, log->text + got, log->size);
    }
    memcpy(log->text + log->size, chunk, got);
    log->size += got;
    return 1;
}

static void answer(int status, const struct log *log)
{
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    struct iovec parts[] = { { &code, sizeof code }, { (char *)log->text, log->size } };
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
    sendmsg(PEER, &message, MSG_NOSIGNAL);
}

static int watch(pid_t child, int children, int said)
{
    struct pollfd sources[] = { { PEER, POLLIN, 0 }, { children, POLLIN, 0 }, { said, POLLIN, 0 } };
    struct log log = { 0 };
    int status;
    while (poll(sources, 3, -1) >= 0) {
        if (sources[2].revents)
            read_log(said, &log);
        if (sources[0].revents) {
            kill(child, SIGTERM);
            struct timespec grace = { GRACE, 0 };
            sigset_t ended;
            sigemptyset(&ended);
            sigaddset(&ended, SIGCHLD);
            sigtimedwait(&ended, NULL, &grace);
            kill(child, SIGKILL);
            return 1;
        }
        if (sources[1].revents && waitpid(child, &status, WNOHANG) == child) {
            while (read_log(said, &log))
                ;
            answer(status, &log);
            return 0;
        }
    }
    return 1;
}

static int serve(void)
{
    int passed[PASSED], said[2];
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    signal(SIGPIPE, SIG_IGN);
    if (receive(passed) < 0 || sigprocmask(SIG_BLOCK, &blocked, NULL) < 0 ||
        pipe2(said, O_CLOEXEC | O_NONBLOCK) < 0)
        return 1;
    int children = signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK);
    char **words = read_words(passed[WORDS]);
    if (children < 0 || !words)
        return 1;
    name_log(words, said[1]);
    pid_t child = fork();
    if (child == 0)
        become(passed + STREAMS, words, said[1]);
    /* The streams end when the command's do. */
    for (int i = 0; i < PASSED; i++)
        close(passed[i]);
    return child < 0 ? 1 : watch(child, children, said[0]);
}

int main(int argc, char **argv)
{
    if (argc == 1)
        return serve();
    int sock = reach(argv[1]);
    if (sock < 0 || pass(1, sock) < 0) {
        fprintf(stderr, "%s\n", strerrordesc_np(errno));
        return 1;
    }
    return 0;
}
