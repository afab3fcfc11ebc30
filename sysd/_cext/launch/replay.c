/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request is the message in hex. "-" before it lets it fail, as in systemd's ExecStart=. "@LINK:OFFSET:" before it
 * says that the index of a link, not known before it was made, belongs at a byte of the message; the socket is then of
 * the network namespace that we are in.
 */
#include "launch.h"
#include <linux/netlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int open_netlink(void)
{
    return must(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), "netlink");
}

/* The link whose index the message needs, and where in it; returns the message itself. */
static const char *look_up(const char *request, char *link, size_t *offset)
{
    int begin = 0;
    if (sscanf(request, "@%15[^:]:%zu:%n", link, offset, &begin) != 2 || !begin)
        give_up("network set-up: a request that is none");
    return request + begin;
}

/* The error number of the answer; without one in it, also in an acknowledgement, 0. */
static int send_one(int netlink, const char *request)
{
    static char answer[1 << 16];
    char link[IFNAMSIZ] = "";
    size_t size, offset = 0;
    unsigned char *message = from_hex(*request == '@' ? look_up(request, link, &offset) : request, &size);
    uint32_t index = *link ? if_nametoindex(link) : 0;
    if (*link && (size < sizeof index || offset > size - sizeof index))
        give_up("network set-up: a request that is none");
    if (*link && !index)
        return errno;
    if (*link)
        memcpy(message + offset, &index, sizeof index);
    ssize_t sent = send(netlink, message, size, 0), got = sent < 0 ? sent : recv(netlink, answer, sizeof answer, 0);
    free(message);
    if (got < 0)
        return errno;
    struct nlmsghdr *header = (struct nlmsghdr *)answer;
    if ((size_t)got < NLMSG_LENGTH(sizeof(struct nlmsgerr)) || header->nlmsg_type != NLMSG_ERROR)
        return 0;
    return -((struct nlmsgerr *)NLMSG_DATA(header))->error;
}

int attempt(int netlink, const char *request)
{
    bool may_fail = *request == '-';
    int error = send_one(netlink, request + may_fail);
    return may_fail ? 0 : error;
}

void replay(int netlink, const char *request)
{
    errno = attempt(netlink, request);
    if (errno)
        give_up("network set-up: %m");
}

void replay_all(int netlink, json requests)
{
    for (size_t i = 0; i < json_object_array_length(requests); i++)
        replay(netlink, text_at(requests, i));
}
