/* attention.h (private): self-attention of packed sequences, one task a sequence and head.
 *
 * A task reads only its own sequence's rows, so a result cannot depend on the batch. It runs on one
 * thread and keeps its scores in that thread's scratch: nothing of size len² is ever stored.
 */
#ifndef ENGINE_ATTENTION_H
#define ENGINE_ATTENTION_H

#include "engine/pool.h"

/* Longest sequence whose scores fit the scratch, one row at a time. */
#define ATTENTION_MAX_LEN 32768

/* Rows of all T tokens. Heads lie side by side: head h is columns h*width … of each matrix.
 *   q, k, v (T, heads*width), rows `stride` apart   out (T, heads*width), rows `out_stride` apart
 * backward:  dout, strided as out, in; dq, dk, dv, strided as q, k, v, overwritten               */
struct attention {
    size_t n;              /* sequences */
    const size_t *offsets; /* (n+1) first row of each */
    size_t heads, width;
    const float *q, *k, *v;
    size_t stride;
    float *out;
    size_t out_stride;
    const float *dout;
    float *dq, *dk, *dv;
    /* Forward: (n+1) first row of each sequence in q and out, when only some queries are asked; NULL:
     * offsets. */
    const size_t *q_offsets;
};

/* out = softmax(q·kᵀ / √width) · v        The caller holds the turn. */
void attention_forward(eng_compute *compute, const struct attention *attention);
/* Recomputes the softmax from q and k (a few parts in a hundred of a layer) rather than keeping it:
 * it would be the largest thing on the tape. */
void attention_backward(eng_compute *compute, const struct attention *attention);

#endif
