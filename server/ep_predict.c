/* ep_predict.c: POST /v1/predict.
 *
 * The task is one's own by name, or comes with the request, as an object in "task" or spread among the
 * request's own members. Everything wrong with those is told at once;
 * inputs are read on the encoding thread (ask_inputs.c) and their faults are told at
 * once as well.
 */
#include "server/ask.h"
#include "server/endpoints.h"
#include "server/reading.h"
#include "server/tasks.h"

#include <stdlib.h>
#include <string.h>

enum want { WANT_SCORES = 1, WANT_TIMING = 2, WANT_MODULES = 4 };

/* What the request asks beside its task; in the arena until an ask takes it over. */
struct asked {
    const json_t *inputs;
    size_t top_k;
    unsigned want;
    const char *inline_at; /* pointer of its own task: "#" or "#/task"; NULL: it names one */
};

/* ---- writing the answer ---------------------------------------------------------------------- */

static void write_scores(const struct ask *ask, size_t i, const size_t *order, size_t n,
                         struct text_out *out)
{
    const float *probabilities = ask->prediction.answers[i].probabilities;
    size_t shown = ask->top_k > 0 && ask->top_k < n ? ask->top_k : n;
    text_puts(out, ",\"scores\":[");
    for (size_t k = 0; k < shown; k++) {
        text_puts(out, k > 0 ? ",{" : "{");
        ask_write_scored(out, "label", ask_option(ask, i, order[k]),
                         (double)probabilities[order[k]]);
        text_puts(out, "}");
    }
    text_puts(out, "]");
}

static void write_options(const struct ask *ask, size_t i, struct text_out *out)
{
    size_t order[ENG_MAX_LABELS];
    size_t n = ask_order(ask, i, order);
    if (n == 0) {
        return;
    }
    ask_write_scored(out, "label", ask_option(ask, i, order[0]),
                     (double)ask->prediction.answers[i].probabilities[order[0]]);
    if ((ask->want & WANT_SCORES) != 0) {
        write_scores(ask, i, order, n, out);
    }
}

static void write_spans(const struct ask *ask, size_t i, struct text_out *out)
{
    ask_write_span(ask, i, 0, out);
    if ((ask->want & WANT_SCORES) == 0) {
        return;
    }
    text_puts(out, ",\"scores\":[");
    for (size_t k = 0; k < ask->prediction.answers[i].n_spans; k++) {
        text_puts(out, k > 0 ? ",{" : "{");
        ask_write_span(ask, i, k, out);
        text_puts(out, "}");
    }
    text_puts(out, "]");
}

static void write_prediction(const struct ask *ask, size_t i, struct text_out *out)
{
    const struct answer *answer = &ask->prediction.answers[i];
    text_puts(out, "{");
    if (ask->version->form->type == ENG_EXTRACTIVE) {
        write_spans(ask, i, out);
    } else {
        write_options(ask, i, out);
    }
    if (answer->truncated > 0) {
        text_puts(out, ",\"truncated\":");
        text_integer(out, (int64_t)answer->truncated);
    }
    text_puts(out, "}");
}

static void write_timing(const struct prediction *p, struct text_out *out)
{
    text_puts(out, ",\"timing\":{\"tokenize_ms\":");
    text_number(out, (double)p->encode_us * 1e-3);
    text_puts(out, ",\"queue_ms\":");
    text_number(out, (double)p->queue_us * 1e-3);
    text_puts(out, ",\"infer_ms\":");
    text_number(out, (double)p->infer_us * 1e-3);
    text_puts(out, "}");
}

