/* jobreport.c: the validation rows once more, under what was learnt.
 *
 * After cross-validation no row is left that has not trained: the report is of the training rows
 * then, and says so ("errors_from").
 *
 * One pass in packed batches says which option each row got and counts the confusion. Rows that are
 * wrong are run again, alone, for the probability of what was predicted: there are at most fifty. Spans
 * are not kept by that pass, so extractive rows run alone until fifty wrong ones are found. Texts are
 * shown up to a length: the report is stored with the job.
 */
#include "server/jobreport.h"

#include <stdlib.h>
#include <string.h>

#define MAX_SHOWN 600 /* bytes of a text */

struct look {
    const struct job_report *report;
    eng_reading reading;      /* as the reported figures were read, not knowing these rows */
    eng_workspace *workspace; /* for one sequence of full length */
    float *start, *end;
    float *mix;
    json_t *errors;
};

/* ---- texts ---------------------------------------------------------------------------------- */

static json_t *shown(eng_text text)
{
    size_t len = text.len;
    if (len <= MAX_SHOWN) {
        return json_stringn(text.data, len);
    }
    len = MAX_SHOWN;
    while (len > 0 && ((unsigned char)text.data[len] & 0xC0) == 0x80) {
        len--; /* not in the middle of a character */
    }
    char cut[MAX_SHOWN + 4];
    memcpy(cut, text.data, len);
    memcpy(cut + len, "…", sizeof "…" - 1);
    return json_stringn(cut, len + sizeof "…" - 1);
}

static json_t *input_json(const eng_input *input)
{
    json_t *out = json_object();
    for (size_t i = 0; out != NULL && i < input->n_fields; i++) {
        const eng_field *field = &input->fields[i];
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)(field->name.len < 127 ? field->name.len : 127),
                 field->name.data);
        json_put(out, name, shown(field->value));
    }
    json_t *options = input->n_options > 0 ? json_array() : NULL;
    for (size_t i = 0; options != NULL && i < input->n_options; i++) {
        json_array_append_new(options, shown(input->options[i]));
    }
    if (options != NULL) {
        json_put(out, "options", options);
    }
    return out;
}

/* ---- one row alone ---------------------------------------------------------------------------- */

static eng_status run_alone(const struct look *look, const eng_encoded *encoded, eng_error *err)
{
    const struct server *server = look->report->server;
    const eng_adapt_result *result = look->report->result;
    size_t len = 0, n_read = 0;
    const int32_t *ids = eng_encoded_ids(encoded, &len);
    const uint32_t *read = eng_encoded_read(encoded, &n_read);
    const eng_sequence sequence = {.ids = ids,
                                   .len = len,
                                   .bank = server->bank,
                                   .mix = look->mix,
                                   .prompt = result->prompt,
                                   .head = result->head,
                                   .read = read,
                                   .n_read = n_read};
    return eng_forward(server->compute, look->workspace, ENG_TRAINING, server->model, &sequence, 1,
                       look->start, look->end, err);
}

static bool add_error(const struct look *look, size_t row, const eng_example *example,
                      json_t *label, json_t *predicted, double score)
{
    json_t *one = json_object();
    bool ok = json_put(one, "row", json_integer((json_int_t)row)) &&
              json_put(one, "input", input_json(&example->input)) &&
              json_put(one, "label", label) && json_put(one, "predicted", predicted) &&
              json_put(one, "score", json_real(score));
    return json_array_append_new(look->errors, ok ? one : NULL) == 0;
}

static eng_status no_memory(eng_error *err)
{
    *err = (eng_error){.status = ENG_ENOMEM, .text = "out of memory"};
    return ENG_ENOMEM;
}

static json_t *option_text(const struct look *look, const eng_example *example, size_t option)
{
    if (example->input.n_options > 0) {
        return option < example->input.n_options ? shown(example->input.options[option])
                                                 : json_null();
    }
    return option < eng_task_label_count(look->report->task)
               ? json_string(eng_task_label(look->report->task, option))
               : json_null();
}

