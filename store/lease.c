/* lease.c: what the thread that runs a job does with it.
 *
 * A running job belongs to the owner named in its row until the lease ends. Every call here says who
 * is asking, in the WHERE clause of the very statement that changes the row, so that a holder that
 * lost its lease (a stall, a clock jump) changes nothing.
 *
 * Publishing is one transaction: the task if it is new, its version, the alias, the job's end and the
 * last event appear together or not at all.
 */
#include "store/lease.h"

#include <string.h>

static store_status lost_lease(const char *id, store_error *err)
{
    return db_fail(err, STORE_ESTATE, "lease", "job %s is not running under this owner", id);
}

/* ---- claim, heartbeat, release ------------------------------------------------------------- */

#define RUNNING_OF_TENANT                                                                          \
    "(SELECT count(*) FROM jobs r WHERE r.status = 'running' AND r.tenant = j.tenant)"
#define NO_LIMIT "9223372036854775807"

static store_status next_waiting(store *s, store_mem *mem, store_job *out, store_error *err)
{
    db_query q;
    store_status status = db_prepare(
        s,
        "SELECT " DB_JOB_COLUMNS " FROM jobs j JOIN tenants t ON t.id = j.tenant"
        " WHERE status IN ('validating_files', 'queued')"
        " AND coalesce(nullif(coalesce(json_extract(t.settings, '$.quotas.running_jobs'), ?1), 0),"
        " " NO_LIMIT ") > " RUNNING_OF_TENANT " ORDER BY " RUNNING_OF_TENANT ","
        " coalesce((SELECT turn FROM job_turns u WHERE u.tenant = j.tenant), 0), seq LIMIT 1",
        &q, err);
    if (status == STORE_OK) {
        db_bind_int(&q, s->running_jobs);
    }
    return status == STORE_OK ? db_job_one(&q, "waiting", mem, out, err) : status;
}

