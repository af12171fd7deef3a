/* mrc.h (private): an input as one machine-reading sequence, and the targets of its loss.
 *
 * eng_encode makes an eng_encoded; the trainer and the evaluation read it through this header.
 * An eng_encoded belongs to one thread at a time and never changes after it is made.
 */
#ifndef ENGINE_MRC_H
#define ENGINE_MRC_H

#include "engine/engine.h"

/* Token positions of the right answer: of a fixed-label row or a choice row the first and last token
 * of option `row->label`; of an extractive row the tokens that cover the answer (no answer: the words
 * 没有答案 of the hard prompt). False when the answer was cut away or is not there: such a row
 * cannot train, and counts as wrong in an evaluation. */
bool mrc_targets(const eng_encoded *encoded, const eng_example *row, size_t *start, size_t *end);

/* Code-point window helper for extractive training: like eng_encode, but when the context must be cut
 * keeps a window around the answer of `row` instead of the beginning. */
ENG_MUST_CHECK eng_status mrc_encode_for_training(const eng_task *task, const eng_example *row,
                                                  size_t text_limit, eng_encoded **out,
                                                  eng_error *err);

/* start[first token] + end[last token] of every option.   scores (options) overwritten */
void mrc_option_scores(const eng_encoded *encoded, const float *start, const float *end,
                       double *scores);

/* Adds by_scores (options) times `weight` to the derivatives by the logits that make the scores. */
void mrc_option_gradient(const eng_encoded *encoded, const double *by_scores, double weight,
                         float *dstart, float *dend);

/* The sequence with its options in another order: place j holds option order[j].
 *   order (options) a permutation   ids (len) overwritten   *start, *end: first and last token of option
 *   `label` there */
void mrc_reorder(const eng_encoded *encoded, const size_t *order, size_t label, int32_t *ids,
                 size_t *start, size_t *end);

#endif
