/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the host is shown in a guest's tree: folders and files (disks), and device nodes. A share is
 * sysd.runtime.spec.Share as JSON.
 *
 * Always in three steps, when a guest starts as well as while it runs:
 *
 *   prepare   as the host's root, in a mount namespace of our own: each one is mounted at a numbered place
 *   collect   with the guest's user namespace entered, in a copy of that mount namespace: when it is copied the kernel
 *             locks the mounts' attributes, so that no guest can make a read-only one writable (mount_namespaces(7))
 *   attach    in the guest's own mount namespace, with no more rights than its root has
 *
 * In the copy each mount is also locked in its place; a clone of it, which collect gives, is not, so that it can be
 * taken away while the guest runs. Nodes are made in a tmpfs of ours: no file system of the guest's ever holds one.
 */
#include "launch.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const uint64_t INSIDE = IN_ROOT | NO_MAGICLINKS;

static json item(json list, size_t index)
{
    return json_object_array_get_idx(list, index);
}

static unsigned int pair(json share, const char *name, size_t index)
{
    return json_object_get_int64(item(member(share, name, json_type_array), index));
}

static dev_t device_of(json share)
{
    return makedev(pair(share, "number", 0), pair(share, "number", 1));
}

static bool is_node(json share)
{
    return *text(share, "node");
}

static void make_node(int places, const char *name, json share, unsigned int id_base)
{
    mode_t kind = strcmp(text(share, "node"), "block") == 0 ? S_IFBLK : S_IFCHR;
    if (mknodat(places, name, kind, device_of(share)) < 0 || fchmodat(places, name, number(share, "mode"), 0) < 0 ||
        fchownat(places, name, id_base + pair(share, "owner", 0), id_base + pair(share, "owner", 1), 0) < 0)
        give_up("device %s: %m", text(share, "device"));
}

/* Ours, and of it the one place that is shown in guests. */
static bool is_ours(const char *path)
{
    static const char *const ours[] = { "/var/lib/syscont/", "/run/syscont/" };
    static const char sockets[] = "/run/syscont/proxies/";
    for (size_t i = 0; i < 2; i++)
        if (strncmp(path, ours[i], strlen(ours[i])) == 0)
            return strncmp(path, sockets, strlen(sockets)) != 0;
    return false;
}

/* The source on the host, -1 when it is not there. What is ours is shown to no guest, whatever path or link leads
   there. */
static int open_source(json share)
{
    char link[32], real[PATH_MAX + 1];
    const char *source = text(share, "source"), *device = text(share, "device");
    int found = sc_openat2(AT_FDCWD, source, O_PATH, NO_MAGICLINKS);
    if (found < 0 && errno == ENOENT)
        return -1;
    must(found, "device %s: %s", device, source);
    snprintf(link, sizeof link, "/proc/self/fd/%d", found);
    ssize_t length = must(readlink(link, real, PATH_MAX - 1), "device %s: %s", device, source);
    memcpy(real + length, "/", 2);
    if (is_ours(real))
        give_up("device %s: %s is syscont's own", device, source);
    return found;
}

/* A detached mount of the source, as the guest is to see it. */
static int clone_source(json share, int source, int userns)
{
    char link[32];
    const char *device = text(share, "device"), *path = text(share, "source");
    bool recursive = truth(share, "recursive");
    snprintf(link, sizeof link, "/proc/self/fd/%d", source);
    int tree = must(sc_open_tree(AT_FDCWD, link, CLONE_TREE | (recursive ? ALL_BELOW : 0)), "device %s: %s", device, path);
    if (truth(share, "shift") && userns >= 0)
        must(sc_idmap_mount(tree, userns, recursive), "device %s: %s can't be shifted", device, path);
    must(sc_mount_attributes(tree, "", number(share, "attributes"), truth(share, "slave") ? SLAVE : PRIVATE, recursive),
         "device %s: %s", device, path);
    return tree;
}

static void bind_source(int places, const char *name, json share, int userns)
{
    struct stat status;
    int source = open_source(share);
    if (source < 0) {
        if (truth(share, "required"))
            give_up("device %s: %s is not there", text(share, "device"), text(share, "source"));
        return;
    }
    int tree = clone_source(share, source, userns);
    must(fstat(source, &status), "device %s", text(share, "device"));
    if (S_ISDIR(status.st_mode))
        make_folder(places, name, 0700);
    else
        must(write_at(places, name, "", 0, 0600), "device %s", text(share, "device"));
    int place = must(openat(places, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), "device %s", text(share, "device"));
    must(sc_move_mount(tree, place, ""), "device %s: %s", text(share, "device"), text(share, "source"));
    close(place);
    close(tree);
    close(source);
}

/* Mount each at its place. One that is not there and not required has none. userns is negative for a privileged guest,
   to which nothing is shifted. */
void prepare_shares(json shares, int userns, unsigned int id_base)
{
    char name[24];
    const char *options[] = { "source", "syscont", "mode", "0755", NULL };
    int places = must(sc_new_mount("tmpfs", options, NO_SUID | NO_EXEC), "places of devices");
    int at = must(open(SHARE_PLACES, O_PATH | O_DIRECTORY | O_CLOEXEC), "%s", SHARE_PLACES);
    must(sc_move_mount(places, at, ""), "places of devices");
    close(at);
    for (size_t i = 0; i < json_object_array_length(shares); i++) {
        snprintf(name, sizeof name, "%zu", i);
        if (is_node(item(shares, i)))
            make_node(places, name, item(shares, i), id_base);
        else
            bind_source(places, name, item(shares, i), userns);
    }
    close(places);
}

