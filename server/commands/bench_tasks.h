/* bench_tasks.h: `mp2 bench tasks`: a database of many tasks, made, opened and read into a registry. */
#ifndef SERVER_COMMANDS_BENCH_TASKS_H
#define SERVER_COMMANDS_BENCH_TASKS_H

#include <stdbool.h>
#include <stddef.h>

struct bench_tasks_options {
    const char *model; /* directory with a vocabulary and a bank; NULL: the embedded model */
    const char *db; /* filled when new, kept, used as it is when an earlier run made it; NULL: one
                          in TMPDIR or /tmp that is removed in the end */
    size_t tasks, tenants, rounds;
    bool json;
};

/* Prints a report to stdout; an exit code. */
int bench_tasks(const struct bench_tasks_options *options);

#endif
