/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes what a guest has of the host.
 *
 *   plug PIDFD            a child of the daemon, for one change of a running guest's devices (sysd.runtime.plugging),
 *                         which comes on stdin
 *   plug --release SPEC   ExecStopPost= of an instance's unit: what has to be put back when its guest is gone
 *   plug --give-back UUID the same of what it had of the host's hardware
 *
 * What needs the host's rights comes first, in the host's own mount namespace (the daemon has a sandboxed one of its
 * own). Then the guest's namespaces are entered for good, and what is left is done with no more rights than its root
 * has. A line on stderr says what went wrong; what was done before that is not undone here.
 */
#include "launch.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

static void complain(const char *message)
{
    fprintf(stderr, "%s\n", message);
}

/* Requests with the side on which each is sent. guest is a descriptor of one of its processes, or of its network
   namespace. Ends in the one that we began in. regardless: of one that fails, the others are sent, too. */
static void change_links(json links, int guest, bool regardless)
{
    int here = must(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), "network namespace");
    int host_netlink = open_netlink();
    must(sc_setns(guest, CLONE_NEWNET), "network namespace of the guest");
    int guest_netlink = open_netlink();
    int inside = must(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), "network namespace");
    must(dup3(inside, NETNS_FD, O_CLOEXEC), "network namespace");
    must(dup3(here, HOST_NETNS_FD, O_CLOEXEC), "network namespace");
    for (size_t i = 0; i < json_object_array_length(links); i++) {
        json link = json_object_array_get_idx(links, i);
        bool in_guest = strcmp(text_at(link, 0), "guest") == 0;
        must(sc_setns(in_guest ? inside : here, CLONE_NEWNET), "network namespace");
        int netlink = in_guest ? guest_netlink : host_netlink;
        if (!regardless)
            replay(netlink, text_at(link, 1));
        else if ((errno = attempt(netlink, text_at(link, 1))))
            complain(strerror(errno));
    }
    must(sc_setns(here, CLONE_NEWNET), "network namespace");
}

/* Where the guest's network namespace is held. */
static char pin[sizeof PIN_DIR + 64];

/* Physical links go back, and the host answers for the guest no more; as far as it had come to that. */
static void release(json spec)
{
    json links = member(spec, "put_back", json_type_array);
    if (json_object_array_length(links))
        change_links(links, must(open(pin, O_RDONLY | O_CLOEXEC), "%s", pin), true);
}

/* The guest's network namespace ends, also when something before that has failed. */
static void let_go(void)
{
    if (sc_unmount(pin) < 0 || unlink(pin) < 0) {
        fprintf(stderr, "%s: %m\n", pin);
        _exit(1);
    }
}

static void let_go_and_complain(const char *message)
{
    complain(message);
    let_go();
}

static int open_user_namespace(json change)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/%lld/ns/user", (long long)number(change, "leader"));
    return must(open(path, O_RDONLY | O_CLOEXEC), "%s", path);
}

static struct identity *identify_all(json shares)
{
    size_t count = json_object_array_length(shares);
    struct identity *known = calloc(count + 1, sizeof *known);
    if (!known)
        give_up("no memory");
    for (size_t i = 0; i < count; i++)
        known[i] = identify_share(json_object_array_get_idx(shares, i));
    return known;
}

static void change_shares(json change, int pidfd)
{
    json added = member(change, "add", json_type_array), removed = member(change, "remove", json_type_array);
    bool privileged = truth(change, "privileged");
    struct identity *known = identify_all(removed);
    int proc = must(open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC), "/proc");
    must(sc_unshare(CLONE_NEWNS), "mount namespace");
    must(sc_mount_attributes(AT_FDCWD, "/", 0, SLAVE, 1), "mount namespace");
    if (json_object_array_length(added)) {
        int userns = privileged ? -1 : open_user_namespace(change);
        must(syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0), "the guest"); /* the number was its own, then */
        prepare_shares(added, userns, number(change, "id_base"));
    }
    if (!privileged)
        must(sc_setns(pidfd, CLONE_NEWUSER), "user namespace of the guest");
    must(sc_set_ids(0, 0), "ids of the guest's root");
    must(sc_unshare(CLONE_NEWNS), "mount namespace");
    int *trees = collect_shares(added);
    must(sc_setns(pidfd, CLONE_NEWNS), "mount namespace of the guest");
    int root = must(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "/");
    for (size_t i = 0; i < json_object_array_length(removed); i++)
        detach_share(json_object_array_get_idx(removed, i), known[i], root, proc);
    attach_shares(added, trees, root);
}

static void apply(json change, int pidfd)
{
    json links = member(change, "links", json_type_array);
    int host = must(open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC), "mount namespace of the host");
    must(sc_setns(host, CLONE_NEWNS), "mount namespace of the host");
    if (json_object_array_length(links))
        change_links(links, pidfd, false);
    if (json_object_array_length(member(change, "add", json_type_array)) ||
        json_object_array_length(member(change, "remove", json_type_array)))
        change_shares(change, pidfd);
}

int main(int argc, char **argv)
{
    on_problem(complain);
    if (argc == 3 && strcmp(argv[1], "--give-back") == 0)
        give_back(argv[2]);
    if (argc == 3 && strcmp(argv[1], "--release") == 0) {
        json spec = read_words(must(open(argv[2], O_RDONLY | O_CLOEXEC), "%s", argv[2]));
        snprintf(pin, sizeof pin, PIN_DIR "/%s", text(spec, "uuid"));
        on_problem(let_go_and_complain);
        release(spec);
        let_go();
    } else if (argc == 2) /* by another number than those that are promised to requests */
        apply(read_words(0), must(fcntl(atoi(argv[1]), F_DUPFD_CLOEXEC, HOST_NETNS_FD + 1), "the guest"));
    else
        give_up("usage: plug PIDFD <CHANGE, or plug --release SPEC");
    return 0;
}
