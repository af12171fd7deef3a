/* retrieve.c: the few-shot loss of many vectors side by side, and which of the bank's own routes has
 * the least.
 *
 * Rows of the bank, like the candidates of a search, differ only in what their sequences carry (a mix
 * or a prompt), so the same encoded examples run under many of them in one packed batch.
 */
#include "engine/encoder.h"
#include "engine/status.h"
#include "engine/trainer.h"

#include <math.h>
#include <stdlib.h>

struct sum {
    const struct learner *learner;
    double *losses; /* (vectors) */
};

static eng_status add_loss(void *arg, size_t i, const eng_sequence *sequence, const float *start,
                           const float *end, eng_error *err)
{
    struct sum *sum = arg;
    size_t vector = i / sum->learner->n_order;
    const struct batch_item *item =
        &sum->learner->train.items[sum->learner->order[i % sum->learner->n_order]];
    (void)err;
    sum->losses[vector] +=
        encoder_mrc_loss(sequence, 1, start, end, &item->start, &item->end, NULL, NULL) /
        (double)sum->learner->n_order;
    return ENG_OK;
}

/* n_order sequences for each of n vectors of `width` floats. */
static void lay_out(const struct learner *learner, const float *carried, bool prompts, size_t width,
                    size_t n, eng_sequence *sequences)
{
    for (size_t v = 0; v < n; v++) {
        const float *vector = carried + v * width;
        for (size_t i = 0; i < learner->n_order; i++) {
            const struct batch_item *item = &learner->train.items[learner->order[i]];
            sequences[v * learner->n_order + i] =
                (eng_sequence){item->ids, item->len, learner->bank, prompts ? NULL : vector,
                               prompts ? vector : NULL};
        }
    }
}

eng_status few_shot_losses(struct learner *learner, const float *carried, bool prompts, size_t n,
                           double *losses, eng_error *err)
{
    const eng_bank_info *info = &learner->bank->info;
    size_t width = prompts ? learner_prompt_floats(learner) : info->layers * info->modules;
    size_t count = 0;
    if (!size_mul(n, learner->n_order, &count)) {
        return fail_nomem(err, "rows");
    }
    eng_sequence *sequences = calloc(count + 1, sizeof *sequences);
    if (sequences == NULL) {
        return fail_nomem(err, "rows");
    }
    for (size_t i = 0; i < n; i++) {
        losses[i] = 0;
    }
    lay_out(learner, carried, prompts, width, n, sequences);
    struct sum sum = {learner, losses};
    eng_status status = batch_run(&learner->runner, sequences, count, add_loss, &sum, err);
    free(sequences);
    return status;
}

/* ---- the bank's rows ------------------------------------------------------------------------------- */

static void mix_of_row(const eng_bank *bank, size_t row, float *route, float *mix)
{
    eng_bank_row(bank, row, route);
    eng_route_mix(bank, route, mix);
}

static size_t least(const double *losses, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        if (losses[i] < losses[best] || isnan(losses[best])) {
            best = i;
        }
    }
    return best;
}

eng_status retrieve_row(struct learner *learner, size_t *row, double *losses, eng_error *err)
{
    const eng_bank_info *info = &learner->bank->info;
    size_t width = info->layers * info->modules, rows = info->rows;
    eng_status status = ENG_OK;
    if (rows == 0) {
        return fail(err, ENG_ENOTFOUND, "bank", "bank %s has no router rows to retrieve from",
                    info->name);
    }
    float *route = calloc(info->route_len, sizeof *route);
    float *mixes = calloc(rows, width * sizeof *mixes);
    double *sums = calloc(rows, sizeof *sums);
    if (route == NULL || mixes == NULL || sums == NULL) {
        status = fail_nomem(err, "retrieve");
        goto out;
    }
    for (size_t i = 0; i < rows; i++) {
        mix_of_row(learner->bank, i, route, mixes + i * width);
    }
    status = few_shot_losses(learner, mixes, false, rows, sums, err);
    *row = least(sums, rows);
    for (size_t i = 0; i < rows && losses != NULL; i++) {
        losses[i] = sums[i];
    }
out:
    free(route);
    free(mixes);
    free(sums);
    return status;
}
