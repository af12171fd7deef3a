/* convert.c: any readable model or bank rewritten as safetensors.
 *
 * Models keep their tensors' names, so that other programs read the result too; tensors that are not
 * floating point (position ids, which every reader can count for itself) are left out. Banks are
 * written in one form whatever they came in: three dimensions, metadata complete. Of a bank only A, by
 * far the largest, is rounded to the dtype asked for: router, z and head stay float32.
 */
#include "engine/bankfile.h"
#include "engine/jsonload.h"
#include "engine/mapfile.h"
#include "engine/newfile.h"
#include "engine/safetensors.h"
#include "engine/status.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_MAX ((size_t)256 << 20)

static eng_status parse_dtype(const char *name, enum tensor_dtype *out, eng_error *err)
{
    if (dtype_parse(name, out) && (*out == DTYPE_F32 || *out == DTYPE_F16 || *out == DTYPE_BF16)) {
        return ENG_OK;
    }
    return fail(err, ENG_EINVAL, "dtype", "dtype is \"%.16s\", wanted F32, F16 or BF16", name);
}

/* ---- banks --------------------------------------------------------------------------------------- */

#define BANK_TENSORS 5

struct bank_copy {
    struct safetensors_entry entries[BANK_TENSORS];
    float *values[BANK_TENSORS];
    size_t n;
};

static eng_status add_tensor(const struct weights *weights, const char *name, size_t dims,
                             const size_t *shape, enum tensor_dtype dtype, struct bank_copy *copy,
                             eng_error *err)
{
    float **values = &copy->values[copy->n];
    eng_status status = bank_read_tensor(weights, name, values, err);
    if (status == ENG_OK) {
        struct safetensors_entry *entry = &copy->entries[copy->n++];
        *entry = (struct safetensors_entry){
            .name = name, .dtype = dtype, .dims = dims, .values = *values};
        memcpy(entry->shape, shape, dims * sizeof *shape);
    }
    return status;
}

static eng_status read_bank(const struct weights *weights, enum tensor_dtype dtype,
                            struct bank_shape *shape, struct bank_copy *copy, eng_error *err)
{
    eng_status status = bank_read_shape(weights, shape, err);
    const size_t head[2] = {2, shape->hidden}, bias[1] = {2};
    if (status == ENG_OK) {
        status = add_tensor(weights, "A", 3, shape->A, dtype, copy, err);
    }
    if (status == ENG_OK) {
        status = add_tensor(weights, "z", 3, shape->z, DTYPE_F32, copy, err);
    }
    if (status == ENG_OK) {
        status = add_tensor(weights, "router", 3, shape->router, DTYPE_F32, copy, err);
    }
    if (status == ENG_OK) {
        status = add_tensor(weights, "lmhead", 2, head, DTYPE_F32, copy, err);
    }
    if (status == ENG_OK && weights_find(weights, "qa_bias") != NULL) {
        status = add_tensor(weights, "qa_bias", 1, bias, DTYPE_F32, copy, err);
    }
    return status;
}

/* What a bank without metadata leaves unsaid, except the prompt's ids: they depend on the vocabulary. */
struct bank_defaults {
    char prompt_tokens[32], adapt_lr[32], adapt_steps[32];
    struct safetensors_meta meta[5];
};

static void set_defaults(const struct bank_shape *shape, struct bank_defaults *out)
{
    snprintf(out->prompt_tokens, sizeof out->prompt_tokens, "%zu", shape->prompt_tokens);
    snprintf(out->adapt_lr, sizeof out->adapt_lr, "%g", bank_default_lr(shape->hidden));
    snprintf(out->adapt_steps, sizeof out->adapt_steps, "%zu", bank_default_steps(shape->hidden));
    out->meta[0] = (struct safetensors_meta){"prompt_tokens", out->prompt_tokens};
    out->meta[1] = (struct safetensors_meta){"token_type", "1"};
    out->meta[2] = (struct safetensors_meta){"option_separator", BANK_DEFAULT_SEPARATOR};
    out->meta[3] = (struct safetensors_meta){"adapt_lr", out->adapt_lr};
    out->meta[4] = (struct safetensors_meta){"adapt_steps", out->adapt_steps};
}

