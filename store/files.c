/* files.c: few-shot sets as they were uploaded. What is listed lives in `files`, the bytes apart. */
#include "store/db.h"

#include <string.h>

#define FILE_COLUMNS                                                                               \
    "f.id, f.tenant, f.filename, f.purpose, f.status, f.details, f.bytes, f.rows, f.sha256, "      \
    "f.created, f.expires"

static void read_file(db_query *q, store_mem *mem, void *item)
{
    store_file *out = item;
    out->id = db_text(q, mem);
    out->tenant = db_int(q);
    out->filename = db_text(q, mem);
    out->purpose = db_text(q, mem);
    out->status = db_text(q, mem);
    out->details = db_text(q, mem);
    out->bytes = db_int(q);
    out->rows = db_int(q);
    store_blob hash = db_blob(q, NULL);
    if (hash.len == sizeof out->sha256) {
        memcpy(out->sha256, hash.data, sizeof out->sha256);
    }
    out->created = db_int(q);
    out->expires = db_int(q);
}

static store_status insert_file(store *s, const store_file *file, store_blob data, int64_t *seq,
                                store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s,
                   "INSERT INTO files (id, tenant, filename, purpose, status, details, bytes,"
                   " rows, sha256, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, file->id);
    db_bind_int(&q, file->tenant);
    db_bind_text(&q, file->filename);
    db_bind_text(&q, file->purpose);
    db_bind_text(&q, file->status);
    db_bind_text(&q, file->details);
    db_bind_int(&q, (int64_t)data.len);
    db_bind_int(&q, file->rows);
    db_bind_blob(&q, file->sha256, sizeof file->sha256);
    db_bind_int(&q, file->created);
    db_bind_int(&q, file->expires);
    status = db_run(&q, err);
    *seq = sqlite3_last_insert_rowid(s->db);
    if (status == STORE_EEXISTS) {
        return db_fail(err, status, "id", "a file %s exists already", file->id);
    }
    if (status == STORE_ENOTFOUND) {
        return db_fail(err, status, "tenant", "no tenant with this number");
    }
    return status;
}

static store_status insert_data(store *s, int64_t seq, store_blob data, store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s, "INSERT INTO file_data (file, data) VALUES (?, ?)", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, seq);
    db_bind_blob(&q, data.data != NULL ? data.data : "", data.len);
    return db_run(&q, err);
}

static store_status check_file(store *s, const store_file *file, store_error *err)
{
    store_status status = db_check_name("id", file->id, err);
    if (status == STORE_OK) {
        status = db_check_name("filename", file->filename, err);
    }
    if (status == STORE_OK) {
        status = db_check_name("purpose", file->purpose, err);
    }
    if (status == STORE_OK) {
        status = db_check_name("status", file->status, err);
    }
    return status == STORE_OK ? db_check_json(s, "details", file->details, err) : status;
}

