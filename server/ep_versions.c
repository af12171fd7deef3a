/* ep_versions.c: /v1/tasks/{task}/versions: show, export, import; …/current: move the alias.
 *
 * An export is the whole of a version in a few hundred bytes: the route and what it belongs to; with
 * ?tuned=true also a tuned prompt (layers, P, H) and head (H, 2, then 2 biases), as base64 of little-endian
 * float32. It can be imported wherever the same backbone and bank run; a mismatch is refused with both
 * fingerprints, for a route means nothing anywhere else.
 */
#include "server/endpoints.h"
#include "server/reading.h"
#include "server/task_call.h"
#include "server/workers.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TUNED_TEXT (16u << 20) /* of a part in an answer */

/* ---- show ------------------------------------------------------------------------------------ */

static void read_versions(void *arg, store *reader)
{
    struct task_call *call = arg;
    if (!workers_has_reader(reader, &call->status, &call->err)) {
        return;
    }
    call->status =
        store_task_find(reader, call->tenant, call->name, call->mem, &call->task, &call->err);
    if (call->status == STORE_OK) {
        call->status =
            store_version_list(reader, call->tenant, call->task.id, &call->query.page, call->mem,
                               &call->versions, &call->n, &call->has_more, &call->err);
    }
}

static void show_versions(struct request *req, void *arg)
{
    struct task_call *call = arg;
    if (task_call_failed(req, call)) {
        return;
    }
    json_t *data = json_array();
    for (size_t i = 0; i < call->n; i++) {
        json_array_append_new(
            data, version_json(call->tenant_name, call->base, &call->task, &call->versions[i]));
    }
    char first[24] = "", last[24] = "";
    if (call->n > 0) {
        snprintf(first, sizeof first, "%lld", (long long)call->versions[0].number);
        snprintf(last, sizeof last, "%lld", (long long)call->versions[call->n - 1].number);
    }
    reply_json(req, 200,
               task_list_json(data, call->n > 0 ? first : NULL, call->n > 0 ? last : NULL,
                              call->has_more));
}

void ep_versions_list(struct request *req)
{
    struct task_call *call = task_call_new(req, true);
    uint64_t limit = 0;
    if (call == NULL || !request_query_u64(req, "limit", 1, STORE_MAX_PAGE, 20, &limit)) {
        return;
    }
    call->query.page.limit = (size_t)limit;
    call->query.page.after = request_query(req, "after");
    request_offload(req, read_versions, show_versions, call);
}

static void read_version(void *arg, store *reader)
{
    struct task_call *call = arg;
    if (!workers_has_reader(reader, &call->status, &call->err)) {
        return;
    }
    call->status =
        store_task_find(reader, call->tenant, call->name, call->mem, &call->task, &call->err);
    if (call->status == STORE_OK) {
        call->status = store_version_get(reader, call->tenant, call->task.id, call->number,
                                         call->mem, &call->version, &call->err);
    }
}

/* False: out of memory, or too long to be JSON. */
static bool encode(const store_blob *blob, char **out)
{
    size_t room = sodium_base64_encoded_len(blob->len, sodium_base64_VARIANT_ORIGINAL);
    if (blob->len == 0) {
        return true;
    }
    *out = room <= MAX_TUNED_TEXT ? malloc(room) : NULL;
    return *out != NULL && sodium_bin2base64(*out, room, blob->data, blob->len,
                                             sodium_base64_VARIANT_ORIGINAL) != NULL;
}

static void read_whole_version(void *arg, store *reader)
{
    struct task_call *call = arg;
    store_blob prompt, head;
    read_version(arg, reader);
    if (call->status != STORE_OK || !(call->version.has_prompt || call->version.has_head)) {
        return;
    }
    call->status = store_version_blobs(reader, call->tenant, call->task.id, call->number, call->mem,
                                       &prompt, &head, &call->err);
    if (call->status == STORE_OK &&
        !(encode(&prompt, &call->prompt_text) && encode(&head, &call->head_text))) {
        call->status = STORE_ENOMEM;
    }
}

static bool add_tuned(json_t *body, const struct task_call *call)
{
    return (call->prompt_text == NULL ||
            json_put(body, "prompt", json_string(call->prompt_text))) &&
           (call->head_text == NULL || json_put(body, "head", json_string(call->head_text)));
}

