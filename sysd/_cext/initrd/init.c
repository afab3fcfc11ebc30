/* SPDX-License-Identifier: Apache-2.0 */
/* The first process of a virtual machine that starts with its image's kernel. It loads the modules that it was packed
 * with, mounts the root file system, and becomes the init there: what initramfs-tools does for any machine with a shell
 * and udev takes a good part of such a machine's start.
 *
 * It runs in the guest, and has no more to say than the guest. What goes wrong is told on the console, and then the
 * machine is off, so that the host sees that it has failed. */

#include "init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/reboot.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MODULES "/modules"
#define ROOT "/root"
#define STEP_MS 5
#define PATIENCE 30

static const char *const INITS[] = {"/sbin/init", "/lib/systemd/systemd", "/etc/init", "/bin/init", "/bin/sh"};

static _Noreturn void give_up(const char *what, const char *which)
{
    fprintf(stderr, "initrd: %s %s: %s\n", what, which, strerror(errno));
    tcdrain(STDERR_FILENO);
    sync();
    reboot(RB_POWER_OFF);
    _exit(1);
}

static void load(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    /* Not each processor has what a module is for. */
    if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST && errno != ENODEV)
        fprintf(stderr, "initrd: %s can't be loaded: %m\n", path);
    close(fd);
    unlink(path);
}

/* They are named in the order in which they need each other, and take memory as long as they are files. */
static void load_all(void)
{
    struct dirent **found;
    int count = scandir(MODULES, &found, NULL, alphasort);
    for (int at = 0; at < count; at++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, MODULES "/%s", found[at]->d_name);
        if (found[at]->d_name[0] != '.')
            load(path);
    }
    rmdir(MODULES);
}

static time_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

static void wait_for(const char *root, char *path, size_t size)
{
    for (time_t deadline = now() + PATIENCE; !find_root(root, path, size);) {
        if (now() >= deadline) {
            errno = ENODEV;
            give_up("there is no root file system", root);
        }
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
    }
}

static void mount_root(const struct order *order)
{
    char path[PATH_MAX];
    wait_for(order->root, path, sizeof path);
    if (mount(path, ROOT, order->type, order->writable ? 0 : MS_RDONLY, order->options))
        give_up("can't mount", path);
}

static void hand_over(const char *place)
{
    char target[PATH_MAX];
    snprintf(target, sizeof target, ROOT "%s", place);
    if (mount(place, target, NULL, MS_MOVE, NULL))
        umount2(place, MNT_DETACH);
}

static void enter(void)
{
    hand_over("/dev");
    hand_over("/proc");
    hand_over("/sys");
    unlink("/init");
    if (chdir(ROOT) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        give_up("can't enter", ROOT);
}

int main(int argc, char **argv)
{
    (void)argc;
    if (getpid() != 1) {
        fprintf(stderr, "this is for the initrd of virtual machines\n");
        return 1;
    }
    if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") ||
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) ||
        mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
        give_up("can't mount", "what the kernel provides");
    load_all();
    struct order order = read_order("/proc/cmdline");
    mount_root(&order);
    enter();
    if (*order.init) {
        argv[0] = order.init;
        execv(order.init, argv);
        give_up("can't run", order.init);
    }
    for (size_t at = 0; at < sizeof INITS / sizeof *INITS; at++) {
        argv[0] = (char *)INITS[at];
        execv(INITS[at], argv);
    }
    give_up("can't run", INITS[0]);
}
