/* ep_admin.c: tenants and keys over HTTP, and who a key is.
 *
 * Reads run on a worker with its read-only handle, writes on the store thread; the table of keys in
 * memory is changed on the loop after the commit and before the answer, so that a key works from the
 * moment it is shown and stops from the moment its revocation is acknowledged.
 */
#include "server/audit.h"
#include "server/auth.h"
#include "server/config.h"
#include "server/endpoints.h"
#include "server/log.h"
#include "server/loop.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PAGE  100
#define MAX_LABEL 128

/* One call's inputs and results. In the request's arena, so zeroed by new_call. */
struct admin_call {
    store_mem *mem;
    store_status status;
    store_error err;
    const char *tenant_name;
    store_page page;
    store_tenant tenant;
    store_tenant *tenants;
    store_key key;
    store_key *keys;
    size_t n;
    bool has_more;
    char secret[AUTH_KEY_CHARS + 1], key_id[AUTH_KEY_ID_CHARS + 1];
    bool set_disabled;
    double weight; /* < 0: not given */
    uint64_t quotas[QUOTA_KINDS];
    bool set_quota[QUOTA_KINDS];
    int64_t counts[QUOTA_KINDS]; /* /v1/me: what the database counts */
    int64_t now;
};

static void release_call(void *data)
{
    struct admin_call *call = data;
    sodium_memzero(call->secret, sizeof call->secret);
    store_mem_free(call->mem);
}

/* NULL: replied. */
static struct admin_call *new_call(struct request *req)
{
    struct admin_call *call = request_alloc(req, sizeof *call);
    store_mem *mem = store_mem_new();
    if (call == NULL || mem == NULL) {
        store_mem_free(mem);
        reply_no_memory(req);
        return NULL;
    }
    memset(call, 0, sizeof *call);
    call->mem = mem;
    call->tenant_name = request_param(req, "tenant");
    call->weight = -1;
    call->now = wall_ms();
    request_set_data(req, call, release_call);
    return call;
}

static bool read_page(struct request *req, struct admin_call *call)
{
    uint64_t limit = 0;
    if (!request_query_u64(req, "limit", 1, MAX_PAGE, 20, &limit)) {
        return false;
    }
    call->page.limit = (size_t)limit;
    call->page.after = request_query(req, "after");
    return true;
}

/* ---- views ---------------------------------------------------------------------------------------- */

/* {"quotas": …} of stored settings; empty when there are none. */
static json_t *quotas_of(const char *settings)
{
    json_t *all = json_stored(settings);
    json_t *quotas = json_incref(json_object_get(all, "quotas"));
    json_decref(all);
    return quotas != NULL ? quotas : json_object();
}

static json_t *tenant_view(const store_tenant *tenant)
{
    json_t *settings = json_stored(tenant->settings);
    double weight = json_number_value(json_object_get(settings, "weight"));
    json_t *view = json_object();
    bool ok = json_put(view, "object", json_string("tenant")) &&
              json_put(view, "name", json_string(tenant->name)) &&
              json_put(view, "created_at", json_seconds(tenant->created)) &&
              json_put(view, "disabled", json_boolean(tenant->disabled != 0)) &&
              json_put(view, "weight", json_real(weight > 0 ? weight : 1)) &&
              json_put(view, "quotas", quotas_of(tenant->settings)) &&
              json_put(view, "settings", settings != NULL ? json_incref(settings) : json_object());
    json_decref(settings);
    if (!ok) {
        json_decref(view);
        return NULL;
    }
    return view;
}

static json_t *scope_list(uint32_t scopes)
{
    json_t *list = json_array();
    for (size_t i = 0; auth_scopes[i].name != NULL; i++) {
        if ((scopes & auth_scopes[i].bit) != 0) {
            json_array_append_new(list, json_string(auth_scopes[i].name));
        }
    }
    return list;
}

