/* bankfile.c: opening a prompt bank, ours (safetensors with metadata) or the authors' (best.th).
 *
 *     A (Lp, d, P*H) | (d, P*H)      z (Lp, K, d) | (K, d)      router (N, Lp, K) | (N, K)
 *     lmhead (2, H)                  qa_bias (2), optional
 *
 * A bank without qa_bias (the authors save only the head's weight) takes the backbone's own
 * qa_outputs.bias when its checkpoint has one, else zero. Either way every probability is the same: a
 * number added to all start logits or to all end logits cancels in each softmax.
 *
 * The forms without a layer dimension are shallow banks: Lp = 1. Lp is 1 or the backbone's layers.
 * Metadata (strings): tasks (a JSON list, a name for each router row), prompt_tokens,
 * prompt_token_offset, token_type, option_separator, adapt_lr, adapt_steps, context_tokens. Each is
 * optional; the defaults are the paper's.
 */
#include "engine/bankfile.h"

#include "engine/jsonload.h"
#include "engine/model.h"
#include "engine/status.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- tensors ---------------------------------------------------------------------------------- */

static const struct tensor *need(const struct weights *weights, const char *name, size_t dims,
                                 eng_error *err)
{
    const struct tensor *tensor = weights_find(weights, name);
    if (tensor == NULL) {
        (void)fail(err, ENG_EFORMAT, name, "%s: tensor \"%s\" is missing: not a prompt bank",
                   weights_path(weights), name);
        return NULL;
    }
    if (tensor->dims != dims && tensor->dims + 1 != dims) {
        (void)fail(err, ENG_EFORMAT, name,
                   "%s: tensor \"%s\" has %zu dimensions, wanted %zu or %zu", weights_path(weights),
                   name, tensor->dims, dims - 1, dims);
        return NULL;
    }
    return tensor;
}

/* (a, b) is (1, a, b) for A and z; for the router it is (a, 1, b). */
static void three_dims(const struct tensor *tensor, bool router, size_t shape[3])
{
    bool flat = tensor->dims == 2;
    shape[0] = flat && !router ? 1 : tensor->shape[0];
    shape[1] = flat && router ? 1 : tensor->shape[flat && !router ? 0 : 1];
    shape[2] = tensor->shape[tensor->dims - 1];
}

static eng_status disagree(const struct weights *weights, const char *name,
                           const struct bank_shape *shape, eng_error *err)
{
    return fail(err, ENG_EFORMAT, name,
                "%s: shapes do not fit together: A (%zu, %zu, %zu), z (%zu, %zu, %zu), router "
                "(%zu, %zu, %zu), head (2, %zu)",
                weights_path(weights), shape->A[0], shape->A[1], shape->A[2], shape->z[0],
                shape->z[1], shape->z[2], shape->router[0], shape->router[1], shape->router[2],
                shape->hidden);
}

static eng_status check_limits(const struct weights *weights, const struct bank_shape *shape,
                               eng_error *err)
{
    const struct {
        const char *name;
        size_t value, max;
    } limits[] = {
        {"layers (z)", shape->layers, ENG_MAX_LAYERS},
        {"modules (z)", shape->modules, BANK_MAX_MODULES},
        {"intrinsic dimension (z)", shape->intrinsic, BANK_MAX_INTRINSIC},
        {"prompt tokens (A)", shape->prompt_tokens, BANK_MAX_PROMPT_TOKENS},
        {"router rows", shape->rows, BANK_MAX_ROWS},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        if (limits[i].value == 0 || limits[i].value > limits[i].max) {
            return fail(err, ENG_ELIMIT, limits[i].name, "%s: %zu %s, 1 to %zu are allowed",
                        weights_path(weights), limits[i].value, limits[i].name, limits[i].max);
        }
    }
    return ENG_OK;
}

