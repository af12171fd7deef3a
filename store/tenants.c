/* tenants.c: tenants and their keys. A key's secret never comes here, only its SHA-256. */
#include "store/db.h"

#include <string.h>

/* ---- tenants ------------------------------------------------------------------------------- */

#define TENANT_COLUMNS "t.id, t.name, t.settings, t.created, t.disabled"

static void read_tenant(db_query *q, store_mem *mem, void *item)
{
    store_tenant *out = item;
    out->id = db_int(q);
    out->name = db_text(q, mem);
    out->settings = db_text(q, mem);
    out->created = db_int(q);
    out->disabled = db_int(q);
}

static store_status tenant_insert(store *s, const char *name, const char *settings, int64_t now,
                                  int64_t *id, store_error *err)
{
    db_query q;
    store_status status = db_check_json(s, "settings", settings, err);
    if (status == STORE_OK) {
        status = db_prepare(s, "INSERT INTO tenants (name, settings, created) VALUES (?, ?, ?)", &q,
                            err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, name);
    db_bind_text(&q, settings);
    db_bind_int(&q, now);
    status = db_run(&q, err);
    if (status == STORE_EEXISTS) {
        return db_fail(err, status, "name", "a tenant named %s exists already", name);
    }
    *id = sqlite3_last_insert_rowid(s->db);
    return status;
}

store_status store_tenant_create(store *s, const char *name, const char *settings, int64_t now,
                                 int64_t *id, store_error *err)
{
    *id = 0;
    store_status status = db_check_name("name", name, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_write_end(s, tenant_insert(s, name, settings, now, id, err), err);
    if (status != STORE_OK) {
        *id = 0;
    }
    return status;
}

/* Reads the one row of a bound query. */
static store_status tenant_read(db_query *q, const char *what, store_mem *mem, store_tenant *out,
                                store_error *err)
{
    *out = (store_tenant){0};
    store_status status = db_step(q, err);
    if (status == STORE_OK && q->row) {
        read_tenant(q, mem, out);
    } else if (status == STORE_OK) {
        status = db_fail(err, STORE_ENOTFOUND, "tenant", "no tenant %s", what);
    }
    status = db_finish(q, status, err);
    if (status != STORE_OK) {
        *out = (store_tenant){0};
    }
    return status;
}

store_status store_tenant_get(store *s, int64_t id, store_mem *mem, store_tenant *out,
                              store_error *err)
{
    *out = (store_tenant){0};
    db_query q;
    store_status status =
        db_prepare(s, "SELECT " TENANT_COLUMNS " FROM tenants t WHERE id = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, id);
    return tenant_read(&q, "with this number", mem, out, err);
}

store_status store_tenant_find(store *s, const char *name, store_mem *mem, store_tenant *out,
                               store_error *err)
{
    *out = (store_tenant){0};
    db_query q;
    store_status status =
        db_prepare(s, "SELECT " TENANT_COLUMNS " FROM tenants t WHERE name = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, name);
    return tenant_read(&q, name, mem, out, err);
}

#define TENANT_LIST(beyond, direction)                                                             \
    "SELECT " TENANT_COLUMNS " FROM tenants t WHERE id " beyond " ? ORDER BY id " direction        \
    " LIMIT ?"

store_status store_tenant_list(store *s, const store_page *page, store_mem *mem,
                               store_tenant **items, size_t *n, bool *has_more, store_error *err)
{
    int64_t start = 0;
    db_query q;
    void *rows = NULL;
    *items = NULL;
    *n = 0;
    *has_more = false;
    store_status status = db_page_start(page, &start, err);
    if (status == STORE_OK && page->after != NULL) {
        status = db_prepare(s, "SELECT id FROM tenants WHERE name = ?", &q, err);
        if (status == STORE_OK) {
            db_bind_text(&q, page->after);
            status = db_page_after(&q, page, &start, err);
        }
    }
    if (status == STORE_OK) {
        status = db_prepare(
            s, page->oldest_first ? TENANT_LIST(">", "ASC") : TENANT_LIST("<", "DESC"), &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, start);
    db_bind_int(&q, (int64_t)page->limit + 1);
    status = db_list(&q, page->limit, sizeof **items, read_tenant, mem, &rows, n, has_more, err);
    *items = rows;
    return status;
}

static store_status tenant_change(store *s, int64_t id, const char *settings, int64_t disabled,
                                  store_error *err)
{
    db_query q;
    store_status status = db_check_json(s, "settings", settings, err);
    if (status == STORE_OK) {
        status =
            db_prepare(s, "UPDATE tenants SET settings = ?, disabled = ? WHERE id = ?", &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, settings);
    db_bind_int(&q, disabled);
    db_bind_int(&q, id);
    status = db_run(&q, err);
    if (status == STORE_OK && db_changes(s) == 0) {
        return db_fail(err, STORE_ENOTFOUND, "tenant", "no tenant with this number");
    }
    return status;
}

store_status store_tenant_update(store *s, int64_t id, const char *settings, int64_t disabled,
                                 store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    return db_write_end(s, tenant_change(s, id, settings, disabled, err), err);
}

/* ---- keys ---------------------------------------------------------------------------------- */

#define KEY_COLUMNS                                                                                \
    "k.id, k.tenant, k.hash, k.scopes, k.label, k.settings, k.created, k.expires, k.revoked, "     \
    "k.last_used"

static void read_key(db_query *q, store_mem *mem, void *item)
{
    store_key *out = item;
    out->id = db_text(q, mem);
    out->tenant = db_int(q);
    store_blob hash = db_blob(q, NULL);
    if (hash.len == sizeof out->hash) {
        memcpy(out->hash, hash.data, sizeof out->hash);
    }
    out->scopes = (uint32_t)db_int(q);
    out->label = db_text(q, mem);
    out->settings = db_text(q, mem);
    out->created = db_int(q);
    out->expires = db_int(q);
    out->revoked = db_int(q);
    out->last_used = db_int(q);
}

static store_status key_insert(store *s, const store_key *key, store_error *err)
{
    db_query q;
    store_status status = db_check_json(s, "settings", key->settings, err);
    if (status == STORE_OK) {
        status = db_prepare(
            s,
            "INSERT INTO api_keys (id, tenant, hash, scopes, label, settings, created, expires)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, key->id);
    db_bind_int(&q, key->tenant);
    db_bind_blob(&q, key->hash, sizeof key->hash);
    db_bind_int(&q, (int64_t)key->scopes);
    db_bind_text(&q, key->label);
    db_bind_text(&q, key->settings);
    db_bind_int(&q, key->created);
    db_bind_int(&q, key->expires);
    status = db_run(&q, err);
    if (status == STORE_EEXISTS) {
        return db_fail(err, status, "id", "a key with this id or hash exists already");
    }
    if (status == STORE_ENOTFOUND) {
        return db_fail(err, status, "tenant", "no tenant with this number");
    }
    return status;
}

store_status store_key_create(store *s, const store_key *key, store_error *err)
{
    store_status status = db_check_name("id", key->id, err);
    if (status == STORE_OK && key->label != NULL) {
        status = db_check_name("label", key->label, err);
    }
    if (status == STORE_OK) {
        status = db_write_begin(s, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    return db_write_end(s, key_insert(s, key, err), err);
}

#define KEY_LIST(beyond, direction)                                                                \
    "SELECT " KEY_COLUMNS " FROM api_keys k WHERE tenant = ? AND seq " beyond                      \
    " ? ORDER BY seq " direction " LIMIT ?"

store_status store_key_list(store *s, int64_t tenant, const store_page *page, store_mem *mem,
                            store_key **items, size_t *n, bool *has_more, store_error *err)
{
    int64_t start = 0;
    db_query q;
    void *rows = NULL;
    *items = NULL;
    *n = 0;
    *has_more = false;
    store_status status = db_page_start(page, &start, err);
    if (status == STORE_OK && page->after != NULL) {
        status = db_prepare(s, "SELECT seq FROM api_keys WHERE tenant = ? AND id = ?", &q, err);
        if (status == STORE_OK) {
            db_bind_int(&q, tenant);
            db_bind_text(&q, page->after);
            status = db_page_after(&q, page, &start, err);
        }
    }
    if (status == STORE_OK) {
        status = db_prepare(s, page->oldest_first ? KEY_LIST(">", "ASC") : KEY_LIST("<", "DESC"),
                            &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_int(&q, start);
    db_bind_int(&q, (int64_t)page->limit + 1);
    status = db_list(&q, page->limit, sizeof **items, read_key, mem, &rows, n, has_more, err);
    *items = rows;
    return status;
}

store_status store_key_get(store *s, int64_t tenant, const char *id, store_mem *mem, store_key *out,
                           store_error *err)
{
    *out = (store_key){0};
    db_query q;
    store_status status = db_prepare(
        s, "SELECT " KEY_COLUMNS " FROM api_keys k WHERE tenant = ? AND id = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, id);
    status = db_step(&q, err);
    if (status == STORE_OK && q.row) {
        read_key(&q, mem, out);
    } else if (status == STORE_OK) {
        status = db_not_found(err, "key", id);
    }
    status = db_finish(&q, status, err);
    if (status != STORE_OK) {
        *out = (store_key){0};
    }
    return status;
}

static store_status key_change(store *s, int64_t tenant, const char *id, const char *label,
                               const char *settings, store_error *err)
{
    db_query q;
    store_status status = db_check_json(s, "settings", settings, err);
    if (status == STORE_OK) {
        status = db_prepare(s,
                            "UPDATE api_keys SET label = coalesce(?, label), settings = ?"
                            " WHERE tenant = ? AND id = ?",
                            &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, label);
    db_bind_text(&q, settings);
    db_bind_int(&q, tenant);
    db_bind_text(&q, id);
    status = db_run(&q, err);
    if (status == STORE_OK && db_changes(s) == 0) {
        return db_not_found(err, "key", id);
    }
    return status;
}

store_status store_key_update(store *s, int64_t tenant, const char *id, const char *label,
                              const char *settings, store_error *err)
{
    store_status status = STORE_OK;
    if (label != NULL) {
        status = db_check_name("label", label, err);
    }
    if (status == STORE_OK) {
        status = db_write_begin(s, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    return db_write_end(s, key_change(s, tenant, id, label, settings, err), err);
}

static store_status key_stamp(store *s, const char *sql, int64_t tenant, const char *id,
                              int64_t now, store_error *err)
{
    db_query q;
    store_status status = db_prepare(s, sql, &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, now);
    db_bind_int(&q, tenant);
    db_bind_text(&q, id);
    status = db_run(&q, err);
    if (status == STORE_OK && db_changes(s) == 0) {
        return db_not_found(err, "key", id);
    }
    return status;
}

store_status store_key_revoke(store *s, int64_t tenant, const char *id, int64_t now,
                              store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = key_stamp(s,
                       "UPDATE api_keys SET revoked = iif(revoked = 0, ?1, revoked)"
                       " WHERE tenant = ?2 AND id = ?3",
                       tenant, id, now, err);
    return db_write_end(s, status, err);
}

store_status store_key_expire(store *s, int64_t tenant, const char *id, int64_t expires,
                              store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = key_stamp(s,
                       "UPDATE api_keys SET expires = iif(expires = 0, ?1, min(expires, ?1))"
                       " WHERE tenant = ?2 AND id = ?3",
                       tenant, id, expires, err);
    return db_write_end(s, status, err);
}

store_status store_key_touch(store *s, int64_t tenant, const char *id, int64_t now,
                             store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = key_stamp(s, "UPDATE api_keys SET last_used = ? WHERE tenant = ? AND id = ?", tenant,
                       id, now, err);
    return db_write_end(s, status, err);
}

store_status store_keys_load(store *s, store_each_key each, void *arg, store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s,
                   "SELECT " KEY_COLUMNS ", " TENANT_COLUMNS
                   " FROM api_keys k JOIN tenants t ON t.id = k.tenant ORDER BY k.seq",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_step(&q, err);
    while (status == STORE_OK && q.row) {
        store_key key = {0};
        store_tenant tenant = {0};
        read_key(&q, NULL, &key);
        read_tenant(&q, NULL, &tenant);
        if (q.code != SQLITE_OK || !each(arg, &key, &tenant)) {
            break;
        }
        status = db_step(&q, err);
    }
    return db_finish(&q, status, err);
}
