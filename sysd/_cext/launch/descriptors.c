/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU has no rights to open anything: what it works with is open when it starts, and it is told the numbers.
 *
 * Sources: the kernel's networking/tuntap.rst, close_range(2).
 */
#include "machine.h"
#include <linux/close_range.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

enum { FIRST = 10, LAST = 200, ASIDE = 256 };
enum { BACKLOG = 4, PATIENCE = 5000, PAUSE = 20 }; /* milliseconds */

static int held[LAST + 1]; /* by the number at which QEMU gets it; 0 for none */

int aside(int fd)
{
    int moved = must(fcntl(fd, F_DUPFD_CLOEXEC, ASIDE), "descriptor");
    close(fd);
    return moved;
}

static void pause_a_moment(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = PAUSE * 1000000 }, NULL);
}

static int open_file(json wanted, struct sockets *unused)
{
    (void)unused;
    struct stat status;
    const char *path = text(wanted, "path");
    int mode = truth(wanted, "write") ? O_RDWR : O_RDONLY;
    /* Not to wait for the other end of a pipe; QEMU sets what it needs. */
    int fd = must(open(path, mode | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), "%s", path);
    must(fstat(fd, &status), "%s", path);
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode) && !S_ISCHR(status.st_mode))
        give_up("%s: neither a file nor a device", path);
    must(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), "%s", path);
    return fd;
}

/* The link ends with its last descriptor, but not at once: the machine's last run may have just ended. */
static int open_tap(json wanted, struct sockets *unused)
{
    (void)unused;
    const char *name = text(wanted, "name");
    struct ifreq request = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL) };
    if (!*name || strlen(name) >= sizeof request.ifr_name)
        give_up("link '%s': not a name that a link can have", name);
    memcpy(request.ifr_name, name, strlen(name));
    int tap = must(open("/dev/net/tun", O_RDWR | O_CLOEXEC), "/dev/net/tun");
    for (int waited = 0; ioctl(tap, TUNSETIFF, &request) < 0; waited += PAUSE) {
        if (errno != EBUSY)
            give_up("link %s: %m", name);
        if (waited >= PATIENCE)
            give_up("link %s: there is one of that name already; 'ip link delete %s' removes it", name, name);
        pause_a_moment();
    }
    return tap;
}

static int open_own_link(json wanted, struct sockets *unused)
{
    (void)unused;
    return open_macvtap(den_network(), text(wanted, "name"), text(wanted, "data"));
}

static int open_passed(json wanted, struct sockets *unused)
{
    (void)unused;
    return open_function(text(wanted, "name"));
}

static int open_listener(json wanted, struct sockets *unused)
{
    (void)unused;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const char *path = text(wanted, "path");
    if (strlen(path) >= sizeof address.sun_path)
        give_up("%s: too long for the path of a socket", path);
    memcpy(address.sun_path, path, strlen(path));
    if (unlink(path) < 0 && errno != ENOENT)
        give_up("%s: %m", path);
    int sock = must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "%s", path);
    mode_t old = umask(0177);
    must(bind(sock, (struct sockaddr *)&address, sizeof address), "%s", path);
    umask(old);
    must(listen(sock, BACKLOG), "%s", path);
    return sock;
}

/* Its server is started beside the machine, and may not be there yet. */
static int open_connection(json wanted, struct sockets *unused)
{
    (void)unused;
    const char *path = text(wanted, "path");
    for (int waited = 0;; waited += PAUSE) {
        int sock = connect_to(path, SOCK_STREAM);
        if (sock >= 0)
            return sock;
        if ((errno != ENOENT && errno != ECONNREFUSED) || waited >= PATIENCE)
            give_up("%s: %m", path);
        pause_a_moment();
    }
}

static int open_stream(json wanted, struct sockets *sockets)
{
    int ends[2];
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socket");
    add_socket(sockets, text(wanted, "hand"), aside(ends[0]));
    return ends[1];
}

/* What only QEMU is to know, and is no file. */
static int open_memory(json wanted, struct sockets *unused)
{
    (void)unused;
    char path[64];
    size_t size;
    unsigned char *data = from_hex(text(wanted, "data"), &size);
    int fd = must(memfd_create("syscont", MFD_CLOEXEC), "memory");
    for (size_t done = 0; done < size;)
        done += must(write(fd, data + done, size - done), "memory");
    free(data);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = must(open(path, O_RDONLY | O_CLOEXEC), "memory");
    close(fd);
    return again;
}

static const struct { const char *name; int (*open)(json wanted, struct sockets *sockets); } KINDS[] = {
    { "file", open_file }, { "tap", open_tap }, { "listen", open_listener }, { "connect", open_connection },
    { "stream", open_stream }, { "memory", open_memory }, { "macvtap", open_own_link }, { "vfio", open_passed },
};

static int open_one(json wanted, struct sockets *sockets)
{
    const char *kind = text(wanted, "kind");
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        if (strcmp(KINDS[i].name, kind) == 0)
            return KINDS[i].open(wanted, sockets);
    give_up("'%s' is no kind of descriptor", kind);
}

static int64_t check_free(int64_t at)
{
    if (at < FIRST || at > LAST || held[at])
        give_up("descriptor %lld: not from %d to %d, or taken", (long long)at, FIRST, LAST);
    return at;
}

void hold_descriptor(int64_t at, int fd)
{
    held[check_free(at)] = aside(fd);
}

void open_descriptors(json wanted, struct sockets *sockets)
{
    for (size_t i = 0; i < json_object_array_length(wanted); i++) {
        json one = json_object_array_get_idx(wanted, i);
        int64_t at = check_free(number(one, "fd"));
        hold_descriptor(at, open_one(one, sockets));
    }
}

void place_descriptors(void)
{
    must(close_range(3, ~0U, CLOSE_RANGE_CLOEXEC), "descriptors");
    for (int at = FIRST; at <= LAST; at++)
        if (held[at])
            must(dup2(held[at], at), "descriptor %d", at);
}

void close_descriptors(void)
{
    for (int at = FIRST; at <= LAST; at++)
        if (held[at])
            close(held[at]);
}
