/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections. Each has two sides, and on each a chunk that was read there and is on its way to the other; no more is
 * read before it is written. Descriptors go along between two unix sockets.
 *
 * A target of datagrams gets each chunk as one and never ends; the connection stays a while when its client has ended.
 *
 * When all places are taken, a client that has never said anything makes room for the next; where none is like that,
 * the kernel's backlog holds who comes.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "forward.h"
#include "loop.h"

#define MAX_CONNECTIONS 512
#define CHUNK 65536
#define MAX_DATAGRAM 32768 /* made of a stream's bytes */
#define MAX_PASSED 253     /* descriptors in one message: unix(7) */
#define CONNECT (30 * 1000)
#define LINGER (30 * 1000)

struct side {
    struct connection *connection;
    struct side *other;
    struct watch watch;
    bool datagrams, passes;
    bool ended;     /* no more is to be read here */
    bool delivered; /* and the other side has been told */
    size_t start, end;
    int passed[MAX_PASSED];
    int passed_count;
    char chunk[CHUNK];
};

struct connection {
    struct aged aged;
    struct side client, target;
};

static void end_connection(struct aged *aged);
static struct queue connecting = { .limit = CONNECT, .expire = end_connection };
static struct queue silent = { .expire = end_connection }; /* the client has not said anything */
static struct queue talking = { .expire = end_connection };
static struct queue lingering = { .limit = LINGER, .expire = end_connection };

static const struct target *target;
static bool introduce;
static struct watch listeners[MAX_LISTENERS];
static int listener_count;

union control {
    char bytes[CMSG_SPACE(sizeof(int) * MAX_PASSED)];
    struct cmsghdr align;
};

static void watch_listeners(uint32_t events)
{
    for (int i = 0; i < listener_count; i++)
        watch_for(&listeners[i], events);
}

static void drop_passed(struct side *side)
{
    while (side->passed_count > 0)
        close(side->passed[--side->passed_count]);
}

static void end_connection(struct aged *aged)
{
    struct connection *one = CONTAINER_OF(aged, struct connection, aged);
    queue_leave(aged);
    drop_passed(&one->client);
    drop_passed(&one->target);
    watch_close(&one->client.watch);
    watch_close(&one->target.watch);
    free(one);
    watch_listeners(EPOLLIN);
}

static void take_passed(struct side *side, struct msghdr *message)
{
    for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at; at = CMSG_NXTHDR(message, at)) {
        if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS)
            continue;
        side->passed_count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(side->passed, CMSG_DATA(at), side->passed_count * sizeof(int));
    }
}

/* Read a chunk. False when the connection is over: by an error, or as descriptors got lost on the way. */
static bool fill(struct side *side)
{
    union control control;
    struct iovec iov = { side->chunk, side->other->datagrams ? MAX_DATAGRAM : CHUNK };
    struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
    if (side->passes) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
    }
    ssize_t size = recvmsg(side->watch.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0)
        return errno == EAGAIN || errno == EINTR;
    side->start = 0;
    side->end = size;
    side->ended = size == 0 && !side->datagrams;
    if (side->passes)
        take_passed(side, &message);
    return !side->passes || !(message.msg_flags & MSG_CTRUNC);
}

static void give_passed(const struct side *side, struct msghdr *message, union control *control)
{
    size_t size = side->passed_count * sizeof(int);
    message->msg_control = control;
    message->msg_controllen = CMSG_SPACE(size);
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    *header = (struct cmsghdr){ CMSG_LEN(size), SOL_SOCKET, SCM_RIGHTS };
    memcpy(CMSG_DATA(header), side->passed, size);
}

/* Write what was read on a side to the other one, as far as that takes it. False when the connection is over. */
static bool drain(struct side *side)
{
    while (side->start < side->end) {
        union control control = { 0 };
        struct iovec iov = { side->chunk + side->start, side->end - side->start };
        struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
        if (side->passed_count > 0)
            give_passed(side, &message, &control);
        ssize_t size = sendmsg(side->other->watch.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (size < 0)
            return errno == EAGAIN || errno == EINTR;
        drop_passed(side);
        side->start += size;
    }
    if (side->ended && !side->delivered) {
        side->delivered = true;
        if (side->other->datagrams)
            queue_enter(&lingering, &side->connection->aged);
        else
            shutdown(side->other->watch.fd, SHUT_WR);
    }
    return true;
}

static bool watch_side(struct side *side)
{
    uint32_t events = 0;
    if (!side->ended && side->start == side->end)
        events |= EPOLLIN;
    if (side->other->start < side->other->end)
        events |= EPOLLOUT;
    return watch_for(&side->watch, events);
}

/* Write what there is to write; then wait for what there is to wait for, or end. */
static void move(struct connection *one)
{
    if (!drain(&one->client) || !drain(&one->target) || (one->client.delivered && one->target.delivered) ||
        !watch_side(&one->client) || !watch_side(&one->target))
        end_connection(&one->aged);
}

static void side_ready(struct watch *watch, uint32_t events)
{
    struct side *side = CONTAINER_OF(watch, struct side, watch);
    struct connection *one = side->connection;
    (void)events;
    if (!side->ended && side->start == side->end) {
        if (!fill(side)) {
            end_connection(&one->aged);
            return;
        }
        if (side == &one->client && one->aged.queue == &silent && side->end > 0)
            queue_enter(&talking, &one->aged);
    }
    move(one);
}

static void target_connected(struct watch *watch, uint32_t events)
{
    struct connection *one = CONTAINER_OF(watch, struct side, watch)->connection;
    int error = 0;
    socklen_t size = sizeof error;
    (void)events;
    if (getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error) {
        end_connection(&one->aged);
        return;
    }
    watch->ready = side_ready;
    queue_enter(&silent, &one->aged);
    move(one);
}

/* An IPv4 address is one also where it came to a socket of IPv6. */
static const char *name_of(const union address *address, bool *v4, in_port_t *port, char text[INET6_ADDRSTRLEN])
{
    *v4 = address->any.sa_family == AF_INET;
    *port = ntohs(*v4 ? address->v4.sin_port : address->v6.sin6_port);
    if (*v4)
        return inet_ntop(AF_INET, &address->v4.sin_addr, text, INET6_ADDRSTRLEN);
    *v4 = IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr);
    if (*v4)
        return inet_ntop(AF_INET, &address->v6.sin6_addr.s6_addr[12], text, INET6_ADDRSTRLEN);
    return inet_ntop(AF_INET6, &address->v6.sin6_addr, text, INET6_ADDRSTRLEN);
}

