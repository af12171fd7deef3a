/* ep_evaluate.c: POST /v1/tasks/{task}/evaluate: how a version does on labelled rows.
 *
 *     rows or file, parsed by a worker → pieces of PIECE rows, one after another, through the batcher
 *     → scored by a worker → one answer
 *
 * The rows wait in the tenant's own line like any prediction, a piece at a time: an evaluation takes no
 * more than the tenant's share and lets its other requests pass between two pieces. Tokens count to its
 * quotas. A client that goes away ends it.
 */
#include "server/ask.h"
#include "server/batcher.h"
#include "server/config.h"
#include "server/endpoints.h"
#include "server/loop.h"
#include "server/tasks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PIECE      64
#define MOST_SHOWN 1000 /* wrong rows of an answer */
#define NO_FILE    "\"file\" or \"rows\" is missing: give the id of a file, or labelled rows"

struct verdict {
    size_t truth, predicted; /* options */
    eng_text answer;         /* extractive; of the row's own context */
    double score;            /* probability of what was predicted */
    bool right;
};

struct evaluation {
    struct request *req;
    struct version *version;
    const char *file;
    const json_t *rows; /* of the body */
    size_t shown;

    /* the worker's */
    store_mem *mem;
    char *text; /* rows as JSON Lines */
    eng_dataset *set;
    size_t n;
    uint64_t bytes;
    eng_row_error errors[ENG_MAX_ROW_ERRORS];
    size_t n_errors;
    struct problems problems;
    store_status status;
    store_error err;
    eng_status parsed;
    eng_error eng_err;
    json_t *body;

    /* pieces */
    struct prediction prediction;
    eng_input inputs[PIECE];
    enum fair_verdict admitted;
    struct verdict *verdicts; /* (n) */
    size_t done, tokens, truncated;
    uint64_t taken;
    bool settled;
    double loss; /* sum */
};

static void settle(struct evaluation *e)
{
    if (!e->settled && e->taken > 0) {
        e->settled = true;
        request_settle_tokens(e->req, e->taken, e->tokens, e->done);
    }
}

static void release(void *data)
{
    struct evaluation *e = data;
    version_release(request_server(e->req)->registry, e->version);
    eng_dataset_free(e->set);
    store_mem_free(e->mem);
    json_decref(e->body);
    free(e->text);
    free(e->verdicts);
    free(e);
}

/* ---- rows ------------------------------------------------------------------------------------- */

static eng_task_type type_of(const struct evaluation *e)
{
    return e->version->form->type;
}

static bool has_labels(const struct evaluation *e)
{
    return type_of(e) == ENG_CLASSIFICATION || type_of(e) == ENG_PAIR;
}

/* Index of a word among the task's labels; n_labels: none. */
static size_t label_of(const struct form *form, const char *word)
{
    size_t i = 0, len = strlen(word);
    while (i < form->n_labels &&
           (form->labels[i].len != len || memcmp(form->labels[i].data, word, len) != 0)) {
        i++;
    }
    return i;
}

/* The body's rows as JSON Lines. NULL: out of memory. */
static char *write_lines(const json_t *rows, size_t *len)
{
    json_t *row;
    size_t i, room = 0;
    char *text = NULL;
    *len = 0;
    json_array_foreach((json_t *)(uintptr_t)rows, i, row)
    {
        char *line = json_dumps(row, JSON_COMPACT | JSON_ENCODE_ANY);
        size_t more = line != NULL ? strlen(line) : 0;
        if (line != NULL && *len + more + 1 > room) {
            room = 2 * (*len + more + 1);
            char *grown = realloc(text, room);
            text = grown != NULL ? grown : text;
            if (grown == NULL) {
                free(line);
                line = NULL;
            }
        }
        if (line == NULL) {
            free(text);
            return NULL;
        }
        memcpy(text + *len, line, more);
        text[*len + more] = '\n';
        *len += more + 1;
        free(line);
    }
    return text;
}

static eng_rows_format read_format(const store_file *file)
{
    json_t *details = file->details != NULL ? json_loads(file->details, 0, NULL) : NULL;
    const char *word = json_string_value(json_object_get(details, "format"));
    bool csv = word != NULL && strcmp(word, "csv") == 0;
    json_decref(details);
    return csv ? ENG_ROWS_CSV : ENG_ROWS_JSONL;
}

