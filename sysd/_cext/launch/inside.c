/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the guest's namespaces: the middle process, which enters them and gives birth to the guest's PID 1, and that one up
 * to the exec of the guest's init. Both are children of the service manager.
 *
 * Sources: systemd.io CONTAINER_INTERFACE, pivot_root(2) NOTES.
 */
#include "launch.h"
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "../clone.h"
#include "../confine.h"

static int pipe_to_launcher;

/* As systemd-nspawn has them (nspawn-mount.c). */
static const char *const HIDDEN[] = { "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/timer_list", NULL };
static const char *const UNWRITABLE[] = { "/proc/sysrq-trigger", NULL };
static const char *const UNWRITABLE_TO_PRIVILEGED[] = { "/proc/acpi", "/proc/asound", "/proc/bus",
                                                        "/proc/fs",   "/proc/irq",    "/proc/scsi", NULL };

static void tell_launcher(const char *message)
{
    (void)!send(pipe_to_launcher, message, strlen(message), MSG_NOSIGNAL);
}

/* Make the overlay the root. A copy of it is needed: mounts inherited from outside are locked in place. /proc and /sys of
   the host must still be in view while new ones are mounted (mount_too_revealing in the kernel's fs/namespace.c). */
static void enter_root(void)
{
    int tree = must(sc_open_tree(AT_FDCWD, LAUNCH_DIR "/root", CLONE_TREE | ALL_BELOW), "root");
    int place = must(open(LAUNCH_DIR "/root", O_PATH | O_DIRECTORY | O_CLOEXEC), "root");
    must(sc_move_mount(tree, place, ""), "root");
    must(chdir(LAUNCH_DIR "/root"), "root");
}

/* Where the image or the guest of the last run has put a link, it counts from the guest's root. */
static void show_shares(json spec)
{
    json shares = member(spec, "shares", json_type_array);
    if (json_object_array_length(shares))
        attach_shares(shares, collect_shares(shares), must(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), "root"));
}

/* A new file system at a folder; more are options beside its name, as sc_new_mount takes them. */
static void attach(const char *type, const char *where, unsigned int attributes, const char *const *more)
{
    const char *options[16] = { "source", type };
    for (size_t i = 0; more && more[i]; i++)
        options[2 + i] = more[i];
    int place = must(sc_openat2(AT_FDCWD, where, O_PATH | O_DIRECTORY, BENEATH | NO_SYMLINKS), "/%s", where);
    int mount = must(sc_new_mount(type, options, attributes), "%s", type);
    must(sc_move_mount(mount, place, ""), "/%s", where);
    close(place);
    close(mount);
}

/* Mount a part of the tree on itself, or another file in its place, with nothing in it to be written. */
static void cover(const char *path, int place, const char *with)
{
    int tree = must(sc_open_tree(AT_FDCWD, with, CLONE_TREE), "%s", with);
    must(sc_mount_attributes(tree, "", READ_ONLY | STRICT, 0, 0), "%s", path);
    must(sc_move_mount(tree, place, ""), "%s", path);
    close(tree);
    close(place);
}

/* One folder of it is left writable, or NULL. */
static void make_read_only(const char *path, const char *but)
{
    int kept = but ? must(sc_open_tree(AT_FDCWD, but, CLONE_TREE), "%s", but) : -1;
    int place = open(path, O_PATH | O_CLOEXEC);
    if (place < 0 && errno == ENOENT)
        return;
    cover(path, must(place, "%s", path), path);
    if (but)
        must(sc_move_mount(kept, must(open(but, O_PATH | O_CLOEXEC), "%s", but), ""), "%s", but);
}

/* Keep from view, and from the hand, what is of the whole kernel and the hardware. In a user namespace the kernel itself
   refuses most of it; what guests read by chance and would take for their own is hidden there too: by a device where
   no devices are, as systemd-nspawn and runc do. */
