/* pretrain_args.h: what the subcommands of `mp2 pretrain` share: options as a table, and how a run is
 * shown while it lasts. One thread.
 */
#ifndef SERVER_PRETRAIN_ARGS_H
#define SERVER_PRETRAIN_ARGS_H

#include "engine/engine.h"

#include <stdio.h>

enum pretrain_option_kind {
    OPTION_SIZE,    /* size_t within min … max */
    OPTION_INT,     /* int32_t within min … max */
    OPTION_REAL,    /* double within min … max */
    OPTION_SEED,    /* uint64_t */
    OPTION_TEXT,    /* const char * */
    OPTION_LIST,    /* struct pretrain_list: given again, adds */
    OPTION_NAMES,   /* struct pretrain_list: "a,b,c" */
    OPTION_WEIGHTS, /* struct pretrain_weights: "a=3,b=2", each within min … max */
    OPTION_FLAG     /* bool: becomes true */
};

struct pretrain_option {
    const char *name; /* without -- */
    enum pretrain_option_kind kind;
    double min, max;
    void *out;
};

#define PRETRAIN_MAX_LIST    256
#define PRETRAIN_MAX_OPTIONS 64

struct pretrain_list {
    const char *items[PRETRAIN_MAX_LIST]; /* borrowed from argv */
    size_t n;
};
struct pretrain_weights {
    eng_task_weight items[PRETRAIN_MAX_LIST]; /* names borrowed from argv */
    size_t n;
};
/* False (message printed) when it is full. */
bool pretrain_list_add(struct pretrain_list *list, const char *item);

/* How a run is shown: a line that changes on a terminal, else a line every few seconds, and JSON Lines. */
struct pretrain_show {
    const char *metrics_path; /* NULL: `metrics_default` */
    char metrics_default[4096];
    FILE *metrics;
    bool terminal;
    double shown, perplexity, score;
};

/* Parses argv (argv[0] is skipped) by the n options; *rest receives the index of the first argument that
 * is none. Returns -1, or the exit code to end with: after --help, or when an argument is wrong. */
int pretrain_parse(int argc, char **argv, const struct pretrain_option *options, size_t n,
                   const char *help, int *rest);
/* The options of every run, into schedule, show and threads; returns how many were written to `options`,
 * which has room for them. */
size_t pretrain_run_options(eng_schedule *schedule, struct pretrain_show *show, size_t *threads,
                            struct pretrain_option *options);

/* An eng_on_pretrain for a struct pretrain_show: shows, writes metrics, and ends the run on SIGINT and
 * SIGTERM, which pretrain_show_begin catches. */
void pretrain_show_begin(struct pretrain_show *show);
bool pretrain_show_step(void *show, const eng_pretrain_progress *progress);
/* Closes the metrics; prints what went wrong, if anything did, and returns the exit code. */
int pretrain_show_end(struct pretrain_show *show, eng_status status, const eng_error *err);
int pretrain_error(const eng_error *err);

#endif
