/* idempotency.c: a key that a client sends with a POST, and the answer it got, so that a repeated
 * POST does nothing twice. A row's status is 0 while the request is at work, MARKED once its work is in
 * the database, LOST when a crash came between that and the answer, else the answer's. */
#include "store/db.h"

#include <string.h>

#define MARKED 1
#define LOST   2

static store_status drop_expired(store *s, int64_t tenant, const char *key, int64_t now,
                                 store_error *err)
{
    db_query q;
    store_status status = db_prepare(
        s, "DELETE FROM idempotency WHERE tenant = ? AND key = ? AND expires <= ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, key);
    db_bind_int(&q, now);
    return db_run(&q, err);
}

static store_status look_up(store *s, int64_t tenant, const char *key, const char *request_hash,
                            store_mem *mem, store_idem_state *state, store_reply *reply,
                            store_error *err)
{
    db_query q;
    store_status status = db_prepare(s,
                                     "SELECT request_hash, status, content_type, body"
                                     " FROM idempotency WHERE tenant = ? AND key = ?",
                                     &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, key);
    status = db_step(&q, err);
    *state = STORE_IDEM_NEW;
    if (status == STORE_OK && q.row) {
        const char *hash = db_text(&q, NULL);
        bool same = hash != NULL && strcmp(hash, request_hash) == 0;
        int code = (int)db_int(&q);
        *state = !same            ? STORE_IDEM_DIFFERS
                 : code <= MARKED ? STORE_IDEM_RUNNING
                 : code == LOST   ? STORE_IDEM_LOST
                                  : STORE_IDEM_DONE;
        if (*state == STORE_IDEM_DONE) {
            reply->status = code;
            reply->content_type = db_text(&q, mem);
            reply->body = db_blob(&q, mem);
        }
    }
    return db_finish(&q, status, err);
}

static store_status take(store *s, int64_t tenant, const char *key, const char *request_hash,
                         int64_t expires, store_error *err)
{
    db_query q;
    store_status status = db_prepare(
        s, "INSERT INTO idempotency (tenant, key, request_hash, expires) VALUES (?, ?, ?, ?)", &q,
        err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, key);
    db_bind_text(&q, request_hash);
    db_bind_int(&q, expires);
    return db_run(&q, err);
}

store_status store_idem_begin(store *s, int64_t tenant, const char *key, const char *request_hash,
                              int64_t now, int64_t expires, store_mem *mem, store_idem_state *state,
                              store_reply *reply, store_error *err)
{
    *reply = (store_reply){0};
    *state = STORE_IDEM_NEW;
    store_status status = db_check_name("key", key, err);
    if (status == STORE_OK) {
        status = db_write_begin(s, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    status = drop_expired(s, tenant, key, now, err);
    if (status == STORE_OK) {
        status = look_up(s, tenant, key, request_hash, mem, state, reply, err);
    }
    if (status == STORE_OK && *state == STORE_IDEM_NEW) {
        status = take(s, tenant, key, request_hash, expires, err);
    }
    return db_write_end(s, status, err);
}

static store_status finish(store *s, int64_t tenant, const char *key, const store_reply *reply,
                           store_error *err)
{
    db_query q;
    store_status status = db_prepare(s,
                                     "UPDATE idempotency SET status = ?, content_type = ?, body = ?"
                                     " WHERE tenant = ? AND key = ? AND status IN (0, 1)",
                                     &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, reply->status);
    db_bind_text(&q, reply->content_type);
    db_bind_blob(&q, reply->body.data, reply->body.len);
    db_bind_int(&q, tenant);
    db_bind_text(&q, key);
    status = db_run(&q, err);
    if (status == STORE_OK && db_changes(s) == 0) {
        return db_fail(err, STORE_ESTATE, "key", "no request with this key is at work");
    }
    return status;
}

store_status store_idem_finish(store *s, int64_t tenant, const char *key, const store_reply *reply,
                               store_error *err)
{
    if (reply->status < 100) {
        return db_fail(err, STORE_EINVAL, "status", "an answer has a status");
    }
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    return db_write_end(s, finish(s, tenant, key, reply, err), err);
}

/* `sql`: ?1 the tenant, ?2 the key. */
static store_status write_row(store *s, const char *sql, int64_t tenant, const char *key,
                              store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    db_query q;
    status = db_prepare(s, sql, &q, err);
    if (status == STORE_OK) {
        db_bind_int(&q, tenant);
        db_bind_text(&q, key);
        status = db_run(&q, err);
    }
    return db_write_end(s, status, err);
}

store_status store_idem_mark(store *s, int64_t tenant, const char *key, store_error *err)
{
    return write_row(
        s, "UPDATE idempotency SET status = 1 WHERE tenant = ? AND key = ? AND status = 0", tenant,
        key, err);
}

store_status store_idem_drop(store *s, int64_t tenant, const char *key, store_error *err)
{
    store_status status = write_row(
        s, "DELETE FROM idempotency WHERE tenant = ? AND key = ? AND status = 0", tenant, key, err);
    if (status == STORE_OK) {
        status = write_row(
            s, "UPDATE idempotency SET status = 2 WHERE tenant = ? AND key = ? AND status = 1",
            tenant, key, err);
    }
    return status;
}

static store_status purge(store *s, int64_t now, bool running, store_error *err)
{
    db_query q;
    store_status status = db_prepare(
        s, "DELETE FROM idempotency WHERE expires <= ?1 OR (?2 AND status = 0)", &q, err);
    if (status == STORE_OK) {
        db_bind_int(&q, now);
        db_bind_int(&q, running);
        status = db_run(&q, err);
    }
    if (status == STORE_OK && running) {
        status = db_exec(s, "UPDATE idempotency SET status = 2 WHERE status = 1", err);
    }
    return status;
}

store_status store_idem_purge(store *s, int64_t now, bool running, store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    return db_write_end(s, purge(s, now, running, err), err);
}
