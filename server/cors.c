/* cors.c: origins are compared byte by byte: browsers send them in one form. */
#include "server/cors.h"

#include <stdio.h>
#include <string.h>

/* scheme://host[:port] */
static bool is_origin(const char *text, size_t len)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz0123456789-._:[]";
    size_t scheme = len > 8 && memcmp(text, "https://", 8) == 0  ? 8
                    : len > 7 && memcmp(text, "http://", 7) == 0 ? 7
                                                                 : 0;
    return scheme > 0 && strspn(text + scheme, plain) >= len - scheme;
}

bool cors_origins_ok(const char *list, char *why, size_t size)
{
    if (strcmp(list, "*") == 0) {
        return true;
    }
    for (list += strspn(list, ", "); *list != '\0'; list += strspn(list, ", ")) {
        size_t len = strcspn(list, ", ");
        if (!is_origin(list, len)) {
            snprintf(why, size,
                     "cors_origins is * or origins such as https://app.example.com (lower case, no "
                     "path), got \"%.*s\"",
                     (int)(len < 64 ? len : 64), list);
            return false;
        }
        list += len;
    }
    return true;
}

const char *cors_allow(const char *list, const char *origin)
{
    if (origin == NULL || list[0] == '\0') {
        return NULL;
    }
    if (strcmp(list, "*") == 0) {
        return "*";
    }
    size_t want = strlen(origin);
    for (list += strspn(list, ", "); *list != '\0'; list += strspn(list, ", ")) {
        size_t len = strcspn(list, ", ");
        if (len == want && memcmp(list, origin, len) == 0) {
            return origin;
        }
        list += len;
    }
    return NULL;
}