/* The header of version 1, the readable one, which is LXD's: haproxy.org/download/1.8/doc/proxy-protocol.txt */
static bool write_header(struct side *client)
{
    union address from = { 0 }, to = { 0 };
    socklen_t from_size = sizeof from, to_size = sizeof to;
    char from_text[INET6_ADDRSTRLEN], to_text[INET6_ADDRSTRLEN];
    in_port_t from_port, to_port;
    bool v4, to_v4;
    if (getpeername(client->watch.fd, &from.any, &from_size) < 0 || getsockname(client->watch.fd, &to.any, &to_size) < 0)
        return false;
    if (to.any.sa_family == AF_UNIX) {
        client->end = snprintf(client->chunk, CHUNK, "PROXY UNKNOWN\r\n");
        return true;
    }
    if (!name_of(&from, &v4, &from_port, from_text) || !name_of(&to, &to_v4, &to_port, to_text))
        return false;
    client->end = snprintf(client->chunk, CHUNK, "PROXY %s %s %s %u %u\r\n", v4 ? "TCP4" : "TCP6", from_text, to_text,
                           from_port, to_port);
    return true;
}

static int domain_of(int fd)
{
    int domain = -1;
    socklen_t size = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 ? -1 : domain;
}

static void set_options(int fd)
{
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on); /* a peer that is gone for good is noticed some day */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void begin_side(struct connection *one, struct side *side, struct side *other, int fd)
{
    side->connection = one;
    side->other = other;
    side->watch = (struct watch){ .fd = fd, .ready = side_ready };
    if (domain_of(fd) != AF_UNIX)
        set_options(fd);
}

static void begin_connection(int fd)
{
    bool waiting = false;
    struct connection *one = calloc(1, sizeof *one);
    if (!one) {
        close(fd);
        return;
    }
    begin_side(one, &one->client, &one->target, fd);
    begin_side(one, &one->target, &one->client, target_connect(target, &waiting));
    one->target.datagrams = target->type == SOCK_DGRAM;
    one->client.passes = one->target.passes = domain_of(fd) == AF_UNIX && target->address.any.sa_family == AF_UNIX;
    if (one->target.watch.fd < 0 || (introduce && !write_header(&one->client))) {
        end_connection(&one->aged);
        return;
    }
    if (!waiting) {
        queue_enter(&silent, &one->aged);
        move(one);
        return;
    }
    queue_enter(&connecting, &one->aged);
    one->target.watch.ready = target_connected;
    if (!watch_for(&one->target.watch, EPOLLOUT))
        end_connection(&one->aged);
}

static bool has_room(void)
{
    if (connecting.count + silent.count + talking.count + lingering.count < MAX_CONNECTIONS)
        return true;
    if (!silent.oldest)
        return false;
    end_connection(silent.oldest);
    return true;
}

/* Who comes next, or -1 and errno, which is EMFILE also when all places are taken. */
static int take_next(int listener)
{
    if (has_room())
        return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    errno = EMFILE;
    return -1;
}

static void listener_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    for (int i = 0; i < BATCH; i++) {
        int fd = take_next(watch->fd);
        if (fd >= 0) {
            begin_connection(fd);
        } else if (errno != ECONNABORTED && errno != EINTR) {
            if (errno != EAGAIN)
                watch_listeners(0); /* until some connection ends */
            return;
        }
    }
}

bool streams_begin(const int *fds, int count, const struct target *to, bool proxy_protocol)
{
    struct queue *all[] = { &connecting, &silent, &talking, &lingering };
    target = to;
    introduce = proxy_protocol;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        queue_begin(all[i]);
    for (listener_count = 0; listener_count < count; listener_count++) {
        struct watch *watch = &listeners[listener_count];
        *watch = (struct watch){ .fd = fds[listener_count], .ready = listener_ready };
        if (!watch_for(watch, EPOLLIN))
            return false;
    }
    return true;
}
