/* mrc_gradient.c: micro-batches of whole sequences; each one's gradient is weighted with its share of
 * the rows, so that the sum is the gradient of the mean. */
#include "engine/mrc_gradient.h"

#include "engine/batch.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

eng_status mrc_gradient_init(struct mrc_gradient *g, eng_compute *compute, const eng_model *model,
                             size_t longest, size_t max_tokens, size_t prompt_floats, unsigned want,
                             eng_error *err)
{
    size_t tokens = max_tokens > 0 ? max_tokens : batch_token_budget(model, longest), all = 0;
    *g = (struct mrc_gradient){
        .compute = compute, .max_tokens = tokens, .prompt_floats = prompt_floats};
    if (!size_mul(prompt_floats, BATCH_MAX_SEQUENCES * sizeof(float), &all)) {
        return fail_nomem(err, "prompt");
    }
    g->start = calloc(tokens, sizeof *g->start);
    g->end = calloc(tokens, sizeof *g->end);
    g->dstart = calloc(tokens, sizeof *g->dstart);
    g->dend = calloc(tokens, sizeof *g->dend);
    g->dprompt = malloc(all);
    if (g->start == NULL || g->end == NULL || g->dstart == NULL || g->dend == NULL ||
        g->dprompt == NULL) {
        return fail_nomem(err, "prompt");
    }
    return encoder_tape_new(model, tokens, BATCH_MAX_SEQUENCES, want, &g->tape, err);
}

void mrc_gradient_fini(struct mrc_gradient *g)
{
    encoder_tape_free(g->tape);
    free(g->start);
    free(g->end);
    free(g->dstart);
    free(g->dend);
    free(g->dprompt);
    *g = (struct mrc_gradient){0};
}

struct micro {
    eng_sequence sequences[BATCH_MAX_SEQUENCES];
    size_t start[BATCH_MAX_SEQUENCES], end[BATCH_MAX_SEQUENCES];
    size_t n, tokens;
};

static void fill(const struct mrc_gradient *g, const struct mrc_row *rows, size_t n,
                 struct micro *micro)
{
    micro->n = micro->tokens = 0;
    while (micro->n < n && micro->n < BATCH_MAX_SEQUENCES &&
           rows[micro->n].sequence.len <= g->max_tokens - micro->tokens) {
        micro->sequences[micro->n] = rows[micro->n].sequence;
        micro->start[micro->n] = rows[micro->n].start;
        micro->end[micro->n] = rows[micro->n].end;
        micro->tokens += rows[micro->n].sequence.len;
        micro->n++;
    }
}

static eng_status run_micro(struct mrc_gradient *g, const struct micro *micro,
                            const struct mrc_row *rows, double share, double *loss, eng_error *err)
{
    eng_status status = encoder_forward_keep(g->compute, g->tape, ENG_TRAINING, micro->sequences,
                                             micro->n, g->start, g->end, err);
    if (status != ENG_OK) {
        return status;
    }
    *loss += share * encoder_mrc_loss(micro->sequences, micro->n, g->start, g->end, micro->start,
                                      micro->end, g->dstart, g->dend);
    for (size_t t = 0; t < micro->tokens; t++) {
        g->dstart[t] *= (float)share;
        g->dend[t] *= (float)share;
    }
    status =
        encoder_backward(g->compute, g->tape, ENG_TRAINING, g->dstart, g->dend, g->dprompt, err);
    for (size_t i = 0; i < micro->n && status == ENG_OK; i++) {
        for (size_t k = 0; k < g->prompt_floats; k++) {
            rows[i].dmerged[k] += g->dprompt[i * g->prompt_floats + k];
        }
    }
    return status;
}

eng_status mrc_gradient_run(struct mrc_gradient *g, const struct mrc_row *rows, size_t n,
                            double *loss, eng_error *err)
{
    struct micro micro;
    *loss = 0;
    for (size_t done = 0; done < n; done += micro.n) {
        fill(g, rows + done, n - done, &micro);
        if (micro.n == 0) {
            return fail(err, ENG_ELIMIT, "tokens", "a sequence of %zu tokens, the tape holds %zu",
                        rows[done].sequence.len, g->max_tokens);
        }
        eng_status status =
            run_micro(g, &micro, rows + done, (double)micro.n / (double)n, loss, err);
        if (status != ENG_OK) {
            return status;
        }
    }
    return ENG_OK;
}
