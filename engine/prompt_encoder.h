/* prompt_encoder.h (private): an encoder over the prompt positions of each module, while it is trained.
 *
 *     M = B + f(B)·Woᵀ        B = z·A the module as its factors give it, P rows of H
 *
 * f is a bidirectional LSTM (H/2 a direction) or one pre-norm Transformer layer; Wo starts at 0, so that
 * training begins where it would without. Modules do not see each other. When a bank is written the
 * modules themselves become its factors and nothing of the encoder is left.
 * Threads. One encoder belongs to one thread at a time; forward and backward compute on the pool.
 */
#ifndef ENGINE_PROMPT_ENCODER_H
#define ENGINE_PROMPT_ENCODER_H

#include "engine/pretrain_run.h"
#include "engine/rng.h"

struct prompt_encoder;

/* For `modules` modules of P rows of H. ENG_EINVAL when H does not halve (LSTM). */
ENG_MUST_CHECK eng_status prompt_encoder_new(eng_prompt_encoder kind, size_t modules, size_t P,
                                             size_t H, struct rng *rng, struct prompt_encoder **out,
                                             eng_error *err);
void prompt_encoder_free(struct prompt_encoder *encoder);
/* Adds its tensors. */
ENG_MUST_CHECK eng_status prompt_encoder_add(struct prompt_encoder *encoder, double lr,
                                             struct pretrain_run *run, eng_error *err);

/* out (modules,P,H) from base (modules,P,H), which must stay until backward. */
void prompt_encoder_forward(eng_compute *compute, struct prompt_encoder *encoder, const float *base,
                            float *out);
/* What forward rounded: module's (P,H) in double, until backward. */
const double *prompt_encoder_exact(const struct prompt_encoder *encoder, size_t module);
/* dbase (modules,P,H) overwritten from dout (modules,P,H); the tensors' gradients too. */
void prompt_encoder_backward(eng_compute *compute, struct prompt_encoder *encoder,
                             const float *base, const float *dout, float *dbase);

#endif
