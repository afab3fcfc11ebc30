/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message is a line. Commands are sent one at a time, so the next message that is no event is the answer. QEMU is not
 * trusted to keep to that: what it says has a limit, and so has how long it takes.
 *
 * Source: QEMU's docs/interop/qmp-spec.rst.
 */
#include "machine.h"
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { LONGEST = 1 << 20 };

static int watched = -1, sock = -1;
static int64_t deadline;
static char buffer[LONGEST];
static size_t filled;

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000) + time.tv_nsec / 1000000;
}

void qmp_watch(int pidfd, int milliseconds)
{
    watched = pidfd;
    deadline = milliseconds < 0 ? INT64_MAX : now() + milliseconds;
}

static _Noreturn void ended(void)
{
    give_up("QEMU ended before the machine ran");
}

void qmp_wait(int fd)
{
    for (;;) {
        struct pollfd polled[] = { { .fd = fd, .events = POLLIN }, { .fd = watched, .events = POLLIN } };
        int64_t left = deadline - now();
        if (left <= 0)
            give_up("QEMU does not answer");
        int found = poll(polled, 2, left > 60000 ? 60000 : (int)left);
        if (found < 0 && errno != EINTR)
            give_up("QEMU: %m");
        if (found > 0 && polled[0].revents) /* first: there may be last words */
            return;
        if (found > 0 && polled[1].revents)
            ended();
    }
}

bool qmp_ended(int milliseconds)
{
    struct pollfd polled = { .fd = watched, .events = POLLIN };
    return poll(&polled, 1, milliseconds) > 0;
}

/* Have a whole line in the buffer; where it ends. */
static char *fill(void)
{
    for (;;) {
        char *end = memchr(buffer, '\n', filled);
        if (end)
            return end;
        if (filled == sizeof buffer)
            give_up("QEMU says too much at once");
        qmp_wait(sock);
        ssize_t got = recv(sock, buffer + filled, sizeof buffer - filled, 0);
        if (got == 0 || (got < 0 && errno == ECONNRESET))
            ended();
        filled += must(got, "QEMU");
    }
}

/* The next message. */
static json receive(void)
{
    char *end = fill();
    size_t size = end - buffer;
    if (size && buffer[size - 1] == '\r')
        size--;
    struct json_tokener *tokener = json_tokener_new();
    if (tokener)
        json_tokener_set_flags(tokener, JSON_TOKENER_STRICT); /* a message, and nothing after it */
    json found = tokener ? json_tokener_parse_ex(tokener, buffer, size) : NULL;
    bool whole = tokener && json_tokener_get_error(tokener) == json_tokener_success;
    if (!whole || !json_object_is_type(found, json_type_object))
        give_up("QEMU's answer is none: %.*s", size > 100 ? 100 : (int)size, buffer);
    json_tokener_free(tokener);
    filled -= end + 1 - buffer;
    memmove(buffer, end + 1, filled);
    return found;
}

json qmp_part(json answer, const char *name, json_type type)
{
    json found = NULL;
    if (!json_object_object_get_ex(answer, name, &found) || !json_object_is_type(found, type))
        give_up("QEMU's answer has no %s", name);
    return found;
}

static void transmit(json command)
{
    size_t size;
    const char *words = json_object_to_json_string_length(command, JSON_C_TO_STRING_PLAIN, &size);
    /* Waits no longer than QEMU lives; a command fits the socket's buffer. */
    for (ssize_t sent; size; words += sent, size -= sent)
        if ((sent = send(sock, words, size, MSG_NOSIGNAL)) < 0 && (errno == EPIPE || errno == ECONNRESET))
            ended();
        else
            must(sent, "QEMU");
}

json qmp_run(json command)
{
    json answer, found;
    const char *name = text(command, "execute");
    transmit(command);
    while (json_object_object_get_ex(answer = receive(), "event", NULL))
        json_object_put(answer);
    if (json_object_object_get_ex(answer, "error", &found))
        give_up("QEMU: %s: %s", name, json_object_get_string(qmp_part(found, "desc", json_type_string)));
    if (!json_object_object_get_ex(answer, "return", &found))
        give_up("QEMU's answer to %s is none", name);
    json_object_get(found);
    json_object_put(answer);
    return found;
}

json qmp_call(const char *name, json arguments)
{
    json command = json_object_new_object();
    json_object_object_add(command, "execute", json_object_new_string(name));
    if (arguments)
        json_object_object_add(command, "arguments", arguments);
    json found = qmp_run(command);
    json_object_put(command);
    return found;
}

void qmp_open(const char *path)
{
    sock = must(connect_to(path, SOCK_STREAM), "%s", path);
    json greeting = receive();
    qmp_part(greeting, "QMP", json_type_object);
    json_object_put(greeting);
    json_object_put(qmp_call("qmp_capabilities", NULL));
}