eng_status bank_read_shape(const struct weights *weights, struct bank_shape *shape, eng_error *err)
{
    eng_error unused;
    err = err != NULL ? err : &unused;
    *shape = (struct bank_shape){0};
    const struct tensor *head = weights_find(weights, "lmhead");
    const struct tensor *bias = weights_find(weights, "qa_bias");
    const struct tensor *A = need(weights, "A", 3, err);
    const struct tensor *z = A != NULL ? need(weights, "z", 3, err) : NULL;
    const struct tensor *router = z != NULL ? need(weights, "router", 3, err) : NULL;
    if (router == NULL) {
        return err->status;
    }
    if (head == NULL || head->dims != 2 || head->shape[0] != 2 || head->shape[1] == 0) {
        return fail(err, ENG_EFORMAT, "lmhead", "%s: tensor \"lmhead\" of shape (2, H) is missing",
                    weights_path(weights));
    }
    if (bias != NULL && (bias->dims != 1 || bias->shape[0] != 2)) {
        return fail(err, ENG_EFORMAT, "qa_bias", "%s: tensor \"qa_bias\" is not of shape (2)",
                    weights_path(weights));
    }
    three_dims(A, false, shape->A);
    three_dims(z, false, shape->z);
    three_dims(router, true, shape->router);
    shape->hidden = head->shape[1];
    shape->layers = shape->z[0];
    shape->modules = shape->z[1];
    shape->intrinsic = shape->z[2];
    shape->prompt_tokens = shape->A[2] / shape->hidden;
    shape->rows = shape->router[0];
    if (shape->A[0] != shape->layers || shape->A[1] != shape->intrinsic ||
        shape->router[1] != shape->layers || shape->router[2] != shape->modules ||
        shape->A[2] % shape->hidden != 0) {
        return disagree(weights, "A", shape, err);
    }
    return check_limits(weights, shape, err);
}

/* ---- settings ----------------------------------------------------------------------------------- */

double bank_default_lr(size_t hidden)
{
    return hidden < 512 ? 0.1 : 3e-3;
}

size_t bank_default_steps(size_t hidden)
{
    return hidden < 512 ? 100 : 300;
}

uint32_t bank_default_offset(size_t vocab, size_t prompt_tokens)
{
    return 1000 + prompt_tokens <= vocab ? 1000 : 1;
}

/* A whole number from metadata; `fallback` when the key is absent. */
static eng_status read_whole(const struct weights *weights, const char *key, uint64_t max,
                             uint64_t fallback, uint64_t *out, eng_error *err)
{
    const char *text = weights_metadata(weights, key);
    *out = fallback;
    if (text == NULL) {
        return ENG_OK;
    }
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value > max) {
        return fail(err, ENG_EFORMAT, key,
                    "%s: metadata \"%s\" is \"%.32s\", wanted a whole number up to %llu",
                    weights_path(weights), key, text, (unsigned long long)max);
    }
    *out = value;
    return ENG_OK;
}

static eng_status read_rate(const struct weights *weights, double fallback, double *out,
                            eng_error *err)
{
    const char *text = weights_metadata(weights, "adapt_lr");
    *out = fallback;
    if (text == NULL) {
        return ENG_OK;
    }
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value > 0) || !(value <= 100)) {
        return fail(err, ENG_EFORMAT, "adapt_lr",
                    "%s: metadata \"adapt_lr\" is \"%.32s\", wanted a number above 0 up to 100",
                    weights_path(weights), text);
    }
    *out = value;
    return ENG_OK;
}

static eng_status read_separator(const struct weights *weights, struct eng_bank *bank,
                                 eng_error *err)
{
    const char *text = weights_metadata(weights, "option_separator");
    text = text != NULL ? text : BANK_DEFAULT_SEPARATOR;
    size_t len = strlen(text);
    if (len == 0 || len >= sizeof bank->option_separator) {
        return fail(err, ENG_ELIMIT, "option_separator",
                    "%s: metadata \"option_separator\" has %zu bytes, 1 to %zu are allowed",
                    weights_path(weights), len, sizeof bank->option_separator - 1);
    }
    memcpy(bank->option_separator, text, len + 1);
    return ENG_OK;
}

