/* loop.c: a uv loop with one mailbox.
 *
 * Other threads push closures on a list under a lock and ring a uv_async. Rings coalesce, so the
 * receiver detaches the whole list under the lock and runs it unlocked, in order of arrival; what is
 * posted meanwhile rings again.
 */
#include "server/loop.h"

#include "server/slice.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <uv.h>

struct loop {
    uv_loop_t uv;
    uv_async_t bell;
    pthread_t thread;

    pthread_mutex_t lock; /* covers first, last */
    struct loop_task *first, *last;
};

static int64_t read_clock(clockid_t id, int64_t per_second)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * per_second + (int64_t)now.tv_nsec / (1000000000 / per_second);
}

int64_t clock_ms(void)
{
    return read_clock(CLOCK_MONOTONIC, 1000);
}

int64_t clock_us(void)
{
    return read_clock(CLOCK_MONOTONIC, 1000000);
}

int64_t wall_ms(void)
{
    return read_clock(CLOCK_REALTIME, 1000);
}

/* True when something ran. */
static bool run_posted(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    struct loop_task *task = loop->first;
    loop->first = NULL;
    loop->last = NULL;
    pthread_mutex_unlock(&loop->lock);
    bool any = task != NULL;
    while (task != NULL) {
        /* The task may be freed or posted again by its own run. */
        struct loop_task *next = task->next;
        task->run(task->arg);
        task = next;
    }
    return any;
}

static void on_bell(uv_async_t *bell)
{
    run_posted(bell->data);
}

struct loop *loop_new(void)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL) {
        return NULL;
    }
    if (uv_loop_init(&loop->uv) != 0) {
        free(loop);
        return NULL;
    }
    if (uv_async_init(&loop->uv, &loop->bell, on_bell) != 0) {
        uv_loop_close(&loop->uv);
        free(loop);
        return NULL;
    }
    loop->bell.data = loop;
    loop->thread = pthread_self();
    pthread_mutex_init(&loop->lock, NULL);
    return loop;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL) {
        return;
    }
    while (run_posted(loop)) {
    }
    uv_close((uv_handle_t *)&loop->bell, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    uv_loop_close(&loop->uv);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

void loop_run(struct loop *loop)
{
    loop->thread = pthread_self();
    slice_brief();
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void loop_stop(struct loop *loop)
{
    uv_stop(&loop->uv);
}

void loop_post(struct loop *loop, struct loop_task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&loop->lock);
    if (loop->last != NULL) {
        loop->last->next = task;
    } else {
        loop->first = task;
    }
    loop->last = task;
    /* Inside the lock: once the task is taken, the poster may be the last that keeps the loop alive. */
    uv_async_send(&loop->bell);
    pthread_mutex_unlock(&loop->lock);
}

bool loop_is_current(const struct loop *loop)
{
    return pthread_equal(loop->thread, pthread_self()) != 0;
}

struct uv_loop_s *loop_uv(struct loop *loop)
{
    return &loop->uv;
}
