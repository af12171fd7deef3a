/* mrc_encode.c: an input as one sequence.
 *
 *     [CLS], P placeholder ids, template texts and fields, then
 *       classification, pair:  every label followed by the bank's separator
 *       choice:                the options with the separator between them, [SEP]
 *       extractive:            [SEP]
 *
 * Only field texts are cut. When they do not fit together, a common level is found such that fields
 * shorter than it survive untouched and longer ones are cut to it (the longest lose first). A cut keeps
 * the beginning, but of an extractive task's context the part that the question is about (mrc_window.h),
 * where it says so no more than the bank reads well, and of a training row one that has the answer. An
 * empty field is no tokens at all: the sequence then is the bare question, and its answer whatever the
 * model says to that.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/codepoints.h"
#include "engine/model.h"
#include "engine/mrc.h"
#include "engine/mrc_window.h"
#include "engine/status.h"
#include "engine/task.h"

#define NOT_SAID ((size_t)-1)
/* Of a longer context the first so many models' lengths are looked through for the part to read. */
#define LOOKED_THROUGH 64

/* A field's text on its way into the sequence. */
struct passage {
    struct token_range tokens; /* of encoder.tokens */
    size_t most;               /* tokens that may be kept, were there room */
    size_t uses;               /* occurrences in the template */
    size_t skip, keep;         /* of the tokens: those kept are [skip, skip + keep) */
    size_t code_points;        /* of the caller's text */
    size_t limited;            /* the first so many of them are in tokens */
};

/* The answer of a training row, in code points of the context; start = NOT_SAID when none. */
struct answer {
    size_t start, end;
};

struct encoding {
    const eng_task *task;
    const eng_input *input;
    size_t text_limit;
    struct answer answer;
    struct token_list tokens;
    struct passage passages[ENG_MAX_FIELDS];
    struct option_list own_options; /* of a choice example */
};

/* ---- reading the fields -------------------------------------------------------------------------- */

static const eng_text *find_field(const eng_input *input, const char *name)
{
    for (size_t i = 0; i < input->n_fields; i++) {
        const eng_text *field = &input->fields[i].name;
        if (field->len == strlen(name) && memcmp(field->data, name, field->len) == 0) {
            return &input->fields[i].value;
        }
    }
    return NULL;
}

static eng_status measure(eng_text text, const char *name, size_t *code_points, eng_error *err)
{
    size_t valid = cp_valid_prefix(text);
    *code_points = 0;
    if (valid < text.len) {
        return fail(err, ENG_EFORMAT, name, "not UTF-8 at byte %zu (0x%02x)", valid,
                    (unsigned char)text.data[valid]);
    }
    *code_points = cp_count(text);
    return ENG_OK;
}

static bool is_context(const struct encoding *encoding, size_t field)
{
    return encoding->task->type == ENG_EXTRACTIVE && field == encoding->task->context;
}

/* Of an extractive task's context a window is chosen later, when the question is known. */
static eng_text apply_text_limit(struct encoding *encoding, size_t field, eng_text text)
{
    struct passage *passage = &encoding->passages[field];
    passage->limited = passage->code_points;
    if (encoding->text_limit == 0 || passage->code_points <= encoding->text_limit ||
        is_context(encoding, field)) {
        return text;
    }
    passage->limited = encoding->text_limit;
    return (eng_text){text.data, cp_offset(text, passage->limited)};
}

/* The passage's tokens; NULL when it has none (the list may hold none at all). */
static const eng_token *tokens_of(const struct encoding *encoding, const struct passage *passage)
{
    return passage->tokens.n > 0 ? encoding->tokens.tokens + passage->tokens.first : NULL;
}

/* More tokens than positions cannot stay, unless a window is to be chosen among them. */
static size_t enough_tokens(const struct encoding *encoding, size_t field)
{
    size_t positions = encoding->task->model->params.positions;
    if (!is_context(encoding, field)) {
        return positions;
    }
    return encoding->answer.start != NOT_SAID ? SIZE_MAX : LOOKED_THROUGH * positions;
}

/* Windows of an extractive task's context. */
static struct window_ask ask_of(const struct encoding *encoding, const struct passage *passage)
{
    return (struct window_ask){.tokens = tokens_of(encoding, passage),
                               .n = passage->tokens.n,
                               .most_tokens = SIZE_MAX,
                               .narrow = encoding->task->bank->info.context_tokens,
                               .most_code_points = encoding->text_limit};
}

