/* jobresolve.c: from a request to the spec that is stored with the job, and from there to a plan.
 *
 * What a job learns is settled once, at creation: the type and labels of an existing task bind; else
 * those that were asked for; else those of the rows. So a job that waits, or is repeated after a
 * crash, does the same whatever happened to other objects meanwhile.
 */
#include "server/jobestimate.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- failing ------------------------------------------------------------------------------------- */

static bool refuse(struct job_resolving *r, int status, const char *code, const char *param,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Always false. */
static bool refuse(struct job_resolving *r, int status, const char *code, const char *param,
                   const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->text, sizeof r->text, format, args);
    va_end(args);
    r->status = status;
    r->code = code;
    r->param = param;
    return false;
}

static bool refuse_memory(struct job_resolving *r)
{
    return refuse(r, 503, "out_of_memory", NULL, "out of memory; try again later");
}

static bool refuse_store(struct job_resolving *r, store_status status, const store_error *err,
                         const char *param)
{
    if (status == STORE_ENOTFOUND) {
        return refuse(r, 404, "not_found", param, "%s", err->text);
    }
    return refuse(r, 503, "store_failed", param, "the database cannot be read now");
}

/* ---- files ----------------------------------------------------------------------------------------- */

struct rows_seen {
    const char *format, *type;
    const json_t *labels;
    json_t *details; /* owns the above */
};

static bool look_at_file(struct job_resolving *r, store *reader, const char *id, const char *param,
                         struct rows_seen *out)
{
    store_file file;
    store_error err = {0};
    store_status status = store_file_get(reader, r->tenant, id, r->mem, &file, &err);
    if (status != STORE_OK) {
        return refuse_store(r, status, &err, param);
    }
    out->details = json_stored(file.details);
    out->format = json_string_value(json_object_get(out->details, "format"));
    out->type = json_string_value(json_object_get(out->details, "type"));
    out->labels = json_object_get(out->details, "labels");
    if (strcmp(file.purpose, "fine-tune") != 0 || out->format == NULL || out->type == NULL) {
        return refuse(r, 422, "invalid_file", param, "%s holds no rows to learn from", id);
    }
    return true;
}

/* ---- settling what is learnt -------------------------------------------------------------------------- */

/* What the task will be; texts borrowed from the request, the task's row or the file's details. */
struct form_wanted {
    const char *type, *text_template;
    const json_t *labels;
    json_t *task_labels; /* of an existing task; owned */
    bool may_have_no_answer;
    bool exists;
};

static bool read_existing(struct job_resolving *r, store *reader, struct form_wanted *form)
{
    store_task task;
    store_error err = {0};
    if (r->task_name == NULL) {
        return true;
    }
    store_status status = store_task_find(reader, r->tenant, r->task_name, r->mem, &task, &err);
    if (status == STORE_ENOTFOUND) {
        return true; /* it will be made */
    }
    if (status != STORE_OK) {
        return refuse_store(r, status, &err, "mp2.task");
    }
    const struct job_request *want = r->request;
    form->task_labels = json_stored(task.labels);
    if (want->type != NULL && strcmp(want->type, task.type) != 0) {
        return refuse(r, 422, "wrong_type", "mp2.type", "task \"%s\" is of type %s, not %s",
                      task.name, task.type, want->type);
    }
    if (want->labels != NULL && !json_equal(want->labels, form->task_labels)) {
        return refuse(r, 422, "wrong_labels", "mp2.labels",
                      "task \"%s\" has other labels; leave them out, or name a new task",
                      task.name);
    }
    const char *own = task.text_template;
    if (want->text_template != NULL && (own == NULL || strcmp(want->text_template, own) != 0)) {
        return refuse(r, 422, "wrong_template", "mp2.template",
                      "task \"%s\" has another template; leave it out, or name a new task",
                      task.name);
    }
    r->task = task.id;
    form->exists = true;
    form->type = task.type;
    form->text_template = own;
    form->labels = form->task_labels;
    form->may_have_no_answer = (task.flags & STORE_TASK_MAY_HAVE_NO_ANSWER) != 0;
    return true;
}

