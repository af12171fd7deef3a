/* task.c: checks a task and compiles what all its sequences share.
 *
 * Template texts and labels are tokenised once, piece by piece: a field is a unit, so a Latin word of
 * the template never grows into the text beside it, and an answer's tokens are never shared with the
 * template's.
 */
#include "engine/task.h"

#include <stdlib.h>
#include <string.h>

#include "engine/codepoints.h"
#include "engine/model.h"
#include "engine/status.h"

#define LEAST_TEXT_TOKENS 8

static bool has_labels(eng_task_type type)
{
    return type == ENG_CLASSIFICATION || type == ENG_PAIR;
}

/* ---- options ----------------------------------------------------------------------------------- */

eng_status option_list_init(struct option_list *list, const struct tokenizer *tokenizer,
                            const char *what, const eng_text *options, size_t n, eng_error *err)
{
    *list = (struct option_list){0};
    list->ranges = calloc(n > 0 ? n : 1, sizeof *list->ranges);
    if (list->ranges == NULL) {
        return fail_nomem(err, what);
    }
    for (size_t i = 0; i < n; i++) {
        char field[64];
        snprintf(field, sizeof field, "%s/%zu", what, i);
        size_t first = list->tokens.n;
        eng_status status = tokenizer_run(tokenizer, options[i], &list->tokens, NULL, err);
        if (status != ENG_OK) {
            if (err != NULL) {
                snprintf(err->field, sizeof err->field, "%s", field);
            }
            return status;
        }
        if (list->tokens.n == first) {
            return fail(err, ENG_EINVAL, field, "%s",
                        options[i].len == 0
                            ? "empty: an option must say something"
                            : "only spaces or control characters: no token is left");
        }
        list->ranges[i] = (struct token_range){first, list->tokens.n - first};
        list->n++;
    }
    return ENG_OK;
}

void option_list_fini(struct option_list *list)
{
    token_list_fini(&list->tokens);
    free(list->ranges);
    *list = (struct option_list){0};
}

/* ---- labels ------------------------------------------------------------------------------------ */

static eng_status check_label(const eng_text *labels, size_t i, eng_error *err)
{
    char field[64];
    snprintf(field, sizeof field, "labels/%zu", i);
    if (labels[i].len > ENG_MAX_LABEL_BYTES) {
        return fail(err, ENG_ELIMIT, field, "%zu bytes, a label has at most %d", labels[i].len,
                    ENG_MAX_LABEL_BYTES);
    }
    if (labels[i].len > 0 && memchr(labels[i].data, '\0', labels[i].len) != NULL) {
        return fail(err, ENG_EINVAL, field, "a NUL inside a label");
    }
    for (size_t j = 0; labels[i].len > 0 && j < i; j++) {
        if (labels[j].len == labels[i].len &&
            memcmp(labels[j].data, labels[i].data, labels[i].len) == 0) {
            return fail(err, ENG_EINVAL, field, "the same label as labels/%zu", j);
        }
    }
    return ENG_OK;
}

static eng_status check_labels(const eng_task_spec *spec, eng_error *err)
{
    if (!has_labels(spec->type)) {
        return spec->n_labels == 0
                   ? ENG_OK
                   : fail(err, ENG_EINVAL, "labels", "a task of type %s has no labels, %zu given",
                          eng_task_type_name(spec->type), spec->n_labels);
    }
    if (spec->n_labels < 2 || spec->n_labels > ENG_MAX_LABELS) {
        return fail(err, spec->n_labels < 2 ? ENG_EINVAL : ENG_ELIMIT, "labels",
                    "%zu labels; a task has 2 to %d", spec->n_labels, ENG_MAX_LABELS);
    }
    for (size_t i = 0; i < spec->n_labels; i++) {
        eng_status status = check_label(spec->labels, i, err);
        if (status != ENG_OK) {
            return status;
        }
    }
    return ENG_OK;
}

