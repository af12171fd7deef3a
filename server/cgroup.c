/* cgroup.c: walks from a group's folder up to the root. In a container the path in /proc/self/cgroup
 * may be the host's, of which nothing is mounted: the root's own files then speak for it.
 */
#include "server/cgroup.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* First line of a file, without its end. */
static bool read_first_line(const char *folder, const char *name, char *line, int size)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = n > 0 && (size_t)n < sizeof path ? fopen(path, "re") : NULL;
    bool ok = file != NULL && fgets(line, size, file) != NULL;
    if (file != NULL) {
        fclose(file);
    }
    if (ok) {
        line[strcspn(line, "\n")] = '\0';
    }
    return ok;
}

static void lower_cpus(struct cgroup_limits *out, double quota, double period)
{
    if (quota > 0 && period > 0 && (out->cpus == 0 || quota / period < out->cpus)) {
        out->cpus = quota / period;
    }
}

/* "max", and the number near 2^63 that version 1 writes for it, are no limit. */
static void lower_memory(struct cgroup_limits *out, const char *text)
{
    char *end = NULL;
    unsigned long long bytes = strtoull(text, &end, 10);
    if (end != text && *end == '\0' && bytes > 0 && bytes < 1ull << 60 &&
        (out->memory == 0 || bytes < out->memory)) {
        out->memory = bytes;
    }
}

static void read_folder(const char *folder, struct cgroup_limits *out)
{
    char line[128], other[128];
    if (read_first_line(folder, "cpu.max", line, sizeof line)) {
        char *end = NULL;
        double quota = strtod(line, &end); /* "max 100000" is 0 */
        lower_cpus(out, quota, end != line ? strtod(end, NULL) : 0);
    }
    if (read_first_line(folder, "memory.max", line, sizeof line)) {
        lower_memory(out, line);
    }
    if (read_first_line(folder, "cpu.cfs_quota_us", line, sizeof line) &&
        read_first_line(folder, "cpu.cfs_period_us", other, sizeof other)) {
        lower_cpus(out, strtod(line, NULL), strtod(other, NULL)); /* -1: no quota */
    }
    if (read_first_line(folder, "memory.limit_in_bytes", line, sizeof line)) {
        lower_memory(out, line);
    }
}

/* `path` below `mount`, and every folder above it up to the mount itself. */
static void read_upwards(const char *mount, const char *path, struct cgroup_limits *out)
{
    char folder[PATH_MAX];
    size_t mount_len = strlen(mount);
    int n = snprintf(folder, sizeof folder, "%s%s", mount, path);
    if (n <= 0 || (size_t)n >= sizeof folder || strstr(path, "..") != NULL) {
        snprintf(folder, sizeof folder, "%s", mount);
    }
    while (true) {
        read_folder(folder, out);
        char *slash = strrchr(folder, '/');
        if (slash == NULL || (size_t)(slash - folder) < mount_len) {
            return;
        }
        *slash = '\0';
    }
}

/* "0::/path" of version 2, "4:cpu,cpuacct:/path" of version 1. */
static void read_membership(const char *root, char *line, struct cgroup_limits *out)
{
    char mount[PATH_MAX];
    char *controllers = strchr(line, ':');
    char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
    if (path == NULL) {
        return;
    }
    *path++ = '\0';
    controllers++;
    path[strcspn(path, "\n")] = '\0';
    if (controllers[0] == '\0') {
        read_upwards(root, path, out);
    } else if (strstr(controllers, "cpu") != NULL || strstr(controllers, "memory") != NULL) {
        int n = snprintf(mount, sizeof mount, "%s/%s", root, controllers);
        if (n > 0 && (size_t)n < sizeof mount) {
            read_upwards(mount, path, out);
        }
    }
}

void cgroup_read(const char *root, const char *self, struct cgroup_limits *out)
{
    char line[PATH_MAX];
    *out = (struct cgroup_limits){0, 0};
    FILE *file = fopen(self, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        read_membership(root, line, out);
    }
    if (file != NULL) {
        fclose(file);
    }
}

size_t cgroup_cores(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count > 0 ? (size_t)count : 1;
}

size_t cgroup_threads(uint64_t given, size_t cores, const struct cgroup_limits *limits)
{
    if (given > 0) {
        return (size_t)given;
    }
    size_t most = cores > 0 ? cores : 1;
    if (limits->cpus > 0 && limits->cpus < (double)most) {
        most = limits->cpus < 1 ? 1 : (size_t)limits->cpus;
    }
    return most;
}

size_t cgroup_own_threads(uint64_t given)
{
    struct cgroup_limits limits;
    cgroup_read("/sys/fs/cgroup", "/proc/self/cgroup", &limits);
    return cgroup_threads(given, cgroup_cores(), &limits);
}
