/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams. Each sender is a flow with a socket of its own, by which the target's answers find back. Senders'
 * addresses can be made up, in any number: flows are few, and when there is no room the one goes that has been silent
 * for longest, and of those first that the target has never answered.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include "forward.h"
#include "loop.h"

#define MAX_FLOWS 1024
#define BUCKETS 1024
#define UNANSWERED (30 * 1000)
#define ANSWERED (5 * 60 * 1000) /* RFC 4787, 4.3: five minutes or more */

/* Both ends of a flow on the side that listens: who sent, and which of our addresses was written to. */
struct ends {
    struct in6_addr from, to;
    uint32_t scope, interface; /* of an address that is only valid on a link */
    in_port_t port;
    sa_family_t family;
    uint16_t listener;
};

struct flow {
    struct aged aged;
    struct watch watch;
    struct flow *next; /* in the bucket */
    struct ends ends;
};

static void forget_flow(struct aged *aged);
static struct queue unanswered = { .limit = UNANSWERED, .expire = forget_flow };
static struct queue answered = { .limit = ANSWERED, .expire = forget_flow };

static const struct target *target;
static struct watch listeners[MAX_LISTENERS];
static struct flow *buckets[BUCKETS];
static uint64_t key;
static char datagram[65536];

union control {
    char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
    struct cmsghdr align;
};

static struct flow **bucket(const struct ends *ends)
{
    uint64_t sum = key;
    for (size_t i = 0; i < sizeof *ends; i++)
        sum = (sum ^ ((const unsigned char *)ends)[i]) * 0x100000001b3;
    return &buckets[(sum >> 32) % BUCKETS];
}

static void forget_flow(struct aged *aged)
{
    struct flow *flow = CONTAINER_OF(aged, struct flow, aged), **at = bucket(&flow->ends);
    while (*at != flow)
        at = &(*at)->next;
    *at = flow->next;
    queue_leave(aged);
    watch_close(&flow->watch);
    free(flow);
}

/* The address that was written to, which is the one to answer from: a host may have many. The kernel notes it as a
 * datagram comes, so that the socket has to be told before we are there: PassPacketInfo= of systemd.socket(5). */
static void read_local(struct msghdr *message, struct ends *ends)
{
    for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at; at = CMSG_NXTHDR(message, at)) {
        if (at->cmsg_level == IPPROTO_IP && at->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(at), sizeof info);
            memcpy(&ends->to, &info.ipi_spec_dst, sizeof info.ipi_spec_dst);
        } else if (at->cmsg_level == IPPROTO_IPV6 && at->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(at), sizeof info);
            ends->to = info.ipi6_addr;
            ends->interface = IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) ? info.ipi6_ifindex : 0;
        }
    }
}

static void read_sender(const union address *sender, struct ends *ends)
{
    ends->family = sender->any.sa_family;
    if (ends->family == AF_INET) {
        memcpy(&ends->from, &sender->v4.sin_addr, sizeof sender->v4.sin_addr);
        ends->port = sender->v4.sin_port;
    } else {
        ends->from = sender->v6.sin6_addr;
        ends->port = sender->v6.sin6_port;
        ends->scope = sender->v6.sin6_scope_id;
    }
}

static void write_local(const struct ends *ends, struct msghdr *message)
{
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    if (ends->family == AF_INET) {
        struct in_pktinfo info = { 0 };
        memcpy(&info.ipi_spec_dst, &ends->to, sizeof info.ipi_spec_dst);
        *header = (struct cmsghdr){ CMSG_LEN(sizeof info), IPPROTO_IP, IP_PKTINFO };
        memcpy(CMSG_DATA(header), &info, sizeof info);
        message->msg_controllen = CMSG_SPACE(sizeof info);
    } else {
        struct in6_pktinfo info = { .ipi6_addr = ends->to, .ipi6_ifindex = ends->interface };
        *header = (struct cmsghdr){ CMSG_LEN(sizeof info), IPPROTO_IPV6, IPV6_PKTINFO };
        memcpy(CMSG_DATA(header), &info, sizeof info);
        message->msg_controllen = CMSG_SPACE(sizeof info);
    }
}