static eng_status write_bank(const char *to, const struct weights *weights,
                             const struct bank_shape *shape, const struct bank_copy *copy,
                             size_t context_tokens, eng_error *err)
{
    struct bank_defaults defaults;
    char context[32];
    snprintf(context, sizeof context, "%zu", context_tokens);
    set_defaults(shape, &defaults);
    size_t kept = weights_metadata_count(weights), n = kept;
    struct safetensors_meta *meta = calloc(kept + 6, sizeof *meta);
    if (meta == NULL) {
        return fail_nomem(err, to);
    }
    for (size_t i = 0; i < kept; i++) {
        weights_metadata_at(weights, i, &meta[i].key, &meta[i].value);
        if (context_tokens > 0 && strcmp(meta[i].key, "context_tokens") == 0) {
            meta[i].value = context;
        }
    }
    if (context_tokens > 0 && weights_metadata(weights, "context_tokens") == NULL) {
        meta[n++] = (struct safetensors_meta){"context_tokens", context};
    }
    for (size_t i = 0; i < 5; i++) {
        if (weights_metadata(weights, defaults.meta[i].key) == NULL) {
            meta[n++] = defaults.meta[i];
        }
    }
    eng_status status = safetensors_write(to, copy->entries, copy->n, meta, n, false, err);
    free(meta);
    return status;
}

eng_status eng_convert_bank(const char *from, const char *to, const char *dtype,
                            size_t context_tokens, eng_error *err)
{
    enum tensor_dtype type = DTYPE_F32;
    struct weights *weights = NULL;
    struct bank_shape shape;
    struct bank_copy copy = {.n = 0};
    eng_status status = parse_dtype(dtype, &type, err);
    if (status == ENG_OK) {
        status = weights_open(from, &weights, err);
    }
    if (status == ENG_OK) {
        status = read_bank(weights, type, &shape, &copy, err);
    }
    if (status == ENG_OK) {
        status = weights_check(weights, err);
    }
    if (status == ENG_OK) {
        status = write_bank(to, weights, &shape, &copy, context_tokens, err);
    }
    for (size_t i = 0; i < BANK_TENSORS; i++) {
        free(copy.values[i]);
    }
    weights_free(weights);
    return status;
}

/* ---- models -------------------------------------------------------------------------------------- */

static eng_status join(const char *dir, const char *name, char path[PATH_MAX], eng_error *err)
{
    int len = snprintf(path, PATH_MAX, "%s/%s", dir, name);
    if (len < 0 || len >= PATH_MAX) {
        return fail(err, ENG_ELIMIT, "path", "%s/%s is longer than %d bytes", dir, name,
                    PATH_MAX - 1);
    }
    return ENG_OK;
}

static eng_status make_directory(const char *to, eng_error *err)
{
    struct stat st;
    if (mkdir(to, 0777) == 0 || (errno == EEXIST && stat(to, &st) == 0 && S_ISDIR(st.st_mode))) {
        return ENG_OK;
    }
    return fail(err, ENG_EIO, to, "cannot make directory %s: %s", to, strerror(errno));
}

static bool has_end(const char *name, const char *end)
{
    size_t len = strlen(name), tail = strlen(end);
    return len > tail && strcmp(name + len - tail, end) == 0;
}

static eng_status list_entries(struct weights *weights, enum tensor_dtype dtype,
                               struct safetensors_entry *entries, size_t *n, eng_error *err)
{
    *n = 0;
    for (size_t i = 0; i < weights_count(weights); i++) {
        const struct tensor *tensor = weights_at(weights, i);
        struct safetensors_entry entry = {
            .name = tensor->name, .dtype = dtype, .dims = tensor->dims};
        if (tensor->dtype > DTYPE_F64) {
            continue;
        }
        memcpy(entry.shape, tensor->shape, sizeof entry.shape);
        eng_status status = weights_f32(weights, tensor, &entry.values, err);
        if (status != ENG_OK) {
            return status;
        }
        entries[(*n)++] = entry;
    }
    return ENG_OK;
}