static bool has_label(const json_t *labels, const char *word)
{
    for (size_t i = 0; i < json_array_size(labels); i++) {
        const char *label = json_string_value(json_array_get(labels, i));
        if (label != NULL && strcmp(label, word) == 0) {
            return true;
        }
    }
    return false;
}

/* Every label of the rows must be one of the task's. */
static bool check_labels(struct job_resolving *r, const struct form_wanted *form,
                         const struct rows_seen *rows, const char *param)
{
    for (size_t i = 0; i < json_array_size(rows->labels); i++) {
        const char *word = json_string_value(json_array_get(rows->labels, i));
        if (word != NULL && !has_label(form->labels, word)) {
            return refuse(r, 422, "unknown_label", param,
                          "the rows use the label \"%.64s\", which is not among the task's %zu",
                          word, json_array_size(form->labels));
        }
    }
    return true;
}

static bool settle(struct job_resolving *r, struct form_wanted *form,
                   const struct rows_seen *training, const struct rows_seen *validation)
{
    const struct job_request *want = r->request;
    if (!form->exists) {
        form->type = want->type != NULL ? want->type : training->type;
        form->text_template = want->text_template;
        form->may_have_no_answer = want->may_have_no_answer;
        form->labels = want->labels != NULL ? want->labels : training->labels;
    }
    if (strcmp(form->type, training->type) != 0) {
        return refuse(r, 422, "wrong_type", "training_file", "the rows are of type %s, not %s",
                      training->type, form->type);
    }
    if (validation->type != NULL && strcmp(form->type, validation->type) != 0) {
        return refuse(r, 422, "wrong_type", "validation_file", "the rows are of type %s, not %s",
                      validation->type, form->type);
    }
    bool fixed = strcmp(form->type, "classification") == 0 || strcmp(form->type, "pair") == 0;
    if (!fixed) {
        form->labels = NULL;
        return want->labels == NULL ||
               refuse(r, 422, "unexpected_labels", "mp2.labels",
                      "a task of type %s has no labels of its own", form->type);
    }
    if (json_array_size(form->labels) < 2) {
        return refuse(r, 422, "too_few_labels", "training_file",
                      "the rows have %zu label; a task needs at least 2 (give mp2.labels)",
                      json_array_size(form->labels));
    }
    return check_labels(r, form, training, "training_file") &&
           check_labels(r, form, validation, "validation_file");
}

/* Would the engine take it? */
static bool compile(struct job_resolving *r, const struct form_wanted *form)
{
    eng_text *labels = calloc(ENG_MAX_LABELS, sizeof *labels);
    eng_task_spec spec = {.may_have_no_answer = form->may_have_no_answer};
    eng_task *task = NULL;
    eng_error err = {0};
    if (labels == NULL) {
        return refuse_memory(r);
    }
    for (size_t i = 0; i < json_array_size(form->labels) && i < ENG_MAX_LABELS; i++) {
        const json_t *label = json_array_get(form->labels, i);
        labels[spec.n_labels++] = (eng_text){json_string_value(label), json_string_length(label)};
    }
    spec.labels = labels;
    if (form->text_template != NULL) {
        spec.text_template = (eng_text){form->text_template, strlen(form->text_template)};
    }
    bool ok = eng_task_type_parse(form->type, &spec.type) &&
              eng_task_new(r->server->model, r->server->bank, &spec, &task, &err) == ENG_OK;
    eng_task_free(task);
    free(labels);
    return ok || (err.status == ENG_ENOMEM
                      ? refuse_memory(r)
                      : refuse(r, 422, "invalid_task", "mp2", "%s: %s", err.field, err.text));
}

/* ---- writing the spec ------------------------------------------------------------------------------------ */

static bool put_number(json_t *object, const char *key, uint64_t value)
{
    return value == 0 || json_put(object, key, json_integer((json_int_t)value));
}

static bool put_real(json_t *object, const char *key, double value)
{
    return value == 0 || json_put(object, key, json_real(value));
}

static bool put_text(json_t *object, const char *key, const char *value)
{
    return value == NULL || json_put(object, key, json_string(value));
}

