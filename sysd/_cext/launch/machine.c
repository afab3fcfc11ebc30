/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch-vm SPEC: runs as the main process of a virtual machine's unit, and becomes its QEMU. SPEC is
 * sysd.runtime.vm.spec.MachineSpec as JSON.
 *
 *   launch-vm --stop SPEC        ExecStop=: asks the guest to power off, and waits for that
 *   launch-vm --give-back UUID   ExecStopPost=: what the machine had of the host's hardware
 *   launch-vm --hand PIDFD       for changes while it runs (hand.c)
 *
 *   launcher (host's root) --clone sibling--> starter (host's root; tells QEMU to go on, and ends)
 *            --exec--> QEMU (nobody, nowhere)
 *
 * The launcher opens all that QEMU needs, leaves the host and its rights, and executes QEMU, whose processors stand still
 * at first. The starter gets them to run by way of QMP, and tells systemd and the daemon. It is a sibling so that QEMU
 * has no child that it would have to wait for.
 */
#include "machine.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "../clone.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#ifndef PR_THP_DISABLE_EXCEPT_ADVISED
#define PR_THP_DISABLE_EXCEPT_ADVISED (1 << 1)
#endif

static int pipe_to_starter;

/* Returns when all have been told: our end is the unit's. */
static void tell_starter(const char *message)
{
    char nothing;
    if (send(pipe_to_starter, message, strlen(message), MSG_NOSIGNAL) >= 0)
        (void)!recv(pipe_to_starter, &nothing, sizeof nothing, 0);
}

/*
 * QEMU's heap is large, and little of it is ever used: where all get huge pages (transparent_hugepage=always), half of
 * what QEMU takes is none of anybody's data. The guest's memory, which asks for them, gets them as before; where the
 * kernel can't tell the two apart (before 6.18), it must be one that gives shared memory none in any case.
 */
static void refuse_huge_pages(void)
{
    char setting[128];
    if (prctl(PR_SET_THP_DISABLE, 1, PR_THP_DISABLE_EXCEPT_ADVISED, 0, 0) == 0)
        return;
    int fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, setting, sizeof setting - 1);
    close(fd);
    if (size < 0)
        return;
    setting[size] = 0;
    if (strstr(setting, "[never]") || strstr(setting, "[deny]"))
        (void)prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

static _Noreturn void execute(json spec)
{
    static char *const environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", NULL };
    json arguments = member(spec, "arguments", json_type_array);
    size_t count = json_object_array_length(arguments);
    char **argv = calloc(count + 2, sizeof *argv);
    if (!argv)
        give_up("no memory");
    argv[0] = (char *)text(spec, "program");
    for (size_t i = 0; i < count; i++)
        argv[1 + i] = (char *)text_at(arguments, i);
    place_descriptors();
    execve(argv[0], argv, environment);
    give_up("%s: %m", argv[0]);
}

int main(int argc, char **argv)
{
    struct sockets sockets = { 0 };
    int ends[2];
    if (argc == 3 && strcmp(argv[1], "--stop") == 0)
        stop_machine(argv[2]);
    if (argc == 3 && strcmp(argv[1], "--give-back") == 0)
        give_back(argv[2]);
    if (argc == 3 && strcmp(argv[1], "--hand") == 0)
        hand_to_machine(argv[2]);
    on_problem(tell_failure);
    if (argc != 2)
        give_up("to be started by the service manager, with a file that says what");
    json spec = read_words(must(open(argv[1], O_RDONLY | O_CLOEXEC), "%s", argv[1]));
    tell_about(spec);
    if (number(spec, "owner") <= 0 || number(spec, "owner") >= UINT32_MAX)
        give_up("the owner is to be a user without rights");

    hold_layers(text(spec, "state_dir"));
    open_descriptors(member(spec, "descriptors", json_type_array), &sockets);
    bool kept = take_kept(spec);
    int netlink = open_netlink();
    replay_all(netlink, member(spec, "host_links", json_type_array));
    close(netlink);
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "pipe");
    struct qemu qemu = { .pid = getpid(), .kept = kept };
    qemu.pidfd = aside(must(syscall(SYS_pidfd_open, qemu.pid, 0), "pidfd"));
    qemu.launcher = aside(ends[0]);
    pipe_to_starter = aside(ends[1]);
    if (must(fork_raw(CLONE_PARENT, -1, 0), "clone") == 0) {
        close(pipe_to_starter);
        start_machine(spec, qemu, &sockets);
    }
    close(qemu.launcher);
    on_problem(tell_starter);
    refuse_huge_pages();
    enter_den(spec);
    execute(spec);
}
