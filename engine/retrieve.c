/* retrieve.c: the few-shot loss of many candidates side by side, and which of the bank's own routes, the
 * caller's and the average serves the rows best.
 *
 * Routes, like the candidates of a search, differ only in what their sequences carry (a mix or a
 * prompt), so the same encoded examples run under many of them in one packed batch.
 */
#include "engine/encoder.h"
#include "engine/label_scaling.h"
#include "engine/mrc.h"
#include "engine/status.h"
#include "engine/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_PROBABILITY 1e-30
#define TEMPERATURES      5
static const double temperatures[TEMPERATURES] = {1, 0.5, 2, 4, 8};

struct sum {
    struct learner *learner;
    double *losses;       /* (vectors), or (vectors, TEMPERATURES) */
    struct scored scored; /* rows of the candidate that is on, where labels' scaling is fitted */
};

/* The row that sequence i is of. */
static const struct batch_item *item_of(const struct sum *sum, size_t i)
{
    return &sum->learner->train.items[sum->learner->order[i % sum->learner->n_order]];
}

static eng_status add_loss(void *arg, size_t i, const eng_sequence *sequence, const float *start,
                           const float *end, eng_error *err)
{
    struct sum *sum = arg;
    size_t rows = sum->learner->n_order;
    const struct batch_item *item = item_of(sum, i);
    (void)err;
    sum->losses[i / rows] +=
        encoder_mrc_loss(sequence, 1, start, end, &item->start, &item->end, NULL, NULL) /
        (double)rows;
    return ENG_OK;
}

/* The same of labels: −ln p(label), read with the scaling that suits the candidate best, and what the priors
 * add. The candidate's last row sums it up. */
static eng_status add_label_loss(void *arg, size_t i, const eng_sequence *sequence,
                                 const float *start, const float *end, eng_error *err)
{
    struct sum *sum = arg;
    struct scored *scored = &sum->scored;
    const struct batch_item *item = item_of(sum, i);
    size_t rows = sum->learner->n_order, labels = eng_encoded_options(item->encoded);
    double least = 0;
    (void)sequence;
    mrc_option_scores(item->encoded, start, end, scored->scores + scored->n * labels);
    scored->truth[scored->n++] = item->row.label;
    if (scored->n < rows) {
        return ENG_OK;
    }
    scored->n = 0;
    eng_status status =
        label_scaling_fit(scored->scores, scored->truth, rows, labels, NULL, &least, err);
    sum->losses[i / rows] = least / (double)rows;
    return status;
}

/* n_order sequences for each of n candidates. */
static void lay_out(const struct learner *learner, const struct carried *carried, size_t n,
                    bool options_alone, eng_sequence *sequences)
{
    for (size_t v = 0; v < n; v++) {
        for (size_t i = 0; i < learner->n_order; i++) {
            const struct batch_item *item = &learner->train.items[learner->order[i]];
            eng_sequence *sequence = &sequences[v * learner->n_order + i];
            *sequence = batch_sequence(item, learner_bank(learner), &carried[v]);
            if (options_alone && eng_encoded_options(item->encoded) > 0) {
                sequence->read = eng_encoded_read(item->encoded, &sequence->n_read);
            }
        }
    }
}

/* Cross-entropy of one pointer at a temperature. */
static double pointer_loss(const float *logits, size_t n, size_t truth, double temperature)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += exp(((double)logits[i] - (double)logits[truth]) / temperature);
    }
    return log(sum);
}

/* What a row costs where only its answer counts: of options −log of the true one's probability among
 * them, at each of some temperatures. Routes of other tasks are sure of themselves to very different degrees,
 * which says nothing about the order they put the options in; the least of a route's sums is of that order.
 * Without options the same of the two pointers, each among all places. */
static eng_status add_answer_loss(void *arg, size_t i, const eng_sequence *sequence,
                                  const float *start, const float *end, eng_error *err)
{
    struct sum *sum = arg;
    size_t rows = sum->learner->n_order;
    const struct batch_item *item = item_of(sum, i);
    double *losses = sum->losses + i / rows * TEMPERATURES;
    size_t options = eng_encoded_options(item->encoded);
    float probabilities[ENG_MAX_LABELS];
    double beside[ENG_MAX_LABELS]; /* log-probabilities less the true option's */
    (void)err;
    if (options == 0) {
        for (size_t t = 0; t < TEMPERATURES; t++) {
            losses[t] += (pointer_loss(start, sequence->len, item->start, temperatures[t]) +
                          pointer_loss(end, sequence->len, item->end, temperatures[t])) /
                         (2 * (double)rows);
        }
        return ENG_OK;
    }
    eng_decode_options(item->encoded, start, end, NULL, probabilities);
    double truth = log((double)probabilities[item->row.label] + LEAST_PROBABILITY);
    for (size_t j = 0; j < options; j++) {
        beside[j] = log((double)probabilities[j] + LEAST_PROBABILITY) - truth;
    }
    for (size_t t = 0; t < TEMPERATURES; t++) {
        double all = 0;
        for (size_t j = 0; j < options; j++) {
            all += exp(beside[j] / temperatures[t]);
        }
        losses[t] += log(all) / (double)rows;
    }
    return ENG_OK;
}