/* A choice example may come without its context; every other field must be there. */
static eng_status read_field(struct encoding *encoding, size_t field, eng_error *err)
{
    static const eng_text nothing = {"", 0};
    const char *name = encoding->task->template.names[field];
    struct passage *passage = &encoding->passages[field];
    const eng_text *value = find_field(encoding->input, name);
    if (value == NULL && encoding->task->type == ENG_CHOICE && strcmp(name, "context") == 0) {
        value = &nothing;
    }
    if (value == NULL) {
        return fail(err, ENG_EINVAL, name, "missing: the task's template reads {%s}", name);
    }
    eng_status status = measure(*value, name, &passage->code_points, err);
    if (status != ENG_OK) {
        return status;
    }
    eng_text text = apply_text_limit(encoding, field, *value);
    size_t first = encoding->tokens.n;
    size_t enough = enough_tokens(encoding, field);
    status =
        tokenizer_run_some(encoding->task->model->tokenizer, text, enough, &encoding->tokens, err);
    passage->tokens = (struct token_range){first, encoding->tokens.n - first};
    if (passage->tokens.n >= enough) {
        passage->tokens.n = enough; /* those behind may be cut short */
        passage->limited = encoding->tokens.tokens[first + enough - 1].end;
    }
    passage->most = passage->tokens.n;
    passage->uses = template_uses(&encoding->task->template, field);
    if (status == ENG_OK && is_context(encoding, field)) {
        struct window_ask ask = ask_of(encoding, passage);
        passage->most = window_room(&ask);
    }
    return status;
}

static eng_status read_options(struct encoding *encoding, eng_error *err)
{
    const eng_input *input = encoding->input;
    if (encoding->task->type != ENG_CHOICE) {
        return ENG_OK;
    }
    if (input->n_options < 2 || input->n_options > ENG_MAX_LABELS) {
        return fail(err, input->n_options < 2 ? ENG_EINVAL : ENG_ELIMIT, "options",
                    "%zu options; a choice has 2 to %d", input->n_options, ENG_MAX_LABELS);
    }
    return option_list_init(&encoding->own_options, encoding->task->model->tokenizer, "options",
                            input->options, input->n_options, err);
}

/* ---- fitting ---------------------------------------------------------------------------------------- */

static size_t cost_at_level(const struct encoding *encoding, size_t level)
{
    size_t cost = 0;
    for (size_t i = 0; i < encoding->task->template.n_fields; i++) {
        const struct passage *passage = &encoding->passages[i];
        size_t n = passage->most < level ? passage->most : level;
        cost += passage->uses * n;
    }
    return cost;
}

