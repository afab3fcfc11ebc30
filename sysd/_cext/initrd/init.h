/* SPDX-License-Identifier: Apache-2.0 */
/* The initrd of virtual machines that start with their image's kernel; see sysd/images/initrd.py, which packs it. */

#ifndef SYSCONT_INITRD_INIT_H
#define SYSCONT_INITRD_INIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define GUID 16

/* What the kernel was told (kernel-parameters.txt of Linux's documentation). */
struct order {
    char root[256];
    char type[32];
    char options[512];
    char init[256];
    bool writable;
};

struct order read_order(const char *path);

/* Of a root=: the device's path when it is there by now. Only PARTUUID= and paths are known. */
bool find_root(const char *root, char *path, size_t size);

#endif
