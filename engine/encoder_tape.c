/* encoder_tape.c: the training forward, which keeps what backward needs, and its memory.
 *
 * Buffers that backward does not read are shared by all layers: in a frozen backbone the layer input,
 * attention's output, the norm's output and gelu(up) are each one buffer, overwritten layer by layer,
 * exactly as in inference. Contract in encoder.h.
 */
#include "engine/encoder_tape.h"
#include "engine/ops.h"
#include "engine/params.h"
#include "engine/pool.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

static void carve_layers(struct encoder_tape *tape, struct arena *arena, size_t tokens)
{
    const struct encoder_params *params = &tape->model->params;
    struct strides ld = strides_of(params);
    bool weights = (tape->want & WANT_WEIGHTS) != 0;
    float *x = arena_floats(arena, tokens, ld.hidden), *next = x;
    float *context = arena_floats(arena, tokens, ld.hidden);
    float *sum = arena_floats(arena, tokens, ld.hidden);
    float *middle = arena_floats(arena, tokens, ld.hidden);
    float *gelu = arena_floats(arena, tokens, ld.ffn);
    for (size_t l = 0; l < params->layers; l++) {
        struct layer_values *v = &tape->values[l];
        v->x = next;
        v->qkv = arena_floats(arena, tokens, ld.qkv);
        v->context = weights ? arena_floats(arena, tokens, ld.hidden) : context;
        v->sum = sum;
        v->middle = middle;
        v->up = arena_floats(arena, tokens, ld.ffn);
        v->gelu = gelu;
        v->attention_xhat = arena_floats(arena, tokens, ld.hidden);
        v->attention_rstd = arena_floats(arena, tokens, 1);
        v->output_xhat = arena_floats(arena, tokens, ld.hidden);
        v->output_rstd = arena_floats(arena, tokens, 1);
        next = v->y = weights ? arena_floats(arena, tokens, ld.hidden) : x;
    }
    tape->h = next;
}

/* Points every parameter of tape->gradient at its place in gradient_block (if there is one yet). */
static void place_gradients(struct encoder_tape *tape)
{
    size_t at = 0;
    tape->gradient = tape->model->params;
    for (size_t i = 0; i < params_count(&tape->gradient); i++) {
        struct param param;
        params_at(&tape->gradient, i, &param);
        *param.place = tape->gradient_block != NULL ? tape->gradient_block + at : NULL;
        at += param.count;
    }
    tape->gradient_count = at;
}

static void carve(struct encoder_tape *tape, struct arena *arena, size_t tokens, size_t sequences)
{
    const struct encoder_params *params = &tape->model->params;
    struct strides ld = strides_of(params);
    batch_carve(&tape->batch, arena, tokens, sequences);
    carve_layers(tape, arena, tokens);
    tape->dh = arena_floats(arena, tokens, ld.hidden);
    tape->dmiddle = arena_floats(arena, tokens, ld.hidden);
    tape->dqkv = arena_floats(arena, tokens, ld.qkv);
    tape->dup = arena_floats(arena, tokens, ld.ffn);
    if ((tape->want & WANT_HEAD) != 0) {
        tape->head_gradient = arena_floats(arena, 2, params->hidden + 1);
    }
    if ((tape->want & WANT_WEIGHTS) != 0) {
        tape->embedding_xhat = arena_floats(arena, tokens, ld.hidden);
        tape->embedding_rstd = arena_floats(arena, tokens, 1);
        place_gradients(tape);
        tape->gradient_block = arena_floats(arena, tape->gradient_count, 1);
        place_gradients(tape);
    }
}

eng_status encoder_tape_new(const eng_model *model, size_t max_tokens, size_t max_sequences,
                            unsigned want, struct encoder_tape **out, eng_error *err)
{
    *out = NULL;
    if (max_tokens == 0 || max_sequences == 0) {
        return fail(err, ENG_EINVAL, "max_tokens", "a tape needs at least 1 token and sequence");
    }
    struct encoder_tape *tape = calloc(1, sizeof *tape);
    if (tape == NULL) {
        return fail_nomem(err, "tape");
    }
    tape->model = model;
    tape->want = want;
    struct arena plan = arena_plan();
    carve(tape, &plan, max_tokens, max_sequences);
    eng_status status = arena_init(&tape->arena, &plan, "tape", err);
    if (status != ENG_OK) {
        free(tape);
        return status;
    }
    carve(tape, &tape->arena, max_tokens, max_sequences);
    encoder_tape_zero(tape);
    *out = tape;
    return ENG_OK;
}

