/* dataset.c: a few-shot set in memory.
 *
 * Rows are checked one by one against what their task type needs, and copied into blocks that live
 * as long as the set; names of fields and label words are kept once. A bad row is reported and left
 * out, never guessed at: a wrong offset or label would teach the wrong thing silently.
 */
#include "engine/dataset.h"

#include "engine/codepoints.h"
#include "engine/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory of a set ----------------------------------------------------------------------- */

#define BLOCK_BYTES ((size_t)256 << 10)

struct block {
    struct block *next;
    size_t used, size;
    max_align_t data[];
};

struct set_row {
    eng_example example;
    const char *label_word;
};

#define MAX_NAMES 64

struct eng_dataset {
    eng_dataset_info info;
    struct set_row *rows;
    size_t capacity;
    const char *labels[ENG_MAX_LABELS];
    size_t label_len[ENG_MAX_LABELS];
    size_t label_rows[ENG_MAX_LABELS];
    eng_text names[MAX_NAMES]; /* field names, each kept once */
    size_t n_names;
    struct block *blocks;
};

static void *keep(eng_dataset *set, size_t bytes)
{
    const size_t align = sizeof(max_align_t);
    if (bytes > SIZE_MAX / 2) {
        return NULL;
    }
    bytes = (bytes + align - 1) / align * align;
    if (set->blocks == NULL || set->blocks->size - set->blocks->used < bytes) {
        size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        struct block *block = malloc(sizeof *block + size);
        if (block == NULL) {
            return NULL;
        }
        block->next = set->blocks;
        block->used = 0;
        block->size = size;
        set->blocks = block;
    }
    void *place = (char *)set->blocks->data + set->blocks->used;
    set->blocks->used += bytes;
    return place;
}

/* A copy that is also a string. */
static bool keep_text(eng_dataset *set, eng_text text, eng_text *out)
{
    char *copy = keep(set, text.len + 1);
    if (copy == NULL) {
        return false;
    }
    if (text.len > 0) {
        memcpy(copy, text.data, text.len);
    }
    copy[text.len] = '\0';
    *out = (eng_text){copy, text.len};
    return true;
}

