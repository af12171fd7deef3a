/* rows_csv.c: RFC 4180 with a header line: commas, double quotes around fields that hold commas,
 * quotes ("" inside) or line ends; LF or CRLF.
 *
 * Column names are those of the JSONL rows; `options` holds its options with | between them. A quote
 * inside an unquoted field stands for itself. After a record whose quotes do not work out, reading
 * goes on at the line after its first: one stray quote must not swallow the file.
 */
#include "engine/codepoints.h"
#include "engine/dataset.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

struct csv {
    eng_text bytes;
    size_t at, line;
    char *buffer; /* the unquoted text of one record */
    size_t buffer_size;
    size_t used;
    eng_text cells[DATASET_MAX_COLUMNS];
    size_t n_cells;
    const char *trouble; /* why the record is bad; NULL when it is good */
    char names[4096];    /* the header, unquoted */
    eng_text columns[DATASET_MAX_COLUMNS];
    size_t n_columns;
};

static bool put(struct csv *csv, char c)
{
    if (csv->used == csv->buffer_size) {
        csv->trouble = "the record is longer than 1 MiB; is a quote missing?";
        return false;
    }
    csv->buffer[csv->used++] = c;
    return true;
}

static bool at_end_of_cell(const struct csv *csv, size_t i)
{
    if (i == csv->bytes.len) {
        return true;
    }
    char c = csv->bytes.data[i];
    return c == ',' || c == '\n' ||
           (c == '\r' && (i + 1 == csv->bytes.len || csv->bytes.data[i + 1] == '\n'));
}

static bool read_quoted(struct csv *csv, size_t *i)
{
    const char *s = csv->bytes.data;
    for ((*i)++; *i < csv->bytes.len; (*i)++) {
        if (s[*i] == '"') {
            if (*i + 1 < csv->bytes.len && s[*i + 1] == '"') {
                (*i)++;
            } else {
                (*i)++;
                if (!at_end_of_cell(csv, *i)) {
                    csv->trouble = "text after a closing quote: write a quote as \"\"";
                    return false;
                }
                return true;
            }
        }
        if (!put(csv, s[*i])) {
            return false;
        }
    }
    csv->trouble = "a quoted field is never closed";
    return false;
}

static bool read_cell(struct csv *csv, size_t *i)
{
    size_t from = csv->used;
    if (csv->n_cells == DATASET_MAX_COLUMNS) {
        csv->trouble = "more than 64 columns";
        return false;
    }
    if (*i < csv->bytes.len && csv->bytes.data[*i] == '"') {
        if (!read_quoted(csv, i)) {
            return false;
        }
    } else {
        for (; !at_end_of_cell(csv, *i); (*i)++) {
            if (!put(csv, csv->bytes.data[*i])) {
                return false;
            }
        }
    }
    csv->cells[csv->n_cells++] = (eng_text){csv->buffer + from, csv->used - from};
    return true;
}

static size_t line_end(const struct csv *csv, size_t from)
{
    const char *newline = memchr(csv->bytes.data + from, '\n', csv->bytes.len - from);
    return newline != NULL ? (size_t)(newline - csv->bytes.data) + 1 : csv->bytes.len;
}

/* Reads the record at csv->at and moves behind it; returns the line it began on. */
static size_t read_record(struct csv *csv)
{
    size_t start = csv->at, first = csv->line, i = csv->at;
    csv->used = csv->n_cells = 0;
    csv->trouble = NULL;
    while (read_cell(csv, &i) && i < csv->bytes.len && csv->bytes.data[i] == ',') {
        i++;
    }
    csv->at = line_end(csv, csv->trouble == NULL ? i : start);
    for (size_t k = start; k < csv->at; k++) {
        csv->line += csv->bytes.data[k] == '\n';
    }
    return first;
}

static bool named(eng_text name, const char *want)
{
    return name.len == strlen(want) && memcmp(name.data, want, name.len) == 0;
}

static eng_text trimmed(eng_text text)
{
    while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text.data++;
        text.len--;
    }
    while (text.len > 0 && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t')) {
        text.len--;
    }
    return text;
}

static eng_status check_column(struct csv *csv, size_t i, eng_error *err)
{
    eng_text name = csv->columns[i];
    if (name.len == 0) {
        return fail(err, ENG_EFORMAT, "header", "column %zu of the header has no name", i + 1);
    }
    for (size_t k = 0; k < i; k++) {
        if (csv->columns[k].len == name.len &&
            memcmp(csv->columns[k].data, name.data, name.len) == 0) {
            return fail(err, ENG_EFORMAT, "header", "the header names column %s twice",
                        quote(name).text);
        }
    }
    return ENG_OK;
}

static eng_status read_header(struct csv *csv, eng_error *err)
{
    read_record(csv);
    eng_text all = {csv->buffer, csv->used};
    if (csv->trouble != NULL || csv->used > sizeof csv->names) {
        return fail(err, ENG_EFORMAT, "header", "the header line is bad: %s",
                    csv->trouble != NULL ? csv->trouble : "longer than 4096 bytes");
    }
    if (cp_valid_prefix(all) < all.len || memchr(csv->buffer, '\0', csv->used) != NULL) {
        return fail(err, ENG_EFORMAT, "header", "the header line is not UTF-8 text");
    }
    memcpy(csv->names, csv->buffer, csv->used);
    csv->n_columns = csv->n_cells;
    eng_status status = ENG_OK;
    for (size_t i = 0; i < csv->n_columns && status == ENG_OK; i++) {
        eng_text cell = csv->cells[i];
        csv->columns[i] = trimmed((eng_text){csv->names + (cell.data - csv->buffer), cell.len});
        status = check_column(csv, i, err);
    }
    if (status == ENG_OK && csv->n_columns == 1) {
        status = fail(err, ENG_EFORMAT, "header",
                      "the header %s has one column: want names such as text,label with commas "
                      "between them",
                      quote(csv->columns[0]).text);
    }
    return status;
}

