/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of launch-vm have of each other, beside what launch.h has. All of them give up. */
#ifndef SYSCONT_MACHINE_H
#define SYSCONT_MACHINE_H

#include "launch.h"

/* --- descriptors.c: what QEMU has open when it starts, each at its number --- */

/* At a number that none of QEMU's can have. */
int aside(int fd);
/* Opens them; the daemon's ends of streams are added to sockets. */
void open_descriptors(json wanted, struct sockets *sockets);
/* For the process that executes QEMU: each to its number, and nothing else but stdio survives the exec. */
void place_descriptors(void);
/* A further one, at its number. */
void hold_descriptor(int64_t at, int fd);
/* For the one that does not. */
void close_descriptors(void);

/* --- macvtap.c: interfaces on links of the host's --- */

/* The network namespace in which QEMU is to run; made when it is first asked for. */
int den_network(void);
/* A link that the request makes in a network namespace, opened. */
int open_macvtap(int network, const char *link, const char *request);

/* --- functions.c: PCI functions of the host's --- */

/* What there is of one where the kernel has iommufd. */
int open_function(const char *address);
/* In a /dev that is being made, the nodes of groups by addresses of functions. */
void give_functions(int dev, json functions, unsigned int owner);
/* Let a running QEMU have these, and no others. Ends in its mount namespace. */
void change_functions(int pidfd, json functions, unsigned int owner);

/* --- hand.c: what a machine that runs is given --- */

_Noreturn void hand_to_machine(const char *pidfd);

/* --- den.c: where QEMU runs, which is as far from the host as it can be --- */

void enter_den(json spec);

/* --- qmp.c: one conversation with QEMU's monitor --- */

enum { START_LIMIT = 30000 /* milliseconds */ };

/* The process that is waited for no longer than it lives, as a descriptor, and for how long at most; -1 for no limit. */
void qmp_watch(int pidfd, int milliseconds);
/* Until there is something to read. */
void qmp_wait(int fd);
void qmp_open(const char *path);
/* Within milliseconds, or not at all. */
bool qmp_ended(int milliseconds);
/* A whole command, or one of a name with arguments that may be NULL; what it returns, which is the caller's. */
json qmp_run(json command);
json qmp_call(const char *name, json arguments);
/* A part of what QEMU has said. */
json qmp_part(json answer, const char *name, json_type type);

/* --- kept.c: the memory of a machine that was stopped with it --- */

/* Make of a start that the machine goes on, if its memory was kept; whether that is so. */
bool take_kept(json spec);
/* Its processors are about to run. */
void drop_kept(json spec);

/* --- stopper.c: the machine's unit is to stop --- */

_Noreturn void stop_machine(const char *spec);

/* --- starter.c: what is left to do when QEMU has been executed --- */

struct qemu { pid_t pid; int pidfd, launcher; bool kept; /* its memory was */ };
_Noreturn void start_machine(json spec, struct qemu qemu, const struct sockets *sockets);

#endif
