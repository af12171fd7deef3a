/* events.c: what happened to a job, append-only, with a number that rises over all jobs. */
#include "store/db.h"

static void read_event(db_query *q, store_mem *mem, void *item)
{
    store_event *out = item;
    out->seq = db_int(q);
    out->created = db_int(q);
    out->level = db_text(q, mem);
    out->type = db_text(q, mem);
    out->message = db_text(q, mem);
    out->data = db_text(q, mem);
}

store_status db_event_insert(store *s, int64_t job_seq, const store_event *event, int64_t *seq,
                             store_error *err)
{
    db_query q;
    store_status status = db_check_json(s, "data", event->data, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_prepare(s,
                        "INSERT INTO job_events (job, created, level, type, message, data)"
                        " VALUES (?, ?, ?, ?, ?, ?)",
                        &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, job_seq);
    db_bind_int(&q, event->created);
    db_bind_text(&q, event->level);
    db_bind_text(&q, event->type);
    db_bind_text(&q, event->message);
    db_bind_text(&q, event->data);
    status = db_run(&q, err);
    if (status == STORE_OK && seq != NULL) {
        *seq = sqlite3_last_insert_rowid(s->db);
    }
    return status;
}

static store_status job_seq(store *s, int64_t tenant, const char *job, int64_t *seq,
                            store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s, "SELECT seq FROM jobs WHERE tenant = ? AND id = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, job);
    status = db_scalar(&q, seq, err);
    return status == STORE_ENOTFOUND ? db_not_found(err, "job", job) : status;
}

store_status store_event_add(store *s, int64_t tenant, const char *job, const store_event *event,
                             int64_t *seq, store_error *err)
{
    int64_t of_job = 0;
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = job_seq(s, tenant, job, &of_job, err);
    if (status == STORE_OK) {
        status = db_event_insert(s, of_job, event, seq, err);
    }
    return db_write_end(s, status, err);
}

#define EVENT_LIST(beyond, direction)                                                              \
    "SELECT seq, created, level, type, message, data FROM job_events WHERE job = ? AND "           \
    "seq " beyond " ? ORDER BY seq " direction " LIMIT ?"

store_status store_event_list(store *s, int64_t tenant, const char *job, const store_page *page,
                              store_mem *mem, store_event **items, size_t *n, bool *has_more,
                              store_error *err)
{
    *items = NULL;
    *n = 0;
    *has_more = false;
    int64_t start = 0, of_job = 0;
    db_query q;
    void *rows = NULL;
    store_status status = db_page_number(page, &start, err);
    if (status == STORE_OK) {
        status = job_seq(s, tenant, job, &of_job, err);
    }
    if (status == STORE_OK) {
        status = db_prepare(
            s, page->oldest_first ? EVENT_LIST(">", "ASC") : EVENT_LIST("<", "DESC"), &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, of_job);
    db_bind_int(&q, start);
    db_bind_int(&q, (int64_t)page->limit + 1);
    status = db_list(&q, page->limit, sizeof **items, read_event, mem, &rows, n, has_more, err);
    *items = rows;
    return status;
}
