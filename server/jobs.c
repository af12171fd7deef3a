/* jobs.c: the job threads: claiming, waking, stopping, and the part of the server they are.
 *
 * A thread with nothing to do sleeps until a job is queued (jobs_poke), and looks by itself every few
 * seconds, should a poke have met a full store queue. Waiting threads cost nothing else.
 */
#include "server/jobs_internal.h"

#include "server/batcher.h"
#include "server/config.h"
#include "server/jobestimate.h"
#include "server/jobstream.h"
#include "server/log.h"
#include "server/loop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOOK_EVERY_MS 3000

/* ---- waking and stopping -------------------------------------------------------------------------- */

void jobs_poke(struct jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->pokes++;
    pthread_cond_broadcast(&jobs->wake);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_cancel(struct jobs *jobs, const char *id)
{
    pthread_mutex_lock(&jobs->lock);
    for (size_t i = 0; i < jobs->n; i++) {
        if (strcmp(jobs->threads[i].id, id) == 0) {
            jobs->threads[i].cancel = true;
        }
    }
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_pause(struct jobs *jobs, const char *id, bool pause)
{
    pthread_mutex_lock(&jobs->lock);
    for (size_t i = 0; i < jobs->n; i++) {
        if (strcmp(jobs->threads[i].id, id) == 0) {
            jobs->threads[i].pause = pause;
        }
    }
    pthread_mutex_unlock(&jobs->lock);
}

struct job_pace *jobs_pace(struct jobs *jobs)
{
    return jobs->pace;
}

int64_t jobs_estimate(struct jobs *jobs, const char *id)
{
    int64_t estimate = 0;
    pthread_mutex_lock(&jobs->lock);
    for (size_t i = 0; i < jobs->n; i++) {
        if (strcmp(jobs->threads[i].id, id) == 0) {
            estimate = jobs->threads[i].estimate;
        }
    }
    pthread_mutex_unlock(&jobs->lock);
    return estimate;
}

void job_set_estimate(struct job_thread *thread, int64_t wall)
{
    pthread_mutex_lock(&thread->jobs->lock);
    thread->estimate = wall;
    pthread_mutex_unlock(&thread->jobs->lock);
}

enum job_stop job_should_stop(struct job_thread *thread)
{
    pthread_mutex_lock(&thread->jobs->lock);
    enum job_stop stop = thread->cancel           ? JOB_CANCEL
                         : thread->pause          ? JOB_PAUSE
                         : thread->jobs->draining ? JOB_GIVE_BACK
                                                  : JOB_GO_ON;
    pthread_mutex_unlock(&thread->jobs->lock);
    return stop;
}

void jobs_changed(struct jobs *jobs, const char *id)
{
    job_streams_changed(jobs->server->job_streams, id);
}

void jobs_active(struct jobs *jobs, int change)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->active = change > 0 ? jobs->active + 1 : jobs->active - 1;
    pthread_mutex_unlock(&jobs->lock);
}

/* ---- claiming ---------------------------------------------------------------------------------------- */

struct claim {
    struct job_thread *thread;
    store_mem *mem;
    store_job job;
    int64_t now;
};

static store_status add_start_event(store *s, const struct claim *claim, store_error *err)
{
    char message[160];
    uint64_t most = claim->thread->jobs->server->config->job_attempts;
    if (claim->job.attempts > 1) {
        snprintf(message, sizeof message,
                 "Job started again after an interruption: attempt %" PRId64 " of %" PRIu64,
                 claim->job.attempts, most);
    } else {
        snprintf(message, sizeof message, "Job started");
    }
    store_event event = {
        .created = claim->now, .level = "info", .type = "message", .message = message};
    return store_event_add(s, claim->job.tenant, claim->job.id, &event, NULL, err);
}

static store_status claim_next(store *s, void *arg, store_error *err)
{
    struct claim *claim = arg;
    store_status status =
        store_job_claim(s, claim->thread->owner, claim->now,
                        claim->now + claim->thread->jobs->lease_ms, claim->mem, &claim->job, err);
    /* Without its event the job would still run: not worth failing for. */
    if (status == STORE_OK && add_start_event(s, claim, err) != STORE_OK) {
        log_event(LOG_WARN, "job_event_lost", "%s: %s", claim->job.id, err->text);
    }
    return status;
}

static void set_job(struct job_thread *thread, const char *id)
{
    struct jobs *jobs = thread->jobs;
    pthread_mutex_lock(&jobs->lock);
    snprintf(thread->id, sizeof thread->id, "%s", id);
    thread->cancel = thread->pause = false;
    thread->estimate = 0;
    jobs->active = id[0] != '\0' ? jobs->active + 1 : jobs->active - 1;
    pthread_mutex_unlock(&jobs->lock);
}

/* True: a job was run. */
static bool run_next(struct job_thread *thread)
{
    struct claim claim = {.thread = thread, .mem = store_mem_new(), .now = wall_ms()};
    store_error err = {0};
    if (claim.mem == NULL) {
        return false;
    }
    store_status status =
        storeq_call(thread->jobs->server->storeq, claim_next, &claim, false, &err);
    if (status != STORE_OK) {
        if (status != STORE_ENOTFOUND && status != STORE_EBUSY) {
            log_event(LOG_ERROR, "job_claim_failed", "%s", err.text);
        }
        store_mem_free(claim.mem);
        return false;
    }
    jobs_changed(thread->jobs, claim.job.id);
    set_job(thread, claim.job.id);
    histogram_add(&thread->jobs->waits,
                  (double)(claim.now > claim.job.created ? claim.now - claim.job.created : 0) /
                      1e3);
    job_run(thread, claim.mem, &claim.job);
    set_job(thread, "");
    return true;
}

static void wait_for_work(struct jobs *jobs, uint64_t seen)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LOOK_EVERY_MS / 1000;
    pthread_mutex_lock(&jobs->lock);
    while (!jobs->draining && jobs->pokes == seen) {
        if (pthread_cond_timedwait(&jobs->wake, &jobs->lock, &until) != 0) {
            break;
        }
    }
    pthread_mutex_unlock(&jobs->lock);
}

