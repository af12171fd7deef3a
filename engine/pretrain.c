/* pretrain.c: masked language modelling from random weights, METHOD 4.1.
 *
 * A step: fill a batch, forward with dropout, loss over the masked tokens, backward through every
 * weight, clip the gradient's norm, AdamW with a step size that rises linearly and then falls linearly
 * to 0. Biases and norms are not decayed. The random weights change in place, so the model's packed
 * copies are given up and the kernel packs as it goes.
 * Every sum has a fixed order and every mask is a function of seed and step: same text, settings and seed,
 * same bytes, for any number of threads (with OpenBLAS: for the same number).
 */
#include "engine/pretrain.h"

#include "engine/modeldir.h"
#include "engine/status.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define DEV_SEED 20210567u

/* Saved with the tensors. */
struct state {
    struct rng rng;
    uint64_t at[TEXT_MAX_LANES];
};

struct pretrain {
    const eng_pretrain_config *config;
    struct mlm_limits limits;
    struct pretrain_run run;
    eng_model *model;
    struct encoder_tape *tape;
    float *dword; /* the word embeddings' gradient */
    struct mlm_learner mlm;
    struct textstream text, dev;
    struct mlm_words words;
    struct mlm_batch batch;
    struct state state;
    char checkpoint[PATH_MAX], output[PATH_MAX];
};

void eng_pretrain_defaults(eng_pretrain_config *config)
{
    *config = (eng_pretrain_config){
        .schedule = {.steps = 10000,
                     .warmup = 500,
                     .weight_decay = 0.01,
                     .clip = 1,
                     .dev_every = 500,
                     .save_every = 500,
                     .seed = 42},
        .shape = {.layers = 4, .hidden = 256, .heads = 4, .ffn = 1024, .positions = 512},
        .batch_tokens = 4096,
        .max_len = 128,
        .lr = 5e-4,
        .dropout = 0.1,
        .mask = 0.15,
        .dev_tokens = 65536};
}

/* ---- beginning ---- */

static eng_status check_config(const eng_pretrain_config *c, eng_error *err)
{
    if (c->vocab == NULL || c->to == NULL || c->n_files == 0) {
        return fail(err, ENG_EINVAL, "text", "text files, a vocabulary and an output are needed");
    }
    if (c->max_len < 8 || c->max_len > c->shape.positions || c->batch_tokens < c->max_len ||
        c->batch_tokens > ((size_t)1 << 20)) {
        return fail(err, ENG_EINVAL, "max_len",
                    "max_len is 8 to positions (%zu) and at most batch_tokens (to 1048576); got "
                    "%zu and %zu",
                    c->shape.positions, c->max_len, c->batch_tokens);
    }
    if (!(c->lr > 0) || !(c->dropout >= 0 && c->dropout <= 0.9) ||
        !(c->mask > 0 && c->mask <= 0.4)) {
        return fail(err, ENG_EINVAL, "settings",
                    "lr above 0, dropout 0 to 0.9, mask above 0 to 0.4; got %g, %g, %g", c->lr,
                    c->dropout, c->mask);
    }
    return run_check_schedule(&c->schedule, err);
}

/* Whatever changes the result, hashed; field by field, for padding is not defined. */
static void hash_settings(struct pretrain *p, const struct mapfile *vocab)
{
    const eng_pretrain_config *c = p->config;
    const eng_schedule *s = &c->schedule;
    const uint64_t numbers[] = {c->shape.layers, c->shape.hidden,    c->shape.heads,
                                c->shape.ffn,    c->shape.positions, s->steps,
                                s->warmup,       c->batch_tokens,    c->max_len,
                                s->seed,         p->text.lanes,      c->plain_start};
    const double reals[] = {c->lr, s->weight_decay, s->clip, c->dropout, c->mask};
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, sizeof p->run.settings);
    crypto_generichash_update(&state, (const unsigned char *)numbers, sizeof numbers);
    crypto_generichash_update(&state, (const unsigned char *)reals, sizeof reals);
    crypto_generichash_update(&state, vocab->data, vocab->size);
    crypto_generichash_update(&state, (const unsigned char *)p->text.starts,
                              (p->text.files + 1) * sizeof *p->text.starts);
    crypto_generichash_final(&state, p->run.settings, sizeof p->run.settings);
}

