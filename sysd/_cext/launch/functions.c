/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI functions that a machine has (sysd.runtime.vm.lending). QEMU gets a descriptor of each where the kernel has iommufd.
 * Where it has not, QEMU opens the node of the function's IOMMU group by name, which it looks up in sysfs:
 *
 *     /dev/vfio/vfio, /dev/vfio/GROUP          the nodes, for QEMU alone
 *     /dev/vfio/ADDRESS/iommu_group -> GROUP   what it looks up, in place of sysfs
 *
 * Sources: the kernel's driver-api/vfio.rst; QEMU's docs/devel/vfio-iommufd.rst, hw/vfio/container.c.
 */
#include "machine.h"
#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define NODES "/dev/vfio"
#define CONTAINER "vfio"

enum { MOST = 64 };

static const char *const TMPFS[] = { "source", "tmpfs", "mode", "0755", "size", "64k", NULL };

int open_function(const char *address)
{
    char path[512];
    struct dirent *entry;
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/vfio-dev", address);
    DIR *folder = opendir(path);
    if (!folder)
        give_up("PCI function %s is not bound to vfio-pci", address);
    while ((entry = readdir(folder)) && entry->d_name[0] == '.')
        ;
    if (!entry)
        give_up("%s: nothing is there", path);
    snprintf(path, sizeof path, NODES "/devices/%s", entry->d_name);
    closedir(folder);
    return must(open(path, O_RDWR | O_CLOEXEC), "%s", path);
}

/* --- the nodes of groups --- */

struct nodes { size_t count; struct { const char *name; dev_t number; } of[MOST + 1]; };

static void look_at(struct nodes *nodes, const char *name)
{
    char path[128];
    struct stat status;
    snprintf(path, sizeof path, NODES "/%s", name);
    must(stat(path, &status), "%s", path);
    if (!S_ISCHR(status.st_mode))
        give_up("%s: not a character device", path);
    if (nodes->count > MOST)
        give_up("more than %d groups of PCI functions", MOST);
    nodes->of[nodes->count].name = name;
    nodes->of[nodes->count++].number = status.st_rdev;
}

static bool has(const struct nodes *nodes, const char *name)
{
    for (size_t i = 0; i < nodes->count; i++)
        if (strcmp(nodes->of[i].name, name) == 0)
            return true;
    return false;
}

/* While we see the host's /dev. */
static struct nodes find_nodes(json functions)
{
    struct nodes nodes = { 0 };
    json_object_object_foreach(functions, address, group) {
        (void)address;
        const char *name = json_object_get_string(group);
        if (!nodes.count)
            look_at(&nodes, CONTAINER);
        if (!has(&nodes, name))
            look_at(&nodes, name);
    }
    return nodes;
}

/* Whoever holds one without having opened it can't do so any more. */
static void withdraw(int folder, const char *name)
{
    char link[300];
    snprintf(link, sizeof link, "%s/iommu_group", name);
    if (unlinkat(folder, link, 0) == 0) {
        must(unlinkat(folder, name, AT_REMOVEDIR), "%s", name);
        return;
    }
    must(fchownat(folder, name, 0, 0, AT_SYMLINK_NOFOLLOW), "%s", name);
    must(fchmodat(folder, name, 0, 0), "%s", name);
    must(unlinkat(folder, name, 0), "%s", name);
}

static void withdraw_others(int folder, const struct nodes *nodes, json functions)
{
    struct dirent *entry;
    DIR *entries = fdopendir(must(dup(folder), NODES));
    if (!entries)
        give_up(NODES ": %m");
    rewinddir(entries);
    while ((entry = readdir(entries)))
        if (entry->d_name[0] != '.' && !has(nodes, entry->d_name) &&
            !json_object_object_get_ex(functions, entry->d_name, NULL))
            withdraw(folder, entry->d_name);
    closedir(entries);
}

/* What is there already stays. */
static void show_nodes(int folder, const struct nodes *nodes, json functions, unsigned int owner)
{
    umask(022);
    withdraw_others(folder, nodes, functions);
    for (size_t i = 0; i < nodes->count; i++) {
        const char *name = nodes->of[i].name;
        if (mknodat(folder, name, S_IFCHR | 0600, nodes->of[i].number) < 0 && errno == EEXIST)
            continue;
        must(fchownat(folder, name, owner, owner, AT_SYMLINK_NOFOLLOW), NODES "/%s", name);
    }
    json_object_object_foreach(functions, address, group) {
        char link[300];
        if (mkdirat(folder, address, 0755) < 0 && errno == EEXIST)
            continue;
        snprintf(link, sizeof link, "%s/iommu_group", address);
        must(symlinkat(json_object_get_string(group), folder, link), "%s", link);
    }
}

/* The place of the nodes in a /dev of QEMU's, and a file system of their own there when they are needed: that stays
   writable for us, and never was for QEMU. */
void give_functions(int dev, json functions, unsigned int owner)
{
    make_folder(dev, "vfio", 0755);
    struct nodes nodes = find_nodes(functions);
    if (!nodes.count)
        return;
    int mount = must(sc_new_mount("tmpfs", TMPFS, NO_SUID | NO_EXEC), "tmpfs");
    must(sc_move_mount(mount, dev, "vfio"), NODES " of QEMU");
    int folder = must(openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), NODES " of QEMU");
    show_nodes(folder, &nodes, functions, owner);
    close(folder);
    close(mount);
}

void change_functions(int pidfd, json functions, unsigned int owner)
{
    struct stat here, above;
    struct nodes nodes = find_nodes(functions);
    must(sc_setns(pidfd, CLONE_NEWNS), "mount namespace of QEMU");
    int folder = must(open(NODES, O_RDONLY | O_DIRECTORY | O_CLOEXEC), NODES " of QEMU");
    must(fstat(folder, &here), NODES);
    must(stat("/dev", &above), "/dev");
    if (here.st_dev == above.st_dev) {
        int mount = must(sc_new_mount("tmpfs", TMPFS, NO_SUID | NO_EXEC), "tmpfs");
        must(sc_move_mount(mount, folder, ""), NODES " of QEMU");
        folder = must(open(NODES, O_RDONLY | O_DIRECTORY | O_CLOEXEC), NODES " of QEMU");
    }
    show_nodes(folder, &nodes, functions, owner);
}