/* The greatest level not above `budget` (above it nothing fits) whose cost is within it. */
static size_t find_level(const struct encoding *encoding, size_t budget)
{
    size_t low = 0, high = budget;
    while (low < high) {
        size_t middle = high - (high - low) / 2;
        if (cost_at_level(encoding, middle) <= budget) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/* Tokens of the passage that touch code points [start, end) of the caller's text. */
static struct token_range tokens_over(const eng_token *tokens, size_t n, size_t start, size_t end)
{
    struct token_range range = {0, 0};
    for (size_t i = 0; i < n; i++) {
        if (tokens[i].end > start && tokens[i].start < end) {
            range.first = range.n == 0 ? i : range.first;
            range.n = i - range.first + 1;
        }
    }
    return range;
}

/* The context's window, of at most `keep` tokens. */
static eng_status choose_window(struct encoding *encoding, struct passage *passage, eng_error *err)
{
    struct token_range asked[ENG_MAX_FIELDS], window = {0, 0};
    struct window_ask ask = ask_of(encoding, passage);
    size_t n = 0;
    bool narrow = ask.narrow > 0 && ask.narrow < passage->keep;
    if ((passage->keep == passage->tokens.n && !narrow) || passage->keep == 0) {
        return ENG_OK;
    }
    ask.most_tokens = passage->keep;
    for (size_t i = 0; i < encoding->task->template.n_fields; i++) {
        if (i != encoding->task->context) {
            asked[n++] = encoding->passages[i].tokens;
        }
    }
    if (encoding->answer.start != NOT_SAID) {
        ask.answer = tokens_over(ask.tokens, ask.n, encoding->answer.start, encoding->answer.end);
    }
    eng_status status = window_choose(&ask, &encoding->tokens, asked, n, &window, err);
    passage->skip = window.first;
    passage->keep = window.n;
    return status;
}

static eng_status cut_fields(struct encoding *encoding, size_t budget, eng_error *err)
{
    size_t level = find_level(encoding, budget);
    size_t left = budget - cost_at_level(encoding, level);
    for (size_t i = 0; i < encoding->task->template.n_fields; i++) {
        struct passage *passage = &encoding->passages[i];
        passage->skip = 0;
        passage->keep = passage->most < level ? passage->most : level;
        if (passage->keep < passage->most && passage->uses <= left) {
            passage->keep++;
            left -= passage->uses;
        }
    }
    return encoding->task->type == ENG_EXTRACTIVE
               ? choose_window(encoding, &encoding->passages[encoding->task->context], err)
               : ENG_OK;
}

/* Code points of the caller's text outside the kept tokens; spaces at the cut count as left out. */
static size_t left_out(const struct encoding *encoding, const struct passage *passage)
{
    const eng_token *tokens = tokens_of(encoding, passage);
    size_t start = 0, end = passage->limited;
    if (passage->keep == 0 && passage->tokens.n > 0) {
        return passage->code_points;
    }
    if (passage->skip > 0) {
        start = tokens[passage->skip].start;
    }
    if (passage->skip + passage->keep < passage->tokens.n) {
        end = tokens[passage->skip + passage->keep - 1].end;
    }
    return passage->code_points - (end - start);
}

/* ---- writing the sequence ------------------------------------------------------------------------------ */

static void put(eng_encoded *encoded, const eng_token *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        encoded->ids[encoded->len++] = tokens[i].id;
    }
}

static void put_context(const struct encoding *encoding, const struct passage *passage,
                        eng_encoded *encoded)
{
    const eng_token *tokens = tokens_of(encoding, passage);
    encoded->context = (struct token_range){encoded->len, passage->keep};
    encoded->front_cut = passage->skip > 0;
    encoded->back_cut = passage->skip + passage->keep < passage->tokens.n ||
                        passage->limited < passage->code_points;
    for (size_t i = 0; i < passage->keep; i++) {
        encoded->context_tokens[i] = tokens[passage->skip + i];
    }
}

static void put_field(const struct encoding *encoding, size_t field, eng_encoded *encoded)
{
    const struct passage *passage = &encoding->passages[field];
    if (is_context(encoding, field)) {
        put_context(encoding, passage, encoded);
    }
    if (passage->keep > 0) {
        put(encoded, tokens_of(encoding, passage) + passage->skip, passage->keep);
    }
}

static void put_template(const struct encoding *encoding, eng_encoded *encoded)
{
    const eng_task *task = encoding->task;
    for (size_t i = 0; i < task->template.n_pieces; i++) {
        size_t field = task->template.pieces[i].field;
        if (field != TEMPLATE_LITERAL) {
            put_field(encoding, field, encoded);
            continue;
        }
        if (task->may_have_no_answer && i == task->no_answer_piece) {
            encoded->no_answer = task->no_answer;
            encoded->no_answer.first += encoded->len;
        }
        if (task->literal[i].n > 0) {
            put(encoded, task->literals.tokens + task->literal[i].first, task->literal[i].n);
        }
    }
}

static void put_options(const eng_task *task, const struct option_list *options,
                        eng_encoded *encoded)
{
    for (size_t i = 0; i < options->n; i++) {
        encoded->options[i] = (struct token_range){encoded->len, options->ranges[i].n};
        put(encoded, options->tokens.tokens + options->ranges[i].first, options->ranges[i].n);
        bool last = i + 1 == options->n;
        if (!(last && task->type == ENG_CHOICE)) {
            put(encoded, task->separator.tokens, task->separator.n);
        }
    }
    encoded->n_options = options->n;
}

static void put_sequence(const struct encoding *encoding, const struct option_list *options,
                         eng_encoded *encoded)
{
    const eng_task *task = encoding->task;
    encoded->ids[encoded->len++] = tokenizer_cls(task->model->tokenizer);
    for (size_t i = 0; i < task->bank->info.prompt_tokens; i++) {
        encoded->ids[encoded->len++] = task->bank->info.prompt_token_offset + (int32_t)i;
    }
    put_template(encoding, encoded);
    put_options(task, options, encoded);
    if (task->type == ENG_CHOICE || task->type == ENG_EXTRACTIVE) {
        encoded->ids[encoded->len++] = tokenizer_sep(task->model->tokenizer);
    }
}

static void mark(eng_encoded *encoded, size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        encoded->read[first + i] = 1;
    }
}

