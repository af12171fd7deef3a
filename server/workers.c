/* workers.c: a bounded queue and a few threads that drain it.
 *
 * Each thread opens its read-only handle on the database at its first job, so that a server without
 * reads has none open, and answers run() with NULL when that fails (the job says so to its client).
 */
#include "server/workers.h"

#include <pthread.h>
#include <stdlib.h>

#define MAX_THREADS 16

struct workers {
    struct loop *loop;
    const char *db;
    size_t max_waiting;
    size_t threads;
    pthread_t thread[MAX_THREADS];

    pthread_mutex_t lock; /* covers the rest */
    pthread_cond_t work;
    struct worker_job *first, *last;
    size_t waiting;
    bool stopping;
};

/* NULL: stopping and nothing is left. */
static struct worker_job *take_job(struct workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    while (workers->first == NULL && !workers->stopping) {
        pthread_cond_wait(&workers->work, &workers->lock);
    }
    struct worker_job *job = workers->first;
    if (job != NULL) {
        workers->first = job->next;
        if (workers->first == NULL) {
            workers->last = NULL;
        }
        workers->waiting--;
    }
    pthread_mutex_unlock(&workers->lock);
    return job;
}

static void *work(void *arg)
{
    struct workers *workers = arg;
    store *reader = NULL;
    struct worker_job *job;
    while ((job = take_job(workers)) != NULL) {
        if (reader == NULL && workers->db != NULL &&
            store_open_reader(workers->db, &reader, NULL) != STORE_OK) {
            reader = NULL;
        }
        job->run(job->arg, reader);
        job->task.run = job->done;
        job->task.arg = job->arg;
        loop_post(workers->loop, &job->task);
    }
    store_close(reader);
    return NULL;
}

struct workers *workers_start(struct loop *loop, size_t threads, size_t max_waiting, const char *db)
{
    struct workers *workers = calloc(1, sizeof *workers);
    if (workers == NULL) {
        return NULL;
    }
    workers->loop = loop;
    workers->db = db;
    workers->max_waiting = max_waiting;
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->work, NULL);
    while (workers->threads < threads && workers->threads < MAX_THREADS) {
        if (pthread_create(&workers->thread[workers->threads], NULL, work, workers) != 0) {
            workers_stop(workers);
            return NULL;
        }
        workers->threads++;
    }
    return workers;
}

void workers_stop(struct workers *workers)
{
    if (workers == NULL) {
        return;
    }
    pthread_mutex_lock(&workers->lock);
    workers->stopping = true;
    pthread_cond_broadcast(&workers->work);
    pthread_mutex_unlock(&workers->lock);
    for (size_t i = 0; i < workers->threads; i++) {
        pthread_join(workers->thread[i], NULL);
    }
    pthread_cond_destroy(&workers->work);
    pthread_mutex_destroy(&workers->lock);
    free(workers);
}

bool workers_submit(struct workers *workers, struct worker_job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&workers->lock);
    bool room = workers->waiting < workers->max_waiting && !workers->stopping;
    if (room) {
        if (workers->last != NULL) {
            workers->last->next = job;
        } else {
            workers->first = job;
        }
        workers->last = job;
        workers->waiting++;
        pthread_cond_signal(&workers->work);
    }
    pthread_mutex_unlock(&workers->lock);
    return room;
}

size_t workers_waiting(struct workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    size_t waiting = workers->waiting;
    pthread_mutex_unlock(&workers->lock);
    return waiting;
}

bool workers_has_reader(const store *reader, store_status *status, store_error *err)
{
    if (reader == NULL) {
        *status = STORE_EBUSY;
        *err = (store_error){.status = STORE_EBUSY, .text = "the database cannot be read now"};
    }
    return reader != NULL;
}
