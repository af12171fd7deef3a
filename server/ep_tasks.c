/* ep_tasks.c: /v1/tasks: make, list, show, change and delete tasks.
 *
 * The store decides (names, existence), the registry follows what the store has acknowledged, on the
 * loop, also when the client has gone meanwhile. What a task asks is compiled by a worker before
 * anything is written, so that a task that exists can be asked.
 */
#include "server/endpoints.h"
#include "server/log.h"
#include "server/task_call.h"
#include "server/workers.h"

#include <stdlib.h>
#include <string.h>

#define MAX_DESCRIPTION 2000

/* ---- make ------------------------------------------------------------------------------------ */

/* The stored form of labels: JSON text, or NULL. */
static bool write_labels(struct task_call *call)
{
    json_t *list = call->spec.n_labels > 0 ? json_array() : NULL;
    for (size_t i = 0; i < call->spec.n_labels; i++) {
        const eng_text *label = &call->spec.labels[i];
        json_array_append_new(list, json_stringn(label->data, label->len));
    }
    size_t len = 0;
    call->labels_text = list != NULL ? json_text(list, &len) : NULL;
    bool whole = call->spec.n_labels == 0 ||
                 (call->labels_text != NULL && json_array_size(list) == call->spec.n_labels);
    json_decref(list);
    call->task.labels = call->labels_text;
    return whole;
}

static bool write_description(struct task_call *call, const char *description)
{
    size_t len = 0;
    if (description == NULL) {
        return true;
    }
    json_t *metadata = json_pack("{s:s}", "description", description);
    call->metadata_text = metadata != NULL ? json_text(metadata, &len) : NULL;
    json_decref(metadata);
    return call->metadata_text != NULL;
}

static store_status create(store *s, void *arg, store_error *err)
{
    struct task_call *call = arg;
    int64_t id = 0;
    store_status status = store_task_create(s, &call->task, &call->version, &id, err);
    if (status == STORE_OK) {
        call->task = (store_task){0};
        status = task_call_read(call, s, err);
    }
    return status;
}

static void created(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct task_call *call = arg;
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
        return;
    }
    task_call_publish(call);
    reply_json(req, 201, task_json(call->tenant_name, &call->task));
}

static void create_compiled(struct request *req, void *arg)
{
    struct task_call *call = arg;
    char pointer[128];
    if (request_is_over(req)) {
        return;
    }
    if (call->eng_status != ENG_OK) {
        snprintf(pointer, sizeof pointer, "#/%s", call->eng_err.field);
        reply_eng_error(req, call->eng_status, &call->eng_err, pointer);
        return;
    }
    request_store(req, create, false, created, call);
}

/* Members of the body into call->task and call->version. False: replied. */
static bool read_new_task(struct request *req, struct task_call *call)
{
    static const char *const known[] = {"name",        "type",  "labels", "template",
                                        "description", "route", "start",  "may_have_no_answer",
                                        NULL};
    const json_t *body = request_json(req);
    struct problems problems = {.count = 0};
    const char *description = NULL;
    const float *route = NULL;
    size_t route_len = 0;
    json_only(body, "#", known, &problems);
    if (json_get_string(body, "#", "name", JSON_REQUIRED_FIELD, 0, SIZE_MAX, &call->name,
                        &problems) &&
        task_name_fault(call->name) != NULL) {
        problem_add(&problems, "#", "name", "%s", task_name_fault(call->name));
    }
    json_get_string(body, "#", "description", JSON_OPTIONAL_FIELD, 0, MAX_DESCRIPTION, &description,
                    &problems);
    bool read = task_read_spec(req, body, "#", &call->spec, &problems);
    read = task_read_route(req, body, "#", registry_default_bank(call->registry), &route,
                           &route_len, &problems) &&
           read;
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return false;
    }
    if (!read || !task_call_set_route(call, route, route_len) || !write_labels(call) ||
        !write_description(call, description)) {
        reply_no_memory(req);
        return false;
    }
    const char *start = json_string_value(json_object_get(body, "start"));
    call->version.method = route == NULL ? "average" : start != NULL ? "retrieve" : "import";
    call->version.started_from = start;
    return true;
}

