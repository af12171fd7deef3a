/* evaluate.h (private): scores of encoded rows under one route or prompt. */
#ifndef ENGINE_EVALUATE_H
#define ENGINE_EVALUATE_H

#include "engine/batch.h"

/* Scores of the options of rows with fixed labels, as the model gives them. */
struct scored {
    double *scores; /* (n, labels), room for all rows that will be tallied */
    size_t *truth, n;
};

/* Counts that scores are made of; zero-initialise. */
struct tally {
    const eng_task *task;
    size_t *confusion; /* (labels, labels), caller's; NULL unless fixed labels */
    size_t *predicted; /* of each item, or NULL */
    eng_reading reading;
    struct scored *scored; /* takes up the rows that fit the model, or NULL */
    size_t rows, losses;
    double right, f1, loss; /* sums */
};

/* Adds `rows`, all of them carrying the same. ENG_ENOMEM, ENG_ECANCELLED. */
ENG_MUST_CHECK eng_status tally_rows(struct tally *tally, struct batch_runner *runner,
                                     const eng_bank *bank, const struct batch_rows *rows,
                                     const struct carried *carried, eng_error *err);
/* −ln p(label) of a row as `scaling` reads it.   by_scores (options): its derivatives by the options' scores */
double item_label_loss(const struct batch_item *item, const eng_label_scaling *scaling,
                       const float *start, const float *end, double *by_scores);
double tally_accuracy(const struct tally *tally);
double tally_macro_f1(const struct tally *tally);
double tally_loss(const struct tally *tally); /* NaN when no row had a target */

/* Monotonic seconds. */
double seconds_now(void);

#endif
