/* weights.c: the one interface over every checkpoint format.
 *
 * A struct weights owns the mappings of its files, the list of tensors found in them, and one chain of
 * memory blocks (names, metadata, converted values) that is freed as a whole. Readers only add to it.
 * Directories, shards and their index are weights_dir.c.
 */
#include "engine/weights.h"

#include "engine/arena.h"
#include "engine/half.h"
#include "engine/status.h"
#include "engine/weights_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "checkpoint readers use little-endian values in place"
#endif

static const struct {
    const char *name;
    size_t size;
} dtypes[DTYPE_COUNT] = {
    [DTYPE_F32] = {"F32", 4},   [DTYPE_F16] = {"F16", 2}, [DTYPE_BF16] = {"BF16", 2},
    [DTYPE_F64] = {"F64", 8},   [DTYPE_I64] = {"I64", 8}, [DTYPE_I32] = {"I32", 4},
    [DTYPE_I16] = {"I16", 2},   [DTYPE_I8] = {"I8", 1},   [DTYPE_U8] = {"U8", 1},
    [DTYPE_BOOL] = {"BOOL", 1},
};

const char *dtype_name(enum tensor_dtype dtype)
{
    return dtypes[dtype].name;
}

size_t dtype_size(enum tensor_dtype dtype)
{
    return dtypes[dtype].size;
}

bool dtype_parse(const char *name, enum tensor_dtype *out)
{
    for (size_t i = 0; i < DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *out = (enum tensor_dtype)i;
            return true;
        }
    }
    return false;
}

/* ---- memory ---------------------------------------------------------------------------------- */

#define BLOCK_ALIGN 64

struct block {
    struct block *next;
};

struct weights_file {
    struct mapfile map;
    char *path;
};

struct metadata {
    char *key, *value;
};

struct weights {
    char *path;
    struct block *blocks;
    struct weights_file *files;
    size_t n_files;
    struct tensor *tensors;
    size_t n_tensors, tensor_room;
    size_t *by_name; /* tensor indices in order of name, by finish() */
    struct metadata *metadata;
    size_t n_metadata, metadata_room;
};

/* Memory that lives as long as `weights`, aligned for vectors. NULL when there is none. */
static void *owned(struct weights *weights, size_t size)
{
    size_t total = 0;
    if (!size_add(size, 2 * BLOCK_ALIGN - 1, &total)) {
        return NULL;
    }
    struct block *block = aligned_alloc(BLOCK_ALIGN, total / BLOCK_ALIGN * BLOCK_ALIGN);
    if (block == NULL) {
        return NULL;
    }
    block->next = weights->blocks;
    weights->blocks = block;
    return (char *)block + BLOCK_ALIGN;
}

static char *owned_string(struct weights *weights, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = owned(weights, size);
    if (copy != NULL) {
        memcpy(copy, text, size);
    }
    return copy;
}

/* Makes room for one more item; doubles. */
static bool grow(void **items, size_t item_size, size_t n, size_t *room)
{
    if (n < *room) {
        return true;
    }
    size_t wanted = *room == 0 ? 64 : 2 * *room, bytes = 0;
    if (!size_mul(wanted, item_size, &bytes)) {
        return false;
    }
    void *more = realloc(*items, bytes);
    if (more == NULL) {
        return false;
    }
    *items = more;
    *room = wanted;
    return true;
}

void weights_free(struct weights *weights)
{
    if (weights == NULL) {
        return;
    }
    for (size_t i = 0; i < weights->n_files; i++) {
        mapfile_close(&weights->files[i].map);
    }
    for (struct block *block = weights->blocks; block != NULL;) {
        struct block *next = block->next;
        free(block);
        block = next;
    }
    free(weights->files);
    free(weights->tensors);
    free(weights->by_name);
    free(weights->metadata);
    free(weights);
}

struct weights *weights_new(const char *path)
{
    struct weights *weights = calloc(1, sizeof *weights);
    if (weights == NULL) {
        return NULL;
    }
    weights->path = owned_string(weights, path);
    if (weights->path == NULL) {
        weights_free(weights);
        return NULL;
    }
    return weights;
}

/* ---- what readers add ------------------------------------------------------------------------ */

const char *weights_file(const struct weights *weights)
{
    return weights->n_files > 0 ? weights->files[weights->n_files - 1].path : weights->path;
}

bool tensor_name_ok(const char *name, size_t len)
{
    if (len == 0 || len > TENSOR_MAX_NAME) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7F) {
            return false;
        }
    }
    return true;
}