static bool find_bytes(struct evaluation *e, store *reader, eng_text *bytes,
                       eng_rows_format *format)
{
    int64_t tenant = request_tenant(e->req);
    store_file file = {0};
    store_blob data = {0};
    if (e->file == NULL) {
        size_t len = 0;
        e->text = write_lines(e->rows, &len);
        *bytes = (eng_text){e->text, len};
        *format = ENG_ROWS_JSONL;
        e->parsed = e->text != NULL ? ENG_OK : ENG_ENOMEM;
        return e->text != NULL;
    }
    e->status = reader == NULL ? STORE_EBUSY
                               : store_file_get(reader, tenant, e->file, e->mem, &file, &e->err);
    if (e->status == STORE_OK) {
        e->status = store_file_data(reader, tenant, e->file, e->mem, &data, &e->err);
    }
    *bytes = (eng_text){data.data, data.len};
    *format = read_format(&file);
    return e->status == STORE_OK;
}

/* Rows of a body are all wanted; a file's bad rows were told when it was uploaded. */
static void tell_bad_rows(struct evaluation *e)
{
    for (size_t i = 0; e->file == NULL && i < e->n_errors; i++) {
        char key[24];
        snprintf(key, sizeof key, "%zu", e->errors[i].line - 1);
        problem_add(&e->problems, "#/rows", key, "%s: %s", e->errors[i].pointer, e->errors[i].text);
    }
}

static void check_row(struct evaluation *e, size_t i)
{
    eng_example row;
    const char *word = NULL;
    eng_dataset_row(e->set, i, &row, &word);
    e->verdicts[i].truth = row.label;
    for (size_t k = 0; k < row.input.n_fields; k++) {
        e->bytes += row.input.fields[k].value.len;
    }
    if (!has_labels(e)) {
        return;
    }
    e->verdicts[i].truth = label_of(e->version->form, word != NULL ? word : "");
    if (e->verdicts[i].truth == e->version->form->n_labels) {
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        problem_add(&e->problems, e->file != NULL ? "#/file" : "#/rows", key,
                    "the label \"%.100s\" is not one of the task's %zu labels",
                    word != NULL ? word : "", e->version->form->n_labels);
    }
}

static void read_rows(void *arg, store *reader)
{
    struct evaluation *e = arg;
    eng_text bytes = {NULL, 0};
    eng_rows_format format = ENG_ROWS_JSONL;
    eng_task_type type = type_of(e);
    if (!find_bytes(e, reader, &bytes, &format)) {
        return;
    }
    e->n_errors = ENG_MAX_ROW_ERRORS;
    e->parsed =
        eng_dataset_parse(bytes, format, &type, &e->set, e->errors, &e->n_errors, &e->eng_err);
    tell_bad_rows(e);
    if (e->parsed != ENG_OK || e->problems.count > 0) {
        return;
    }
    size_t most = (size_t)request_server(e->req)->config->max_evaluate_rows;
    e->n = eng_dataset_get_info(e->set)->rows;
    if (e->n > most) {
        problem_add(&e->problems, "#", e->file != NULL ? "file" : "rows",
                    "an evaluation takes at most %zu rows (setting max_evaluate_rows), found %zu",
                    most, e->n);
        return;
    }
    e->verdicts = calloc(e->n, sizeof *e->verdicts);
    e->parsed = e->verdicts != NULL ? ENG_OK : ENG_ENOMEM;
    for (size_t i = 0; i < e->n && e->verdicts != NULL; i++) {
        check_row(e, i);
    }
}

/* ---- pieces ----------------------------------------------------------------------------------- */

static void judge_options(struct evaluation *e, struct verdict *verdict,
                          const struct answer *answer)
{
    size_t best = 0;
    for (size_t k = 1; k < answer->n_options; k++) {
        best = answer->probabilities[k] > answer->probabilities[best] ? k : best;
    }
    double right =
        verdict->truth < answer->n_options ? (double)answer->probabilities[verdict->truth] : 0;
    verdict->predicted = best;
    verdict->score = (double)answer->probabilities[best];
    verdict->right = best == verdict->truth;
    e->loss -= log(right > 1e-30 ? right : 1e-30);
}

