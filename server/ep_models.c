/* ep_models.c: /v1/models in OpenAI's shape: the backbone, its bank, and the tenant's tasks. */
#include "server/endpoints.h"
#include "server/task_call.h"
#include "server/workers.h"

#include <string.h>

#define MAX_LISTED 1000 /* tasks shown by GET /v1/models; /v1/tasks pages through all */

static json_t *model_json(const char *id, int64_t created_ms, const char *owner, const char *kind)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:{s:s}}", "id", id, "object", "model", "created",
                     (json_int_t)(created_ms / 1000), "owned_by", owner, "mp2", "kind", kind);
}

static json_t *task_model_json(const struct task_call *call, const store_task *task)
{
    char id[2 * STORE_MAX_NAME + 2];
    snprintf(id, sizeof id, "%s/%s", call->tenant_name, task->name);
    json_t *model = model_json(id, task->created, call->tenant_name, "task");
    json_t *more = json_object_get(model, "mp2");
    char ft[1024];
    ft_format(ft, sizeof ft, call->base, call->tenant_name, task->name, task->id, task->current);
    if (model == NULL || !json_put(more, "type", json_string(task->type)) ||
        !json_put(more, "version", json_integer(task->current)) ||
        !json_put(more, "fine_tuned_model", task->current > 0 ? json_string(ft) : json_null())) {
        json_decref(model);
        return NULL;
    }
    return model;
}

static void bank_id(const struct task_call *call, char *out, size_t size)
{
    snprintf(out, size, "%s:%s", call->base,
             eng_bank_get_info(registry_default_bank(call->registry))->name);
}

static json_t *own_model_json(const struct task_call *call, const char *id)
{
    int64_t started = request_server(call->req)->started_ms;
    char bank[300];
    bank_id(call, bank, sizeof bank);
    if (strcmp(id, call->base) == 0) {
        return model_json(id, started, "mp2", "backbone");
    }
    return strcmp(id, bank) == 0 ? model_json(id, started, "mp2", "bank") : NULL;
}

/* ---- list ------------------------------------------------------------------------------------ */

static void read_tasks(void *arg, store *reader)
{
    struct task_call *call = arg;
    if (workers_has_reader(reader, &call->status, &call->err)) {
        call->status = store_task_list(reader, call->tenant, &call->query, call->mem, &call->tasks,
                                       &call->n, &call->has_more, &call->err);
    }
}

static void show_models(struct request *req, void *arg)
{
    struct task_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    char bank[300];
    bank_id(call, bank, sizeof bank);
    json_t *data = json_array();
    json_array_append_new(data, own_model_json(call, call->base));
    json_array_append_new(data, own_model_json(call, bank));
    for (size_t i = 0; i < call->n; i++) {
        json_array_append_new(data, task_model_json(call, &call->tasks[i]));
    }
    const char *last =
        json_string_value(json_object_get(json_array_get(data, json_array_size(data) - 1), "id"));
    reply_json(req, 200, task_list_json(data, call->base, last, call->has_more));
}

void ep_models_list(struct request *req)
{
    struct task_call *call = task_call_new(req, false);
    if (call != NULL) {
        call->query.page.limit = MAX_LISTED;
        request_offload(req, read_tasks, show_models, call);
    }
}

/* ---- one ------------------------------------------------------------------------------------- */

/* Finds the task that {model} names: its name or an "ft:" id. False: replied 404. */
static bool find_task(struct request *req, struct task_call *call)
{
    const char *text = request_param(req, "model");
    struct reg_task_view view;
    int64_t task = 0;
    call->name = task_own_name(req, text);
    if (strncmp(text, "ft:", 3) == 0) {
        bool found = ft_parse(text, call->tenant_name, &task, &call->number) &&
                     registry_find_id(call->registry, call->tenant, task, &view);
        call->name = found ? request_printf(req, "%s", view.name) : NULL;
    }
    if (call->name == NULL) {
        reply_no_task(req, text, NULL);
        return false;
    }
    return true;
}

static void read_model(void *arg, store *reader)
{
    struct task_call *call = arg;
    if (!workers_has_reader(reader, &call->status, &call->err)) {
        return;
    }
    call->status =
        store_task_find(reader, call->tenant, call->name, call->mem, &call->task, &call->err);
    if (call->status == STORE_OK && call->number != 0) {
        call->status = store_version_get(reader, call->tenant, call->task.id, call->number,
                                         call->mem, &call->version, &call->err);
    }
}

static void show_model(struct request *req, void *arg)
{
    struct task_call *call = arg;
    if (call->status == STORE_ENOTFOUND) {
        reply_no_task(req, request_param(req, "model"), NULL);
        return;
    }
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    json_t *model = task_model_json(call, &call->task);
    if (model != NULL && call->number != 0) {
        json_object_set_new(model, "id", json_string(request_param(req, "model")));
        json_object_set_new(json_object_get(model, "mp2"), "version", json_integer(call->number));
    }
    reply_json(req, 200, model);
}

void ep_model_get(struct request *req)
{
    struct task_call *call = task_call_new(req, false);
    if (call == NULL) {
        return;
    }
    json_t *own = own_model_json(call, request_param(req, "model"));
    if (own != NULL) {
        reply_json(req, 200, own);
    } else if (find_task(req, call)) {
        request_offload(req, read_model, show_model, call);
    }
}

/* ---- delete ---------------------------------------------------------------------------------- */

/* Deletes the task; an id of one version only when it is the current one. For the store thread. */
static store_status delete_model(store *s, void *arg, store_error *err)
{
    struct task_call *call = arg;
    store_status status = store_task_find(s, call->tenant, call->name, call->mem, &call->task, err);
    if (status == STORE_OK && call->number != 0 && call->number != call->task.current) {
        *err = (store_error){.status = STORE_ESTATE};
        snprintf(err->text, sizeof err->text,
                 "this is version %lld of task \"%.64s\", which serves version %lld; delete the "
                 "task by its name",
                 (long long)call->number, call->name, (long long)call->task.current);
        return STORE_ESTATE;
    }
    return status == STORE_OK ? store_task_delete(s, call->tenant, call->task.id, call->now, err)
                              : status;
}

static void model_deleted(struct request *req, store_status status, const store_error *err,
                          void *arg)
{
    struct task_call *call = arg;
    if (status == STORE_ENOTFOUND) {
        reply_no_task(req, request_param(req, "model"), NULL);
        return;
    }
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
        return;
    }
    registry_remove(call->registry, call->tenant, call->task.id);
    reply_json(req, 200,
               json_pack("{s:s, s:s, s:b}", "id", request_param(req, "model"), "object", "model",
                         "deleted", 1));
}

void ep_model_delete(struct request *req)
{
    struct task_call *call = task_call_new(req, false);
    if (call == NULL) {
        return;
    }
    json_t *own = own_model_json(call, request_param(req, "model"));
    if (own != NULL) {
        json_decref(own);
        reply_problem(req, 403, "not_yours", NULL,
                      "\"%.128s\" belongs to the server; only your own tasks can be deleted",
                      request_param(req, "model"));
    } else if (find_task(req, call)) {
        request_store(req, delete_model, false, model_deleted, call);
    }
}
