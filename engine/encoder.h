/* encoder.h (private): the backbone forward and backward on packed batches.
 *
 * A packed batch is N sequences end to end, T = Σ len rows, no padding. Every kernel works on the T
 * rows at once except attention, which works per sequence and head. The compute pool splits work over
 * rows and columns, never over sums: a row's result is the same for any split and any batch.
 */
#ifndef ENGINE_ENCODER_H
#define ENGINE_ENCODER_H

#include "engine/model.h"

/* What backward computes. */
enum encoder_want {
    WANT_PROMPT = 1, /* dL/dp[l] of every sequence: enough for a route, a prompt, z and A */
    WANT_HEAD = 2,   /* dL/d head */
    WANT_WEIGHTS = 4 /* dL/d every backbone weight (gradients laid out as the parameter table) */
};

/* Everything one training step needs, sized at creation for max_tokens rows in max_sequences. */
struct encoder_tape;
ENG_MUST_CHECK eng_status encoder_tape_new(const eng_model *model, size_t max_tokens,
                                           size_t max_sequences, unsigned want,
                                           struct encoder_tape **out, eng_error *err);
void encoder_tape_free(struct encoder_tape *tape);
size_t encoder_tape_bytes(const struct encoder_tape *tape);

/* Forward that keeps what backward needs. As eng_forward otherwise.
 *   start, end (T) overwritten. */
ENG_MUST_CHECK eng_status encoder_forward_keep(eng_compute *compute, struct encoder_tape *tape,
                                               eng_class who, const eng_sequence *sequences,
                                               size_t n, float *start, float *end, eng_error *err);

/* Mean MRC loss of the batch: per sequence ½(CE(start) + CE(end)), softmax over its own positions.
 *   target_start, target_end (n)   dstart, dend (T) overwritten with dL/dlogits, or NULL. */
double encoder_mrc_loss(const eng_sequence *sequences, size_t n, const float *start,
                        const float *end, const size_t *target_start, const size_t *target_end,
                        float *dstart, float *dend);

/* Backward of the last encoder_forward_keep on this tape.
 *   dprompt (n, Lp, P, H) overwritten: dL/d(prompt added) of every sequence (WANT_PROMPT), Lp and P of
 *   the sequence's bank, all sequences of a training batch share one bank. */
ENG_MUST_CHECK eng_status encoder_backward(eng_compute *compute, struct encoder_tape *tape,
                                           eng_class who, const float *dstart, const float *dend,
                                           float *dprompt, eng_error *err);

/* The same without banks, for a head of the caller's own (mlm.h): token type 0, no prompt, no MRC head;
 * of each sequence only ids and len are read. */
ENG_MUST_CHECK eng_status encoder_forward_bare(eng_compute *compute, struct encoder_tape *tape,
                                               eng_class who, const eng_sequence *sequences,
                                               size_t n, eng_error *err);
/* Dropout of the next passes, until changed: of the embeddings and of the outputs of attention and ffn
 * before they are added (attention's own weights are left whole). rate 0: none. The same key gives the
 * same mask. */
void encoder_dropout(struct encoder_tape *tape, float rate, uint64_t key);
/* The last layer's output of the last forward, rows gemm_stride(H) apart. */
const float *encoder_hidden(const struct encoder_tape *tape);
/* Where the caller writes dL/d encoder_hidden, all T rows, after a bare forward and before
 * encoder_backward_bare, which changes it. */
float *encoder_dhidden(struct encoder_tape *tape);
ENG_MUST_CHECK eng_status encoder_backward_bare(eng_compute *compute, struct encoder_tape *tape,
                                                eng_class who, eng_error *err);

/* WANT_HEAD: (2,H) and (2). WANT_WEIGHTS: gradient of the parameter named as in a bare BERT
 * checkpoint ("embeddings.word_embeddings.weight"), NULL if there is none. Valid until the next
 * backward; gradients accumulate until encoder_tape_zero. */
const float *encoder_head_gradient(const struct encoder_tape *tape, const float **bias);
const float *encoder_gradient(const struct encoder_tape *tape, const char *name, size_t *count);
void encoder_tape_zero(struct encoder_tape *tape);

/* Gradient of the route from the gradient of the merged prompt.
 *   dmerged (Lp, P, H)   route (route_len)   droute (route_len) overwritten.
 * reference: METHOD 2; checked against tests/golden and finite differences. */
void bank_route_gradient(const eng_bank *bank, const float *route, const float *dmerged,
                         float *droute);

#endif
