/* workers.h: a few threads for short work that must not hold up the loop: parsing large bodies,
 * validating files, reading the database. Not for compute.
 *
 * Threads.   workers_submit from any thread. `run` on a worker; `done` on the loop.
 * Lifetime.  The job belongs to the caller and lives until `done` has been called. `done` is always
 *            called, once, also for jobs still waiting when the workers stop (they run first).
 */
#ifndef SERVER_WORKERS_H
#define SERVER_WORKERS_H

#include "server/loop.h"
#include "store/store.h"

#include <stddef.h>

struct workers;

struct worker_job {
    /* `reader` is this worker's read-only handle on the database, NULL when it cannot be opened. */
    void (*run)(void *arg, store *reader);
    void (*done)(void *arg);
    void *arg;
    struct worker_job *next; /* the workers' */
    struct loop_task task;   /* the workers' */
};

/* db NULL: no reader. At most `max_waiting` jobs wait. NULL: out of memory or threads. */
struct workers *workers_start(struct loop *loop, size_t threads, size_t max_waiting,
                              const char *db);
/* Runs what is waiting, then returns when the threads have ended. */
void workers_stop(struct workers *workers);
/* False: the queue is full (setting worker_queue); the job was not taken. */
bool workers_submit(struct workers *workers, struct worker_job *job);
size_t workers_waiting(struct workers *workers);
/* For a `run` that reads: false, with what to answer, when there is no reader. */
bool workers_has_reader(const store *reader, store_status *status, store_error *err);

#endif