/* Only what was given or settled is there; the engine's defaults belong to the bank. */
static bool write_spec(struct job_resolving *r, const struct form_wanted *form,
                       const struct rows_seen *training, const struct rows_seen *validation)
{
    const struct job_request *want = r->request;
    json_t *spec = json_object();
    size_t len = 0;
    bool ok = put_text(spec, "bank", eng_bank_get_info(r->server->bank)->name) &&
              put_text(spec, "type", form->type) &&
              put_text(spec, "template", form->text_template) &&
              (form->labels == NULL || json_put(spec, "labels", json_deep_copy(form->labels))) &&
              json_put(spec, "may_have_no_answer", json_boolean(form->may_have_no_answer)) &&
              json_put(spec, "publish", json_boolean(!want->hold)) &&
              json_put(spec, "label_scaling", json_boolean(!want->no_label_scaling)) &&
              put_text(spec, "training_format", training->format) &&
              put_text(spec, "validation_format", validation->format) &&
              put_text(spec, "suffix", want->suffix) &&
              put_text(spec, "method", want->method != NULL ? want->method : "route") &&
              put_text(spec, "init", want->init) && put_number(spec, "epochs", want->epochs) &&
              put_number(spec, "batch", want->batch) &&
              put_real(spec, "lr_multiplier", want->lr_multiplier) &&
              put_number(spec, "steps", want->steps) && put_real(spec, "seconds", want->seconds) &&
              put_number(spec, "evaluations", want->evaluations) &&
              put_number(spec, "eval_every", want->eval_every) &&
              put_number(spec, "k_shot", want->k_shot) &&
              put_number(spec, "text_limit", want->text_limit) && put_real(spec, "lr", want->lr) &&
              put_real(spec, "weight_decay", want->weight_decay);
    r->spec = ok ? json_text(spec, &len) : NULL;
    json_decref(spec);
    return r->spec != NULL || refuse_memory(r);
}

/* Reads the rows as the job will. */
static bool estimate(struct job_resolving *r, store *reader)
{
    const struct job_request *want = r->request;
    struct job_plan plan;
    struct job_rows rows = {0};
    struct job_estimate cost;
    eng_error err = {0};
    char why[128];
    size_t len = 0;
    if (!job_plan_read(&plan, r->spec, want->seed, r->server->bank, why, sizeof why)) {
        return refuse(r, 422, "invalid_task", "mp2", "%s", why);
    }
    bool ok = job_rows_read(&rows, &plan, reader, r->tenant, want->training_file,
                            want->validation_file, r->mem);
    if (!ok) {
        refuse(r, 422, rows.code, rows.param, "%s", rows.text);
    } else if (!job_estimate(r->server, &plan, &rows, &cost, &err)) {
        ok = refuse(r, 422, "invalid_training", err.field[0] != '\0' ? "mp2" : NULL, "%s%s%s",
                    err.field, err.field[0] != '\0' ? ": " : "", err.text);
    } else {
        json_t *view = job_estimate_json(&plan, &cost);
        r->estimate = view != NULL ? json_text(view, &len) : NULL;
        json_decref(view);
        ok = r->estimate != NULL || refuse_memory(r);
    }
    job_rows_fini(&rows);
    job_plan_fini(&plan);
    return ok;
}

static bool check_model(struct job_resolving *r)
{
    const char *model = eng_model_get_info(r->server->model)->name;
    const char *bank = eng_bank_get_info(r->server->bank)->name;
    if (strcmp(r->request->model, model) != 0 && strcmp(r->request->model, bank) != 0) {
        return refuse(r, 404, "model_not_found", "model",
                      "there is no model \"%.64s\" to learn on; this server has \"%s\"",
                      r->request->model, model);
    }
    return true;
}

void jobspec_resolve(struct job_resolving *r, store *reader)
{
    struct rows_seen training = {0}, validation = {0};
    struct form_wanted form = {0};
    const struct job_request *want = r->request;
    r->status = 0;
    if (reader == NULL) {
        refuse(r, 503, "store_failed", NULL, "the database cannot be read now");
        return;
    }
    bool ok = check_model(r) &&
              look_at_file(r, reader, want->training_file, "training_file", &training) &&
              (want->validation_file == NULL ||
               look_at_file(r, reader, want->validation_file, "validation_file", &validation)) &&
              read_existing(r, reader, &form) && settle(r, &form, &training, &validation) &&
              compile(r, &form) && write_spec(r, &form, &training, &validation) &&
              estimate(r, reader);
    (void)ok; /* r->status says it */
    json_decref(training.details);
    json_decref(validation.details);
    json_decref(form.task_labels);
}

