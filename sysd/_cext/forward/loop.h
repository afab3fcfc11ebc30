/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One process, one epoll, and what lives in it: descriptors that are watched, and queues of what grows old.
 *
 * One event is taken at a time: whatever is done about it may close any descriptor and free any memory, and no later
 * event that was already fetched can name what is gone. epoll puts what was served to the end of its own list.
 */
#ifndef SYSCONT_FORWARD_LOOP_H
#define SYSCONT_FORWARD_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A descriptor; ready is called with what epoll says of it. fd -1: none. */
struct watch {
    int fd;
    uint32_t events;
    void (*ready)(struct watch *watch, uint32_t events);
};

/* Watch for events, 0 for none at all: not even a hang-up is then told, which epoll would repeat for ever. */
bool watch_for(struct watch *watch, uint32_t events);
void watch_close(struct watch *watch);

struct aged {
    struct aged *older, *newer;
    struct queue *queue;
    int64_t since; /* milliseconds */
};

/* In the order of their age. expire gets the oldest, once it has been here for limit milliseconds; 0: never. */
struct queue {
    struct aged *oldest, *newest;
    size_t count;
    int64_t limit;
    void (*expire)(struct aged *aged);
    struct queue *next;
};

/* Needs only limit and expire set; once for each. */
void queue_begin(struct queue *queue);
/* As the newest; from where it was until now, if anywhere. */
void queue_enter(struct queue *queue, struct aged *aged);
void queue_leave(struct aged *aged);

/* Until nothing has been in any queue for idle milliseconds. Returns false when epoll fails. */
bool loop_begin(void);
bool loop_run(int64_t idle);

#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

#endif
