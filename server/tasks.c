/* tasks.c: rows of the store become entries of the registry; JSON becomes specs and routes. */
#include "server/tasks.h"

#include "server/fault.h"
#include "server/log.h"
#include "server/reading.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- rows to the registry -------------------------------------------------------------------- */

static eng_status read_labels(const json_t *list, eng_task_spec *spec, eng_text *labels,
                              eng_error *err)
{
    size_t n = json_array_size(list);
    if (n > ENG_MAX_LABELS) {
        return fault(err, ENG_ELIMIT, "labels", "%zu labels, at most %d", n, ENG_MAX_LABELS);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *label = json_array_get(list, i);
        if (!json_is_string(label)) {
            return fault(err, ENG_EFORMAT, "labels", "label %zu is not a string", i);
        }
        labels[i] = (eng_text){json_string_value(label), json_string_length(label)};
    }
    spec->labels = labels;
    spec->n_labels = n;
    return ENG_OK;
}

eng_status task_spec_of(const store_task *task, eng_task_spec *spec, eng_text *labels,
                        json_t **keep, eng_error *err)
{
    memset(spec, 0, sizeof *spec);
    *keep = NULL;
    if (!eng_task_type_parse(task->type, &spec->type)) {
        return fault(err, ENG_EFORMAT, "type", "no such type: \"%.32s\"", task->type);
    }
    spec->may_have_no_answer = (task->flags & STORE_TASK_MAY_HAVE_NO_ANSWER) != 0;
    if (task->text_template != NULL) {
        spec->text_template = (eng_text){task->text_template, strlen(task->text_template)};
    }
    if (task->labels == NULL) {
        return ENG_OK;
    }
    json_t *list = json_stored(task->labels);
    if (list == NULL) {
        return fault(err, ENG_EFORMAT, "labels", "the stored labels are not JSON");
    }
    eng_status status = read_labels(list, spec, labels, err);
    if (status != ENG_OK) {
        json_decref(list);
        return status;
    }
    *keep = list;
    return ENG_OK;
}

/* Stored length of answers, likewise unaligned. sigma 0: none. */
static eng_answer_length stored_length(const store_version *version)
{
    eng_answer_length length = {0, 0};
    if (version->answer_length.len == sizeof length) {
        memcpy(&length, version->answer_length.data, sizeof length);
    }
    return isfinite(length.mu) && isfinite(length.sigma) && length.sigma > 0
               ? length
               : (eng_answer_length){0, 0};
}

/* Floats of a stored blob, which may lie unaligned; malloc'ed, free in any case. NULL: out of memory. */
static float *copy_floats(store_blob blob, size_t *len)
{
    *len = blob.len / sizeof(float);
    float *floats = malloc(blob.len + sizeof(float));
    if (floats != NULL && *len > 0) {
        memcpy(floats, blob.data, *len * sizeof(float));
    }
    return floats;
}

/* The stored scaling of labels in *numbers (free), which may be NULL. len 0: none, or not of so many. */
static eng_label_scaling stored_scaling(const store_version *version, size_t labels,
                                        float **numbers)
{
    size_t len = 0;
    *numbers = version->label_scaling.len > 0 ? copy_floats(version->label_scaling, &len) : NULL;
    bool sound = *numbers != NULL && eng_label_scaling_fits(len, labels);
    for (size_t i = 0; sound && i < len; i++) {
        sound = isfinite((*numbers)[i]);
    }
    return sound ? (eng_label_scaling){*numbers, len} : (eng_label_scaling){NULL, 0};
}

/* Calls `use` with the publication that the rows and the spec read from them describe. */
static eng_status with_spec(const store_task *task, const store_version *version,
                            const eng_task_spec *spec,
                            eng_status (*use)(struct registry *registry, const reg_publication *pub,
                                              void *arg, eng_error *err),
                            struct registry *registry, void *arg, eng_error *err)
{
    size_t len = 0;
    float *numbers = NULL, *route = copy_floats(version->route, &len);
    const reg_publication pub = {.tenant = task->tenant,
                                 .task = task->id,
                                 .name = task->name,
                                 .spec = spec,
                                 .number = version->number,
                                 .route = route,
                                 .route_len = len,
                                 .answer_length = stored_length(version),
                                 .label_scaling = stored_scaling(version, spec->n_labels, &numbers),
                                 .has_prompt = version->has_prompt,
                                 .has_head = version->has_head,
                                 .model_fingerprint = version->model_fingerprint,
                                 .bank_fingerprint = version->bank_fingerprint};
    bool read = route != NULL && (numbers != NULL || version->label_scaling.len == 0);
    eng_status status = read ? use(registry, &pub, arg, err) : fault_nomem(err, "route");
    free(route);
    free(numbers);
    return status;
}

