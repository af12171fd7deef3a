/* mrc_gradient.h (private): loss and gradients of any number of sequences, in micro-batches that fit one
 * tape. One thread at a time; computes as ENG_TRAINING.
 */
#ifndef ENGINE_MRC_GRADIENT_H
#define ENGINE_MRC_GRADIENT_H

#include "engine/encoder.h"

/* A sequence with its answer. All of one run share a bank. */
struct mrc_row {
    eng_sequence sequence;
    size_t start, end;
    float *dmerged; /* (Lp,P,H) where the gradient by its prompt is added; rows may share one */
};

struct mrc_gradient {
    eng_compute *compute;
    struct encoder_tape *tape;
    size_t max_tokens, prompt_floats;
    float *start, *end, *dstart, *dend; /* (max_tokens) */
    float *dprompt;                     /* (BATCH_MAX_SEQUENCES, Lp, P, H) */
};

/* For sequences of at most `longest` tokens; prompt_floats = Lp·P·H; `want` of enum encoder_want, with
 * WANT_PROMPT. max_tokens of a micro-batch; 0: as evaluations pack. mrc_gradient_fini frees, also after a failure. */
ENG_MUST_CHECK eng_status mrc_gradient_init(struct mrc_gradient *g, eng_compute *compute,
                                            const eng_model *model, size_t longest,
                                            size_t max_tokens, size_t prompt_floats, unsigned want,
                                            eng_error *err);
void mrc_gradient_fini(struct mrc_gradient *g);
/* *loss: mean MRC loss of the rows. Its gradients are added to the rows' dmerged and to those of the
 * tape. */
ENG_MUST_CHECK eng_status mrc_gradient_run(struct mrc_gradient *g, const struct mrc_row *rows,
                                           size_t n, double *loss, eng_error *err);

#endif