void ep_tasks_create(struct request *req)
{
    struct task_call *call = task_call_new(req, false);
    if (call == NULL || !read_new_task(req, call)) {
        return;
    }
    call->task.tenant = call->tenant;
    call->task.name = call->name;
    call->task.type = eng_task_type_name(call->spec.type);
    call->task.text_template =
        call->spec.text_template.len > 0 ? call->spec.text_template.data : NULL;
    call->task.flags = call->spec.may_have_no_answer ? STORE_TASK_MAY_HAVE_NO_ANSWER : 0;
    call->task.metadata = call->metadata_text;
    call->task.created = call->now;
    if (registry_form(call->registry, &call->spec, &call->form, &call->eng_err) != ENG_OK) {
        reply_no_memory(req);
        return;
    }
    request_offload(req, task_call_compile, create_compiled, call);
}

/* ---- list ------------------------------------------------------------------------------------ */

/* By age the store pages by number: the name of `after` becomes one. Names of deleted tasks are not
 * unique: their pages give the number itself. */
static store_status number_of_after(struct task_call *call, store *reader)
{
    if (call->query.by_name || call->query.deleted || call->name == NULL) {
        return STORE_OK;
    }
    store_status status =
        store_task_find(reader, call->tenant, call->name, call->mem, &call->task, &call->err);
    snprintf(call->after, sizeof call->after, "%lld", (long long)call->task.id);
    call->query.page.after = call->after;
    return status;
}

static void read_list(void *arg, store *reader)
{
    struct task_call *call = arg;
    if (!workers_has_reader(reader, &call->status, &call->err)) {
        return;
    }
    call->status = number_of_after(call, reader);
    if (call->status == STORE_OK) {
        call->status = store_task_list(reader, call->tenant, &call->query, call->mem, &call->tasks,
                                       &call->n, &call->has_more, &call->err);
    }
}

static void show_list(struct request *req, void *arg)
{
    struct task_call *call = arg;
    if (task_call_failed(req, call)) {
        return;
    }
    json_t *data = json_array();
    for (size_t i = 0; i < call->n; i++) {
        json_array_append_new(data, task_json(call->tenant_name, &call->tasks[i]));
    }
    const char *first = json_string_value(json_object_get(json_array_get(data, 0), "id"));
    const char *last = json_string_value(
        json_object_get(json_array_get(data, call->n > 0 ? call->n - 1 : 0), "id"));
    char numbers[2][24];
    if (call->query.deleted && call->n > 0) {
        snprintf(numbers[0], sizeof numbers[0], "%lld", (long long)call->tasks[0].id);
        snprintf(numbers[1], sizeof numbers[1], "%lld", (long long)call->tasks[call->n - 1].id);
        first = numbers[0];
        last = numbers[1];
    }
    reply_json(req, 200, task_list_json(data, first, last, call->has_more));
}

/* False: replied 422. */
static bool read_choice(struct request *req, const char *name, const char *const *words, size_t *at)
{
    const char *word = request_query(req, name);
    if (word == NULL) {
        return true;
    }
    for (size_t i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], word) == 0) {
            *at = i;
            return true;
        }
    }
    reply_problem(req, 422, "invalid", NULL, "%s: \"%.64s\" is not one of the values it may have",
                  name, word);
    return false;
}

/* Which tasks, in which order: by name unless asked, so that a page goes on where the last one ended
 * though tasks come and go. False: replied. */