bool tensor_set_contiguous(struct tensor *tensor)
{
    /* A zero-size tensor may still name sizes whose product would wrap: strides saturate at one. */
    size_t count = 1, bytes = 0;
    for (size_t i = tensor->dims; i-- > 0;) {
        tensor->stride[i] = count > 0 ? count : 1;
        if (!size_mul(count, tensor->shape[i], &count)) {
            return false;
        }
    }
    tensor->count = count;
    tensor->contiguous = true;
    return size_mul(count, dtype_size(tensor->dtype), &bytes);
}

eng_status weights_add(struct weights *weights, const struct tensor *tensor, eng_error *err)
{
    if (weights->n_tensors == WEIGHTS_MAX_TENSORS) {
        return fail(err, ENG_ELIMIT, tensor->name, "%s: more than %d tensors",
                    weights_file(weights), WEIGHTS_MAX_TENSORS);
    }
    char *name = owned_string(weights, tensor->name);
    if (name == NULL || !grow((void **)&weights->tensors, sizeof *weights->tensors,
                              weights->n_tensors, &weights->tensor_room)) {
        return fail_nomem(err, tensor->name);
    }
    struct tensor *added = &weights->tensors[weights->n_tensors++];
    *added = *tensor;
    added->name = name;
    added->file = weights_file(weights);
    added->converted = NULL;
    return ENG_OK;
}

eng_status weights_add_metadata(struct weights *weights, const char *key, const char *value,
                                eng_error *err)
{
    char *key_copy = owned_string(weights, key), *value_copy = owned_string(weights, value);
    if (key_copy == NULL || value_copy == NULL ||
        !grow((void **)&weights->metadata, sizeof *weights->metadata, weights->n_metadata,
              &weights->metadata_room)) {
        return fail_nomem(err, "__metadata__");
    }
    weights->metadata[weights->n_metadata++] = (struct metadata){key_copy, value_copy};
    return ENG_OK;
}

/* ---- opening --------------------------------------------------------------------------------- */

static bool is_lfs_pointer(const struct mapfile *map)
{
    static const char start[] = "version https://git-lfs";
    const unsigned char *bytes = mapfile_slice(map, 0, sizeof start - 1);
    return bytes != NULL && memcmp(bytes, start, sizeof start - 1) == 0;
}

static bool is_safetensors(const struct mapfile *map)
{
    const unsigned char *bytes = mapfile_slice(map, 0, 9);
    return bytes != NULL && bytes[8] == '{';
}

static eng_status read_any(const struct mapfile *map, struct weights *weights, eng_error *err)
{
    const char *file = weights_file(weights);
    if (torchzip_is(map)) {
        return torchzip_read(map, weights, err);
    }
    if (torchlegacy_is(map)) {
        return torchlegacy_read(map, weights, err);
    }
    if (is_safetensors(map)) {
        return safetensors_read(map, weights, err);
    }
    if (is_lfs_pointer(map)) {
        return fail(err, ENG_EFORMAT, file,
                    "%s is a git-lfs pointer, not the file itself: fetch it with `git lfs pull`",
                    file);
    }
    return fail(err, ENG_EFORMAT, file,
                "%s (%zu bytes) is neither safetensors nor a PyTorch file: its first bytes match "
                "none of them",
                file, map->size);
}

/* Takes the mapping over, also when it fails. */
static eng_status add_file(struct weights *weights, struct mapfile *map, const char *path,
                           eng_error *err)
{
    size_t bytes = 0;
    struct weights_file *files = NULL;
    char *copy = owned_string(weights, path);
    if (copy != NULL && size_mul(weights->n_files + 1, sizeof *files, &bytes)) {
        files = realloc(weights->files, bytes);
    }
    if (files == NULL) {
        mapfile_close(map);
        return fail_nomem(err, path);
    }
    weights->files = files;
    struct weights_file *file = &files[weights->n_files++];
    file->path = copy;
    file->map = *map;
    struct mapfile view = *map; /* `files` may move while later files are added */
    return read_any(&view, weights, err);
}

eng_status weights_add_file(struct weights *weights, const char *path, eng_error *err)
{
    struct mapfile map;
    eng_status status = mapfile_open(path, WEIGHTS_MAX_FILE_SIZE, &map, err);
    if (status != ENG_OK) {
        return status;
    }
    return add_file(weights, &map, path, err);
}

/* Sorting wants the tensors at hand; qsort_r passes them. */
static int compare_names(const void *a, const void *b, void *arg)
{
    const struct tensor *tensors = arg;
    return strcmp(tensors[*(const size_t *)a].name, tensors[*(const size_t *)b].name);
}

