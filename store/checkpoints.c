/* checkpoints.c: the state a job can go on from, and what is thrown away when its time is over.
 *
 * One row a job that is not finished, replaced by every later state. Like all that belongs to a lease,
 * writing one names the owner in the statement itself. Purging takes a bounded number of rows a call,
 * so that no transaction holds up the others for long.
 */
#include "store/lease.h"

/* ---- checkpoints --------------------------------------------------------------------------- */

static store_status write_state(store *s, const char *id, const char *owner, int64_t step,
                                store_blob state, int64_t now, store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s,
                   "INSERT OR REPLACE INTO job_checkpoints (job, step, state, created)"
                   " SELECT seq, ?1, ?2, ?3 FROM jobs WHERE id = ?4 AND status = 'running'"
                   " AND lease_owner = ?5",
                   &q, err);
    if (status == STORE_OK) {
        db_bind_int(&q, step);
        db_bind_blob(&q, state.data != NULL ? state.data : "", state.len);
        db_bind_int(&q, now);
        db_bind_text(&q, id);
        db_bind_text(&q, owner);
        status = db_run(&q, err);
    }
    if (status == STORE_OK && db_changes(s) == 0) {
        status = db_fail(err, STORE_ESTATE, "lease", "job %s is not running under this owner", id);
    }
    return status;
}

/* A step beyond the last state: what cut the job off before did not keep it from getting on. */
static store_status forgive(store *s, const char *id, int64_t step, store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s,
                   "UPDATE jobs SET attempts = 1 WHERE id = ? AND attempts > 1 AND ? >"
                   " coalesce((SELECT step FROM job_checkpoints WHERE job = jobs.seq), 0)",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, id);
    db_bind_int(&q, step);
    return db_run(&q, err);
}

store_status store_job_checkpoint(store *s, const char *id, const char *owner, int64_t step,
                                  store_blob state, int64_t now, store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = forgive(s, id, step, err);
    if (status == STORE_OK) {
        status = write_state(s, id, owner, step, state, now, err);
    }
    return db_write_end(s, status, err);
}

store_status store_job_get_checkpoint(store *s, const char *id, store_mem *mem, int64_t *step,
                                      store_blob *state, store_error *err)
{
    *step = 0;
    *state = (store_blob){0};
    db_query q;
    store_status status = db_prepare(s,
                                     "SELECT c.step, c.state FROM job_checkpoints c"
                                     " JOIN jobs j ON j.seq = c.job WHERE j.id = ?",
                                     &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, id);
    status = db_step(&q, err);
    if (status == STORE_OK && q.row) {
        *step = db_int(&q);
        *state = db_blob(&q, mem);
    } else if (status == STORE_OK) {
        status = db_not_found(err, "checkpoint", id);
    }
    return db_finish(&q, status, err);
}

store_status store_job_look_checkpoint(store *s, int64_t tenant, const char *id, int64_t *step,
                                       int64_t *bytes, int64_t *created, store_error *err)
{
    *step = *bytes = *created = 0;
    db_query q;
    store_status status = db_prepare(s,
                                     "SELECT c.step, length(c.state), c.created"
                                     " FROM job_checkpoints c JOIN jobs j ON j.seq = c.job"
                                     " WHERE j.tenant = ? AND j.id = ?",
                                     &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, id);
    status = db_step(&q, err);
    if (status == STORE_OK && q.row) {
        *step = db_int(&q);
        *bytes = db_int(&q);
        *created = db_int(&q);
    } else if (status == STORE_OK) {
        status = db_not_found(err, "checkpoint", id);
    }
    return db_finish(&q, status, err);
}

store_status db_drop_checkpoint(store *s, const char *id, store_error *err)
{
    db_query q;
    store_status status = db_prepare(
        s, "DELETE FROM job_checkpoints WHERE job = (SELECT seq FROM jobs WHERE id = ?)", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, id);
    return db_run(&q, err);
}

store_status store_job_drop_checkpoint(store *s, const char *id, store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    return db_write_end(s, db_drop_checkpoint(s, id, err), err);
}

/* ---- retention ------------------------------------------------------------------------------- */

/* `sql`: ?1 before, ?2 limit, ?3 now. */
static store_status purge(store *s, const char *sql, int64_t before, size_t limit, int64_t now,
                          size_t *removed, store_error *err)
{
    *removed = 0;
    db_query q;
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    size_t n = 0;
    status = db_prepare(s, sql, &q, err);
    if (status == STORE_OK) {
        db_bind_int(&q, before);
        db_bind_int(&q, (int64_t)limit);
        db_bind_int(&q, now);
        status = db_run(&q, err);
        n = (size_t)db_changes(s);
    }
    status = db_write_end(s, status, err);
    *removed = status == STORE_OK ? n : 0;
    return status;
}

store_status store_jobs_purge(store *s, int64_t before, size_t limit, size_t *removed,
                              store_error *err)
{
    return purge(s,
                 "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE finished > 0"
                 " AND finished < ?1 AND ?3 = ?3 LIMIT ?2)",
                 before, limit, 0, removed, err);
}

store_status store_events_purge(store *s, int64_t before, size_t limit, size_t *removed,
                                store_error *err)
{
    return purge(s,
                 "DELETE FROM job_events WHERE seq IN (SELECT e.seq FROM jobs j"
                 " JOIN job_events e ON e.job = j.seq WHERE j.finished > 0 AND j.finished < ?1"
                 " AND ?3 = ?3 LIMIT ?2)",
                 before, limit, 0, removed, err);
}

store_status store_files_purge(store *s, int64_t before, int64_t now, size_t limit, size_t *removed,
                               store_error *err)
{
    return purge(s,
                 "DELETE FROM files WHERE seq IN (SELECT seq FROM files f"
                 " WHERE (created < ?1 OR (expires > 0 AND expires <= ?3)) AND NOT EXISTS"
                 " (SELECT 1 FROM jobs j WHERE j.status IN ('validating_files', 'queued',"
                 " 'running', 'paused') AND j.tenant = f.tenant"
                 " AND f.id IN (j.training_file, j.validation_file)) LIMIT ?2)",
                 before, limit, now, removed, err);
}
