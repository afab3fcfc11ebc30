/* SPDX-License-Identifier: Apache-2.0 */
/* What the host's privileges are needed for. Source: systemd.io CONTAINER_INTERFACE. */
#include "launch.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <time.h>

enum { PATIENCE = 5000, PAUSE = 20 }; /* milliseconds: workers of the guest's last run end with it, but not at once */

static const struct { const char *name; unsigned int major, minor; bool extra; } DEVICES[] = {
    { "null", 1, 3, false },   { "zero", 1, 5, false }, { "full", 1, 7, false },      { "random", 1, 8, false },
    { "urandom", 1, 9, false }, { "tty", 5, 0, false },  { "net/tun", 10, 200, true }, { "fuse", 10, 229, true },
};
static const char *const LINKS[][2] = {
    { "fd", "/proc/self/fd" },         { "stdin", "/proc/self/fd/0" }, { "stdout", "/proc/self/fd/1" },
    { "stderr", "/proc/self/fd/2" },   { "ptmx", "pts/ptmx" },         { "core", "/proc/kcore" },
};
static const struct { const char *name; mode_t kind; } NODES[] = {
    { "reg", S_IFREG }, { "fifo", S_IFIFO }, { "sock", S_IFSOCK }, { "chr", S_IFCHR }, { "blk", S_IFBLK },
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Take the layers' lock for a mount that outlives this process. It is held as long as any process of the set-up has its
   descriptor. */
void hold_layers(const char *state_dir)
{
    int layers = must(open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), "%s", state_dir);
    for (int waited = 0; flock(layers, LOCK_EX | LOCK_NB) < 0; waited += PAUSE) {
        if (errno != EWOULDBLOCK)
            give_up("lock of %s: %m", state_dir);
        if (waited >= PATIENCE)
            give_up("its files are being worked on: 'syscont operation list' shows by what");
        nanosleep(&(struct timespec){ .tv_nsec = PAUSE * 1000000 }, NULL);
    }
}

/* What a small file holds, which is all of it when it fits. */
static size_t read_small(const char *path, char *into, size_t size)
{
    int fd = must(open(path, O_RDONLY | O_CLOEXEC), "%s", path);
    size_t got = 0;
    for (ssize_t more = 1; more > 0 && got < size - 1; got += more)
        more = must(read(fd, into + got, size - 1 - got), "%s", path);
    into[got] = 0;
    close(fd);
    return got;
}

/* The folder of our own cgroup. */
static void find_cgroup(char *path, size_t size)
{
    char lines[8192], *rest = lines;
    read_small("/proc/self/cgroup", lines, sizeof lines);
    for (char *line; (line = strsep(&rest, "\n"));)
        if (strncmp(line, "0::", 3) == 0) {
            snprintf(path, size, "/sys/fs/cgroup%s", line + 3);
            return;
        }
    give_up("no unified cgroup hierarchy");
}

/* Give the guest its delegated cgroup: the folder and the files the kernel lists as delegatable. */
void own_cgroup(unsigned int owner)
{
    char path[4096], names[4096], *rest = names;
    find_cgroup(path, sizeof path);
    int cgroup = must(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), "%s", path);
    must(fchownat(cgroup, "", owner, owner, AT_EMPTY_PATH), "%s", path);
    read_small("/sys/kernel/cgroup/delegate", names, sizeof names);
    for (char *name; (name = strsep(&rest, "\n"));)
        if (*name && fchownat(cgroup, name, owner, owner, 0) < 0 && errno != ENOENT)
            give_up("%s/%s: %m", path, name);
    close(cgroup);
}

/* From here on what is mounted stays with us, and what the host mounts still arrives. */
void leave_mounts_of_host(void)
{
    must(sc_unshare(CLONE_NEWNS), "mount namespace");
    must(sc_mount_attributes(AT_FDCWD, "/", 0, SLAVE, 1), "mount namespace");
}

static void fill_dev(json spec, int dev)
{
    char path[32];
    unsigned int owner = number(spec, "id_base");
    mode_t old = umask(0);
    make_folder(dev, "net", 0755);
    for (size_t i = 0; i < COUNT(DEVICES); i++) {
        snprintf(path, sizeof path, "/dev/%s", DEVICES[i].name);
        if (!DEVICES[i].extra || access(path, F_OK) == 0)
            must(mknodat(dev, DEVICES[i].name, S_IFCHR | 0666, makedev(DEVICES[i].major, DEVICES[i].minor)), "%s", path);
    }
    make_folder(dev, "pts", 0755);
    make_folder(dev, "shm", 0755);
    make_folder(dev, "mqueue", 0755);
    must(write_at(dev, "console", "", 0, 0600), "/dev/console");
    for (size_t i = 0; i < COUNT(LINKS); i++)
        must(symlinkat(LINKS[i][1], dev, LINKS[i][0]), "/dev/%s", LINKS[i][0]);
    must(fchownat(dev, "tty", owner, number(spec, "tty_group"), 0), "/dev/tty");
    umask(old);
}

