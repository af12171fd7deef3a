/* label_scaling.h (private): what labelled rows say about how the model's scores of their labels are to be read. */
#ifndef ENGINE_LABEL_SCALING_H
#define ENGINE_LABEL_SCALING_H

#include "engine/engine.h"

/* Numbers that are fitted for so many labels. */
size_t label_scaling_len(size_t labels);

/* The numbers that fit n rows (of more than a thousand some, taken evenly): row i scores option j with
 * scores[i, j] and is of option truth[i]. Without rows, or where a score is not finite, those that
 * change nothing: scale 1, zeros.
 *   scores (n, labels)   truth (n) below labels   numbers (label_scaling_len(labels)) overwritten, or NULL
 *   *least, unless NULL: the sum that it makes least, with what the priors add
 * ENG_ENOMEM. Any thread. */
ENG_MUST_CHECK eng_status label_scaling_fit(const double *scores, const size_t *truth, size_t n,
                                            size_t labels, float *numbers, double *least,
                                            eng_error *err);

/* scores (n) become their softmax. Returns ln Σ exp(scores). */
double label_softmax(double *scores, size_t n);
/* Scores of a row as `scaling` reads them, in place.   scores (n) */
void label_scaling_apply(const eng_label_scaling *scaling, double *scores, size_t n);
/* −ln p(truth) of a row so read, and its derivatives by the scores.   scores (n) become these */
double label_scaling_loss(const eng_label_scaling *scaling, size_t truth, double *scores, size_t n);

#endif