static json_t *key_view(const store_key *key, const char *tenant_name)
{
    json_t *view = json_object();
    bool ok = json_put(view, "object", json_string("key")) &&
              json_put(view, "id", json_string(key->id)) &&
              json_put(view, "tenant", json_string(tenant_name)) &&
              json_put(view, "label", json_text_or_null(key->label)) &&
              json_put(view, "scopes", scope_list(key->scopes)) &&
              json_put(view, "quotas", quotas_of(key->settings)) &&
              json_put(view, "created_at", json_seconds(key->created)) &&
              json_put(view, "expires_at", json_seconds(key->expires)) &&
              json_put(view, "revoked_at", json_seconds(key->revoked));
    if (!ok) {
        json_decref(view);
        return NULL;
    }
    return view;
}

/* The shape of every list; takes `data`. first and last: ids or NULL. */
static json_t *list_view(json_t *data, const char *first, const char *last, bool has_more)
{
    return json_pack("{s:s, s:o, s:s?, s:s?, s:b}", "object", "list", "data", data, "first_id",
                     first, "last_id", last, "has_more", has_more);
}

/* ---- tenants -------------------------------------------------------------------------------------- */

static bool have_reader(struct admin_call *call, store *reader)
{
    if (reader == NULL) {
        call->status = STORE_EBUSY;
        call->err = (store_error){.status = STORE_EBUSY, .text = "the database cannot be read now"};
    }
    return reader != NULL;
}

static void read_tenants(void *arg, store *reader)
{
    struct admin_call *call = arg;
    if (have_reader(call, reader)) {
        call->status = store_tenant_list(reader, &call->page, call->mem, &call->tenants, &call->n,
                                         &call->has_more, &call->err);
    }
}

static void show_tenants(struct request *req, void *arg)
{
    struct admin_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    json_t *data = json_array();
    for (size_t i = 0; i < call->n; i++) {
        json_array_append_new(data, tenant_view(&call->tenants[i]));
    }
    const char *first = call->n > 0 ? call->tenants[0].name : NULL;
    const char *last = call->n > 0 ? call->tenants[call->n - 1].name : NULL;
    reply_json(req, 200, list_view(data, first, last, call->has_more));
}

void ep_tenants_list(struct request *req)
{
    struct admin_call *call = new_call(req);
    if (call != NULL && read_page(req, call)) {
        request_offload(req, read_tenants, show_tenants, call);
    }
}

static void read_tenant(void *arg, store *reader)
{
    struct admin_call *call = arg;
    if (have_reader(call, reader)) {
        call->status =
            store_tenant_find(reader, call->tenant_name, call->mem, &call->tenant, &call->err);
    }
}

static void show_tenant(struct request *req, void *arg)
{
    struct admin_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    reply_json(req, 200, tenant_view(&call->tenant));
}

void ep_tenant_get(struct request *req)
{
    struct admin_call *call = new_call(req);
    if (call != NULL) {
        request_offload(req, read_tenant, show_tenant, call);
    }
}

/* Weight and quotas of a body. */
static void read_settings(const json_t *body, struct admin_call *call, struct problems *problems)
{
    json_get_double(body, "#", "weight", JSON_OPTIONAL_FIELD, 0.01, 1000, &call->weight, problems);
    quota_read(body, QUOTA_KINDS, call->quotas, call->set_quota, problems);
}

/* The stored settings with what the body changes, as JSON text in the call's arena. */
static const char *merge_settings(struct request *req, const char *old,
                                  const struct admin_call *call)
{
    json_t *settings = old != NULL ? json_stored(old) : json_object();
    bool ok = settings != NULL;
    if (ok && call->weight >= 0) {
        ok = json_put(settings, "weight", json_real(call->weight));
    }
    ok = ok && quota_merge(settings, call->quotas, call->set_quota);
    size_t len = 0;
    char *text = ok ? json_text(settings, &len) : NULL;
    char *copy = text != NULL ? request_printf(req, "%s", text) : NULL;
    free(text);
    json_decref(settings);
    return copy;
}

static store_status create_tenant(store *s, void *arg, store_error *err)
{
    struct admin_call *call = arg;
    return store_tenant_create(s, call->tenant.name, call->tenant.settings, call->now,
                               &call->tenant.id, err);
}

static void log_change(const struct request *req, const char *event, const char *tenant,
                       const char *key)
{
    struct log_line line;
    log_begin(&line, LOG_INFO, event);
    log_text(&line, "id", request_id(req));
    log_text(&line, "by", request_key_id(req));
    log_text(&line, "tenant", tenant);
    log_text(&line, "key", key);
    log_end(&line);
}