static bool may_claim(struct jobs *jobs, uint64_t *pokes)
{
    pthread_mutex_lock(&jobs->lock);
    bool may = !jobs->draining;
    *pokes = jobs->pokes;
    pthread_mutex_unlock(&jobs->lock);
    return may;
}

static void *work(void *arg)
{
    struct job_thread *thread = arg;
    uint64_t pokes = 0;
    while (may_claim(thread->jobs, &pokes)) {
        if (!run_next(thread)) {
            wait_for_work(thread->jobs, pokes);
        }
    }
    return NULL;
}

/* ---- the part ------------------------------------------------------------------------------------------- */

struct recovery {
    int64_t attempts;
    store_recovered found;
};

static store_status recover(store *s, void *arg, store_error *err)
{
    struct recovery *recovery = arg;
    char error[200];
    snprintf(error, sizeof error,
             "{\"code\":\"interrupted\",\"message\":\"the server stopped while this job ran, %lld "
             "times (setting job_attempts)\",\"param\":null}",
             (long long)recovery->attempts);
    return store_jobs_recover(s, INT64_MAX, recovery->attempts, error, wall_ms(), &recovery->found,
                              err);
}

static bool recover_jobs(struct jobs *jobs, char *why, size_t size)
{
    struct recovery recovery = {.attempts = (int64_t)jobs->server->config->job_attempts};
    store_error err = {0};
    if (storeq_call(jobs->server->storeq, recover, &recovery, true, &err) != STORE_OK) {
        snprintf(why, size, "interrupted jobs cannot be queued again: %s", err.text);
        return false;
    }
    int64_t all = recovery.found.requeued + recovery.found.failed + recovery.found.cancelled;
    if (all > 0) {
        log_event(LOG_WARN, "jobs_recovered", "%lld queued again, %lld failed, %lld cancelled",
                  (long long)recovery.found.requeued, (long long)recovery.found.failed,
                  (long long)recovery.found.cancelled);
        counter_add(&jobs->interrupted, (uint64_t)all);
    }
    return true;
}

static void write_metrics(struct metrics_out *out, void *arg)
{
    struct jobs *jobs = arg;
    pthread_mutex_lock(&jobs->lock);
    size_t running = jobs->active;
    pthread_mutex_unlock(&jobs->lock);
    metrics_gauge(out, "mp2_jobs_running", "Jobs that run now.", (double)running);
    metrics_family(out, "mp2_jobs_ended_total", "counter", "Jobs this process ended, by outcome.");
    metrics_sample(out, "mp2_jobs_ended_total", "outcome=\"succeeded\"",
                   (double)counter_value(&jobs->succeeded));
    metrics_sample(out, "mp2_jobs_ended_total", "outcome=\"failed\"",
                   (double)counter_value(&jobs->failed));
    metrics_sample(out, "mp2_jobs_ended_total", "outcome=\"cancelled\"",
                   (double)counter_value(&jobs->cancelled));
    metrics_sample(out, "mp2_jobs_ended_total", "outcome=\"given_back\"",
                   (double)counter_value(&jobs->given_back));
    metrics_sample(out, "mp2_jobs_ended_total", "outcome=\"paused\"",
                   (double)counter_value(&jobs->paused));
    metrics_counter(out, "mp2_job_checkpoints_total", "States of running jobs stored.",
                    (double)counter_value(&jobs->checkpoints));
    metrics_counter(out, "mp2_job_checkpoint_bytes_total", "Their bytes.",
                    (double)counter_value(&jobs->checkpoint_bytes));
    metrics_counter(out, "mp2_jobs_resumed_total", "Runs that went on from a stored state.",
                    (double)counter_value(&jobs->resumed));
    metrics_counter(out, "mp2_jobs_interrupted_total", "Jobs a crash had cut off, found at start.",
                    (double)counter_value(&jobs->interrupted));
    metrics_counter(out, "mp2_train_tokens_total", "Tokens trained on.",
                    (double)counter_value(&jobs->trained_tokens));
    metrics_counter(out, "mp2_job_events_streamed_total", "Events sent over event streams.",
                    (double)job_streams_events(jobs->server->job_streams));
    metrics_family(out, "mp2_job_duration_seconds", "histogram", "Time a job ran.");
    metrics_histogram(out, "mp2_job_duration_seconds", NULL, &jobs->durations);
    metrics_family(out, "mp2_job_queue_seconds", "histogram", "Time a job waited.");
    metrics_histogram(out, "mp2_job_queue_seconds", NULL, &jobs->waits);
}

