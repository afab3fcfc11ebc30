/* SPDX-License-Identifier: Apache-2.0 */
#include "loop.h"

#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

static int epoll_fd = -1;
static int64_t now;
static int64_t last_busy;
static struct queue *queues;

bool watch_for(struct watch *watch, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = watch };
    int change = events == 0 ? EPOLL_CTL_DEL : watch->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (events == watch->events)
        return true;
    watch->events = events;
    return epoll_ctl(epoll_fd, change, watch->fd, &event) == 0;
}

void watch_close(struct watch *watch)
{
    if (watch->fd < 0)
        return;
    /* A copy of the descriptor may be on its way in a message, so that to close this one would not end the watch. */
    watch_for(watch, 0);
    close(watch->fd);
    watch->fd = -1;
}

void queue_begin(struct queue *queue)
{
    queue->next = queues;
    queues = queue;
}

void queue_leave(struct aged *aged)
{
    struct queue *queue = aged->queue;
    if (!queue)
        return;
    *(aged->older ? &aged->older->newer : &queue->oldest) = aged->newer;
    *(aged->newer ? &aged->newer->older : &queue->newest) = aged->older;
    queue->count--;
    aged->queue = NULL;
    last_busy = now;
}

void queue_enter(struct queue *queue, struct aged *aged)
{
    queue_leave(aged);
    *aged = (struct aged){ .older = queue->newest, .queue = queue, .since = now };
    *(queue->newest ? &queue->newest->newer : &queue->oldest) = aged;
    queue->newest = aged;
    queue->count++;
}

static void take_time(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    now = (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* When something will be too old, or there will have been nothing for long enough: -1 for never. */
static int64_t next_end(int64_t idle)
{
    int64_t end = -1;
    bool empty = true;
    for (struct queue *queue = queues; queue; queue = queue->next) {
        if (!queue->oldest)
            continue;
        empty = false;
        if (queue->limit && (end < 0 || queue->oldest->since + queue->limit < end))
            end = queue->oldest->since + queue->limit;
    }
    return empty ? last_busy + idle : end;
}

static bool expire_all(void)
{
    bool empty = true;
    for (struct queue *queue = queues; queue; queue = queue->next) {
        while (queue->limit && queue->oldest && queue->oldest->since + queue->limit <= now)
            queue->expire(queue->oldest);
        empty = empty && !queue->oldest;
    }
    return empty;
}

bool loop_begin(void)
{
    take_time();
    last_busy = now;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return epoll_fd >= 0;
}

bool loop_run(int64_t idle)
{
    for (;;) {
        struct epoll_event event;
        int64_t end = next_end(idle), wait = end - now;
        int got = epoll_wait(epoll_fd, &event, 1, end < 0 ? -1 : wait < 0 ? 0 : wait < INT_MAX ? (int)wait : INT_MAX);
        if (got < 0 && errno != EINTR)
            return false;
        take_time();
        if (got > 0) {
            struct watch *watch = event.data.ptr;
            watch->ready(watch, event.events);
        }
        if (expire_all() && got == 0 && now >= last_busy + idle)
            return true;
    }
}