/* A tenant that has just had its turn stands behind all others, however many jobs it has. */
static store_status take_turn(store *s, int64_t tenant, store_error *err)
{
    db_query q;
    store_status status = db_prepare(s,
                                     "INSERT OR REPLACE INTO job_turns (tenant, turn) VALUES (?,"
                                     " (SELECT coalesce(max(turn), 0) + 1 FROM job_turns))",
                                     &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    return db_run(&q, err);
}

static store_status claim(store *s, const char *owner, int64_t now, int64_t lease_until,
                          store_mem *mem, store_job *out, store_error *err)
{
    store_status status = next_waiting(s, mem, out, err);
    db_query q;
    if (status == STORE_OK) {
        status = take_turn(s, out->tenant, err);
    }
    if (status == STORE_OK) {
        status = db_prepare(s,
                            "UPDATE jobs SET status = 'running', started = iif(started = 0, ?1,"
                            " started), attempts = attempts + 1, lease_owner = ?2,"
                            " lease_until = ?3 WHERE id = ?4",
                            &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, now);
    db_bind_text(&q, owner);
    db_bind_int(&q, lease_until);
    db_bind_text(&q, out->id);
    status = db_run(&q, err);
    return status == STORE_OK ? store_job_get(s, out->tenant, out->id, mem, out, err) : status;
}

store_status store_job_claim(store *s, const char *owner, int64_t now, int64_t lease_until,
                             store_mem *mem, store_job *out, store_error *err)
{
    *out = (store_job){0};
    store_status status = db_check_name("owner", owner, err);
    if (status == STORE_OK) {
        status = db_write_begin(s, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    status = db_write_end(s, claim(s, owner, now, lease_until, mem, out, err), err);
    if (status != STORE_OK) {
        *out = (store_job){0};
    }
    return status;
}

static store_status beat(store *s, const char *id, const char *owner, int64_t lease_until,
                         int64_t trained_tokens, store_wish *wish, store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s,
                   "UPDATE jobs SET lease_until = ?, trained_tokens = ? WHERE id = ?"
                   " AND status = 'running' AND lease_owner = ?"
                   " RETURNING iif(cancel_requested, 2, pause_requested)", /* store_wish */
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    int64_t found = STORE_GO_ON;
    db_bind_int(&q, lease_until);
    db_bind_int(&q, trained_tokens);
    db_bind_text(&q, id);
    db_bind_text(&q, owner);
    status = db_scalar(&q, &found, err);
    *wish = (store_wish)found;
    return status == STORE_ENOTFOUND ? lost_lease(id, err) : status;
}

store_status store_job_heartbeat(store *s, const char *id, const char *owner, int64_t lease_until,
                                 int64_t trained_tokens, store_wish *wish, store_error *err)
{
    *wish = STORE_GO_ON;
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = beat(s, id, owner, lease_until, trained_tokens, wish, err);
    return db_write_end(s, status, err);
}

/* Which job it is, and whether its tenant (still) wants the pause. */
static store_status find_parked(store *s, const char *id, const char *owner, int64_t *seq,
                                bool *paused, store_error *err)
{
    db_query q;
    store_status status = db_prepare(s,
                                     "SELECT seq, pause_requested, cancel_requested FROM jobs"
                                     " WHERE id = ? AND status = 'running' AND lease_owner = ?",
                                     &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, id);
    db_bind_text(&q, owner);
    status = db_step(&q, err);
    if (status == STORE_OK && !q.row) {
        status = lost_lease(id, err);
    } else if (status == STORE_OK) {
        *seq = db_int(&q);
        *paused = db_int(&q) != 0;
        if (db_int(&q) != 0) {
            status = db_fail(err, STORE_ESTATE, "status", "job %s was cancelled", id);
        }
    }
    return db_finish(&q, status, err);
}

static store_status park(store *s, const char *id, const char *owner, int64_t trained_tokens,
                         const store_event *event, store_job_status *to, store_error *err)
{
    db_query q;
    int64_t seq = 0;
    bool paused = false;
    store_status status = find_parked(s, id, owner, &seq, &paused, err);
    *to = paused ? STORE_JOB_PAUSED : STORE_JOB_QUEUED;
    if (status == STORE_OK) {
        status = db_prepare(s,
                            "UPDATE jobs SET status = ?, attempts = max(attempts - 1, 0),"
                            " pause_requested = 0, lease_owner = NULL, lease_until = 0,"
                            " trained_tokens = ? WHERE seq = ?",
                            &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, store_job_status_text(*to));
    db_bind_int(&q, trained_tokens);
    db_bind_int(&q, seq);
    status = db_run(&q, err);
    return status == STORE_OK && event != NULL ? db_event_insert(s, seq, event, NULL, err) : status;
}

store_status store_job_park(store *s, const char *id, const char *owner, int64_t trained_tokens,
                            const store_event *event, store_job_status *to, store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    return db_write_end(s, park(s, id, owner, trained_tokens, event, to, err), err);
}

store_status store_job_release(store *s, const char *id, const char *owner, store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    db_query q;
    status = db_prepare(s,
                        "UPDATE jobs SET status = 'queued', attempts = max(attempts - 1, 0),"
                        " lease_owner = NULL, lease_until = 0"
                        " WHERE id = ? AND status = 'running' AND lease_owner = ?",
                        &q, err);
    if (status == STORE_OK) {
        db_bind_text(&q, id);
        db_bind_text(&q, owner);
        status = db_run(&q, err);
    }
    if (status == STORE_OK && db_changes(s) == 0) {
        status = lost_lease(id, err);
    }
    return db_write_end(s, status, err);
}

/* ---- ends ---------------------------------------------------------------------------------- */

struct ending {
    store_job_status status;
    const char *error, *result;
    int64_t task, version; /* 0 unless it published */
    int64_t trained_tokens, now;
    const store_event *event;
};

/* The running job `id` of `owner` ends; its checkpoint goes and the last event comes. */
static store_status end_job(store *s, const char *id, const char *owner, const struct ending *end,
                            store_error *err)
{
    db_query q;
    int64_t seq = 0;
    store_status status = db_check_json(s, "error", end->error, err);
    if (status == STORE_OK) {
        status = db_check_json(s, "result", end->result, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    status = db_prepare(
        s,
        "UPDATE jobs SET status = ?, error = ?, result = ?, task = coalesce(nullif(?, 0), task),"
        " version = ?, trained_tokens = ?, finished = ?, lease_owner = NULL, lease_until = 0"
        " WHERE id = ? AND status = 'running' AND lease_owner = ? RETURNING seq",
        &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, store_job_status_text(end->status));
    db_bind_text(&q, end->error);
    db_bind_text(&q, end->result);
    db_bind_int(&q, end->task);
    db_bind_int(&q, end->version);
    db_bind_int(&q, end->trained_tokens);
    db_bind_int(&q, end->now);
    db_bind_text(&q, id);
    db_bind_text(&q, owner);
    status = db_scalar(&q, &seq, err);
    if (status == STORE_ENOTFOUND) {
        return lost_lease(id, err);
    }
    if (status == STORE_OK) {
        status = db_usage_trained(s, seq, end->trained_tokens, end->now, err);
    }
    if (status == STORE_OK) {
        status = db_drop_checkpoint(s, id, err);
    }
    if (status == STORE_OK && end->event != NULL) {
        status = db_event_insert(s, seq, end->event, NULL, err);
    }
    return status;
}

store_status store_job_finish(store *s, const char *id, const char *owner, store_job_status status,
                              const char *error, const char *result, int64_t trained_tokens,
                              const store_event *event, int64_t now, store_error *err)
{
    if (status != STORE_JOB_FAILED && status != STORE_JOB_CANCELLED) {
        return db_fail(err, STORE_EINVAL, "status",
                       "a job without a version ends failed or "
                       "cancelled");
    }
    struct ending end = {.status = status,
                         .error = error,
                         .result = result,
                         .trained_tokens = trained_tokens,
                         .now = now,
                         .event = event};
    store_status done = db_write_begin(s, err);
    if (done != STORE_OK) {
        return done;
    }
    return db_write_end(s, end_job(s, id, owner, &end, err), err);
}

/* ---- publish ------------------------------------------------------------------------------- */

struct target {
    int64_t tenant, task;
    const char *name; /* lives in `mem` */
    store_mem *mem;
};

/* Who publishes, and into what; STORE_ESTATE when the lease is lost or the tenant cancelled. */
static store_status find_target(store *s, const char *id, const char *owner, struct target *out,
                                store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s,
                   "SELECT tenant, task, task_name, cancel_requested FROM jobs WHERE id = ?"
                   " AND status = 'running' AND lease_owner = ?",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, id);
    db_bind_text(&q, owner);
    status = db_step(&q, err);
    if (status == STORE_OK && !q.row) {
        status = lost_lease(id, err);
    } else if (status == STORE_OK) {
        out->tenant = db_int(&q);
        out->task = db_int(&q);
        out->name = db_text(&q, out->mem);
        if (db_int(&q) != 0) {
            status = db_fail(err, STORE_ESTATE, "status", "job %s was cancelled", id);
        }
    }
    return db_finish(&q, status, err);
}

/* Two jobs may have been asked for the same new task: the second adds a version to what the first has
 * made, when both ask the same of it. Else the name is simply taken. */
static store_status find_same_task(store *s, struct target *target, const store_task *task,
                                   store_error *err)
{
    db_query q;
    int64_t same = 0;
    store_status status =
        db_prepare(s,
                   "SELECT id FROM tasks WHERE tenant = ? AND name = ? AND deleted = 0"
                   " AND type = ? AND labels IS ? AND text_template IS ? AND flags = ?",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, target->tenant);
    db_bind_text(&q, target->name);
    db_bind_text(&q, task->type);
    db_bind_text(&q, task->labels);
    db_bind_text(&q, task->text_template);
    db_bind_int(&q, (int64_t)task->flags);
    status = db_scalar(&q, &same, err);
    target->task = same;
    return status == STORE_ENOTFOUND ? STORE_OK : status;
}

static store_status insert_current(store *s, int64_t task, const store_version *version,
                                   int64_t now, int64_t *number, store_error *err)
{
    store_status status = db_version_insert(s, task, version, number, err);
    return status == STORE_OK ? db_set_current(s, task, *number, now, err) : status;
}

static store_status place_version(store *s, const char *id, const store_task *task,
                                  const store_version *version, const store_version *held,
                                  int64_t now, struct target *target, int64_t *number,
                                  store_error *err)
{
    store_version row = *version;
    row.job = id;
    row.created = now;
    store_status status = STORE_OK;
    bool publish = held == NULL;
    if (target->task == 0) {
        status = find_same_task(s, target, task, err);
    }
    if (status == STORE_OK && target->task == 0) {
        store_task made = *task;
        made.tenant = target->tenant;
        made.name = target->name;
        made.created = now;
        status = db_task_insert(s, &made, &target->task, err);
        if (status == STORE_OK && !publish) {
            status = insert_current(s, target->task, held, now, number, err);
        }
    } else if (status == STORE_OK) {
        status = db_task_check(s, target->tenant, target->task, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    return publish ? insert_current(s, target->task, &row, now, number, err)
                   : db_version_insert(s, target->task, &row, number, err);
}

store_status store_job_publish(store *s, const char *id, const char *owner, const store_task *task,
                               const store_version *version, const store_version *held,
                               const char *result, int64_t trained_tokens, const store_event *event,
                               int64_t now, int64_t *task_id, int64_t *number, store_error *err)
{
    *task_id = *number = 0;
    struct target target = {.mem = store_mem_new()};
    if (target.mem == NULL) {
        return db_fail_nomem(err);
    }
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        store_mem_free(target.mem);
        return status;
    }
    status = find_target(s, id, owner, &target, err);
    if (status == STORE_OK) {
        status = place_version(s, id, task, version, held, now, &target, number, err);
    }
    if (status == STORE_OK) {
        struct ending end = {.status = STORE_JOB_SUCCEEDED,
                             .result = result,
                             .task = target.task,
                             .version = *number,
                             .trained_tokens = trained_tokens,
                             .now = now,
                             .event = event};
        status = end_job(s, id, owner, &end, err);
    }
    status = db_write_end(s, status, err);
    *task_id = status == STORE_OK ? target.task : 0;
    *number = status == STORE_OK ? *number : 0;
    store_mem_free(target.mem);
    return status;
}

/* ---- recovery ------------------------------------------------------------------------------ */

/* `sql`: ?1 stale before, ?2 attempts, ?3 error, ?4 now. */
static store_status recover_some(store *s, const char *sql, int64_t stale_before,
                                 int64_t max_attempts, const char *error, int64_t now,
                                 int64_t *count, store_error *err)
{
    db_query q;
    store_status status = db_prepare(s, sql, &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, stale_before);
    db_bind_int(&q, max_attempts);
    db_bind_text(&q, error);
    db_bind_int(&q, now);
    status = db_run(&q, err);
    *count = status == STORE_OK ? db_changes(s) : 0;
    return status;
}

#define STALE " WHERE status = 'running' AND lease_until < ?1 AND ?2 = ?2 AND ?3 IS ?3 AND ?4 = ?4"

store_status store_jobs_recover(store *s, int64_t stale_before, int64_t max_attempts,
                                const char *error, int64_t now, store_recovered *out,
                                store_error *err)
{
    *out = (store_recovered){0};
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_check_json(s, "error", error, err);
    if (status != STORE_OK) {
        return db_write_end(s, status, err);
    }
    status = recover_some(s,
                          "UPDATE jobs SET status = 'cancelled', finished = ?4, lease_owner = NULL,"
                          " lease_until = 0" STALE " AND cancel_requested = 1",
                          stale_before, max_attempts, error, now, &out->cancelled, err);
    if (status == STORE_OK) {
        status = recover_some(s,
                              "UPDATE jobs SET status = 'failed', error = ?3, finished = ?4,"
                              " lease_owner = NULL, lease_until = 0" STALE " AND attempts >= ?2",
                              stale_before, max_attempts, error, now, &out->failed, err);
    }
    if (status == STORE_OK) {
        status = recover_some(s,
                              "UPDATE jobs SET status = iif(pause_requested, 'paused', 'queued'),"
                              " pause_requested = 0, lease_owner = NULL, lease_until = 0" STALE,
                              stale_before, max_attempts, error, now, &out->requeued, err);
    }
    if (status == STORE_OK) {
        status = db_exec(s,
                         "DELETE FROM job_checkpoints WHERE job IN (SELECT seq FROM jobs"
                         " WHERE status IN ('succeeded', 'failed', 'cancelled'))",
                         err);
    }
    status = db_write_end(s, status, err);
    if (status != STORE_OK) {
        *out = (store_recovered){0};
    }
    return status;
}
