/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch SPEC: runs as the main process of an instance's unit, makes the container, and leaves. SPEC is
 * sysd.runtime.spec.LaunchSpec as JSON.
 *
 *   launcher (host's root) --clone sibling--> middle (enters the user namespace, unshares the rest)
 *                                             --clone sibling--> guest (PID 1 of the container)
 *
 * Siblings are children of the service manager, so the guest's PID 1 is its own child. The launcher makes what needs
 * the host's privileges (idmapped overlay, device nodes, veth); the guest's side mounts what must belong to its
 * namespaces and sends back its console. When the guest has exec'ed its init the launcher tells systemd the new main
 * PID, hands console and sockets to the daemon, and ends.
 *
 * On the path of every start, which is why it is not in Python: its start alone took three times what all this takes.
 *
 * Source: systemd.io CONTAINER_INTERFACE.
 */
#include "launch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "../clone.h"

static json spec;

/* One message of the guest's side, ended by a NUL; *fd is what came with it, or as it was. */
static void receive(int pipe, char *message, size_t size, int *fd)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec data = { message, size - 1 };
    struct msghdr header = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control };
    ssize_t got = must(recvmsg(pipe, &header, MSG_CMSG_CLOEXEC), "the container's set-up");
    struct cmsghdr *passed = CMSG_FIRSTHDR(&header);
    if (passed && passed->cmsg_level == SOL_SOCKET && passed->cmsg_type == SCM_RIGHTS)
        memcpy(fd, CMSG_DATA(passed), sizeof *fd);
    message[got] = 0;
}

/* The guest's PID 1 runs its init: tell. In this order: if we are killed in between, the unit ends with us and nothing
   runs without a console. */
static void leave_to(pid_t leader, const struct sockets *sockets)
{
    char fields[64];
    tell_running(leader, sockets);
    snprintf(fields, sizeof fields, "MAINPID=%d\nSTATUS=%s", leader, truth(spec, "waits_for_guest") ? "" : "\nREADY=1");
    must(notify(fields), "the service manager");
}

/* Everything up to the guest's own program; *console is its console. */
static pid_t make_guest(int userns, int netlink, int host_mounts, int *console)
{
    char message[1024];
    int ends[2];
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "pipe");
    if (must(fork_raw(CLONE_PARENT, -1, 0), "clone") == 0) {
        close(ends[0]); /* without us there is nobody to wait for */
        enter_namespaces(spec, ends[1], userns);
    }
    close(ends[1]);
    receive(ends[0], message, sizeof message, console);
    pid_t leader = atoi(message);
    if (leader) {
        /* First: what is lent to the guest comes back by way of the pin, also if the rest of it fails. */
        if (host_mounts >= 0)
            pin_network(spec, host_mounts, leader);
        enable_network(spec, netlink, leader);
        must(send(ends[0], "go", 2, MSG_NOSIGNAL), "the container's set-up");
    }
    receive(ends[0], message, sizeof message, console);
    if (strcmp(message, "console") == 0 && *console >= 0)
        receive(ends[0], message, sizeof message, console); /* nothing more when the guest's init was executed */
    if (*message || *console < 0)
        give_up("%s", *message ? message : "the container's set-up ended early");
    return leader;
}

int main(int argc, char **argv)
{
    struct sockets sockets = { 0 };
    int userns = -1, host_mounts = -1, console = -1;
    const char *what;
    on_problem(tell_failure);
    if (argc != 2)
        give_up("to be started by the service manager, with a file that says what");
    spec = read_words(must(open(argv[1], O_RDONLY | O_CLOEXEC), "%s", argv[1]));
    tell_about(spec);
    unsigned int id_base = number(spec, "id_base");
    json shares = member(spec, "shares", json_type_array);

    hold_layers(text(spec, "state_dir"));
    if (!truth(spec, "privileged"))
        userns = must(sc_userns(text(spec, "uid_map"), text(spec, "gid_map")), "new user namespace");
    int netlink = open_netlink();
    own_cgroup(id_base);
    if (truth(spec, "pin"))
        host_mounts = must(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC), "mount namespace");
    leave_mounts_of_host();
    int root = sc_mount_layers(text(spec, "name"), text(spec, "rootfs"), text(spec, "state_dir"), id_base, userns, &what);
    fill_root(spec, must(root, "%s", what), &sockets);
    if (json_object_array_length(shares))
        prepare_shares(shares, userns, id_base);
    pid_t leader = make_guest(userns, netlink, host_mounts, &console);
    add_socket(&sockets, "console", console);
    leave_to(leader, &sockets);
    return 0;
}
