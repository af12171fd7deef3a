/* storeq.h: the store thread. It alone holds the writer of the database; all writes pass through its
 * bounded queue, in order, grouped into transactions: what has gathered within a few milliseconds or
 * up to a number of operations is committed together, and acknowledged only after that commit.
 *
 * Threads.   storeq_submit from any thread; storeq_call from any thread but the loop and the store
 *            thread. `run` is called on the store thread, `done` on the loop.
 * Lifetime.  An operation belongs to its submitter and lives until `done` has been called, which
 *            happens exactly once for each that was accepted.
 */
#ifndef SERVER_STOREQ_H
#define SERVER_STOREQ_H

#include "server/loop.h"
#include "store/store.h"

#include <stddef.h>

struct storeq;

/* Work on the database. Runs inside the group's transaction: a failing call undoes only itself. Must
 * not keep `s`, begin or commit. Results go into *arg; a store_mem of arg's may hold them. */
typedef store_status (*storeq_fn)(store *s, void *arg, store_error *err);

struct storeq_op {
    storeq_fn run;
    void (*done)(struct storeq_op *op); /* on the loop, after the commit (or its failure) */
    void *arg;
    bool must;  /* taken also when the queue is full: it ends what an earlier one began */
    bool alone; /* run outside any group: backups, large files, maintenance */

    /* for `done`: what `run` returned, or why the group's commit failed */
    store_status status;
    store_error err;

    /* the queue's */
    struct storeq_op *next;
    struct loop_task task;
    struct storeq_wait *wait;
};

struct storeq_options {
    size_t max_waiting;    /* setting store_queue */
    size_t group_max;      /* operations of one transaction; setting store_group */
    int64_t group_wait_us; /* how long a group gathers; setting store_group_wait */
};

struct storeq_stats {
    uint64_t ops, groups, failed;
    size_t waiting;
};

/* Takes ownership of `writer`. NULL: no memory or thread; then `writer` is not taken. */
struct storeq *storeq_start(struct loop *loop, store *writer, const struct storeq_options *options);
/* Commits what is queued, closes the writer, returns when the thread has ended. */
void storeq_stop(struct storeq *queue);
/* False: the queue is full or stopping; the operation was not taken, `done` will not be called. */
bool storeq_submit(struct storeq *queue, struct storeq_op *op);
/* Runs one operation and waits for its commit: for job threads. STORE_EBUSY: full or stopping. */
STORE_MUST_CHECK store_status storeq_call(struct storeq *queue, storeq_fn run, void *arg,
                                          bool alone, store_error *err);
void storeq_get_stats(struct storeq *queue, struct storeq_stats *stats);

#endif
