/* bench_serve.h: `mp2 bench serve`: the registry and the batcher under load, without HTTP. */
#ifndef SERVER_COMMANDS_BENCH_SERVE_H
#define SERVER_COMMANDS_BENCH_SERVE_H

#include "engine/engine.h"

struct bench_serve_options {
    const char *model; /* directory with a vocabulary and a bank; NULL: the embedded model */
    size_t threads, tasks, tenants, inflight, rounds;
    double seconds; /* of one round */
    bool json;
};

/* Prints a report to stdout; an exit code. */
int bench_serve(const struct bench_serve_options *options);

#endif