void encoder_tape_free(struct encoder_tape *tape)
{
    if (tape != NULL) {
        arena_fini(&tape->arena);
        free(tape);
    }
}

size_t encoder_tape_bytes(const struct encoder_tape *tape)
{
    return sizeof *tape + tape->arena.size;
}

/* ---- forward ---- */

/* All layers, on the batch that is set. The caller holds the turn. */
static void forward_layers(eng_compute *compute, struct encoder_tape *tape, eng_class who)
{
    const struct encoder_params *params = &tape->model->params;
    float *first = params->layers > 0 ? tape->values[0].x : tape->h;
    pass_embed(compute, params, &tape->batch, first, tape->embedding_xhat, tape->embedding_rstd);
    for (size_t l = 0; l < params->layers; l++) {
        pass_inject(compute, params, &tape->batch, l, tape->values[l].x);
        pass_layer(compute, who, params, &params->layer[l], &tape->batch, &tape->values[l], false);
    }
}

eng_status encoder_forward_keep(eng_compute *compute, struct encoder_tape *tape, eng_class who,
                                const eng_sequence *sequences, size_t n, float *start, float *end,
                                eng_error *err)
{
    tape->kept = false;
    eng_status status = batch_set(&tape->batch, tape->model, sequences, n, false, err);
    if (status != ENG_OK) {
        return status;
    }
    compute_turn_take(compute, who);
    forward_layers(compute, tape, who);
    pass_head(compute, &tape->model->params, &tape->batch, tape->h, false, start, end);
    compute_turn_give(compute);
    tape->kept = true;
    return ENG_OK;
}

eng_status encoder_forward_bare(eng_compute *compute, struct encoder_tape *tape, eng_class who,
                                const eng_sequence *sequences, size_t n, eng_error *err)
{
    tape->kept = false;
    eng_status status = batch_set(&tape->batch, tape->model, sequences, n, true, err);
    if (status != ENG_OK) {
        return status;
    }
    compute_turn_take(compute, who);
    forward_layers(compute, tape, who);
    compute_turn_give(compute);
    tape->kept = true;
    return ENG_OK;
}

void encoder_dropout(struct encoder_tape *tape, float rate, uint64_t key)
{
    tape->batch.dropout = (struct dropout){rate, key};
}

const float *encoder_hidden(const struct encoder_tape *tape)
{
    return tape->h;
}

float *encoder_dhidden(struct encoder_tape *tape)
{
    return tape->dh;
}

double encoder_mrc_loss(const eng_sequence *sequences, size_t n, const float *start,
                        const float *end, const size_t *target_start, const size_t *target_end,
                        float *dstart, float *dend)
{
    double loss = 0, weight = 0.5 / (double)n;
    size_t at = 0;
    for (size_t s = 0; s < n; s++) {
        size_t len = sequences[s].len;
        loss += weight * ops_cross_entropy(SIMD_NONE, start + at, len, target_start[s], weight,
                                           dstart != NULL ? dstart + at : NULL);
        loss += weight * ops_cross_entropy(SIMD_NONE, end + at, len, target_end[s], weight,
                                           dend != NULL ? dend + at : NULL);
        at += len;
    }
    return loss;
}

/* ---- gradients ---- */

const float *encoder_head_gradient(const struct encoder_tape *tape, const float **bias)
{
    if (bias != NULL) {
        *bias = tape->head_gradient != NULL ? tape->head_gradient + 2 * tape->model->params.hidden
                                            : NULL;
    }
    return tape->head_gradient;
}

const float *encoder_gradient(const struct encoder_tape *tape, const char *name, size_t *count)
{
    struct encoder_params gradient = tape->gradient;
    for (size_t i = 0; tape->gradient_block != NULL && i < params_count(&gradient); i++) {
        struct param param;
        params_at(&gradient, i, &param);
        if (strcmp(param.name, name) == 0) {
            if (count != NULL) {
                *count = param.count;
            }
            return *param.place;
        }
    }
    return NULL;
}

void encoder_tape_zero(struct encoder_tape *tape)
{
    if (tape->head_gradient != NULL) {
        memset(tape->head_gradient, 0, 2 * (tape->model->params.hidden + 1) * sizeof(float));
    }
    if (tape->gradient_block != NULL) {
        memset(tape->gradient_block, 0, tape->gradient_count * sizeof(float));
    }
}