static eng_text field_of(const eng_input *input, const char *name)
{
    for (size_t i = 0; i < input->n_fields; i++) {
        if (input->fields[i].name.len == strlen(name) &&
            memcmp(input->fields[i].name.data, name, strlen(name)) == 0) {
            return input->fields[i].value;
        }
    }
    return (eng_text){"", 0};
}

static void judge_span(struct verdict *verdict, const eng_input *input, const struct answer *answer)
{
    eng_text context = field_of(input, "context");
    size_t from = 0, to = 0;
    if (answer->n_spans > 0 && !answer->spans[0].no_answer) {
        code_point_range(context, answer->spans[0].start, answer->spans[0].end, &from, &to);
    }
    verdict->answer = (eng_text){context.data + from, to - from};
    verdict->score = answer->n_spans > 0 ? answer->spans[0].score : 0;
}

static void judge_piece(struct evaluation *e)
{
    const struct prediction *p = &e->prediction;
    for (size_t i = 0; i < p->n; i++) {
        struct verdict *verdict = &e->verdicts[e->done + i];
        e->truncated += p->answers[i].truncated > 0;
        if (type_of(e) == ENG_EXTRACTIVE) {
            judge_span(verdict, &e->inputs[i], &p->answers[i]);
        } else {
            judge_options(e, verdict, &p->answers[i]);
        }
    }
    e->tokens += p->tokens;
    e->done += p->n;
}

static void send_piece(struct evaluation *e);
static void score(void *arg, store *reader);
static void show(struct request *req, void *arg);

static void reply_failed(struct evaluation *e)
{
    struct request *req = e->req;
    const struct prediction *p = &e->prediction;
    const struct config *config = request_server(req)->config;
    char pointer[160];
    if (e->admitted == FAIR_NOMEM) {
        reply_no_memory(req);
    } else if (e->admitted != FAIR_ADMITTED) {
        reply_full(req, "queue_tokens", config->queue_tokens);
    } else if (p->end == PREDICTION_FAILED) {
        size_t row = e->done + (p->failed_input != SIZE_MAX ? p->failed_input : 0);
        snprintf(pointer, sizeof pointer, "#/%s/%zu", e->file != NULL ? "file" : "rows", row);
        reply_eng_error(req, p->err.status, &p->err, pointer);
    } else if (p->end == PREDICTION_LATE) {
        reply_late(req);
    } else {
        reply_problem(req, 503, "stopping", NULL, "the server is stopping; try again");
    }
}

static void piece_is_done(struct request *req, void *arg)
{
    struct evaluation *e = arg;
    bool good = e->admitted == FAIR_ADMITTED && e->prediction.end == PREDICTION_DONE;
    if (good) {
        judge_piece(e);
    } else {
        e->tokens += e->prediction.tokens;
    }
    prediction_fini(&e->prediction);
    if (good && e->done < e->n && !request_is_over(req)) {
        send_piece(e);
        return;
    }
    settle(e);
    if (good && !request_is_over(req)) {
        request_offload(req, score, show, e);
    } else if (!request_is_over(req)) {
        reply_failed(e);
    }
}

static void on_done(struct prediction *prediction)
{
    struct evaluation *e = prediction->arg;
    request_resume(e->req, piece_is_done, e);
}

static void on_cancelled(struct request *req, void *arg)
{
    struct evaluation *e = arg;
    batcher_cancel(request_server(req)->batcher, &e->prediction);
}

static uint64_t share_of_bytes(const struct evaluation *e, size_t n)
{
    return e->bytes * n / e->n + 16;
}

static void send_piece(struct evaluation *e)
{
    struct request *req = e->req;
    size_t n = e->n - e->done < PIECE ? e->n - e->done : PIECE;
    for (size_t i = 0; i < n; i++) {
        eng_example row;
        eng_dataset_row(e->set, e->done + i, &row, NULL);
        e->inputs[i] = row.input;
    }
    e->prediction = (struct prediction){.tenant = request_tenant(req),
                                        .weight = request_weight(req),
                                        .version = e->version,
                                        .n = n,
                                        .bytes = share_of_bytes(e, n),
                                        .deadline_us = request_deadline_us(req),
                                        .done = on_done,
                                        .arg = e,
                                        .inputs = e->inputs};
    request_park(req, on_cancelled, e);
    e->admitted = batcher_submit(request_server(req)->batcher, &e->prediction);
    if (e->admitted != FAIR_ADMITTED) {
        e->prediction.end = PREDICTION_STOPPED;
        request_resume(req, piece_is_done, e);
    }
}

