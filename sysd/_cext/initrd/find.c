/* SPDX-License-Identifier: Apache-2.0 */
/* Which partition has an id: the kernels of these machines don't tell, so it is read in the partition tables (UEFI
 * specification, 5.3). Of a table only the entry of a partition that the kernel has found is read. */

#include "init.h"

#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCKS "/sys/class/block"
#define SECTOR 512
#define LEAST_ENTRY 128

struct __attribute__((packed)) header {
    char magic[8];
    uint8_t unused[64];
    uint64_t entries;
    uint32_t count, size;
};

/* As texts have it, the first three parts are numbers, and in little endian on disk. */
static bool parse(const char *text, uint8_t id[GUID])
{
    static const uint8_t places[GUID] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int at = 0; at < GUID; at++) {
        char digits[3] = {0}, *end;
        if (*text == '-')
            text++;
        strncpy(digits, text, 2);
        id[places[at]] = (uint8_t)strtoul(digits, &end, 16);
        if (end != digits + 2)
            return false;
        text += 2;
    }
    return !*text;
}

/* The partition's number, and the disk that it is of: the folder that its own is in. 0 for what is none. */
static unsigned partition_of(const char *name, char *disk, size_t size)
{
    char path[PATH_MAX], real[PATH_MAX], number[16] = "";
    snprintf(path, sizeof path, BLOCKS "/%s/partition", name);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    if (!fgets(number, sizeof number, file))
        *number = 0;
    fclose(file);
    snprintf(path, sizeof path, BLOCKS "/%s", name);
    char *end = realpath(path, real) ? strrchr(real, '/') : NULL;
    if (!end)
        return 0;
    *end = 0;
    end = strrchr(real, '/');
    if (!end || (size_t)snprintf(disk, size, "/dev%s", end) >= size)
        return 0;
    return (unsigned)strtoul(number, NULL, 10);
}

static bool has_id(const char *disk, unsigned number, const uint8_t wanted[GUID])
{
    struct header header;
    uint8_t found[GUID];
    int fd = open(disk, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool is = pread(fd, &header, sizeof header, SECTOR) == sizeof header && !memcmp(header.magic, "EFI PART", 8) &&
              number <= le32toh(header.count) && le32toh(header.size) >= LEAST_ENTRY;
    if (is) {
        off_t entry = (off_t)(le64toh(header.entries) * SECTOR + (uint64_t)le32toh(header.size) * (number - 1));
        is = pread(fd, found, GUID, entry + GUID) == GUID && !memcmp(found, wanted, GUID);
    }
    close(fd);
    return is;
}

static bool find_partition(const uint8_t wanted[GUID], char *path, size_t size)
{
    DIR *blocks = opendir(BLOCKS);
    bool found = false;
    for (struct dirent *entry; blocks && !found && (entry = readdir(blocks));) {
        char disk[NAME_MAX + 8];
        unsigned number = partition_of(entry->d_name, disk, sizeof disk);
        found = number && has_id(disk, number, wanted) &&
                (size_t)snprintf(path, size, "/dev/%s", entry->d_name) < size;
    }
    if (blocks)
        closedir(blocks);
    return found;
}

bool find_root(const char *root, char *path, size_t size)
{
    static const char by_id[] = "PARTUUID=";
    uint8_t id[GUID];
    if (strncmp(root, by_id, strlen(by_id)))
        return (size_t)snprintf(path, size, "%s", root) < size && !access(path, F_OK);
    return parse(root + strlen(by_id), id) && find_partition(id, path, size);
}
