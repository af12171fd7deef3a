/* jobs.c: training jobs as tenants see them: created, read, listed, cancelled.
 * What the thread that runs a job does with it (claim, heartbeat, publish, …) is in lease.c.
 *
 *     validating_files ─┐
 *     queued ───────────┴─ claim ─→ running ─→ succeeded | failed | cancelled
 *        ↑                             │
 *        ├── release, recover ─────────┤            cancel of a waiting job: cancelled at once
 *        └── resume ── paused ←─ park ─┘            pause of a waiting job: paused at once
 */
#include "store/lease.h"

#include <string.h>

static const struct {
    const char *text;
    bool finished;
} statuses[] = {
#define STATUS_ROW(name, text, finished) {text, finished},
    STORE_JOB_STATUS_LIST(STATUS_ROW)
#undef STATUS_ROW
};

_Static_assert(sizeof statuses / sizeof statuses[0] == STORE_JOB_STATUSES,
               "STORE_JOB_STATUSES counts STORE_JOB_STATUS_LIST");

const char *store_job_status_text(store_job_status status)
{
    return (size_t)status < STORE_JOB_STATUSES ? statuses[status].text : "unknown";
}

bool store_job_status_parse(const char *text, store_job_status *status)
{
    for (size_t i = 0; text != NULL && i < STORE_JOB_STATUSES; i++) {
        if (strcmp(text, statuses[i].text) == 0) {
            *status = (store_job_status)i;
            return true;
        }
    }
    return false;
}

bool store_job_finished(store_job_status status)
{
    return (size_t)status < STORE_JOB_STATUSES && statuses[status].finished;
}

void db_read_job(db_query *q, store_mem *mem, void *item)
{
    store_job *out = item;
    out->id = db_text(q, mem);
    out->tenant = db_int(q);
    store_job_status_parse(db_text(q, NULL), &out->status);
    out->model = db_text(q, mem);
    out->spec = db_text(q, mem);
    out->metadata = db_text(q, mem);
    out->request_hash = db_text(q, mem);
    out->seed = (uint64_t)db_int(q);
    out->training_file = db_text(q, mem);
    out->validation_file = db_text(q, mem);
    out->task = db_int(q);
    out->task_name = db_text(q, mem);
    out->version = db_int(q);
    out->result = db_text(q, mem);
    out->error = db_text(q, mem);
    out->created = db_int(q);
    out->started = db_int(q);
    out->finished = db_int(q);
    out->attempts = db_int(q);
    out->lease_owner = db_text(q, mem);
    out->lease_until = db_int(q);
    out->trained_tokens = db_int(q);
    out->cancel_requested = db_int(q) != 0;
    out->pause_requested = db_int(q) != 0;
    out->estimate = db_text(q, mem);
}

store_status db_job_one(db_query *q, const char *id, store_mem *mem, store_job *out,
                        store_error *err)
{
    store_status status = db_step(q, err);
    if (status == STORE_OK && q->row) {
        db_read_job(q, mem, out);
    } else if (status == STORE_OK) {
        status = db_not_found(err, "job", id);
    }
    status = db_finish(q, status, err);
    if (status != STORE_OK) {
        *out = (store_job){0};
    }
    return status;
}

/* ---- create -------------------------------------------------------------------------------- */

static store_status check_file(store *s, int64_t tenant, const char *field, const char *id,
                               store_error *err)
{
    db_query q;
    int64_t found = 0;
    store_status status = db_prepare(s, "SELECT 1 FROM files WHERE tenant = ? AND id = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, id);
    status = db_scalar(&q, &found, err);
    if (status == STORE_ENOTFOUND) {
        return db_fail(err, status, field, "no file %.*s of this tenant", STORE_MAX_NAME, id);
    }
    return status;
}

static store_status check_parts(store *s, const store_job *job, store_error *err)
{
    store_status status = check_file(s, job->tenant, "training_file", job->training_file, err);
    if (status == STORE_OK && job->validation_file != NULL) {
        status = check_file(s, job->tenant, "validation_file", job->validation_file, err);
    }
    if (status == STORE_OK && job->task != 0) {
        status = db_task_check(s, job->tenant, job->task, err);
    }
    return status;
}

static store_status insert_job(store *s, const store_job *job, store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s,
                   "INSERT INTO jobs (id, tenant, status, model, spec, metadata, request_hash,"
                   " seed, training_file, validation_file, task, task_name, created, estimate)"
                   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, nullif(?, 0), ?, ?, ?)",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, job->id);
    db_bind_int(&q, job->tenant);
    db_bind_text(&q, store_job_status_text(job->status));
    db_bind_text(&q, job->model);
    db_bind_text(&q, job->spec);
    db_bind_text(&q, job->metadata);
    db_bind_text(&q, job->request_hash);
    db_bind_int(&q, (int64_t)job->seed);
    db_bind_text(&q, job->training_file);
    db_bind_text(&q, job->validation_file);
    db_bind_int(&q, job->task);
    db_bind_text(&q, job->task_name);
    db_bind_int(&q, job->created);
    db_bind_text(&q, job->estimate);
    status = db_run(&q, err);
    if (status == STORE_EEXISTS) {
        return db_fail(err, status, "id", "a job %s exists already", job->id);
    }
    return status;
}