static eng_status read_settings(const struct weights *weights, struct eng_bank *bank,
                                eng_error *err)
{
    const struct encoder_params *params = &bank->model->params;
    eng_bank_info *info = &bank->info;
    uint64_t offset = 0, type = 0, steps = 0, tokens = 0, context = 0;
    uint64_t usual = bank_default_offset(params->vocab, info->prompt_tokens);
    eng_status status = read_whole(weights, "prompt_token_offset", INT32_MAX, usual, &offset, err);
    if (status == ENG_OK) {
        status = read_whole(weights, "token_type", INT32_MAX, 1, &type, err);
    }
    if (status == ENG_OK) {
        status = read_whole(weights, "prompt_tokens", BANK_MAX_PROMPT_TOKENS, info->prompt_tokens,
                            &tokens, err);
    }
    if (status == ENG_OK) {
        status = read_whole(weights, "adapt_steps", 1000000, bank_default_steps(params->hidden),
                            &steps, err);
    }
    if (status == ENG_OK) {
        status = read_whole(weights, "context_tokens", 1 << 20, 0, &context, err);
    }
    if (status == ENG_OK) {
        status = read_rate(weights, bank_default_lr(params->hidden), &info->adapt_lr, err);
    }
    if (status == ENG_OK) {
        status = read_separator(weights, bank, err);
    }
    if (status == ENG_OK && tokens != info->prompt_tokens) {
        status = fail(err, ENG_EFORMAT, "prompt_tokens",
                      "%s: metadata says %llu prompt tokens, A has columns for %zu",
                      weights_path(weights), (unsigned long long)tokens, info->prompt_tokens);
    }
    info->prompt_token_offset = (int32_t)offset;
    info->token_type = (int32_t)type;
    info->adapt_steps = (size_t)steps;
    info->context_tokens = (size_t)context;
    return status;
}

/* ---- row names ------------------------------------------------------------------------------------ */

static eng_status set_row_name(struct eng_bank *bank, size_t row, const char *name, eng_error *err)
{
    char number[32];
    snprintf(number, sizeof number, "row %zu", row);
    bank->row_names[row] = strdup(name != NULL ? name : number);
    return bank->row_names[row] != NULL ? ENG_OK : fail_nomem(err, "tasks");
}

static eng_status set_names(const struct weights *weights, const json_t *list,
                            struct eng_bank *bank, eng_error *err)
{
    if (list != NULL && (!json_is_array(list) || json_array_size(list) != bank->info.rows)) {
        return fail(err, ENG_EFORMAT, "tasks",
                    "%s: metadata \"tasks\" is not a list of %zu names, one a router row",
                    weights_path(weights), bank->info.rows);
    }
    for (size_t i = 0; i < bank->info.rows; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (list != NULL && (name == NULL || !tensor_name_ok(name, strlen(name)))) {
            return fail(err, ENG_EFORMAT, "tasks",
                        "%s: metadata \"tasks\" holds something that is not a name at row %zu",
                        weights_path(weights), i);
        }
        eng_status status = set_row_name(bank, i, name, err);
        if (status != ENG_OK) {
            return status;
        }
    }
    return ENG_OK;
}

static eng_status read_names(const struct weights *weights, struct eng_bank *bank, eng_error *err)
{
    bank->row_names = calloc(bank->info.rows, sizeof *bank->row_names);
    if (bank->row_names == NULL) {
        return fail_nomem(err, "tasks");
    }
    const struct json_limits limits = {(size_t)8 << 20, 2, (size_t)2 * BANK_MAX_ROWS};
    const char *text = weights_metadata(weights, "tasks");
    json_t *list = NULL;
    eng_status status = ENG_OK;
    if (text != NULL) {
        status = json_load_limited(text, strlen(text), "metadata \"tasks\"", &limits, &list, err);
    }
    if (status == ENG_OK) {
        status = set_names(weights, list, bank, err);
    }
    json_decref(list);
    return status;
}

/* ---- opening -------------------------------------------------------------------------------------- */

eng_status bank_read_tensor(const struct weights *weights, const char *name, float **out,
                            eng_error *err)
{
    const struct tensor *tensor = weights_find(weights, name);
    size_t bytes = 0;
    *out = NULL;
    if (!size_mul(tensor->count, sizeof(float), &bytes)) {
        return fail(err, ENG_ELIMIT, name, "%s: tensor \"%s\" is too large", weights_path(weights),
                    name);
    }
    float *values = malloc(bytes > 0 ? bytes : 1);
    if (values == NULL) {
        return fail_nomem(err, name);
    }
    eng_status status = tensor_read_f32(tensor, values, err);
    for (size_t i = 0; status == ENG_OK && i < tensor->count; i++) {
        if (!isfinite(values[i])) {
            status = fail(err, ENG_EFORMAT, name,
                          "%s: tensor \"%s\" holds %f at value %zu; a bank must be finite",
                          weights_path(weights), name, (double)values[i], i);
        }
    }
    if (status != ENG_OK) {
        free(values);
        return status;
    }
    *out = values;
    return ENG_OK;
}

