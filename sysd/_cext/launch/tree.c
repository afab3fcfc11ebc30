/* SPDX-License-Identifier: Apache-2.0 */
#include "launch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int make_folder(int at, const char *name, mode_t mode)
{
    return must(mkdirat(at, name, mode), "folder %s", name);
}

int beneath(int root, const char *path)
{
    int found = sc_openat2(root, path, O_PATH | O_DIRECTORY, BENEATH | NO_SYMLINKS);
    if (found >= 0 || errno != ENOENT)
        return found;
    char *parent = strdup(path), *slash = parent ? strrchr(parent, '/') : NULL;
    int at = root;
    if (slash) {
        *slash = 0;
        at = beneath(root, parent);
    }
    if (at >= 0 && mkdirat(at, slash ? slash + 1 : path, 0755) == 0)
        found = sc_openat2(root, path, O_PATH | O_DIRECTORY, BENEATH | NO_SYMLINKS);
    int failure = errno;
    if (at >= 0 && at != root)
        close(at);
    free(parent);
    errno = failure;
    return found;
}

/* A link that the guest has left in its place is removed: the guest would not start ever again, and the link leads to
   nothing that it could see. */
int mount_point(int root, const char *name)
{
    struct stat status;
    if (fstatat(root, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(status.st_mode))
        must(unlinkat(root, name, 0), "link in place of /%s", name);
    return must(beneath(root, name), "/%s of the instance is not a plain directory", name);
}

int write_at(int folder, const char *name, const void *data, size_t size, mode_t mode)
{
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    ssize_t written;
    for (const char *at = data; fd >= 0 && size; at += written, size -= written)
        if ((written = write(fd, at, size)) < 0)
            break;
    int failure = errno;
    if (fd >= 0)
        close(fd);
    errno = failure;
    return fd >= 0 && !size ? 0 : -1;
}

int mount_tmpfs(unsigned int owner, int at, const char *mode, const char *size)
{
    char id[16];
    snprintf(id, sizeof id, "%u", owner);
    const char *options[] = { "source", "tmpfs", "mode", mode, "uid", id, "gid", id, "size", size, NULL };
    int mount = must(sc_new_mount("tmpfs", options, NO_SUID), "tmpfs");
    must(sc_move_mount(mount, at, ""), "tmpfs");
    close(at);
    return mount;
}