static void hide_host(bool privileged)
{
    for (const char *const *path = HIDDEN; *path; path++) {
        int place = open(*path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (place >= 0)
            cover(*path, place, "/dev/null");
        else if (errno != ENOENT)
            give_up("%s: %m", *path);
    }
    for (const char *const *path = UNWRITABLE; *path; path++)
        make_read_only(*path, NULL);
    for (const char *const *path = UNWRITABLE_TO_PRIVILEGED; privileged && *path; path++)
        make_read_only(*path, NULL);
}

/* The kernel lets a user namespace mount proc and sysfs only where nothing of theirs is hidden from it: a guest that
   makes some needs one of each that is as the kernel made it. */
static void mount_for_nesting(void)
{
    make_folder(AT_FDCWD, "dev/.syscont", 0700);
    make_folder(AT_FDCWD, "dev/.syscont/proc", 0700);
    make_folder(AT_FDCWD, "dev/.syscont/sysfs", 0700);
    attach("proc", "dev/.syscont/proc", STRICT, NULL);
    attach("sysfs", "dev/.syscont/sysfs", STRICT, NULL);
}

static void mount_api_file_systems(bool nesting)
{
    static const char *const shm[] = { "mode", "1777", "size", "10%", NULL };
    static const char *const pts[] = { "newinstance", "", "ptmxmode", "0666", "mode", "0620", "gid", "5", NULL };
    attach("proc", "proc", STRICT, NULL);
    attach("sysfs", "sys", STRICT | READ_ONLY, NULL);
    attach("cgroup2", "sys/fs/cgroup", STRICT, NULL);
    attach("mqueue", "dev/mqueue", STRICT, NULL);
    if (nesting)
        mount_for_nesting();
    attach("tmpfs", "dev/shm", NO_SUID | NO_DEV, shm);
    attach("devpts", "dev/pts", NO_SUID | NO_EXEC, pts);
    must(sc_pivot_root(), "pivot_root");
    must(chdir("/"), "/");
}

/* 0, or -1. */
static int write_setting(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t written = write(fd, value, strlen(value));
    int failure = errno;
    close(fd);
    errno = failure;
    return written < 0 ? -1 : 0;
}

/* Let all users of the guest ping, as on a host. Its own systemd can't: it asks for more groups than there are, and
   Debian's ping has no capability of its own any more (icmp(7), ping_group_range). */
static void allow_ping(void)
{
    if (write_setting("/proc/sys/net/ipv4/ping_group_range", "0 65535") < 0 && errno != ENOENT)
        give_up("ping_group_range: %m");
}

/* Each as the guest's root and in its namespaces, where nothing of the host's can be written. */
static void set_sysctls(json settings)
{
    json_object_object_foreach(settings, name, value) {
        char path[512];
        snprintf(path, sizeof path, "/proc/sys/%s", name);
        if (write_setting(path, json_object_get_string(value)) == 0)
            continue;
        const char *why = errno == ENOENT ? "this kernel has no such setting" : strerror(errno);
        for (char *at = name; *at; at++)
            *at = *at == '/' ? '.' : *at;
        give_up("linux.sysctl.%s=%s: %s", name, json_object_get_string(value), why);
    }
}

/* A terminal of the guest's own devpts, its name bound to /dev/console. */
static int open_console(int *master)
{
    char path[40];
    int unlocked = 0, index;
    *master = must(open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), "/dev/pts/ptmx");
    must(ioctl(*master, TIOCSPTLCK, &unlocked), "console");
    must(ioctl(*master, TIOCGPTN, &index), "console");
    snprintf(path, sizeof path, "/dev/pts/%d", index);
    int console = must(open(path, O_RDWR | O_NOCTTY | O_CLOEXEC), "%s", path);
    must(fchmod(console, 0600), "%s", path);
    int tree = must(sc_open_tree(AT_FDCWD, path, CLONE_TREE), "%s", path);
    must(sc_move_mount(tree, must(open("/dev/console", O_PATH | O_CLOEXEC), "/dev/console"), ""), "/dev/console");
    return console;
}

static void send_console(int master)
{
    char control[CMSG_SPACE(sizeof master)];
    struct iovec words = { "console", 7 };
    struct msghdr message = { .msg_iov = &words, .msg_iovlen = 1, .msg_control = control,
                              .msg_controllen = sizeof control };
    memset(control, 0, sizeof control);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof master);
    memcpy(CMSG_DATA(header), &master, sizeof master);
    must(sendmsg(pipe_to_launcher, &message, MSG_NOSIGNAL), "console");
}

static void set_environment(json spec)
{
    clearenv();
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("container", "syscont", 1);
    setenv("container_uuid", text(spec, "uuid"), 1);
    setenv("TERM", "vt220", 1);
    setenv("NOTIFY_SOCKET", "/run/host/notify", 1);
    json_object_object_foreach(member(spec, "environment", json_type_object), name, value)
        must(setenv(name, json_object_get_string(value), 1), "environment.%s", name);
    if (json_object_object_length(member(spec, "credentials", json_type_object)))
        setenv("CREDENTIALS_DIRECTORY", CREDENTIALS, 1);
}

