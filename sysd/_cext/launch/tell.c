/* SPDX-License-Identifier: Apache-2.0 */
/* Whom the launchers tell: the journal, the service manager and the daemon. Source: sd_notify(3). */
#include "launch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static json instance;

void tell_about(json spec)
{
    instance = spec;
}

int connect_to(const char *path, int type)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    size_t length = strlen(path);
    if (length >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, length);
    if (*path == '@')
        address.sun_path[0] = 0;
    int sock = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (sock < 0 || connect(sock, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + length) == 0)
        return sock;
    int failure = errno;
    close(sock);
    errno = failure;
    return -1;
}

int notify(const char *fields)
{
    const char *path = getenv("NOTIFY_SOCKET");
    int sock = path ? connect_to(path, SOCK_DGRAM) : -1;
    if (!path)
        return 0;
    return sock < 0 ? -1 : send(sock, fields, strlen(fields), MSG_NOSIGNAL);
}

static json about_instance(void)
{
    json words = json_object_new_object();
    json_object_object_add(words, "uuid", json_object_new_string(text(instance, "uuid")));
    return words;
}

/* Tell the daemon. systemd holds the socket, so this works while the daemon is away; it never waits. */
static void hand_over(json message, const int *fds, size_t count)
{
    char control[CMSG_SPACE(MOST_SOCKETS * sizeof(int))];
    const char *words = json_object_to_json_string_ext(message, JSON_C_TO_STRING_PLAIN);
    struct iovec data = { (char *)words, strlen(words) };
    struct msghdr header = { .msg_iov = &data, .msg_iovlen = 1 };
    if (count) {
        memset(control, 0, sizeof control);
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(count * sizeof *fds);
        struct cmsghdr *passed = CMSG_FIRSTHDR(&header);
        passed->cmsg_level = SOL_SOCKET;
        passed->cmsg_type = SCM_RIGHTS;
        passed->cmsg_len = CMSG_LEN(count * sizeof *fds);
        memcpy(CMSG_DATA(passed), fds, count * sizeof *fds);
    }
    int sock = connect_to(HANDOVER_SOCKET, SOCK_DGRAM | SOCK_NONBLOCK);
    if (sock < 0 || sendmsg(sock, &header, MSG_NOSIGNAL) < 0)
        fprintf(stderr, "console is lost, the daemon can't be told: %m\n");
}

void add_socket(struct sockets *sockets, const char *kind, int fd)
{
    if (sockets->count == MOST_SOCKETS)
        give_up("more sockets than the daemon can be handed");
    sockets->kind[sockets->count] = kind;
    sockets->fd[sockets->count++] = fd;
}

void tell_running(pid_t leader, const struct sockets *sockets)
{
    json words = about_instance(), kinds = json_object_new_array();
    for (int i = 0; i < sockets->count; i++)
        json_object_array_add(kinds, json_object_new_string(sockets->kind[i]));
    json_object_object_add(words, "leader", json_object_new_int(leader));
    json_object_object_add(words, "fds", kinds);
    hand_over(words, sockets->fd, sockets->count);
}

static void complain(const char *message)
{
    fprintf(stderr, "cannot start the instance: %s\n", message);
}

void tell_failure(const char *message)
{
    char status[1200];
    on_problem(complain);
    snprintf(status, sizeof status, "STATUS=%s", message);
    /* What others said may be in it: a line of theirs is no field of the service manager's, and no line of ours. */
    for (char *at = status; *at; at++)
        *at = (unsigned char)*at < ' ' || *at == 0x7f ? ' ' : *at;
    const char *line = strchr(status, '=') + 1;
    complain(line);
    notify(status);
    if (!instance)
        return;
    json words = about_instance();
    json_object_object_add(words, "error", json_object_new_string(line));
    hand_over(words, NULL, 0);
}
