/* encoder_tape.h (private to encoder_tape.c and encoder_backward.c): what a training step keeps.
 *
 * Per token and layer, in floats: 5H + F + 2 for a frozen backbone (queries, keys, values; x̂ of both
 * norms; the ffn before GELU), 2H more with WANT_WEIGHTS (the layer's input, attention's output).
 * Softmaxes are recomputed; so are, for weight gradients only, the norms' outputs and gelu(up).
 */
#ifndef ENGINE_ENCODER_TAPE_H
#define ENGINE_ENCODER_TAPE_H

#include "engine/encoder_pass.h"

struct encoder_tape {
    struct arena arena;
    const eng_model *model;
    unsigned want;
    bool kept; /* a forward was kept and its gradients may be asked for */
    struct batch batch;
    struct layer_values values[ENG_MAX_LAYERS];
    float *h;              /* (T,H) the last layer's output */
    float *embedding_xhat; /* WANT_WEIGHTS */
    float *embedding_rstd;

    float *dh, *dmiddle; /* (T,H) backward's own */
    float *dqkv;         /* (T,3H) */
    float *dup;          /* (T,F) */

    float *head_gradient;           /* (2,H) then (2): WANT_HEAD */
    float *gradient_block;          /* every parameter in table order: WANT_WEIGHTS */
    size_t gradient_count;          /* floats of it */
    struct encoder_params gradient; /* sizes of the model, pointers into gradient_block */
};

#endif
