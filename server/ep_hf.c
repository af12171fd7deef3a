/* ep_hf.c: /hf/…: the shapes of Hugging Face's inference API, as its clients send and read them.
 *
 *     text classification   {"inputs": text, "parameters": {"top_k", "function_to_apply"}}
 *     zero-shot             {"inputs": text, "parameters": {"candidate_labels", "multi_label", …}}
 *     question answering    {"inputs": {"question", "context"}, "parameters": {"top_k", …}}
 *
 * The task of the path says which it is; "candidate_labels" ask one of its classification tasks with
 * other labels, on the same route. huggingface_hub changed two shapes over time: question and context
 * stood at the top up to 0.32, and zero-shot answers were {"sequence", "labels", "scores"} up to 1.1.
 *
 * Zero-shot options are read by the backbone as they are, or put into "hypothesis_template". With
 * "multi_label" (or one label alone) every label is a question of its own: does the text fit it?
 */
#include "server/ask.h"
#include "server/endpoints.h"
#include "server/tasks.h"

#include <stdlib.h>
#include <string.h>

/* One request; in the arena. */
struct hf_call {
    const json_t *body, *parameters; /* parameters may be NULL */
    const json_t *inputs;
    bool single; /* one input, not a list */
    bool at_top; /* question and context are members of the body */
    size_t top_k;
    /* zero-shot */
    bool zero_shot;
    eng_text *labels; /* (n_labels) candidates */
    size_t n_labels;
    const char *hypothesis;
    bool multi_label;
    bool old_answers; /* for huggingface_hub up to 1.1 */
    /* question answering */
    size_t max_answer;
    bool may_be_impossible;
};

#define LABELS_AT "candidate_labels"

/* ---- writing answers ------------------------------------------------------------------------- */

static size_t shown(const struct ask *ask, size_t n)
{
    return ask->top_k > 0 && ask->top_k < n ? ask->top_k : n;
}

/* [{"label","score"},…] by falling score. */
static void write_labels(const struct ask *ask, size_t input, struct text_out *out)
{
    const float *probabilities = ask->prediction.answers[input].probabilities;
    size_t order[ENG_MAX_LABELS];
    size_t n = shown(ask, ask_order(ask, input, order));
    for (size_t k = 0; k < n; k++) {
        text_puts(out, k > 0 ? ",{" : "[{");
        ask_write_scored(out, "label", ask_option(ask, input, order[k]),
                         (double)probabilities[order[k]]);
        text_puts(out, "}");
    }
    text_puts(out, "]");
}

static void write_classified(const struct ask *ask, struct text_out *out)
{
    for (size_t i = 0; i < ask->prediction.n; i++) {
        text_puts(out, i > 0 ? "," : "[");
        write_labels(ask, i, out);
    }
    text_puts(out, "]");
}

static void write_answer(const struct ask *ask, size_t input, struct text_out *out)
{
    size_t n = ask->prediction.answers[input].n_spans;
    if (ask->top_k <= 1) {
        text_puts(out, "{");
        ask_write_span(ask, input, 0, out);
        text_puts(out, "}");
        return;
    }
    text_puts(out, "[");
    for (size_t k = 0; k < n; k++) {
        text_puts(out, k > 0 ? ",{" : "{");
        ask_write_span(ask, input, k, out);
        text_puts(out, "}");
    }
    text_puts(out, "]");
}

static void write_answered(const struct ask *ask, struct text_out *out)
{
    const struct hf_call *call = ask->dialect;
    for (size_t i = 0; i < ask->prediction.n; i++) {
        text_puts(out, call->single ? "" : i > 0 ? "," : "[");
        write_answer(ask, i, out);
    }
    text_puts(out, call->single ? "" : "]");
}

