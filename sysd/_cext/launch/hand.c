/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch-vm --hand PIDFD: a child of the daemon, for what a QEMU that runs can't be given by its monitor alone. stdin is a
 * stream on which that comes as JSON, to its end; what is opened goes back on it.
 *
 *     {"macvtap": {"name": LINK, "data": REQUEST}, "leader": PID}    a link of its own, as a descriptor
 *     {"functions": {ADDRESS: GROUP...}, "owner": ID}                all that it has by the nodes of their groups
 *
 * A line on stderr says what went wrong.
 */
#include "machine.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

static void complain(const char *message)
{
    fprintf(stderr, "%s\n", message);
}

static void send_back(int fd)
{
    char control[CMSG_SPACE(sizeof fd)] = { 0 };
    struct iovec data = { "", 1 };
    struct msghdr header = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control };
    struct cmsghdr *passed = CMSG_FIRSTHDR(&header);
    passed->cmsg_level = SOL_SOCKET;
    passed->cmsg_type = SCM_RIGHTS;
    passed->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(passed), &fd, sizeof fd);
    must(sendmsg(0, &header, MSG_NOSIGNAL), "the daemon");
}

static int network_of(json task, int pidfd)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/%lld/ns/net", (long long)number(task, "leader"));
    int network = must(open(path, O_RDONLY | O_CLOEXEC), "%s", path);
    must(syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0), "the machine"); /* the number was its own, then */
    return network;
}

_Noreturn void hand_to_machine(const char *pid)
{
    json wanted = NULL;
    on_problem(complain);
    int pidfd = must(fcntl(atoi(pid), F_DUPFD_CLOEXEC, HOST_NETNS_FD + 1), "the machine");
    json task = read_words(0);
    if (json_object_object_get_ex(task, "macvtap", &wanted))
        send_back(open_macvtap(network_of(task, pidfd), text(wanted, "name"), text(wanted, "data")));
    else
        change_functions(pidfd, member(task, "functions", json_type_object), number(task, "owner"));
    exit(0);
}
