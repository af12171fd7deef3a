/* random.c: backbones and banks of seeded random numbers, for benches and tests.
 *
 * They have the shapes of real ones and values of the usual size (deviation 0.02, norms 1 and 0), so
 * that nothing runs into infinities or denormal numbers, which would falsify timings. Uniform, not
 * normal: a third of a billion numbers should take a second.
 */
#include "engine/arena.h"
#include "engine/model.h"
#include "engine/params.h"
#include "engine/rng.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

#define DEVIATION 0.02f

static void fill(struct rng *rng, float *values, size_t count, float deviation)
{
    const float scale = deviation * 1.7320508f / 8388608.0f; /* uniform on ±√3 deviations */
    for (size_t i = 0; i < count; i++) {
        values[i] = scale * (float)((int32_t)(rng_next(rng) >> 40) - 8388608);
    }
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), n = strlen(end);
    return len >= n && strcmp(text + len - n, end) == 0;
}

/* Gives every parameter its place in the block, and a value. */
static void place_all(struct encoder_params *params, float *block, struct rng *rng)
{
    for (size_t i = 0; i < params_count(params); i++) {
        struct param param;
        params_at(params, i, &param);
        *param.place = block;
        if (param.dims == 2) {
            fill(rng, block, param.count, DEVIATION);
        }
        for (size_t j = 0; param.dims == 1 && j < param.count; j++) {
            block[j] = ends_with(param.name, "LayerNorm.weight") ? 1 : 0;
        }
        block += param.count;
    }
}

static eng_status check_shape(const eng_model_info *shape, eng_error *err)
{
    if (shape->layers == 0 || shape->layers > ENG_MAX_LAYERS) {
        return fail(err, ENG_ELIMIT, "layers", "1 to %d layers, got %zu", ENG_MAX_LAYERS,
                    shape->layers);
    }
    if (shape->hidden == 0 || shape->heads == 0 || shape->ffn == 0 || shape->vocab == 0 ||
        shape->positions == 0 || shape->types == 0) {
        return fail(err, ENG_EINVAL, "shape", "every size of a model must be at least 1");
    }
    return ENG_OK;
}

eng_status model_random_bare(const eng_model_info *shape, uint64_t seed, eng_model **out,
                             eng_error *err)
{
    *out = NULL;
    eng_status status = check_shape(shape, err);
    if (status != ENG_OK) {
        return status;
    }
    eng_model *model = calloc(1, sizeof *model);
    if (model == NULL) {
        return fail_nomem(err, "shape");
    }
    struct encoder_params *params = &model->params;
    *params = (struct encoder_params){.layers = shape->layers,
                                      .hidden = shape->hidden,
                                      .heads = shape->heads,
                                      .ffn = shape->ffn,
                                      .vocab = shape->vocab,
                                      .positions = shape->positions,
                                      .types = shape->types,
                                      .epsilon = 1e-12f};
    if (!params_shape(params)) {
        status = fail(err, ENG_ELIMIT, "shape", "the sizes of this model overflow");
        goto out;
    }
    size_t total = params_total(params);
    struct arena plan = arena_plan(), arena;
    (void)arena_floats(&plan, total, 1);
    status = arena_init(&arena, &plan, "shape", err);
    if (status != ENG_OK) {
        goto out;
    }
    model->block = arena.base;
    struct rng rng;
    rng_seed(&rng, seed);
    place_all(params, model->block, &rng);
    model->info = *shape;
    snprintf(model->name, sizeof model->name, "random-%llu", (unsigned long long)seed);
    memcpy(model->info.fingerprint, model->name, sizeof model->info.fingerprint - 1);
    model->info.name = model->name;
    model->info.dtype = "F32";
    model->info.has_vocab = false;
    model->info.parameters = total;
    model->info.bytes = total * sizeof(float);
    status = encoder_check(params, err);
out:
    if (status != ENG_OK) {
        eng_model_free(model);
        return status;
    }
    *out = model;
    return ENG_OK;
}

eng_status eng_model_random(const eng_model_info *shape, uint64_t seed, eng_model **out,
                            eng_error *err)
{
    eng_status status = model_random_bare(shape, seed, out, err);
    if (status == ENG_OK) {
        status = encoder_prepare(*out, err);
    }
    if (status != ENG_OK) {
        eng_model_free(*out);
        *out = NULL;
    }
    return status;
}

/* ---- banks ---- */

static float *random_floats(struct rng *rng, size_t a, size_t b, size_t c, float deviation)
{
    size_t count = 0, bytes = 0;
    if (!size_mul(a, b, &count) || !size_mul(count, c, &count) ||
        !size_mul(count, sizeof(float), &bytes)) {
        return NULL;
    }
    float *values = malloc(bytes > 0 ? bytes : 1);
    if (values != NULL) {
        fill(rng, values, count, deviation);
    }
    return values;
}

static eng_status fill_bank(eng_bank *bank, uint64_t seed, eng_error *err)
{
    const eng_bank_info *info = &bank->info;
    size_t H = bank->model->params.hidden, n = 0;
    struct rng rng;
    rng_seed(&rng, seed);
    if (!size_mul(info->prompt_tokens, H, &n)) {
        return fail(err, ENG_ELIMIT, "prompt_tokens", "the sizes of this bank overflow");
    }
    bank->A = random_floats(&rng, info->layers, info->intrinsic, n, DEVIATION);
    bank->z = random_floats(&rng, info->layers, info->modules, info->intrinsic, 1);
    bank->router = random_floats(&rng, info->rows, info->layers, info->modules, 1);
    bank->head_w = random_floats(&rng, 2, H, 1, DEVIATION);
    bank->row_names = calloc(info->rows, sizeof *bank->row_names);
    if (bank->A == NULL || bank->z == NULL || bank->router == NULL || bank->head_w == NULL ||
        bank->row_names == NULL) {
        return fail_nomem(err, "bank");
    }
    return bank_prepare(bank, err);
}

eng_status eng_bank_random(const eng_model *model, size_t layers, size_t modules,
                           size_t prompt_tokens, size_t intrinsic, uint64_t seed, eng_bank **out,
                           eng_error *err)
{
    *out = NULL;
    if ((layers != 1 && layers != model->params.layers) || modules == 0 || prompt_tokens == 0 ||
        intrinsic == 0 || prompt_tokens >= model->params.positions) {
        return fail(err, ENG_EINVAL, "bank",
                    "layers is 1 or %zu, modules, prompt tokens and intrinsic at least 1, prompt "
                    "tokens below %zu; got %zu, %zu, %zu, %zu",
                    model->params.layers, model->params.positions, layers, modules, prompt_tokens,
                    intrinsic);
    }
    eng_bank *bank = calloc(1, sizeof *bank);
    if (bank == NULL) {
        return fail_nomem(err, "bank");
    }
    bank->model = model;
    snprintf(bank->name, sizeof bank->name, "random-%llu", (unsigned long long)seed);
    snprintf(bank->option_separator, sizeof bank->option_separator, "%s", "，");
    bank->info = (eng_bank_info){.name = bank->name,
                                 .modules = modules,
                                 .prompt_tokens = prompt_tokens,
                                 .intrinsic = intrinsic,
                                 .layers = layers,
                                 .rows = 1,
                                 .route_len = layers * modules,
                                 .token_type = model->params.types > 1 ? 1 : 0,
                                 .adapt_lr = 3e-3,
                                 .adapt_steps = 100};
    eng_status status = fill_bank(bank, seed, err);
    if (status != ENG_OK) {
        eng_bank_free(bank);
        return status;
    }
    *out = bank;
    return ENG_OK;
}
