/* jobs_internal.h: what jobs.c (threads, claims) and jobrun.c (one job) share. */
#ifndef SERVER_JOBS_INTERNAL_H
#define SERVER_JOBS_INTERNAL_H

#include "server/jobs.h"
#include "server/metrics.h"
#include "server/storeq.h"

#include <pthread.h>

#define JOB_MAX_ID    96
#define JOB_MAX_OWNER 64

enum job_stop { JOB_GO_ON, JOB_CANCEL, JOB_PAUSE, JOB_GIVE_BACK, JOB_LEASE_LOST };

/* One job thread. */
struct job_thread {
    struct jobs *jobs;
    pthread_t thread;
    bool started;
    store *reader;             /* the thread's own */
    char owner[JOB_MAX_OWNER]; /* of its leases */

    /* under jobs->lock */
    char id[JOB_MAX_ID]; /* of the job it runs; "" when none */
    bool cancel, pause;
    int64_t estimate; /* wall_ms */
};

struct jobs {
    struct server *server;
    int64_t lease_ms;
    size_t n;
    struct job_thread *threads;

    pthread_mutex_t lock; /* covers the rest but the counters */
    pthread_cond_t wake;  /* monotonic */
    uint64_t pokes;
    bool draining; /* claim no more, give back what runs */
    bool ending;   /* the loop has ended: wait for nothing that runs there */
    size_t active; /* jobs claimed and not ended, publications on their way to the loop */

    struct job_pace *pace;
    struct counter succeeded, failed, cancelled, given_back, paused, interrupted, trained_tokens;
    struct counter checkpoints, checkpoint_bytes, resumed;
    struct histogram durations, waits;
};

/* Runs the claimed job to its end; owns `mem` and `job` from here. */
void job_run(struct job_thread *thread, store_mem *mem, const store_job *job);

/* What the thread should do now. */
enum job_stop job_should_stop(struct job_thread *thread);
void job_set_estimate(struct job_thread *thread, int64_t wall);
void jobs_active(struct jobs *jobs, int change);

#endif