static eng_status make_model(struct pretrain *p, eng_error *err)
{
    const eng_pretrain_config *c = p->config;
    struct mapfile vocab = {.fd = -1};
    eng_status status = pretrain_model_random(c->vocab, &c->shape, c->plain_start, c->schedule.seed,
                                              &p->model, err);
    if (status == ENG_OK) {
        status = mapfile_open(c->vocab, TOKENIZER_MAX_FILE_BYTES, &vocab, err);
    }
    if (status == ENG_OK) {
        hash_settings(p, &vocab);
        status = mlm_words_init(p->model->tokenizer, &p->words, err);
    }
    mapfile_close(&vocab);
    return status;
}

static eng_status make_tapes(struct pretrain *p, eng_compute *compute, eng_error *err)
{
    const eng_pretrain_config *c = p->config;
    size_t tokens = backbone_part_tokens(p->model, c->max_len, c->batch_tokens);
    uint64_t seed = c->schedule.seed;
    rng_seed(&p->state.rng, splitmix64(&seed)); /* makes the head, and is then the run's */
    eng_status status = mlm_batch_init(&p->limits, &p->batch, err);
    if (status == ENG_OK) {
        status =
            encoder_tape_new(p->model, tokens, p->batch.max_sequences, WANT_WEIGHTS, &p->tape, err);
    }
    if (status == ENG_OK) {
        p->dword = (float *)(uintptr_t)encoder_gradient(p->tape,
                                                        "embeddings.word_embeddings.weight", NULL);
        status = mlm_learner_init(&p->mlm, compute, p->model, tokens, p->batch.max_sequences,
                                  &p->state.rng, err);
    }
    p->mlm.tape = p->tape;
    return status;
}

static eng_status step(void *self, uint64_t number, eng_pretrain_progress *progress,
                       uint64_t *tokens, eng_error *err)
{
    struct pretrain *p = self;
    const eng_pretrain_config *c = p->config;
    memcpy(p->text.at, p->state.at, sizeof p->text.at);
    eng_status status = mlm_batch_fill(&p->batch, &p->limits, p->model->tokenizer, &p->words,
                                       &p->text, false, &p->state.rng, err);
    memcpy(p->state.at, p->text.at, sizeof p->state.at);
    if (status != ENG_OK) {
        return status;
    }
    uint64_t key = c->schedule.seed ^ (number << 20);
    encoder_dropout(p->tape, (float)c->dropout, splitmix64(&key));
    encoder_tape_zero(p->tape);
    mlm_tape_zero(p->mlm.mlm);
    *tokens = p->batch.tokens;
    return mlm_learner_run(&p->mlm, &p->batch, 1, p->dword, &progress->loss, err);
}

/* exp of the mean loss over the same masked tokens of the dev text every time, without dropout */
static eng_status look(void *self, eng_pretrain_progress *progress, eng_error *err)
{
    struct pretrain *p = self;
    struct rng rng;
    double sum = 0;
    size_t targets = 0, tokens = 0;
    rng_seed(&rng, DEV_SEED);
    textstream_rewind(&p->dev);
    encoder_dropout(p->tape, 0, 0);
    while (p->dev.passes == 0 && tokens < p->config->dev_tokens) {
        double loss = 0;
        eng_status status = mlm_batch_fill(&p->batch, &p->limits, p->model->tokenizer, &p->words,
                                           &p->dev, true, &rng, err);
        if (status == ENG_OK && p->batch.n == 0) {
            break;
        }
        if (status == ENG_OK) {
            status = mlm_learner_run(&p->mlm, &p->batch, 1, NULL, &loss, err);
        }
        if (status != ENG_OK) {
            return status;
        }
        sum += loss * (double)p->batch.n_targets;
        targets += p->batch.n_targets;
        tokens += p->batch.tokens;
    }
    progress->dev_perplexity = targets > 0 ? exp(sum / (double)targets) : (double)NAN;
    return ENG_OK;
}

