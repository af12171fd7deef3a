/* cgroup.h: what a container or service may use: CPU time and memory of its control groups.
 *
 * Version 2 (cpu.max, memory.max) and version 1 (cpu.cfs_quota_us, memory.limit_in_bytes). A limit of
 * any group above one's own holds, too, so the least of all is taken.
 *
 * Threads. Reads files; any thread.
 */
#ifndef SERVER_CGROUP_H
#define SERVER_CGROUP_H

#include <stddef.h>
#include <stdint.h>

struct cgroup_limits {
    double cpus;     /* cores' worth of time; 0: no limit */
    uint64_t memory; /* bytes; 0: no limit */
};

/* root: "/sys/fs/cgroup". self: "/proc/self/cgroup". What cannot be read counts as no limit. */
void cgroup_read(const char *root, const char *self, struct cgroup_limits *out);

/* Cores this process may run on (its affinity). */
size_t cgroup_cores(void);

/* Threads for `given` (setting threads; 0: choose): the cores this process may run on, or fewer when
 * its groups get less time than that. */
size_t cgroup_threads(uint64_t given, size_t cores, const struct cgroup_limits *limits);
/* The same for this process: what commands that compute by themselves take. */
size_t cgroup_own_threads(uint64_t given);

#endif
