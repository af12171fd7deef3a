/* usage.c: what a tenant used, one row a day; what a key asked of a task, one row a day. */
#include "store/db.h"

#include <string.h>

#define MAX_DAYS 3700 /* ten years are one answer */

static void read_usage(db_query *q, store_mem *mem, void *item)
{
    (void)mem;
    store_usage *out = item;
    out->day = db_int(q);
    out->requests = db_int(q);
    out->inputs = db_int(q);
    out->tokens = db_int(q);
    out->jobs = db_int(q);
    out->trained_tokens = db_int(q);
}

static store_status add(store *s, int64_t tenant, const store_usage *use, store_error *err)
{
    db_query q;
    store_status status = db_prepare(
        s,
        "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, day) DO UPDATE SET"
        " requests = requests + excluded.requests, inputs = inputs + excluded.inputs,"
        " tokens = tokens + excluded.tokens, jobs = jobs + excluded.jobs,"
        " trained_tokens = trained_tokens + excluded.trained_tokens",
        &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_int(&q, use->day);
    db_bind_int(&q, use->requests);
    db_bind_int(&q, use->inputs);
    db_bind_int(&q, use->tokens);
    db_bind_int(&q, use->jobs);
    db_bind_int(&q, use->trained_tokens);
    status = db_run(&q, err);
    if (status == STORE_ENOTFOUND) {
        return db_fail(err, status, "tenant", "no tenant with this number");
    }
    return status;
}

#define DAY_MS 86400000

store_status db_usage_job(store *s, int64_t tenant, int64_t now, store_error *err)
{
    return add(s, tenant, &(store_usage){.day = now / DAY_MS, .jobs = 1}, err);
}

store_status db_usage_trained(store *s, int64_t job_seq, int64_t tokens, int64_t now,
                              store_error *err)
{
    db_query q;
    int64_t tenant = 0;
    store_status status = db_prepare(s, "SELECT tenant FROM jobs WHERE seq = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, job_seq);
    status = db_scalar(&q, &tenant, err);
    if (status != STORE_OK || tokens <= 0) {
        return status;
    }
    return add(s, tenant, &(store_usage){.day = now / DAY_MS, .trained_tokens = tokens}, err);
}

store_status store_usage_add(store *s, int64_t tenant, const store_usage *use, store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    return db_write_end(s, add(s, tenant, use, err), err);
}

store_status store_usage_list(store *s, int64_t tenant, int64_t first, int64_t last, store_mem *mem,
                              store_usage **items, size_t *n, store_error *err)
{
    *items = NULL;
    *n = 0;
    if (last < first || last - first >= MAX_DAYS) {
        return db_fail(err, STORE_EINVAL, "last", "ask for 1 to %d days, first before last",
                       MAX_DAYS);
    }
    db_query q;
    void *rows = NULL;
    bool more = false;
    store_status status =
        db_prepare(s,
                   "SELECT day, requests, inputs, tokens, jobs, trained_tokens FROM usage"
                   " WHERE tenant = ? AND day BETWEEN ? AND ? ORDER BY day",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_int(&q, first);
    db_bind_int(&q, last);
    size_t days = (size_t)(last - first) + 1;
    status = db_list(&q, days, sizeof **items, read_usage, mem, &rows, n, &more, err);
    *items = rows;
    return status;
}

/* ---- tasks --------------------------------------------------------------------------------- */

store_status store_task_use_add(store *s, const store_task_use *use, store_error *err)
{
    db_query q;
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_prepare(
        s,
        "INSERT INTO task_usage SELECT ?1, ?2, ?3, ?4, ?5, ?6"
        " WHERE EXISTS (SELECT 1 FROM tasks WHERE id = ?1)"
        " ON CONFLICT (task, key, day) DO UPDATE SET requests = requests + excluded.requests,"
        " inputs = inputs + excluded.inputs, tokens = tokens + excluded.tokens",
        &q, err);
    if (status == STORE_OK) {
        db_bind_int(&q, use->task);
        db_bind_text(&q, use->key);
        db_bind_int(&q, use->day);
        db_bind_int(&q, use->requests);
        db_bind_int(&q, use->inputs);
        db_bind_int(&q, use->tokens);
        status = db_run(&q, err);
    }
    return db_write_end(s, status, err);
}

static void read_task_use(db_query *q, store_mem *mem, void *item)
{
    store_task_use *out = item;
    out->day = db_int(q);
    out->key = db_text(q, mem);
    out->requests = db_int(q);
    out->inputs = db_int(q);
    out->tokens = db_int(q);
}

store_status store_task_use_list(store *s, int64_t tenant, int64_t task, int64_t first,
                                 store_mem *mem, store_task_use **items, size_t *n,
                                 store_error *err)
{
    db_query q;
    void *rows = NULL;
    bool more = false;
    *items = NULL;
    *n = 0;
    store_status status = db_task_check(s, tenant, task, err);
    if (status == STORE_OK) {
        status = db_prepare(s,
                            "SELECT day, key, requests, inputs, tokens FROM task_usage"
                            " WHERE task = ? AND day >= ? ORDER BY day DESC, key LIMIT ?",
                            &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, task);
    db_bind_int(&q, first);
    db_bind_int(&q, STORE_TASK_USE_ROWS + 1);
    status =
        db_list(&q, STORE_TASK_USE_ROWS, sizeof **items, read_task_use, mem, &rows, n, &more, err);
    *items = rows;
    return status;
}

store_status store_task_use_purge(store *s, int64_t day, store_error *err)
{
    db_query q;
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_prepare(s, "DELETE FROM task_usage WHERE day < ?", &q, err);
    if (status == STORE_OK) {
        db_bind_int(&q, day);
        status = db_run(&q, err);
    }
    return db_write_end(s, status, err);
}