/* Zero-shot, one text: candidates in `order` with their scores. */
static void write_candidates(const struct hf_call *call, const json_t *text, const size_t *order,
                             const float *scores, size_t n, struct text_out *out)
{
    if (!call->old_answers) {
        for (size_t k = 0; k < n; k++) {
            text_puts(out, k > 0 ? ",{" : "[{");
            ask_write_scored(out, "label", call->labels[order[k]], (double)scores[order[k]]);
            text_puts(out, "}");
        }
        text_puts(out, "]");
        return;
    }
    text_puts(out, "{\"sequence\":");
    text_string(out, json_string_value(text), json_string_length(text));
    for (size_t k = 0; k < n; k++) {
        eng_text label = call->labels[order[k]];
        text_puts(out, k > 0 ? "," : ",\"labels\":[");
        text_string(out, label.data, label.len);
    }
    for (size_t k = 0; k < n; k++) {
        text_puts(out, k > 0 ? "," : "],\"scores\":[");
        text_number(out, (double)scores[order[k]]);
    }
    text_puts(out, "]}");
}

static void write_zero_shot(const struct ask *ask, struct text_out *out)
{
    const struct hf_call *call = ask->dialect;
    size_t order[ENG_MAX_LABELS];
    for (size_t i = 0; i < ask->prediction.n; i++) {
        size_t n = ask_order(ask, i, order);
        text_puts(out, call->single ? "" : i > 0 ? "," : "[");
        write_candidates(call, call->single ? call->inputs : json_array_get(call->inputs, i), order,
                         ask->prediction.answers[i].probabilities, n, out);
    }
    text_puts(out, call->single ? "" : "]");
}

