/* folds.h (private to adapt.c and folds.c): cross-validation, where rows are too few to spare any.
 *
 * The training rows are dealt into folds, evenly by label. Each fold is left out once: a run on the others
 * is looked at on it, and the looks of all folds add up to a curve over the steps. A last run on all rows
 * takes as many steps of each stage as the curve was best at. One thread.
 */
#ifndef ENGINE_FOLDS_H
#define ENGINE_FOLDS_H

#include "engine/trainer.h"

/* What eng_adapt is given, but for the settings. */
struct adapt_call {
    eng_compute *compute;
    const eng_model *model;
    const eng_bank *bank;
    const eng_task *task;
    const eng_dataset *train_set, *dev_set;
    const size_t *train, *dev;
    size_t n_train, n_dev;
    eng_on_progress on_progress;
    void *arg;
};

/* One run, without folds. chosen (stages of the method): the steps of each, all of which are taken and
 * whose last vector is the result; NULL: the settings' steps, and dev chooses. adapt.c */
ENG_MUST_CHECK eng_status adapt_once(const struct adapt_call *call, const eng_adapt_config *config,
                                     const size_t *chosen, eng_adapt_result *result,
                                     eng_error *err);

/* Every default of `config` is filled in, config->folds is 2 or more, there are no dev rows. */
ENG_MUST_CHECK eng_status adapt_folds(const struct adapt_call *call, const eng_adapt_config *config,
                                      eng_adapt_result *result, eng_error *err);

#endif
