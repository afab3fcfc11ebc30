/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of a machine that was stopped with it, in the file upper/state beside its disk (sysd.runtime.vm.state): while it
 * is there a start goes on from it. It is removed before the processors run, as the disk then moves on.
 */
#include "machine.h"
#include <stdio.h>

#define STATE "state"

/* The folder of the disk; -1 when there is none. */
static int open_folder(json spec)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/upper", text(spec, "state_dir"));
    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

bool take_kept(json spec)
{
    json resume = NULL;
    int folder = open_folder(spec);
    int fd = folder < 0 ? -1 : openat(folder, STATE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return false;
    must(fd, "the memory that was kept");
    close(folder);
    if (!json_object_object_get_ex(spec, "resume", &resume) || !json_object_is_type(resume, json_type_object))
        give_up("its memory was kept, and it was not prepared to go on from there: 'syscont start' does both");
    hold_descriptor(number(resume, "fd"), fd);
    json arguments = member(spec, "arguments", json_type_array);
    json more = member(resume, "arguments", json_type_array);
    for (size_t i = 0; i < json_object_array_length(more); i++)
        json_object_array_add(arguments, json_object_get(json_object_array_get_idx(more, i)));
    json_object_object_add(spec, "prepare", json_object_get(member(resume, "prepare", json_type_array)));
    json_object_object_add(spec, "incoming", json_object_get(member(resume, "incoming", json_type_string)));
    return true;
}

void drop_kept(json spec)
{
    int folder = open_folder(spec);
    if (folder >= 0 && unlinkat(folder, STATE, 0) == 0)
        must(fsync(folder), "the memory that was kept");
    else if (errno != ENOENT)
        give_up("the memory that was kept: %m");
    if (folder >= 0)
        close(folder);
}