/* Detached clones, one for each; -1 for those that have no place. */
int *collect_shares(json shares)
{
    char place[sizeof SHARE_PLACES + 24];
    size_t count = json_object_array_length(shares);
    int *trees = calloc(count + 1, sizeof *trees);
    if (!trees)
        give_up("no memory");
    for (size_t i = 0; i < count; i++) {
        snprintf(place, sizeof place, SHARE_PLACES "/%zu", i);
        trees[i] = sc_open_tree(AT_FDCWD, place, CLONE_TREE | ALL_BELOW);
        if (trees[i] < 0 && errno != ENOENT)
            give_up("device %s: %m", text(item(shares, i), "device"));
    }
    return trees;
}

/* The folder path beneath root; when missing it is made as name in the folder at. */
static int folder_at(int root, const char *path, int at, const char *name)
{
    int found = sc_openat2(root, path, O_PATH | O_DIRECTORY, INSIDE);
    if (found >= 0 || errno != ENOENT || mkdirat(at, name, 0755) < 0)
        return found;
    return sc_openat2(at, name, O_PATH | O_DIRECTORY, BENEATH | NO_SYMLINKS);
}

static int make_last(int at, const char *name, bool directory)
{
    if ((directory ? mkdirat(at, name, 0755) : write_at(at, name, "", 0, 0644)) < 0)
        return -1;
    return sc_openat2(at, name, O_PATH, BENEATH | NO_SYMLINKS);
}

/* The folder or file at path in the guest's tree, made when missing; -1 where that can't be. Links of the guest's are
   followed as the guest itself would, and none leads out of its root. */
static int within(int root, const char *path, bool directory)
{
    char walked[PATH_MAX] = "", copy[PATH_MAX], *rest = copy;
    int at = root, found = sc_openat2(root, path, O_PATH, INSIDE);
    if (found >= 0 || errno != ENOENT)
        return found;
    if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (char *next, *word = strtok_r(rest, "/", &rest); at >= 0 && word; word = next) {
        next = strtok_r(NULL, "/", &rest);
        strcat(strcat(walked, "/"), word);
        found = next ? folder_at(root, walked, at, word) : make_last(at, word, directory);
        int failure = errno;
        if (at != root)
            close(at);
        errno = failure;
        at = found;
    }
    return found;
}

/* Show them beneath root, the guest's. The caller has the rights of the guest's root, and no more. */
void attach_shares(json shares, const int *trees, int root)
{
    struct stat status;
    for (size_t i = 0; i < json_object_array_length(shares); i++) {
        const char *path = text(item(shares, i), "path"), *device = text(item(shares, i), "device");
        if (trees[i] < 0)
            continue;
        must(fstat(trees[i], &status), "device %s", device);
        int target = must(within(root, path, S_ISDIR(status.st_mode)),
                          "device %s: there is no place for it at %s of the instance", device, path);
        must(sc_move_mount(trees[i], target, ""), "device %s: %s of the instance", device, path);
        close(target);
        close(trees[i]);
    }
}

/* What it is known by in the guest; nothing for a source that is gone. In the host's view. */
struct identity identify_share(json share)
{
    struct stat status;
    if (is_node(share))
        return (struct identity){ 0, device_of(share) };
    if (stat(text(share, "source"), &status) < 0)
        return (struct identity){ 0, 0 };
    return (struct identity){ status.st_dev, status.st_ino };
}

static void remove_placeholder(int root, const char *path)
{
    struct stat status;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char *parent = slash && slash != path ? strndup(path, slash - path) : strdup("/");
    int at = must(sc_openat2(root, parent, O_PATH | O_DIRECTORY, INSIDE), "%s of the instance", path);
    if (fstatat(at, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode) && status.st_size == 0)
        must(unlinkat(at, name, 0), "%s of the instance", path);
    close(at);
    free(parent);
}

/* Take it away from a guest; proc is the host's /proc. Gives up when the guest has something else at its place: what it
   has put elsewhere is gone after its next start. */
void detach_share(json share, struct identity known, int root, int proc)
{
    char link[32];
    struct stat status;
    const char *path = text(share, "path"), *device = text(share, "device");
    int found = sc_openat2(root, path, O_PATH | O_NOFOLLOW, INSIDE);
    if (found < 0 && errno == ENOENT)
        return;
    must(found, "device %s: %s of the instance", device, path);
    must(fstat(found, &status), "device %s", device);
    struct identity seen = { status.st_dev, status.st_ino };
    if (is_node(share))
        seen = (struct identity){ 0, status.st_rdev };
    if ((known.device || known.inode) && (seen.device != known.device || seen.inode != known.inode))
        give_up("device %s: %s of the instance is something else by now", device, path);
    snprintf(link, sizeof link, "self/fd/%d", found);
    must(fchdir(proc), "/proc");
    must(sc_unmount(link), "umount %s", path);
    must(chdir("/"), "/");
    close(found);
    if (is_node(share))
        remove_placeholder(root, path);
}
