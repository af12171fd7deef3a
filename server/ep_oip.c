/* ep_oip.c: /v2/…: the Open Inference Protocol v2 (KServe, Triton), JSON tensors only.
 *
 *     in    text · text, text_pair · question, context, choices · question, context
 *           BYTES, one row an input: shape [n], for choices [n, k]; any field of a template by its name
 *     out   label BYTES [n], scores FP32 [n, k] in the order of the labels or choices
 *           answer BYTES [n], score FP32 [n], start and end INT64 [n] in code points
 *
 * A model is a task, its versions are the task's. The binary extension is not spoken: a request that
 * uses it is refused (its header already in admit.c) with the way to switch it off.
 */
#include "server/ask.h"
#include "server/endpoints.h"
#include "server/errmap.h"
#include "server/tasks.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TENSORS (ENG_MAX_FIELDS + 1)

struct tensor {
    const char *name;
    const json_t *data;
    size_t rows, width; /* width: of [n, k]; 1 otherwise */
    bool has_width;     /* its shape has two dimensions */
};

enum output { OUT_LABEL, OUT_SCORES, OUT_ANSWER, OUT_SCORE, OUT_START, OUT_END, OUTPUTS };

static const struct {
    const char *name, *datatype;
} outputs[OUTPUTS] = {
    [OUT_LABEL] = {"label", "BYTES"},   [OUT_SCORES] = {"scores", "FP32"},
    [OUT_ANSWER] = {"answer", "BYTES"}, [OUT_SCORE] = {"score", "FP32"},
    [OUT_START] = {"start", "INT64"},   [OUT_END] = {"end", "INT64"},
};

#define OPTION_OUTPUTS (1U << OUT_LABEL | 1U << OUT_SCORES)
#define SPAN_OUTPUTS   (1U << OUT_ANSWER | 1U << OUT_SCORE | 1U << OUT_START | 1U << OUT_END)

/* One request; in the arena. */
struct oip_call {
    const char *model, *id; /* id may be NULL */
    struct tensor tensors[MAX_TENSORS];
    size_t n_tensors;
    unsigned asked; /* outputs by name; 0: all */
};

/* ---- writing answers ------------------------------------------------------------------------- */

/* The most options an input has: rows of `scores` are as wide. */
static size_t width_of(const struct ask *ask)
{
    size_t width = 0;
    for (size_t i = 0; i < ask->prediction.n; i++) {
        size_t n = ask->prediction.answers[i].n_options;
        width = n > width ? n : width;
    }
    return width;
}

static void write_label(const struct ask *ask, size_t i, struct text_out *out)
{
    size_t order[ENG_MAX_LABELS];
    eng_text label = {"", 0};
    if (ask_order(ask, i, order) > 0) {
        label = ask_option(ask, i, order[0]);
    }
    text_string(out, label.data, label.len);
}

/* Shorter rows than others end with zeros. */
static void write_scores(const struct ask *ask, size_t i, size_t width, struct text_out *out)
{
    const struct answer *answer = &ask->prediction.answers[i];
    for (size_t k = 0; k < width; k++) {
        text_puts(out, k > 0 ? "," : "");
        text_number(out, k < answer->n_options ? (double)answer->probabilities[k] : 0.0);
    }
}

static void write_of_span(const struct ask *ask, size_t i, enum output which, struct text_out *out)
{
    static const eng_span none = {.no_answer = true};
    const struct answer *answer = &ask->prediction.answers[i];
    const eng_span *span = answer->n_spans > 0 ? &answer->spans[0] : &none;
    if (which == OUT_ANSWER) {
        eng_text text = ask_span_text(ask, i, span);
        text_string(out, text.data, text.len);
    } else if (which == OUT_SCORE) {
        text_number(out, (double)span->score);
    } else {
        text_integer(out, (int64_t)(which == OUT_START ? span->start : span->end));
    }
}

