/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SYSCONT_FORWARD_H
#define SYSCONT_FORWARD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MAX_LISTENERS 64
#define BATCH 64 /* datagrams or connections that one socket is served with in a row */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

/* Where everything goes to. beneath, if not -1, is the folder in which a socket's path is looked up. */
struct target {
    union address address;
    socklen_t length;
    int type; /* SOCK_STREAM or SOCK_DGRAM */
    int beneath;
};

/* A socket that does not block, and is connected or, if *waiting is then set, soon is. -1 and errno. */
int target_connect(const struct target *target, bool *waiting);

/* Take over some sockets that listen. A header of the PROXY protocol goes before each connection's own bytes. */
bool streams_begin(const int *fds, int count, const struct target *target, bool proxy_protocol);
bool datagrams_begin(const int *fds, int count, const struct target *target);

#endif