static eng_status read_bias(const struct weights *weights, struct eng_bank *bank, eng_error *err)
{
    const struct weights *from = weights;
    const char *name = "qa_bias";
    if (weights_find(weights, name) == NULL) {
        from = bank->model->weights; /* NULL: a random model */
        name = "qa_outputs.bias";
        const struct tensor *tensor = from != NULL ? weights_find(from, name) : NULL;
        if (tensor == NULL || tensor->dims != 1 || tensor->shape[0] != 2) {
            return ENG_OK;
        }
    }
    float *bias = NULL;
    eng_status status = bank_read_tensor(from, name, &bias, err);
    if (status == ENG_OK) {
        memcpy(bank->head_b, bias, sizeof bank->head_b);
        free(bias);
    }
    return status;
}

static eng_status read_tensors(const struct weights *weights, struct eng_bank *bank, eng_error *err)
{
    eng_status status = bank_read_tensor(weights, "A", &bank->A, err);
    if (status == ENG_OK) {
        status = bank_read_tensor(weights, "z", &bank->z, err);
    }
    if (status == ENG_OK) {
        status = bank_read_tensor(weights, "router", &bank->router, err);
    }
    if (status == ENG_OK) {
        status = bank_read_tensor(weights, "lmhead", &bank->head_w, err);
    }
    return status == ENG_OK ? read_bias(weights, bank, err) : status;
}

eng_status bank_check_model(const struct eng_bank *bank, const char *path, eng_error *err)
{
    const struct encoder_params *params = &bank->model->params;
    const eng_bank_info *info = &bank->info;
    if (info->layers != 1 && info->layers != params->layers) {
        return fail(err, ENG_EMISMATCH, "z",
                    "%s prompts %zu layers, the backbone has %zu (a bank has 1 or all of them)",
                    path, info->layers, params->layers);
    }
    if (info->prompt_tokens + 2 > params->positions) {
        return fail(err, ENG_EMISMATCH, "prompt_tokens",
                    "%s has %zu prompt tokens, the backbone only %zu positions", path,
                    info->prompt_tokens, params->positions);
    }
    if ((size_t)info->prompt_token_offset + info->prompt_tokens > params->vocab) {
        return fail(err, ENG_EMISMATCH, "prompt_token_offset",
                    "%s uses ids %d to %zu for its prompt, the vocabulary has %zu", path,
                    info->prompt_token_offset,
                    (size_t)info->prompt_token_offset + info->prompt_tokens - 1, params->vocab);
    }
    if ((size_t)info->token_type >= params->types) {
        return fail(err, ENG_EMISMATCH, "token_type",
                    "%s uses token type %d, the backbone has types 0 to %zu", path,
                    info->token_type, params->types - 1);
    }
    return ENG_OK;
}

static eng_status check_model(const struct weights *weights, const struct bank_shape *shape,
                              const struct eng_bank *bank, eng_error *err)
{
    if (shape->hidden != bank->model->params.hidden) {
        return fail(err, ENG_EMISMATCH, "lmhead",
                    "%s is for a backbone of hidden size %zu, this one has %zu",
                    weights_path(weights), shape->hidden, bank->model->params.hidden);
    }
    return bank_check_model(bank, weights_path(weights), err);
}

static void set_name(struct eng_bank *bank, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    bank_base_name(name, bank->name, sizeof bank->name);
    bank->info.name = bank->name;
}

static eng_status open_into(struct eng_bank *bank, const struct weights *weights, eng_error *err)
{
    struct bank_shape shape;
    eng_status status = bank_read_shape(weights, &shape, err);
    if (status != ENG_OK) {
        return status;
    }
    eng_bank_info *info = &bank->info;
    info->modules = shape.modules;
    info->prompt_tokens = shape.prompt_tokens;
    info->intrinsic = shape.intrinsic;
    info->layers = shape.layers;
    info->rows = shape.rows;
    info->route_len = info->tied ? shape.modules : shape.layers * shape.modules;
    status = read_settings(weights, bank, err);
    if (status == ENG_OK) {
        status = check_model(weights, &shape, bank, err);
    }
    if (status == ENG_OK) {
        status = read_names(weights, bank, err);
    }
    if (status == ENG_OK) {
        status = read_tensors(weights, bank, err);
    }
    if (status == ENG_OK) {
        status = weights_check(weights, err);
    }
    return status == ENG_OK ? bank_prepare(bank, err) : status;
}