/* The same with the spec read from the task. */
static eng_status with_publication(const store_task *task, const store_version *version,
                                   eng_status (*use)(struct registry *registry,
                                                     const reg_publication *pub, void *arg,
                                                     eng_error *err),
                                   struct registry *registry, void *arg, eng_error *err)
{
    eng_text labels[ENG_MAX_LABELS];
    eng_task_spec spec;
    json_t *keep = NULL;
    eng_status status = task_spec_of(task, &spec, labels, &keep, err);
    if (status == ENG_OK) {
        status = with_spec(task, version, &spec, use, registry, arg, err);
        json_decref(keep);
    }
    return status;
}

static eng_status publish(struct registry *registry, const reg_publication *pub, void *arg,
                          eng_error *err)
{
    (void)arg;
    return registry_publish(registry, pub, err);
}

static eng_status pin(struct registry *registry, const reg_publication *pub, void *arg,
                      eng_error *err)
{
    return registry_pin(registry, pub, arg, err);
}

eng_status tasks_publish(struct registry *registry, const store_task *task,
                         const store_version *version, eng_error *err)
{
    return with_publication(task, version, publish, registry, NULL, err);
}

eng_status tasks_pin(struct registry *registry, const store_task *task,
                     const store_version *version, const struct version **out, eng_error *err)
{
    return with_publication(task, version, pin, registry, (void *)out, err);
}

/* ---- all of them, at start --------------------------------------------------------------------- */

/* Tasks of many tenants have few sets of labels: the text of those read last, beside what it says. */
#define KEPT_LABELS ((size_t)256)

struct kept_labels {
    char *text; /* NULL: free */
    json_t *list;
};

struct loading {
    struct registry *registry;
    size_t loaded, refused;
    bool nomem;
    struct kept_labels kept[KEPT_LABELS];
};

/* The place of a text: kept already, or emptied for it. */
static struct kept_labels *labels_place(struct loading *loading, const char *text)
{
    uint32_t hash = 2166136261u;
    for (const char *at = text; *at != '\0'; at++) {
        hash = (hash ^ (unsigned char)*at) * 16777619u;
    }
    struct kept_labels *kept = &loading->kept[hash % KEPT_LABELS];
    if (kept->text != NULL && strcmp(kept->text, text) != 0) {
        free(kept->text);
        json_decref(kept->list);
        *kept = (struct kept_labels){0};
    }
    return kept;
}

/* task_spec_of, but labels that were read already are not read again. What `spec` points at stays until
 * the next call. */
static eng_status loading_spec(struct loading *loading, const store_task *task, eng_task_spec *spec,
                               eng_text *labels, eng_error *err)
{
    if (task->labels == NULL) {
        json_t *none = NULL;
        return task_spec_of(task, spec, labels, &none, err);
    }
    struct kept_labels *kept = labels_place(loading, task->labels);
    if (kept->text != NULL) {
        store_task rest = *task;
        json_t *none = NULL;
        rest.labels = NULL;
        eng_status status = task_spec_of(&rest, spec, labels, &none, err);
        return status == ENG_OK ? read_labels(kept->list, spec, labels, err) : status;
    }
    json_t *list = NULL;
    eng_status status = task_spec_of(task, spec, labels, &list, err);
    if (status != ENG_OK) {
        return status;
    }
    *kept = (struct kept_labels){strdup(task->labels), list};
    if (kept->text == NULL) {
        json_decref(list);
        *kept = (struct kept_labels){0};
        return fault_nomem(err, "labels");
    }
    return ENG_OK;
}

