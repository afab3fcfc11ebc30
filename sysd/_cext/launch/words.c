/* SPDX-License-Identifier: Apache-2.0 */
#include "launch.h"
#include <stdlib.h>
#include <string.h>

json read_words(int fd)
{
    json found = json_object_from_fd(fd);
    if (!json_object_is_type(found, json_type_object))
        give_up("what there is to do is no JSON object");
    return found;
}

json member(json from, const char *name, json_type type)
{
    json found = NULL;
    if (!json_object_object_get_ex(from, name, &found) || !json_object_is_type(found, type))
        give_up("%s is missing in what there is to do", name);
    return found;
}

const char *text(json from, const char *name)
{
    return json_object_get_string(member(from, name, json_type_string));
}

int64_t number(json from, const char *name)
{
    return json_object_get_int64(member(from, name, json_type_int));
}

bool truth(json from, const char *name)
{
    return json_object_get_boolean(member(from, name, json_type_boolean));
}

const char *text_at(json list, size_t index)
{
    json found = json_object_is_type(list, json_type_array) ? json_object_array_get_idx(list, index) : NULL;
    if (!json_object_is_type(found, json_type_string))
        give_up("a text is missing in what there is to do");
    return json_object_get_string(found);
}

static int digit(char letter)
{
    static const char digits[] = "0123456789abcdef";
    return strchr(digits, letter) - digits;
}

unsigned char *from_hex(const char *digits, size_t *size)
{
    *size = strlen(digits) / 2;
    unsigned char *bytes = malloc(*size + 1);
    if (!bytes || strspn(digits, "0123456789abcdef") != *size * 2)
        give_up("something is not hexadecimal in what there is to do");
    for (size_t i = 0; i < *size; i++)
        bytes[i] = digit(digits[2 * i]) << 4 | digit(digits[2 * i + 1]);
    return bytes;
}