static const double job_bounds[] = {0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400};

static struct jobs *jobs_new(struct server *server)
{
    struct jobs *jobs = calloc(1, sizeof *jobs);
    if (jobs == NULL) {
        return NULL;
    }
    jobs->server = server;
    jobs->lease_ms = server->config->job_lease;
    jobs->n = server->config->job_threads;
    jobs->threads = calloc(jobs->n + 1, sizeof *jobs->threads);
    struct batcher_stats speed;
    batcher_get_stats(server->batcher, &speed);
    jobs->pace = job_pace_new(speed.tokens_per_second);
    if (jobs->threads == NULL || jobs->pace == NULL) {
        job_pace_free(jobs->pace);
        free(jobs->threads);
        free(jobs);
        return NULL;
    }
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&jobs->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    histogram_init(&jobs->durations, job_bounds, sizeof job_bounds / sizeof job_bounds[0]);
    histogram_init(&jobs->waits, job_bounds, sizeof job_bounds / sizeof job_bounds[0]);
    return jobs;
}

static bool start_thread(struct jobs *jobs, size_t i, char *why, size_t size)
{
    struct job_thread *thread = &jobs->threads[i];
    store_error err = {0};
    thread->jobs = jobs;
    snprintf(thread->owner, sizeof thread->owner, "mp2-%ld-%zu", (long)getpid(), i);
    if (store_open_reader(jobs->server->db_path, &thread->reader, &err) != STORE_OK) {
        snprintf(why, size, "job thread %zu cannot read the database: %s", i, err.text);
        return false;
    }
    thread->started = pthread_create(&thread->thread, NULL, work, thread) == 0;
    if (!thread->started) {
        snprintf(why, size, "job thread %zu did not start (setting job_threads)", i);
    }
    return thread->started;
}

bool jobs_part_start(struct server *server, char *why, size_t size)
{
    server->jobs = jobs_new(server);
    server->job_streams = job_streams_new(server);
    if (server->jobs == NULL || server->job_streams == NULL) {
        snprintf(why, size, "out of memory");
        return false;
    }
    bool ok = recover_jobs(server->jobs, why, size);
    for (size_t i = 0; ok && i < server->jobs->n; i++) {
        ok = start_thread(server->jobs, i, why, size);
    }
    if (ok) {
        metrics_section(server->metrics, write_metrics, server->jobs);
    } else {
        jobs_part_stop(server);
    }
    return ok;
}

void jobs_part_drain(struct server *server)
{
    struct jobs *jobs = server->jobs;
    pthread_mutex_lock(&jobs->lock);
    jobs->draining = true;
    pthread_cond_broadcast(&jobs->wake);
    pthread_mutex_unlock(&jobs->lock);
}

bool jobs_part_idle(struct server *server)
{
    struct jobs *jobs = server->jobs;
    pthread_mutex_lock(&jobs->lock);
    bool idle = jobs->active == 0;
    pthread_mutex_unlock(&jobs->lock);
    return idle;
}

void jobs_part_stop(struct server *server)
{
    struct jobs *jobs = server->jobs;
    if (jobs == NULL) {
        return;
    }
    pthread_mutex_lock(&jobs->lock);
    jobs->draining = jobs->ending = true;
    pthread_cond_broadcast(&jobs->wake);
    pthread_mutex_unlock(&jobs->lock);
    for (size_t i = 0; i < jobs->n; i++) {
        if (jobs->threads[i].started) {
            pthread_join(jobs->threads[i].thread, NULL);
        }
        store_close(jobs->threads[i].reader);
    }
    server->jobs = NULL;
    pthread_cond_destroy(&jobs->wake);
    pthread_mutex_destroy(&jobs->lock);
    job_pace_free(jobs->pace);
    free(jobs->threads);
    free(jobs);
}
