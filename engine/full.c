/* full.c: every weight of the backbone and the head trained, on a copy. Contract in full.h.
 *
 * The vector of this part is as long as the model, and the loop keeps it, its best, its gradient and two
 * moments: with the copy and the tape's gradients seven times the weights. That is what a baseline may
 * cost on a command line; it is why a server does not offer it.
 */
#include "engine/full.h"

#include "engine/gemm.h"
#include "engine/params.h"
#include "engine/safetensors.h"
#include "engine/status.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- the part ------------------------------------------------------------------------------------- */

static size_t full_size(const struct learner *learner)
{
    return learner->model->info.parameters + learner_head_floats(learner);
}

/* The packed form of a matrix whose own was let go, or NULL: that of a parameter's place. */
static const struct gemm_packed *packed_at(struct encoder_params *params, const float **place)
{
    for (size_t l = 0; l < params->layers; l++) {
        struct linear *linears[LAYER_LINEARS];
        layer_linears(&params->layer[l], linears);
        for (size_t i = 0; i < LAYER_LINEARS; i++) {
            if (place == &linears[i]->w) {
                return linears[i]->packed;
            }
        }
    }
    return NULL;
}

/* Every weight of a model, in the table's order. */
static void copy_weights(const eng_model *model, float *to)
{
    struct encoder_params from = model->params;
    for (size_t i = 0; i < params_count(&from); i++) {
        struct param param;
        params_at(&from, i, &param);
        const struct gemm_packed *packed = packed_at(&from, param.place);
        if (packed != NULL) {
            gemm_unpack(packed, to);
        } else {
            memcpy(to, *param.place, param.count * sizeof *to);
        }
        to += param.count;
    }
}

static void full_start(struct learner *learner, float *params)
{
    size_t weights = 2 * learner->model->info.hidden;
    copy_weights(learner->model, params); /* the caller's: never changed */
    params += learner->model->info.parameters;
    memcpy(params, learner->bank->head_w, weights * sizeof *params);
    memcpy(params + weights, learner->bank->head_b, 2 * sizeof *params);
}

static void full_use(struct learner *learner, const float *params)
{
    size_t n = learner->model->info.parameters;
    memcpy(learner->own_model->block, params, n * sizeof *params);
    memcpy(learner->head_room, params + n, learner_head_floats(learner) * sizeof *params);
    eng_route_mix(learner->bank, learner->route, learner->mix_room);
    learner->carried = (struct carried){.mix = learner->mix_room, .head = learner->head_room};
}

static void full_gradient(struct learner *learner, const float *params, float *gradient)
{
    struct encoder_params table = learner->model->params;
    struct param first;
    const float *bias = NULL, *head = encoder_head_gradient(learner->tape, &bias);
    size_t n = learner->model->info.parameters, weights = 2 * learner->model->info.hidden;
    (void)params;
    params_at(&table, 0, &first);
    memcpy(gradient, encoder_gradient(learner->tape, first.name, NULL), n * sizeof *gradient);
    memcpy(gradient + n, head, weights * sizeof *gradient);
    memcpy(gradient + n + weights, bias, 2 * sizeof *gradient);
}

/* WANT_PROMPT costs nothing beside the weights, and the loop sums it. */
const struct learn_part learn_full = {.name = "backbone and head",
                                      .gives = LEARN_MODEL,
                                      .want = WANT_PROMPT | WANT_HEAD | WANT_WEIGHTS,
                                      .size = full_size,
                                      .start = full_start,
                                      .use = full_use,
                                      .gradient = full_gradient};

/* ---- the copy --------------------------------------------------------------------------------------- */

static void place(eng_model *model)
{
    float *at = model->block;
    for (size_t i = 0; i < params_count(&model->params); i++) {
        struct param param;
        params_at(&model->params, i, &param);
        *param.place = at;
        at += param.count;
    }
    for (size_t l = 0; l < model->params.layers; l++) {
        struct linear *linears[LAYER_LINEARS];
        layer_linears(&model->params.layer[l], linears);
        for (size_t i = 0; i < LAYER_LINEARS; i++) {
            linears[i]->packed = linears[i]->turned = NULL;
        }
    }
}

eng_status full_copy_model(const eng_model *model, eng_model **out, eng_error *err)
{
    *out = NULL;
    eng_model *copy = malloc(sizeof *copy);
    if (copy == NULL) {
        return fail_nomem(err, "model");
    }
    *copy = *model;
    copy->info.name = copy->name;
    copy->tokenizer = NULL;
    copy->weights = NULL;
    copy->packed = copy->block = NULL;
    copy->block = malloc(model->info.parameters * sizeof(float));
    if (copy->block == NULL) {
        eng_model_free(copy);
        return fail_nomem(err, "model");
    }
    copy_weights(model, copy->block);
    place(copy); /* none of them packed: training changes them */
    *out = copy;
    return ENG_OK;
}

eng_status full_borrow_bank(const eng_bank *bank, const eng_model *model, eng_bank **out,
                            eng_error *err)
{
    *out = malloc(sizeof **out);
    if (*out == NULL) {
        return fail_nomem(err, "bank");
    }
    **out = *bank;
    (*out)->info.name = (*out)->name;
    (*out)->model = model;
    return ENG_OK;
}

void full_free_bank(eng_bank *borrowed)
{
    free(borrowed);
}

eng_status full_finish(eng_model *copy, const float *params, eng_error *err)
{
    memcpy(copy->block, params, copy->info.parameters * sizeof *params);
    model_describe(copy);
    return encoder_prepare(copy, err);
}

/* ---- writing it ----------------------------------------------------------------------------------------- */

static eng_status write_weights(const eng_model *model, const char *path, eng_error *err)
{
    const struct safetensors_meta meta = {"format", "pt"};
    struct encoder_params table = model->params;
    size_t n = params_count(&table);
    struct safetensors_entry *entries = calloc(n, sizeof *entries);
    struct param *params = calloc(n, sizeof *params);
    float *values = malloc(model->info.parameters * sizeof *values), *at = values;
    bool ok = entries != NULL && params != NULL && values != NULL;
    eng_status status = ok ? ENG_OK : fail_nomem(err, path);
    if (ok) {
        copy_weights(model, values);
    }
    for (size_t i = 0; i < n && ok; i++) {
        params_at(&table, i, &params[i]);
        entries[i] = (struct safetensors_entry){.name = params[i].name,
                                                .dtype = DTYPE_F32,
                                                .dims = params[i].dims,
                                                .shape = {params[i].shape[0], params[i].shape[1]},
                                                .values = at};
        at += params[i].count;
    }
    if (status == ENG_OK) {
        status = safetensors_write(path, entries, n, &meta, 1, true, err);
    }
    free(entries);
    free(params);
    free(values);
    return status;
}

eng_status eng_adapt_write_model(const eng_model *model, const eng_adapt_result *result,
                                 const char *to, eng_error *err)
{
    char path[PATH_MAX];
    const eng_model *tuned = result->model;
    int len = snprintf(path, sizeof path, "%s/model.safetensors", to);
    if (len < 0 || (size_t)len >= sizeof path) {
        return fail(err, ENG_ELIMIT, "path", "%s is longer than %d bytes", to, PATH_MAX - 1);
    }
    eng_status status = eng_convert_model(model->dir, to, "F32", 0, 0, err);
    return status == ENG_OK && tuned != NULL ? write_weights(tuned, path, err) : status;
}
