/* query.c: prepared statements found again, binding and reading in order, lists in pages.
 *
 * The cache is a hash of literal addresses: two literals with the same text only cost a statement
 * more, and no text is ever compared. A statement that is in use (a walk whose callback reads again)
 * must not be prepared a second time: no code here nests the same statement.
 */
#include "store/db.h"

#include <stdlib.h>
#include <string.h>

static struct db_cached *cache_slot(store *s, const char *sql)
{
    size_t i = (size_t)((uintptr_t)sql * 0x9E3779B97F4A7C15u >> 32) % DB_MAX_STATEMENTS;
    while (s->cache[i].sql != NULL && s->cache[i].sql != sql) {
        i = (i + 1) % DB_MAX_STATEMENTS;
    }
    return &s->cache[i];
}

void db_cache_clear(store *s)
{
    for (size_t i = 0; i < DB_MAX_STATEMENTS; i++) {
        sqlite3_finalize(s->cache[i].stmt);
        s->cache[i] = (struct db_cached){0};
    }
    s->cached = 0;
}

store_status db_prepare(store *s, const char *sql, db_query *q, store_error *err)
{
    *q = (db_query){.s = s, .param = 1};
    struct db_cached *slot = cache_slot(s, sql);
    if (slot->sql == NULL) {
        /* One slot always stays empty, so that a search ends. */
        if (s->cached >= DB_MAX_STATEMENTS - 1) {
            return db_fail(err, STORE_ELIMIT, NULL, "more than %d statements", DB_MAX_STATEMENTS);
        }
        sqlite3_stmt *stmt = NULL;
        int code = sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL);
        if (code != SQLITE_OK) {
            return db_fail_sqlite(s, code, "cannot prepare a statement", err);
        }
        *slot = (struct db_cached){sql, stmt};
        s->cached++;
    }
    q->stmt = slot->stmt;
    return STORE_OK;
}

static void keep_first(db_query *q, int code)
{
    if (q->code == SQLITE_OK) {
        q->code = code;
    }
}

void db_bind_int(db_query *q, int64_t value)
{
    keep_first(q, sqlite3_bind_int64(q->stmt, q->param++, value));
}

void db_bind_text(db_query *q, const char *text)
{
    if (text == NULL) {
        keep_first(q, sqlite3_bind_null(q->stmt, q->param++));
        return;
    }
    keep_first(q, sqlite3_bind_text64(q->stmt, q->param++, text, strlen(text), SQLITE_STATIC,
                                      SQLITE_UTF8));
}

void db_bind_blob(db_query *q, const void *data, size_t len)
{
    if (data == NULL) {
        keep_first(q, sqlite3_bind_null(q->stmt, q->param++));
        return;
    }
    keep_first(q, sqlite3_bind_blob64(q->stmt, q->param++, data, len, SQLITE_STATIC));
}

store_status db_step(db_query *q, store_error *err)
{
    q->row = false;
    q->column = 0;
    if (q->code != SQLITE_OK) {
        return db_fail_sqlite(q->s, q->code, "cannot bind a value", err);
    }
    int code = sqlite3_step(q->stmt);
    if (code == SQLITE_ROW) {
        q->row = true;
        return STORE_OK;
    }
    return code == SQLITE_DONE ? STORE_OK : db_fail_sqlite(q->s, code, "database", err);
}

int64_t db_int(db_query *q)
{
    return sqlite3_column_int64(q->stmt, q->column++);
}

const char *db_text(db_query *q, store_mem *mem)
{
    int column = q->column++;
    if (sqlite3_column_type(q->stmt, column) == SQLITE_NULL) {
        return NULL;
    }
    const char *text = (const char *)sqlite3_column_text(q->stmt, column);
    if (text == NULL) {
        keep_first(q, SQLITE_NOMEM);
        return NULL;
    }
    if (mem == NULL) {
        return text;
    }
    size_t size = (size_t)sqlite3_column_bytes(q->stmt, column) + 1;
    char *copy = db_mem_alloc(mem, size);
    if (copy == NULL) {
        keep_first(q, SQLITE_NOMEM);
        return NULL;
    }
    memcpy(copy, text, size);
    return copy;
}

store_blob db_blob(db_query *q, store_mem *mem)
{
    store_blob out = {0};
    int column = q->column++;
    if (sqlite3_column_type(q->stmt, column) == SQLITE_NULL) {
        return out;
    }
    const void *data = sqlite3_column_blob(q->stmt, column);
    size_t len = (size_t)sqlite3_column_bytes(q->stmt, column);
    if (len == 0) {
        return (store_blob){"", 0};
    }
    void *copy = data != NULL && mem != NULL ? db_mem_alloc(mem, len) : NULL;
    if (data == NULL || (mem != NULL && copy == NULL)) {
        keep_first(q, SQLITE_NOMEM);
        return out;
    }
    if (copy != NULL) {
        memcpy(copy, data, len);
    }
    return (store_blob){copy != NULL ? copy : data, len};
}