static eng_status show_option(const struct look *look, size_t row, size_t predicted, eng_error *err)
{
    const eng_task *task = look->report->task;
    eng_example example;
    const char *word = NULL;
    eng_encoded *encoded = NULL;
    eng_dataset_row(look->report->rows->dev_set, row, &example, &word);
    eng_status status = eng_encode(task, &example.input, look->report->text_limit, &encoded, err);
    float *scores = calloc(ENG_MAX_LABELS, sizeof *scores);
    if (status == ENG_OK) {
        status = scores != NULL ? run_alone(look, encoded, err) : no_memory(err);
    }
    if (status == ENG_OK) {
        eng_decode_options(encoded, look->start, look->end, &look->reading.label_scaling, scores);
        json_t *label = word != NULL ? shown((eng_text){word, strlen(word)})
                                     : option_text(look, &example, example.label);
        double score = predicted < ENG_MAX_LABELS ? (double)scores[predicted] : 0;
        if (!add_error(look, row, &example, label, option_text(look, &example, predicted), score)) {
            status = no_memory(err);
        }
    }
    eng_encoded_free(encoded);
    free(scores);
    return status == ENG_ELIMIT ? ENG_OK : status; /* a row that does not fit is only counted */
}

/* ---- all rows ----------------------------------------------------------------------------------- */

/* Whether the row's label is the option; labels by their words, for the set numbers its own way. */
static bool is_right(const struct look *look, size_t row, size_t predicted)
{
    const eng_task *task = look->report->task;
    eng_example example;
    const char *word = NULL;
    eng_dataset_row(look->report->rows->dev_set, row, &example, &word);
    if (example.input.n_options > 0) {
        return predicted == example.label;
    }
    return predicted < eng_task_label_count(task) && word != NULL &&
           strcmp(eng_task_label(task, predicted), word) == 0;
}

static json_t *confusion_json(const eng_task *task, const size_t *counts)
{
    size_t n = eng_task_label_count(task);
    json_t *labels = json_array(), *matrix = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *line = json_array();
        for (size_t j = 0; j < n; j++) {
            json_array_append_new(line, json_integer((json_int_t)counts[i * n + j]));
        }
        json_array_append_new(labels, json_string(eng_task_label(task, i)));
        json_array_append_new(matrix, line);
    }
    return json_pack("{s:o, s:o}", "labels", labels, "matrix", matrix);
}

static eng_status look_at_options(const struct look *look, json_t **confusion, eng_error *err)
{
    const struct job_report *report = look->report;
    const struct job_rows *rows = report->rows;
    size_t labels = eng_task_label_count(report->task);
    size_t *predicted = calloc(rows->n_dev + 1, sizeof *predicted);
    size_t *counts = labels > 0 ? calloc(labels * labels, sizeof *counts) : NULL;
    eng_scores scores;
    eng_status status =
        predicted == NULL || (labels > 0 && counts == NULL) ? no_memory(err) : ENG_OK;
    if (status == ENG_OK) {
        status = eng_evaluate(report->server->compute, ENG_TRAINING, report->server->model,
                              report->server->bank, report->task, rows->dev_set, rows->dev,
                              rows->n_dev, look->mix, report->result->prompt, report->result->head,
                              &look->reading, report->text_limit, report->cancelled, report->arg,
                              predicted, counts, &scores, err);
    }
    for (size_t i = 0; status == ENG_OK && i < rows->n_dev; i++) {
        bool room = json_array_size(look->errors) < JOB_MAX_ERRORS;
        if (room && !is_right(look, rows->dev[i], predicted[i])) {
            status = show_option(look, rows->dev[i], predicted[i], err);
        }
    }
    if (status == ENG_OK && counts != NULL) {
        *confusion = confusion_json(report->task, counts);
    }
    free(predicted);
    free(counts);
    return status;
}

/* Code points [start, end) of a text. */
static eng_text slice(eng_text text, size_t start, size_t end)
{
    size_t at = 0, from = text.len, to = text.len;
    for (size_t i = 0; i < text.len; i++) {
        if (((unsigned char)text.data[i] & 0xC0) == 0x80) {
            continue;
        }
        from = at == start ? i : from;
        to = at == end ? i : to;
        at++;
    }
    from = from < to ? from : to;
    return (eng_text){text.data + from, to - from};
}