static eng_status keep_labels(eng_task *task, const eng_task_spec *spec, eng_error *err)
{
    eng_status status = option_list_init(&task->options, task->model->tokenizer, "labels",
                                         spec->labels, spec->n_labels, err);
    if (status != ENG_OK || spec->n_labels == 0) {
        return status;
    }
    task->labels = calloc(spec->n_labels, sizeof *task->labels);
    if (task->labels == NULL) {
        return fail_nomem(err, "labels");
    }
    for (size_t i = 0; i < spec->n_labels; i++) {
        task->labels[i] = strndup(spec->labels[i].data, spec->labels[i].len);
        if (task->labels[i] == NULL) {
            return fail_nomem(err, "labels");
        }
        task->n_labels++;
    }
    return ENG_OK;
}

/* ---- template ---------------------------------------------------------------------------------- */

static eng_status tokenize_literals(eng_task *task, eng_error *err)
{
    const struct template *template = &task->template;
    for (size_t i = 0; i < template->n_pieces; i++) {
        const struct template_piece *piece = &template->pieces[i];
        if (piece->field != TEMPLATE_LITERAL) {
            continue;
        }
        size_t first = task->literals.n;
        eng_text text = {template->literals + piece->start, piece->len};
        eng_status status = tokenizer_run(task->model->tokenizer, text, &task->literals, NULL, err);
        if (status != ENG_OK) {
            return status;
        }
        task->literal[i] = (struct token_range){first, task->literals.n - first};
    }
    return ENG_OK;
}

/* Finds 没有答案 in the hard prompt: the place a sequence without an answer points at. */
static eng_status find_no_answer(eng_task *task, eng_error *err)
{
    static const char words[] = "没有答案";
    const size_t words_len = sizeof words - 1;
    for (size_t i = 0; i < task->template.n_pieces; i++) {
        const struct template_piece *piece = &task->template.pieces[i];
        const char *text = task->template.literals + piece->start;
        const char *found =
            piece->field == TEMPLATE_LITERAL ? memmem(text, piece->len, words, words_len) : NULL;
        if (found == NULL) {
            continue;
        }
        size_t start = cp_count((eng_text){text, (size_t)(found - text)});
        size_t end = start + cp_count((eng_text){words, words_len});
        const eng_token *tokens = task->literals.tokens + task->literal[i].first;
        struct token_range range = {0, 0};
        for (size_t t = 0; t < task->literal[i].n; t++) {
            if (tokens[t].start >= start && tokens[t].end <= end) {
                range.first = range.n == 0 ? t : range.first;
                range.n = t - range.first + 1;
            }
        }
        task->no_answer_piece = i;
        task->no_answer = range;
        if (range.n > 0) {
            return ENG_OK;
        }
    }
    return fail(err, ENG_EINVAL, "template",
                "a task that may have no answer must say \"%s\" in its template", words);
}

static eng_status check_extractive(eng_task *task, eng_error *err)
{
    task->context = template_field(&task->template, "context", strlen("context"));
    size_t uses =
        task->context < task->template.n_fields ? template_uses(&task->template, task->context) : 0;
    if (uses != 1) {
        return fail(err, ENG_EINVAL, "template",
                    "an extractive task reads {context} exactly once, here %zu times", uses);
    }
    return task->may_have_no_answer ? find_no_answer(task, err) : ENG_OK;
}

static eng_status compile_template(eng_task *task, const eng_task_spec *spec, eng_error *err)
{
    eng_text text = spec->text_template;
    if (text.len == 0) {
        text.data = template_default(spec->type, spec->may_have_no_answer);
        text.len = strlen(text.data);
    }
    eng_status status = template_parse(text, &task->template, err);
    if (status == ENG_OK) {
        status = tokenize_literals(task, err);
    }
    if (status == ENG_OK && task->type == ENG_EXTRACTIVE) {
        status = check_extractive(task, err);
    }
    return status;
}

/* ---- the task ----------------------------------------------------------------------------------- */

static eng_status check_room(eng_task *task, eng_error *err)
{
    size_t positions = task->model->params.positions;
    size_t prompt = 1 + task->bank->info.prompt_tokens;
    size_t labels = task->options.tokens.n + task->n_labels * task->separator.n;
    size_t closing = has_labels(task->type) ? 0 : 1;
    task->fixed = prompt + task->literals.n + labels + closing;
    if (task->fixed + LEAST_TEXT_TOKENS > positions) {
        return fail(err, ENG_ELIMIT, has_labels(task->type) ? "labels" : "template",
                    "prompt %zu, template %zu and labels %zu tokens leave %zu of the model's %zu "
                    "for the text, at least %d are needed: use fewer or shorter labels",
                    prompt, task->literals.n + closing, labels,
                    task->fixed < positions ? positions - task->fixed : 0, positions,
                    LEAST_TEXT_TOKENS);
    }
    return ENG_OK;
}