/* What mrc_decode.c looks at: marked in a cleared `read` (len), then gathered at its front. */
static void list_read(eng_encoded *encoded)
{
    for (size_t i = 0; i < encoded->n_options; i++) {
        mark(encoded, encoded->options[i].first, 1);
        mark(encoded, encoded->options[i].first + encoded->options[i].n - 1, 1);
    }
    mark(encoded, encoded->context.first, encoded->context.n);
    if (encoded->no_answer.n > 0) {
        mark(encoded, encoded->no_answer.first, 1);
        mark(encoded, encoded->no_answer.first + encoded->no_answer.n - 1, 1);
    }
    for (size_t t = 0; t < encoded->len; t++) {
        if (encoded->read[t] != 0) {
            encoded->read[encoded->n_read++] = (uint32_t)t;
        }
    }
}

static eng_status write_sequence(const struct encoding *encoding, const struct option_list *options,
                                 size_t len, eng_encoded **out, eng_error *err)
{
    size_t context = encoding->task->type == ENG_EXTRACTIVE
                         ? encoding->passages[encoding->task->context].keep
                         : 0;
    eng_encoded *encoded = calloc(1, sizeof *encoded);
    if (encoded == NULL) {
        return fail_nomem(err, "input");
    }
    /* len is at most the model's positions: no product below can wrap */
    encoded->ids = malloc(len * sizeof *encoded->ids);
    encoded->options = malloc((options->n + 1) * sizeof *encoded->options);
    encoded->context_tokens = malloc((context + 1) * sizeof *encoded->context_tokens);
    encoded->read = calloc(len, sizeof *encoded->read);
    if (encoded->ids == NULL || encoded->options == NULL || encoded->context_tokens == NULL ||
        encoded->read == NULL) {
        eng_encoded_free(encoded);
        return fail_nomem(err, "input");
    }
    put_sequence(encoding, options, encoded);
    list_read(encoded);
    for (size_t i = 0; i < encoding->task->template.n_fields; i++) {
        encoded->truncated += left_out(encoding, &encoding->passages[i]);
    }
    *out = encoded;
    return ENG_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static eng_status fit_and_write(struct encoding *encoding, eng_encoded **out, eng_error *err)
{
    const eng_task *task = encoding->task;
    const struct option_list *options =
        task->type == ENG_CHOICE ? &encoding->own_options : &task->options;
    size_t positions = task->model->params.positions, fixed = task->fixed;
    if (task->type == ENG_CHOICE) {
        fixed += options->tokens.n + (options->n - 1) * task->separator.n;
    }
    if (fixed > positions) {
        return fail(err, ENG_ELIMIT, "options",
                    "%zu options take %zu tokens, prompt and template %zu; the model reads %zu: "
                    "use fewer or shorter options",
                    options->n, fixed - task->fixed, task->fixed, positions);
    }
    eng_status status = cut_fields(encoding, positions - fixed, err);
    if (status != ENG_OK) {
        return status;
    }
    size_t len = fixed;
    for (size_t i = 0; i < task->template.n_fields; i++) {
        len += encoding->passages[i].uses * encoding->passages[i].keep;
    }
    return write_sequence(encoding, options, len, out, err);
}

static eng_status encode(struct encoding *encoding, eng_encoded **out, eng_error *err)
{
    eng_status status = ENG_OK;
    *out = NULL;
    for (size_t i = 0; status == ENG_OK && i < encoding->task->template.n_fields; i++) {
        status = read_field(encoding, i, err);
    }
    if (status == ENG_OK) {
        status = read_options(encoding, err);
    }
    if (status == ENG_OK) {
        status = fit_and_write(encoding, out, err);
    }
    token_list_fini(&encoding->tokens);
    option_list_fini(&encoding->own_options);
    return status;
}

eng_status eng_encode(const eng_task *task, const eng_input *input, size_t text_limit,
                      eng_encoded **out, eng_error *err)
{
    struct encoding encoding = {.task = task, .input = input, .text_limit = text_limit};
    encoding.answer.start = NOT_SAID;
    return encode(&encoding, out, err);
}

eng_status mrc_encode_for_training(const eng_task *task, const eng_example *row, size_t text_limit,
                                   eng_encoded **out, eng_error *err)
{
    struct encoding encoding = {.task = task, .input = &row->input, .text_limit = text_limit};
    encoding.answer.start = NOT_SAID;
    const eng_text *context = find_field(&row->input, "context");
    size_t length, total;
    if (task->type == ENG_EXTRACTIVE && row->answer.len > 0 && context != NULL &&
        measure(row->answer, "answer", &length, NULL) == ENG_OK &&
        measure(*context, "context", &total, NULL) == ENG_OK && row->answer_start <= total &&
        length <= total - row->answer_start) {
        encoding.answer = (struct answer){row->answer_start, row->answer_start + length};
    }
    return encode(&encoding, out, err);
}

void eng_encoded_free(eng_encoded *encoded)
{
    if (encoded != NULL) {
        free(encoded->ids);
        free(encoded->options);
        free(encoded->context_tokens);
        free(encoded->read);
        free(encoded);
    }
}

const int32_t *eng_encoded_ids(const eng_encoded *encoded, size_t *len)
{
    *len = encoded->len;
    return encoded->ids;
}

const uint32_t *eng_encoded_read(const eng_encoded *encoded, size_t *n)
{
    *n = encoded->n_read;
    return encoded->n_read > 0 ? encoded->read : NULL;
}

size_t eng_encoded_options(const eng_encoded *encoded)
{
    return encoded->n_options;
}

size_t eng_encoded_truncated(const eng_encoded *encoded)
{
    return encoded->truncated;
}

/* ---- targets -------------------------------------------------------------------------------------------- */

/* The answer stands in the row's context where the row says. */
static bool answer_is_there(const eng_example *row, size_t *end)
{
    const eng_text *context = find_field(&row->input, "context");
    size_t total, length;
    if (context == NULL || measure(*context, "context", &total, NULL) != ENG_OK ||
        measure(row->answer, "answer", &length, NULL) != ENG_OK || row->answer_start > total ||
        length > total - row->answer_start) {
        return false;
    }
    size_t at = cp_offset(*context, row->answer_start);
    *end = row->answer_start + length;
    return context->len - at >= row->answer.len &&
           memcmp(context->data + at, row->answer.data, row->answer.len) == 0;
}

static bool span_targets(const eng_encoded *encoded, const eng_example *row, size_t *start,
                         size_t *end)
{
    size_t answer_end, n = encoded->context.n;
    const eng_token *tokens = encoded->context_tokens;
    if (row->answer.len == 0) {
        *start = encoded->no_answer.first;
        *end = encoded->no_answer.first + encoded->no_answer.n - 1;
        return encoded->no_answer.n > 0;
    }
    if (!answer_is_there(row, &answer_end)) {
        return false;
    }
    struct token_range range = tokens_over(tokens, n, row->answer_start, answer_end);
    if (range.n == 0 || (encoded->front_cut && tokens[0].start > row->answer_start) ||
        (encoded->back_cut && tokens[n - 1].end < answer_end)) {
        return false;
    }
    *start = encoded->context.first + range.first;
    *end = *start + range.n - 1;
    return true;
}

bool mrc_targets(const eng_encoded *encoded, const eng_example *row, size_t *start, size_t *end)
{
    if (encoded->n_options == 0) {
        return span_targets(encoded, row, start, end);
    }
    if (row->label >= encoded->n_options) {
        return false;
    }
    *start = encoded->options[row->label].first;
    *end = *start + encoded->options[row->label].n - 1;
    return true;
}

/* ---- another order --------------------------------------------------------------------------------------- */

void mrc_reorder(const eng_encoded *encoded, const size_t *order, size_t label, int32_t *ids,
                 size_t *start, size_t *end)
{
    size_t n = encoded->n_options, at = encoded->options[0].first;
    memcpy(ids, encoded->ids, at * sizeof *ids);
    for (size_t j = 0; j < n; j++) {
        struct token_range option = encoded->options[order[j]], place = encoded->options[j];
        size_t behind = place.first + place.n; /* what follows place j follows it still */
        size_t gap = (j + 1 < n ? encoded->options[j + 1].first : encoded->len) - behind;
        if (order[j] == label) {
            *start = at;
            *end = at + option.n - 1;
        }
        memcpy(ids + at, encoded->ids + option.first, option.n * sizeof *ids);
        memcpy(ids + at + option.n, encoded->ids + behind, gap * sizeof *ids);
        at += option.n + gap;
    }
}
