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

#include "engine/arena.h"
#include "engine/pool.h"
#include "engine/status.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEVIATION 0.02
#define DEV_SEED  20210567u

void eng_pretrain_defaults(eng_pretrain_config *config)
{
    *config = (eng_pretrain_config){
        .shape = {.layers = 4, .hidden = 256, .heads = 4, .ffn = 1024, .positions = 512},
        .steps = 10000,
        .warmup = 500,
        .batch_tokens = 4096,
        .max_len = 128,
        .lr = 5e-4,
        .weight_decay = 0.01,
        .clip = 1,
        .dropout = 0.1,
        .mask = 0.15,
        .dev_every = 500,
        .dev_tokens = 65536,
        .save_every = 500,
        .seed = 42};
}

/* ---- tensors ---- */

size_t pretrain_tensors(const struct pretrain *p)
{
    return params_count(&p->model->params) + MLM_PARAMS;
}

void pretrain_tensor_at(struct pretrain *p, size_t i, struct pretrain_tensor *out)
{
    size_t backbone = params_count(&p->model->params);
    if (i < backbone) {
        params_at(&p->model->params, i, &out->param);
        size_t at = (size_t)(*out->param.place - p->params);
        out->values = p->params + at;
        out->gradient = p->gradient != NULL ? p->gradient + at : NULL;
        return;
    }
    mlm_params_at(&p->model->params, &p->head, i - backbone, &out->param);
    size_t at = (size_t)(*out->param.place - p->head_params);
    out->values = p->head_params + at;
    out->gradient = p->mlm != NULL ? mlm_gradient(p->mlm) + at : NULL;
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
    if (c->steps == 0 || !(c->lr > 0) || !(c->weight_decay >= 0) || !(c->clip >= 0) ||
        !(c->dropout >= 0 && c->dropout <= 0.9) || !(c->mask > 0 && c->mask <= 0.4)) {
        return fail(
            err, ENG_EINVAL, "settings",
            "steps and lr above 0, decay and clip not below, dropout 0 to 0.9, mask above 0 "
            "to 0.4; got %zu, %g, %g, %g, %g, %g",
            c->steps, c->lr, c->weight_decay, c->clip, c->dropout, c->mask);
    }
    return ENG_OK;
}

static eng_status read_vocab(struct mapfile *map, const char *path, struct tokenizer **tokenizer,
                             eng_error *err)
{
    struct tokenizer_options options = tokenizer_defaults();
    eng_status status = mapfile_open(path, TOKENIZER_MAX_FILE_BYTES, map, err);
    return status != ENG_OK ? status
                            : tokenizer_from_vocab((eng_text){(const char *)map->data, map->size},
                                                   &options, tokenizer, err);
}

/* Whatever changes the result, hashed; field by field, for padding is not defined. */
static void hash_settings(struct pretrain *p, const struct mapfile *vocab)
{
    const eng_pretrain_config *c = p->config;
    const uint64_t numbers[] = {c->shape.layers, c->shape.hidden,    c->shape.heads,
                                c->shape.ffn,    c->shape.positions, c->steps,
                                c->warmup,       c->batch_tokens,    c->max_len,
                                c->seed,         p->text.lanes};
    const double reals[] = {c->lr, c->weight_decay, c->clip, c->dropout, c->mask};
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, sizeof p->settings);
    crypto_generichash_update(&state, (const unsigned char *)numbers, sizeof numbers);
    crypto_generichash_update(&state, (const unsigned char *)reals, sizeof reals);
    crypto_generichash_update(&state, vocab->data, vocab->size);
    crypto_generichash_update(&state, (const unsigned char *)p->text.starts,
                              (p->text.files + 1) * sizeof *p->text.starts);
    crypto_generichash_final(&state, p->settings, sizeof p->settings);
}

static eng_status make_model(struct pretrain *p, eng_error *err)
{
    struct mapfile vocab = {.fd = -1};
    struct tokenizer *tokenizer = NULL;
    eng_model_info shape = p->config->shape;
    eng_status status = read_vocab(&vocab, p->config->vocab, &tokenizer, err);
    if (status == ENG_OK) {
        hash_settings(p, &vocab);
        shape.vocab = tokenizer_size(tokenizer);
        shape.types = 2;
        status = eng_model_random(&shape, p->config->seed, &p->model, err);
    }
    mapfile_close(&vocab);
    if (status != ENG_OK) {
        tokenizer_free(tokenizer);
        return status;
    }
    p->model->tokenizer = tokenizer;
    p->params = p->model->block;
    encoder_unprepare(p->model);
    return mlm_words_init(tokenizer, &p->words, err);
}