static bool load_one(void *arg, const store_task *task, const store_version *current)
{
    struct loading *loading = arg;
    eng_text labels[ENG_MAX_LABELS];
    eng_task_spec spec;
    eng_error err;
    if (current == NULL) {
        return true;
    }
    eng_status status = loading_spec(loading, task, &spec, labels, &err);
    if (status == ENG_OK) {
        status = with_spec(task, current, &spec, publish, loading->registry, NULL, &err);
    }
    loading->nomem = status == ENG_ENOMEM;
    if (status == ENG_OK) {
        loading->loaded++;
    } else if (loading->refused++ < 10) {
        log_event(LOG_WARN, "task_refused", "task %lld version %lld: %s: %s", (long long)task->id,
                  (long long)current->number, err.field, err.text);
    }
    return !loading->nomem;
}

store_status tasks_load(store *s, struct registry *registry, size_t *loaded, size_t *refused,
                        store_error *err)
{
    struct loading loading = {.registry = registry};
    int64_t n = 0;
    store_status status = store_tasks_count(s, &n, err);
    loading.nomem = status == STORE_OK && n > 0 && !registry_reserve(registry, (size_t)n);
    if (status == STORE_OK && !loading.nomem) {
        status = store_tasks_load(s, load_one, &loading, err);
    }
    for (size_t i = 0; i < KEPT_LABELS; i++) {
        free(loading.kept[i].text);
        json_decref(loading.kept[i].list);
    }
    *loaded = loading.loaded;
    *refused = loading.refused;
    if (status == STORE_OK && loading.nomem) {
        *err = (store_error){.status = STORE_ENOMEM, .text = "out of memory for the tasks"};
        status = STORE_ENOMEM;
    }
    return status;
}

/* ---- JSON to specs and routes ---------------------------------------------------------------- */

static bool read_type(const json_t *object, const char *base, eng_task_type *type,
                      struct problems *problems)
{
    static const char *const names[] = {"classification", "pair", "choice", "extractive", NULL};
    static const eng_task_type types[] = {ENG_CLASSIFICATION, ENG_PAIR, ENG_CHOICE, ENG_EXTRACTIVE};
    size_t i = 0;
    if (!json_get_choice(object, base, "type", JSON_REQUIRED_FIELD, names, &i, problems)) {
        return false;
    }
    *type = types[i];
    return true;
}

static bool read_label_list(struct request *req, const json_t *list, const char *base,
                            eng_task_spec *spec, struct problems *problems)
{
    size_t n = json_array_size(list);
    eng_text *labels = request_alloc(req, (n + 1) * sizeof *labels);
    if (labels == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *label = json_array_get(list, i);
        char key[24], place[64];
        snprintf(key, sizeof key, "%zu", i);
        snprintf(place, sizeof place, "%s/labels", base);
        if (!json_is_string(label)) {
            problem_add(problems, place, key, "a label must be a string, found %s",
                        json_type_word(label));
        } else if (json_string_length(label) == 0) {
            problem_add(problems, place, key, "a label may not be empty");
        } else {
            labels[i] = (eng_text){json_string_value(label), json_string_length(label)};
        }
    }
    spec->labels = labels;
    spec->n_labels = n;
    return true;
}

bool task_read_spec(struct request *req, const json_t *object, const char *base,
                    eng_task_spec *spec, struct problems *problems)
{
    size_t before = problems->count;
    json_t *labels = NULL;
    const char *template_text = NULL;
    memset(spec, 0, sizeof *spec);
    if (!read_type(object, base, &spec->type, problems)) {
        return false;
    }
    bool fixed = spec->type == ENG_CLASSIFICATION || spec->type == ENG_PAIR;
    if (fixed) {
        json_get_array(object, base, "labels", JSON_REQUIRED_FIELD, 2, ENG_MAX_LABELS, &labels,
                       problems);
    } else if (json_object_get(object, "labels") != NULL) {
        problem_add(problems, base, "labels", "a task of type %s has no labels of its own: %s",
                    eng_task_type_name(spec->type),
                    spec->type == ENG_CHOICE ? "each input brings \"options\""
                                             : "its answers are spans of the context");
    }
    if (json_get_string(object, base, "template", JSON_OPTIONAL_FIELD, 1, ENG_MAX_TEMPLATE_BYTES,
                        &template_text, problems)) {
        spec->text_template = (eng_text){template_text, strlen(template_text)};
    }
    json_get_bool(object, base, "may_have_no_answer", JSON_OPTIONAL_FIELD,
                  &spec->may_have_no_answer, problems);
    if (labels != NULL && !read_label_list(req, labels, base, spec, problems)) {
        return false;
    }
    return problems->count == before;
}

