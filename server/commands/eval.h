/* eval.h (private to cmd_eval.c and eval_report.c): what `mp2 eval` is asked, and what it found. */
#ifndef SERVER_COMMANDS_EVAL_H
#define SERVER_COMMANDS_EVAL_H

#include "server/commands/opened.h"

#include <jansson.h>

#define EVAL_MAX_SEEDS   64
#define EVAL_MAX_TASKS   128
#define EVAL_MAX_METHODS 16
#define EVAL_MAX_SHOTS   16
#define EVAL_MAX_REPORTS 4

struct eval_settings {
    struct open_request open;
    char *tasks[EVAL_MAX_TASKS]; /* malloc'ed */
    size_t n_tasks;
    const char *methods[EVAL_MAX_METHODS];
    size_t n_methods;
    uint64_t seeds[EVAL_MAX_SEEDS], shots[EVAL_MAX_SHOTS]; /* 0 shots: by the rule */
    size_t n_seeds, n_shots;
    const char *reports[EVAL_MAX_REPORTS];
    size_t n_reports;
    size_t limit, text_limit, steps, full_steps, eval_every, evaluations;
    double lr, prompt_lr;
    const char *init;
    bool json, no_label_scaling;
    const char *command_line; /* as it was given */
};

/* One method with one seed on one task. */
struct eval_run {
    bool done;
    uint64_t seed;
    eng_scores test;
    eng_adapt_result adapt; /* what it points to is freed */
    double seconds;
    bool diverged;
    json_t *confusion; /* (labels, labels) rows = truth, or NULL */
};

struct eval_task {
    char name[96];
    eng_task_type type;
    size_t labels, k[EVAL_MAX_SHOTS], test_rows;
    double majority, bag[EVAL_MAX_SHOTS]; /* means over the seeds; NaN: none */
    const char *bag_name;
};

struct eval_results {
    const struct eval_settings *settings;
    const eng_model_info *model;
    const eng_bank_info *bank;
    size_t threads;
    struct eval_task tasks[EVAL_MAX_TASKS];
    struct eval_run *runs; /* (tasks, shots, methods, seeds) */
};

static inline struct eval_run *eval_run_at(const struct eval_results *r, size_t task, size_t shot,
                                           size_t method, size_t seed)
{
    const struct eval_settings *s = r->settings;
    return &r->runs[((task * s->n_shots + shot) * s->n_methods + method) * s->n_seeds + seed];
}

/* What counts in one number: accuracy, of an extractive task the characters' F1. */
double eval_score(const struct eval_task *task, const struct eval_run *run);

struct eval_summary {
    double mean, deviation; /* of the score, over the seeds */
    double macro_f1, seconds, forward_passes, tokens;
};
struct eval_summary eval_summarise(const struct eval_results *r, size_t task, size_t shot,
                                   size_t method);

/* Text on standard output, as results come. */
void eval_print_head(const struct eval_results *r, size_t task, size_t shot);
void eval_print_method(const struct eval_results *r, size_t task, size_t shot, size_t method);
/* The whole as one JSON object; NULL when out of memory. */
json_t *eval_json(const struct eval_results *r);
/* Writes FILE.json or FILE.md. An exit code, the message printed. */
int eval_write_report(const struct eval_results *r, const char *path);

#endif