/* One node of each kind that nobody can open: what a guest's systemd mounts over what is to be hidden, and could not
   make itself. */
static void make_inaccessible(int host)
{
    make_folder(host, "inaccessible", 0755);
    make_folder(host, "inaccessible/dir", 0);
    for (size_t i = 0; i < COUNT(NODES); i++) {
        char path[32];
        snprintf(path, sizeof path, "inaccessible/%s", NODES[i].name);
        must(mknodat(host, path, NODES[i].kind, 0), "%s", path);
    }
}

static void describe_host(json spec, int host)
{
    static const char manager[] = "syscont\n";
    char line[64], release[1 << 14];
    snprintf(line, sizeof line, "%s\n", text(spec, "uuid"));
    must(write_at(host, "container-manager", manager, sizeof manager - 1, 0444), "container-manager");
    must(write_at(host, "container-uuid", line, strlen(line), 0444), "container-uuid");
    size_t size = read_small("/etc/os-release", release, sizeof release);
    must(write_at(host, "os-release", release, size, 0444), "os-release");
    make_folder(host, "incoming", 0700);
    make_inaccessible(host);
}

static int listen_for_notes(int host)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int yes = 1, sock = must(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "notify");
    must(setsockopt(sock, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes), "notify");
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/notify", host);
    must(bind(sock, (struct sockaddr *)&address, sizeof address), "notify");
    must(fchmodat(host, "notify", 0666, 0), "notify");
    return sock;
}

/* Mount /dev and /run, and leave in the tree what the guest is to find there. */
void fill_root(json spec, int root, struct sockets *sockets)
{
    unsigned int owner = number(spec, "id_base");
    struct stat status;
    close(mount_point(root, "proc"));
    close(mount_point(root, "sys"));
    if (fstatat(root, "tmp", &status, AT_SYMLINK_NOFOLLOW) < 0)
        make_folder(root, "tmp", 0755);
    int dev = mount_tmpfs(owner, mount_point(root, "dev"), "0755", "4m");
    fill_dev(spec, dev);
    int run = mount_tmpfs(owner, mount_point(root, "run"), "0755", "20%");
    make_folder(run, "host", 0755);
    int host = mount_tmpfs(owner, must(beneath(root, "run/host"), "/run/host"), "0755", "1m");
    describe_host(spec, host);
    put_credentials(host, member(spec, "credentials", json_type_object));
    put_templates(spec, root);
    put_seed(root, member(spec, "seed", json_type_object));
    add_socket(sockets, "notify", listen_for_notes(host));
    must(sc_mount_attributes(host, "", READ_ONLY, 0, 0), "/run/host");
    add_socket(sockets, "guestapi", listen_at(dev, "syscont"));
    if (truth(spec, "lxd_socket"))
        add_socket(sockets, "lxdapi", listen_at(dev, "lxd"));
}

static int open_namespace(pid_t leader)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/ns/net", leader);
    return must(open(path, O_RDONLY | O_CLOEXEC), "%s", path);
}

void enable_network(json spec, int netlink, pid_t leader)
{
    int netns = open_namespace(leader);
    must(dup3(netns, NETNS_FD, O_CLOEXEC), "network namespace");
    close(netns);
    replay_all(netlink, member(spec, "host_links", json_type_array));
}

/* Mount the guest's network namespace in the host's mount namespace. The unit's ExecStopPost= takes it away. */
void pin_network(json spec, int host_mounts, pid_t leader)
{
    char path[40], place[sizeof PIN_DIR + 64];
    struct stat there, above;
    snprintf(path, sizeof path, "/proc/%d/ns/net", leader);
    snprintf(place, sizeof place, PIN_DIR "/%s", text(spec, "uuid"));
    must(sc_setns(host_mounts, CLONE_NEWNS), "mount namespace of the host");
    if (stat(place, &there) == 0 && stat(PIN_DIR, &above) == 0 && there.st_dev != above.st_dev)
        must(sc_unmount(place), "%s", place);
    close(must(open(place, O_WRONLY | O_CREAT | O_CLOEXEC, 0400), "%s", place));
    int tree = must(sc_open_tree(AT_FDCWD, path, CLONE_TREE), "%s", path);
    must(sc_move_mount(tree, must(open(place, O_PATH | O_CLOEXEC), "%s", place), ""), "%s", place);
}