static eng_status compile(eng_task *task, const eng_task_spec *spec, eng_error *err)
{
    const char *separator = task->bank->option_separator;
    eng_status status = check_labels(spec, err);
    if (status == ENG_OK) {
        status = compile_template(task, spec, err);
    }
    if (status == ENG_OK) {
        status = keep_labels(task, spec, err);
    }
    if (status == ENG_OK) {
        status = tokenizer_run(task->model->tokenizer, (eng_text){separator, strlen(separator)},
                               &task->separator, NULL, err);
    }
    if (status == ENG_OK) {
        status = check_room(task, err);
    }
    return status;
}

eng_status eng_task_new(const eng_model *model, const eng_bank *bank, const eng_task_spec *spec,
                        eng_task **out, eng_error *err)
{
    *out = NULL;
    if (model->tokenizer == NULL) {
        return fail(err, ENG_EINVAL, "model", "%s has no vocab.txt: it takes ids, not text",
                    model->name);
    }
    if (bank->model != model) {
        return fail(err, ENG_EMISMATCH, "bank", "%s was opened for another model", bank->name);
    }
    if ((size_t)spec->type > ENG_EXTRACTIVE) {
        return fail(err, ENG_EINVAL, "type", "%d is not a task type", (int)spec->type);
    }
    if (spec->may_have_no_answer && spec->type != ENG_EXTRACTIVE) {
        return fail(err, ENG_EINVAL, "may_have_no_answer", "only extractive tasks know it");
    }
    eng_task *task = calloc(1, sizeof *task);
    if (task == NULL) {
        return fail_nomem(err, "task");
    }
    task->model = model;
    task->bank = bank;
    task->type = spec->type;
    task->may_have_no_answer = spec->may_have_no_answer;
    eng_status status = compile(task, spec, err);
    if (status != ENG_OK) {
        eng_task_free(task);
        return status;
    }
    *out = task;
    return ENG_OK;
}

void eng_task_free(eng_task *task)
{
    if (task == NULL) {
        return;
    }
    for (size_t i = 0; i < task->n_labels; i++) {
        free(task->labels[i]);
    }
    free(task->labels);
    option_list_fini(&task->options);
    token_list_fini(&task->literals);
    token_list_fini(&task->separator);
    free(task);
}

static eng_status take_labels(eng_task *task, const eng_task *from, eng_error *err)
{
    for (size_t i = 0; i < task->n_labels; i++) {
        char *label = strdup(from->labels[i]);
        if (label == NULL) {
            return fail_nomem(err, "labels");
        }
        free(task->labels[i]);
        task->labels[i] = label;
    }
    return ENG_OK;
}

eng_status task_reworded(const eng_task *task, const eng_text *words, eng_task **out,
                         eng_error *err)
{
    const char *template = task->template.source;
    const eng_task_spec spec = {.type = task->type,
                                .text_template = {template, strlen(template)},
                                .labels = words,
                                .n_labels = task->n_labels,
                                .may_have_no_answer = task->may_have_no_answer};
    eng_status status = eng_task_new(task->model, task->bank, &spec, out, err);
    if (status == ENG_OK) {
        status = take_labels(*out, task, err);
    }
    if (status != ENG_OK) {
        eng_task_free(*out);
        *out = NULL;
    }
    return status;
}

eng_task_type eng_task_get_type(const eng_task *task)
{
    return task->type;
}

size_t eng_task_label_count(const eng_task *task)
{
    return task->n_labels;
}

const char *eng_task_label(const eng_task *task, size_t i)
{
    return i < task->n_labels ? task->labels[i] : NULL;
}

const char *eng_task_template(const eng_task *task)
{
    return task->template.source;
}

size_t eng_task_fields(const eng_task *task, const char *names[ENG_MAX_FIELDS])
{
    for (size_t i = 0; i < task->template.n_fields; i++) {
        names[i] = task->template.names[i];
    }
    return task->template.n_fields;
}
