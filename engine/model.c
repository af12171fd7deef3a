/* model.c: opening a model directory: configuration, weights, fingerprint, vocabulary.
 *
 * Checkpoints name the same encoder in many ways: with `bert.`, `model.encoder.` (CPT), `module.` or
 * nothing in front, with LayerNorm `weight`/`bias` or the old `gamma`/`beta`. The prefix is whatever
 * stands before "embeddings.word_embeddings.weight". Heads, poolers and decoders are left alone.
 *
 * The fingerprint is a BLAKE2b-256 over the canonical names, shapes and float32 values of exactly the
 * parameters used, and over the head count and epsilon, which change results too. The same weights
 * have the same fingerprint in whatever format, prefix or order they are stored.
 */
#include "engine/model.h"

#include "engine/config.h"
#include "engine/params.h"
#include "engine/status.h"
#include "engine/tokenizer.h"
#include "engine/weights.h"

#include <limits.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define WORD_TENSOR "embeddings.word_embeddings.weight"
#define FINGERPRINT 32

/* ---- names ------------------------------------------------------------------------------------ */

/* Length of the prefix when `name` ends in WORD_TENSOR at a dot or the beginning, else SIZE_MAX. */
static size_t prefix_length(const char *name)
{
    size_t len = strlen(name), tail = strlen(WORD_TENSOR);
    if (len < tail || strcmp(name + len - tail, WORD_TENSOR) != 0) {
        return SIZE_MAX;
    }
    size_t prefix = len - tail;
    return prefix == 0 || name[prefix - 1] == '.' ? prefix : SIZE_MAX;
}

static eng_status find_prefix(const struct weights *weights, char *prefix, size_t size,
                              eng_error *err)
{
    const struct tensor *found = NULL;
    for (size_t i = 0; i < weights_count(weights); i++) {
        const struct tensor *tensor = weights_at(weights, i);
        if (prefix_length(tensor->name) == SIZE_MAX) {
            continue;
        }
        if (found != NULL) {
            return fail(err, ENG_EFORMAT, tensor->name,
                        "%s holds two encoders, \"%s\" and \"%s\"; keep one", weights_path(weights),
                        found->name, tensor->name);
        }
        found = tensor;
    }
    if (found == NULL) {
        return fail(err, ENG_EFORMAT, WORD_TENSOR,
                    "%s: none of its %zu tensors is called \"…%s\": not a BERT encoder",
                    weights_path(weights), weights_count(weights), WORD_TENSOR);
    }
    size_t len = prefix_length(found->name);
    if (len >= size) {
        return fail(err, ENG_ELIMIT, found->name, "%s: tensor prefix of %zu bytes, at most %zu",
                    weights_path(weights), len, size - 1);
    }
    memcpy(prefix, found->name, len);
    prefix[len] = '\0';
    return ENG_OK;
}

/* "….LayerNorm.weight" as old checkpoints call it; false when there is no old name. */
static bool old_name(const char *name, char *old, size_t size)
{
    static const char *const pairs[][2] = {{"LayerNorm.weight", "LayerNorm.gamma"},
                                           {"LayerNorm.bias", "LayerNorm.beta"}};
    size_t len = strlen(name);
    for (size_t i = 0; i < 2; i++) {
        size_t tail = strlen(pairs[i][0]);
        if (len >= tail && strcmp(name + len - tail, pairs[i][0]) == 0) {
            int written = snprintf(old, size, "%.*s%s", (int)(len - tail), name, pairs[i][1]);
            return written > 0 && (size_t)written < size;
        }
    }
    return false;
}

static const struct tensor *find_param(const struct weights *weights, const char *prefix,
                                       const struct param *param)
{
    char name[TENSOR_MAX_NAME + 128], old[TENSOR_MAX_NAME + 128];
    snprintf(name, sizeof name, "%s%s", prefix, param->name);
    const struct tensor *tensor = weights_find(weights, name);
    if (tensor == NULL && old_name(name, old, sizeof old)) {
        tensor = weights_find(weights, old);
    }
    return tensor;
}

/* ---- parameters --------------------------------------------------------------------------------- */

static bool same_shape(const struct tensor *tensor, const struct param *param)
{
    return tensor->dims == param->dims && tensor->shape[0] == param->shape[0] &&
           (param->dims == 1 || tensor->shape[1] == param->shape[1]);
}

static eng_status check_finite(const struct tensor *tensor, const float *values, eng_error *err)
{
    for (size_t i = 0; i < tensor->count; i++) {
        if (!isfinite(values[i])) {
            return fail(err, ENG_EFORMAT, tensor->name,
                        "%s: tensor \"%s\" holds %f at value %zu; weights must be finite",
                        tensor->file, tensor->name, (double)values[i], i);
        }
    }
    return ENG_OK;
}