static void write_output(const struct ask *ask, enum output which, struct text_out *out)
{
    size_t n = ask->prediction.n, width = which == OUT_SCORES ? width_of(ask) : 0;
    text_puts(out, "{\"name\":\"");
    text_puts(out, outputs[which].name);
    text_puts(out, "\",\"datatype\":\"");
    text_puts(out, outputs[which].datatype);
    text_puts(out, "\",\"shape\":[");
    text_integer(out, (int64_t)n);
    if (which == OUT_SCORES) {
        text_puts(out, ",");
        text_integer(out, (int64_t)width);
    }
    text_puts(out, "],\"data\":[");
    for (size_t i = 0; i < n; i++) {
        text_puts(out, i > 0 ? "," : "");
        if (which == OUT_LABEL) {
            write_label(ask, i, out);
        } else if (which == OUT_SCORES) {
            write_scores(ask, i, width, out);
        } else {
            write_of_span(ask, i, which, out);
        }
    }
    text_puts(out, "]}");
}

static unsigned outputs_of(eng_task_type type)
{
    return type == ENG_EXTRACTIVE ? SPAN_OUTPUTS : OPTION_OUTPUTS;
}

static void write_answer(const struct ask *ask, struct text_out *out)
{
    const struct oip_call *call = ask->dialect;
    unsigned shown = outputs_of(ask->version->form->type);
    const char *comma = "";
    shown &= call->asked != 0 ? call->asked : shown;
    text_puts(out, "{\"model_name\":");
    text_string(out, call->model, strlen(call->model));
    text_puts(out, ",\"model_version\":\"");
    text_integer(out, ask->version->number);
    text_puts(out, "\"");
    if (call->id != NULL) {
        text_puts(out, ",\"id\":");
        text_string(out, call->id, strlen(call->id));
    }
    text_puts(out, ",\"outputs\":[");
    for (unsigned which = 0; which < OUTPUTS; which++) {
        if ((shown & 1U << which) != 0) {
            text_puts(out, comma);
            write_output(ask, (enum output)which, out);
            comma = ",";
        }
    }
    text_puts(out, "]}");
}

/* ---- tensors to inputs ----------------------------------------------------------------------- */

/* The protocol's name of a field, as the task's. */
static const char *own_name(const char *name, eng_task_type type)
{
    if (type == ENG_PAIR && strcmp(name, "text") == 0) {
        return "text_a";
    }
    if (type == ENG_PAIR && strcmp(name, "text_pair") == 0) {
        return "text_b";
    }
    return type == ENG_CHOICE && strcmp(name, "choices") == 0 ? "options" : name;
}

/* Element (row, column); data lies flat or as rows. */
static json_t *element(const struct tensor *tensor, size_t row, size_t column)
{
    const json_t *inner = json_array_get(tensor->data, row);
    if (json_is_array(inner)) {
        return json_incref(json_array_get(inner, column));
    }
    return json_incref(json_array_get(tensor->data, row * tensor->width + column));
}