static bool split_options(struct dataset_builder *builder, struct raw_row *row, eng_text cell)
{
    row->has_options = cell.len > 0;
    for (size_t from = 0; from < cell.len || from == 0;) {
        const char *bar = cell.len > 0 ? memchr(cell.data + from, '|', cell.len - from) : NULL;
        size_t end = bar != NULL ? (size_t)(bar - cell.data) : cell.len;
        if (row->n_options == ENG_MAX_LABELS) {
            dataset_bad(builder, row->line, "/options", "more than %d options", ENG_MAX_LABELS);
            return false;
        }
        row->options[row->n_options++] = (eng_text){cell.data + from, end - from};
        from = end + 1;
        if (bar == NULL) {
            break;
        }
    }
    return true;
}

static bool take_start(struct dataset_builder *builder, struct raw_row *row, eng_text cell)
{
    char digits[16];
    char *end = NULL;
    cell = trimmed(cell);
    row->has_start = cell.len > 0;
    if (cell.len == 0) {
        return true;
    }
    if (cell.len < sizeof digits) {
        memcpy(digits, cell.data, cell.len);
        digits[cell.len] = '\0';
        row->answer_start = (double)strtol(digits, &end, 10);
    }
    if (end == NULL || end == digits || *end != '\0') {
        dataset_bad(builder, row->line, "/answer_start", "answer_start wants a number, found %s",
                    quote(cell).text);
        return false;
    }
    return true;
}

/* Puts cell i where its column's name says. False when the row was reported. */
static bool take_cell(struct dataset_builder *builder, struct raw_row *row, const struct csv *csv,
                      size_t i)
{
    eng_text name = csv->columns[i], cell = csv->cells[i];
    if (named(name, "label")) {
        row->label_kind = LABEL_WORD;
        row->label = cell;
    } else if (named(name, "options")) {
        return split_options(builder, row, cell);
    } else if (named(name, "answer_start")) {
        return take_start(builder, row, cell);
    } else if (named(name, "answer")) {
        row->has_answer = true;
        row->answer = cell;
    } else if (row->n_fields == ENG_MAX_FIELDS) {
        dataset_bad(builder, row->line, "", "more than %d text columns", ENG_MAX_FIELDS);
        return false;
    } else {
        row->fields[row->n_fields++] = (eng_field){name, cell};
    }
    return true;
}

static bool good_text(struct dataset_builder *builder, const struct csv *csv, size_t line)
{
    eng_text all = {csv->buffer, csv->used};
    size_t valid = cp_valid_prefix(all);
    const char *nul = memchr(csv->buffer, '\0', csv->used);
    if (valid < all.len) {
        dataset_bad(builder, line, "", "not UTF-8 at byte %zu of the record's text", valid + 1);
        return false;
    }
    if (nul != NULL) {
        dataset_bad(builder, line, "", "a NUL byte at byte %zu of the record's text",
                    (size_t)(nul - csv->buffer) + 1);
        return false;
    }
    return true;
}

static eng_status take_record(struct dataset_builder *builder, struct csv *csv, struct raw_row *row,
                              eng_error *err)
{
    memset(row, 0, sizeof *row);
    row->line = read_record(csv);
    if (csv->trouble != NULL) {
        dataset_bad(builder, row->line, "", "%s", csv->trouble);
        return ENG_OK;
    }
    if (csv->n_cells == 1 && trimmed(csv->cells[0]).len == 0) {
        return ENG_OK;
    }
    if (!good_text(builder, csv, row->line)) {
        return ENG_OK;
    }
    if (csv->n_cells != csv->n_columns) {
        dataset_bad(builder, row->line, "", "%zu fields, the header names %zu", csv->n_cells,
                    csv->n_columns);
        return ENG_OK;
    }
    for (size_t i = 0; i < csv->n_cells; i++) {
        if (!take_cell(builder, row, csv, i)) {
            return ENG_OK;
        }
    }
    return dataset_add(builder, row, err);
}

eng_status rows_read_csv(struct dataset_builder *builder, eng_text bytes, struct raw_row *scratch,
                         eng_error *err)
{
    eng_status status = ENG_OK;
    struct csv *csv = calloc(1, sizeof *csv);
    size_t room = bytes.len < DATASET_MAX_ROW_BYTES ? bytes.len : DATASET_MAX_ROW_BYTES;
    char *buffer = malloc(room + 1);
    if (csv == NULL || buffer == NULL) {
        status = fail_nomem(err, "dataset");
        goto out;
    }
    csv->bytes = bytes;
    csv->line = 1;
    csv->buffer = buffer;
    csv->buffer_size = room;
    if (bytes.len > 0) {
        status = read_header(csv, err);
    }
    while (status == ENG_OK && csv->at < bytes.len) {
        status = take_record(builder, csv, scratch, err);
    }
out:
    free(buffer);
    free(csv);
    return status;
}
