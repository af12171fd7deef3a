/* trainer_scaling.c: the labels' scaling (label_scaling.h) under what sequences carry.
 *
 * It is fitted anew at every look, so that the rows that choose are read as they will be once the vector is
 * published. They take no part in it there, or they would choose what was fitted to them; that of the
 * best vector is then fitted to all rows, for few as they are each counts. Between looks it stands still, and
 * the loss that is followed is that of the labels so read.
 */
#include "engine/label_scaling.h"
#include "engine/status.h"
#include "engine/trainer.h"

#include <stdlib.h>
#include <string.h>

eng_status scaling_init(struct learner *learner, eng_error *err)
{
    struct learn_scaling *scaling = &learner->scaling;
    const struct batch_rows *train = &learner->train;
    size_t labels = eng_task_label_count(learner->task), all = 0;
    if (labels == 0 || learner->config.no_label_scaling) {
        return ENG_OK;
    }
    scaling->len = label_scaling_len(labels);
    size_t n = train->n < ENG_MAX_SCALING_ROWS ? train->n : ENG_MAX_SCALING_ROWS;
    if (!size_mul(n + learner->dev.n, labels * sizeof(double), &all)) {
        return fail_nomem(err, "labels");
    }
    scaling->rows.items = calloc(n, sizeof *scaling->rows.items);
    scaling->scored.scores = malloc(all);
    scaling->scored.truth = calloc(n + learner->dev.n, sizeof *scaling->scored.truth);
    scaling->of_train = calloc(scaling->len, sizeof *scaling->of_train);
    scaling->best = calloc(scaling->len, sizeof *scaling->best);
    scaling->best_of_train = calloc(scaling->len, sizeof *scaling->best_of_train);
    if (scaling->rows.items == NULL || scaling->scored.scores == NULL ||
        scaling->scored.truth == NULL || scaling->of_train == NULL || scaling->best == NULL ||
        scaling->best_of_train == NULL) {
        return fail_nomem(err, "labels");
    }
    for (size_t i = 0; i < n; i++) {
        scaling->rows.items[i] = train->items[i * train->n / n];
    }
    scaling->rows.n = n;
    return ENG_OK;
}

void scaling_fini(struct learn_scaling *scaling)
{
    free(scaling->rows.items); /* what they point to is of the training rows */
    free(scaling->scored.scores);
    free(scaling->scored.truth);
    free(scaling->of_train);
    free(scaling->best);
    free(scaling->best_of_train);
}

eng_status scaling_fit(struct learner *learner, eng_error *err)
{
    struct learn_scaling *scaling = &learner->scaling;
    if (scaling->len == 0) {
        return ENG_OK;
    }
    struct tally tally = {.task = learner->task, .scored = &scaling->scored};
    scaling->scored.n = 0;
    eng_status status = tally_rows(&tally, &learner->runner, learner_bank(learner), &scaling->rows,
                                   &learner->carried, err);
    return status == ENG_OK
               ? label_scaling_fit(scaling->scored.scores, scaling->scored.truth, scaling->scored.n,
                                   eng_task_label_count(learner->task), scaling->of_train, NULL,
                                   err)
               : status;
}

eng_status scaling_keep(struct learner *learner, eng_error *err)
{
    struct learn_scaling *scaling = &learner->scaling;
    if (scaling->len == 0) {
        return ENG_OK;
    }
    memcpy(scaling->best_of_train, scaling->of_train, scaling->len * sizeof *scaling->of_train);
    return label_scaling_fit(scaling->scored.scores, scaling->scored.truth, scaling->scored.n,
                             eng_task_label_count(learner->task), scaling->best, NULL, err);
}
