/* ep_tenants.c: tenants over HTTP.
 *
 * Reads run on a worker with its read-only handle, writes on the store thread; the table of keys in
 * memory is changed on the loop after the commit and before the answer.
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
              json_put(view, "quotas", admin_quotas(tenant->settings)) &&
              json_put(view, "settings", settings != NULL ? json_incref(settings) : json_object());
    json_decref(settings);
    if (!ok) {
        json_decref(view);
        return NULL;
    }
    return view;
}

static void read_tenants(void *arg, store *reader)
{
    struct admin_call *call = arg;
    if (workers_has_reader(reader, &call->status, &call->err)) {
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
    reply_json(req, 200, listing_json(data, first, last, call->has_more));
}

void ep_tenants_list(struct request *req)
{
    struct admin_call *call = admin_call_new(req);
    if (call != NULL && admin_read_page(req, call)) {
        request_offload(req, read_tenants, show_tenants, call);
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
    struct admin_call *call = admin_call_new(req);
    if (call != NULL) {
        request_offload(req, admin_read_tenant, show_tenant, call);
    }
}

/* Weight and quotas of a body. */
static void read_settings(const json_t *body, struct admin_call *call, struct problems *problems)
{
    json_get_double(body, "#", "weight", JSON_OPTIONAL_FIELD, 0.01, 1000, &call->weight, problems);
    quota_read(body, QUOTA_KINDS, call->quotas, call->set_quota, problems);
}

static store_status create_tenant(store *s, void *arg, store_error *err)
{
    struct admin_call *call = arg;
    return store_tenant_create(s, call->tenant.name, call->tenant.settings, call->now,
                               &call->tenant.id, err);
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
        admin_log_change(req, made ? "tenant_created" : "tenant_changed", call->tenant.name, NULL);
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
    struct admin_call *call = admin_call_new(req);
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
    call->tenant.settings = admin_merge_settings(req, NULL, call);
    if (call->tenant.settings == NULL) {
        reply_no_memory(req);
        return;
    }
    audit_store(req, create_tenant, tenant_stored, call, "tenant.create", call->tenant.name);
}

/* Read, merge and write in one operation, so that two changes at once lose nothing. */
static store_status change_tenant(store *s, void *arg, store_error *err)
{
    struct admin_call *call = ((struct admin_change *)arg)->call;
    bool disabled = call->tenant.disabled != 0;
    store_status status = store_tenant_find(s, call->tenant_name, call->mem, &call->tenant, err);
    if (status != STORE_OK) {
        return status;
    }
    if (call->set_disabled) {
        call->tenant.disabled = disabled ? call->now : 0;
    }
    call->tenant.settings =
        admin_merge_settings(((struct admin_change *)arg)->req, call->tenant.settings, call);
    if (call->tenant.settings == NULL) {
        return STORE_ENOMEM;
    }
    return store_tenant_update(s, call->tenant.id, call->tenant.settings, call->tenant.disabled,
                               err);
}

static void tenant_changed(struct request *req, store_status status, const store_error *err,
                           void *arg)
{
    tenant_stored(req, status, err, ((struct admin_change *)arg)->call);
}

void ep_tenant_update(struct request *req)
{
    static const char *const known[] = {"disabled", "weight", "quotas", NULL};
    struct problems problems = {0};
    const json_t *body = request_json(req);
    struct admin_call *call = admin_call_new(req);
    struct admin_change *change = request_alloc(req, sizeof *change);
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
    *change = (struct admin_change){call, req};
    audit_store(req, change_tenant, tenant_changed, change, "tenant.update", call->tenant_name);
}