#define ROUTE_BOUND 1000.0 /* sigmoid is flat long before */

float *task_read_numbers(struct request *req, const json_t *list, const char *base, const char *key,
                         double bound, struct problems *problems)
{
    size_t before = problems->count, n = json_array_size(list);
    float *numbers = request_alloc(req, n * sizeof *numbers);
    for (size_t i = 0; numbers != NULL && i < n; i++) {
        const json_t *number = json_array_get(list, i);
        double value = json_number_value(number);
        char at[24], place[64];
        snprintf(at, sizeof at, "%zu", i);
        snprintf(place, sizeof place, "%s/%s", base, key);
        if (!json_is_number(number)) {
            problem_add(problems, place, at, "must be a number, found %s", json_type_word(number));
        } else if (!isfinite(value) || fabs(value) > bound) {
            problem_add(problems, place, at, "must lie between -%g and %g, found %g", bound, bound,
                        value);
        } else {
            numbers[i] = (float)value;
        }
    }
    return problems->count == before ? numbers : NULL;
}

static bool read_numbers(struct request *req, const json_t *list, const char *base, size_t want,
                         const float **route, size_t *len, struct problems *problems)
{
    *len = json_array_size(list);
    if (*len != want) {
        problem_add(problems, base, "route", "a route of this bank has %zu numbers, found %zu",
                    want, *len);
        return false;
    }
    *route = task_read_numbers(req, list, base, "route", ROUTE_BOUND, problems);
    return *route != NULL;
}

static bool read_start(struct request *req, const char *start, const char *base,
                       const eng_bank *bank, const float **route, size_t *len,
                       struct problems *problems)
{
    const eng_bank_info *info = eng_bank_get_info(bank);
    if (strcmp(start, "average") == 0) {
        return true;
    }
    for (size_t row = 0; row < info->rows; row++) {
        if (strcmp(eng_bank_row_name(bank, row), start) == 0) {
            float *numbers = request_alloc(req, info->route_len * sizeof *numbers);
            if (numbers == NULL) {
                return false;
            }
            eng_bank_row(bank, row, numbers);
            *route = numbers;
            *len = info->route_len;
            return true;
        }
    }
    problem_add(problems, base, "start",
                "\"average\" or the name of one of the %zu router rows of bank \"%s\" (such as "
                "\"%s\"); there is no such row",
                info->rows, info->name, info->rows > 0 ? eng_bank_row_name(bank, 0) : "");
    return false;
}

bool task_read_route(struct request *req, const json_t *object, const char *base,
                     const eng_bank *bank, const float **route, size_t *len,
                     struct problems *problems)
{
    const json_t *numbers = json_object_get(object, "route");
    const char *start = NULL;
    size_t before = problems->count;
    *route = NULL;
    *len = 0;
    json_get_string(object, base, "start", JSON_OPTIONAL_FIELD, 1, STORE_MAX_NAME, &start,
                    problems);
    if (problems->count != before) {
        return false;
    }
    if (numbers == NULL || json_is_null(numbers)) {
        return start == NULL || read_start(req, start, base, bank, route, len, problems);
    }
    if (start != NULL) {
        problem_add(problems, base, "start", "give \"route\" or \"start\", not both");
        return false;
    }
    if (!json_is_array(numbers)) {
        problem_add(problems, base, "route", "\"route\" must be an array of %zu numbers, found %s",
                    eng_bank_get_info(bank)->route_len, json_type_word(numbers));
        return false;
    }
    return read_numbers(req, numbers, base, eng_bank_get_info(bank)->route_len, route, len,
                        problems);
}

/* ---- rows to JSON ---------------------------------------------------------------------------- */

