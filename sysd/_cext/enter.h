/* SPDX-License-Identifier: Apache-2.0 */
/* A command that is to run in an instance. */
#ifndef SYSCONT_ENTER_H
#define SYSCONT_ENTER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>

#define MAX_GROUPS 64
/* The kernel knows which of these a guest has. One more, (uid_t)-1, would mean "leave it": the host's root. */
#define MAX_ID 4294967294UL
#define MAX_SIDE 65535
#define MAX_LIMITS 16
#define MAX_PROFILE 255

struct limit {
    unsigned int resource;
    struct rlimit value;
};

/* Descriptors, each -1 for none; then what attach.c says of the words in its file of the command. */
struct request {
    int stdio[3], pidfd, cgroup, tty, peer;
    void *program;
    size_t program_size;
    char **environment;
    unsigned int userns, rows, columns;
    uid_t uid;
    gid_t gid, groups[MAX_GROUPS];
    size_t group_count;
    const char *cwd;
    int leader;
    struct limit limits[MAX_LIMITS];
    size_t limit_count;
    const char *profile;
    char **argv;
};

/* What the daemon is told: the first by the command itself, so that the sender's number (SCM_CREDENTIALS) is its own. */
enum { STARTED, FAILED /* errno */, ENDED /* exit status, 128 plus the number of a signal */ };

struct message {
    int kind, value;
};

int tell(int peer, int kind, int value);

/* For the process in the instance's cgroup; makes the command, and leaves. */
_Noreturn void enter(const struct request *r);

#endif
