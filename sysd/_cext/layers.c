/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An instance's tree, put together from its layers: for the launcher, and for workers on the files of a stopped
 * instance (sysd.runtime.inside). Source: overlayfs.rst.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include "native.h"
#include "places.h"

/* Layers must be attached before an overlay can use them (until Linux 6.15): each has a fixed place. */
static int show_layer(const char *source, const char *place, int userns)
{
    int tree = sc_open_tree(AT_FDCWD, source, 1 /* OPEN_TREE_CLONE */ | O_CLOEXEC);
    if (tree < 0 || (userns >= 0 && sc_idmap_mount(tree, userns, 0) < 0))
        return -1;
    int at = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (at < 0 || sc_move_mount(tree, at, "") < 0)
        return -1;
    close(at);
    close(tree);
    return 0;
}

static int mount_overlay(const char *name)
{
    const char *options[] = { "source", name, "lowerdir", LAUNCH_DIR "/image",
                              "upperdir", LAUNCH_DIR "/state/upper", "workdir", LAUNCH_DIR "/state/work",
                              "redirect_dir", "on",
                              /* Layers are copied (snapshots): with an index, the kernel would take a copy for a
                                 damaged one. */
                              "index", "off", NULL };
    int overlay = sc_new_mount("overlay", options, 0);
    if (overlay < 0)
        return -1;
    int place = open(LAUNCH_DIR "/root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (place < 0 || sc_move_mount(overlay, place, "") < 0)
        return -1;
    close(place);
    close(overlay);
    return open(LAUNCH_DIR "/root", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/*
 * The overlay of the image and the instance's own layer, both shifted into the user namespace; its root. userns is
 * negative for a privileged guest, which has none. On failure *what is what failed.
 *
 * The caller has a mount namespace of its own, and the layers' lock. From here on it touches files as the guest's
 * root: what overlayfs makes in its work folder is owned by whoever mounts, and must be of an id of the guest's.
 */
int sc_mount_layers(const char *name, const char *rootfs, const char *state_dir, unsigned int id_base, int userns,
                    const char **what)
{
    *what = rootfs;
    if (show_layer(rootfs, LAUNCH_DIR "/image", userns) < 0)
        return -1;
    *what = state_dir;
    if (show_layer(state_dir, LAUNCH_DIR "/state", userns) < 0)
        return -1;
    *what = "overlay";
    return sc_set_fs_ids(id_base, id_base) < 0 ? -1 : mount_overlay(name);
}
