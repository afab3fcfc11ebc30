/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where QEMU runs: a tree that has its program and its libraries, the devices that it was given and nothing else of the
 * host's, a network namespace with nothing but its own interfaces, a user of its own, no capabilities. A guest that has taken over its
 * QEMU finds itself there.
 *
 * Sources: capabilities(7), pivot_root(2) NOTES, proc(5) "Mount options".
 */
#include "machine.h"
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include "../confine.h"

static const char *const LINKS[] = { "bin", "lib", "lib64", "sbin" };
static const struct { const char *name; unsigned int minor; } DEVICES[] = {
    { "null", 3 }, { "zero", 5 }, { "full", 7 }, { "random", 8 }, { "urandom", 9 },
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* A new file system at a new folder; its root. options are as sc_new_mount takes them. */
static int attach(int root, const char *type, const char *name, const char *const *options, unsigned int attributes)
{
    make_folder(root, name, 0755);
    int mount = must(sc_new_mount(type, options, attributes), "%s", type);
    must(sc_move_mount(mount, root, name), "/%s of QEMU", name);
    return mount;
}

/* Something of the host's, in place of what is at name. */
static void show(int root, const char *path, const char *name)
{
    int tree = must(sc_open_tree(AT_FDCWD, path, CLONE_TREE), "%s", path);
    must(sc_mount_attributes(tree, "", READ_ONLY | NO_SUID | NO_DEV, PRIVATE, 0), "%s", path);
    must(sc_move_mount(tree, root, name), "%s", path);
    close(tree);
}

static void show_programs(int root)
{
    char path[16], target[64];
    make_folder(root, "usr", 0755);
    show(root, "/usr", "usr");
    for (size_t i = 0; i < COUNT(LINKS); i++) {
        snprintf(path, sizeof path, "/%s", LINKS[i]);
        ssize_t size = readlink(path, target, sizeof target - 1);
        if (size < 0 && errno == ENOENT)
            continue;
        target[must(size, "%s is no link into /usr", path)] = 0;
        must(symlinkat(target, root, LINKS[i]), "%s", path);
    }
    make_folder(root, "etc", 0755);
    must(write_at(root, "etc/ld.so.cache", "", 0, 0444), "/etc/ld.so.cache");
    show(root, "/etc/ld.so.cache", "etc/ld.so.cache");
}

/* The device of the host's at path, for QEMU alone. */
static void give_device(int dev, const char *path, unsigned int owner)
{
    struct stat status;
    const char *name = path + strlen("/dev/");
    if (strncmp(path, "/dev/", strlen("/dev/")) != 0)
        give_up("%s: not in /dev", path);
    must(stat(path, &status), "%s", path);
    if (!S_ISCHR(status.st_mode))
        give_up("%s: not a character device", path);
    const char *slash = strrchr(name, '/');
    if (slash) {
        char above[256];
        snprintf(above, sizeof above, "%.*s", (int)(slash - name), name);
        close(must(beneath(dev, above), "%s", path));
    }
    must(mknodat(dev, name, S_IFCHR | 0600, status.st_rdev), "%s", path);
    must(fchownat(dev, name, owner, owner, AT_SYMLINK_NOFOLLOW), "%s", path);
}

/* An older daemon says nothing of them. */
static json functions_of(json spec)
{
    json found = NULL;
    return json_object_object_get_ex(spec, "functions", &found) ? found : json_object_new_object();
}

static void fill_dev(int dev, json spec, unsigned int owner)
{
    json nodes = member(spec, "nodes", json_type_array);
    umask(0);
    for (size_t i = 0; i < COUNT(DEVICES); i++)
        must(mknodat(dev, DEVICES[i].name, S_IFCHR | 0666, makedev(1, DEVICES[i].minor)), "/dev/%s", DEVICES[i].name);
    umask(022);
    must(symlinkat("/proc/self/fd", dev, "fd"), "/dev/fd");
    for (size_t i = 0; i < json_object_array_length(nodes); i++)
        give_device(dev, text_at(nodes, i), owner);
    give_functions(dev, functions_of(spec), owner);
    must(sc_mount_attributes(dev, "", READ_ONLY, 0, 0), "/dev of QEMU");
    close(dev);
}

/* The pid namespace is the host's: of it QEMU sees itself. */
static const char *const PROC[] = { "source", "proc", "subset", "pid", "hidepid", "invisible", NULL };
static const char *const DEV[] = { "source", "tmpfs", "mode", "0755", "size", "64k", NULL };
static const char *const TMP[] = { "source", "tmpfs", "mode", "1777", "size", "64m", NULL };
static const char *const ROOT[] = { "source", "tmpfs", "mode", "0755", "size", "64k", NULL };

static void enter_tree(json spec, unsigned int owner)
{
    must(sc_mount_attributes(AT_FDCWD, "/", 0, PRIVATE, 1), "mount namespace");
    int mount = must(sc_new_mount("tmpfs", ROOT, STRICT), "root of QEMU");
    must(sc_move_mount(mount, AT_FDCWD, LAUNCH_DIR "/root"), "%s", LAUNCH_DIR "/root");
    close(mount);
    must(chdir(LAUNCH_DIR "/root"), "root of QEMU");
    int root = must(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), "root of QEMU");
    umask(022);
    show_programs(root);
    fill_dev(attach(root, "tmpfs", "dev", DEV, NO_SUID | NO_EXEC), spec, owner);
    close(attach(root, "proc", "proc", PROC, STRICT));
    close(attach(root, "tmpfs", "tmp", TMP, STRICT));
    must(sc_mount_attributes(root, "", READ_ONLY, 0, 0), "root of QEMU");
    close(root);
    must(sc_pivot_root(), "pivot_root");
    must(chdir("/"), "/");
}

/* The bounding set first: to take from it is a capability. */
static void drop_rights(unsigned int owner)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { 0 };
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        must(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "capability bounding set");
    must(sc_set_ids(owner, owner), "ids of QEMU");
    must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "capabilities");
    must(syscall(SYS_capset, &header, none), "capabilities");
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
}

/* As a program expects them that is started by hand. SIGPIPE is ignored in services (systemd.exec(5)). */
static void reset_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void enter_den(json spec)
{
    unsigned int owner = number(spec, "owner");
    const char *name = text(spec, "name");
    must(sc_unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS), "namespaces");
    must(sc_setns(den_network(), CLONE_NEWNET), "network namespace of QEMU");
    must(sethostname(name, strlen(name)), "host name");
    enter_tree(spec, owner);
    must(leave_keyring(), "new session keyring");
    reset_signals();
    umask(077);
    drop_rights(owner);
}
