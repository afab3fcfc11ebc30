/* SPDX-License-Identifier: Apache-2.0 */
#include "launch.h"
#include <stdarg.h>
#include <stdio.h>

static void (*tell)(const char *message);

void on_problem(void (*teller)(const char *message))
{
    tell = teller;
}

_Noreturn void give_up(const char *format, ...)
{
    char message[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof message, format, values);
    va_end(values);
    tell(message);
    _exit(1);
}

int must(int result, const char *format, ...)
{
    char what[512];
    int failure = errno;
    if (result >= 0)
        return result;
    va_list values;
    va_start(values, format);
    vsnprintf(what, sizeof what, format, values);
    va_end(values);
    errno = failure;
    give_up("%s: %m", what);
}