eng_status weights_finish(struct weights *weights, eng_error *err)
{
    size_t n = weights->n_tensors;
    weights->by_name = malloc((n > 0 ? n : 1) * sizeof *weights->by_name);
    if (weights->by_name == NULL) {
        return fail_nomem(err, weights->path);
    }
    for (size_t i = 0; i < n; i++) {
        weights->by_name[i] = i;
    }
    if (n > 0) {
        qsort_r(weights->by_name, n, sizeof *weights->by_name, compare_names, weights->tensors);
    }
    for (size_t i = 1; i < n; i++) {
        const struct tensor *a = &weights->tensors[weights->by_name[i - 1]];
        const struct tensor *b = &weights->tensors[weights->by_name[i]];
        if (strcmp(a->name, b->name) == 0) {
            return fail(err, ENG_EFORMAT, a->name, "tensor \"%s\" is there twice, in %s and %s",
                        a->name, a->file, b->file);
        }
    }
    return ENG_OK;
}

/* Ends an opening: hands over or frees. */
static eng_status conclude(eng_status status, struct weights *weights, struct weights **out,
                           eng_error *err)
{
    if (status == ENG_OK) {
        status = weights_finish(weights, err);
    }
    if (status != ENG_OK) {
        weights_free(weights);
        return status;
    }
    *out = weights;
    return ENG_OK;
}

eng_status weights_open(const char *path, struct weights **out, eng_error *err)
{
    *out = NULL;
    struct weights *weights = weights_new(path);
    if (weights == NULL) {
        return fail_nomem(err, path);
    }
    return conclude(weights_add_file(weights, path, err), weights, out, err);
}

eng_status weights_open_memory(const void *bytes, size_t size, const char *what,
                               struct weights **out, eng_error *err)
{
    *out = NULL;
    struct weights *weights = weights_new(what);
    if (weights == NULL) {
        return fail_nomem(err, what);
    }
    struct mapfile map;
    mapfile_borrow(bytes, size, &map);
    return conclude(add_file(weights, &map, what, err), weights, out, err);
}

eng_status weights_check(const struct weights *weights, eng_error *err)
{
    for (size_t i = 0; i < weights->n_files; i++) {
        eng_status status = mapfile_check(&weights->files[i].map, weights->files[i].path, err);
        if (status != ENG_OK) {
            return status;
        }
    }
    return ENG_OK;
}

/* ---- looking --------------------------------------------------------------------------------- */

size_t weights_count(const struct weights *weights)
{
    return weights->n_tensors;
}

const struct tensor *weights_at(const struct weights *weights, size_t i)
{
    return &weights->tensors[i];
}

