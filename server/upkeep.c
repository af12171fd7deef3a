/* upkeep.c: one timer on the loop; the work itself is the store thread's, in small pieces. */
#include "server/upkeep.h"

#include "server/config.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/storeq.h"
#include "server/usage.h"

#include <stdlib.h>
#include <uv.h>

#define TICK_MS     2000
#define CLEAN_TICKS 30  /* between two cleanings */
#define PURGE_ROWS  500 /* the same, of jobs, events and files */
#define PURGE_TASKS 200 /* removed in one operation: others' writes wait for it */

struct upkeep {
    struct server *server;
    uv_timer_t timer;
    bool closed;
    unsigned ticks;
    struct storeq_op op;
    bool cleaning;
    int64_t now;
    size_t removed, jobs, events, files;
};

/* What settings do not keep: ended jobs, their events, files. 0 keeps for ever, but a file's own expiry
 * always counts. */
static store_status clean_jobs(store *s, struct upkeep *upkeep, store_error *err)
{
    const struct config *config = upkeep->server->config;
    int64_t files_before = config->keep_files > 0 ? upkeep->now - config->keep_files : 0;
    store_status status = STORE_OK;
    if (config->keep_jobs > 0) {
        status =
            store_jobs_purge(s, upkeep->now - config->keep_jobs, PURGE_ROWS, &upkeep->jobs, err);
    }
    if (status == STORE_OK && config->keep_events > 0) {
        status = store_events_purge(s, upkeep->now - config->keep_events, PURGE_ROWS,
                                    &upkeep->events, err);
    }
    return status == STORE_OK
               ? store_files_purge(s, files_before, upkeep->now, PURGE_ROWS, &upkeep->files, err)
               : status;
}

static store_status clean(store *s, void *arg, store_error *err)
{
    struct upkeep *upkeep = arg;
    store_status status = store_idem_purge(s, upkeep->now, false, err);
    if (status == STORE_OK) {
        status = store_tasks_purge(s, upkeep->now - upkeep->server->config->task_retention,
                                   PURGE_TASKS, &upkeep->removed, err);
    }
    if (status == STORE_OK) {
        status = store_task_use_purge(s, upkeep->now / DAY_MS - STORE_TASK_USE_DAYS, err);
    }
    return status == STORE_OK ? clean_jobs(s, upkeep, err) : status;
}

static void cleaned(struct storeq_op *op)
{
    struct upkeep *upkeep = op->arg;
    upkeep->cleaning = false;
    if (op->status != STORE_OK) {
        log_event(LOG_WARN, "upkeep_failed", "%s", op->err.text);
    } else if (upkeep->removed > 0) {
        log_event(LOG_INFO, "tasks_purged", "%zu tasks deleted before the retention time",
                  upkeep->removed);
    }
    if (upkeep->jobs + upkeep->events + upkeep->files > 0) {
        log_event(LOG_INFO, "jobs_purged", "%zu jobs, %zu events of jobs, %zu files", upkeep->jobs,
                  upkeep->events, upkeep->files);
    }
    if (upkeep->removed == PURGE_TASKS || upkeep->jobs == PURGE_ROWS ||
        upkeep->events == PURGE_ROWS || upkeep->files == PURGE_ROWS) {
        upkeep->ticks = CLEAN_TICKS; /* there are more: again at the next tick */
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct upkeep *upkeep = timer->data;
    usage_flush(upkeep->server->usage);
    upkeep->ticks++;
    if (upkeep->ticks < CLEAN_TICKS || upkeep->cleaning) {
        return;
    }
    upkeep->ticks = 0;
    upkeep->now = wall_ms();
    upkeep->removed = upkeep->jobs = upkeep->events = upkeep->files = 0;
    upkeep->op = (struct storeq_op){.run = clean, .done = cleaned, .arg = upkeep};
    upkeep->cleaning = storeq_submit(upkeep->server->storeq, &upkeep->op);
}

static store_status forget_cut_off(store *s, void *arg, store_error *err)
{
    (void)arg;
    return store_idem_purge(s, wall_ms(), true, err);
}

bool upkeep_part_start(struct server *server, char *why, size_t size)
{
    store_error err;
    struct upkeep *upkeep = calloc(1, sizeof *upkeep);
    server->usage = usage_new(server);
    server->upkeep = upkeep;
    if (upkeep == NULL || server->usage == NULL) {
        free(upkeep);
        server->upkeep = NULL;
        snprintf(why, size, "out of memory");
        return false;
    }
    upkeep->server = server;
    upkeep->timer.data = upkeep;
    uv_timer_init(loop_uv(server->loop), &upkeep->timer);
    if (storeq_call(server->storeq, forget_cut_off, NULL, false, &err) != STORE_OK) {
        snprintf(why, size, "interrupted requests cannot be looked through: %s", err.text);
        return false;
    }
    upkeep->ticks = CLEAN_TICKS - 1;
    uv_timer_start(&upkeep->timer, on_tick, TICK_MS, TICK_MS);
    return true;
}

static void on_closed(uv_handle_t *handle)
{
    struct upkeep *upkeep = handle->data;
    upkeep->closed = true;
}

/* The store thread still runs: what it has of ours comes back to the loop before this returns. */
void upkeep_part_stop(struct server *server)
{
    struct upkeep *upkeep = server->upkeep;
    if (upkeep == NULL) {
        return;
    }
    uv_close((uv_handle_t *)&upkeep->timer, on_closed);
    while (!upkeep->closed || upkeep->cleaning || usage_is_flushing(server->usage)) {
        uv_run(loop_uv(server->loop), UV_RUN_ONCE);
    }
    usage_stop(server->usage);
    free(server->usage);
    free(upkeep);
    server->usage = NULL;
    server->upkeep = NULL;
}