static bool read_task_query(struct request *req, store_task_query *query)
{
    static const char *const orders[] = {"name",    "-name",    "created", "-created",
                                         "updated", "-updated", NULL};
    static const char *const types[] = {"", "classification", "pair", "choice", "extractive", NULL};
    static const char *const flags[] = {"false", "true", NULL};
    size_t order = 0, type = 0, deleted = 0;
    uint64_t limit = 0;
    if (!request_query_u64(req, "limit", 1, STORE_MAX_PAGE, 20, &limit) ||
        !read_choice(req, "sort", orders, &order) || !read_choice(req, "type", types, &type) ||
        !read_choice(req, "deleted", flags, &deleted)) {
        return false;
    }
    if (deleted == 1 && request_query(req, "sort") != NULL) {
        reply_problem(
            req, 422, "invalid", NULL,
            "sort: deleted tasks come in the order of their deletion, the last one first");
        return false;
    }
    query->deleted = deleted == 1;
    query->by_name = order < 2 && !query->deleted;
    query->by_change = order >= 4 || query->deleted;
    query->page.oldest_first = order % 2 == 0 && !query->deleted;
    query->page.limit = (size_t)limit;
    query->prefix = request_query(req, "prefix");
    query->contains = request_query(req, "q");
    query->type = type > 0 ? types[type] : NULL;
    return true;
}

void ep_tasks_list(struct request *req)
{
    struct task_call *call = task_call_new(req, false);
    if (call == NULL || !read_task_query(req, &call->query)) {
        return;
    }
    const char *after = request_query(req, "after");
    call->name = after != NULL ? task_own_name(req, after) : NULL;
    if (after != NULL && call->name == NULL) {
        reply_problem(req, 422, "invalid", NULL,
                      "after: \"%.128s\" is not the id or name of one of your tasks", after);
        return;
    }
    call->query.page.after = call->name;
    if (call->query.deleted) {
        call->name = NULL;
    }
    request_offload(req, read_list, show_list, call);
}

/* ---- show ------------------------------------------------------------------------------------ */

static void read_task(void *arg, store *reader)
{
    struct task_call *call = arg;
    if (workers_has_reader(reader, &call->status, &call->err)) {
        call->status = task_call_read(call, reader, &call->err);
    }
}

static void show_task(struct request *req, void *arg)
{
    struct task_call *call = arg;
    if (!task_call_failed(req, call)) {
        reply_json(req, 200, task_json(call->tenant_name, &call->task));
    }
}

void ep_task_get(struct request *req)
{
    struct task_call *call = task_call_new(req, true);
    if (call != NULL) {
        request_offload(req, read_task, show_task, call);
    }
}

/* ---- change ---------------------------------------------------------------------------------- */

static store_status update(store *s, void *arg, store_error *err)
{
    struct task_call *call = arg;
    store_status status =
        store_task_update(s, call->tenant, call->task.id, &call->change, call->now, err);
    if (status == STORE_OK) {
        call->name = call->change.name != NULL ? call->change.name : call->name;
        status = task_call_read(call, s, err);
    }
    return status;
}

static void updated(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct task_call *call = arg;
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
        return;
    }
    task_call_publish(call);
    reply_json(req, 200, task_json(call->tenant_name, &call->task));
}

static void update_compiled(struct request *req, void *arg)
{
    struct task_call *call = arg;
    if (request_is_over(req)) {
        return;
    }
    if (call->eng_status != ENG_OK) {
        reply_eng_error(req, call->eng_status, &call->eng_err, "#/template");
        return;
    }
    request_store(req, update, false, updated, call);
}

/* The task is read: a new template is compiled with its other parts before it is written. */
static void update_read(struct request *req, void *arg)
{
    struct task_call *call = arg;
    eng_error err;
    if (task_call_failed(req, call) || request_is_over(req)) {
        return;
    }
    if (call->change.text_template == NULL) {
        request_store(req, update, false, updated, call);
        return;
    }
    store_task changed = call->task;
    changed.text_template = call->change.text_template;
    eng_status status = task_spec_of(&changed, &call->spec, call->labels, &call->keep, &err);
    if (status == ENG_OK) {
        status = registry_form(call->registry, &call->spec, &call->form, &err);
    }
    if (status != ENG_OK) {
        reply_eng_error(req, status, &err, NULL);
        return;
    }
    request_offload(req, task_call_compile, update_compiled, call);
}

