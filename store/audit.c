/* audit.c: who did what to tenants, keys and the server itself. Rows only ever come. */
#include "store/db.h"

static store_status audit_insert(store *s, const store_audit *act, store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s,
                   "INSERT INTO audit (created, tenant, key, user, action, object, detail)"
                   " VALUES (?, ?, ?, ?, ?, ?, ?)",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, act->created);
    db_bind_text(&q, act->tenant);
    db_bind_text(&q, act->key);
    db_bind_text(&q, act->user);
    db_bind_text(&q, act->action);
    db_bind_text(&q, act->object);
    db_bind_text(&q, act->detail);
    return db_run(&q, err);
}

store_status store_audit_add(store *s, const store_audit *act, store_error *err)
{
    store_status status = db_check_name("action", act->action, err);
    if (status == STORE_OK) {
        status = db_check_json(s, "detail", act->detail, err);
    }
    if (status == STORE_OK) {
        status = db_write_begin(s, err);
    }
    return status == STORE_OK ? db_write_end(s, audit_insert(s, act, err), err) : status;
}

static void read_audit(db_query *q, store_mem *mem, void *item)
{
    store_audit *out = item;
    out->id = db_int(q);
    out->created = db_int(q);
    out->tenant = db_text(q, mem);
    out->key = db_text(q, mem);
    out->user = db_text(q, mem);
    out->action = db_text(q, mem);
    out->object = db_text(q, mem);
    out->detail = db_text(q, mem);
}

#define AUDIT_LIST(beyond, direction)                                                              \
    "SELECT id, created, tenant, key, user, action, object, detail FROM audit"                     \
    " WHERE id " beyond " ? ORDER BY id " direction " LIMIT ?"

store_status store_audit_list(store *s, const store_page *page, store_mem *mem, store_audit **items,
                              size_t *n, bool *has_more, store_error *err)
{
    int64_t start = 0;
    db_query q;
    void *rows = NULL;
    *items = NULL;
    *n = 0;
    *has_more = false;
    store_status status = db_page_number(page, &start, err);
    if (status == STORE_OK) {
        status = db_prepare(
            s, page->oldest_first ? AUDIT_LIST(">", "ASC") : AUDIT_LIST("<", "DESC"), &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, start);
    db_bind_int(&q, (int64_t)page->limit + 1);
    status = db_list(&q, page->limit, sizeof **items, read_audit, mem, &rows, n, has_more, err);
    *items = rows;
    return status;
}