const struct tensor *weights_find(const struct weights *weights, const char *name)
{
    size_t low = 0, high = weights->n_tensors;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct tensor *tensor = &weights->tensors[weights->by_name[middle]];
        int order = strcmp(name, tensor->name);
        if (order == 0) {
            return tensor;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

const char *weights_metadata(const struct weights *weights, const char *key)
{
    for (size_t i = 0; i < weights->n_metadata; i++) {
        if (strcmp(weights->metadata[i].key, key) == 0) {
            return weights->metadata[i].value;
        }
    }
    return NULL;
}

size_t weights_metadata_count(const struct weights *weights)
{
    return weights->n_metadata;
}

void weights_metadata_at(const struct weights *weights, size_t i, const char **key,
                         const char **value)
{
    *key = weights->metadata[i].key;
    *value = weights->metadata[i].value;
}

const char *weights_path(const struct weights *weights)
{
    return weights->path;
}

void tensor_shape_text(const size_t *shape, size_t dims, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "(");
    for (size_t i = 0; i < dims && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, i > 0 ? ", %zu" : "%zu", shape[i]);
    }
    if (used < size) {
        snprintf(text + used, size - used, ")");
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* n values that lie `step` values apart. */
static void widen_row(const struct tensor *tensor, const unsigned char *src, size_t step,
                      float *dst, size_t n)
{
    size_t size = dtype_size(tensor->dtype);
    if (step == 1 && tensor->dtype == DTYPE_F32) {
        memcpy(dst, src, n * size);
    } else if (step == 1 && tensor->dtype == DTYPE_F16) {
        half_widen_f16(src, dst, n);
    } else if (step == 1 && tensor->dtype == DTYPE_BF16) {
        half_widen_bf16(src, dst, n);
    } else {
        for (size_t i = 0; i < n; i++, src += step * size) {
            if (tensor->dtype == DTYPE_F32) {
                memcpy(&dst[i], src, sizeof dst[i]);
            } else if (tensor->dtype == DTYPE_F64) {
                double wide;
                memcpy(&wide, src, sizeof wide);
                dst[i] = (float)wide;
            } else if (tensor->dtype == DTYPE_F16) {
                half_widen_f16(src, &dst[i], 1);
            } else {
                half_widen_bf16(src, &dst[i], 1);
            }
        }
    }
}

/* Walks a strided tensor row by row of its last dimension, like an odometer. */
static void gather(const struct tensor *tensor, float *out)
{
    size_t last = tensor->dims - 1, row = tensor->shape[last];
    size_t size = dtype_size(tensor->dtype);
    size_t index[TENSOR_MAX_DIMS] = {0};
    for (size_t done = 0; done < tensor->count; done += row) {
        size_t offset = 0;
        for (size_t i = 0; i < last; i++) {
            offset += index[i] * tensor->stride[i];
        }
        widen_row(tensor, tensor->data + offset * size, tensor->stride[last], out + done, row);
        for (size_t i = last; i-- > 0;) {
            if (++index[i] < tensor->shape[i]) {
                break;
            }
            index[i] = 0;
        }
    }
}

static eng_status wrong_dtype(const struct tensor *tensor, const char *wanted, eng_error *err)
{
    return fail(err, ENG_EUNSUPPORTED, tensor->name, "%s: tensor \"%s\" is %s, wanted %s",
                tensor->file, tensor->name, dtype_name(tensor->dtype), wanted);
}

static bool is_float(enum tensor_dtype dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16 || dtype == DTYPE_F64;
}

eng_status tensor_read_f32(const struct tensor *tensor, float *out, eng_error *err)
{
    if (!is_float(tensor->dtype)) {
        return wrong_dtype(tensor, "F32, F16, BF16 or F64", err);
    }
    if (tensor->count == 0) {
        return ENG_OK;
    }
    if (tensor->contiguous || tensor->dims == 0) {
        widen_row(tensor, tensor->data, 1, out, tensor->count);
    } else {
        gather(tensor, out);
    }
    return ENG_OK;
}

static int64_t load_integer(const unsigned char *bytes, enum tensor_dtype dtype)
{
    switch (dtype) {
    case DTYPE_I64:
        return (int64_t)load_u64(bytes);
    case DTYPE_I32:
        return (int32_t)load_u32(bytes);
    case DTYPE_I16:
        return (int16_t)load_u16(bytes);
    case DTYPE_I8:
        return (int8_t)bytes[0];
    default:
        return bytes[0];
    }
}

eng_status tensor_read_i64(const struct tensor *tensor, int64_t *out, eng_error *err)
{
    if (is_float(tensor->dtype)) {
        return wrong_dtype(tensor, "an integer type", err);
    }
    size_t size = dtype_size(tensor->dtype);
    for (size_t i = 0; i < tensor->count; i++) {
        size_t offset = 0, rest = i;
        for (size_t d = tensor->dims; d-- > 0;) {
            offset += rest % tensor->shape[d] * tensor->stride[d];
            rest /= tensor->shape[d];
        }
        out[i] = load_integer(tensor->data + offset * size, tensor->dtype);
    }
    return ENG_OK;
}

eng_status weights_f32(struct weights *weights, const struct tensor *tensor, const float **out,
                       eng_error *err)
{
    *out = NULL;
    struct tensor *mine = &weights->tensors[tensor - weights->tensors];
    if (mine->dtype == DTYPE_F32 && mine->contiguous &&
        (uintptr_t)mine->data % _Alignof(float) == 0) {
        *out = (const float *)(const void *)mine->data;
        return ENG_OK;
    }
    if (mine->converted == NULL) {
        size_t bytes = 0;
        if (!is_float(mine->dtype)) {
            return wrong_dtype(mine, "F32, F16, BF16 or F64", err);
        }
        if (!size_mul(mine->count, sizeof(float), &bytes)) {
            return fail(err, ENG_ELIMIT, mine->name, "%s: tensor \"%s\" has %zu values, too many",
                        mine->file, mine->name, mine->count);
        }
        mine->converted = owned(weights, bytes);
        if (mine->converted == NULL) {
            return fail(err, ENG_ENOMEM, mine->name, "%s: no %zu bytes of memory for tensor \"%s\"",
                        mine->file, bytes, mine->name);
        }
        eng_status status = tensor_read_f32(mine, mine->converted, err);
        if (status != ENG_OK) {
            return status;
        }
    }
    *out = mine->converted;
    return ENG_OK;
}

static const struct mapfile *map_of(const struct weights *weights, const float *values)
{
    const unsigned char *at = (const unsigned char *)values;
    for (size_t i = 0; i < weights->n_files; i++) {
        const struct mapfile *map = &weights->files[i].map;
        if (map->data != NULL && at >= map->data && at < map->data + map->size) {
            return map;
        }
    }
    return NULL;
}

bool weights_mapped(const struct weights *weights, const float *values)
{
    return map_of(weights, values) != NULL;
}

bool weights_drop(const struct weights *weights, const float *values, size_t count)
{
    const struct mapfile *map = map_of(weights, values);
    if (map == NULL || map->fd >= 0) { /* memory that was lent to us is left alone */
        arena_drop(values, count * sizeof *values);
    }
    return map != NULL;
}
