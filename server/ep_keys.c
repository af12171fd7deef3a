/* ep_keys.c: keys over HTTP, and who a key is.
 *
 * The table of keys in memory is changed on the loop after the commit and before the answer, so that a key
 * works from the moment it is shown and stops from the moment its revocation is acknowledged.
 */
#include "server/admin_call.h"
#include "server/audit.h"
#include "server/config.h"
#include "server/listing.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/workers.h"

#include <stdlib.h>
#include <string.h>

#define MAX_LABEL 128

static json_t *key_view(const store_key *key, const char *tenant_name)
{
    json_t *view = json_object();
    bool ok = json_put(view, "object", json_string("key")) &&
              json_put(view, "id", json_string(key->id)) &&
              json_put(view, "tenant", json_string(tenant_name)) &&
              json_put(view, "label", json_text_or_null(key->label)) &&
              json_put(view, "scopes", admin_scopes(key->scopes)) &&
              json_put(view, "quotas", admin_quotas(key->settings)) &&
              json_put(view, "created_at", json_seconds(key->created)) &&
              json_put(view, "expires_at", json_seconds(key->expires)) &&
              json_put(view, "revoked_at", json_seconds(key->revoked));
    if (!ok) {
        json_decref(view);
        return NULL;
    }
    return view;
}

/* ---- keys ------------------------------------------------------------------------------------------ */

static void read_keys(void *arg, store *reader)
{
    struct admin_call *call = arg;
    admin_read_tenant(arg, reader);
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
    reply_json(req, 200, listing_json(data, first, last, call->has_more));
}

void ep_keys_list(struct request *req)
{
    struct admin_call *call = admin_call_new(req);
    if (call != NULL && admin_read_page(req, call)) {
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
    admin_log_change(req, "key_created", call->tenant.name, call->key_id);
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
    struct admin_call *call = admin_call_new(req);
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
    call->key.settings = admin_merge_settings(req, NULL, call);
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
    struct admin_call *call = ((struct admin_change *)arg)->call;
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
        admin_merge_settings(((struct admin_change *)arg)->req, call->key.settings, call);
    if (call->key.settings == NULL) {
        return STORE_ENOMEM;
    }
    return store_key_update(s, call->tenant.id, id, label, call->key.settings, err);
}

static void key_changed(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct admin_call *call = ((struct admin_change *)arg)->call;
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
    } else if (!auth_set_key(request_server(req)->auth, call->key.id, call->key.settings)) {
        reply_no_memory(req);
    } else {
        admin_log_change(req, "key_changed", call->tenant.name, call->key.id);
        reply_json(req, 200, key_view(&call->key, call->tenant.name));
    }
}

void ep_key_update(struct request *req)
{
    static const char *const known[] = {"label", "quotas", NULL};
    struct problems problems = {0};
    const json_t *body = request_json(req);
    struct admin_call *call = admin_call_new(req);
    struct admin_change *change = request_alloc(req, sizeof *change);
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
    *change = (struct admin_change){call, req};
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
    admin_log_change(req, "key_revoked", call->tenant.name, call->key.id);
    reply_json(req, 200,
               json_pack("{s:s, s:s, s:b}", "id", call->key.id, "object", "key", "revoked", 1));
}

void ep_key_revoke(struct request *req)
{
    struct admin_call *call = admin_call_new(req);
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
        admin_log_change(req, "key_rotated", rotation->call->tenant.name, rotation->old_id);
    }
    key_created(req, status, err, rotation->call);
}

void ep_key_rotate(struct request *req)
{
    static const char *const known[] = {"grace_seconds", NULL};
    struct problems problems = {0};
    struct admin_call *call = admin_call_new(req);
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
    if (!workers_has_reader(reader, &call->status, &call->err)) {
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
                         request_key_id(req), "scopes", admin_scopes(request_scopes(req)), "quotas",
                         request_quotas_json(req, true, NULL), "now", "inflight",
                         (json_int_t)tenant->quota.inflight, "quotas",
                         request_quotas_json(req, false, call->counts)));
}

void ep_me(struct request *req)
{
    struct admin_call *call = admin_call_new(req);
    if (call != NULL) {
        call->tenant.id = request_tenant(req);
        request_offload(req, count_stored, show_me, call);
    }
}
