/* versions.c: what a task has learnt, one immutable row a version, and the alias `current`.
 *
 * The route is small and lives in the row; a tuned prompt or head may be megabytes and lives in
 * version_blobs, read on its own. Which backbone and bank it was learnt on is kept once, in `bases`.
 */
#include "store/db.h"

void db_read_version(db_query *q, store_mem *mem, void *item)
{
    store_version *out = item;
    out->task = db_int(q);
    out->number = db_int(q);
    out->route = db_blob(q, mem);
    out->method = db_text(q, mem);
    out->started_from = db_text(q, mem);
    out->model_fingerprint = db_text(q, mem);
    out->bank_fingerprint = db_text(q, mem);
    out->bank = db_text(q, mem);
    out->metrics = db_text(q, mem);
    out->job = db_text(q, mem);
    out->created = db_int(q);
    out->has_prompt = db_int(q) != 0;
    out->has_head = db_int(q) != 0;
    out->answer_length = db_blob(q, mem);
    out->label_scaling = db_blob(q, mem);
}

/* ---- adding -------------------------------------------------------------------------------- */

static void bind_base(db_query *q, const store_version *version)
{
    db_bind_text(q, version->model_fingerprint);
    db_bind_text(q, version->bank_fingerprint);
    db_bind_text(q, version->bank);
}

static store_status find_base(store *s, const store_version *version, int64_t *base,
                              store_error *err)
{
    db_query q;
    store_status status = db_prepare(s,
                                     "SELECT id FROM bases WHERE model_fingerprint = ?"
                                     " AND bank_fingerprint = ? AND bank = ?",
                                     &q, err);
    if (status != STORE_OK) {
        return status;
    }
    bind_base(&q, version);
    status = db_scalar(&q, base, err);
    if (status != STORE_ENOTFOUND) {
        return status;
    }
    status = db_prepare(
        s, "INSERT INTO bases (model_fingerprint, bank_fingerprint, bank) VALUES (?, ?, ?)", &q,
        err);
    if (status != STORE_OK) {
        return status;
    }
    bind_base(&q, version);
    status = db_run(&q, err);
    *base = sqlite3_last_insert_rowid(s->db);
    return status;
}

static store_status next_number(store *s, int64_t task, int64_t *number, store_error *err)
{
    db_query q;
    store_status status = db_prepare(
        s, "SELECT coalesce(max(number), 0) + 1 FROM task_versions WHERE task = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, task);
    return db_scalar(&q, number, err);
}

static store_status insert_blobs(store *s, int64_t row, const store_version *version,
                                 store_error *err)
{
    db_query q;
    store_status status = db_prepare(
        s, "INSERT INTO version_blobs (version, prompt, head) VALUES (?, ?, ?)", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, row);
    db_bind_blob(&q, version->prompt.data, version->prompt.len);
    db_bind_blob(&q, version->head.data, version->head.len);
    return db_run(&q, err);
}

static store_status insert_row(store *s, int64_t task, int64_t number, int64_t base,
                               const store_version *version, store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s,
                   "INSERT INTO task_versions (task, number, base, route, method, started_from,"
                   " metrics, job, has_prompt, has_head, answer_length, label_scaling, created)"
                   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, task);
    db_bind_int(&q, number);
    db_bind_int(&q, base);
    db_bind_blob(&q, version->route.data != NULL ? version->route.data : "", version->route.len);
    db_bind_text(&q, version->method);
    db_bind_text(&q, version->started_from);
    db_bind_text(&q, version->metrics);
    db_bind_text(&q, version->job);
    db_bind_int(&q, version->prompt.data != NULL);
    db_bind_int(&q, version->head.data != NULL);
    db_bind_blob(&q, version->answer_length.data, version->answer_length.len);
    db_bind_blob(&q, version->label_scaling.data, version->label_scaling.len);
    db_bind_int(&q, version->created);
    return db_run(&q, err);
}

static store_status check_version(store *s, const store_version *version, store_error *err)
{
    if (version->model_fingerprint == NULL || version->bank_fingerprint == NULL ||
        version->bank == NULL) {
        return db_fail(err, STORE_EINVAL, "fingerprint",
                       "a version names the backbone and the bank it was learnt on");
    }
    store_status status = db_check_name("method", version->method, err);
    return status == STORE_OK ? db_check_json(s, "metrics", version->metrics, err) : status;
}

store_status db_version_insert(store *s, int64_t task, const store_version *version,
                               int64_t *number, store_error *err)
{
    int64_t base = 0;
    store_status status = check_version(s, version, err);
    if (status == STORE_OK) {
        status = find_base(s, version, &base, err);
    }
    if (status == STORE_OK) {
        status = next_number(s, task, number, err);
    }
    if (status == STORE_OK) {
        status = insert_row(s, task, *number, base, version, err);
    }
    if (status == STORE_OK && (version->prompt.data != NULL || version->head.data != NULL)) {
        status = insert_blobs(s, sqlite3_last_insert_rowid(s->db), version, err);
    }
    return status;
}