/* The head's parameters at random; the generator is then the run's. */
static eng_status make_head(struct pretrain *p, eng_error *err)
{
    size_t H = p->model->params.hidden;
    p->head_params = calloc(mlm_params_total(&p->model->params), sizeof *p->head_params);
    if (p->head_params == NULL) {
        return fail_nomem(err, "shape");
    }
    mlm_params_place(&p->model->params, &p->head, p->head_params);
    uint64_t seed = p->config->seed;
    rng_seed(&p->rng, splitmix64(&seed));
    for (size_t i = 0; i < H * H; i++) {
        p->head_params[i] = (float)(DEVIATION * rng_normal(&p->rng));
    }
    for (size_t i = 0; i < H; i++) {
        p->head_params[H * H + H + i] = 1; /* the norm's weight */
    }
    return ENG_OK;
}

static eng_status make_tapes(struct pretrain *p, eng_error *err)
{
    eng_status status = mlm_batch_init(p->config, &p->batch, err);
    if (status == ENG_OK) {
        status = encoder_tape_new(p->model, p->config->batch_tokens, p->batch.max_sequences,
                                  WANT_WEIGHTS, &p->tape, err);
    }
    if (status == ENG_OK) {
        p->gradient = (float *)(uintptr_t)encoder_gradient(
            p->tape, "embeddings.word_embeddings.weight", NULL); /* the first of the table */
        status = mlm_tape_new(p->model, p->batch.max_targets, &p->mlm, err);
    }
    for (size_t i = 0; status == ENG_OK && i < pretrain_tensors(p); i++) {
        struct pretrain_tensor tensor;
        pretrain_tensor_at(p, i, &tensor);
        status = adamw_new(tensor.param.count, &p->optimisers[i], err);
    }
    return status;
}

static eng_status begin(struct pretrain *p, eng_error *err)
{
    const eng_pretrain_config *c = p->config;
    eng_status status = check_config(c, err);
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
        status = make_head(p, err);
    }
    if (status == ENG_OK) {
        status = make_tapes(p, err);
    }
    if (status == ENG_OK) {
        status = pretrain_make_dir(c, err);
    }
    return status == ENG_OK && c->resume ? pretrain_load(p, err) : status;
}

static void end(struct pretrain *p)
{
    for (size_t i = 0; i < PRETRAIN_TENSORS; i++) {
        adamw_free(p->optimisers[i]);
    }
    mlm_tape_free(p->mlm);
    encoder_tape_free(p->tape);
    mlm_batch_fini(&p->batch);
    textstream_fini(&p->text);
    textstream_fini(&p->dev);
    free(p->words.ids);
    free(p->head_params);
    eng_model_free(p->model);
    free(p);
}

/* ---- one step ---- */

static double step_size(const eng_pretrain_config *c, uint64_t step)
{
    double done = (double)(step + 1);
    if (step < c->warmup) {
        return c->lr * done / (double)c->warmup;
    }
    double left = (double)c->steps - (double)step, of = (double)c->steps - (double)c->warmup;
    return c->lr * left / (of > 0 ? of : 1);
}

static eng_status forward(struct pretrain *p, double *loss, eng_error *err)
{
    const struct mlm_batch *batch = &p->batch;
    eng_status status =
        encoder_forward_bare(p->compute, p->tape, ENG_TRAINING, batch->sequences, batch->n, err);
    return status != ENG_OK ? status
                            : mlm_forward(p->compute, p->mlm, ENG_TRAINING, &p->head, p->tape,
                                          batch->rows, batch->targets, batch->n_targets, loss, err);
}

struct update {
    struct pretrain *p;
    double lr, decay;
    double squares[PRETRAIN_TENSORS]; /* of each tensor's gradient */
    float scale;
};

static void square_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    struct update *update = arg;
    struct pretrain_tensor tensor;
    double sum = 0;
    pretrain_tensor_at(update->p, index, &tensor);
    for (size_t i = 0; i < tensor.param.count; i++) {
        sum += (double)tensor.gradient[i] * tensor.gradient[i];
    }
    update->squares[index] = sum;
}

static bool is_decayed(const struct param *param)
{
    return param->dims == 2; /* biases and norms are vectors */
}

static void adamw_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    struct update *update = arg;
    struct pretrain_tensor tensor;
    pretrain_tensor_at(update->p, index, &tensor);
    for (size_t i = 0; update->scale < 1 && i < tensor.param.count; i++) {
        tensor.gradient[i] *= update->scale;
    }
    adamw_step(update->p->optimisers[index], update->lr,
               is_decayed(&tensor.param) ? update->decay : 0, tensor.gradient, tensor.values);
}

/* Clips and steps; returns the gradient's norm before clipping. */
static double apply(struct pretrain *p, double lr)
{
    struct update update = {.p = p, .lr = lr, .decay = p->config->weight_decay, .scale = 1};
    size_t n = pretrain_tensors(p);
    double sum = 0, work = 20.0 * (double)p->model->info.parameters;
    compute_turn_take(p->compute, ENG_TRAINING);
    pool_run(p->compute, n, work, square_task, &update);
    for (size_t i = 0; i < n; i++) {
        sum += update.squares[i];
    }
    double norm = sqrt(sum);
    if (p->config->clip > 0 && norm > p->config->clip) {
        update.scale = (float)(p->config->clip / norm);
    }
    if (isfinite(norm)) {
        pool_run(p->compute, n, work, adamw_task, &update);
    }
    compute_turn_give(p->compute);
    return norm;
}