static json_t *value_of(const struct tensor *tensor, size_t row, bool is_list)
{
    if (!is_list) {
        return element(tensor, row, 0);
    }
    json_t *list = json_array();
    for (size_t k = 0; list != NULL && k < tensor->width; k++) {
        json_t *one = element(tensor, row, k);
        if (one != NULL && json_array_append_new(list, one) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

/* One input of a prediction. NULL: out of memory. */
static json_t *row_of(const struct oip_call *call, size_t row, eng_task_type type)
{
    json_t *input = json_object();
    for (size_t i = 0; input != NULL && i < call->n_tensors; i++) {
        const struct tensor *tensor = &call->tensors[i];
        const char *name = own_name(tensor->name, type);
        bool is_list = strcmp(name, "options") == 0;
        json_t *value = value_of(tensor, row, is_list);
        bool absent = value == NULL && !is_list; /* what is missing is told with its place, later */
        if (!absent && (value == NULL || json_object_set_new(input, name, value) != 0)) {
            json_decref(input);
            input = NULL;
        }
    }
    return input;
}

static json_t *rows_of(const struct oip_call *call, eng_task_type type)
{
    json_t *rows = json_array();
    for (size_t row = 0; row < call->tensors[0].rows; row++) {
        json_array_append_new(rows, row_of(call, row, type));
    }
    return rows;
}

static bool outputs_fit(struct request *req, const struct oip_call *call, eng_task_type type)
{
    unsigned foreign = call->asked & ~outputs_of(type);
    unsigned which = 0;
    while (which < OUTPUTS && (foreign & 1U << which) == 0) {
        which++;
    }
    if (which < OUTPUTS) {
        reply_problem(req, 422, "invalid", "#/outputs",
                      "a task of type %s has no output \"%s\"; it has %s", eng_task_type_name(type),
                      outputs[which].name,
                      type == ENG_EXTRACTIVE ? "answer, score, start and end" : "label and scores");
    }
    return which == OUTPUTS;
}

static void infer(struct request *req, struct version *version, void *arg)
{
    struct oip_call *call = arg;
    eng_task_type type = version->form->type;
    if (!outputs_fit(req, call, type)) {
        version_release(request_server(req)->registry, version);
        return;
    }
    struct ask *ask = ask_new(req, version);
    json_t *rows = ask != NULL ? rows_of(call, type) : NULL;
    if (rows == NULL || json_array_size(rows) != call->tensors[0].rows) {
        json_decref(rows);
        reply_no_memory(req);
        return;
    }
    ask->inputs = rows;
    ask->keep = rows;
    ask->dialect = call;
    ask->write = write_answer;
    ask_send(ask);
}

/* ---- reading ---------------------------------------------------------------------------------- */

static bool uses_binary(const json_t *object)
{
    const json_t *parameters = json_object_get(object, "parameters");
    return json_object_get(parameters, "binary_data_size") != NULL ||
           json_is_true(json_object_get(parameters, "binary_data")) ||
           json_is_true(json_object_get(parameters, "binary_data_output"));
}

/* True: refused. */
static bool refuse_binary(struct request *req, const json_t *body)
{
    static const char *const lists[] = {"inputs", "outputs"};
    bool binary = uses_binary(body);
    for (size_t k = 0; k < 2; k++) {
        const json_t *list = json_object_get(body, lists[k]);
        for (size_t i = 0; i < json_array_size(list); i++) {
            binary = binary || uses_binary(json_array_get(list, i));
        }
    }
    if (binary) {
        reply_problem(req, 400, "binary_extension", NULL, OIP_NOT_BINARY);
    }
    return binary;
}

/* The shape against the data, both as they came. */
static void read_shape(const json_t *object, const char *base, struct tensor *tensor,
                       struct problems *problems)
{
    json_t *shape = NULL;
    if (!json_get_array(object, base, "shape", JSON_REQUIRED_FIELD, 1, 2, &shape, problems)) {
        return;
    }
    json_int_t rows = json_integer_value(json_array_get(shape, 0));
    json_int_t width =
        json_array_size(shape) == 2 ? json_integer_value(json_array_get(shape, 1)) : 1;
    if (rows < 1 || rows > INT32_MAX || width < 1 || width > ENG_MAX_LABELS) {
        problem_add(problems, base, "shape", "a shape is [n], or [n, k] with k up to %d",
                    ENG_MAX_LABELS);
        return;
    }
    tensor->rows = (size_t)rows;
    tensor->width = (size_t)width;
    tensor->has_width = json_array_size(shape) == 2;
}

/* Elements of the data, counted through rows; SIZE_MAX when rows differ from the width. */
static size_t count_elements(const struct tensor *tensor)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(tensor->data); i++) {
        const json_t *value = json_array_get(tensor->data, i);
        if (json_is_array(value) != json_is_array(json_array_get(tensor->data, 0)) ||
            (json_is_array(value) && json_array_size(value) != tensor->width)) {
            return SIZE_MAX;
        }
        n += json_is_array(value) ? tensor->width : 1;
    }
    return n;
}

static void read_tensor(const json_t *object, const char *base, struct tensor *tensor,
                        struct problems *problems)
{
    static const char *const types[] = {"BYTES", NULL};
    static const char *const known[] = {"name", "shape", "datatype", "data", "parameters", NULL};
    size_t type = 0, before = problems->count;
    json_t *data = NULL;
    json_only(object, base, known, problems);
    json_get_string(object, base, "name", JSON_REQUIRED_FIELD, 1, 256, &tensor->name, problems);
    json_get_choice(object, base, "datatype", JSON_REQUIRED_FIELD, types, &type, problems);
    json_get_array(object, base, "data", JSON_REQUIRED_FIELD, 1, SIZE_MAX, &data, problems);
    tensor->data = data;
    read_shape(object, base, tensor, problems);
    if (problems->count == before && count_elements(tensor) != tensor->rows * tensor->width) {
        problem_add(problems, base, "data", "the shape asks for %zu elements%s",
                    tensor->rows * tensor->width,
                    tensor->width > 1 ? ", flat or as rows" : "; there are others");
    }
}

static void read_tensors(struct request *req, const json_t *body, struct oip_call *call,
                         struct problems *problems)
{
    json_t *list = NULL;
    if (!json_get_array(body, "#", "inputs", JSON_REQUIRED_FIELD, 1, MAX_TENSORS, &list,
                        problems)) {
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *object = json_array_get(list, i);
        struct tensor *tensor = &call->tensors[call->n_tensors];
        char base[40];
        snprintf(base, sizeof base, "#/inputs/%zu", i);
        if (!json_is_object(object)) {
            problem_add(problems, base, NULL, "a tensor is an object, found %s",
                        json_type_word(object));
            continue;
        }
        read_tensor(object, base, tensor, problems);
        bool is_list = tensor->name != NULL && (strcmp(tensor->name, "choices") == 0 ||
                                                strcmp(tensor->name, "options") == 0);
        if (i > 0 && problems->count == 0 && tensor->rows != call->tensors[0].rows) {
            problem_add(problems, base, "shape", "%zu rows beside %zu of \"%.64s\"", tensor->rows,
                        call->tensors[0].rows, call->tensors[0].name);
        } else if (problems->count == 0 && tensor->width > 1 && !is_list) {
            problem_add(problems, base, "shape", "only choices have the shape [n, k]");
        }
        call->n_tensors++;
    }
    if (problems->count == 0) {
        ask_check_count(req, "inputs", call->tensors[0].rows, problems);
    }
}

static void read_outputs(const json_t *body, struct oip_call *call, struct problems *problems)
{
    json_t *list = NULL;
    json_get_array(body, "#", "outputs", JSON_OPTIONAL_FIELD, 0, OUTPUTS, &list, problems);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(list, i), "name"));
        size_t k = 0;
        while (k < OUTPUTS && (name == NULL || strcmp(outputs[k].name, name) != 0)) {
            k++;
        }
        call->asked |= k < OUTPUTS ? 1U << k : 0;
        if (k == OUTPUTS) {
            char key[24];
            snprintf(key, sizeof key, "%zu", i);
            problem_add(problems, "#/outputs", key,
                        "an output is {\"name\"}: label or scores; answer, score, start or end");
        }
    }
}

