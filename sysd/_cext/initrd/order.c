/* SPDX-License-Identifier: Apache-2.0 */
/* The words of the kernel's command line that tell where the root file system is. The last of a kind counts. */

#include "init.h"

#include <string.h>

static bool take(const char *word, const char *name, char *into, size_t size)
{
    size_t length = strlen(name);
    if (strncmp(word, name, length) || strlen(word + length) >= size)
        return false;
    strcpy(into, word + length);
    return true;
}

static void heed(const char *word, struct order *order)
{
    if (!strcmp(word, "rw") || !strcmp(word, "ro"))
        order->writable = word[1] == 'w';
    else if (!take(word, "root=", order->root, sizeof order->root) &&
             !take(word, "rootfstype=", order->type, sizeof order->type) &&
             !take(word, "rootflags=", order->options, sizeof order->options))
        take(word, "init=", order->init, sizeof order->init);
}

struct order read_order(const char *path)
{
    struct order order = {.type = "ext4"};
    char line[4096] = "", *left = line;
    FILE *file = fopen(path, "re");
    if (!file || !fgets(line, sizeof line, file))
        fprintf(stderr, "initrd: %s can't be read: %m\n", path);
    if (file)
        fclose(file);
    for (char *word; (word = strsep(&left, " \n"));) {
        /* What follows is for init. */
        if (!strcmp(word, "--"))
            break;
        heed(word, &order);
    }
    return order;
}
