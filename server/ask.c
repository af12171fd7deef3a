/* ask.c: a request's prediction on its way to the batcher and back. */
#include "server/ask.h"

#include "server/ask_inputs.h"
#include "server/config.h"

#include <stdlib.h>
#include <string.h>

static void release(void *data)
{
    struct ask *ask = data;
    prediction_fini(&ask->prediction);
    free(ask->out.data);
    json_decref(ask->keep);
    version_release(request_server(ask->req)->registry, ask->version);
}

struct ask *ask_new(struct request *req, struct version *version)
{
    struct ask *ask = request_alloc(req, sizeof *ask);
    if (ask == NULL) {
        version_release(request_server(req)->registry, version);
        reply_no_memory(req);
        return NULL;
    }
    memset(ask, 0, sizeof *ask);
    ask->req = req;
    ask->version = version;
    ask->pointer = "#/inputs";
    ask->max_text = request_server(req)->config->max_text;
    request_set_data(req, ask, release);
    return ask;
}

/* ---- endings --------------------------------------------------------------------------------- */

static void reply_failed(struct request *req, struct ask *ask)
{
    const struct prediction *p = &ask->prediction;
    char pointer[200];
    if (ask->problems != NULL) {
        reply_problems(req, ask->problems);
    } else if (p->failed_input != SIZE_MAX && ask->alone) {
        snprintf(pointer, sizeof pointer, "%s%s%s", ask->pointer, p->err.field[0] ? "/" : "",
                 p->err.field);
        reply_eng_error(req, p->err.status, &p->err, pointer);
    } else if (p->failed_input != SIZE_MAX) {
        snprintf(pointer, sizeof pointer, "%s/%zu%s%s", ask->pointer, p->failed_input,
                 p->err.field[0] ? "/" : "", p->err.field);
        reply_eng_error(req, p->err.status, &p->err, pointer);
    } else {
        bool own = ask->inline_prefix != NULL;
        snprintf(pointer, sizeof pointer, "%s%s", own ? ask->inline_prefix : "#/",
                 own ? p->err.field : "task");
        reply_eng_error(req, p->err.status, &p->err, pointer);
    }
}

static void reply_refused(struct request *req, enum fair_verdict verdict)
{
    const struct config *config = request_server(req)->config;
    if (verdict == FAIR_NOMEM) {
        reply_no_memory(req);
    } else {
        reply_full(req, "queue_tokens", config->queue_tokens);
    }
}

static void put_server_timing(struct request *req, const struct prediction *p)
{
    char text[160];
    snprintf(text, sizeof text, "tokenize;dur=%.3f, queue;dur=%.3f, infer;dur=%.3f",
             (double)p->encode_us * 1e-3, (double)p->queue_us * 1e-3, (double)p->infer_us * 1e-3);
    reply_header(req, "Server-Timing", text);
}

#define MAX_ANSWER   ((size_t)256 << 20)
#define LOOP_OPTIONS 1000 /* longer answers are written by a worker: some 300 ns an option */

static void give_text(struct request *req, void *arg)
{
    struct ask *ask = arg;
    if (ask->out.failed || ask->out.data == NULL) {
        reply_no_memory(req);
        return;
    }
    char *data = ask->out.data;
    ask->out.data = NULL;
    reply_take(req, 200, "application/json", data, ask->out.len, free);
}

static void write_on_worker(void *arg, store *reader)
{
    struct ask *ask = arg;
    (void)reader;
    ask->write(ask, &ask->out);
}

static void answer(struct request *req, struct ask *ask)
{
    size_t options = 0;
    for (size_t i = 0; i < ask->prediction.n; i++) {
        options += ask->prediction.answers[i].n_options + 1;
    }
    text_init(&ask->out, MAX_ANSWER);
    if (options > LOOP_OPTIONS) {
        request_offload(req, write_on_worker, give_text, ask);
        return;
    }
    ask->write(ask, &ask->out);
    give_text(req, ask);
}

static void finish(struct request *req, void *arg)
{
    struct ask *ask = arg;
    request_settle_tokens(req, ask->taken, ask->prediction.tokens, ask->prediction.computed);
    if (request_is_over(req)) {
        return;
    }
    if (ask->verdict != FAIR_ADMITTED) {
        reply_refused(req, ask->verdict);
        return;
    }
    switch (ask->prediction.end) {
    case PREDICTION_DONE:
        put_server_timing(req, &ask->prediction);
        answer(req, ask);
        break;
    case PREDICTION_FAILED:
        reply_failed(req, ask);
        break;
    case PREDICTION_LATE:
        reply_late(req);
        break;
    case PREDICTION_CANCELLED:
    case PREDICTION_STOPPED:
        reply_problem(req, 503, "stopping", NULL, "the server is stopping; try again");
        break;
    }
}

/* ---- the way there --------------------------------------------------------------------------- */

static void on_done(struct prediction *prediction)
{
    struct ask *ask = prediction->arg;
    request_resume(ask->req, finish, ask);
}

static void on_cancelled(struct request *req, void *arg)
{
    struct ask *ask = arg;
    batcher_cancel(request_server(req)->batcher, &ask->prediction);
}