/* The weight of each module: K numbers, or a list of them a layer for a deep bank. */
static void write_modules(const struct version *version, struct text_out *out)
{
    const eng_bank_info *info = eng_bank_get_info(version->base->bank);
    size_t n = info->layers * info->modules;
    float *mix = calloc(n, sizeof *mix);
    float *zeros = calloc(info->route_len, sizeof *zeros);
    if (mix == NULL || zeros == NULL) {
        out->failed = true;
        n = 0;
    } else {
        eng_route_mix(version->base->bank, version->route_len > 0 ? version->route : zeros, mix);
    }
    text_puts(out, info->layers > 1 ? ",\"modules\":[[" : ",\"modules\":[");
    for (size_t i = 0; i < n; i++) {
        bool next_layer = i > 0 && i % info->modules == 0;
        text_puts(out, next_layer ? "],[" : i > 0 ? "," : "");
        text_number(out, (double)mix[i]);
    }
    text_puts(out, info->layers > 1 ? "]]" : "]");
    free(mix);
    free(zeros);
}

static void write_answer(const struct ask *ask, struct text_out *out)
{
    text_puts(out, "{\"predictions\":[");
    for (size_t i = 0; i < ask->prediction.n; i++) {
        text_puts(out, i > 0 ? "," : "");
        write_prediction(ask, i, out);
    }
    text_puts(out, "],\"task_version\":");
    if (ask->inline_prefix != NULL) {
        text_puts(out, "null");
    } else {
        text_integer(out, ask->version->number);
    }
    text_puts(out, ",\"usage\":{\"tokens\":");
    text_integer(out, (int64_t)ask->prediction.tokens);
    text_puts(out, "}");
    if ((ask->want & WANT_TIMING) != 0) {
        write_timing(&ask->prediction, out);
    }
    if ((ask->want & WANT_MODULES) != 0) {
        write_modules(ask->version, out);
    }
    text_puts(out, "}");
}

/* ---- reading the request --------------------------------------------------------------------- */

static void read_return(const json_t *body, struct asked *asked, struct problems *problems)
{
    static const char *const words[] = {"scores", "timing", "modules"};
    json_t *list = NULL;
    if (!json_get_array(body, "#", "return", JSON_OPTIONAL_FIELD, 0, 3, &list, problems)) {
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *word = json_string_value(json_array_get(list, i));
        size_t k = 0;
        while (k < 3 && (word == NULL || strcmp(words[k], word) != 0)) {
            k++;
        }
        if (k == 3) {
            char key[24];
            snprintf(key, sizeof key, "%zu", i);
            problem_add(problems, "#/return", key, "must be \"scores\", \"timing\" or \"modules\"");
        }
        asked->want |= k < 3 ? 1U << k : 0;
    }
}

static void read_common(struct request *req, const json_t *body, struct asked *asked,
                        struct problems *problems)
{
    json_t *inputs = NULL;
    uint64_t top_k = 0;
    if (json_get_array(body, "#", "inputs", JSON_REQUIRED_FIELD, 0, SIZE_MAX, &inputs, problems)) {
        ask_check_count(req, "inputs", json_array_size(inputs), problems);
    }
    asked->inputs = inputs;
    if (json_get_u64(body, "#", "top_k", JSON_OPTIONAL_FIELD, 1, ENG_MAX_LABELS, &top_k,
                     problems)) {
        asked->top_k = (size_t)top_k;
        asked->want |= WANT_SCORES;
    }
    read_return(body, asked, problems);
}

static void ask_with(struct request *req, struct version *version, void *arg)
{
    const struct asked *asked = arg;
    struct ask *ask = ask_new(req, version);
    if (ask == NULL) {
        return;
    }
    ask->inputs = asked->inputs;
    ask->top_k = asked->top_k;
    ask->want = asked->want;
    if (asked->inline_at != NULL) {
        ask->inline_prefix = asked->inline_at[1] == '\0' ? "#/" : "#/task/";
    }
    ask->write = write_answer;
    ask_send(ask);
}

