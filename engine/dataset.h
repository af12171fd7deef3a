/* dataset.h (private): how rows get from a file into an eng_dataset.
 *
 *     bytes → rows_jsonl.c | rows_csv.c → struct raw_row → dataset_add (checks, infers, copies)
 *
 * A reader knows its syntax only; dataset_add knows what a row of each task type must hold. Both
 * report a bad row with dataset_bad and go on. A builder belongs to one thread; the set that comes
 * out never changes.
 */
#ifndef ENGINE_DATASET_H
#define ENGINE_DATASET_H

#include "engine/engine.h"

#include <stdarg.h>

#define DATASET_MAX_ROWS      100000
#define DATASET_MAX_ROW_BYTES ((size_t)1 << 20)
#define DATASET_MAX_COLUMNS   64 /* keys of a JSON row, columns of a CSV header */

enum label_kind { LABEL_NONE, LABEL_WORD, LABEL_NUMBER };

/* One row as written. Everything is borrowed until the next row; text is valid UTF-8. */
struct raw_row {
    size_t line;
    eng_field fields[ENG_MAX_FIELDS]; /* string columns other than label, answer and options */
    size_t n_fields;
    bool chat; /* the fields come from "messages" */
    bool has_options;
    eng_text options[ENG_MAX_LABELS];
    size_t n_options;
    enum label_kind label_kind;
    eng_text label; /* LABEL_NUMBER: its digits, which lie in `digits` */
    char digits[24];
    bool has_answer, has_start;
    eng_text answer;
    double answer_start; /* negative: none, as SQuAD writes it */
};

struct dataset_builder {
    eng_dataset *set;
    const eng_task_type *asked; /* NULL: the first good row says */
    size_t type_line;           /* where it said so */
    eng_row_error *errors;
    size_t n_errors, max_errors;
};

/* Checks a row and adds it, or reports it as bad: ENG_OK in both cases. ENG_EFORMAT when the row is of
 * another type than the rows before, ENG_ELIMIT over DATASET_MAX_ROWS, ENG_ENOMEM. */
ENG_MUST_CHECK eng_status dataset_add(struct dataset_builder *builder, const struct raw_row *row,
                                      eng_error *err);
/* Counts a bad row and keeps the reason if there is room. */
void dataset_bad(struct dataset_builder *builder, size_t line, const char *pointer,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The two syntaxes. `scratch` is caller-provided room for a row. */
ENG_MUST_CHECK eng_status rows_read_jsonl(struct dataset_builder *builder, eng_text bytes,
                                          struct raw_row *scratch, eng_error *err);
ENG_MUST_CHECK eng_status rows_read_csv(struct dataset_builder *builder, eng_text bytes,
                                        struct raw_row *scratch, eng_error *err);

/* A text as an error message quotes it: at most 24 characters, then "…". */
struct quoted {
    char text[112];
};
struct quoted quote(eng_text text);

#endif
