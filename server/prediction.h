/* prediction.h (private to batcher.c, prediction.c): one input through encode and decode.
 *
 * Threads. None inside: the encoding thread prepares and encodes, the batch thread reads a piece and
 *          decodes it; the batcher's lock orders the two.
 */
#ifndef SERVER_PREDICTION_H
#define SERVER_PREDICTION_H

#include "server/batcher.h"

struct prediction_piece {
    eng_encoded *encoded; /* freed once decoded */
    size_t len;
};

/* Arrays for n inputs. False: out of memory. */
bool prediction_alloc(struct prediction *prediction);
/* Inputs, compiled task, mix; before the first input is encoded. Errors go to prediction->err. */
bool prediction_prepare(struct prediction *prediction);
ENG_MUST_CHECK eng_status prediction_encode(struct prediction *prediction, size_t i, size_t max_len,
                                            eng_error *err);
/* The i-th input as a sequence of a batch. */
void prediction_sequence(const struct prediction *prediction, size_t i, eng_sequence *sequence);
/* Fills answers[i] from its logits. False: out of memory. */
bool prediction_decode(struct prediction *prediction, size_t i, const float *start,
                       const float *end);
/* Frees all but the answers. */
void prediction_free_work(struct prediction *prediction);

#endif
