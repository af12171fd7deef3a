/* metrics.h (private): scores from counts and texts. Pure functions, any thread. */
#ifndef ENGINE_METRICS_H
#define ENGINE_METRICS_H

#include "engine/engine.h"

/* Mean F1 over the labels that occur as truth or as prediction; 0 when there are none.
 *   confusion (labels, labels) counts, rows = truth. */
double metrics_macro_f1(const size_t *confusion, size_t labels);

/* Exact match and F1 of an extracted answer as CMRC 2018 scores them: lower case, punctuation left
 * out, every Chinese character a unit, runs of other characters a unit each; F1 over the longest
 * common run of units. Two empty texts match; an empty one matches nothing else.
 * ENG_ENOMEM. */
struct answer_score {
    double exact, f1; /* 0 … 1 */
};
ENG_MUST_CHECK eng_status metrics_answer(eng_text truth, eng_text guess, struct answer_score *score,
                                         eng_error *err);

#endif