static bool add_form(json_t *body, const store_task *task)
{
    json_t *labels = json_stored(task->labels);
    return json_put(body, "type", json_string(task->type)) &&
           json_put(body, "labels", labels != NULL ? labels : json_null()) &&
           json_put(body, "template", json_text_or_null(task->text_template));
}

static void show_version(struct request *req, void *arg)
{
    struct task_call *call = arg;
    if (call->status == STORE_ENOTFOUND && call->task.id != 0) {
        reply_problem(req, 404, "version_not_found", NULL, "task \"%s\" has no version %lld",
                      call->name, (long long)call->number);
        return;
    }
    if (task_call_failed(req, call)) {
        return;
    }
    json_t *body = version_json(call->tenant_name, call->base, &call->task, &call->version);
    if (body != NULL && !(add_form(body, &call->task) && add_tuned(body, call))) {
        json_decref(body);
        body = NULL;
    }
    reply_json(req, 200, body);
}

/* {version} of the path. False: replied 404. */
static bool read_number(struct request *req, int64_t *number)
{
    const char *text = request_param(req, "version");
    char *end = NULL;
    long long value = strlen(text) < 16 ? strtoll(text, &end, 10) : 0;
    if (text[0] < '1' || text[0] > '9' || value < 1 || *end != '\0') {
        reply_problem(req, 404, "version_not_found", NULL,
                      "versions are numbered 1, 2, …; there is no version \"%.32s\"", text);
        return false;
    }
    *number = value;
    return true;
}

void ep_version_get(struct request *req)
{
    struct task_call *call = task_call_new(req, true);
    const char *tuned = request_query(req, "tuned");
    if (call == NULL || !read_number(req, &call->number)) {
        return;
    }
    if (tuned != NULL && strcmp(tuned, "true") != 0 && strcmp(tuned, "false") != 0) {
        reply_problem(req, 422, "invalid", NULL, "tuned: true or false, found \"%.32s\"", tuned);
        return;
    }
    bool whole = tuned != NULL && tuned[0] == 't';
    request_offload(req, whole ? read_whole_version : read_version, show_version, call);
}

/* ---- import ---------------------------------------------------------------------------------- */

static void check_fingerprint(const json_t *body, const char *key, const char *mine,
                              const char *what, struct problems *problems)
{
    const char *given = NULL;
    if (json_get_string(body, "#", key, JSON_OPTIONAL_FIELD, 0, 128, &given, problems) &&
        strcmp(given, mine) != 0) {
        problem_add(problems, "#", key,
                    "this version was learnt on %s %.12s, this server runs %.12s: its route means "
                    "nothing here",
                    what, given, mine);
    }
}

/* How answers are read must be of the task's kind. */
static store_status check_reading(const struct task_call *call, size_t labels, store_error *err)
{
    *err = (store_error){.status = STORE_ESTATE};
    if (call->version.answer_length.len > 0 && strcmp(call->task.type, "extractive") != 0) {
        snprintf(err->text, sizeof err->text,
                 "answer_length is of extractive tasks, and \"%.64s\" is of type %s", call->name,
                 call->task.type);
        return STORE_ESTATE;
    }
    size_t biases = reading_labels(call->body);
    if (call->label_scaling.len > 0 && biases != labels) {
        snprintf(err->text, sizeof err->text,
                 "label_scaling is of %zu labels, and \"%.64s\" has %zu", biases, call->name,
                 labels);
        return STORE_ESTATE;
    }
    return STORE_OK;
}

/* What an export says about its form must be the task's. For the store thread. */
static store_status check_form(const struct task_call *call, store_error *err)
{
    const json_t *body = call->body;
    const json_t *type = json_object_get(body, "type"), *labels = json_object_get(body, "labels");
    json_t *own = json_stored(call->task.labels);
    bool same_type = !json_is_string(type) || strcmp(json_string_value(type), call->task.type) == 0;
    bool same_labels = !json_is_array(labels) || (own != NULL && json_equal((json_t *)labels, own));
    size_t n_labels = json_array_size(own);
    json_decref(own);
    *err = (store_error){.status = STORE_ESTATE};
    if (!(same_type && same_labels)) {
        snprintf(
            err->text, sizeof err->text,
            "the version is of a task with other %s than \"%.64s\"; import it into a task with "
            "the same type and labels",
            same_type ? "labels" : "type", call->name);
        return STORE_ESTATE;
    }
    return check_reading(call, n_labels, err);
}