static bool same_text(eng_text a, eng_text b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool keep_name(eng_dataset *set, eng_text name, eng_text *out)
{
    for (size_t i = 0; i < set->n_names; i++) {
        if (same_text(set->names[i], name)) {
            *out = set->names[i];
            return true;
        }
    }
    if (!keep_text(set, name, out)) {
        return false;
    }
    if (set->n_names < MAX_NAMES) {
        set->names[set->n_names++] = *out;
    }
    return true;
}

void eng_dataset_free(eng_dataset *set)
{
    if (set == NULL) {
        return;
    }
    for (struct block *block = set->blocks; block != NULL;) {
        struct block *next = block->next;
        free(block);
        block = next;
    }
    free(set->rows);
    free(set);
}

/* ---- reporting -------------------------------------------------------------------------------- */

struct quoted quote(eng_text text)
{
    struct quoted out;
    size_t bytes = cp_offset(text, 24);
    bytes = cp_fit((eng_text){text.data, bytes}, sizeof out.text - 8);
    snprintf(out.text, sizeof out.text, "\"%.*s%s\"", (int)bytes, bytes > 0 ? text.data : "",
             bytes < text.len ? "…" : "");
    return out;
}

/* Both sizes leave room: what is cut is cut between characters. */
static void copy_cut(char *out, size_t size, const char *text)
{
    size_t bytes = cp_fit((eng_text){text, strlen(text)}, size - 1);
    memcpy(out, text, bytes);
    out[bytes] = '\0';
}

void dataset_bad(struct dataset_builder *builder, size_t line, const char *pointer,
                 const char *format, ...)
{
    builder->set->info.bad_rows++;
    if (builder->n_errors == builder->max_errors) {
        return;
    }
    eng_row_error *error = &builder->errors[builder->n_errors++];
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    error->line = line;
    copy_cut(error->pointer, sizeof error->pointer, pointer);
    copy_cut(error->text, sizeof error->text, text);
}

/* ---- checking a row -------------------------------------------------------------------------- */

static const eng_text *field_of(const struct raw_row *row, const char *name)
{
    for (size_t i = 0; i < row->n_fields; i++) {
        eng_text field = row->fields[i].name;
        if (field.len == strlen(name) && memcmp(field.data, name, field.len) == 0) {
            return &row->fields[i].value;
        }
    }
    return NULL;
}

/* The type a row's fields speak of; false when none. */
static bool infer_type(const struct raw_row *row, eng_task_type *type)
{
    if (row->has_options) {
        *type = ENG_CHOICE;
    } else if (row->has_answer && row->label_kind == LABEL_NONE) {
        *type = ENG_EXTRACTIVE;
    } else if (field_of(row, "text_a") != NULL && field_of(row, "text_b") != NULL) {
        *type = ENG_PAIR;
    } else if (field_of(row, "text") != NULL) {
        *type = ENG_CLASSIFICATION;
    } else {
        return false;
    }
    return true;
}

/* A field the type cannot do without. */
static bool need(struct dataset_builder *builder, const struct raw_row *row, const char *name)
{
    char pointer[64];
    const eng_text *value = field_of(row, name);
    if (value != NULL && value->len > 0) {
        return true;
    }
    snprintf(pointer, sizeof pointer, row->chat ? "/messages" : "/%s", name);
    dataset_bad(builder, row->line, pointer, value == NULL ? "%s is missing" : "%s is empty", name);
    return false;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool check_label_word(struct dataset_builder *builder, const struct raw_row *row)
{
    const char *pointer = row->chat ? "/messages" : "/label";
    if (row->label_kind == LABEL_NONE) {
        dataset_bad(builder, row->line, pointer, "label is missing");
    } else if (row->label.len == 0) {
        dataset_bad(builder, row->line, pointer, "label is empty");
    } else if (row->label.len > ENG_MAX_LABEL_BYTES) {
        dataset_bad(builder, row->line, pointer, "label has %zu bytes, at most %d are allowed",
                    row->label.len, ENG_MAX_LABEL_BYTES);
    } else if (is_blank(row->label.data[0]) || is_blank(row->label.data[row->label.len - 1])) {
        dataset_bad(builder, row->line, pointer, "label %s has blanks around it",
                    quote(row->label).text);
    } else {
        return true;
    }
    return false;
}

/* Index of the row's label word in the set, a new one if need be. ENG_MAX_LABELS: reported as bad. */
static bool label_index(struct dataset_builder *builder, const struct raw_row *row, size_t *index,
                        eng_status *status, eng_error *err)
{
    eng_dataset *set = builder->set;
    for (size_t i = 0; i < set->info.labels; i++) {
        if (same_text((eng_text){set->labels[i], set->label_len[i]}, row->label)) {
            *index = i;
            return true;
        }
    }
    if (set->info.labels == ENG_MAX_LABELS) {
        dataset_bad(builder, row->line, "/label",
                    "label %s is one more than the %d distinct labels allowed",
                    quote(row->label).text, ENG_MAX_LABELS);
        return false;
    }
    eng_text kept;
    if (!keep_text(set, row->label, &kept)) {
        *status = fail_nomem(err, "dataset");
        return false;
    }
    *index = set->info.labels++;
    set->labels[*index] = kept.data;
    set->label_len[*index] = kept.len;
    return true;
}

/* The option a choice row calls right: by its text, or by its index from 0. */
static bool choice_label(struct dataset_builder *builder, const struct raw_row *row, size_t *index)
{
    size_t found = 0;
    for (size_t i = 0; i < row->n_options; i++) {
        if (row->label_kind == LABEL_WORD && same_text(row->options[i], row->label)) {
            *index = i;
            found++;
        }
    }
    if (found == 1) {
        return true;
    }
    if (found > 1) {
        dataset_bad(builder, row->line, "/label",
                    "label %s is the text of %zu options: give its index", quote(row->label).text,
                    found);
        return false;
    }
    size_t value = 0, digits = 0;
    while (digits < row->label.len && digits < 6 && row->label.data[digits] >= '0' &&
           row->label.data[digits] <= '9') {
        value = value * 10 + (size_t)(row->label.data[digits++] - '0');
    }
    if (digits > 0 && digits == row->label.len && value < row->n_options) {
        *index = value;
        return true;
    }
    dataset_bad(builder, row->line, "/label",
                "label %s is neither one of the options nor an index from 0 to %zu",
                quote(row->label).text, row->n_options - 1);
    return false;
}

static bool check_options(struct dataset_builder *builder, const struct raw_row *row)
{
    char pointer[64];
    if (row->n_options < 2) {
        dataset_bad(builder, row->line, "/options", "options has %zu, at least 2 are needed",
                    row->n_options);
        return false;
    }
    for (size_t i = 0; i < row->n_options; i++) {
        if (row->options[i].len == 0) {
            snprintf(pointer, sizeof pointer, "/options/%zu", i);
            dataset_bad(builder, row->line, pointer, "option is empty");
            return false;
        }
    }
    return true;
}

static size_t find_text(eng_text in, size_t from, eng_text what)
{
    const char *hit = memmem(in.data + from, in.len - from, what.data, what.len);
    return hit == NULL ? SIZE_MAX : (size_t)(hit - in.data);
}

/* Without a start the answer must occur exactly once. */
static bool find_answer(struct dataset_builder *builder, const struct raw_row *row,
                        eng_text context, size_t *start)
{
    size_t first = find_text(context, 0, row->answer);
    if (first == SIZE_MAX) {
        dataset_bad(builder, row->line, "/answer", "answer %s does not occur in the context",
                    quote(row->answer).text);
        return false;
    }
    if (find_text(context, first + 1, row->answer) != SIZE_MAX) {
        dataset_bad(builder, row->line, "/answer_start",
                    "answer %s occurs more than once in the context: give answer_start",
                    quote(row->answer).text);
        return false;
    }
    *start = cp_count((eng_text){context.data, first});
    return true;
}

static bool check_answer(struct dataset_builder *builder, const struct raw_row *row, size_t *start)
{
    eng_text context = *field_of(row, "context");
    *start = 0;
    if (!row->has_answer) {
        dataset_bad(builder, row->line, "/answer", "answer is missing (empty: no answer)");
        return false;
    }
    if (row->answer.len == 0) {
        return true;
    }
    if (!row->has_start) {
        return find_answer(builder, row, context, start);
    }
    size_t codepoints = cp_count(context);
    if (!(row->answer_start >= 0) || row->answer_start > (double)codepoints ||
        row->answer_start != floor(row->answer_start)) {
        dataset_bad(builder, row->line, "/answer_start",
                    "answer_start is %g, the context has %zu code points", row->answer_start,
                    codepoints);
        return false;
    }
    *start = (size_t)row->answer_start;
    size_t byte = cp_offset(context, *start);
    if (context.len - byte >= row->answer.len &&
        memcmp(context.data + byte, row->answer.data, row->answer.len) == 0) {
        return true;
    }
    size_t hit = find_text(context, 0, row->answer);
    if (hit == SIZE_MAX) {
        dataset_bad(builder, row->line, "/answer", "answer %s does not occur in the context",
                    quote(row->answer).text);
    } else {
        dataset_bad(builder, row->line, "/answer_start",
                    "answer %s is not at code point %zu of the context; it is at %zu",
                    quote(row->answer).text, *start, cp_count((eng_text){context.data, hit}));
    }
    return false;
}

/* Everything but memory: true when the row can be kept as `type`. */
static bool check_row(struct dataset_builder *builder, const struct raw_row *row,
                      eng_task_type type, size_t *label, size_t *start, eng_status *status,
                      eng_error *err)
{
    switch (type) {
    case ENG_CLASSIFICATION:
    case ENG_PAIR:
        /* Where the type was asked for, a template may name fields of its own. */
        if (builder->asked == NULL || row->n_fields == 0) {
            if (type == ENG_CLASSIFICATION
                    ? !need(builder, row, "text")
                    : !need(builder, row, "text_a") || !need(builder, row, "text_b")) {
                return false;
            }
        }
        return check_label_word(builder, row) && label_index(builder, row, label, status, err);
    case ENG_CHOICE:
        return need(builder, row, "question") && check_options(builder, row) &&
               check_label_word(builder, row) && choice_label(builder, row, label);
    case ENG_EXTRACTIVE:
        return need(builder, row, "context") && need(builder, row, "question") &&
               check_answer(builder, row, start);
    }
    return false;
}

/* ---- adding -------------------------------------------------------------------------------------- */

static bool keep_fields(eng_dataset *set, const struct raw_row *row, eng_input *input)
{
    eng_field *fields = keep(set, sizeof *fields * (row->n_fields + 1));
    if (fields == NULL) {
        return false;
    }
    for (size_t i = 0; i < row->n_fields; i++) {
        if (!keep_name(set, row->fields[i].name, &fields[i].name) ||
            !keep_text(set, row->fields[i].value, &fields[i].value)) {
            return false;
        }
    }
    input->fields = fields;
    input->n_fields = row->n_fields;
    return true;
}

static bool keep_options(eng_dataset *set, const struct raw_row *row, eng_input *input)
{
    eng_text *options = keep(set, sizeof *options * row->n_options);
    if (options == NULL) {
        return false;
    }
    for (size_t i = 0; i < row->n_options; i++) {
        if (!keep_text(set, row->options[i], &options[i])) {
            return false;
        }
    }
    input->options = options;
    input->n_options = row->n_options;
    return true;
}

static bool grow(eng_dataset *set)
{
    if (set->info.rows < set->capacity) {
        return true;
    }
    size_t capacity = set->capacity == 0 ? 64 : set->capacity * 2;
    struct set_row *rows = realloc(set->rows, capacity * sizeof *rows);
    if (rows == NULL) {
        return false;
    }
    set->rows = rows;
    set->capacity = capacity;
    return true;
}

static eng_status keep_row(eng_dataset *set, const struct raw_row *raw, size_t label, size_t start,
                           eng_error *err)
{
    struct set_row row = {.example = {.label = label, .answer_start = start}};
    eng_input *input = &row.example.input;
    if (!grow(set) || !keep_fields(set, raw, input) ||
        (set->info.type == ENG_CHOICE && !keep_options(set, raw, input)) ||
        (set->info.type == ENG_EXTRACTIVE && !keep_text(set, raw->answer, &row.example.answer))) {
        return fail_nomem(err, "dataset");
    }
    if (set->info.type == ENG_CHOICE) {
        row.label_word = input->options[label].data;
    } else if (set->info.type != ENG_EXTRACTIVE) {
        row.label_word = set->labels[label];
        set->label_rows[label]++;
    }
    set->rows[set->info.rows++] = row;
    return ENG_OK;
}

/* The type this row is read as; false when it was reported or is a mixed file (*status). */
static bool row_type(struct dataset_builder *builder, const struct raw_row *row,
                     eng_task_type *type, eng_status *status, eng_error *err)
{
    eng_dataset *set = builder->set;
    if (builder->asked != NULL) {
        *type = *builder->asked;
        return true;
    }
    if (!infer_type(row, type)) {
        dataset_bad(builder, row->line, "",
                    "no known shape: wants text, text_a and text_b, question and options, question "
                    "and context with answer, or messages");
        return false;
    }
    if (set->info.rows > 0 && *type != set->info.type) {
        *status = fail(err, ENG_EFORMAT, "type",
                       "line %zu is a row of type %s, line %zu one of type %s: a file holds one "
                       "type",
                       row->line, eng_task_type_name(*type), builder->type_line,
                       eng_task_type_name(set->info.type));
        return false;
    }
    return true;
}

eng_status dataset_add(struct dataset_builder *builder, const struct raw_row *row, eng_error *err)
{
    eng_dataset *set = builder->set;
    eng_status status = ENG_OK;
    eng_task_type type;
    size_t label = 0, start = 0;
    if (!row_type(builder, row, &type, &status, err) ||
        !check_row(builder, row, type, &label, &start, &status, err)) {
        return status;
    }
    if (set->info.rows == DATASET_MAX_ROWS) {
        return fail(err, ENG_ELIMIT, "rows", "more than %d rows: split the file", DATASET_MAX_ROWS);
    }
    if (set->info.rows == 0) {
        set->info.type = type;
        builder->type_line = row->line;
    }
    return keep_row(set, row, label, start, err);
}

/* ---- the public face ------------------------------------------------------------------------------- */

/* Skips a byte order mark; UTF-16, which some spreadsheets write, is refused by name. */
static eng_status skip_mark(eng_text *bytes, eng_error *err)
{
    const unsigned char *s = (const unsigned char *)bytes->data;
    if (bytes->len >= 2 && ((s[0] == 0xFF && s[1] == 0xFE) || (s[0] == 0xFE && s[1] == 0xFF))) {
        return fail(err, ENG_EFORMAT, "file", "the file is UTF-16: save it as UTF-8");
    }
    if (bytes->len >= 3 && s[0] == 0xEF && s[1] == 0xBB && s[2] == 0xBF) {
        bytes->data += 3;
        bytes->len -= 3;
    }
    return ENG_OK;
}

static eng_status read_rows(struct dataset_builder *builder, eng_text bytes, eng_rows_format format,
                            struct raw_row *scratch, eng_error *err)
{
    eng_status status = skip_mark(&bytes, err);
    if (status == ENG_OK && format == ENG_ROWS_CSV) {
        status = rows_read_csv(builder, bytes, scratch, err);
    } else if (status == ENG_OK) {
        status = rows_read_jsonl(builder, bytes, scratch, err);
    }
    if (status == ENG_OK && builder->set->info.rows == 0) {
        const char *found = builder->n_errors > 0 ? builder->errors[0].text : "the file is empty";
        size_t line = builder->n_errors > 0 ? builder->errors[0].line : 0;
        status = fail(err, ENG_EFORMAT, "rows", "no good row: %zu bad; line %zu: %s",
                      builder->set->info.bad_rows, line, found);
    }
    return status;
}

eng_status eng_dataset_parse(eng_text bytes, eng_rows_format format, const eng_task_type *type,
                             eng_dataset **out, eng_row_error *errors, size_t *n_errors,
                             eng_error *err)
{
    *out = NULL;
    eng_row_error first;
    bool wanted = errors != NULL && n_errors != NULL;
    struct dataset_builder builder = {.asked = type,
                                      .errors = wanted ? errors : &first,
                                      .max_errors = wanted ? ENG_MAX_ROW_ERRORS : 1};
    struct raw_row *scratch = malloc(sizeof *scratch);
    builder.set = calloc(1, sizeof *builder.set);
    eng_status status = ENG_OK;
    if (n_errors != NULL) {
        *n_errors = 0;
    }
    if (scratch == NULL || builder.set == NULL) {
        status = fail_nomem(err, "dataset");
        goto out;
    }
    builder.set->info.type = type != NULL ? *type : ENG_CLASSIFICATION;
    status = read_rows(&builder, bytes, format, scratch, err);
    if (wanted) {
        *n_errors = builder.n_errors;
    }
    if (status == ENG_OK) {
        *out = builder.set;
        builder.set = NULL;
    }
out:
    eng_dataset_free(builder.set);
    free(scratch);
    return status;
}

const eng_dataset_info *eng_dataset_get_info(const eng_dataset *set)
{
    return &set->info;
}

const char *eng_dataset_label(const eng_dataset *set, size_t i)
{
    return i < set->info.labels ? set->labels[i] : NULL;
}

size_t eng_dataset_label_rows(const eng_dataset *set, size_t i)
{
    return i < set->info.labels ? set->label_rows[i] : 0;
}

void eng_dataset_row(const eng_dataset *set, size_t i, eng_example *row, const char **label_word)
{
    *row = set->rows[i].example;
    if (label_word != NULL) {
        *label_word = set->rows[i].label_word;
    }
}
