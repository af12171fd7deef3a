/* answer_length.h (private): what the labelled rows of an extractive task say about its answers' lengths. */
#ifndef ENGINE_ANSWER_LENGTH_H
#define ENGINE_ANSWER_LENGTH_H

#include "engine/batch.h"

/* Fitted to the answers of `rows` that are in their sequences; sigma 0 when there is none. */
eng_answer_length answer_length_of(const struct batch_rows *rows);

/* prior[n - 1] = ln of how likely an answer of n tokens is, less that of the likeliest length; all 0 when
 * `length` is NULL or knows nothing. prior (most) overwritten. */
void answer_length_prior(const eng_answer_length *length, double *prior, size_t most);

#endif
