/* admin_call.c: what the endpoints of tenants and of keys share. */
#include "server/admin_call.h"

#include "server/log.h"
#include "server/loop.h"
#include "server/workers.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PAGE 100

static void release_call(void *data)
{
    struct admin_call *call = data;
    sodium_memzero(call->secret, sizeof call->secret);
    store_mem_free(call->mem);
}

struct admin_call *admin_call_new(struct request *req)
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

bool admin_read_page(struct request *req, struct admin_call *call)
{
    uint64_t limit = 0;
    if (!request_query_u64(req, "limit", 1, MAX_PAGE, 20, &limit)) {
        return false;
    }
    call->page.limit = (size_t)limit;
    call->page.after = request_query(req, "after");
    return true;
}

void admin_read_tenant(void *arg, store *reader)
{
    struct admin_call *call = arg;
    if (workers_has_reader(reader, &call->status, &call->err)) {
        call->status =
            store_tenant_find(reader, call->tenant_name, call->mem, &call->tenant, &call->err);
    }
}

const char *admin_merge_settings(struct request *req, const char *old,
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

void admin_log_change(const struct request *req, const char *event, const char *tenant,
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

json_t *admin_quotas(const char *settings)
{
    json_t *all = json_stored(settings);
    json_t *quotas = json_incref(json_object_get(all, "quotas"));
    json_decref(all);
    return quotas != NULL ? quotas : json_object();
}

json_t *admin_scopes(uint32_t scopes)
{
    json_t *list = json_array();
    for (size_t i = 0; auth_scopes[i].name != NULL; i++) {
        if ((scopes & auth_scopes[i].bit) != 0) {
            json_array_append_new(list, json_string(auth_scopes[i].name));
        }
    }
    return list;
}