/* Every candidate was an input of its own; option 1 is "it fits". */
static void write_multi_label(const struct ask *ask, struct text_out *out)
{
    const struct hf_call *call = ask->dialect;
    float scores[ENG_MAX_LABELS];
    size_t order[ENG_MAX_LABELS], n = ask->prediction.n;
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        scores[i] = ask->prediction.answers[i].probabilities[1];
        for (; at > 0 && scores[order[at - 1]] < scores[i]; at--) {
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    write_candidates(call, call->inputs, order, scores, n, out);
}

/* ---- asking ---------------------------------------------------------------------------------- */

/* Takes the version and `inputs`, one or an array. */
static void send(struct request *req, struct hf_call *call, struct version *version, json_t *inputs,
                 bool alone, void (*write)(const struct ask *ask, struct text_out *out))
{
    struct ask *ask = ask_new(req, version);
    if (ask == NULL || inputs == NULL) {
        json_decref(inputs);
        reply_no_memory(req);
        return;
    }
    ask->inputs = inputs;
    ask->keep = inputs;
    ask->alone = alone;
    ask->top_k = call->zero_shot ? 0 : call->top_k;
    ask->max_answer = call->max_answer;
    ask->dialect = call;
    ask->pointer = call->at_top ? "#" : "#/inputs";
    ask->inline_prefix = call->zero_shot ? "#/parameters/candidate_" : NULL;
    ask->write = write;
    ask_send(ask);
}

/* Hugging Face's {"text","text_pair"} under the names of a pair task. */
static json_t *with_own_names(const json_t *input, eng_task_type type)
{
    const json_t *text = json_object_get(input, "text"),
                 *pair = json_object_get(input, "text_pair");
    if (type != ENG_PAIR || text == NULL || pair == NULL || json_object_size(input) != 2) {
        return json_incref((json_t *)(uintptr_t)input);
    }
    return json_pack("{s:O, s:O}", "text_a", text, "text_b", pair);
}

static void ask_plain(struct request *req, struct hf_call *call, struct version *version)
{
    eng_task_type type = version->form->type;
    json_t *inputs = NULL;
    if (call->at_top) {
        inputs = json_pack("{s:O, s:O*}", "question", json_object_get(call->body, "question"),
                           "context", json_object_get(call->body, "context"));
    } else if (call->single) {
        inputs = with_own_names(call->inputs, type);
    } else {
        inputs = json_array();
        for (size_t i = 0; i < json_array_size(call->inputs); i++) {
            json_array_append_new(inputs, with_own_names(json_array_get(call->inputs, i), type));
        }
    }
    send(req, call, version, inputs, call->single,
         type == ENG_EXTRACTIVE ? write_answered : write_classified);
}

/* The label, or "hypothesis_template" with the label in its place; in the arena. */
static bool hypothesis(struct request *req, const struct hf_call *call, size_t i, eng_text *out)
{
    *out = call->labels[i];
    if (call->hypothesis == NULL) {
        return true;
    }
    const char *gap = strstr(call->hypothesis, "{}");
    char *text = request_printf(req, "%.*s%.*s%s", (int)(gap - call->hypothesis), call->hypothesis,
                                (int)out->len, out->data, gap + 2);
    *out = (eng_text){text, text != NULL ? strlen(text) : 0};
    return text != NULL;
}

/* The task's route with another form. Gives `of` back. NULL: replied. */
static struct version *version_like(struct request *req, struct version *of,
                                    const eng_task_spec *spec)
{
    struct registry *registry = request_server(req)->registry;
    struct version *version = NULL;
    eng_error err;
    const reg_publication pub = {.spec = spec,
                                 .route = of->route_len > 0 ? of->route : NULL,
                                 .route_len = of->route_len,
                                 .like = of,
                                 .model_fingerprint = of->base->model,
                                 .bank_fingerprint = of->base->bank_print};
    eng_status status = registry_inline(registry, &pub, &version, &err);
    version_release(registry, of);
    if (status != ENG_OK) {
        reply_eng_error(req, status, &err, "#/parameters/" LABELS_AT);
        return NULL;
    }
    return version;
}

static void ask_multi_label(struct request *req, struct hf_call *call, struct version *of)
{
    static const eng_text answers[] = {{"不符合", sizeof "不符合" - 1},
                                       {"符合", sizeof "符合" - 1}};
    static const char form[] = "意思判别：\"{text}\"符合\"{hypothesis}\"吗？选项：";
    const eng_task_spec spec = {.type = ENG_PAIR,
                                .labels = answers,
                                .n_labels = 2,
                                .text_template = {form, sizeof form - 1}};
    struct version *version = version_like(req, of, &spec);
    if (version == NULL) {
        return;
    }
    json_t *inputs = json_array();
    for (size_t i = 0; i < call->n_labels; i++) {
        eng_text text;
        json_t *input = NULL;
        if (hypothesis(req, call, i, &text)) {
            input = json_pack("{s:O, s:s#}", "text", call->inputs, "hypothesis", text.data,
                              (int)text.len);
        }
        if (input == NULL || json_array_append_new(inputs, input) != 0) {
            json_decref(inputs);
            inputs = NULL;
            break;
        }
    }
    send(req, call, version, inputs, false, write_multi_label);
}

static void ask_zero_shot(struct request *req, struct hf_call *call, struct version *of)
{
    size_t n = call->n_labels;
    eng_text *labels = request_alloc(req, n * sizeof *labels);
    bool whole = labels != NULL;
    for (size_t i = 0; whole && i < n; i++) {
        whole = hypothesis(req, call, i, &labels[i]);
    }
    if (!whole) {
        version_release(request_server(req)->registry, of);
        reply_no_memory(req);
        return;
    }
    const eng_task_spec spec = {.type = ENG_CLASSIFICATION,
                                .labels = labels,
                                .n_labels = n,
                                .text_template = of->form->text_template};
    struct version *version = version_like(req, of, &spec);
    if (version != NULL) {
        send(req, call, version, json_incref((json_t *)(uintptr_t)call->inputs), call->single,
             write_zero_shot);
    }
}

/* Whether the request fits the kind of task; else replied. */
static bool fits(struct request *req, const struct hf_call *call, const struct form *form)
{
    if (call->zero_shot && form->type != ENG_CLASSIFICATION) {
        reply_problem(req, 422, "wrong_type", "#/parameters/" LABELS_AT,
                      "only a task of type classification can be asked with labels of the request; "
                      "this one is of type %s: leave \"" LABELS_AT "\" out",
                      eng_task_type_name(form->type));
    } else if (call->may_be_impossible && !form->may_have_no_answer) {
        reply_problem(req, 422, "not_supported", "#/parameters/handle_impossible_answer",
                      "this task always answers: leave \"handle_impossible_answer\" out, or make "
                      "an extractive task with \"may_have_no_answer\"");
    } else {
        return true;
    }
    return false;
}

static void ask_hf(struct request *req, struct version *version, void *arg)
{
    struct hf_call *call = arg;
    if (!fits(req, call, version->form)) {
        version_release(request_server(req)->registry, version);
    } else if (!call->zero_shot) {
        ask_plain(req, call, version);
    } else if (call->multi_label) {
        ask_multi_label(req, call, version);
    } else {
        ask_zero_shot(req, call, version);
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

/* huggingface_hub says its version in the User-Agent: "…; hf_hub/1.1.7; python/3.11". Until 1.1.4 it
 * read zero-shot answers as {"sequence","labels","scores"}, since 1.1.5 as a list. */
static bool wants_old_answers(struct request *req)
{
    const char *agent = request_header(req, "User-Agent");
    const char *at = agent != NULL ? strstr(agent, "hf_hub/") : NULL;
    char *end = NULL;
    if (at == NULL) {
        return false;
    }
    at += strlen("hf_hub/");
    unsigned long major = strtoul(at, &end, 10);
    if (end == at || *end != '.') {
        return false;
    }
    unsigned long minor = strtoul(end + 1, &end, 10);
    unsigned long patch = *end == '.' ? strtoul(end + 1, NULL, 10) : 0;
    return major == 0 || (major == 1 && (minor == 0 || (minor == 1 && patch < 5)));
}

/* False: out of memory. */
static bool room_for_labels(struct request *req, struct hf_call *call, size_t n)
{
    call->labels = request_alloc(req, (n + 1) * sizeof *call->labels);
    return call->labels != NULL;
}

static bool list_labels(struct request *req, struct hf_call *call, const json_t *list,
                        struct problems *problems)
{
    if (!room_for_labels(req, call, json_array_size(list))) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *label = json_array_get(list, i);
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        if (json_is_string(label)) {
            call->labels[call->n_labels++] =
                (eng_text){json_string_value(label), json_string_length(label)};
        } else {
            problem_add(problems, "#/parameters/" LABELS_AT, key, "a label is a string, found %s",
                        json_type_word(label));
        }
    }
    return true;
}

/* Older clients send the labels as one string with commas. */
static bool split_labels(struct request *req, struct hf_call *call, const char *text)
{
    size_t n = 1;
    for (const char *at = text; *at != '\0'; at++) {
        n += *at == ',';
    }
    if (!room_for_labels(req, call, n)) {
        return false;
    }
    while (*text != '\0') {
        text += strspn(text, " ,");
        size_t len = strcspn(text, ",");
        if (len > 0) {
            call->labels[call->n_labels++] = (eng_text){text, len};
        }
        text += len;
    }
    return true;
}

static void check_labels(const struct hf_call *call, struct problems *problems)
{
    if (call->n_labels == 0 || call->n_labels > ENG_MAX_LABELS) {
        problem_add(problems, "#/parameters", LABELS_AT, "give 1 to %d labels, found %zu",
                    ENG_MAX_LABELS, call->n_labels);
        return;
    }
    for (size_t i = 0; i < call->n_labels; i++) {
        size_t len = call->labels[i].len;
        if (len == 0 || len > ENG_MAX_LABEL_BYTES) {
            char key[24];
            snprintf(key, sizeof key, "%zu", i);
            problem_add(problems, "#/parameters/" LABELS_AT, key,
                        "a label has 1 to %d bytes, found %zu", ENG_MAX_LABEL_BYTES, len);
        }
    }
}

static bool read_labels(struct request *req, struct hf_call *call, struct problems *problems)
{
    const json_t *labels = json_object_get(call->parameters, LABELS_AT);
    if (json_is_string(labels)) {
        return split_labels(req, call, json_string_value(labels));
    }
    if (json_is_array(labels)) {
        return list_labels(req, call, labels, problems);
    }
    problem_add(problems, "#/parameters", LABELS_AT, "must be an array of strings, found %s",
                json_type_word(labels));
    return true;
}

/* Candidates go with plain texts. */
static void check_texts(const struct hf_call *call, struct problems *problems)
{
    size_t i = 0;
    while (i < json_array_size(call->inputs) && json_is_string(json_array_get(call->inputs, i))) {
        i++;
    }
    if (call->multi_label && !json_is_string(call->inputs)) {
        problem_add(problems, "#", "inputs",
                    "with \"multi_label\" or one label alone, \"inputs\" is one string");
    } else if (!json_is_string(call->inputs) &&
               (call->single || i < json_array_size(call->inputs))) {
        problem_add(problems, "#", "inputs",
                    "with \"" LABELS_AT "\", \"inputs\" is a string or an array of strings");
    }
}

/* False: out of memory. */
static bool read_zero_shot(struct request *req, struct hf_call *call, struct problems *problems)
{
    static const char at[] = "#/parameters";
    static const char *const known[] = {LABELS_AT, "multi_label", "hypothesis_template", NULL};
    size_t before = problems->count;
    call->zero_shot = true;
    call->old_answers = wants_old_answers(req);
    json_only(call->parameters, at, known, problems);
    if (!read_labels(req, call, problems)) {
        return false;
    }
    if (problems->count == before) {
        check_labels(call, problems);
    }
    json_get_bool(call->parameters, at, "multi_label", JSON_OPTIONAL_FIELD, &call->multi_label,
                  problems);
    call->multi_label = call->multi_label || call->n_labels == 1;
    if (json_get_string(call->parameters, at, "hypothesis_template", JSON_OPTIONAL_FIELD, 2,
                        ENG_MAX_LABEL_BYTES, &call->hypothesis, problems) &&
        strstr(call->hypothesis, "{}") == NULL) {
        problem_add(problems, at, "hypothesis_template",
                    "must hold \"{}\", the place of the label");
    }
    check_texts(call, problems);
    return true;
}

/* Parameters of the other two. Those that only tell Hugging Face's own code how to cut long texts are
 * taken and not needed: long texts are cut here by the model's length. */
static void read_parameters(struct hf_call *call, struct problems *problems)
{
    static const char at[] = "#/parameters";
    static const char *const functions[] = {"softmax", NULL};
    static const char *const known[] = {
        "function_to_apply",        "top_k",          "max_answer_len",
        "handle_impossible_answer", "align_to_words", "doc_stride",
        "max_question_len",         "max_seq_len",    NULL};
    uint64_t top_k = 0, max_answer = 0;
    size_t function = 0;
    json_only(call->parameters, at, known, problems);
    json_get_u64(call->parameters, at, "top_k", JSON_OPTIONAL_FIELD, 1, ENG_MAX_LABELS, &top_k,
                 problems);
    json_get_u64(call->parameters, at, "max_answer_len", JSON_OPTIONAL_FIELD, 1, 512, &max_answer,
                 problems);
    json_get_bool(call->parameters, at, "handle_impossible_answer", JSON_OPTIONAL_FIELD,
                  &call->may_be_impossible, problems);
    json_get_choice(call->parameters, at, "function_to_apply", JSON_OPTIONAL_FIELD, functions,
                    &function, problems);
    call->top_k = (size_t)top_k;
    call->max_answer = (size_t)max_answer;
}

/* "inputs", or question and context at the top as clients up to 0.32 put them. */
static void read_inputs(struct request *req, struct hf_call *call, struct problems *problems)
{
    static const char *const now[] = {"inputs", "parameters", "options", NULL};
    static const char *const before[] = {"question", "context", "parameters", "options", NULL};
    call->inputs = json_object_get(call->body, "inputs");
    call->at_top = call->inputs == NULL && json_object_get(call->body, "question") != NULL;
    call->single = !json_is_array(call->inputs);
    json_only(call->body, "#", call->at_top ? before : now, problems);
    if (call->inputs == NULL && !call->at_top) {
        problem_add(problems, "#", "inputs", "\"inputs\" is missing: give the text to read");
    } else if (!call->single) {
        ask_check_count(req, "inputs", json_array_size(call->inputs), problems);
    }
}

static struct hf_call *read_call(struct request *req)
{
    struct problems problems = {.count = 0};
    struct hf_call *call = request_alloc(req, sizeof *call);
    if (call == NULL) {
        reply_no_memory(req);
        return NULL;
    }
    *call = (struct hf_call){.body = request_json(req)};
    json_t *parameters = NULL;
    read_inputs(req, call, &problems);
    json_get_object(call->body, "#", "parameters", JSON_OPTIONAL_FIELD, &parameters, &problems);
    call->parameters = parameters;
    bool whole = true;
    if (json_object_get(parameters, LABELS_AT) != NULL) {
        whole = read_zero_shot(req, call, &problems);
    } else if (parameters != NULL) {
        read_parameters(call, &problems);
    }
    if (!whole) {
        reply_no_memory(req);
    } else if (problems.count > 0) {
        reply_problems(req, &problems);
    }
    return whole && problems.count == 0 ? call : NULL;
}

/* ---- endpoints ------------------------------------------------------------------------------- */

/* "acme/reviews", or "reviews" when the path has no tenant. NULL: replied. */
static const char *task_of_path(struct request *req, bool has_tenant)
{
    const char *task = request_param(req, "task");
    if (!has_tenant) {
        return task;
    }
    const char *both = request_printf(req, "%s/%s", request_param(req, "tenant"), task);
    if (both == NULL) {
        reply_no_memory(req);
    }
    return both;
}

static void predict(struct request *req, bool has_tenant)
{
    struct hf_call *call = read_call(req);
    const char *task = call != NULL ? task_of_path(req, has_tenant) : NULL;
    if (task != NULL) {
        task_resolve(req, task, NULL, ask_hf, call);
    }
}

void ep_hf_predict(struct request *req)
{
    predict(req, false);
}

void ep_hf_tenant_predict(struct request *req)
{
    predict(req, true);
}

static void show_health(struct request *req, struct version *version, void *arg)
{
    (void)arg;
    version_release(request_server(req)->registry, version);
    if (request_server(req)->ready) {
        reply_json(req, 200, json_pack("{s:s}", "status", "ok"));
    } else {
        reply_problem(req, 503, "draining", NULL, "the server is stopping");
    }
}

static json_t *labels_json(const struct form *form)
{
    json_t *labels = json_array();
    for (size_t i = 0; i < form->n_labels; i++) {
        json_array_append_new(labels, json_stringn(form->labels[i].data, form->labels[i].len));
    }
    return labels;
}

static void show_info(struct request *req, struct version *version, void *arg)
{
    const struct form *form = version->form;
    const eng_model_info *model = eng_model_get_info(request_server(req)->model);
    json_t *info = json_pack(
        "{s:s, s:I, s:s, s:s, s:o, s:s, s:s, s:I}", "model_id", (const char *)arg, "version",
        (json_int_t)version->number, "task",
        form->type == ENG_EXTRACTIVE ? "question-answering" : "text-classification", "type",
        eng_task_type_name(form->type), "labels", labels_json(form), "backbone", model->name,
        "model_sha", model->fingerprint, "max_input_length", (json_int_t)model->positions);
    version_release(request_server(req)->registry, version);
    reply_json(req, 200, info);
}

static void look(struct request *req, bool has_tenant,
                 void (*show)(struct request *req, struct version *version, void *arg))
{
    const char *task = task_of_path(req, has_tenant);
    if (task != NULL) {
        task_resolve(req, task, NULL, show, (void *)(uintptr_t)task);
    }
}

void ep_hf_health(struct request *req)
{
    look(req, false, show_health);
}

void ep_hf_tenant_health(struct request *req)
{
    look(req, true, show_health);
}

void ep_hf_info(struct request *req)
{
    look(req, false, show_info);
}

void ep_hf_tenant_info(struct request *req)
{
    look(req, true, show_info);
}
