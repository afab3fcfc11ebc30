/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward [--idle=SECONDS] [--user=UID:GID] [--beneath=FOLDER] [--proxy-protocol] tcp|udp|unix ADDRESS
 *
 * Passes on what comes to the sockets of socket activation (sd_listen_fds(3)), datagrams or connections, to ADDRESS:
 * 192.0.2.1:80, [2001:db8::1]:80, a socket's path, or @ and an abstract name. It does what systemd-socket-proxyd(8)
 * does not: datagrams, headers of the PROXY protocol, descriptors in messages, sockets in a guest's own files.
 *
 *   --idle     ends when there has been no flow and no connection for so long (300); a next one starts it again
 *   --user     ids to become before anything is read from anyone
 *   --beneath  a folder, a guest's root, in which the path of a unix socket is looked up. The guest may have made links
 *              of whatever is on the way: none leads out
 *
 * No capability is kept. Ends with 64 for arguments that make no sense, and 1 for what the kernel refuses.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "forward.h"
#include "loop.h"

#define FIRST_FD 3 /* sd_listen_fds(3) */
#define MAX_IDLE 86400

struct options {
    unsigned long idle, uid, gid;
    bool become, proxy_protocol;
    const char *beneath;
};

static int connect_beneath(int fd, const struct target *target)
{
    struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
    struct sockaddr_un place = { .sun_family = AF_UNIX };
    int found = syscall(SYS_openat2, target->beneath, target->address.local.sun_path, &how, sizeof how);
    if (found < 0)
        return -1;
    snprintf(place.sun_path, sizeof place.sun_path, "/proc/self/fd/%d", found);
    int result = connect(fd, (struct sockaddr *)&place, sizeof place), error = errno;
    close(found);
    errno = error;
    return result;
}

int target_connect(const struct target *target, bool *waiting)
{
    int fd = socket(target->address.any.sa_family, target->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    int result = target->beneath < 0 ? connect(fd, &target->address.any, target->length) : connect_beneath(fd, target);
    *waiting = result < 0 && errno == EINPROGRESS;
    if (result < 0 && !*waiting) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Digits up to end, and nothing else. */
static bool parse(const char *text, char end, unsigned long most, unsigned long *number, const char **rest)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 10 || text[digits] != end)
        return false;
    *number = strtoul(text, NULL, 10);
    if (rest)
        *rest = text + digits + 1;
    return *number <= most;
}

static bool parse_ip(const char *text, union address *address, socklen_t *length)
{
    char host[INET6_ADDRSTRLEN];
    unsigned long port;
    bool v6 = text[0] == '[';
    const char *end = strrchr(text, ':');
    if (!end || !parse(end + 1, 0, 65535, &port, NULL) || (v6 && end[-1] != ']'))
        return false;
    size_t size = end - text - (v6 ? 2 : 0);
    if (size >= sizeof host)
        return false;
    memcpy(host, text + v6, size);
    host[size] = 0;
    address->any.sa_family = v6 ? AF_INET6 : AF_INET;
    *length = v6 ? sizeof address->v6 : sizeof address->v4;
    *(v6 ? &address->v6.sin6_port : &address->v4.sin_port) = htons(port);
    return inet_pton(address->any.sa_family, host, v6 ? (void *)&address->v6.sin6_addr : &address->v4.sin_addr) == 1;
}

static bool parse_path(const char *text, union address *address, socklen_t *length)
{
    size_t size = strlen(text);
    if (size < 2 || (text[0] != '/' && text[0] != '@') || size >= sizeof address->local.sun_path)
        return false;
    address->local.sun_family = AF_UNIX;
    memcpy(address->local.sun_path, text, size + 1);
    *length = offsetof(struct sockaddr_un, sun_path) + size + (text[0] == '/');
    if (text[0] == '@')
        address->local.sun_path[0] = 0;
    return true;
}

static bool parse_target(const char *kind, const char *text, struct target *target)
{
    target->type = strcmp(kind, "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM;
    if (strcmp(kind, "unix") == 0)
        return parse_path(text, &target->address, &target->length);
    if (strcmp(kind, "tcp") != 0 && strcmp(kind, "udp") != 0)
        return false;
    return parse_ip(text, &target->address, &target->length);
}

static bool parse_options(int argc, char **argv, struct options *options)
{
    static const struct option known[] = { { "idle", required_argument, NULL, 'i' },
                                           { "user", required_argument, NULL, 'u' },
                                           { "beneath", required_argument, NULL, 'b' },
                                           { "proxy-protocol", no_argument, NULL, 'p' },
                                           { 0 } };
    const char *rest;
    int found;
    while ((found = getopt_long(argc, argv, "", known, NULL)) >= 0) {
        if (found == 'i' && !parse(optarg, 0, MAX_IDLE, &options->idle, NULL))
            return false;
        if (found == 'u' && (!parse(optarg, ':', UINT_MAX - 1, &options->uid, &rest) ||
                             !parse(rest, 0, UINT_MAX - 1, &options->gid, NULL)))
            return false;
        if (found == '?')
            return false;
        options->become |= found == 'u';
        options->proxy_protocol |= found == 'p';
        options->beneath = found == 'b' ? optarg : options->beneath;
    }
    return argc - optind == 2;
}

/* How many sockets were passed to us; 0 if none, or not to us. */
static int passed_sockets(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    unsigned long number;
    if (!pid || !count || !parse(pid, 0, INT_MAX, &number, NULL) || (pid_t)number != getpid() ||
        !parse(count, 0, MAX_LISTENERS, &number, NULL))
        return 0;
    return number;
}

static bool drop_privileges(const struct options *options)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { 0 };
    if (options->become && (setgroups(0, NULL) < 0 || setresgid(options->gid, options->gid, options->gid) < 0 ||
                            setresuid(options->uid, options->uid, options->uid) < 0))
        return false;
    return syscall(SYS_capset, &header, none) == 0;
}

/* Sockets are of one type: systemd makes them for one place to go to. */
static bool take_sockets(const int *fds, int count, const struct target *target, bool proxy_protocol)
{
    int type;
    socklen_t size = sizeof type;
    for (int i = 0; i < count; i++)
        if (fcntl(fds[i], F_SETFL, O_NONBLOCK) < 0)
            return false;
    if (getsockopt(fds[0], SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return false;
    if (type == SOCK_STREAM)
        return streams_begin(fds, count, target, proxy_protocol);
    errno = EPROTOTYPE;
    return type == SOCK_DGRAM && target->type == SOCK_DGRAM && datagrams_begin(fds, count, target);
}

static int fail(const char *what)
{
    fprintf(stderr, "forward: %s: %m\n", what);
    return 1;
}

int main(int argc, char **argv)
{
    struct options options = { .idle = 300 };
    struct target target = { .beneath = -1 };
    int fds[MAX_LISTENERS], count = passed_sockets();
    if (count == 0 || !parse_options(argc, argv, &options) || !parse_target(argv[optind], argv[optind + 1], &target))
        return 64;
    for (int i = 0; i < count; i++)
        fds[i] = FIRST_FD + i;
    if (options.beneath && target.address.any.sa_family == AF_UNIX && target.address.local.sun_path[0]) {
        target.beneath = open(options.beneath, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (target.beneath < 0)
            return fail(options.beneath);
    }
    if (!drop_privileges(&options))
        return fail("privileges");
    if (!loop_begin() || !take_sockets(fds, count, &target, options.proxy_protocol))
        return fail("sockets");
    return loop_run((int64_t)options.idle * 1000) ? 0 : fail("epoll");
}