/* The parameter's tensor, of the right shape. */
static eng_status find_checked(const struct weights *weights, const char *prefix,
                               const struct param *param, const struct tensor **out, eng_error *err)
{
    const struct tensor *tensor = find_param(weights, prefix, param);
    if (tensor == NULL) {
        return fail(err, ENG_EFORMAT, param->name, "%s: tensor \"%s%s\" is missing",
                    weights_path(weights), prefix, param->name);
    }
    if (!same_shape(tensor, param)) {
        char found[160], wanted[64];
        tensor_shape_text(tensor->shape, tensor->dims, found, sizeof found);
        tensor_shape_text(param->shape, param->dims, wanted, sizeof wanted);
        return fail(err, ENG_EFORMAT, tensor->name,
                    "%s: tensor \"%s\" has shape %s, config.json says %s", tensor->file,
                    tensor->name, found, wanted);
    }
    *out = tensor;
    return ENG_OK;
}

static eng_status load_param(struct weights *weights, const char *prefix, const struct param *param,
                             const struct tensor **out, eng_error *err)
{
    eng_status status = find_checked(weights, prefix, param, out, err);
    if (status == ENG_OK) {
        status = weights_f32(weights, *out, param->place, err);
    }
    return status == ENG_OK ? check_finite(*out, *param->place, err) : status;
}

bool model_has_param(const eng_model *model, const struct param *param)
{
    return model->weights != NULL && find_param(model->weights, "", param) != NULL;
}

eng_status model_read_param(const eng_model *model, const struct param *param, float *out,
                            eng_error *err)
{
    const struct tensor *tensor = NULL;
    eng_status status = find_checked(model->weights, "", param, &tensor, err);
    if (status == ENG_OK) {
        status = tensor_read_f32(tensor, out, err);
    }
    return status == ENG_OK ? check_finite(tensor, out, err) : status;
}

static eng_status load_params(struct eng_model *model, const char *prefix, eng_error *err)
{
    struct encoder_params *params = &model->params;
    const char *dtype = NULL;
    for (size_t i = 0; i < params_count(params); i++) {
        struct param param;
        const struct tensor *tensor = NULL;
        params_at(params, i, &param);
        eng_status status = load_param(model->weights, prefix, &param, &tensor, err);
        if (status != ENG_OK) {
            return status;
        }
        const char *mine = dtype_name(tensor->dtype);
        dtype = dtype == NULL || dtype == mine ? mine : "mixed";
    }
    model->info.dtype = dtype;
    return ENG_OK;
}

/* CPT's encoder keeps BERT's 512 positions whatever its config says (later releases 1024). */
static void positions_from_tensor(struct eng_model *model, const char *prefix)
{
    struct encoder_params *params = &model->params;
    struct param param;
    params_at(params, 1, &param);
    const struct tensor *tensor = find_param(model->weights, prefix, &param);
    if (tensor != NULL && tensor->dims == 2 && tensor->shape[0] >= 1 &&
        tensor->shape[0] <= CONFIG_MAX_POSITIONS) {
        params->positions = tensor->shape[0];
    }
}

static eng_status load_weights(struct eng_model *model, bool positions_from_file, eng_error *err)
{
    char prefix[TENSOR_MAX_NAME];
    eng_status status = weights_open_dir(model->dir, &model->weights, err);
    if (status == ENG_OK) {
        status = find_prefix(model->weights, prefix, sizeof prefix, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    if (positions_from_file) {
        positions_from_tensor(model, prefix);
    }
    if (!params_shape(&model->params)) {
        return fail(err, ENG_ELIMIT, model->dir, "%s: config.json describes too many parameters",
                    model->dir);
    }
    return load_params(model, prefix, err);
}

/* ---- what is known about it --------------------------------------------------------------------- */

static void hash_u64(crypto_generichash_state *state, uint64_t value)
{
    unsigned char bytes[8];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)(value >> (8 * i));
    }
    crypto_generichash_update(state, bytes, sizeof bytes);
}

static void fingerprint(struct eng_model *model)
{
    static const char version[] = "mp2 backbone 1";
    struct encoder_params *params = &model->params;
    crypto_generichash_state state;
    unsigned char hash[FINGERPRINT];
    crypto_generichash_init(&state, NULL, 0, sizeof hash);
    crypto_generichash_update(&state, (const unsigned char *)version, sizeof version);
    hash_u64(&state, params->heads);
    crypto_generichash_update(&state, (const unsigned char *)&params->epsilon,
                              sizeof params->epsilon);
    for (size_t i = 0; i < params_count(params); i++) {
        struct param param;
        params_at(params, i, &param);
        crypto_generichash_update(&state, (const unsigned char *)param.name,
                                  strlen(param.name) + 1);
        hash_u64(&state, param.dims);
        hash_u64(&state, param.shape[0]);
        hash_u64(&state, param.shape[1]);
        crypto_generichash_update(&state, (const unsigned char *)*param.place,
                                  param.count * sizeof(float));
    }
    crypto_generichash_final(&state, hash, sizeof hash);
    sodium_bin2hex(model->info.fingerprint, sizeof model->info.fingerprint, hash, sizeof hash);
}

