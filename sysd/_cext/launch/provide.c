/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is left in a guest's tree for it to find: sockets on which it can ask the host, credentials for its systemd, the
 * files that its image wants made, and the seed of its cloud-init.
 *
 * Sources: systemd.io CONTAINER_INTERFACE and CREDENTIALS, systemd-nspawn's mount_credentials(), cloud-init's NoCloud.
 */
#include "launch.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SEED "var/lib/cloud/seed/nocloud-net"
#define MADE_FOR "made-for"
enum { BACKLOG = 64, NAMES = 160 };

/* The socket /dev/FOLDER/sock, for root of the guest. The daemon accepts on it, this one or the next. */
int listen_at(int dev, const char *folder)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    make_folder(dev, folder, 0755);
    int place = must(openat(dev, folder, O_PATH | O_DIRECTORY | O_CLOEXEC), "/dev/%s", folder);
    int sock = must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "/dev/%s", folder);
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/sock", place);
    must(bind(sock, (struct sockaddr *)&address, sizeof address), "/dev/%s/sock", folder);
    must(fchmodat(place, "sock", 0600, 0), "/dev/%s/sock", folder);
    must(listen(sock, BACKLOG), "/dev/%s/sock", folder);
    close(place);
    return sock;
}

/* A file system for secrets. Its folder belongs to whom we act for on file systems (sc_set_fs_ids): guest's root. */
static int memory_never_swapped(void)
{
    const char *options[] = { "source", "credentials", "mode", "0700", "noswap", "", NULL };
    int mount = sc_new_mount("tmpfs", options, 0);
    if (mount >= 0 || errno != EINVAL)
        return must(mount, "credentials");
    options[4] = NULL; /* no such option before Linux 6.4 */
    return must(sc_new_mount("ramfs", options, 0), "credentials");
}

/* Put credentials, given in hex, into CREDENTIALS, the folder host being /run/host. */
void put_credentials(int host, json credentials)
{
    size_t size;
    if (!json_object_object_length(credentials))
        return;
    make_folder(host, "credentials", 0700);
    int mount = memory_never_swapped();
    int place = must(openat(host, "credentials", O_PATH | O_DIRECTORY | O_CLOEXEC), "credentials");
    must(sc_move_mount(mount, place, ""), "credentials");
    json_object_object_foreach(credentials, name, value) {
        unsigned char *data = from_hex(json_object_get_string(value), &size);
        must(write_at(mount, name, data, size, 0400), "credential %s", name);
        free(data);
    }
    must(sc_mount_attributes(mount, "", READ_ONLY | STRICT, 0, 0), "credentials");
    close(place);
    close(mount);
}

/* Write a file in the guest's tree, in place of what is there; false where that can't be done, which is said. */
static bool put_file(int root, const char *path, json data, mode_t mode, bool only_new)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char *parent = slash ? strndup(path, slash - path) : strdup(".");
    int folder = parent ? beneath(root, parent) : -1;
    int put = -1;
    if (folder >= 0) {
        const char *bytes = json_object_get_string(data);
        size_t size = json_object_get_string_len(data);
        put = write_at(folder, name, bytes, size, mode);
        if (put < 0 && errno == EEXIST)
            put = only_new ? 0 : unlinkat(folder, name, 0) < 0 ? -1 : write_at(folder, name, bytes, size, mode);
    }
    if (put < 0)
        fprintf(stderr, "/%s was not written: %s%m\n", path, folder < 0 ? "no plain folders lead there: " : "");
    if (folder >= 0)
        close(folder);
    free(parent);
    return put == 0;
}

/* Write cloud-init's seed into an image that has cloud-init; the guest does not run yet. Where the guest has put
   something in the way it goes without: that is no reason not to start. */
void put_seed(int root, json seed)
{
    int there = sc_openat2(root, "etc/cloud", O_PATH | O_DIRECTORY, BENEATH | NO_MAGICLINKS);
    if (there < 0)
        return;
    close(there);
    json_object_object_foreach(seed, name, value) {
        char path[sizeof SEED + NAMES];
        snprintf(path, sizeof path, SEED "/%s", name);
        if (!put_file(root, path, value, 0600, false))
            return;
    }
}

/* For which instance files were made last, as "UUID NAME"; empty when never. Kept beside its layer, where the guest
   can't reach. */
static void read_marker(const char *path, char *known, size_t size)
{
    ssize_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT)
        give_up("%s: %m", path);
    if (fd >= 0) {
        got = must(read(fd, known, size - 1), "%s", path);
        close(fd);
    }
    known[got] = 0;
}

static void write_marker(const char *path, const char *identity)
{
    char draft[PATH_MAX + 8];
    snprintf(draft, sizeof draft, "%s.new", path);
    int fd = must(open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644), "%s", draft);
    if (write(fd, identity, strlen(identity)) < 0 || rename(draft, path) < 0)
        give_up("%s: %m", path);
    close(fd);
}

/* Those that a trigger asks for; each is its path, its text, and "new" when it is made only where there is none. */
static void make_files(json templates, const char *trigger, int root)
{
    json files = NULL;
    if (json_object_object_get_ex(templates, trigger, &files) && !json_object_is_type(files, json_type_array))
        give_up("templates are no list in what there is to do");
    for (size_t i = 0; files && i < json_object_array_length(files); i++) {
        json file = json_object_array_get_idx(files, i);
        const char *path = text_at(file, 0);
        bool only_new = *text_at(file, 2);
        text_at(file, 1);
        put_file(root, path + strspn(path, "/"), json_object_array_get_idx(file, 1), 0644, only_new);
    }
}

/* Make the files that the image wants made: at the first start, at those after the instance was copied or renamed, and
   at each start. */
void put_templates(json spec, int root)
{
    char marker[PATH_MAX], known[NAMES], identity[NAMES];
    const char *uuid = text(spec, "uuid");
    json templates = member(spec, "templates", json_type_object);
    if (!json_object_object_length(templates))
        return;
    snprintf(marker, sizeof marker, "%s/%s", text(spec, "state_dir"), MADE_FOR);
    snprintf(identity, sizeof identity, "%s %s", uuid, text(spec, "name"));
    read_marker(marker, known, sizeof known);
    bool same = strcmp(known, identity) == 0;
    bool same_instance = strncmp(known, uuid, strlen(uuid)) == 0;
    if (!same)
        make_files(templates, !*known ? "create" : same_instance ? "rename" : "copy", root);
    make_files(templates, "start", root);
    if (!same)
        write_marker(marker, identity);
}
