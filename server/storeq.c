/* storeq.c: the store thread and its grouped commits.
 *
 * The thread waits for a first operation, lets others gather for group_wait_us (or until group_max
 * are there), runs them between store_begin and store_commit, and only then posts their ends. With
 * synchronous=FULL one commit costs a disk flush, so a group shares it. An operation marked `alone`
 * ends the group before it and runs outside any transaction.
 *
 * When the commit fails, or SQLite undid the whole group on the way, nothing of it is stored: every
 * operation that had succeeded is told the commit's error instead.
 */
#include "server/storeq.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct storeq {
    struct loop *loop;
    store *writer; /* the store thread's */
    struct storeq_options options;
    pthread_t thread;

    pthread_mutex_t lock; /* covers the rest */
    pthread_cond_t work;
    struct storeq_op *first, *last;
    struct storeq_stats stats;
    bool stopping;
};

/* Where storeq_call sleeps: not on the loop, which may have ended when jobs hand back their work. */
struct storeq_wait {
    pthread_mutex_t lock; /* covers over */
    pthread_cond_t ended;
    bool over;
};

static void post_done(void *arg)
{
    struct storeq_op *op = arg;
    op->done(op);
}

static void acknowledge(struct storeq *queue, struct storeq_op *op)
{
    struct storeq_wait *wait = op->wait;
    if (wait == NULL) {
        op->task.run = post_done;
        op->task.arg = op;
        loop_post(queue->loop, &op->task);
        return;
    }
    pthread_mutex_lock(&wait->lock);
    wait->over = true;
    pthread_cond_signal(&wait->ended);
    pthread_mutex_unlock(&wait->lock);
}

static struct timespec deadline_in(int64_t us)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    int64_t ns = at.tv_nsec + (us % 1000000) * 1000;
    at.tv_sec += (time_t)(us / 1000000 + ns / 1000000000);
    at.tv_nsec = (long)(ns % 1000000000);
    return at;
}

static bool has_full_group(const struct storeq *queue)
{
    return queue->stats.waiting >= queue->options.group_max || queue->stopping ||
           (queue->first != NULL && queue->first->alone);
}

/* Waits for work and for the group to gather. False: stopping and nothing is left. Under the lock. */
static bool gather(struct storeq *queue)
{
    while (queue->first == NULL) {
        if (queue->stopping) {
            return false;
        }
        pthread_cond_wait(&queue->work, &queue->lock);
    }
    struct timespec until = deadline_in(queue->options.group_wait_us);
    while (!has_full_group(queue)) {
        if (pthread_cond_timedwait(&queue->work, &queue->lock, &until) == ETIMEDOUT) {
            break;
        }
    }
    return true;
}

/* Detaches the next group: one operation marked alone, or others up to group_max. Under the lock. */
static struct storeq_op *detach_group(struct storeq *queue)
{
    struct storeq_op *group = queue->first, *end = group;
    size_t n = 1;
    while (!group->alone && end->next != NULL && !end->next->alone &&
           n < queue->options.group_max) {
        end = end->next;
        n++;
    }
    queue->first = end->next;
    if (queue->first == NULL) {
        queue->last = NULL;
    }
    end->next = NULL;
    queue->stats.waiting -= n;
    queue->stats.ops += n;
    queue->stats.groups++;
    return group;
}

static void run_op(store *writer, struct storeq_op *op)
{
    memset(&op->err, 0, sizeof op->err);
    op->status = op->run(writer, op->arg, &op->err);
}

static void run_group(struct storeq *queue, struct storeq_op *group)
{
    store_error err = {0};
    store_status status = STORE_OK;
    bool grouped = !group->alone;
    if (grouped) {
        status = store_begin(queue->writer, &err);
    }
    for (struct storeq_op *op = group; op != NULL && status == STORE_OK; op = op->next) {
        run_op(queue->writer, op);
    }
    if (grouped && status == STORE_OK) {
        status = store_commit(queue->writer, &err);
    }
    if (status == STORE_OK) {
        return;
    }
    store_rollback(queue->writer);
    for (struct storeq_op *op = group; op != NULL; op = op->next) {
        if (op->status == STORE_OK) {
            op->status = status;
            op->err = err;
        }
    }
}

static void *work(void *arg)
{
    struct storeq *queue = arg;
    pthread_mutex_lock(&queue->lock);
    while (gather(queue)) {
        struct storeq_op *op = detach_group(queue);
        pthread_mutex_unlock(&queue->lock);
        run_group(queue, op);
        uint64_t failed = 0;
        while (op != NULL) {
            /* `done` may free the operation. */
            struct storeq_op *next = op->next;
            failed += op->status != STORE_OK;
            acknowledge(queue, op);
            op = next;
        }
        pthread_mutex_lock(&queue->lock);
        queue->stats.failed += failed;
    }
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}

struct storeq *storeq_start(struct loop *loop, store *writer, const struct storeq_options *options)
{
    struct storeq *queue = calloc(1, sizeof *queue);
    if (queue == NULL) {
        return NULL;
    }
    queue->loop = loop;
    queue->writer = writer;
    queue->options = *options;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&queue->thread, NULL, work, queue) != 0) {
        pthread_cond_destroy(&queue->work);
        pthread_mutex_destroy(&queue->lock);
        free(queue);
        return NULL;
    }
    return queue;
}

void storeq_stop(struct storeq *queue)
{
    if (queue == NULL) {
        return;
    }
    pthread_mutex_lock(&queue->lock);
    queue->stopping = true;
    pthread_cond_broadcast(&queue->work);
    pthread_mutex_unlock(&queue->lock);
    pthread_join(queue->thread, NULL);
    store_close(queue->writer);
    pthread_cond_destroy(&queue->work);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

static bool submit(struct storeq *queue, struct storeq_op *op, struct storeq_wait *wait)
{
    op->wait = wait;
    op->next = NULL;
    op->status = STORE_OK;
    pthread_mutex_lock(&queue->lock);
    bool room = (op->must || queue->stats.waiting < queue->options.max_waiting) && !queue->stopping;
    if (room) {
        if (queue->last != NULL) {
            queue->last->next = op;
        } else {
            queue->first = op;
        }
        queue->last = op;
        queue->stats.waiting++;
        pthread_cond_signal(&queue->work);
    }
    pthread_mutex_unlock(&queue->lock);
    return room;
}

bool storeq_submit(struct storeq *queue, struct storeq_op *op)
{
    return submit(queue, op, NULL);
}

store_status storeq_call(struct storeq *queue, storeq_fn run, void *arg, bool alone,
                         store_error *err)
{
    struct storeq_wait wait = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    struct storeq_op op = {.run = run, .arg = arg, .alone = alone};
    if (!submit(queue, &op, &wait)) {
        op.status = STORE_EBUSY;
        snprintf(op.err.text, sizeof op.err.text,
                 "the queue of the store thread is full (setting store_queue) or it is stopping");
        op.err.status = STORE_EBUSY;
    } else {
        pthread_mutex_lock(&wait.lock);
        while (!wait.over) {
            pthread_cond_wait(&wait.ended, &wait.lock);
        }
        pthread_mutex_unlock(&wait.lock);
    }
    pthread_cond_destroy(&wait.ended);
    pthread_mutex_destroy(&wait.lock);
    if (err != NULL) {
        *err = op.err;
    }
    return op.status;
}

void storeq_get_stats(struct storeq *queue, struct storeq_stats *stats)
{
    pthread_mutex_lock(&queue->lock);
    *stats = queue->stats;
    pthread_mutex_unlock(&queue->lock);
}
