/* taskname.c: what a task may be called, how near two names are, and "ft:" ids. Pure functions. */
#include "server/registry_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *task_name_fault(const char *name)
{
    size_t len = name != NULL ? strlen(name) : 0;
    if (len == 0) {
        return "a task's name may not be empty";
    }
    if (len > REG_MAX_NAME) {
        return "a task's name may have at most 128 bytes";
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c < 0x20 || c == 0x7F || strchr("/\\:@?#%\"", c) != NULL) {
            return "a task's name may not hold control characters or any of / \\ : @ ? # % \"";
        }
    }
    if (name[0] == ' ' || name[len - 1] == ' ' || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0) {
        return "a task's name may not begin or end with a space, nor be \".\" or \"..\"";
    }
    return NULL;
}

/* Rows of the usual table, one kept; gives up when a whole row is above the limit. */
size_t name_distance(const char *a, const char *b, size_t limit)
{
    size_t n = strlen(a), m = strlen(b);
    size_t row[REG_MAX_NAME + 1];
    if (n > REG_MAX_NAME || m > REG_MAX_NAME || (n > m ? n - m : m - n) > limit) {
        return limit + 1;
    }
    for (size_t j = 0; j <= m; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0], least = i;
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t above = row[j];
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            row[j] = best;
            diagonal = above;
            least = best < least ? best : least;
        }
        if (least > limit) {
            return limit + 1;
        }
    }
    return row[m];
}

void ft_format(char *out, size_t size, const char *base, const char *tenant, const char *suffix,
               int64_t task, int64_t number)
{
    snprintf(out, size, "ft:%s:%s:%.64s:%" PRId64 "-%" PRId64, base, tenant,
             suffix != NULL ? suffix : "", task, number);
}

/* A positive number that ends at `stop`; NULL when there is none. */
static const char *read_positive(const char *text, char stop, int64_t *out)
{
    char *end = NULL;
    if (text[0] < '1' || text[0] > '9') {
        return NULL;
    }
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || *end != stop) {
        return NULL;
    }
    *out = value;
    return end;
}

bool ft_parse(const char *text, const char *tenant, int64_t *task, int64_t *number)
{
    const char *base = strncmp(text, "ft:", 3) == 0 ? strchr(text + 3, ':') : NULL;
    const char *last = strrchr(text, ':');
    size_t len = strlen(tenant);
    if (base == NULL || strncmp(base + 1, tenant, len) != 0 || base[1 + len] != ':' ||
        last <= base + 1 + len) {
        return false;
    }
    const char *dash = read_positive(last + 1, '-', task);
    return dash != NULL && read_positive(dash + 1, '\0', number) != NULL;
}
