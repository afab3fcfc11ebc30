/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interfaces on a link of the host's: a macvtap that is in QEMU's network namespace from its beginning, and so ends with
 * QEMU, whatever ends that. What QEMU has of it is a descriptor.
 *
 * The node that this is got by appears in the host's /dev, if at all, only for links of the host's own network namespace.
 * So one is made that nobody sees.
 *
 * Sources: the kernel's drivers/net/macvtap.c, ABI/testing/sysfs-class-net, networking/ip-sysctl.rst.
 */
#include "machine.h"
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define IPV6_OFF "/proc/sys/net/ipv6/conf/default/disable_ipv6"

static const char *const SYS[] = { "source", "sysfs", NULL };
static const char *const DEV[] = { "source", "tmpfs", "mode", "0700", "size", "16k", NULL };

static int own_network(void)
{
    return must(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), "network namespace");
}

int den_network(void)
{
    static int network = -1;
    if (network < 0) {
        int here = own_network();
        must(sc_unshare(CLONE_NEWNET), "network namespace");
        network = aside(own_network());
        must(sc_setns(here, CLONE_NEWNET), "network namespace");
        close(here);
    }
    return network;
}

/* The guest speaks for itself: a kernel that has no IPv6 does not do so, either. */
static void keep_quiet(void)
{
    int fd = open(IPV6_OFF, O_WRONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return;
    must(fd, IPV6_OFF);
    must(write(fd, "1", 1), IPV6_OFF);
    close(fd);
}

/* Of a link of the network namespace that we are in. */
static dev_t number_of(const char *link)
{
    char path[64], text[32] = "";
    unsigned int major, minor;
    int sys = must(sc_new_mount("sysfs", SYS, STRICT), "sysfs");
    snprintf(path, sizeof path, "class/macvtap/tap%u/dev", if_nametoindex(link));
    int fd = must(openat(sys, path, O_RDONLY | O_CLOEXEC), "%s of link %s", path, link);
    must(read(fd, text, sizeof text - 1), "%s", path);
    if (sscanf(text, "%u:%u", &major, &minor) != 2)
        give_up("%s: no number of a device", path);
    close(fd);
    close(sys);
    return makedev(major, minor);
}

static int open_node(const char *link)
{
    dev_t number = number_of(link);
    int dev = must(sc_new_mount("tmpfs", DEV, NO_SUID | NO_EXEC), "tmpfs");
    must(mknodat(dev, "tap", S_IFCHR | 0600, number), "node of link %s", link);
    int fd = must(openat(dev, "tap", O_RDWR | O_CLOEXEC), "link %s", link);
    close(dev);
    return fd;
}

int open_macvtap(int network, const char *link, const char *request)
{
    int here = own_network(), netlink = open_netlink();
    must(dup3(network, NETNS_FD, O_CLOEXEC), "network namespace");
    must(sc_setns(network, CLONE_NEWNET), "network namespace of QEMU");
    keep_quiet();
    must(sc_setns(here, CLONE_NEWNET), "network namespace");
    replay(netlink, request);
    close(netlink);
    must(sc_setns(network, CLONE_NEWNET), "network namespace of QEMU");
    int fd = open_node(link);
    must(sc_setns(here, CLONE_NEWNET), "network namespace");
    close(here);
    close(NETNS_FD);
    return fd;
}
