/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that wants out of its quota: prints what its folder is counted by, and what came of each attempt. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

static void say(const char *what, int result)
{
    printf("%s %s\n", what, result < 0 ? strerror(errno) : "done");
}

int main(int argc, char **argv)
{
    int fd = open(argv[1], O_RDONLY), flags = 0;
    struct fsxattr had = { 0 }, wanted;
    ioctl(fd, FS_IOC_FSGETXATTR, &had);
    wanted = had;
    wanted.fsx_projid = 0;
    say("project", ioctl(fd, FS_IOC_FSSETXATTR, &wanted));
    wanted = had;
    wanted.fsx_xflags &= ~FS_XFLAG_PROJINHERIT;
    say("inheritance", ioctl(fd, FS_IOC_FSSETXATTR, &wanted));
    ioctl(fd, FS_IOC_GETFLAGS, &flags);
    flags &= ~FS_PROJINHERIT_FL;
    say("flags", ioctl(fd, FS_IOC_SETFLAGS, &flags));
    ioctl(fd, FS_IOC_FSGETXATTR, &wanted);
    say("unchanged", memcmp(&had, &wanted, sizeof had) ? -1 : 0);
}