static void rows_are_read(struct request *req, void *arg)
{
    struct evaluation *e = arg;
    if (e->status != STORE_OK) {
        reply_store_error(req, e->status, &e->err);
    } else if (e->problems.count > 0) {
        reply_problems(req, &e->problems);
    } else if (e->parsed == ENG_ENOMEM) {
        reply_no_memory(req);
    } else if (e->parsed != ENG_OK) {
        reply_eng_error(req, e->parsed, &e->eng_err, e->file != NULL ? "#/file" : "#/rows");
    } else if (!request_is_over(req)) {
        struct prediction all = {.n = e->n, .bytes = e->bytes};
        e->taken = batcher_estimate(request_server(req)->batcher, &all);
        if (!request_take_tokens(req, e->taken)) {
            return;
        }
        send_piece(e);
    }
}

/* ---- scores ----------------------------------------------------------------------------------- */

static json_t *text_json(eng_text text)
{
    return json_stringn(text.data != NULL ? text.data : "", text.len);
}

static json_t *input_json(const eng_input *input)
{
    json_t *object = json_object();
    for (size_t i = 0; i < input->n_fields; i++) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)input->fields[i].name.len,
                 input->fields[i].name.data);
        json_put(object, name, text_json(input->fields[i].value));
    }
    json_t *options = input->n_options > 0 ? json_array() : NULL;
    for (size_t i = 0; i < input->n_options; i++) {
        json_array_append_new(options, text_json(input->options[i]));
    }
    if (options != NULL) {
        json_put(object, "options", options);
    }
    return object;
}

static json_t *option_json(const struct evaluation *e, const eng_example *row, size_t option)
{
    const struct form *form = e->version->form;
    if (has_labels(e)) {
        return text_json(form->labels[option]);
    }
    return option < row->input.n_options ? text_json(row->input.options[option]) : json_null();
}

static json_t *error_json(const struct evaluation *e, size_t i)
{
    const struct verdict *verdict = &e->verdicts[i];
    bool span = type_of(e) == ENG_EXTRACTIVE;
    eng_example row;
    eng_dataset_row(e->set, i, &row, NULL);
    return json_pack(
        "{s:I, s:o, s:o, s:o, s:f}", "row", (json_int_t)i, "input", input_json(&row.input), "label",
        span ? text_json(row.answer) : option_json(e, &row, verdict->truth), "predicted",
        span ? text_json(verdict->answer) : option_json(e, &row, verdict->predicted), "score",
        verdict->score);
}

static json_t *errors_json(const struct evaluation *e)
{
    json_t *list = json_array();
    for (size_t i = 0; i < e->n && json_array_size(list) < e->shown; i++) {
        if (!e->verdicts[i].right) {
            json_array_append_new(list, error_json(e, i));
        }
    }
    return list;
}

/* *macro_f1 too. null: the labels are not fixed. */
static json_t *confusion_json(const struct evaluation *e, double *macro_f1)
{
    const struct form *form = e->version->form;
    size_t n = form->n_labels;
    size_t *counts = has_labels(e) ? calloc(n * n, sizeof *counts) : NULL;
    if (counts == NULL) {
        return json_null();
    }
    for (size_t i = 0; i < e->n; i++) {
        counts[e->verdicts[i].truth * n + e->verdicts[i].predicted]++;
    }
    *macro_f1 = eng_macro_f1(counts, n);
    json_t *labels = json_array(), *matrix = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *row = json_array();
        for (size_t k = 0; k < n; k++) {
            json_array_append_new(row, json_integer((json_int_t)counts[i * n + k]));
        }
        json_array_append_new(labels, text_json(form->labels[i]));
        json_array_append_new(matrix, row);
    }
    free(counts);
    return json_pack("{s:o, s:o}", "labels", labels, "matrix", matrix);
}

/* Means over the rows; false: out of memory. */
static bool score_spans(struct evaluation *e, double *exact, double *f1)
{
    for (size_t i = 0; i < e->n; i++) {
        eng_example row;
        double one_exact = 0, one_f1 = 0;
        eng_dataset_row(e->set, i, &row, NULL);
        if (eng_score_answer(row.answer, e->verdicts[i].answer, &one_exact, &one_f1, &e->eng_err) !=
            ENG_OK) {
            return false;
        }
        e->verdicts[i].right = one_exact >= 1;
        *exact += one_exact / (double)e->n;
        *f1 += one_f1 / (double)e->n;
    }
    return true;
}