static void predict_inline(struct request *req, const json_t *task, struct asked *asked,
                           struct problems *problems)
{
    struct registry *registry = request_server(req)->registry;
    const char *at = asked->inline_at;
    reg_publication pub = {0};
    eng_task_spec spec;
    struct version *version = NULL;
    eng_error err;
    bool read = task_read_spec(req, task, at, &spec, problems) &&
                reading_read(req, task, at, &pub.answer_length, &pub.label_scaling, problems);
    read = task_read_route(req, task, at, registry_default_bank(registry), &pub.route,
                           &pub.route_len, problems) &&
           read;
    if (pub.answer_length.sigma > 0 && spec.type != ENG_EXTRACTIVE) {
        problem_add(problems, at, "answer_length", "is of extractive tasks, this one is of type %s",
                    eng_task_type_name(spec.type));
    }
    if (pub.label_scaling.len > 0 && reading_labels(task) != spec.n_labels) {
        problem_add(problems, at, "label_scaling", "is of %zu labels, this task has %zu",
                    reading_labels(task), spec.n_labels);
    }
    if (problems->count > 0) {
        reply_problems(req, problems);
        return;
    }
    pub.spec = &spec;
    eng_status status = read ? registry_inline(registry, &pub, &version, &err) : ENG_ENOMEM;
    if (status == ENG_OK) {
        ask_with(req, version, asked);
    } else if (status == ENG_ENOMEM) {
        reply_no_memory(req);
    } else {
        reply_eng_error(req, status, &err, request_printf(req, "%s/%s", at, err.field));
    }
}

static void predict_named(struct request *req, const json_t *body, struct asked *asked,
                          struct problems *problems)
{
    const char *name = NULL;
    uint64_t version = 0;
    json_get_string(body, "#", "task", JSON_OPTIONAL_FIELD, 1, 1024, &name, problems);
    json_get_u64(body, "#", "version", JSON_OPTIONAL_FIELD, 1, INT32_MAX, &version, problems);
    if (name == NULL && problems->count == 0) {
        problem_add(problems, "#", "task", "\"task\" may not be null");
    }
    if (problems->count > 0) {
        reply_problems(req, problems);
        return;
    }
    if (version > 0) {
        name = request_printf(req, "%s@%d", name, (int)version);
    }
    if (name == NULL) {
        reply_no_memory(req);
        return;
    }
    task_resolve(req, name, "#/task", ask_with, asked);
}

#define TASK_MEMBERS                                                                               \
    "type", "labels", "template", "may_have_no_answer", "route", "start", "label_scaling",         \
        "answer_length"
#define ASK_MEMBERS "inputs", "top_k", "return"

/* The object that holds the request's own task: the body itself, its member "task", or NULL. */
static const json_t *find_inline(const json_t *body, struct asked *asked, struct problems *problems)
{
    static const char *const named[] = {"task", "version", ASK_MEMBERS, NULL};
    static const char *const own[] = {"task", ASK_MEMBERS, NULL};
    static const char *const flat[] = {TASK_MEMBERS, ASK_MEMBERS, NULL};
    static const char *const members[] = {TASK_MEMBERS, NULL};
    const json_t *task = json_object_get(body, "task");
    if (task == NULL && json_object_get(body, "type") != NULL) {
        asked->inline_at = "#";
        json_only(body, "#", flat, problems);
        return body;
    }
    if (task == NULL) {
        problem_add(problems, "#", "task",
                    "\"task\" is missing: name one of your tasks, or give \"type\" and "
                    "\"labels\" for a task of this request alone");
        return NULL;
    }
    json_only(body, "#", json_is_object(task) ? own : named, problems);
    if (!json_is_object(task)) {
        return NULL;
    }
    asked->inline_at = "#/task";
    json_only(task, "#/task", members, problems);
    return task;
}

void ep_predict(struct request *req)
{
    const json_t *body = request_json(req);
    struct problems problems = {.count = 0};
    struct asked *asked = request_alloc(req, sizeof *asked);
    if (asked == NULL) {
        reply_no_memory(req);
        return;
    }
    memset(asked, 0, sizeof *asked);
    const json_t *task = find_inline(body, asked, &problems);
    read_common(req, body, asked, &problems);
    if (task != NULL) {
        predict_inline(req, task, asked, &problems);
    } else {
        predict_named(req, body, asked, &problems);
    }
}
