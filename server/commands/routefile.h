/* routefile.h: a learnt route as a file: what `mp2 adapt` writes, `mp2 predict` reads, and
 * POST /v1/tasks/{task}/versions imports. One JSON object of a few hundred bytes: the task's form, the
 * route, and the fingerprints of the backbone and bank it belongs to. Methods that tune a prompt add it
 * as "prompt", and a head tuned with it as "head" (base64 of their float32 numbers). "label_scaling" says how the
 * labels of a task are read, "answer_length" how long the answers of an extractive one are.
 */
#ifndef SERVER_ROUTEFILE_H
#define SERVER_ROUTEFILE_H

#include "engine/engine.h"

#include <jansson.h>

struct route_file {
    json_t *root; /* owns every text below */
    eng_task_spec spec;
    eng_text labels[ENG_MAX_LABELS];
    float *route;                    /* (route_len of the bank) */
    float *prompt;                   /* (Lp, P, H) tuned, in place of the route's mix, or NULL */
    float *head;                     /* (2H + 2) tuned, in place of the bank's, or NULL */
    eng_answer_length answer_length; /* sigma 0: none */
    eng_label_scaling label_scaling; /* len 0: none */
    float *scaling;                  /* its numbers, or NULL */
};

/* The object to write; NULL when out of memory. `metrics` is taken. */
json_t *route_json_make(const eng_model *model, const eng_bank *bank, const eng_task *task,
                        bool may_have_no_answer, const char *method, const eng_adapt_result *result,
                        json_t *metrics);
/* Writes `root` to `path` by way of a temporary file beside it; "-" is standard output. Returns an
 * exit code, the message printed. */
int route_file_write(const char *command, const char *path, const json_t *root);

/* Reads a file for this model and bank. Another backbone or bank, a wrong count or a number that is
 * not finite is refused. Returns an exit code, the message printed; route_file_fini in any case. */
int route_file_read(const char *command, const char *path, const eng_model *model,
                    const eng_bank *bank, struct route_file *out);
void route_file_fini(struct route_file *file);

/* null for what is not finite: JSON has no NaN. */
json_t *json_number_or_null(double value);

#endif