store_status db_set_current(store *s, int64_t task, int64_t number, int64_t now, store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s, "UPDATE tasks SET current = ?, updated = ? WHERE id = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, number);
    db_bind_int(&q, now);
    db_bind_int(&q, task);
    status = db_run(&q, err);
    if (status == STORE_ENOTFOUND) {
        return db_fail(err, status, "version", "the task has no version %lld", (long long)number);
    }
    return status;
}

store_status store_version_add(store *s, int64_t tenant, int64_t task, const store_version *version,
                               bool make_current, int64_t *number, store_error *err)
{
    *number = 0;
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_task_check(s, tenant, task, err);
    if (status == STORE_OK) {
        status = db_version_insert(s, task, version, number, err);
    }
    if (status == STORE_OK && make_current) {
        status = db_set_current(s, task, *number, version->created, err);
    }
    status = db_write_end(s, status, err);
    if (status != STORE_OK) {
        *number = 0;
    }
    return status;
}

store_status store_task_set_current(store *s, int64_t tenant, int64_t task, int64_t number,
                                    int64_t now, store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_task_check(s, tenant, task, err);
    if (status == STORE_OK) {
        status = db_set_current(s, task, number, now, err);
    }
    return db_write_end(s, status, err);
}

/* ---- reading ------------------------------------------------------------------------------- */

#define FROM_VERSIONS                                                                              \
    " FROM task_versions v JOIN bases b ON b.id = v.base JOIN tasks t ON t.id = v.task"            \
    " WHERE t.tenant = ? AND v.task = ?"

store_status store_version_get(store *s, int64_t tenant, int64_t task, int64_t number,
                               store_mem *mem, store_version *out, store_error *err)
{
    *out = (store_version){0};
    db_query q;
    store_status status =
        db_prepare(s, "SELECT " DB_VERSION_COLUMNS FROM_VERSIONS " AND v.number = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_int(&q, task);
    db_bind_int(&q, number);
    status = db_step(&q, err);
    if (status == STORE_OK && q.row) {
        db_read_version(&q, mem, out);
    } else if (status == STORE_OK) {
        status = db_not_found(err, "version", "with this number");
    }
    status = db_finish(&q, status, err);
    if (status != STORE_OK) {
        *out = (store_version){0};
    }
    return status;
}

store_status store_version_blobs(store *s, int64_t tenant, int64_t task, int64_t number,
                                 store_mem *mem, store_blob *prompt, store_blob *head,
                                 store_error *err)
{
    *prompt = *head = (store_blob){0};
    db_query q;
    store_status status = db_prepare(s,
                                     "SELECT x.prompt, x.head FROM task_versions v"
                                     " JOIN tasks t ON t.id = v.task"
                                     " LEFT JOIN version_blobs x ON x.version = v.id"
                                     " WHERE t.tenant = ? AND v.task = ? AND v.number = ?",
                                     &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_int(&q, task);
    db_bind_int(&q, number);
    status = db_step(&q, err);
    if (status == STORE_OK && q.row) {
        *prompt = db_blob(&q, mem);
        *head = db_blob(&q, mem);
    } else if (status == STORE_OK) {
        status = db_not_found(err, "version", "with this number");
    }
    status = db_finish(&q, status, err);
    if (status != STORE_OK) {
        *prompt = *head = (store_blob){0};
    }
    return status;
}

#define VERSION_LIST(beyond, direction)                                                            \
    "SELECT " DB_VERSION_COLUMNS FROM_VERSIONS " AND v.number " beyond                             \
    " ? ORDER BY v.number " direction " LIMIT ?"

store_status store_version_list(store *s, int64_t tenant, int64_t task, const store_page *page,
                                store_mem *mem, store_version **items, size_t *n, bool *has_more,
                                store_error *err)
{
    *items = NULL;
    *n = 0;
    *has_more = false;
    int64_t start = 0;
    db_query q;
    void *rows = NULL;
    store_status status = db_page_number(page, &start, err);
    if (status == STORE_OK) {
        status = db_prepare(
            s, page->oldest_first ? VERSION_LIST(">", "ASC") : VERSION_LIST("<", "DESC"), &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_int(&q, task);
    db_bind_int(&q, start);
    db_bind_int(&q, (int64_t)page->limit + 1);
    status =
        db_list(&q, page->limit, sizeof **items, db_read_version, mem, &rows, n, has_more, err);
    *items = rows;
    return status;
}