static bool read_change(struct request *req, struct task_call *call)
{
    static const char *const known[] = {"name", "template", "description", NULL};
    const json_t *body = request_json(req);
    struct problems problems = {.count = 0};
    const char *description = NULL;
    if (json_object_get(body, "labels") != NULL || json_object_get(body, "type") != NULL) {
        problem_add(&problems, "#", json_object_get(body, "labels") != NULL ? "labels" : "type",
                    "a task's type and labels cannot change: routes were learnt for them; make "
                    "another task");
    } else {
        json_only(body, "#", known, &problems);
    }
    if (json_get_string(body, "#", "name", JSON_OPTIONAL_FIELD, 0, SIZE_MAX, &call->change.name,
                        &problems) &&
        task_name_fault(call->change.name) != NULL) {
        problem_add(&problems, "#", "name", "%s", task_name_fault(call->change.name));
    }
    json_get_string(body, "#", "template", JSON_OPTIONAL_FIELD, 1, ENG_MAX_TEMPLATE_BYTES,
                    &call->change.text_template, &problems);
    json_get_string(body, "#", "description", JSON_OPTIONAL_FIELD, 0, MAX_DESCRIPTION, &description,
                    &problems);
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return false;
    }
    if (!write_description(call, description)) {
        reply_no_memory(req);
        return false;
    }
    call->change.metadata = call->metadata_text;
    return true;
}

void ep_task_update(struct request *req)
{
    struct task_call *call = task_call_new(req, true);
    if (call != NULL && read_change(req, call)) {
        request_offload(req, read_task, update_read, call);
    }
}

/* ---- delete ---------------------------------------------------------------------------------- */

static store_status delete_task(store *s, void *arg, store_error *err)
{
    struct task_call *call = arg;
    store_status status = store_task_find(s, call->tenant, call->name, call->mem, &call->task, err);
    return status == STORE_OK ? store_task_delete(s, call->tenant, call->task.id, call->now, err)
                              : status;
}

static void deleted(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct task_call *call = arg;
    call->status = status;
    call->err = *err;
    if (task_call_failed(req, call)) {
        return;
    }
    registry_remove(call->registry, call->tenant, call->task.id);
    reply_json(req, 200,
               json_pack("{s:s+++, s:s, s:b}", "id", call->tenant_name, "/", call->task.name, "",
                         "object", "task", "deleted", 1));
}

void ep_task_delete(struct request *req)
{
    struct task_call *call = task_call_new(req, true);
    if (call != NULL) {
        request_store(req, delete_task, false, deleted, call);
    }
}

/* ---- restore --------------------------------------------------------------------------------- */

static store_status restore_task(store *s, void *arg, store_error *err)
{
    struct task_call *call = arg;
    store_status status =
        store_task_find_deleted(s, call->tenant, call->name, call->mem, &call->task, err);
    if (status == STORE_OK) {
        status = store_task_restore(s, call->tenant, call->task.id, call->now, err);
    }
    return status == STORE_OK ? task_call_read(call, s, err) : status;
}

static void restored(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct task_call *call = arg;
    if (status == STORE_ENOTFOUND && call->task.id == 0) {
        reply_problem(
            req, 404, "task_not_found", NULL,
            "no deleted task \"%.128s\" can be restored; GET /v1/tasks?deleted=true lists "
            "those that can",
            call->name);
    } else if (status != STORE_OK) {
        reply_store_error(req, status, err);
    } else {
        task_call_publish(call);
        reply_json(req, 200, task_json(call->tenant_name, &call->task));
    }
}

void ep_task_restore(struct request *req)
{
    struct task_call *call = task_call_new(req, true);
    if (call != NULL) {
        request_store(req, restore_task, false, restored, call);
    }
}
