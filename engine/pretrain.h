/* pretrain.h (private to pretrain*.c): a backbone in training.
 *
 *   pretrain.c        settings, the step, the loop
 *   pretrain_batch.c  masked batches from a stream of text
 *   pretrain_files.c  the checkpoint, and the model directory at the end
 * One thread, but for what the compute pool does. The whole state of a run is: the parameters, the
 * optimisers, the generator, the stream's offsets, the counters. All of it is in the checkpoint.
 */
#ifndef ENGINE_PRETRAIN_H
#define ENGINE_PRETRAIN_H

#include "engine/mlm.h"
#include "engine/opt_adamw.h"
#include "engine/params.h"
#include "engine/rng.h"
#include "engine/textstream.h"

#define PRETRAIN_SETTINGS 32 /* bytes of a hash */
#define PRETRAIN_TENSORS  (5 + 16 * ENG_MAX_LAYERS + (size_t)MLM_PARAMS)

/* One packed batch; capacities from the settings. */
struct mlm_batch {
    int32_t *ids; /* (batch_tokens) */
    eng_sequence *sequences;
    size_t n, tokens, max_sequences;
    size_t *rows;     /* (max_targets) */
    int32_t *targets; /* (max_targets) */
    size_t n_targets, max_targets;
};

/* Ids a random token may be: everything but special and [unusedN] tokens. */
struct mlm_words {
    int32_t *ids;
    size_t n;
    int32_t cls, sep, mask;
};

struct pretrain {
    const eng_pretrain_config *config;
    eng_compute *compute;
    eng_model *model;
    float *params;      /* every backbone parameter in table order: the model's own block */
    float *head_params; /* the head's, in its order */
    struct mlm_params head;
    struct encoder_tape *tape;
    float *gradient; /* the tape's, laid out as params */
    struct mlm_tape *mlm;
    struct textstream text, dev;
    struct mlm_words words;
    struct mlm_batch batch;
    struct adamw *optimisers[PRETRAIN_TENSORS];
    unsigned char settings[PRETRAIN_SETTINGS];
    struct rng rng;
    uint64_t step, tokens;
};

/* One tensor of the backbone or the head: where it lies in params or head_params. */
struct pretrain_tensor {
    struct param param;
    float *values, *gradient; /* gradient NULL while there is no tape */
};
size_t pretrain_tensors(const struct pretrain *p);
void pretrain_tensor_at(struct pretrain *p, size_t i, struct pretrain_tensor *out);

ENG_MUST_CHECK eng_status mlm_words_init(const struct tokenizer *tokenizer, struct mlm_words *words,
                                         eng_error *err);
ENG_MUST_CHECK eng_status mlm_batch_init(const eng_pretrain_config *config, struct mlm_batch *batch,
                                         eng_error *err);
void mlm_batch_fini(struct mlm_batch *batch);
/* Fills the batch from the stream: as many whole pieces as fit, masked. `once`: none behind the point
 * where the stream begins again (text->passes tells; the batch may then be empty). */
ENG_MUST_CHECK eng_status mlm_batch_fill(struct mlm_batch *batch, const eng_pretrain_config *config,
                                         const struct tokenizer *tokenizer,
                                         const struct mlm_words *words, struct textstream *text,
                                         bool once, struct rng *rng, eng_error *err);

/* The directory is there and free, or may be gone on with. */
ENG_MUST_CHECK eng_status pretrain_make_dir(const eng_pretrain_config *config, eng_error *err);
ENG_MUST_CHECK eng_status pretrain_save(struct pretrain *p, eng_error *err);
/* ENG_OK also when there is no checkpoint. */
ENG_MUST_CHECK eng_status pretrain_load(struct pretrain *p, eng_error *err);
/* Writes the model and removes the checkpoint. */
ENG_MUST_CHECK eng_status pretrain_write_model(struct pretrain *p, eng_error *err);

#endif
