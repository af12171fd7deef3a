/* task_call.c: what the endpoints of tasks and versions share. */
#include "server/task_call.h"

#include "server/log.h"
#include "server/loop.h"

#include <stdlib.h>
#include <string.h>

static void release(void *data)
{
    struct task_call *call = data;
    form_release(call->registry, call->form);
    json_decref(call->keep);
    free(call->labels_text);
    free(call->metadata_text);
    free(call->prompt_text);
    free(call->head_text);
    store_mem_free(call->mem);
}

struct task_call *task_call_new(struct request *req, bool has_task)
{
    struct task_call *call = request_alloc(req, sizeof *call);
    store_mem *mem = store_mem_new();
    if (call == NULL || mem == NULL) {
        store_mem_free(mem);
        reply_no_memory(req);
        return NULL;
    }
    memset(call, 0, sizeof *call);
    call->req = req;
    call->registry = request_server(req)->registry;
    call->mem = mem;
    call->body = request_json(req);
    call->tenant = request_tenant(req);
    call->tenant_name = request_tenant_name(req);
    call->base = eng_model_get_info(request_server(req)->model)->name;
    call->now = wall_ms();
    request_set_data(req, call, release);
    if (has_task) {
        call->name = task_own_name(req, request_param(req, "task"));
        if (call->name == NULL) {
            reply_no_task(req, request_param(req, "task"), NULL);
            return NULL;
        }
    }
    return call;
}

store_status task_call_read(struct task_call *call, store *s, store_error *err)
{
    store_status status = store_task_find(s, call->tenant, call->name, call->mem, &call->task, err);
    if (status == STORE_OK && call->task.current > 0) {
        status = store_version_get(s, call->tenant, call->task.id, call->task.current, call->mem,
                                   &call->version, err);
    }
    return status;
}

bool task_call_failed(struct request *req, struct task_call *call)
{
    if (call->status == STORE_OK) {
        return false;
    }
    if (call->status == STORE_ENOTFOUND && call->name != NULL && call->task.id == 0) {
        reply_no_task(req, call->name, NULL);
    } else {
        reply_store_error(req, call->status, &call->err);
    }
    return true;
}

void task_call_publish(struct task_call *call)
{
    eng_error err;
    if (call->version.number > 0 &&
        tasks_publish(call->registry, &call->task, &call->version, &err) != ENG_OK) {
        log_event(LOG_ERROR, "task_not_published", "task %lld version %lld: %s: %s",
                  (long long)call->task.id, (long long)call->version.number, err.field, err.text);
    }
}

void task_call_compile(void *arg, store *reader)
{
    struct task_call *call = arg;
    const eng_task *task = NULL;
    (void)reader;
    call->eng_status = form_compile(call->form, &task, &call->eng_err);
}

bool task_call_set_route(struct task_call *call, const float *route, size_t len)
{
    const eng_bank_info *bank = eng_bank_get_info(registry_default_bank(call->registry));
    size_t want = route != NULL ? len : bank->route_len;
    float *copy = request_alloc(call->req, want * sizeof *copy);
    if (copy == NULL) {
        return false;
    }
    memset(copy, 0, want * sizeof *copy);
    if (route != NULL) {
        memcpy(copy, route, len * sizeof *copy);
    }
    call->version.route = (store_blob){copy, want * sizeof *copy};
    call->version.bank = bank->name;
    call->version.bank_fingerprint = bank->fingerprint;
    call->version.model_fingerprint =
        eng_model_get_info(registry_model(call->registry))->fingerprint;
    call->version.created = call->now;
    return true;
}

json_t *task_list_json(json_t *data, const char *first, const char *last, bool has_more)
{
    json_t *list = json_object();
    if (json_put(list, "object", json_string("list")) && json_put(list, "data", data) &&
        json_put(list, "first_id", json_text_or_null(first)) &&
        json_put(list, "last_id", json_text_or_null(last)) &&
        json_put(list, "has_more", json_boolean(has_more))) {
        return list;
    }
    json_decref(list);
    return NULL;
}