static eng_text context_of(const eng_input *input)
{
    for (size_t i = 0; i < input->n_fields; i++) {
        const eng_text name = input->fields[i].name;
        if (name.len == strlen("context") && memcmp(name.data, "context", name.len) == 0) {
            return input->fields[i].value;
        }
    }
    return (eng_text){0};
}

static eng_status look_at_span(const struct look *look, size_t row, eng_error *err)
{
    eng_example example;
    eng_encoded *encoded = NULL;
    eng_dataset_row(look->report->rows->dev_set, row, &example, NULL);
    eng_status status =
        eng_encode(look->report->task, &example.input, look->report->text_limit, &encoded, err);
    if (status == ENG_OK) {
        status = run_alone(look, encoded, err);
    }
    if (status == ENG_OK) {
        eng_span span = {.no_answer = true};
        bool any = eng_decode_spans(encoded, look->start, look->end, &look->reading.answer_length,
                                    0, &span, 1) > 0;
        eng_text got = {0};
        if (any && !span.no_answer) {
            got = slice(context_of(&example.input), span.start, span.end);
        }
        bool right = got.len == example.answer.len &&
                     (got.len == 0 || memcmp(got.data, example.answer.data, got.len) == 0);
        if (!right && !add_error(look, row, &example, shown(example.answer), shown(got),
                                 any ? span.score : 0)) {
            status = no_memory(err);
        }
    }
    eng_encoded_free(encoded);
    return status == ENG_ELIMIT ? ENG_OK : status;
}

static eng_status look_at_spans(const struct look *look, eng_error *err)
{
    const struct job_rows *rows = look->report->rows;
    eng_status status = ENG_OK;
    for (size_t i = 0; status == ENG_OK && i < rows->n_dev; i++) {
        if (json_array_size(look->errors) == JOB_MAX_ERRORS) {
            break;
        }
        if (look->report->cancelled(look->report->arg)) {
            *err = (eng_error){.status = ENG_ECANCELLED, .text = "cancelled"};
            return ENG_ECANCELLED;
        }
        status = look_at_span(look, rows->dev[i], err);
    }
    return status;
}

/* ---- the report ----------------------------------------------------------------------------------- */

static eng_status make_look(struct look *look, eng_error *err)
{
    const struct server *server = look->report->server;
    const eng_bank_info *bank = eng_bank_get_info(server->bank);
    size_t longest = eng_model_get_info(server->model)->positions;
    look->start = calloc(longest, sizeof *look->start);
    look->end = calloc(longest, sizeof *look->end);
    look->mix = calloc(bank->layers * bank->modules, sizeof *look->mix);
    look->errors = json_array();
    if (look->start == NULL || look->end == NULL || look->mix == NULL || look->errors == NULL) {
        return no_memory(err);
    }
    eng_route_mix(server->bank, look->report->result->route, look->mix);
    return eng_workspace_new(server->model, longest, 1, &look->workspace, err);
}

bool job_report_add(const struct job_report *report, json_t *out, eng_error *err)
{
    struct look look = {
        .report = report,
        .reading = {report->result->answer_length,
                    {report->result->dev_label_scaling, report->result->label_scaling_len}}};
    json_t *confusion = NULL;
    if (report->rows->n_dev == 0) {
        return true;
    }
    eng_status status = make_look(&look, err);
    if (status == ENG_OK && eng_task_get_type(report->task) == ENG_EXTRACTIVE) {
        status = look_at_spans(&look, err);
    } else if (status == ENG_OK) {
        status = look_at_options(&look, &confusion, err);
    }
    if (status == ENG_OK &&
        !(json_put(out, "confusion", confusion != NULL ? confusion : json_null()) &&
          json_put(out, "errors", json_incref(look.errors)) &&
          json_put(out, "errors_from",
                   json_string(report->rows->folds > 0 ? "training_rows" : "validation_rows")))) {
        status = no_memory(err);
    }
    json_decref(look.errors);
    eng_workspace_free(look.workspace);
    free(look.start);
    free(look.end);
    free(look.mix);
    return status == ENG_OK;
}