/* Have the exec of the guest's init enter a profile of AppArmor, through a /proc of our own making
   (proc_pid_attr_write() in the kernel's fs/proc/base.c). */
static void take_profile(const char *profile)
{
    char words[512];
    if (!*profile)
        return;
    if (snprintf(words, sizeof words, "exec %s", profile) >= (int)sizeof words)
        give_up("the name of AppArmor's profile is too long");
    int door = must(open("/proc/thread-self/attr/apparmor/exec", O_WRONLY | O_CLOEXEC), "AppArmor");
    ssize_t written = write(door, words, strlen(words));
    if (written < 0 && errno == ENOENT)
        give_up("AppArmor has no profile %s any more: 'systemctl reload apparmor' loads it", profile);
    must(written, "AppArmor's profile %s", profile);
    close(door);
}

/* Everything but stdio is close-on-exec, so the launcher sees the pipe close. The filter comes last: it need allow
   nothing of ours but execve(2). */
static _Noreturn void execute_init(json spec, int console)
{
    static char *const inits[] = { "/sbin/init", "/etc/init", "/bin/init" };
    size_t size;
    unsigned char *filter = from_hex(text(spec, "filter"), &size);
    set_environment(spec);
    for (int fd = 0; fd < 3; fd++)
        must(dup2(console, fd), "console");
    must(leave_keyring(), "new session keyring");
    must(bound_capabilities(truth(spec, "privileged")), "capability bounding set");
    umask(022);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL); /* SIGPIPE is ignored in services (systemd.exec(5)) */
    take_profile(text(spec, "apparmor"));
    if (size)
        must(install_filter(filter, size), "seccomp filter");
    for (size_t i = 0; i < sizeof inits / sizeof *inits; i++) {
        execve(inits[i], (char *[]){ inits[i], NULL }, environ);
        if (errno != ENOENT)
            give_up("%s: %m", inits[i]);
    }
    give_up("no /sbin/init in the image");
}

/* PID 1 of the container, up to the exec of its init. Nothing of the guest's is run before that: from enter_root() on no
   function may be called that loads anything by its path (name services, locales, iconv). */
static _Noreturn void become_init(json spec)
{
    char word[16];
    int master, netlink;
    if (recv(pipe_to_launcher, word, sizeof word, 0) != 2 || memcmp(word, "go", 2) != 0)
        _exit(1);
    must(setsid(), "session");
    must(sethostname(text(spec, "name"), strlen(text(spec, "name"))), "host name");
    enter_root();
    show_shares(spec);
    mount_api_file_systems(truth(spec, "nesting"));
    allow_ping();
    set_sysctls(member(spec, "sysctls", json_type_object));
    /* After the settings: some of them are not beneath net. */
    make_read_only("/proc/sys", "/proc/sys/net");
    hide_host(truth(spec, "privileged"));
    int console = open_console(&master);
    /* As on a host, and in systemd-nspawn: systemd sets up credentials of services in mount namespaces from which they
       propagate to its own. Nothing propagates to the host, whose mounts these are slaves of. */
    must(sc_mount_attributes(AT_FDCWD, "/", 0, SHARED, 1), "/");
    netlink = open_netlink();
    replay_all(netlink, member(spec, "guest_links", json_type_array));
    close(netlink);
    send_console(master);
    execute_init(spec, console);
}

static void tell_no_leader(const char *message)
{
    tell_launcher("0");
    tell_launcher(message);
}

/* The middle process. A pid namespace is entered by children only. */
_Noreturn void enter_namespaces(json spec, int pipe, int userns)
{
    char leader[16];
    int namespaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP;
    pipe_to_launcher = pipe;
    on_problem(tell_no_leader);
    if (truth(spec, "core_scheduling"))
        must(core_cookie(CORE_COOKIE_CREATE, 0, NULL), "core scheduling");
    if (userns >= 0)
        must(sc_setns(userns, CLONE_NEWUSER), "user namespace");
    must(sc_set_ids(0, 0), "ids of the guest's root");
    must(sc_unshare(namespaces), "namespaces");
    pid_t born = must(fork_raw(CLONE_PARENT, -1, 0), "first process of the guest");
    if (born == 0) {
        on_problem(tell_launcher);
        become_init(spec);
    }
    snprintf(leader, sizeof leader, "%d", born);
    tell_launcher(leader);
    _exit(0);
}