/* Memory and answer after a tenant was written. */
static void tenant_stored(struct request *req, store_status status, const store_error *err,
                          void *arg)
{
    struct admin_call *call = arg;
    struct server *server = request_server(req);
    if (status == STORE_OK && !auth_put_tenant(server->auth, &call->tenant)) {
        reply_no_memory(req);
    } else if (status == STORE_OK) {
        bool made = strcmp(request_method(req), "POST") == 0;
        log_change(req, made ? "tenant_created" : "tenant_changed", call->tenant.name, NULL);
        reply_json(req, made ? 201 : 200, tenant_view(&call->tenant));
    } else if (status == STORE_EEXISTS) {
        reply_problem(req, 409, "exists", "#/name", "a tenant of this name exists already");
    } else {
        reply_store_error(req, status, err);
    }
}

void ep_tenants_create(struct request *req)
{
    static const char *const known[] = {"name", "weight", "quotas", NULL};
    struct problems problems = {0};
    const json_t *body = request_json(req);
    const struct server *server = request_server(req);
    struct admin_call *call = new_call(req);
    if (call == NULL) {
        return;
    }
    json_only(body, "#", known, &problems);
    read_settings(body, call, &problems);
    if (json_get_string(body, "#", "name", JSON_REQUIRED_FIELD, 0, SIZE_MAX, &call->tenant.name,
                        &problems) &&
        !auth_tenant_name_ok(call->tenant.name)) {
        problem_add(&problems, "#", "name", "\"name\" must be %s", AUTH_TENANT_NAME_RULE);
    }
    if (auth_tenant_count(server->auth) >= server->config->max_tenants) {
        problem_add(&problems, "#", NULL, "there are %zu tenants already (setting max_tenants)",
                    auth_tenant_count(server->auth));
    }
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return;
    }
    call->tenant.created = call->now;
    call->tenant.settings = merge_settings(req, NULL, call);
    if (call->tenant.settings == NULL) {
        reply_no_memory(req);
        return;
    }
    audit_store(req, create_tenant, tenant_stored, call, "tenant.create", call->tenant.name);
}

struct tenant_change {
    struct admin_call *call;
    struct request *req;
};

/* Read, merge and write in one operation, so that two changes at once lose nothing. */
static store_status change_tenant(store *s, void *arg, store_error *err)
{
    struct admin_call *call = ((struct tenant_change *)arg)->call;
    bool disabled = call->tenant.disabled != 0;
    store_status status = store_tenant_find(s, call->tenant_name, call->mem, &call->tenant, err);
    if (status != STORE_OK) {
        return status;
    }
    if (call->set_disabled) {
        call->tenant.disabled = disabled ? call->now : 0;
    }
    call->tenant.settings =
        merge_settings(((struct tenant_change *)arg)->req, call->tenant.settings, call);
    if (call->tenant.settings == NULL) {
        return STORE_ENOMEM;
    }
    return store_tenant_update(s, call->tenant.id, call->tenant.settings, call->tenant.disabled,
                               err);
}

static void tenant_changed(struct request *req, store_status status, const store_error *err,
                           void *arg)
{
    tenant_stored(req, status, err, ((struct tenant_change *)arg)->call);
}

void ep_tenant_update(struct request *req)
{
    static const char *const known[] = {"disabled", "weight", "quotas", NULL};
    struct problems problems = {0};
    const json_t *body = request_json(req);
    struct admin_call *call = new_call(req);
    struct tenant_change *change = request_alloc(req, sizeof *change);
    if (call == NULL || change == NULL) {
        reply_no_memory(req);
        return;
    }
    bool disabled = false;
    json_only(body, "#", known, &problems);
    read_settings(body, call, &problems);
    call->set_disabled =
        json_get_bool(body, "#", "disabled", JSON_OPTIONAL_FIELD, &disabled, &problems);
    call->tenant.disabled = disabled;
    if (disabled && strcmp(call->tenant_name, request_tenant_name(req)) == 0) {
        problem_add(&problems, "#", "disabled", "a tenant cannot disable itself");
    }
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return;
    }
    *change = (struct tenant_change){call, req};
    audit_store(req, change_tenant, tenant_changed, change, "tenant.update", call->tenant_name);
}

