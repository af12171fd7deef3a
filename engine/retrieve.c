/* retrieve.c: the few-shot loss of many candidates side by side, and which of the bank's own routes and
 * the caller's has the least.
 *
 * Routes, like the candidates of a search, differ only in what their sequences carry (a mix or a
 * prompt), so the same encoded examples run under many of them in one packed batch.
 */
#include "engine/encoder.h"
#include "engine/status.h"
#include "engine/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* n_order sequences for each of n candidates. */
static void lay_out(const struct learner *learner, const struct carried *carried, size_t n,
                    eng_sequence *sequences)
{
    for (size_t v = 0; v < n; v++) {
        for (size_t i = 0; i < learner->n_order; i++) {
            const struct batch_item *item = &learner->train.items[learner->order[i]];
            sequences[v * learner->n_order + i] =
                batch_sequence(item, learner_bank(learner), &carried[v]);
        }
    }
}

eng_status few_shot_losses(struct learner *learner, const struct carried *carried, size_t n,
                           double *losses, eng_error *err)
{
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
    lay_out(learner, carried, n, sequences);
    struct sum sum = {learner, losses};
    eng_status status = batch_run(&learner->runner, sequences, count, add_loss, &sum, err);
    free(sequences);
    return status;
}

/* ---- the nearest route ------------------------------------------------------------------------------- */

/* Route i: the bank's rows, then the caller's candidates. */
static void route_of(const struct learner *learner, size_t i, float *route)
{
    size_t rows = learner->bank->info.rows;
    if (i < rows) {
        eng_bank_row(learner->bank, i, route);
    } else {
        memcpy(route, learner->config.candidates[i - rows].route,
               learner->bank->info.route_len * sizeof *route);
    }
}

static const char *name_of(const struct learner *learner, size_t i)
{
    size_t rows = learner->bank->info.rows;
    return i < rows ? eng_bank_row_name(learner->bank, i)
                    : learner->config.candidates[i - rows].name;
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

eng_status retrieve_route(struct learner *learner, float *route, char *name, size_t size,
                          eng_error *err)
{
    const eng_bank_info *info = &learner->bank->info;
    size_t width = info->layers * info->modules, n = info->rows + learner->config.n_candidates;
    eng_status status = ENG_OK;
    if (n == 0) {
        return fail(err, ENG_ENOTFOUND, "bank", "bank %s has no router rows to retrieve from",
                    info->name);
    }
    float *mixes = calloc(n, width * sizeof *mixes);
    struct carried *carried = calloc(n, sizeof *carried);
    double *losses = calloc(n, sizeof *losses);
    if (mixes == NULL || carried == NULL || losses == NULL) {
        status = fail_nomem(err, "retrieve");
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        route_of(learner, i, route);
        eng_route_mix(learner->bank, route, mixes + i * width);
        carried[i].mix = mixes + i * width;
    }
    status = few_shot_losses(learner, carried, n, losses, err);
    if (status == ENG_OK) {
        size_t best = least(losses, n);
        route_of(learner, best, route);
        snprintf(name, size, "%s", name_of(learner, best));
    }
out:
    free(mixes);
    free(carried);
    free(losses);
    return status;
}