static eng_status finish(void *self, eng_error *err)
{
    struct pretrain *p = self;
    size_t backbone = params_count(&p->model->params);
    eng_status status = modeldir_copy(p->config->vocab, p->config->to, "vocab.txt", err);
    return status == ENG_OK ? modeldir_write(p->config->to, p->model, "BertForMaskedLM",
                                             p->run.tensors + backbone, p->run.n - backbone, err)
                            : status;
}

static eng_status check(const void *self, const char *path, eng_error *err)
{
    const struct pretrain *p = self;
    for (size_t lane = 0; lane < p->text.lanes; lane++) {
        if (p->state.at[lane] > textstream_bytes(&p->text)) {
            return fail(err, ENG_EFORMAT, "to", "%s points behind the end of the text", path);
        }
    }
    return ENG_OK;
}

static const struct run_kind kind = {
    .magic = "mp2 pretrain 2\n", .step = step, .finish = finish, .check = check};
static const struct run_kind kind_with_dev = {
    .magic = "mp2 pretrain 2\n", .step = step, .look = look, .finish = finish, .check = check};

static eng_status make_run(struct pretrain *p, eng_compute *compute, eng_error *err)
{
    const eng_pretrain_config *c = p->config;
    p->run.compute = compute;
    p->run.kind = c->dev != NULL ? &kind_with_dev : &kind;
    p->run.self = p;
    p->run.schedule = &c->schedule;
    p->run.lr = c->lr;
    p->run.state = &p->state;
    p->run.state_bytes = sizeof p->state;
    p->run.checkpoint = p->checkpoint;
    memcpy(p->state.at, p->text.at, sizeof p->state.at);
    eng_status status = backbone_add(p->model, p->tape, c->lr, &p->run, err);
    return status == ENG_OK ? mlm_learner_add(&p->mlm, &p->run, c->lr, err) : status;
}

static eng_status make_place(struct pretrain *p, eng_error *err)
{
    const eng_pretrain_config *c = p->config;
    eng_status status = modeldir_path(c->to, "checkpoint.bin", p->checkpoint, err);
    if (status == ENG_OK) {
        status = modeldir_path(c->to, "model.safetensors", p->output, err);
    }
    if (status == ENG_OK) {
        status = modeldir_make(c->to, err);
    }
    return status == ENG_OK ? run_may_begin(p->checkpoint, p->output, c->schedule.resume, err)
                            : status;
}

static eng_status begin(struct pretrain *p, eng_compute *compute, eng_error *err)
{
    const eng_pretrain_config *c = p->config;
    eng_status status = check_config(c, err);
    if (status == ENG_OK) {
        status = run_init(&p->run, PRETRAIN_TENSORS, err);
    }
    if (status == ENG_OK) {
        status = textstream_init(&p->text, c->files, c->n_files, TEXT_MAX_LANES, err);
    }
    if (status == ENG_OK && c->dev != NULL) {
        status = textstream_init(&p->dev, &c->dev, 1, 1, err);
    }
    if (status == ENG_OK) {
        status = make_model(p, err);
    }
    if (status == ENG_OK) {
        status = make_tapes(p, compute, err);
    }
    if (status == ENG_OK) {
        status = make_run(p, compute, err);
    }
    return status == ENG_OK ? make_place(p, err) : status;
}

static void end(struct pretrain *p)
{
    run_fini(&p->run);
    mlm_learner_fini(&p->mlm);
    encoder_tape_free(p->tape);
    mlm_batch_fini(&p->batch);
    textstream_fini(&p->text);
    textstream_fini(&p->dev);
    free(p->words.ids);
    eng_model_free(p->model);
    free(p);
}

eng_status eng_pretrain_backbone(eng_compute *compute, const eng_pretrain_config *config,
                                 eng_on_pretrain on_progress, void *arg, eng_error *err)
{
    if (sodium_init() < 0) {
        return fail(err, ENG_EUNSUPPORTED, "libsodium", "libsodium does not start");
    }
    struct pretrain *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return fail_nomem(err, "settings");
    }
    p->config = config;
    p->limits = (struct mlm_limits){config->batch_tokens, config->max_len, config->mask};
    eng_status status = begin(p, compute, err);
    if (status == ENG_OK) {
        status = run_steps(&p->run, on_progress, arg, err);
    }
    end(p);
    return status;
}
