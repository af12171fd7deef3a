/* pretrain.h (private to pretrain*.c): a backbone in training.
 *
 *   pretrain.c         settings, the step, dev perplexity, the model directory at the end
 *   pretrain_model.c   models whose weights may change
 *   pretrain_mlm.c     masked batches through backbone and head, in parts
 *   pretrain_batch.c   masked batches from a stream of text
 *   pretrain_run.c, pretrain_checkpoint.c   the loop, and what it saves
 * One thread, but for what the compute pool does. The whole state of a run is: the parameters, the
 * optimisers, the generator, the stream's offsets, the counters. All of it is in the checkpoint.
 */
#ifndef ENGINE_PRETRAIN_H
#define ENGINE_PRETRAIN_H

#include "engine/mlm.h"
#include "engine/params.h"
#include "engine/pretrain_run.h"
#include "engine/rng.h"
#include "engine/textstream.h"

#define PRETRAIN_TENSORS (5 + 16 * ENG_MAX_LAYERS + (size_t)MLM_PARAMS)

/* What a masked batch is made to. */
struct mlm_limits {
    size_t batch_tokens; /* of a batch, packed */
    size_t max_len;      /* of a sequence, [CLS] and [SEP] included */
    double mask;         /* share of the tokens to predict */
};

/* One packed batch; capacities from the limits. */
struct mlm_batch {
    int32_t *ids; /* (batch_tokens) */
    eng_sequence *sequences;
    size_t n, tokens, max_sequences;
    size_t *rows;     /* (max_targets) ascending */
    int32_t *targets; /* (max_targets) */
    size_t n_targets, max_targets;
};

/* Ids a random token may be: everything but special and [unusedN] tokens. */
struct mlm_words {
    int32_t *ids;
    size_t n;
    int32_t cls, sep, mask;
};

ENG_MUST_CHECK eng_status mlm_words_init(const struct tokenizer *tokenizer, struct mlm_words *words,
                                         eng_error *err);
ENG_MUST_CHECK eng_status mlm_batch_init(const struct mlm_limits *limits, struct mlm_batch *batch,
                                         eng_error *err);
void mlm_batch_fini(struct mlm_batch *batch);
/* Fills the batch from the stream: as many whole pieces as fit, masked. `once`: none behind the point
 * where the stream begins again (text->passes tells; the batch may then be empty). */
ENG_MUST_CHECK eng_status mlm_batch_fill(struct mlm_batch *batch, const struct mlm_limits *limits,
                                         const struct tokenizer *tokenizer,
                                         const struct mlm_words *words, struct textstream *text,
                                         bool once, struct rng *rng, eng_error *err);

/* A head on a backbone, and the passes of a masked batch through both, in parts that fit the tapes. */
struct mlm_learner {
    eng_compute *compute;
    eng_model *model;
    struct encoder_tape *tape; /* the caller's */
    size_t max_tokens;         /* of a part, */
    size_t max_sequences;      /* and of them at most so many */
    struct mlm_tape *mlm;
    struct mlm_params head;
    float *head_params; /* the head's, in its order */
};

/* The head of the model's files, else a random one, and its tape, for parts of at most max_tokens tokens; mlm_learner_fini frees, also
 * after a failure. */
ENG_MUST_CHECK eng_status mlm_learner_init(struct mlm_learner *learner, eng_compute *compute,
                                           eng_model *model, size_t max_tokens,
                                           size_t max_sequences, struct rng *rng, eng_error *err);
void mlm_learner_fini(struct mlm_learner *learner);
/* Adds the head's tensors. */
ENG_MUST_CHECK eng_status mlm_learner_add(struct mlm_learner *learner, struct pretrain_run *run,
                                          double lr, eng_error *err);
/* Mean loss over the batch's targets. `dword` not NULL: also backward of share · loss, added to the
 * gradients of both tapes; dword is the word embeddings' gradient, which the decoder is tied to. */
ENG_MUST_CHECK eng_status mlm_learner_run(struct mlm_learner *learner,
                                          const struct mlm_batch *batch, double share, float *dword,
                                          double *loss, eng_error *err);

/* A model of seeded random weights for the vocabulary of a file, ours to write. Unless plain_start, the
 * weights are pretrain_start_looking's. */
ENG_MUST_CHECK eng_status pretrain_model_random(const char *vocab, const eng_model_info *shape,
                                                bool plain_start, uint64_t seed, eng_model **out,
                                                eng_error *err);
/* Rewrites model_random_bare's weights, in place, so that heads attend to neighbours and to equal tokens
 * from the first step (pretrain_start.c). */
void pretrain_start_looking(struct encoder_params *params);
/* The model of a directory with its weights copied, ours to write. */
ENG_MUST_CHECK eng_status pretrain_model_own(const char *dir, eng_model **out, eng_error *err);

/* Adds every backbone parameter; its gradient lies in the tape. */
ENG_MUST_CHECK eng_status backbone_add(eng_model *model, const struct encoder_tape *tape, double lr,
                                       struct pretrain_run *run, eng_error *err);
/* Tokens of a part such that a tape with every weight's gradient stays within about a gibibyte; at
 * least `longest`, at most `all`. */
size_t backbone_part_tokens(const eng_model *model, size_t longest, size_t all);

#endif