/* The stored JSON text as a value; null when absent or damaged. */
static json_t *json_or_null(const char *text)
{
    json_t *value = json_stored(text);
    return value != NULL ? value : json_null();
}

static json_t *description_of(const store_task *task)
{
    json_t *metadata = json_or_null(task->metadata);
    json_t *description = json_incref(json_object_get(metadata, "description"));
    json_decref(metadata);
    return description != NULL ? description : json_null();
}

json_t *task_json(const char *tenant, const store_task *task)
{
    char id[REG_MAX_NAME * 2 + 8];
    snprintf(id, sizeof id, "%s/%s", tenant, task->name);
    json_t *body = json_object();
    bool ok =
        json_put(body, "id", json_string(id)) && json_put(body, "object", json_string("task")) &&
        json_put(body, "name", json_string(task->name)) &&
        json_put(body, "type", json_string(task->type)) &&
        json_put(body, "labels", json_or_null(task->labels)) &&
        json_put(body, "template", json_text_or_null(task->text_template)) &&
        json_put(body, "description", description_of(task)) &&
        json_put(body, "current", task->current > 0 ? json_integer(task->current) : json_null()) &&
        json_put(body, "created_at", json_seconds(task->created)) &&
        json_put(body, "updated_at", json_seconds(task->updated));
    if (ok && task->deleted > 0) {
        ok = json_put(body, "deleted_at", json_seconds(task->deleted));
    }
    if (ok && strcmp(task->type, "extractive") == 0) {
        ok = json_put(body, "may_have_no_answer",
                      json_boolean((task->flags & STORE_TASK_MAY_HAVE_NO_ANSWER) != 0));
    }
    if (!ok) {
        json_decref(body);
        return NULL;
    }
    return body;
}

static json_t *route_json(const store_version *version)
{
    size_t len = 0;
    float *route = copy_floats(version->route, &len);
    json_t *list = route != NULL ? json_floats(route, len) : NULL;
    free(route);
    return list;
}

static json_t *stored_scaling_json(const store_task *task, const store_version *version)
{
    json_t *list = json_stored(task->labels);
    size_t labels = json_array_size(list);
    float *numbers = NULL;
    eng_label_scaling scaling = stored_scaling(version, labels, &numbers);
    json_t *shown = label_scaling_json(&scaling, labels);
    json_decref(list);
    free(numbers);
    return shown;
}

json_t *version_json(const char *tenant, const char *base, const store_task *task,
                     const store_version *version)
{
    char model[512] = "";
    if (base != NULL) {
        ft_format(model, sizeof model, base, tenant, task->name, task->id, version->number);
    }
    json_t *body = json_object();
    bool ok = json_put(body, "object", json_string("task.version")) &&
              json_put(body, "task", json_string(task->name)) &&
              json_put(body, "version", json_integer(version->number)) &&
              json_put(body, "current", json_boolean(version->number == task->current)) &&
              json_put(body, "model", json_text_or_null(base != NULL ? model : NULL)) &&
              json_put(body, "route", route_json(version)) &&
              json_put(body, "has_prompt", json_boolean(version->has_prompt)) &&
              json_put(body, "has_head", json_boolean(version->has_head)) &&
              json_put(body, "method", json_text_or_null(version->method)) &&
              json_put(body, "started_from", json_text_or_null(version->started_from)) &&
              json_put(body, "bank", json_text_or_null(version->bank)) &&
              json_put(body, "model_fingerprint", json_text_or_null(version->model_fingerprint)) &&
              json_put(body, "bank_fingerprint", json_text_or_null(version->bank_fingerprint)) &&
              json_put(body, "metrics", json_or_null(version->metrics)) &&
              json_put(body, "job", json_text_or_null(version->job)) &&
              json_put(body, "created_at", json_seconds(version->created));
    if (ok && strcmp(task->type, "extractive") == 0) {
        eng_answer_length length = stored_length(version);
        ok = json_put(body, "answer_length", answer_length_json(&length));
    } else if (ok && task->labels != NULL) {
        ok = json_put(body, "label_scaling", stored_scaling_json(task, version));
    }
    if (!ok) {
        json_decref(body);
        return NULL;
    }
    return body;
}
