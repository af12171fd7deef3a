/* inspect_mlm.c: mp2 inspect mlm: what a model's masked-language head puts at each position. */
#include "server/commands/commands.h"
#include "server/commands/inspect.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define TOP     ((size_t)5)
#define MAX_TOP ((size_t)100)

struct mlm {
    const eng_model *model;
    int32_t *ids;
    size_t len, vocab, top; /* top 0: all of them */
    float *logits;          /* (len, vocab) */
};

/* Ids of the `n` largest values of a row, best first; of equal ones the smaller id. */
static void best_of(const float *row, size_t vocab, size_t *best, size_t n)
{
    size_t have = 0;
    for (size_t id = 0; id < vocab; id++) {
        size_t at = have;
        while (at > 0 && row[id] > row[best[at - 1]]) {
            at--;
        }
        if (at == n) {
            continue;
        }
        have += have < n;
        for (size_t i = have - 1; i > at; i--) {
            best[i] = best[i - 1];
        }
        best[at] = id;
    }
}

static const char *token_of(const struct mlm *run, size_t id)
{
    const char *token = eng_token_string(run->model, (int32_t)id);
    return token != NULL ? token : "";
}

/* ---- as JSON ---- */

static json_t *all_of(const float *row, size_t vocab)
{
    json_t *list = json_array();
    for (size_t i = 0; i < vocab; i++) {
        json_array_append_new(list, json_real((double)row[i]));
    }
    return list;
}

static json_t *top_of(const struct mlm *run, const float *row)
{
    size_t best[MAX_TOP];
    json_t *list = json_array();
    best_of(row, run->vocab, best, run->top);
    for (size_t i = 0; i < run->top; i++) {
        json_array_append_new(list,
                              json_pack("{s:I, s:s, s:f}", "id", (json_int_t)best[i], "token",
                                        token_of(run, best[i]), "logit", (double)row[best[i]]));
    }
    return list;
}

static int print_as_json(const struct mlm *run)
{
    json_t *list = json_array();
    for (size_t t = 0; t < run->len; t++) {
        const float *row = run->logits + t * run->vocab;
        json_array_append_new(list, run->top == 0 ? all_of(row, run->vocab) : top_of(run, row));
    }
    return inspect_print(json_pack("{s:o}", run->top == 0 ? "logits" : "top", list));
}

/* ---- as text ---- */

static int print_as_text(const struct mlm *run)
{
    size_t best[MAX_TOP];
    printf("%8s %8s  %-12s best\n", "position", "id", "token");
    for (size_t t = 0; t < run->len; t++) {
        const float *row = run->logits + t * run->vocab;
        best_of(row, run->vocab, best, run->top);
        printf("%8zu %8d  %-12s", t, (int)run->ids[t], token_of(run, (size_t)run->ids[t]));
        for (size_t i = 0; i < run->top; i++) {
            printf(" %zu %s %.4g%s", best[i], token_of(run, best[i]), (double)row[best[i]],
                   i + 1 < run->top ? "," : "\n");
        }
    }
    return EXIT_DONE;
}

/* ---- the command ---- */

static int choose_top(const struct inspect_args *args, struct mlm *run)
{
    size_t max = run->vocab < MAX_TOP ? run->vocab : MAX_TOP;
    run->top = args->json ? 0 : max < TOP ? max : TOP;
    return args->top == NULL || arg_size("--top", args->top, 1, max, &run->top) ? EXIT_DONE
                                                                                : EXIT_USAGE;
}

static int compute_logits(struct mlm *run)
{
    eng_compute *compute = NULL;
    eng_error err = {0};
    run->logits = calloc(run->len, run->vocab * sizeof *run->logits);
    if (run->logits == NULL) {
        fputs("mp2 inspect: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    eng_status status = eng_compute_start(1, NULL, &compute, &err);
    if (status == ENG_OK) {
        status =
            eng_mlm_logits(compute, ENG_SERVING, run->model, run->ids, run->len, run->logits, &err);
        eng_compute_stop(compute);
    }
    return status == ENG_OK ? EXIT_DONE : inspect_report(status, &err);
}

int inspect_mlm(const eng_model *model, const struct inspect_args *args)
{
    struct mlm run = {.model = model, .vocab = eng_model_get_info(model)->vocab};
    if (args->ids == NULL) {
        return usage_error("inspect mlm wants --ids");
    }
    int code = choose_top(args, &run);
    if (code == EXIT_DONE) {
        code = inspect_ids(model, args->ids, &run.ids, &run.len);
    }
    if (code == EXIT_DONE) {
        code = compute_logits(&run);
    }
    if (code == EXIT_DONE) {
        code = args->json ? print_as_json(&run) : print_as_text(&run);
    }
    free(run.ids);
    free(run.logits);
    return code;
}