store_status store_job_create(store *s, const store_job *job, store_error *err)
{
    store_status status = db_check_name("id", job->id, err);
    if (status == STORE_OK) {
        status = db_check_name("task_name", job->task_name, err);
    }
    if (status == STORE_OK && job->training_file == NULL) {
        status = db_fail(err, STORE_EINVAL, "training_file", "a job needs a training file");
    }
    if (status == STORE_OK && job->status != STORE_JOB_QUEUED &&
        job->status != STORE_JOB_VALIDATING) {
        status = db_fail(err, STORE_EINVAL, "status", "a new job is queued or validating_files");
    }
    if (status == STORE_OK) {
        status = db_write_begin(s, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    status = db_check_json(s, "spec", job->spec, err);
    if (status == STORE_OK) {
        status = db_check_json(s, "metadata", job->metadata, err);
    }
    if (status == STORE_OK) {
        status = db_check_json(s, "estimate", job->estimate, err);
    }
    if (status == STORE_OK) {
        status = check_parts(s, job, err);
    }
    if (status == STORE_OK) {
        status = insert_job(s, job, err);
    }
    if (status == STORE_OK) {
        status = db_usage_job(s, job->tenant, job->created, err);
    }
    return db_write_end(s, status, err);
}

/* ---- read ---------------------------------------------------------------------------------- */

store_status store_job_get(store *s, int64_t tenant, const char *id, store_mem *mem, store_job *out,
                           store_error *err)
{
    *out = (store_job){0};
    db_query q;
    store_status status =
        db_prepare(s, "SELECT " DB_JOB_COLUMNS " FROM jobs j WHERE tenant = ? AND id = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, id);
    return db_job_one(&q, id, mem, out, err);
}

store_status store_job_find_request(store *s, int64_t tenant, const char *hash, int64_t since,
                                    store_mem *mem, store_job *out, store_error *err)
{
    *out = (store_job){0};
    db_query q;
    store_status status =
        db_prepare(s,
                   "SELECT " DB_JOB_COLUMNS " FROM jobs j WHERE tenant = ? AND request_hash = ?"
                   " AND created >= ? ORDER BY seq DESC LIMIT 1",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, hash);
    db_bind_int(&q, since);
    return db_job_one(&q, "of this request", mem, out, err);
}

/* Every pair of the filter must be a pair of the metadata. */
#define JOB_LIST(beyond, direction)                                                                \
    "SELECT " DB_JOB_COLUMNS " FROM jobs j WHERE tenant = ?1 AND seq " beyond                      \
    " ?2 AND (?3 IS NULL OR NOT EXISTS (SELECT 1 FROM json_each(?3) want WHERE NOT EXISTS"         \
    " (SELECT 1 FROM json_each(coalesce(j.metadata, '{}')) have"                                   \
    " WHERE have.key = want.key AND have.value IS want.value)))"                                   \
    " ORDER BY seq " direction " LIMIT ?4"

static store_status job_page(store *s, int64_t tenant, const store_page *page, int64_t *start,
                             store_error *err)
{
    store_status status = db_page_start(page, start, err);
    if (status != STORE_OK || page->after == NULL) {
        return status;
    }
    db_query q;
    status = db_prepare(s, "SELECT seq FROM jobs WHERE tenant = ? AND id = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, page->after);
    return db_page_after(&q, page, start, err);
}

store_status store_job_list(store *s, int64_t tenant, const char *metadata, const store_page *page,
                            store_mem *mem, store_job **items, size_t *n, bool *has_more,
                            store_error *err)
{
    *items = NULL;
    *n = 0;
    *has_more = false;
    int64_t start = 0;
    db_query q;
    void *rows = NULL;
    store_status status = db_check_json(s, "metadata", metadata, err);
    if (status == STORE_OK) {
        status = job_page(s, tenant, page, &start, err);
    }
    if (status == STORE_OK) {
        status = db_prepare(s, page->oldest_first ? JOB_LIST(">", "ASC") : JOB_LIST("<", "DESC"),
                            &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_int(&q, start);
    db_bind_text(&q, metadata);
    db_bind_int(&q, (int64_t)page->limit + 1);
    status = db_list(&q, page->limit, sizeof **items, db_read_job, mem, &rows, n, has_more, err);
    *items = rows;
    return status;
}

store_status store_job_counts(store *s, int64_t tenant, int64_t counts[STORE_JOB_STATUSES],
                              store_error *err)
{
    memset(counts, 0, sizeof counts[0] * STORE_JOB_STATUSES);
    db_query q;
    store_status status = db_prepare(
        s, "SELECT status, count(*) FROM jobs WHERE ?1 = 0 OR tenant = ?1 GROUP BY status", &q,
        err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    status = db_step(&q, err);
    while (status == STORE_OK && q.row) {
        store_job_status which;
        if (store_job_status_parse(db_text(&q, NULL), &which)) {
            counts[which] = db_int(&q);
        }
        status = db_step(&q, err);
    }
    return db_finish(&q, status, err);
}

/* ---- cancel -------------------------------------------------------------------------------- */

static store_status mark_cancelled(store *s, const store_job *job, int64_t now, store_error *err)
{
    db_query q;
    bool running = job->status == STORE_JOB_RUNNING;
    store_status status = db_prepare(
        s,
        running ? "UPDATE jobs SET cancel_requested = 1 WHERE tenant = ?2 AND id = ?3 AND ?1 = ?1"
                : "UPDATE jobs SET status = 'cancelled', finished = ?1"
                  " WHERE tenant = ?2 AND id = ?3",
        &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, now);
    db_bind_int(&q, job->tenant);
    db_bind_text(&q, job->id);
    status = db_run(&q, err);
    if (status == STORE_OK && !running) {
        status = db_drop_checkpoint(s, job->id, err);
    }
    return status;
}

static store_status cancel(store *s, int64_t tenant, const char *id, int64_t now, store_mem *mem,
                           store_job *out, store_error *err)
{
    store_status status = store_job_get(s, tenant, id, mem, out, err);
    if (status != STORE_OK) {
        return status;
    }
    if (store_job_finished(out->status)) {
        return db_fail(err, STORE_ESTATE, "status", "job %s is %s already and cannot be cancelled",
                       id, store_job_status_text(out->status));
    }
    status = mark_cancelled(s, out, now, err);
    return status == STORE_OK ? store_job_get(s, tenant, id, mem, out, err) : status;
}

store_status store_job_cancel(store *s, int64_t tenant, const char *id, int64_t now, store_mem *mem,
                              store_job *out, store_error *err)
{
    *out = (store_job){0};
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_write_end(s, cancel(s, tenant, id, now, mem, out, err), err);
    if (status != STORE_OK) {
        *out = (store_job){0};
    }
    return status;
}

/* ---- pause and resume ------------------------------------------------------------------------ */

#define PAUSE_ROW                                                                                  \
    "UPDATE jobs SET pause_requested = (status = 'running'),"                                      \
    " status = iif(status = 'running', status, 'paused') WHERE tenant = ? AND id = ?"
#define RESUME_ROW                                                                                 \
    "UPDATE jobs SET pause_requested = 0, status = iif(status = 'paused', 'queued', status)"       \
    " WHERE tenant = ? AND id = ?"

static store_status change_row(store *s, const char *sql, const char *what, int64_t tenant,
                               const char *id, store_mem *mem, store_job *out, store_error *err)
{
    db_query q;
    store_status status = store_job_get(s, tenant, id, mem, out, err);
    if (status == STORE_OK && store_job_finished(out->status)) {
        status = db_fail(err, STORE_ESTATE, "status", "job %s is %s already and cannot be %s", id,
                         store_job_status_text(out->status), what);
    }
    if (status == STORE_OK) {
        status = db_prepare(s, sql, &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, id);
    status = db_run(&q, err);
    return status == STORE_OK ? store_job_get(s, tenant, id, mem, out, err) : status;
}

static store_status change(store *s, const char *sql, const char *what, int64_t tenant,
                           const char *id, store_mem *mem, store_job *out, store_error *err)
{
    *out = (store_job){0};
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_write_end(s, change_row(s, sql, what, tenant, id, mem, out, err), err);
    if (status != STORE_OK) {
        *out = (store_job){0};
    }
    return status;
}

store_status store_job_pause(store *s, int64_t tenant, const char *id, store_mem *mem,
                             store_job *out, store_error *err)
{
    return change(s, PAUSE_ROW, "paused", tenant, id, mem, out, err);
}

store_status store_job_resume(store *s, int64_t tenant, const char *id, store_mem *mem,
                              store_job *out, store_error *err)
{
    return change(s, RESUME_ROW, "resumed", tenant, id, mem, out, err);
}