eng_status eng_bank_open(const eng_model *model, const char *path, bool tied, eng_bank **out,
                         eng_error *err)
{
    *out = NULL;
    struct weights *weights = NULL;
    struct eng_bank *bank = NULL;
    eng_status status = weights_open(path, &weights, err);
    if (status != ENG_OK) {
        return status;
    }
    bank = calloc(1, sizeof *bank);
    if (bank == NULL) {
        status = fail_nomem(err, path);
        goto out;
    }
    bank->model = model;
    const char *scope = weights_metadata(weights, "route_scope");
    bank->info.tied = tied || (scope != NULL && strcmp(scope, "tied") == 0);
    set_name(bank, path);
    status = open_into(bank, weights, err);
    if (status != ENG_OK) {
        eng_bank_free(bank);
        goto out;
    }
    *out = bank;
out:
    weights_free(weights);
    return status;
}

static bool has_end(const char *name, const char *end)
{
    size_t len = strlen(name), tail = strlen(end);
    return len > tail && strcmp(name + len - tail, end) == 0;
}

void bank_base_name(const char *file, char *name, size_t size)
{
    static const char *const ends[] = {".bank.safetensors", ".safetensors", ".th"};
    size_t len = strlen(file);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (has_end(file, ends[i])) {
            len -= strlen(ends[i]);
            break;
        }
    }
    len = len < size ? len : size - 1;
    memcpy(name, file, len);
    name[len] = '\0';
}

/* The `*.bank.safetensors` of `dir` that sorts first; false when there is none. */
static bool first_bank(const char *dir, char *name, size_t size)
{
    DIR *stream = opendir(dir);
    bool found = false;
    if (stream == NULL) {
        return false;
    }
    for (struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        if (has_end(entry->d_name, ".bank.safetensors") && strlen(entry->d_name) < size &&
            (!found || strcmp(entry->d_name, name) < 0)) {
            memcpy(name, entry->d_name, strlen(entry->d_name) + 1);
            found = true;
        }
    }
    closedir(stream);
    return found;
}

eng_status eng_bank_open_default(const eng_model *model, bool tied, eng_bank **out, eng_error *err)
{
    static const char *const usual[] = {"bank_shallow.safetensors", "bank_deep.safetensors"};
    char name[NAME_MAX + 1], path[PATH_MAX];
    *out = NULL;
    if (model->dir[0] != '\0' && first_bank(model->dir, name, sizeof name)) {
        snprintf(path, sizeof path, "%s/%s", model->dir, name);
        return eng_bank_open(model, path, tied, out, err);
    }
    for (size_t i = 0; model->dir[0] != '\0' && i < sizeof usual / sizeof usual[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", model->dir, usual[i]);
        eng_status status = eng_bank_open(model, path, tied, out, err);
        if (status != ENG_ENOTFOUND) {
            return status;
        }
    }
    return fail(err, ENG_ENOTFOUND, "bank",
                "model %s has no prompt bank: wanted a *.bank.safetensors in %s", model->info.name,
                model->dir[0] != '\0' ? model->dir : "its directory");
}

void eng_bank_free(eng_bank *bank)
{
    if (bank == NULL) {
        return;
    }
    for (size_t i = 0; bank->row_names != NULL && i < bank->info.rows; i++) {
        free(bank->row_names[i]);
    }
    free(bank->row_names);
    free(bank->A);
    free(bank->z);
    free(bank->router);
    free(bank->head_w);
    free(bank->modules);
    free(bank);
}

const eng_bank_info *eng_bank_get_info(const eng_bank *bank)
{
    return &bank->info;
}

const char *eng_bank_row_name(const eng_bank *bank, size_t row)
{
    bool named = bank->row_names != NULL && row < bank->info.rows && bank->row_names[row] != NULL;
    return named ? bank->row_names[row] : "row";
}

void eng_bank_row(const eng_bank *bank, size_t row, float *route)
{
    size_t K = bank->info.modules, L = bank->info.layers;
    const float *from = bank->router + row * L * K;
    if (!bank->info.tied) {
        memcpy(route, from, L * K * sizeof *route);
        return;
    }
    for (size_t k = 0; k < K; k++) {
        double sum = 0;
        for (size_t l = 0; l < L; l++) {
            sum += (double)from[l * K + k];
        }
        route[k] = (float)(sum / (double)L);
    }
}