static void score(void *arg, store *reader)
{
    struct evaluation *e = arg;
    double exact = 0, f1 = 0;
    size_t right = 0;
    (void)reader;
    bool spans = type_of(e) == ENG_EXTRACTIVE;
    if (spans && !score_spans(e, &exact, &f1)) {
        return;
    }
    for (size_t i = 0; i < e->n; i++) {
        right += e->verdicts[i].right;
    }
    double accuracy = (double)right / (double)e->n, macro_f1 = spans ? f1 : accuracy;
    json_t *confusion = confusion_json(e, &macro_f1);
    json_t *body = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:o, s:o, s:o, s:{s:I}}", "object", "evaluation",
        "task", request_param(e->req, "task"), "task_version", (json_int_t)e->version->number,
        "rows", (json_int_t)e->n, "truncated_rows", (json_int_t)e->truncated, "accuracy", accuracy,
        "macro_f1", macro_f1, "loss", spans ? json_null() : json_real(e->loss / (double)e->n),
        "confusion", confusion, "errors", errors_json(e), "usage", "tokens", (json_int_t)e->tokens);
    if (spans && body != NULL &&
        (!json_put(body, "exact_match", json_real(exact)) ||
         !json_put(body, "f1", json_real(f1)))) {
        json_decref(body);
        body = NULL;
    }
    e->body = body;
}

static void show(struct request *req, void *arg)
{
    struct evaluation *e = arg;
    json_t *body = e->body;
    e->body = NULL;
    reply_json(req, 200, body);
}

/* ---- the request ------------------------------------------------------------------------------ */

static void evaluate_with(struct request *req, struct version *version, void *arg)
{
    struct evaluation *e = calloc(1, sizeof *e);
    const struct evaluation *asked = arg;
    store_mem *mem = store_mem_new();
    if (e == NULL || mem == NULL) {
        version_release(request_server(req)->registry, version);
        store_mem_free(mem);
        free(e);
        reply_no_memory(req);
        return;
    }
    *e = (struct evaluation){.req = req,
                             .version = version,
                             .file = asked->file,
                             .rows = asked->rows,
                             .shown = asked->shown,
                             .mem = mem};
    request_set_data(req, e, release);
    request_set_deadline(req, request_server(req)->config->evaluate_timeout);
    request_offload(req, read_rows, rows_are_read, e);
}

void ep_task_evaluate(struct request *req)
{
    static const char *const known[] = {"file", "rows", "version", "errors", NULL};
    const json_t *body = request_json(req);
    struct problems problems = {.count = 0};
    struct evaluation *asked = request_alloc(req, sizeof *asked);
    uint64_t version = 0, errors = 0;
    json_t *rows = NULL;
    if (asked == NULL) {
        reply_no_memory(req);
        return;
    }
    memset(asked, 0, sizeof *asked);
    json_only(body, "#", known, &problems);
    json_get_string(body, "#", "file", JSON_OPTIONAL_FIELD, 1, STORE_MAX_NAME, &asked->file,
                    &problems);
    json_get_array(body, "#", "rows", JSON_OPTIONAL_FIELD, 1, SIZE_MAX, &rows, &problems);
    json_get_u64(body, "#", "version", JSON_OPTIONAL_FIELD, 1, INT32_MAX, &version, &problems);
    json_get_u64(body, "#", "errors", JSON_OPTIONAL_FIELD, 0, MOST_SHOWN, &errors, &problems);
    if (problems.count == 0 && (asked->file == NULL) == (rows == NULL)) {
        problem_add(&problems, "#", rows != NULL ? "rows" : NULL, "%s",
                    rows != NULL ? "give \"file\" or \"rows\", not both" : NO_FILE);
    }
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return;
    }
    asked->rows = rows;
    asked->shown = (size_t)errors;
    const char *name = request_param(req, "task");
    if (version > 0) {
        name = request_printf(req, "%s@%d", name, (int)version);
    }
    if (name == NULL) {
        reply_no_memory(req);
        return;
    }
    task_resolve(req, name, NULL, evaluate_with, asked);
}