static store_status import(store *s, void *arg, store_error *err)
{
    struct task_call *call = arg;
    store_status status = store_task_find(s, call->tenant, call->name, call->mem, &call->task, err);
    if (status == STORE_OK) {
        status = check_form(call, err);
    }
    if (status == STORE_OK) {
        status = store_version_add(s, call->tenant, call->task.id, &call->version,
                                   call->make_current, &call->number, err);
    }
    if (status == STORE_OK) {
        status = store_task_find(s, call->tenant, call->name, call->mem, &call->task, err);
    }
    if (status == STORE_OK) {
        status = store_version_get(s, call->tenant, call->task.id, call->number, call->mem,
                                   &call->version, err);
    }
    return status;
}

static void imported(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct task_call *call = arg;
    call->status = status;
    call->err = *err;
    if (task_call_failed(req, call)) {
        return;
    }
    if (call->task.current == call->version.number) {
        task_call_publish(call);
    }
    reply_json(req, 201, version_json(call->tenant_name, call->base, &call->task, &call->version));
}

/* Members that an export has beside those that are read: accepted and given anew. */
static const char *const import_known[] = {"object",
                                           "task",
                                           "version",
                                           "current",
                                           "model",
                                           "route",
                                           "start",
                                           "method",
                                           "bank",
                                           "model_fingerprint",
                                           "bank_fingerprint",
                                           "metrics",
                                           "job",
                                           "type",
                                           "labels",
                                           "template",
                                           "created_at",
                                           "started_from",
                                           "answer_length",
                                           "label_scaling",
                                           "has_prompt",
                                           "has_head",
                                           "prompt",
                                           "head",
                                           NULL};

/* Base64 of `bytes` bytes of finite float32 at `part`; without it `flag` must not say that it was there, for
 * the route alone would answer otherwise. */
static store_blob read_tuned(struct request *req, const json_t *body, const char *part,
                             const char *flag, size_t bytes, struct problems *problems)
{
    const char *text = NULL, *end = NULL;
    bool has = false;
    size_t len = 0;
    json_get_bool(body, "#", flag, JSON_OPTIONAL_FIELD, &has, problems);
    if (!json_get_string(body, "#", part, JSON_OPTIONAL_FIELD, 1, MAX_TUNED_TEXT, &text,
                         problems)) {
        if (has && json_object_get(body, part) == NULL) {
            problem_add(problems, "#", flag,
                        "this version computes with a tuned %s that is not in this JSON: export it "
                        "with ?tuned=true, or send false to import its route alone",
                        part);
        }
        return (store_blob){NULL, 0};
    }
    float *floats = request_alloc(req, bytes);
    if (floats == NULL ||
        sodium_base642bin((unsigned char *)floats, bytes, text, strlen(text), NULL, &len, &end,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        *end != '\0' || len != bytes) {
        problem_add(problems, "#", part, "not base64 of the %zu float32 numbers of this bank",
                    bytes / sizeof(float));
        return (store_blob){NULL, 0};
    }
    for (size_t i = 0; i < bytes / sizeof(float); i++) {
        if (!isfinite(floats[i])) {
            problem_add(problems, "#", part, "number %zu is not finite", i);
            return (store_blob){NULL, 0};
        }
    }
    return (store_blob){floats, bytes};
}

/* How answers are read, into the version. */
static void set_reading(struct task_call *call)
{
    const eng_label_scaling *scaling = &call->label_scaling;
    if (call->answer_length.sigma > 0) {
        call->version.answer_length =
            (store_blob){&call->answer_length, sizeof call->answer_length};
    }
    if (scaling->len > 0) {
        call->version.label_scaling =
            (store_blob){scaling->numbers, scaling->len * sizeof *scaling->numbers};
    }
}

static bool read_import(struct request *req, struct task_call *call)
{
    const json_t *body = request_json(req);
    const eng_bank *bank = registry_default_bank(call->registry);
    struct problems problems = {.count = 0};
    const float *route = NULL;
    size_t len = 0;
    call->make_current = true;
    call->version.method = "import";
    json_only(body, "#", import_known, &problems);
    size_t hidden = eng_model_get_info(registry_model(call->registry))->hidden;
    const eng_bank_info *info = eng_bank_get_info(bank);
    store_blob prompt =
        read_tuned(req, body, "prompt", "has_prompt",
                   info->layers * info->prompt_tokens * hidden * sizeof(float), &problems);
    store_blob head =
        read_tuned(req, body, "head", "has_head", (2 * hidden + 2) * sizeof(float), &problems);
    bool room = reading_read(req, body, "#", &call->answer_length, &call->label_scaling, &problems);
    check_fingerprint(body, "model_fingerprint",
                      eng_model_get_info(registry_model(call->registry))->fingerprint, "backbone",
                      &problems);
    check_fingerprint(body, "bank_fingerprint", eng_bank_get_info(bank)->fingerprint, "bank",
                      &problems);
    json_get_bool(body, "#", "current", JSON_OPTIONAL_FIELD, &call->make_current, &problems);
    json_get_string(body, "#", "method", JSON_OPTIONAL_FIELD, 1, 64, &call->version.method,
                    &problems);
    json_get_string(body, "#", "started_from", JSON_OPTIONAL_FIELD, 0, STORE_MAX_NAME,
                    &call->version.started_from, &problems);
    const json_t *given = json_object_get(body, "route");
    if ((given == NULL || json_is_null(given)) && json_object_get(body, "start") == NULL) {
        problem_add(&problems, "#", "route", "\"route\" is missing: give its %zu numbers",
                    eng_bank_get_info(bank)->route_len);
    }
    bool average = json_is_array(given) && json_array_size(given) == 0 &&
                   json_object_get(body, "start") == NULL; /* as such are exported */
    bool read = average || task_read_route(req, body, "#", bank, &route, &len, &problems);
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return false;
    }
    if (!room || !read || !task_call_set_route(call, route, len)) {
        reply_no_memory(req);
        return false;
    }
    set_reading(call);
    call->version.prompt = prompt;
    call->version.head = head;
    return true;
}