void model_describe(struct eng_model *model)
{
    struct encoder_params *params = &model->params;
    eng_model_info *info = &model->info;
    info->name = model->name;
    info->layers = params->layers;
    info->hidden = params->hidden;
    info->heads = params->heads;
    info->ffn = params->ffn;
    info->vocab = params->vocab;
    info->positions = params->positions;
    info->types = params->types;
    info->parameters = params_total(params);
    info->bytes = info->parameters * sizeof(float);
    info->has_vocab = model->tokenizer != NULL;
    fingerprint(model);
}

/* ---- opening -------------------------------------------------------------------------------------- */

static eng_status model_path(const struct eng_model *model, const char *file, char path[PATH_MAX],
                             eng_error *err)
{
    int len = snprintf(path, PATH_MAX, "%s/%s", model->dir, file);
    if (len < 0 || len >= PATH_MAX) {
        return fail(err, ENG_ELIMIT, "path", "%s/%s is longer than %d bytes", model->dir, file,
                    PATH_MAX - 1);
    }
    return ENG_OK;
}

/* Name of the directory itself, also when it is given as "." or through a link. */
static eng_status set_place(struct eng_model *model, const char *dir, eng_error *err)
{
    char real[PATH_MAX];
    struct stat st;
    if (realpath(dir, real) == NULL || stat(real, &st) != 0) {
        return fail(err, ENG_ENOTFOUND, dir, "cannot open model directory %s: %m", dir);
    }
    if (!S_ISDIR(st.st_mode)) {
        return fail(err, ENG_EFORMAT, dir,
                    "%s is not a directory; a model is a directory with config.json and weights",
                    dir);
    }
    if (strlen(real) >= sizeof model->dir) {
        return fail(err, ENG_ELIMIT, dir, "%s: path of %zu bytes, at most %zu", dir, strlen(real),
                    sizeof model->dir - 1);
    }
    memcpy(model->dir, real, strlen(real) + 1);
    const char *slash = strrchr(real, '/');
    snprintf(model->name, sizeof model->name, "%.127s", slash[1] != '\0' ? slash + 1 : real);
    return ENG_OK;
}

/* A model without a vocabulary serves ids only; one whose vocabulary cannot be read is an error. */
static eng_status open_vocabulary(struct eng_model *model, eng_error *err)
{
    eng_status status = tokenizer_open(model->dir, model->params.vocab, &model->tokenizer, err);
    return status == ENG_ENOTFOUND ? ENG_OK : status;
}

static eng_status open_into(struct eng_model *model, const char *dir, bool bare, eng_error *err)
{
    char path[PATH_MAX];
    bool positions_from_file = false;
    eng_status status = set_place(model, dir, err);
    if (status == ENG_OK) {
        status = model_path(model, "config.json", path, err);
    }
    if (status == ENG_OK) {
        status = config_read(path, &model->params, &positions_from_file, err);
    }
    if (status == ENG_OK) {
        status = load_weights(model, positions_from_file, err);
    }
    if (status == ENG_OK) {
        status = open_vocabulary(model, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    model_describe(model);
    status = weights_check(model->weights, err);
    if (status != ENG_OK) {
        return status;
    }
    return bare ? encoder_check(&model->params, err) : encoder_prepare(model, err);
}

static eng_status open_model(const char *dir, bool half, bool bare, eng_model **out, eng_error *err)
{
    *out = NULL;
    if (sodium_init() < 0) {
        return fail(err, ENG_EUNSUPPORTED, "libsodium", "libsodium does not start");
    }
    struct eng_model *model = calloc(1, sizeof *model);
    if (model == NULL) {
        return fail_nomem(err, dir);
    }
    model->info.half_weights = half;
    eng_status status = open_into(model, dir, bare, err);
    if (status != ENG_OK) {
        eng_model_free(model);
        return status;
    }
    *out = model;
    return ENG_OK;
}

eng_status eng_model_open(const char *dir, eng_model **out, eng_error *err)
{
    return open_model(dir, false, false, out, err);
}

eng_status eng_model_open_half(const char *dir, eng_model **out, eng_error *err)
{
    return open_model(dir, true, false, out, err);
}

eng_status model_open_bare(const char *dir, eng_model **out, eng_error *err)
{
    return open_model(dir, false, true, out, err);
}

void eng_model_free(eng_model *model)
{
    if (model == NULL) {
        return;
    }
    encoder_unprepare(model);
    tokenizer_free(model->tokenizer);
    weights_free(model->weights);
    free(model->block);
    free(model);
}

const eng_model_info *eng_model_get_info(const eng_model *model)
{
    return &model->info;
}