/* ---- the plan ---------------------------------------------------------------------------------------------- */

static eng_rows_format format_of(const json_t *spec, const char *key)
{
    const char *word = json_string_value(json_object_get(spec, key));
    return word != NULL && strcmp(word, "csv") == 0 ? ENG_ROWS_CSV : ENG_ROWS_JSONL;
}

static size_t size_of(const json_t *spec, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(spec, key));
    return value > 0 ? (size_t)value : 0;
}

static double real_of(const json_t *spec, const char *key)
{
    return json_number_value(json_object_get(spec, key));
}

static bool read_labels(struct job_plan *plan)
{
    const json_t *labels = json_object_get(plan->spec, "labels");
    size_t n = json_array_size(labels);
    for (size_t i = 0; i < n && i < ENG_MAX_LABELS; i++) {
        const json_t *label = json_array_get(labels, i);
        if (!json_is_string(label)) {
            return false;
        }
        plan->labels[i] = (eng_text){json_string_value(label), json_string_length(label)};
    }
    plan->task.labels = plan->labels;
    plan->task.n_labels = n;
    return n <= ENG_MAX_LABELS;
}

static void read_config(struct job_plan *plan, uint64_t seed, const eng_bank *bank)
{
    const json_t *spec = plan->spec;
    const char *method = json_string_value(json_object_get(spec, "method"));
    const char *init = json_string_value(json_object_get(spec, "init"));
    double lr = real_of(spec, "lr"), multiplier = real_of(spec, "lr_multiplier");
    eng_adapt_config *config = &plan->config;
    eng_adapt_defaults(bank, config);
    config->method = method != NULL ? method : config->method;
    if (init != NULL) {
        config->init = strcmp(init, "average") == 0  ? ENG_INIT_AVERAGE
                       : strcmp(init, "random") == 0 ? ENG_INIT_RANDOM
                                                     : ENG_INIT_RETRIEVE;
    }
    config->lr = lr > 0 ? lr : multiplier > 0 ? config->lr * multiplier : config->lr;
    config->weight_decay = real_of(spec, "weight_decay");
    config->steps = size_of(spec, "steps") > 0 ? size_of(spec, "steps") : config->steps;
    config->batch = size_of(spec, "batch") > 0 ? size_of(spec, "batch") : config->batch;
    config->eval_every =
        size_of(spec, "eval_every") > 0 ? size_of(spec, "eval_every") : config->eval_every;
    config->seconds = real_of(spec, "seconds");
    config->evaluations = size_of(spec, "evaluations");
    config->text_limit = size_of(spec, "text_limit");
    config->no_label_scaling = json_is_false(json_object_get(spec, "label_scaling"));
    config->seed = seed;
    plan->epochs = size_of(spec, "steps") > 0 ? 0 : size_of(spec, "epochs");
    plan->k_shot = size_of(spec, "k_shot");
}

bool job_plan_read(struct job_plan *plan, const char *spec, uint64_t seed, const eng_bank *bank,
                   char *why, size_t size)
{
    memset(plan, 0, sizeof *plan);
    plan->spec = json_stored(spec);
    const char *type = json_string_value(json_object_get(plan->spec, "type"));
    const char *text_template = json_string_value(json_object_get(plan->spec, "template"));
    if (type == NULL || !eng_task_type_parse(type, &plan->type) || !read_labels(plan)) {
        snprintf(why, size, "the stored settings of the job are damaged");
        job_plan_fini(plan);
        return false;
    }
    plan->task.type = plan->type;
    plan->hold = json_is_false(json_object_get(plan->spec, "publish"));
    plan->task.may_have_no_answer = json_is_true(json_object_get(plan->spec, "may_have_no_answer"));
    if (text_template != NULL) {
        plan->task.text_template = (eng_text){text_template, strlen(text_template)};
    }
    plan->training_format = format_of(plan->spec, "training_format");
    plan->validation_format = format_of(plan->spec, "validation_format");
    read_config(plan, seed, bank);
    return true;
}

void job_plan_fini(struct job_plan *plan)
{
    json_decref(plan->spec);
    plan->spec = NULL;
}