/* Of the table of positions the first `positions` rows. */
static eng_status cut_positions(struct safetensors_entry *entries, size_t n, size_t positions,
                                eng_error *err)
{
    for (size_t i = 0; i < n; i++) {
        struct safetensors_entry *entry = &entries[i];
        if (entry->dims != 2 || !has_end(entry->name, "embeddings.position_embeddings.weight")) {
            continue;
        }
        if (positions > entry->shape[0]) {
            return fail(err, ENG_EINVAL, "positions", "positions is %zu, the model has %zu",
                        positions, entry->shape[0]);
        }
        entry->shape[0] = positions;
        return ENG_OK;
    }
    return fail(err, ENG_EUNSUPPORTED, "positions",
                "the model has no embeddings.position_embeddings.weight to cut");
}

static eng_status convert_weights(const char *from, const char *to, enum tensor_dtype dtype,
                                  size_t positions, eng_error *err)
{
    static const struct safetensors_meta meta[] = {{"format", "pt"}};
    char path[PATH_MAX];
    struct weights *weights = NULL;
    struct safetensors_entry *entries = NULL;
    size_t n = 0;
    eng_status status = join(to, "model.safetensors", path, err);
    if (status == ENG_OK) {
        status = weights_open_dir(from, &weights, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    entries = calloc(weights_count(weights) + 1, sizeof *entries);
    if (entries == NULL) {
        status = fail_nomem(err, from);
        goto out;
    }
    status = list_entries(weights, dtype, entries, &n, err);
    if (status == ENG_OK && positions > 0) {
        status = cut_positions(entries, n, positions, err);
    }
    if (status == ENG_OK) {
        status = weights_check(weights, err);
    }
    if (status == ENG_OK) {
        status = safetensors_write(path, entries, n, meta, 1, false, err);
    }
out:
    free(entries);
    weights_free(weights);
    return status;
}

static eng_status copy_file(const char *from, const char *to, const char *name, eng_error *err)
{
    char source[PATH_MAX], target[PATH_MAX];
    struct mapfile map;
    eng_status status = join(from, name, source, err);
    if (status == ENG_OK) {
        status = join(to, name, target, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    status = mapfile_open(source, COPY_MAX, &map, err);
    if (status != ENG_OK) {
        return status == ENG_ENOTFOUND ? ENG_OK : status;
    }
    status = newfile_put(target, mapfile_slice(&map, 0, map.size), map.size, false, err);
    mapfile_close(&map);
    return status;
}

static bool is_bank(const char *name)
{
    return has_end(name, ".bank.safetensors") || has_end(name, ".th") ||
           (strncmp(name, "bank_", 5) == 0 && has_end(name, ".safetensors"));
}

/* The authors' .th beside a safetensors file of the same name is the same bank: that one is taken. */
static bool has_twin(const char *from, const char *name)
{
    static const char *const ends[] = {".bank.safetensors", ".safetensors"};
    char base[NAME_MAX + 1], path[PATH_MAX];
    bank_base_name(name, base, sizeof base);
    for (size_t i = 0; has_end(name, ".th") && i < 2; i++) {
        int len = snprintf(path, sizeof path, "%s/%s%s", from, base, ends[i]);
        if (len > 0 && len < PATH_MAX && access(path, F_OK) == 0) {
            return true;
        }
    }
    return false;
}

/* bank_shallow.safetensors → shallow.bank.safetensors */
static eng_status convert_bank_in(const char *from, const char *to, const char *name,
                                  const char *dtype, size_t context_tokens, eng_error *err)
{
    char source[PATH_MAX], target[PATH_MAX], base[NAME_MAX + 1], file[NAME_MAX + 64];
    bank_base_name(name, base, sizeof base);
    const char *short_name = strncmp(base, "bank_", 5) == 0 && base[5] != '\0' ? base + 5 : base;
    snprintf(file, sizeof file, "%s.bank.safetensors", short_name);
    eng_status status = join(from, name, source, err);
    if (status == ENG_OK) {
        status = join(to, file, target, err);
    }
    return status == ENG_OK ? eng_convert_bank(source, target, dtype, context_tokens, err) : status;
}

static eng_status convert_banks(const char *from, const char *to, const char *dtype,
                                size_t context_tokens, eng_error *err)
{
    eng_status status = ENG_OK;
    DIR *stream = opendir(from);
    if (stream == NULL) {
        return fail(err, ENG_EIO, from, "cannot list %s: %s", from, strerror(errno));
    }
    for (struct dirent *entry = readdir(stream); entry != NULL && status == ENG_OK;
         entry = readdir(stream)) {
        if (is_bank(entry->d_name) && !has_twin(from, entry->d_name)) {
            status = convert_bank_in(from, to, entry->d_name, dtype, context_tokens, err);
        }
    }
    closedir(stream);
    return status;
}

/* config.json with another number of positions. */
static eng_status write_config(const char *from, const char *to, size_t positions, eng_error *err)
{
    static const struct json_limits limits = {1 << 20, 16, 1 << 16};
    const size_t flags = JSON_INDENT(2) | JSON_REAL_PRECISION(9);
    size_t size = 0;
    char source[PATH_MAX], target[PATH_MAX], *text = NULL;
    json_t *root = NULL;
    eng_status status = join(from, "config.json", source, err);
    if (status == ENG_OK) {
        status = join(to, "config.json", target, err);
    }
    if (status == ENG_OK) {
        status = json_load_file_limited(source, &limits, &root, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    json_t *number = json_integer((json_int_t)positions);
    if (json_object_set_new(root, "max_position_embeddings", number) == 0) {
        size = json_dumpb(root, NULL, 0, flags);
        text = size > 0 ? malloc(size + 1) : NULL;
    }
    if (text != NULL) {
        (void)json_dumpb(root, text, size, flags);
        text[size] = '\n';
    }
    json_decref(root);
    status = text != NULL ? newfile_put(target, text, size + 1, false, err)
                          : fail_nomem(err, "config.json");
    free(text);
    return status;
}

eng_status eng_convert_model(const char *from, const char *to, const char *dtype, size_t positions,
                             size_t context_tokens, eng_error *err)
{
    static const char *const copied[] = {"vocab.txt", "tokenizer_config.json", "tokenizer.json"};
    enum tensor_dtype type = DTYPE_F32;
    eng_status status = parse_dtype(dtype, &type, err);
    if (status == ENG_OK) {
        status = make_directory(to, err);
    }
    if (status == ENG_OK) {
        status = convert_weights(from, to, type, positions, err);
    }
    if (status == ENG_OK) {
        status = positions > 0 ? write_config(from, to, positions, err)
                               : copy_file(from, to, "config.json", err);
    }
    for (size_t i = 0; i < sizeof copied / sizeof copied[0] && status == ENG_OK; i++) {
        status = copy_file(from, to, copied[i], err);
    }
    return status == ENG_OK ? convert_banks(from, to, dtype, context_tokens, err) : status;
}

/* ---- listing ------------------------------------------------------------------------------------- */

eng_status eng_list_tensors(const char *path, void (*each)(void *arg, const eng_tensor_info *info),
                            void *arg, eng_error *err)
{
    struct weights *weights = NULL;
    struct stat st;
    bool dir = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    eng_status status =
        dir ? weights_open_dir(path, &weights, err) : weights_open(path, &weights, err);
    if (status != ENG_OK) {
        return status;
    }
    for (size_t i = 0; i < weights_count(weights); i++) {
        const struct tensor *tensor = weights_at(weights, i);
        uint64_t shape[TENSOR_MAX_DIMS];
        for (size_t d = 0; d < tensor->dims; d++) {
            shape[d] = tensor->shape[d];
        }
        eng_tensor_info info = {.name = tensor->name,
                                .dtype = dtype_name(tensor->dtype),
                                .dims = tensor->dims,
                                .shape = shape,
                                .bytes = tensor->count * dtype_size(tensor->dtype)};
        each(arg, &info);
    }
    weights_free(weights);
    return ENG_OK;
}
