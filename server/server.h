/* server.h: the running server, one struct that every handler can reach through its request.
 *
 * Threads.   The pointers are set before the loop starts and stay until it has ended; each thing
 *            pointed to states its own rules. `ready` and `draining` may be read by any thread.
 * Lifetime.  server_run() of server.c starts the parts in the order of ONE table and stops them in
 *            the reverse order.
 */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "engine/engine.h"
#include "store/store.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct config;
struct old_config;
struct loop;
struct workers;
struct storeq;
struct auth;
struct metrics;
struct http;
struct registry;
struct batcher;
struct jobs;
struct stats;
struct usage;
struct upkeep;
struct job_streams;
struct prompts;

/* Where settings come from, for SIGHUP. load: NULL with a sentence when they are wrong. */
struct config_source {
    struct config *(*load)(void *arg, char *why);
    void *arg;
};

struct server {
    const struct config *_Atomic config; /* a reload sets another; the old ones stay readable */
    const struct config_source *source;
    struct old_config *old_configs;
    const char *db_path;
    struct loop *loop;
    struct workers *workers;
    struct storeq *storeq;
    struct auth *auth;
    struct metrics *metrics;
    struct http *http;

    eng_model *model;
    eng_bank *bank; /* the default bank */
    eng_compute *compute;

    /* of the parts that have them (registry.c, batcher.c, jobs.c) */
    struct registry *registry;
    struct batcher *batcher;
    struct jobs *jobs;
    struct usage *usage; /* NULL once the server stops */
    struct upkeep *upkeep;
    struct stats *stats;
    struct job_streams *job_streams; /* until the loop is freed, as are the prompts */
    struct prompts *prompts;

    int64_t started_ms; /* wall clock */
    atomic_bool ready, draining;
    int64_t drain_started_ms; /* clock_ms; loop thread only */
};

/* One part of the server. Started in the order of the table in server.c, when loop, storeq, workers,
 * auth, metrics, model, bank and compute are there and no request is served yet.
 *   start   false: cannot; `why` says what and what to do. NULL: nothing to start.
 *   drain   on the loop, once, when the server begins to stop: take no new work, hand back what can
 *           be done later. Must not block. May be NULL.
 *   idle    on the loop, every 50 ms after drain: true when nothing is in flight. May be NULL.
 *   stop    after the loop's last request, before storeq stops: join threads, free. Called also when
 *           a later part failed to start. storeq_call still works. May be NULL. */
struct server_part {
    const char *name;
    bool (*start)(struct server *server, char *why, size_t size);
    void (*drain)(struct server *server);
    bool (*idle)(struct server *server);
    void (*stop)(struct server *server);
};
extern const struct server_part server_parts[];
extern const size_t server_parts_count;

/* Makes every missing directory above the file `path`, 0700: a database will lie there. False: errno. */
bool server_make_directories(const char *path);

/* Runs a server until it is told to stop. Returns an exit code of commands.h. */
int server_run(const struct config *config, const struct config_source *source);

#endif
