/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of launch, launch-vm and plug have of each other. A function of which it is said that it gives up
   ends the process instead of returning a failure. */
#ifndef SYSCONT_LAUNCH_H
#define SYSCONT_LAUNCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>
#include "../native.h"
#include "../places.h"

/* mount_setattr(2), open_tree(2), openat2(2): headers of the C library lack some of them. */
enum { READ_ONLY = 1, NO_SUID = 2, NO_DEV = 4, NO_EXEC = 8, STRICT = NO_SUID | NO_DEV | NO_EXEC };
enum { PRIVATE = 1 << 18, SLAVE = 1 << 19, SHARED = 1 << 20 };
enum { ALL_BELOW = 0x8000 /* AT_RECURSIVE */, CLONE_TREE = 1 | O_CLOEXEC };
enum { NO_MAGICLINKS = 2, NO_SYMLINKS = 4, BENEATH = 8, IN_ROOT = 16 };

/* The numbers at which network namespaces are held while requests are sent that name them (sysd.runtime.spec). */
enum { NETNS_FD = 100, HOST_NETNS_FD = 101 };

typedef struct json_object *json;

/* --- problem.c: what goes wrong ends the process; %m in a format is the error of the last system call --- */

/* Who is to hear of it depends on which process we are. The teller does not return. */
void on_problem(void (*teller)(const char *message));
_Noreturn void give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void give_back(const char *uuid);
/* A result that is not negative, or gives up. */
int must(int result, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- words.c: the daemon's JSON; what is missing or of another type gives up --- */

json read_words(int fd);
json member(json from, const char *name, json_type type);
const char *text(json from, const char *name);
int64_t number(json from, const char *name);
bool truth(json from, const char *name);
const char *text_at(json list, size_t index);
/* The bytes that hexadecimal digits stand for. */
unsigned char *from_hex(const char *digits, size_t *size);

/* --- tell.c: the journal, the service manager and the daemon are told --- */

enum { MOST_SOCKETS = 4 };
struct sockets {
    int count, fd[MOST_SOCKETS];
    const char *kind[MOST_SOCKETS]; /* guest.KINDS of sysd.runtime */
};
void add_socket(struct sockets *sockets, const char *kind, int fd);
/* A socket of the type that is connected to that of a path, where "@" begins an abstract one; or -1. */
int connect_to(const char *path, int type);
/* -1 when the service manager can't be told. Without one there is nobody to tell. */
int notify(const char *fields);
/* Which instance the daemon is told about from now on. */
void tell_about(json spec);
/* The instance runs, with these for the daemon. */
void tell_running(pid_t leader, const struct sockets *sockets);
/* For on_problem(): to all of them. */
void tell_failure(const char *message);

/* --- tree.c: folders, files and mounts in a guest's tree, by descriptors that follow no links --- */

/* The folder path in the guest's tree, made when missing; -1 where that can't be, such as for a link on the way. */
int beneath(int root, const char *path);
/* The top-level folder for one of the file systems that a guest can't run without, or gives up. */
int mount_point(int root, const char *name);
/* Make a file that is not there yet; -1 when there is something. */
int write_at(int folder, const char *name, const void *data, size_t size, mode_t mode);
/* Or gives up. */
int make_folder(int at, const char *name, mode_t mode);
/* A tmpfs of the guest's root's on the folder at, or gives up; its root. */
int mount_tmpfs(unsigned int owner, int at, const char *mode, const char *size);

/* --- outside.c, provide.c: what is done with the host's rights, or gives up --- */

void hold_layers(const char *state_dir);
void own_cgroup(unsigned int owner);
void fill_root(json spec, int root, struct sockets *sockets);
void enable_network(json spec, int netlink, pid_t leader);
void pin_network(json spec, int host_mounts, pid_t leader);
void leave_mounts_of_host(void);

#define CREDENTIALS "/run/host/credentials"
int listen_at(int dev, const char *folder);
void put_credentials(int host, json credentials);
void put_templates(json spec, int root);
void put_seed(int root, json seed);

/* --- inside.c: the middle process and the guest's PID 1 --- */

_Noreturn void enter_namespaces(json spec, int pipe, int userns);

/* --- shares.c: what of the host is shown in a guest's tree --- */

struct identity { dev_t device; ino_t inode; };
void prepare_shares(json shares, int userns, unsigned int id_base);
int *collect_shares(json shares);
void attach_shares(json shares, const int *trees, int root);
struct identity identify_share(json share);
void detach_share(json share, struct identity known, int root, int proc);

/* --- replay.c: rtnetlink requests that sysd.network.nics has prepared --- */

int open_netlink(void);
/* The error number, 0 if there is none or it does not matter. */
int attempt(int netlink, const char *request);
void replay(int netlink, const char *request);
void replay_all(int netlink, json requests);

#endif