/* ---- keys ------------------------------------------------------------------------------------------ */

static void read_keys(void *arg, store *reader)
{
    struct admin_call *call = arg;
    read_tenant(arg, reader);
    if (call->status == STORE_OK) {
        call->status = store_key_list(reader, call->tenant.id, &call->page, call->mem, &call->keys,
                                      &call->n, &call->has_more, &call->err);
    }
}

static void show_keys(struct request *req, void *arg)
{
    struct admin_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    json_t *data = json_array();
    for (size_t i = 0; i < call->n; i++) {
        json_array_append_new(data, key_view(&call->keys[i], call->tenant.name));
    }
    const char *first = call->n > 0 ? call->keys[0].id : NULL;
    const char *last = call->n > 0 ? call->keys[call->n - 1].id : NULL;
    reply_json(req, 200, list_view(data, first, last, call->has_more));
}

void ep_keys_list(struct request *req)
{
    struct admin_call *call = new_call(req);
    if (call != NULL && read_page(req, call)) {
        request_offload(req, read_keys, show_keys, call);
    }
}

/* "acme/key_…" in the audit log. NULL: out of memory. */
static const char *key_object(struct request *req, const char *id)
{
    return request_printf(req, "%s/%s", request_param(req, "tenant"), id);
}

static store_status create_key(store *s, void *arg, store_error *err)
{
    struct admin_call *call = arg;
    store_status status = store_tenant_find(s, call->tenant_name, call->mem, &call->tenant, err);
    if (status == STORE_OK) {
        call->key.tenant = call->tenant.id;
        status = store_key_create(s, &call->key, err);
    }
    return status;
}

static void key_created(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct admin_call *call = arg;
    struct server *server = request_server(req);
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
        return;
    }
    if (!auth_put_tenant(server->auth, &call->tenant) || !auth_put_key(server->auth, &call->key)) {
        reply_no_memory(req);
        return;
    }
    log_change(req, "key_created", call->tenant.name, call->key_id);
    json_t *view = key_view(&call->key, call->tenant.name);
    if (!json_put(view, "key", json_string(call->secret))) {
        json_decref(view);
        view = NULL;
    }
    reply_json_once(req, 201, view, "key");
}

/* ["predict","read"] into bits; absent: all but admin. */
static void read_scopes(const json_t *body, uint32_t *scopes, struct problems *problems)
{
    json_t *list = NULL;
    *scopes = STORE_SCOPE_PREDICT | STORE_SCOPE_ADAPT | STORE_SCOPE_READ;
    if (!json_get_array(body, "#", "scopes", JSON_OPTIONAL_FIELD, 1, 8, &list, problems)) {
        return;
    }
    *scopes = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *word = json_string_value(json_array_get(list, i));
        uint32_t bit = 0;
        if (word == NULL || strchr(word, ',') != NULL || !auth_scopes_parse(word, &bit)) {
            problem_add(problems, "#/scopes", NULL,
                        "item %zu must be one of: predict, adapt, read, admin", i);
        }
        *scopes |= bit;
    }
}

static void read_expiry(const json_t *body, struct admin_call *call, struct problems *problems)
{
    uint64_t seconds = 0;
    if (json_get_u64(body, "#", "expires_in", JSON_OPTIONAL_FIELD, 1, 315360000, &seconds,
                     problems)) {
        call->key.expires = call->now + (int64_t)seconds * 1000;
    }
}

