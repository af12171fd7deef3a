/* retrieve.c: which of the bank's own routes suits a few examples best.
 *
 * Every router row is tried on every training row. Rows of the bank differ only in their mix, so the
 * same encoded examples run under many mixes side by side in one packed batch.
 */
#include "engine/encoder.h"
#include "engine/status.h"
#include "engine/trainer.h"

#include <math.h>
#include <stdlib.h>

struct sum {
    const struct learner *learner;
    double *losses; /* (rows of the bank) */
};

static eng_status add_loss(void *arg, size_t i, const eng_sequence *sequence, const float *start,
                           const float *end, eng_error *err)
{
    struct sum *sum = arg;
    size_t row = i / sum->learner->n_order;
    const struct batch_item *item =
        &sum->learner->train.items[sum->learner->order[i % sum->learner->n_order]];
    (void)err;
    sum->losses[row] +=
        encoder_mrc_loss(sequence, 1, start, end, &item->start, &item->end, NULL, NULL) /
        (double)sum->learner->n_order;
    return ENG_OK;
}

static void mix_of_row(const eng_bank *bank, size_t row, float *route, float *mix)
{
    eng_bank_row(bank, row, route);
    eng_route_mix(bank, route, mix);
}

/* n_order sequences for each row of the bank. */
static void lay_out(const struct learner *learner, const float *mixes, eng_sequence *sequences)
{
    size_t width = learner->bank->info.layers * learner->bank->info.modules;
    for (size_t row = 0; row < learner->bank->info.rows; row++) {
        for (size_t i = 0; i < learner->n_order; i++) {
            const struct batch_item *item = &learner->train.items[learner->order[i]];
            sequences[row * learner->n_order + i] =
                (eng_sequence){item->ids, item->len, learner->bank, mixes + row * width, NULL};
        }
    }
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
    size_t width = info->layers * info->modules, rows = info->rows, n = 0;
    eng_status status = ENG_OK;
    if (rows == 0) {
        return fail(err, ENG_ENOTFOUND, "bank", "bank %s has no router rows to retrieve from",
                    info->name);
    }
    if (!size_mul(rows, learner->n_order, &n)) {
        return fail_nomem(err, "retrieve");
    }
    float *route = calloc(info->route_len, sizeof *route);
    float *mixes = calloc(rows, width * sizeof *mixes);
    double *sums = calloc(rows, sizeof *sums);
    eng_sequence *sequences = calloc(n, sizeof *sequences);
    if (route == NULL || mixes == NULL || sums == NULL || sequences == NULL) {
        status = fail_nomem(err, "retrieve");
        goto out;
    }
    for (size_t i = 0; i < rows; i++) {
        mix_of_row(learner->bank, i, route, mixes + i * width);
    }
    lay_out(learner, mixes, sequences);
    struct sum sum = {learner, sums};
    status = batch_run(&learner->runner, sequences, n, add_loss, &sum, err);
    *row = least(sums, rows);
    for (size_t i = 0; i < rows && losses != NULL; i++) {
        losses[i] = sums[i];
    }
out:
    free(route);
    free(mixes);
    free(sums);
    free(sequences);
    return status;
}