static void answer(const struct ends *ends, size_t size)
{
    union address receiver = { 0 };
    union control control = { 0 };
    struct iovec iov = { datagram, size };
    struct msghdr message = { .msg_name = &receiver, .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                              .msg_controllen = sizeof control };
    receiver.any.sa_family = ends->family;
    if (ends->family == AF_INET) {
        memcpy(&receiver.v4.sin_addr, &ends->from, sizeof receiver.v4.sin_addr);
        receiver.v4.sin_port = ends->port;
        message.msg_namelen = sizeof receiver.v4;
    } else {
        receiver.v6.sin6_addr = ends->from;
        receiver.v6.sin6_port = ends->port;
        receiver.v6.sin6_scope_id = ends->scope;
        message.msg_namelen = sizeof receiver.v6;
    }
    write_local(ends, &message);
    (void)!sendmsg(listeners[ends->listener].fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The target has answered, or the kernel says that nobody is there: that says nothing to the sender. */
static void target_ready(struct watch *watch, uint32_t events)
{
    struct flow *flow = CONTAINER_OF(watch, struct flow, watch);
    (void)events;
    for (int i = 0; i < BATCH; i++) {
        ssize_t size = recv(watch->fd, datagram, sizeof datagram, MSG_DONTWAIT);
        if (size < 0)
            return;
        queue_enter(&answered, &flow->aged);
        answer(&flow->ends, size);
    }
}

static void make_room(void)
{
    if (unanswered.count + answered.count >= MAX_FLOWS)
        forget_flow(unanswered.oldest ? unanswered.oldest : answered.oldest);
}

/* NULL when the kernel gives no socket for it, or no memory: datagrams may get lost. */
static struct flow *make_flow(const struct ends *ends)
{
    bool waiting;
    make_room();
    struct flow *flow = calloc(1, sizeof *flow), **at = bucket(ends);
    if (!flow)
        return NULL;
    flow->ends = *ends;
    flow->watch = (struct watch){ .fd = target_connect(target, &waiting), .ready = target_ready };
    if (flow->watch.fd < 0 || !watch_for(&flow->watch, EPOLLIN)) {
        watch_close(&flow->watch);
        free(flow);
        return NULL;
    }
    flow->next = *at;
    *at = flow;
    queue_enter(&unanswered, &flow->aged);
    return flow;
}

static struct flow *find_flow(const struct ends *ends)
{
    for (struct flow *flow = *bucket(ends); flow; flow = flow->next)
        if (memcmp(&flow->ends, ends, sizeof *ends) == 0) {
            queue_enter(flow->aged.queue, &flow->aged);
            return flow;
        }
    return make_flow(ends);
}

static void pass_on(int fd, size_t size)
{
    /* An error of an earlier datagram, which its port refused, is told in place of sending this one. */
    if (send(fd, datagram, size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == ECONNREFUSED)
        (void)!send(fd, datagram, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void listener_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    for (int i = 0; i < BATCH; i++) {
        union address sender;
        union control control;
        struct iovec iov = { datagram, sizeof datagram };
        struct msghdr message = { .msg_name = &sender, .msg_namelen = sizeof sender, .msg_iov = &iov, .msg_iovlen = 1,
                                  .msg_control = &control, .msg_controllen = sizeof control };
        ssize_t size = recvmsg(watch->fd, &message, MSG_DONTWAIT);
        if (size < 0)
            return;
        struct ends ends;
        memset(&ends, 0, sizeof ends); /* what lies between the members is compared, too */
        ends.listener = watch - listeners;
        read_sender(&sender, &ends);
        read_local(&message, &ends);
        struct flow *flow = find_flow(&ends);
        if (flow)
            pass_on(flow->watch.fd, size);
    }
}

bool datagrams_begin(const int *fds, int count, const struct target *to)
{
    target = to;
    if (getrandom(&key, sizeof key, 0) != sizeof key)
        return false;
    queue_begin(&unanswered);
    queue_begin(&answered);
    for (int i = 0; i < count; i++) {
        listeners[i] = (struct watch){ .fd = fds[i], .ready = listener_ready };
        if (!watch_for(&listeners[i], EPOLLIN))
            return false;
    }
    return true;
}