/* "reviews", or "reviews@3" when the path names a version. NULL: replied. */
static const char *model_of_path(struct request *req, bool has_version)
{
    const char *model = request_param(req, "model");
    if (!has_version) {
        return model;
    }
    const char *both = request_printf(req, "%s@%s", model, request_param(req, "version"));
    if (both == NULL) {
        reply_no_memory(req);
    }
    return both;
}

static void read_and_infer(struct request *req, bool has_version)
{
    static const char *const known[] = {"id", "inputs", "outputs", "parameters", NULL};
    const json_t *body = request_json(req);
    struct problems problems = {.count = 0};
    struct oip_call *call = request_alloc(req, sizeof *call);
    const char *model = model_of_path(req, has_version);
    if (call == NULL || model == NULL) {
        reply_no_memory(req);
        return;
    }
    if (refuse_binary(req, body)) {
        return;
    }
    memset(call, 0, sizeof *call);
    call->model = request_param(req, "model");
    json_only(body, "#", known, &problems);
    json_get_string(body, "#", "id", JSON_OPTIONAL_FIELD, 0, 1024, &call->id, &problems);
    read_tensors(req, body, call, &problems);
    read_outputs(body, call, &problems);
    if (problems.count > 0) {
        reply_problems(req, &problems);
    } else {
        task_resolve(req, model, NULL, infer, call);
    }
}

void ep_oip_infer(struct request *req)
{
    read_and_infer(req, false);
}

void ep_oip_version_infer(struct request *req)
{
    read_and_infer(req, true);
}

/* ---- metadata ---------------------------------------------------------------------------------- */

/* What a worker reads of a model; the request's data. */
struct oip_look {
    struct registry *registry;
    struct version *version;
    const char *names[ENG_MAX_FIELDS];
    size_t n_names;
    eng_status status;
    eng_error err;
};