store_status store_file_create(store *s, const store_file *file, store_blob data, store_error *err)
{
    int64_t seq = 0;
    store_status status = check_file(s, file, err);
    if (status == STORE_OK) {
        status = db_write_begin(s, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    status = insert_file(s, file, data, &seq, err);
    if (status == STORE_OK) {
        status = insert_data(s, seq, data, err);
    }
    return db_write_end(s, status, err);
}

store_status store_file_get(store *s, int64_t tenant, const char *id, store_mem *mem,
                            store_file *out, store_error *err)
{
    *out = (store_file){0};
    db_query q;
    store_status status =
        db_prepare(s, "SELECT " FILE_COLUMNS " FROM files f WHERE tenant = ? AND id = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, id);
    status = db_step(&q, err);
    if (status == STORE_OK && q.row) {
        read_file(&q, mem, out);
    } else if (status == STORE_OK) {
        status = db_not_found(err, "file", id);
    }
    status = db_finish(&q, status, err);
    if (status != STORE_OK) {
        *out = (store_file){0};
    }
    return status;
}

store_status store_file_data(store *s, int64_t tenant, const char *id, store_mem *mem,
                             store_blob *out, store_error *err)
{
    *out = (store_blob){0};
    db_query q;
    store_status status = db_prepare(s,
                                     "SELECT d.data FROM files f JOIN file_data d ON d.file = f.seq"
                                     " WHERE f.tenant = ? AND f.id = ?",
                                     &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, id);
    status = db_step(&q, err);
    if (status == STORE_OK && q.row) {
        *out = db_blob(&q, mem);
    } else if (status == STORE_OK) {
        status = db_not_found(err, "file", id);
    }
    status = db_finish(&q, status, err);
    if (status != STORE_OK) {
        *out = (store_blob){0};
    }
    return status;
}

#define FILE_LIST(beyond, direction)                                                               \
    "SELECT " FILE_COLUMNS " FROM files f WHERE tenant = ?1 AND seq " beyond                       \
    " ?2 AND (?3 IS NULL OR purpose = ?3) ORDER BY seq " direction " LIMIT ?4"

static store_status file_page(store *s, int64_t tenant, const store_page *page, int64_t *start,
                              store_error *err)
{
    store_status status = db_page_start(page, start, err);
    if (status != STORE_OK || page->after == NULL) {
        return status;
    }
    db_query q;
    status = db_prepare(s, "SELECT seq FROM files WHERE tenant = ? AND id = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, page->after);
    return db_page_after(&q, page, start, err);
}

store_status store_file_list(store *s, int64_t tenant, const char *purpose, const store_page *page,
                             store_mem *mem, store_file **items, size_t *n, bool *has_more,
                             store_error *err)
{
    *items = NULL;
    *n = 0;
    *has_more = false;
    int64_t start = 0;
    db_query q;
    void *rows = NULL;
    store_status status = file_page(s, tenant, page, &start, err);
    if (status == STORE_OK) {
        status = db_prepare(s, page->oldest_first ? FILE_LIST(">", "ASC") : FILE_LIST("<", "DESC"),
                            &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_int(&q, start);
    db_bind_text(&q, purpose);
    db_bind_int(&q, (int64_t)page->limit + 1);
    status = db_list(&q, page->limit, sizeof **items, read_file, mem, &rows, n, has_more, err);
    *items = rows;
    return status;
}

static store_status refuse_while_read(store *s, int64_t tenant, const char *id, store_error *err)
{
    db_query q;
    int64_t jobs = 0;
    store_status status = db_prepare(
        s,
        "SELECT count(*) FROM jobs WHERE tenant = ?1 AND status IN ('validating_files', 'queued',"
        " 'running', 'paused') AND (training_file = ?2 OR validation_file = ?2)",
        &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, id);
    status = db_scalar(&q, &jobs, err);
    if (status == STORE_OK && jobs > 0) {
        return db_fail(err, STORE_ESTATE, "file",
                       "%lld unfinished jobs need %s; cancel them or wait for them",
                       (long long)jobs, id);
    }
    return status;
}

static store_status delete_file(store *s, int64_t tenant, const char *id, store_error *err)
{
    db_query q;
    store_status status = db_prepare(s, "DELETE FROM files WHERE tenant = ? AND id = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, id);
    status = db_run(&q, err);
    if (status == STORE_OK && db_changes(s) == 0) {
        return db_not_found(err, "file", id);
    }
    return status;
}

store_status store_file_delete(store *s, int64_t tenant, const char *id, store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = refuse_while_read(s, tenant, id, err);
    if (status == STORE_OK) {
        status = delete_file(s, tenant, id, err);
    }
    return db_write_end(s, status, err);
}

store_status store_file_totals(store *s, int64_t tenant, int64_t *files, int64_t *bytes,
                               store_error *err)
{
    *files = *bytes = 0;
    db_query q;
    store_status status = db_prepare(
        s, "SELECT count(*), coalesce(sum(bytes), 0) FROM files WHERE tenant = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    status = db_step(&q, err);
    if (status == STORE_OK && q.row) {
        *files = db_int(&q);
        *bytes = db_int(&q);
    }
    return db_finish(&q, status, err);
}

store_status store_file_rows(store *s, int64_t tenant, int64_t *rows, store_error *err)
{
    *rows = 0;
    db_query q;
    store_status status =
        db_prepare(s, "SELECT coalesce(sum(rows), 0) FROM files WHERE tenant = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    return db_scalar(&q, rows, err);
}
