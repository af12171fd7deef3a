/* pretrain_mlm.c: masked batches through backbone and head, forward and backward, part by part.
 *
 * A batch that does not fit the tapes is run in parts of whole sequences; the gradient of each part is
 * weighted with its share of the targets, so that the sum is the gradient of the mean over all of them.
 */
#include "engine/pretrain.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

#define DEVIATION  0.02
#define TAPE_BYTES ((size_t)1 << 30)

/* The head's parameters: the model's own where its files have them, else random. */
static eng_status make_head(struct mlm_learner *learner, struct rng *rng, eng_error *err)
{
    size_t H = learner->model->params.hidden;
    learner->head_params =
        calloc(mlm_params_total(&learner->model->params), sizeof *learner->head_params);
    if (learner->head_params == NULL) {
        return fail_nomem(err, "shape");
    }
    if (mlm_params_in(learner->model)) {
        return mlm_params_read(learner->model, &learner->head, learner->head_params, err);
    }
    mlm_params_place(&learner->model->params, &learner->head, learner->head_params);
    for (size_t i = 0; i < H * H; i++) {
        learner->head_params[i] = (float)(DEVIATION * rng_normal(rng));
    }
    for (size_t i = 0; i < H; i++) {
        learner->head_params[H * H + H + i] = 1; /* the norm's weight */
    }
    return ENG_OK;
}

eng_status mlm_learner_init(struct mlm_learner *learner, eng_compute *compute, eng_model *model,
                            size_t max_tokens, size_t max_sequences, struct rng *rng,
                            eng_error *err)
{
    *learner = (struct mlm_learner){.compute = compute,
                                    .model = model,
                                    .max_tokens = max_tokens,
                                    .max_sequences = max_sequences};
    eng_status status = make_head(learner, rng, err);
    /* half of a part, as in mlm_batch_init, and at least what one sequence may have */
    return status == ENG_OK ? mlm_tape_new(model, max_tokens / 2 + 1, &learner->mlm, err) : status;
}

void mlm_learner_fini(struct mlm_learner *learner)
{
    mlm_tape_free(learner->mlm);
    free(learner->head_params);
    *learner = (struct mlm_learner){0};
}

eng_status mlm_learner_add(struct mlm_learner *learner, struct pretrain_run *run, double lr,
                           eng_error *err)
{
    eng_status status = ENG_OK;
    for (size_t i = 0; status == ENG_OK && i < MLM_PARAMS; i++) {
        struct param param;
        mlm_params_at(&learner->model->params, &learner->head, i, &param);
        size_t at = (size_t)(*param.place - learner->head_params);
        struct run_tensor tensor = {.dims = param.dims,
                                    .shape = {param.shape[0], param.shape[1], 1},
                                    .values = learner->head_params + at,
                                    .gradient = mlm_gradient(learner->mlm) + at,
                                    .lr = lr,
                                    .decayed = param.dims == 2};
        memcpy(tensor.name, param.name, sizeof tensor.name);
        status = run_add(run, &tensor, err);
    }
    return status;
}

/* Sequences [first, first + n) of a batch, rows [at, at + tokens), targets [target, target + targets). */
struct part {
    size_t first, n, at, tokens, target, targets;
};

/* Moves on to the part behind; false at the end of the batch. */
static bool next_part(const struct mlm_learner *learner, const struct mlm_batch *batch,
                      struct part *part)
{
    *part = (struct part){.first = part->first + part->n,
                          .at = part->at + part->tokens,
                          .target = part->target + part->targets};
    while (part->first + part->n < batch->n && part->n < learner->max_sequences) {
        size_t len = batch->sequences[part->first + part->n].len, more = 0;
        size_t end = part->at + part->tokens + len;
        while (part->target + part->targets + more < batch->n_targets &&
               batch->rows[part->target + part->targets + more] < end) {
            more++;
        }
        if (part->n > 0 && (part->tokens + len > learner->max_tokens ||
                            part->targets + more > learner->max_tokens / 2 + 1)) {
            break;
        }
        part->n++;
        part->tokens += len;
        part->targets += more;
    }
    return part->n > 0;
}

static eng_status run_part(struct mlm_learner *learner, const struct mlm_batch *batch,
                           const struct part *part, double share, float *dword, double *loss,
                           eng_error *err)
{
    size_t *rows = malloc((part->targets + 1) * sizeof *rows);
    if (rows == NULL) {
        return fail_nomem(err, "batch_tokens");
    }
    for (size_t i = 0; i < part->targets; i++) {
        rows[i] = batch->rows[part->target + i] - part->at;
    }
    eng_status status = encoder_forward_bare(learner->compute, learner->tape, ENG_TRAINING,
                                             batch->sequences + part->first, part->n, err);
    if (status == ENG_OK) {
        status =
            mlm_forward(learner->compute, learner->mlm, ENG_TRAINING, &learner->head, learner->tape,
                        rows, batch->targets + part->target, part->targets, loss, err);
    }
    if (status == ENG_OK && dword != NULL) {
        mlm_backward(learner->compute, learner->mlm, ENG_TRAINING, &learner->head, share,
                     learner->tape, dword);
        status = encoder_backward_bare(learner->compute, learner->tape, ENG_TRAINING, err);
    }
    free(rows);
    return status;
}

eng_status mlm_learner_run(struct mlm_learner *learner, const struct mlm_batch *batch, double share,
                           float *dword, double *loss, eng_error *err)
{
    struct part part = {0};
    *loss = 0;
    while (next_part(learner, batch, &part)) {
        double of = (double)part.targets / (double)batch->n_targets, mean = 0;
        if (part.targets == 0) {
            continue;
        }
        eng_status status = run_part(learner, batch, &part, share * of, dword, &mean, err);
        if (status != ENG_OK) {
            return status;
        }
        *loss += of * mean;
    }
    return ENG_OK;
}

/* ---- the backbone ---- */

eng_status backbone_add(eng_model *model, const struct encoder_tape *tape, double lr,
                        struct pretrain_run *run, eng_error *err)
{
    eng_status status = ENG_OK;
    for (size_t i = 0; status == ENG_OK && i < params_count(&model->params); i++) {
        struct param param;
        params_at(&model->params, i, &param);
        /* the model's block is ours to write: see pretrain_model.c */
        struct run_tensor tensor = {
            .dims = param.dims,
            .shape = {param.shape[0], param.shape[1], 1},
            .values = (float *)(uintptr_t)*param.place,
            .gradient = (float *)(uintptr_t)encoder_gradient(tape, param.name, NULL),
            .lr = lr,
            .decayed = param.dims == 2}; /* biases and norms are vectors */
        memcpy(tensor.name, param.name, sizeof tensor.name);
        status = run_add(run, &tensor, err);
    }
    return status;
}

size_t backbone_part_tokens(const eng_model *model, size_t longest, size_t all)
{
    const struct encoder_params *params = &model->params;
    /* floats a token: what every layer keeps, and what all of them share (encoder_tape.h) */
    size_t floats = params->layers * (8 * params->hidden + params->ffn + 2) + 9 * params->hidden +
                    2 * params->ffn;
    size_t tokens = TAPE_BYTES / (floats * sizeof(float));
    tokens = tokens > all ? all : tokens;
    return tokens < longest ? longest : tokens;
}