void ep_versions_import(struct request *req)
{
    struct task_call *call = task_call_new(req, true);
    if (call != NULL && read_import(req, call)) {
        request_store(req, import, false, imported, call);
    }
}

/* ---- the alias ------------------------------------------------------------------------------- */

/* A version that cannot be computed with here may not become current. For the store thread. */
static store_status check_base(const struct task_call *call, store_error *err)
{
    const char *model = eng_model_get_info(registry_model(call->registry))->fingerprint;
    const char *bank = eng_bank_get_info(registry_default_bank(call->registry))->fingerprint;
    if (strcmp(call->version.model_fingerprint, model) == 0 &&
        strcmp(call->version.bank_fingerprint, bank) == 0) {
        return STORE_OK;
    }
    *err = (store_error){.status = STORE_ESTATE};
    snprintf(err->text, sizeof err->text,
             "version %lld was learnt on another backbone or bank than this server runs",
             (long long)call->number);
    return STORE_ESTATE;
}

static store_status move_alias(store *s, void *arg, store_error *err)
{
    struct task_call *call = arg;
    store_status status = store_task_find(s, call->tenant, call->name, call->mem, &call->task, err);
    if (status == STORE_OK) {
        status = store_version_get(s, call->tenant, call->task.id, call->number, call->mem,
                                   &call->version, err);
    }
    if (status == STORE_OK) {
        status = check_base(call, err);
    }
    if (status == STORE_OK) {
        status =
            store_task_set_current(s, call->tenant, call->task.id, call->number, call->now, err);
    }
    if (status == STORE_OK) {
        status = store_task_find(s, call->tenant, call->name, call->mem, &call->task, err);
    }
    return status;
}

static void alias_moved(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct task_call *call = arg;
    if (status == STORE_ENOTFOUND && call->task.id != 0) {
        reply_problem(req, 404, "version_not_found", "#/version", "task \"%s\" has no version %lld",
                      call->name, (long long)call->number);
        return;
    }
    call->status = status;
    call->err = *err;
    if (!task_call_failed(req, call)) {
        task_call_publish(call);
        reply_json(req, 200, task_json(call->tenant_name, &call->task));
    }
}

void ep_task_current(struct request *req)
{
    static const char *const known[] = {"version", NULL};
    struct task_call *call = task_call_new(req, true);
    struct problems problems = {.count = 0};
    uint64_t number = 0;
    if (call == NULL) {
        return;
    }
    json_only(request_json(req), "#", known, &problems);
    json_get_u64(request_json(req), "#", "version", JSON_REQUIRED_FIELD, 1, INT32_MAX, &number,
                 &problems);
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return;
    }
    call->number = (int64_t)number;
    request_store(req, move_alias, false, alias_moved, call);
}