/* Roughly what the texts take: the encoder's share and the bounds go by it. */
static uint64_t bytes_of(const json_t *value)
{
    uint64_t bytes = 16;
    const char *key;
    json_t *member;
    size_t i;
    if (json_is_string(value)) {
        return json_string_length(value);
    }
    if (json_is_array(value)) {
        json_array_foreach((json_t *)(uintptr_t)value, i, member)
        {
            bytes += bytes_of(member);
        }
    } else if (json_is_object(value)) {
        json_object_foreach((json_t *)(uintptr_t)value, key, member)
        {
            bytes += bytes_of(member);
        }
    }
    return bytes;
}

void ask_send(struct ask *ask)
{
    struct request *req = ask->req;
    ask->prediction = (struct prediction){.tenant = request_tenant(req),
                                          .weight = request_weight(req),
                                          .version = ask->version,
                                          .n = ask->alone ? 1 : json_array_size(ask->inputs),
                                          .bytes = bytes_of(ask->inputs),
                                          .n_best = ask->top_k,
                                          .max_answer = ask->max_answer,
                                          .deadline_us = request_deadline_us(req),
                                          .prepare = ask_prepare,
                                          .done = on_done,
                                          .arg = ask};
    ask->taken = batcher_estimate(request_server(req)->batcher, &ask->prediction);
    if (!request_take_tokens(req, ask->taken)) {
        return;
    }
    request_park(req, on_cancelled, ask);
    ask->verdict = batcher_submit(request_server(req)->batcher, &ask->prediction);
    if (ask->verdict != FAIR_ADMITTED) {
        ask->prediction.end = PREDICTION_STOPPED;
        request_resume(req, finish, ask);
    }
}

void ask_check_count(struct request *req, const char *key, size_t n, struct problems *problems)
{
    size_t most = request_server(req)->config->max_inputs;
    if (n == 0 || n > most) {
        problem_add(problems, "#", key,
                    "a request has 1 to %zu inputs (setting max_inputs), found %zu%s", most, n,
                    n > 0 ? ": send them in several" : "");
    }
}

/* ---- reading answers ------------------------------------------------------------------------- */

eng_text ask_field(const struct ask *ask, size_t input, const char *name)
{
    const eng_input *of = &ask->prediction.inputs[input];
    for (size_t i = 0; i < of->n_fields; i++) {
        const eng_field *field = &of->fields[i];
        if (field->name.len == strlen(name) &&
            memcmp(field->name.data, name, field->name.len) == 0) {
            return field->value;
        }
    }
    return (eng_text){"", 0};
}

eng_text ask_option(const struct ask *ask, size_t input, size_t option)
{
    const eng_input *of = &ask->prediction.inputs[input];
    return of->n_options > 0 ? of->options[option] : ask->version->form->labels[option];
}

struct ranked {
    float probability;
    size_t option;
};

/* Falling probability; equal ones in the order of the labels, so that answers are repeatable. */
static int by_probability(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->probability != y->probability) {
        return x->probability < y->probability ? 1 : -1;
    }
    return x->option < y->option ? -1 : x->option > y->option;
}

size_t ask_order(const struct ask *ask, size_t input, size_t order[ENG_MAX_LABELS])
{
    const struct answer *answer = &ask->prediction.answers[input];
    size_t n = answer->n_options < ENG_MAX_LABELS ? answer->n_options : ENG_MAX_LABELS;
    struct ranked ranked[ENG_MAX_LABELS];
    for (size_t i = 0; i < n; i++) {
        ranked[i] = (struct ranked){answer->probabilities[i], i};
    }
    qsort(ranked, n, sizeof ranked[0], by_probability);
    for (size_t i = 0; i < n; i++) {
        order[i] = ranked[i].option;
    }
    return n;
}

void code_point_range(eng_text text, size_t start, size_t end, size_t *from, size_t *to)
{
    size_t at = 0, seen = 0;
    *from = text.len;
    *to = text.len;
    for (; at < text.len; at++) {
        if (((unsigned char)text.data[at] & 0xC0) == 0x80) {
            continue;
        }
        if (seen == start) {
            *from = at;
        }
        if (seen == end) {
            *to = at;
            break;
        }
        seen++;
    }
    *to = *to < *from ? *from : *to;
}

eng_text ask_span_text(const struct ask *ask, size_t input, const eng_span *span)
{
    eng_text context = ask_field(ask, input, "context");
    size_t from = 0, to = 0;
    if (!span->no_answer) {
        code_point_range(context, span->start, span->end, &from, &to);
    }
    return (eng_text){context.data + from, to - from};
}

/* ---- writing --------------------------------------------------------------------------------- */

void ask_write_scored(struct text_out *out, const char *key, eng_text value, double score)
{
    text_puts(out, "\"");
    text_puts(out, key);
    text_puts(out, "\":");
    text_string(out, value.data, value.len);
    text_puts(out, ",\"score\":");
    text_number(out, score);
}

void ask_write_span(const struct ask *ask, size_t input, size_t k, struct text_out *out)
{
    static const eng_span none = {.no_answer = true};
    const struct answer *answer = &ask->prediction.answers[input];
    const eng_span *span = k < answer->n_spans ? &answer->spans[k] : &none;
    ask_write_scored(out, "answer", ask_span_text(ask, input, span), span->score);
    text_puts(out, ",\"start\":");
    text_integer(out, (int64_t)span->start);
    text_puts(out, ",\"end\":");
    text_integer(out, (int64_t)span->end);
}