void ep_keys_create(struct request *req)
{
    static const char *const known[] = {"scopes", "label", "expires_in", "quotas", NULL};
    struct problems problems = {0};
    const json_t *body = request_json(req);
    const struct server *server = request_server(req);
    struct admin_call *call = new_call(req);
    if (call == NULL) {
        return;
    }
    json_only(body, "#", known, &problems);
    read_scopes(body, &call->key.scopes, &problems);
    read_expiry(body, call, &problems);
    json_get_string(body, "#", "label", JSON_OPTIONAL_FIELD, 0, MAX_LABEL, &call->key.label,
                    &problems);
    quota_read(body, QUOTA_KEY_KINDS, call->quotas, call->set_quota, &problems);
    if (auth_key_count(server->auth) >= server->config->max_keys) {
        problem_add(&problems, "#", NULL, "there are %zu keys already (setting max_keys)",
                    auth_key_count(server->auth));
    }
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return;
    }
    call->key.settings = merge_settings(req, NULL, call);
    if (call->key.settings == NULL) {
        reply_no_memory(req);
        return;
    }
    auth_make_key(call->secret, call->key_id, call->key.hash);
    call->key.id = call->key_id;
    call->key.created = call->now;
    audit_store(req, create_key, key_created, call, "key.create", key_object(req, call->key_id));
}

/* Read, merge and write in one operation, as for tenants. */
static store_status change_key(store *s, void *arg, store_error *err)
{
    struct admin_call *call = ((struct tenant_change *)arg)->call;
    const char *id = call->key.id, *label = call->key.label;
    store_status status = store_tenant_find(s, call->tenant_name, call->mem, &call->tenant, err);
    if (status == STORE_OK) {
        status = store_key_get(s, call->tenant.id, id, call->mem, &call->key, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    call->key.label = label != NULL ? label : call->key.label;
    call->key.settings =
        merge_settings(((struct tenant_change *)arg)->req, call->key.settings, call);
    if (call->key.settings == NULL) {
        return STORE_ENOMEM;
    }
    return store_key_update(s, call->tenant.id, id, label, call->key.settings, err);
}

static void key_changed(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct admin_call *call = ((struct tenant_change *)arg)->call;
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
    } else if (!auth_set_key(request_server(req)->auth, call->key.id, call->key.settings)) {
        reply_no_memory(req);
    } else {
        log_change(req, "key_changed", call->tenant.name, call->key.id);
        reply_json(req, 200, key_view(&call->key, call->tenant.name));
    }
}

void ep_key_update(struct request *req)
{
    static const char *const known[] = {"label", "quotas", NULL};
    struct problems problems = {0};
    const json_t *body = request_json(req);
    struct admin_call *call = new_call(req);
    struct tenant_change *change = request_alloc(req, sizeof *change);
    if (call == NULL || change == NULL) {
        reply_no_memory(req);
        return;
    }
    json_only(body, "#", known, &problems);
    json_get_string(body, "#", "label", JSON_OPTIONAL_FIELD, 1, MAX_LABEL, &call->key.label,
                    &problems);
    quota_read(body, QUOTA_KEY_KINDS, call->quotas, call->set_quota, &problems);
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return;
    }
    call->key.id = request_param(req, "key");
    *change = (struct tenant_change){call, req};
    audit_store(req, change_key, key_changed, change, "key.update", key_object(req, call->key.id));
}

static store_status revoke_key(store *s, void *arg, store_error *err)
{
    struct admin_call *call = arg;
    store_status status = store_tenant_find(s, call->tenant_name, call->mem, &call->tenant, err);
    if (status == STORE_OK) {
        status = store_key_revoke(s, call->tenant.id, call->key.id, call->now, err);
    }
    return status;
}

static void key_revoked(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct admin_call *call = arg;
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
        return;
    }
    auth_drop_key(request_server(req)->auth, call->key.id);
    log_change(req, "key_revoked", call->tenant.name, call->key.id);
    reply_json(req, 200,
               json_pack("{s:s, s:s, s:b}", "id", call->key.id, "object", "key", "revoked", 1));
}

void ep_key_revoke(struct request *req)
{
    struct admin_call *call = new_call(req);
    if (call != NULL) {
        call->key.id = request_param(req, "key");
        audit_store(req, revoke_key, key_revoked, call, "key.revoke",
                    key_object(req, call->key.id));
    }
}

struct rotation {
    struct admin_call *call; /* of the new key */
    const char *old_id;
    int64_t old_expires;
};