static eng_status losses_of(struct sum *sum, const struct carried *carried, size_t n,
                            batch_each each, eng_error *err)
{
    struct learner *learner = sum->learner;
    size_t count = 0;
    if (!size_mul(n, learner->n_order, &count)) {
        return fail_nomem(err, "rows");
    }
    eng_sequence *sequences = calloc(count + 1, sizeof *sequences);
    if (sequences == NULL) {
        return fail_nomem(err, "rows");
    }
    lay_out(learner, carried, n, each != add_loss, sequences);
    eng_status status = batch_run(&learner->runner, sequences, count, each, sum, err);
    free(sequences);
    return status;
}

eng_status few_shot_losses(struct learner *learner, const struct carried *carried, size_t n,
                           double *losses, eng_error *err)
{
    struct sum sum = {.learner = learner, .losses = losses};
    size_t labels = eng_task_label_count(learner->task), doubles = 0;
    memset(losses, 0, n * sizeof *losses);
    if (learner->scaling.len == 0) {
        return losses_of(&sum, carried, n, add_loss, err);
    }
    if (!size_mul(learner->n_order, labels * sizeof(double), &doubles)) {
        return fail_nomem(err, "rows");
    }
    sum.scored.scores = malloc(doubles);
    sum.scored.truth = calloc(learner->n_order, sizeof *sum.scored.truth);
    eng_status status = sum.scored.scores != NULL && sum.scored.truth != NULL
                            ? losses_of(&sum, carried, n, add_label_loss, err)
                            : fail_nomem(err, "rows");
    free(sum.scored.scores);
    free(sum.scored.truth);
    return status;
}

/* ---- the nearest route ------------------------------------------------------------------------------- */

/* Route i: the bank's rows, the caller's candidates, the average of all modules. */
static void route_of(const struct learner *learner, size_t i, float *route)
{
    size_t rows = learner->bank->info.rows;
    if (i < rows) {
        eng_bank_row(learner->bank, i, route);
    } else if (i == rows + learner->config.n_candidates) {
        memset(route, 0, learner->bank->info.route_len * sizeof *route);
    } else {
        memcpy(route, learner->config.candidates[i - rows].route,
               learner->bank->info.route_len * sizeof *route);
    }
}

static const char *name_of(const struct learner *learner, size_t i)
{
    size_t rows = learner->bank->info.rows;
    if (i == rows + learner->config.n_candidates) {
        return "average";
    }
    return i < rows ? eng_bank_row_name(learner->bank, i)
                    : learner->config.candidates[i - rows].name;
}

/* The vector of the least sum. */
static size_t least(const double *losses, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n * TEMPERATURES; i++) {
        if (losses[i] < losses[best] || isnan(losses[best])) {
            best = i;
        }
    }
    return best / TEMPERATURES;
}

eng_status retrieve_route(struct learner *learner, float *route, char *name, size_t size,
                          eng_error *err)
{
    const eng_bank_info *info = &learner->bank->info;
    size_t width = info->layers * info->modules, n = info->rows + learner->config.n_candidates + 1;
    struct sum sum = {.learner = learner};
    eng_status status = ENG_OK;
    if (n == 1) {
        return fail(err, ENG_ENOTFOUND, "bank", "bank %s has no router rows to retrieve from",
                    info->name);
    }
    float *mixes = calloc(n, width * sizeof *mixes);
    struct carried *carried = calloc(n, sizeof *carried);
    double *losses = sum.losses = calloc(n, TEMPERATURES * sizeof *losses);
    if (mixes == NULL || carried == NULL || losses == NULL) {
        status = fail_nomem(err, "retrieve");
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        route_of(learner, i, route);
        eng_route_mix(learner->bank, route, mixes + i * width);
        carried[i].mix = mixes + i * width;
    }
    status = losses_of(&sum, carried, n, add_answer_loss, err);
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
