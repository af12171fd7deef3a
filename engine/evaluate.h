/* evaluate.h (private): scores of encoded rows under one route or prompt. */
#ifndef ENGINE_EVALUATE_H
#define ENGINE_EVALUATE_H

#include "engine/batch.h"

/* Counts that scores are made of; zero-initialise. */
struct tally {
    const eng_task *task;
    size_t *confusion;               /* (labels, labels), caller's; NULL unless fixed labels */
    size_t *predicted;               /* of each item, or NULL */
    const eng_answer_length *length; /* for decoding, or NULL */
    size_t rows, losses;
    double right, f1, loss; /* sums */
};

/* Adds `rows`, all of them carrying the same. ENG_ENOMEM, ENG_ECANCELLED. */
ENG_MUST_CHECK eng_status tally_rows(struct tally *tally, struct batch_runner *runner,
                                     const eng_bank *bank, const struct batch_rows *rows,
                                     const struct carried *carried, eng_error *err);
double tally_accuracy(const struct tally *tally);
double tally_macro_f1(const struct tally *tally);
double tally_loss(const struct tally *tally); /* NaN when no row had a target */

/* Monotonic seconds. */
double seconds_now(void);

#endif
