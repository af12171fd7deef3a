/* mlm.h (private): BERT's masked language modelling head on the rows of an encoder pass.
 *
 *   u = x·Wᵀ + b     g = gelu(u)     y = LayerNorm(g)     logits = y·wordᵀ + bias
 * The decoder is tied: `word` is the backbone's embedding table, and its gradient is the sum of both
 * uses. Only the rows that have something to predict go through the head.
 *
 * Threads.  A head and its tape belong to one thread at a time; the caller never holds the turn.
 */
#ifndef ENGINE_MLM_H
#define ENGINE_MLM_H

#include "engine/encoder.h"

/* Parameters, or the gradient of each. Canonical names are those of BertForMaskedLM. */
struct mlm_params {
    struct linear dense;   /* cls.predictions.transform.dense */
    struct layernorm norm; /* cls.predictions.transform.LayerNorm */
    const float *bias;     /* (vocab) cls.predictions.bias */
};

#define MLM_PARAMS ((size_t)5)

/* Entry i < MLM_PARAMS of the head's table: name, shape, place. */
struct param;
void mlm_params_at(const struct encoder_params *encoder, struct mlm_params *head, size_t i,
                   struct param *out);
/* Sum of all counts. */
size_t mlm_params_total(const struct encoder_params *encoder);
/* Points every parameter into `block` (mlm_params_total floats), in table order, and sets the sizes of
 * the linear map. */
void mlm_params_place(const struct encoder_params *encoder, struct mlm_params *head, float *block);
/* Whether the model's files have the whole head. */
bool mlm_params_in(const eng_model *model);
/* Reads it into `block` and places it. ENG_EUNSUPPORTED names what is missing, ENG_EFORMAT for another
 * shape and for what is not finite. */
ENG_MUST_CHECK eng_status mlm_params_read(const eng_model *model, struct mlm_params *head,
                                          float *block, eng_error *err);

/* What the head keeps between forward and backward, and its gradients; for at most max_targets rows. */
struct mlm_tape;
ENG_MUST_CHECK eng_status mlm_tape_new(const eng_model *model, size_t max_targets,
                                       struct mlm_tape **out, eng_error *err);
void mlm_tape_free(struct mlm_tape *tape);
size_t mlm_tape_bytes(const struct mlm_tape *tape);
void mlm_tape_zero(struct mlm_tape *tape);
/* Gradients of all parameters, one block in table order; accumulates until mlm_tape_zero. */
float *mlm_gradient(struct mlm_tape *tape);
/* Logits of the last forward until its backward (n, vocab), rows gemm_stride(vocab) apart. */
const float *mlm_logits(const struct mlm_tape *tape);

/* Rows to predict, after encoder_forward_bare on `encoder`.
 *   rows (n) row of the packed batch   targets (n) ids   *loss = Σ_n −log softmax(logits)[target] / n
 * ENG_ELIMIT beyond max_targets, ENG_EINVAL for none. */
ENG_MUST_CHECK eng_status mlm_forward(eng_compute *compute, struct mlm_tape *tape, eng_class who,
                                      const struct mlm_params *head,
                                      const struct encoder_tape *encoder, const size_t *rows,
                                      const int32_t *targets, size_t n, double *loss,
                                      eng_error *err);
/* Backward of the last mlm_forward: the head's gradients, the decoder's part of dword (vocab, H; added)
 * and dL/d hidden, written over all rows of encoder_dhidden; all of share · loss, for a part of a larger
 * batch or of a larger loss. Consumes the logits. */
void mlm_backward(eng_compute *compute, struct mlm_tape *tape, eng_class who,
                  const struct mlm_params *head, double share, struct encoder_tape *encoder,
                  float *dword);

#endif
