/* SPDX-License-Identifier: Apache-2.0 */
/*
 * join A B: makes one connection of two. What comes from either of the descriptors goes to the other one, in the kernel
 * (splice(2)), until both have ended or failed. It ends with who started it, and keeps no capability.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 };

struct way {
    int from, to;
};

static ssize_t move(int from, int to, size_t most)
{
    ssize_t moved;
    while ((moved = splice(from, NULL, to, NULL, most, SPLICE_F_MOVE)) < 0 && errno == EINTR)
        ;
    return moved;
}

static void carry_all(const struct way *way, const int *between)
{
    for (;;) {
        ssize_t left = move(way->from, between[1], CHUNK);
        if (left <= 0)
            return;
        while (left > 0) {
            ssize_t moved = move(between[0], way->to, left);
            if (moved <= 0)
                return;
            left -= moved;
        }
    }
}

/* Who writes to what is no longer read is told so by the kernel. The other direction ends by itself, with all of it. */
static void *carry(void *argument)
{
    const struct way *way = argument;
    int between[2];
    if (pipe2(between, O_CLOEXEC) == 0) {
        (void)fcntl(between[1], F_SETPIPE_SZ, CHUNK); /* it is only slower */
        carry_all(way, between);
        close(between[0]);
        close(between[1]);
    }
    shutdown(way->to, SHUT_WR);
    shutdown(way->from, SHUT_RD);
    return NULL;
}

static bool keep_nothing(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { 0 };
    return signal(SIGPIPE, SIG_IGN) != SIG_ERR && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 &&
           prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_capset, &header, none) == 0;
}

static int descriptor(const char *text)
{
    char *end;
    long found = strtol(text, &end, 10);
    int flags = *end || found < 0 || found > INT_MAX ? -1 : fcntl((int)found, F_GETFL);
    return flags < 0 || fcntl((int)found, F_SETFL, flags & ~O_NONBLOCK) < 0 ? -1 : (int)found;
}

int main(int argc, char **argv)
{
    pthread_t other;
    int first = argc == 3 ? descriptor(argv[1]) : -1, second = argc == 3 ? descriptor(argv[2]) : -1;
    if (first < 0 || second < 0) {
        fprintf(stderr, "join: two descriptors are to be given, each of a connection\n");
        return 64;
    }
    if (!keep_nothing()) {
        perror("join: privileges");
        return 1;
    }
    struct way there = { first, second }, back = { second, first };
    if (pthread_create(&other, NULL, carry, &back) != 0) {
        perror("join: thread");
        return 1;
    }
    carry(&there);
    pthread_join(other, NULL);
    return 0;
}
