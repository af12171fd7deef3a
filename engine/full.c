/* full.c: every weight of the backbone and the head trained, on a copy. Contract in full.h.
 *
 * The vector of this part is as long as the model, and the loop keeps it, its best, its gradient and two
 * moments: with the copy and the tape's gradients seven times the weights. That is what a baseline may
 * cost on a command line; it is why a server does not offer it.
 */
#include "engine/full.h"

#include "engine/params.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

/* ---- the part ------------------------------------------------------------------------------------- */

static size_t full_size(const struct learner *learner)
{
    return learner->model->info.parameters + learner_head_floats(learner);
}

/* Every weight of a model, in the table's order. */
static void copy_weights(const eng_model *model, float *to)
{
    struct encoder_params from = model->params;
    for (size_t i = 0; i < params_count(&from); i++) {
        struct param param;
        params_at(&from, i, &param);
        memcpy(to, *param.place, param.count * sizeof *to);
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
    encoder_unprepare(copy); /* training changes the weights: none of them packed */
    copy->block = malloc(model->info.parameters * sizeof(float));
    if (copy->block == NULL) {
        eng_model_free(copy);
        return fail_nomem(err, "model");
    }
    copy_weights(model, copy->block);
    place(copy);
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
