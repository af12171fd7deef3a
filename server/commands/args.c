/* args.c: numbers from the command line, checked, and where the default model lies. */
#include "server/commands/commands.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int usage_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("mp2: ", stderr);
    vfprintf(stderr, format, args);
    fputs("\nSee --help.\n", stderr);
    va_end(args);
    return EXIT_USAGE;
}

bool arg_u64(const char *option, const char *text, uint64_t *out)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-') {
        usage_error("%s wants a whole number, got \"%s\"", option, text);
        return false;
    }
    *out = value;
    return true;
}

bool arg_size(const char *option, const char *text, size_t min, size_t max, size_t *out)
{
    uint64_t value = 0;
    if (!arg_u64(option, text, &value)) {
        return false;
    }
    if (value < min || value > max) {
        usage_error("%s wants %zu to %zu, got %s", option, min, max, text);
        return false;
    }
    *out = (size_t)value;
    return true;
}

bool arg_double(const char *option, const char *text, double min, double max, double *out)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value < min || value > max) {
        usage_error("%s wants a number from %g to %g, got \"%s\"", option, min, max, text);
        return false;
    }
    *out = value;
    return true;
}

bool arg_u64_list(const char *option, const char *text, uint64_t *out, size_t max, size_t *n)
{
    *n = 0;
    while (true) {
        size_t len = strcspn(text, ",");
        char item[32];
        if (len >= sizeof item || *n == max) {
            usage_error("%s wants at most %zu numbers separated by commas", option, max);
            return false;
        }
        memcpy(item, text, len);
        item[len] = '\0';
        if (!arg_u64(option, item, &out[*n])) {
            return false;
        }
        (*n)++;
        if (text[len] == '\0') {
            return true;
        }
        text += len + 1;
    }
}

static bool is_model_dir(const char *dir)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof path, "%s/config.json", dir);
    return len > 0 && (size_t)len < sizeof path && access(path, R_OK) == 0;
}

/* <directory of the executable>/../share/mp2/models/small-zh, for a tree that was moved after install. */
static bool beside_executable(char *dir, size_t size)
{
    char exe[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (len <= 0) {
        return false;
    }
    exe[len] = '\0';
    char *slash = strrchr(exe, '/');
    if (slash == NULL) {
        return false;
    }
    *slash = '\0';
    int written = snprintf(dir, size, "%s/../share/mp2/models/small-zh", exe);
    return written > 0 && (size_t)written < size && is_model_dir(dir);
}

const char *default_model_dir(const char *given)
{
    static char dir[PATH_MAX];
    const char *env = getenv("MP2_MODEL");
    if (given != NULL) {
        return given;
    }
    if (env != NULL && env[0] != '\0') {
        return env;
    }
    if (beside_executable(dir, sizeof dir)) {
        return dir;
    }
    static const char *const places[] = {MP2_INSTALL_MODELS "/small-zh",
                                         MP2_SOURCE_MODELS "/small-zh"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (is_model_dir(places[i])) {
            return places[i];
        }
    }
    fprintf(stderr, "mp2: no model found: give --model DIR or set MP2_MODEL\n");
    return NULL;
}