static void release_look(void *data)
{
    struct oip_look *look = data;
    version_release(look->registry, look->version);
}

static void read_fields(void *arg, store *reader)
{
    struct oip_look *look = arg;
    const eng_task *task = NULL;
    (void)reader;
    look->status = form_compile(look->version->form, &task, &look->err);
    if (look->status == ENG_OK) {
        look->n_names = eng_task_fields(task, look->names);
    }
}

static json_t *tensor_json(const char *name, const char *datatype, bool wide)
{
    return wide ? json_pack("{s:s, s:s, s:[i, i]}", "name", name, "datatype", datatype, "shape", -1,
                            -1)
                : json_pack("{s:s, s:s, s:[i]}", "name", name, "datatype", datatype, "shape", -1);
}

/* The task's name of a field, as the protocol's. */
static const char *protocol_name(const char *name, eng_task_type type)
{
    if (type == ENG_PAIR && strcmp(name, "text_a") == 0) {
        return "text";
    }
    return type == ENG_PAIR && strcmp(name, "text_b") == 0 ? "text_pair" : name;
}

static void show_model(struct request *req, void *arg)
{
    struct oip_look *look = arg;
    if (look->status != ENG_OK) {
        reply_eng_error(req, look->status, &look->err, NULL);
        return;
    }
    eng_task_type type = look->version->form->type;
    json_t *in = json_array(), *out = json_array();
    char number[24];
    snprintf(number, sizeof number, "%lld", (long long)look->version->number);
    for (size_t i = 0; i < look->n_names; i++) {
        json_array_append_new(in, tensor_json(protocol_name(look->names[i], type), "BYTES", false));
    }
    if (type == ENG_CHOICE) {
        json_array_append_new(in, tensor_json("choices", "BYTES", true));
    }
    for (unsigned which = 0; which < OUTPUTS; which++) {
        if ((outputs_of(type) & 1U << which) != 0) {
            json_array_append_new(out, tensor_json(outputs[which].name, outputs[which].datatype,
                                                   which == OUT_SCORES));
        }
    }
    reply_json(req, 200,
               json_pack("{s:s, s:[s], s:s, s:o, s:o}", "name", request_param(req, "model"),
                         "versions", number, "platform", "mp2", "inputs", in, "outputs", out));
}

static void look_at_model(struct request *req, struct version *version, void *arg)
{
    struct oip_look *look = request_alloc(req, sizeof *look);
    (void)arg;
    if (look == NULL) {
        version_release(request_server(req)->registry, version);
        reply_no_memory(req);
        return;
    }
    memset(look, 0, sizeof *look);
    look->registry = request_server(req)->registry;
    look->version = version;
    request_set_data(req, look, release_look);
    request_offload(req, read_fields, show_model, look);
}

static void model_is_ready(struct request *req, struct version *version, void *arg)
{
    (void)arg;
    version_release(request_server(req)->registry, version);
    reply_json(req, 200, json_pack("{s:s, s:b}", "name", request_param(req, "model"), "ready", 1));
}

static void look(struct request *req, bool has_version,
                 void (*then)(struct request *req, struct version *version, void *arg))
{
    const char *model = model_of_path(req, has_version);
    if (model != NULL) {
        task_resolve(req, model, NULL, then, NULL);
    }
}

void ep_oip_model(struct request *req)
{
    look(req, false, look_at_model);
}

void ep_oip_version(struct request *req)
{
    look(req, true, look_at_model);
}

void ep_oip_model_ready(struct request *req)
{
    look(req, false, model_is_ready);
}

void ep_oip_version_ready(struct request *req)
{
    look(req, true, model_is_ready);
}

void ep_oip_server(struct request *req)
{
    reply_json(req, 200,
               json_pack("{s:s, s:s, s:[]}", "name", "mp2", "version", MP2_VERSION, "extensions"));
}

void ep_oip_live(struct request *req)
{
    reply_json(req, 200, json_pack("{s:b}", "live", 1));
}

void ep_oip_ready(struct request *req)
{
    if (request_server(req)->ready) {
        reply_json(req, 200, json_pack("{s:b}", "ready", 1));
    } else {
        reply_problem(req, 503, "draining", NULL, "the server is stopping");
    }
}