store_status db_finish(db_query *q, store_status status, store_error *err)
{
    sqlite3_reset(q->stmt);
    sqlite3_clear_bindings(q->stmt);
    if (status == STORE_OK && q->code != SQLITE_OK) {
        return db_fail_sqlite(NULL, q->code, "cannot read a row", err);
    }
    return status;
}

store_status db_run(db_query *q, store_error *err)
{
    return db_finish(q, db_step(q, err), err);
}

int64_t db_changes(store *s)
{
    return sqlite3_changes64(s->db);
}

store_status db_exec(store *s, const char *sql, store_error *err)
{
    int code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? STORE_OK : db_fail_sqlite(s, code, "database", err);
}

store_status db_scalar(db_query *q, int64_t *out, store_error *err)
{
    store_status status = db_step(q, err);
    *out = 0;
    if (status == STORE_OK && q->row) {
        *out = db_int(q);
    } else if (status == STORE_OK) {
        status = STORE_ENOTFOUND;
    }
    return db_finish(q, status, err);
}

store_status db_list(db_query *q, size_t limit, size_t item_size, db_read_row read, store_mem *mem,
                     void **items, size_t *n, bool *has_more, store_error *err)
{
    *items = NULL;
    *n = 0;
    *has_more = false;
    unsigned char *out = db_mem_alloc(mem, limit * item_size); /* limit: at most STORE_MAX_PAGE */
    if (out == NULL) {
        return db_finish(q, db_fail_nomem(err), err);
    }
    memset(out, 0, limit * item_size);
    size_t count = 0;
    store_status status = db_step(q, err);
    while (status == STORE_OK && q->row && count < limit) {
        read(q, mem, out + count * item_size);
        count++;
        status = db_step(q, err);
    }
    bool more = q->row;
    status = db_finish(q, status, err);
    if (status == STORE_OK) {
        *items = out;
        *n = count;
        *has_more = more;
    }
    return status;
}

store_status db_page_start(const store_page *page, int64_t *start, store_error *err)
{
    if (page->limit < 1 || page->limit > STORE_MAX_PAGE) {
        return db_fail(err, STORE_EINVAL, "limit", "limit is %zu; 1 to %d items make a page",
                       page->limit, STORE_MAX_PAGE);
    }
    *start = page->oldest_first ? INT64_MIN : INT64_MAX;
    return STORE_OK;
}

store_status db_page_after(db_query *q, const store_page *page, int64_t *start, store_error *err)
{
    store_status status = db_scalar(q, start, err);
    if (status == STORE_ENOTFOUND) {
        return db_not_found(err, "after", page->after);
    }
    return status;
}

store_status db_page_number(const store_page *page, int64_t *start, store_error *err)
{
    store_status status = db_page_start(page, start, err);
    if (status != STORE_OK || page->after == NULL) {
        return status;
    }
    char *end = NULL;
    long long value = strtoll(page->after, &end, 10);
    if (end == page->after || *end != '\0' || value < 0) {
        return db_not_found(err, "after", page->after);
    }
    *start = value;
    return STORE_OK;
}

store_status db_check_name(const char *field, const char *text, store_error *err)
{
    size_t len = text != NULL ? strnlen(text, STORE_MAX_NAME + 1) : 0;
    if (len < 1 || len > STORE_MAX_NAME) {
        return db_fail(err, STORE_EINVAL, field, "%s has %s bytes; 1 to %d are allowed", field,
                       len == 0 ? "no" : "too many", STORE_MAX_NAME);
    }
    return STORE_OK;
}

/* json_valid of SQLite 3.40 also says 0 when memory ran out; json() tells the two apart. */
static bool text_may_be_json(store *s, const char *text)
{
    db_query q;
    int64_t valid = 0;
    store_error err;
    if (db_prepare(s, "SELECT json(?) IS NOT NULL", &q, &err) != STORE_OK) {
        return true;
    }
    db_bind_text(&q, text);
    store_status status = db_scalar(&q, &valid, &err);
    return status == STORE_OK || status == STORE_ENOMEM;
}

store_status db_check_json(store *s, const char *field, const char *text, store_error *err)
{
    if (text == NULL) {
        return STORE_OK;
    }
    db_query q;
    int64_t valid = 0;
    store_status status = db_prepare(s, "SELECT json_valid(?)", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, text);
    status = db_scalar(&q, &valid, err);
    if (status == STORE_OK && valid == 0 && text_may_be_json(s, text)) {
        return db_fail_nomem(err);
    }
    if (status == STORE_OK && valid == 0) {
        return db_fail(err, STORE_EINVAL, field, "%s is not well-formed JSON", field);
    }
    return status;
}
