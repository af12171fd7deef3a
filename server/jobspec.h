/* jobspec.h: what a training job is to do, in three shapes: the request a client sends, the spec that
 * is stored with the job (JSON text, every default that was known at creation filled in, so that it
 * can be run again to the bit), and what the engine is given.
 *
 * Threads.   Pure functions; jobspec_resolve reads the store through the handle it is given.
 */
#ifndef SERVER_JOBSPEC_H
#define SERVER_JOBSPEC_H

#include "server/json.h"
#include "server/server.h"
#include "store/store.h"

#define JOB_MAX_SUFFIX 64
#define JOB_MAX_SEED   ((uint64_t)1 << 53) /* what JSON carries whole */

/* ---- the request ------------------------------------------------------------------------------- */

/* Strings are borrowed from the body. 0 means: not given, the default. */
struct job_request {
    const char *model, *training_file, *validation_file, *suffix;
    const json_t *metadata; /* object of strings, or NULL */
    bool has_seed;
    uint64_t seed;
    uint64_t epochs, batch; /* hyperparameters; 0: "auto" */
    double lr_multiplier;

    /* of "mp2" */
    const char *task; /* as given, "acme/reviews" too */
    const char *type, *method, *init, *text_template;
    const json_t *labels;          /* array or NULL */
    bool may_have_no_answer, hold; /* hold: "publish": false */
    bool no_label_scaling;
    uint64_t steps, evaluations, eval_every, k_shot, text_limit;
    double seconds, lr, weight_decay;
};

/* Reads a POST /v1/fine_tuning/jobs body; what is wrong is added to `problems`. */
void job_request_read(const json_t *body, struct job_request *out, struct problems *problems);
/* Hex SHA-256 over the body's meaning (members sorted). False: out of memory. */
bool job_request_hash(const json_t *body, char out[65]);

/* ---- from request to spec -------------------------------------------------------------------------- */

struct job_resolving {
    /* in */
    const struct server *server;
    const struct job_request *request;
    int64_t tenant;
    const char *task_name; /* own name, or NULL: a new task is named after the job */
    store_mem *mem;        /* holds what is read */

    /* out */
    int status;        /* 0: fine; else the HTTP status */
    const char *code;  /* short word of the problem */
    const char *param; /* the field at fault */
    char text[512];    /* a sentence */
    int64_t task;      /* id when the task exists */
    char *spec;        /* JSON text, malloc'ed */
    char *estimate;    /* JSON text, malloc'ed */
};

/* Finds files and task, settles type, labels and template, checks that the engine accepts them, reads
 * the rows to estimate the cost. Takes milliseconds, more for a large file: for a worker. */
void jobspec_resolve(struct job_resolving *r, store *reader);

/* ---- from spec to the engine ------------------------------------------------------------------------ */

struct job_plan {
    json_t *spec; /* owned */
    eng_task_type type;
    eng_task_spec task; /* borrows from spec and labels */
    eng_text labels[ENG_MAX_LABELS];
    eng_rows_format training_format, validation_format;
    eng_adapt_config config;
    bool hold;       /* what is learnt is stored and not published */
    uint64_t epochs; /* 0: config.steps or the bank's default decides */
    size_t k_shot;   /* 0: folds, or a stratified half (jobrows.c) */
};

/* False: the stored spec does not parse (a damaged row), `why` says where. */
bool job_plan_read(struct job_plan *plan, const char *spec, uint64_t seed, const eng_bank *bank,
                   char *why, size_t size);
void job_plan_fini(struct job_plan *plan);

#endif