static eng_status train_step(struct pretrain *p, eng_pretrain_progress *progress, eng_error *err)
{
    const eng_pretrain_config *c = p->config;
    eng_status status =
        mlm_batch_fill(&p->batch, c, p->model->tokenizer, &p->words, &p->text, false, &p->rng, err);
    if (status != ENG_OK) {
        return status;
    }
    uint64_t key = c->seed ^ (p->step << 20);
    encoder_dropout(p->tape, (float)c->dropout, splitmix64(&key));
    status = forward(p, &progress->loss, err);
    if (status != ENG_OK) {
        return status;
    }
    encoder_tape_zero(p->tape);
    mlm_tape_zero(p->mlm);
    /* The word embeddings come first in the table, and the decoder is tied to them. */
    mlm_backward(p->compute, p->mlm, ENG_TRAINING, &p->head, p->tape, p->gradient);
    status = encoder_backward_bare(p->compute, p->tape, ENG_TRAINING, err);
    if (status != ENG_OK) {
        return status;
    }
    progress->lr = step_size(c, p->step);
    progress->gradient_norm = apply(p, progress->lr);
    if (!isfinite(progress->loss) || !isfinite(progress->gradient_norm)) {
        return fail(err, ENG_EDIVERGED, "loss",
                    "loss %g, gradient norm %g in step %zu; a smaller step size may help",
                    progress->loss, progress->gradient_norm, (size_t)p->step + 1);
    }
    p->step++;
    p->tokens += p->batch.tokens;
    return ENG_OK;
}

/* exp of the mean loss over the same masked tokens of the dev text every time, without dropout */
static eng_status look_at_dev(struct pretrain *p, double *perplexity, eng_error *err)
{
    struct rng rng;
    double sum = 0;
    size_t targets = 0, tokens = 0;
    rng_seed(&rng, DEV_SEED);
    textstream_rewind(&p->dev);
    encoder_dropout(p->tape, 0, 0);
    while (p->dev.passes == 0 && tokens < p->config->dev_tokens) {
        double loss = 0;
        eng_status status = mlm_batch_fill(&p->batch, p->config, p->model->tokenizer, &p->words,
                                           &p->dev, true, &rng, err);
        if (status == ENG_OK && p->batch.n == 0) {
            break;
        }
        if (status == ENG_OK) {
            status = forward(p, &loss, err);
        }
        if (status != ENG_OK) {
            return status;
        }
        sum += loss * (double)p->batch.n_targets;
        targets += p->batch.n_targets;
        tokens += p->batch.tokens;
    }
    *perplexity = targets > 0 ? exp(sum / (double)targets) : NAN;
    return ENG_OK;
}

/* ---- the loop ---- */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static bool is_due(uint64_t step, size_t every, size_t steps)
{
    return (every > 0 && step % every == 0) || step == steps;
}

static eng_status run(struct pretrain *p, eng_on_pretrain on_progress, void *arg, eng_error *err)
{
    const eng_pretrain_config *c = p->config;
    double from = now();
    uint64_t first = p->step, tokens = p->tokens;
    while (p->step < c->steps) {
        eng_pretrain_progress progress = {.steps = c->steps, .dev_perplexity = NAN};
        eng_status status = train_step(p, &progress, err);
        if (status == ENG_OK && c->dev != NULL && is_due(p->step, c->dev_every, c->steps)) {
            status = look_at_dev(p, &progress.dev_perplexity, err);
        }
        if (status == ENG_OK && c->save_every > 0 && p->step % c->save_every == 0) {
            status = pretrain_save(p, err);
        }
        if (status != ENG_OK) {
            return status;
        }
        progress.step = (size_t)p->step;
        progress.tokens = p->tokens;
        progress.seconds = now() - from;
        progress.tokens_per_second = (double)(p->tokens - tokens) / (progress.seconds + 1e-9);
        progress.seconds_left =
            progress.seconds / (double)(p->step - first) * (double)(c->steps - p->step);
        if (on_progress != NULL && !on_progress(arg, &progress)) {
            status = pretrain_save(p, err);
            return status != ENG_OK
                       ? status
                       : fail(err, ENG_ECANCELLED, NULL,
                              "stopped after step %zu; the checkpoint is saved", (size_t)p->step);
        }
    }
    return pretrain_write_model(p, err);
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
    p->compute = compute;
    eng_status status = begin(p, err);
    if (status == ENG_OK) {
        status = run(p, on_progress, arg, err);
    }
    end(p);
    return status;
}