/* The new key may do what the old one may, and lives as long as that was meant to. */
static store_status rotate_key(store *s, void *arg, store_error *err)
{
    struct rotation *rotation = arg;
    struct admin_call *call = rotation->call;
    store_key old;
    store_status status = store_tenant_find(s, call->tenant_name, call->mem, &call->tenant, err);
    if (status == STORE_OK) {
        status = store_key_get(s, call->tenant.id, rotation->old_id, call->mem, &old, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    if (old.revoked != 0 || (old.expires != 0 && old.expires <= call->now)) {
        *err = (store_error){.status = STORE_ESTATE,
                             .text = "this key is revoked or has expired: make a new one"};
        return STORE_ESTATE;
    }
    call->key.tenant = old.tenant;
    call->key.scopes = old.scopes;
    call->key.label = old.label;
    call->key.settings = old.settings;
    call->key.created = call->now;
    call->key.expires = old.expires != 0 ? call->now + (old.expires - old.created) : 0;
    status = store_key_create(s, &call->key, err);
    if (status == STORE_OK) {
        status = store_key_expire(s, old.tenant, rotation->old_id, rotation->old_expires, err);
    }
    return status;
}

static void key_rotated(struct request *req, store_status status, const store_error *err, void *arg)
{
    const struct rotation *rotation = arg;
    if (status == STORE_OK) {
        auth_expire_key(request_server(req)->auth, rotation->old_id, rotation->old_expires);
        log_change(req, "key_rotated", rotation->call->tenant.name, rotation->old_id);
    }
    key_created(req, status, err, rotation->call);
}

void ep_key_rotate(struct request *req)
{
    static const char *const known[] = {"grace_seconds", NULL};
    struct problems problems = {0};
    struct admin_call *call = new_call(req);
    struct rotation *rotation = request_alloc(req, sizeof *rotation);
    uint64_t grace = 0;
    if (call == NULL || rotation == NULL) {
        reply_no_memory(req);
        return;
    }
    if (request_json(req) != NULL) {
        json_only(request_json(req), "#", known, &problems);
        json_get_u64(request_json(req), "#", "grace_seconds", JSON_OPTIONAL_FIELD, 0, 31536000,
                     &grace, &problems);
    }
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return;
    }
    auth_make_key(call->secret, call->key_id, call->key.hash);
    call->key.id = call->key_id;
    *rotation =
        (struct rotation){call, request_param(req, "key"), call->now + (int64_t)grace * 1000};
    audit_store(req, rotate_key, key_rotated, rotation, "key.rotate",
                key_object(req, rotation->old_id));
}

/* ---- who am I ------------------------------------------------------------------------------------------ */

static void count_stored(void *arg, store *reader)
{
    struct admin_call *call = arg;
    int64_t jobs[STORE_JOB_STATUSES];
    if (!have_reader(call, reader)) {
        return;
    }
    call->status = store_job_counts(reader, call->tenant.id, jobs, &call->err);
    if (call->status == STORE_OK) {
        call->counts[QUOTA_RUNNING] = jobs[STORE_JOB_RUNNING];
        call->counts[QUOTA_QUEUED] =
            jobs[STORE_JOB_QUEUED] + jobs[STORE_JOB_VALIDATING] + jobs[STORE_JOB_PAUSED];
        call->status =
            store_file_rows(reader, call->tenant.id, &call->counts[QUOTA_EXAMPLES], &call->err);
    }
}

static void show_me(struct request *req, void *arg)
{
    struct admin_call *call = arg;
    const struct auth_tenant *tenant = auth_tenant(request_server(req)->auth, call->tenant.id);
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    reply_json(req, 200,
               json_pack("{s:s, s:{s:s, s:f}, s:{s:s, s:o, s:o}, s:{s:I}, s:o}", "object", "me",
                         "tenant", "name", tenant->name, "weight", tenant->weight, "key", "id",
                         request_key_id(req), "scopes", scope_list(request_scopes(req)), "quotas",
                         request_quotas_json(req, true, NULL), "now", "inflight",
                         (json_int_t)tenant->quota.inflight, "quotas",
                         request_quotas_json(req, false, call->counts)));
}

void ep_me(struct request *req)
{
    struct admin_call *call = new_call(req);
    if (call != NULL) {
        call->tenant.id = request_tenant(req);
        request_offload(req, count_stored, show_me, call);
    }
}
