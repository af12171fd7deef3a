/* opened.h: what every command that computes needs first: model, bank and compute threads.
 *
 * Lifetime: opened_close in any case, also after opened_open failed.
 */
#ifndef SERVER_OPENED_H
#define SERVER_OPENED_H

#include "engine/engine.h"

struct opened {
    eng_model *model;
    eng_bank *bank;
    eng_compute *compute;
};

struct open_request {
    const char *command; /* for messages: "eval" */
    const char *model;   /* --model or NULL */
    const char *bank;    /* --bank or NULL: the model's first */
    bool tied;
    size_t threads; /* 0: one a core */
};

/* An exit code; the message is printed. */
int opened_open(const struct open_request *request, struct opened *out);
void opened_close(struct opened *opened);

/* Prints "mp2 COMMAND: FIELD: TEXT" and returns the exit code that fits. */
int engine_failed(const char *command, eng_status status, const eng_error *err);

/* The whole of a regular file of at most max_bytes as a string; NULL (message printed) when it cannot
 * be read. The caller frees. path "-" is standard input. */
char *read_text_file(const char *command, const char *path, size_t max_bytes, size_t *len);

/* Rows of a file; the format from its name (.csv, else JSONL). Bad rows are listed on stderr. */
int open_rows(const char *command, const char *path, const eng_task_type *type, eng_dataset **out);

/* A spec from --type, --labels a,b,c and --template. `labels` (ENG_MAX_LABELS) is filled from
 * `words`, whose text it borrows. False (message printed) when wrong; NULLs are left out. */
bool parse_spec(const char *type, const char *words, const char *text_template, eng_text *labels,
                eng_task_spec *spec);
/* --init: average, random or retrieve. */
bool parse_init(const char *name, eng_init *init);

#endif
