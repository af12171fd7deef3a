/* safetensors_write.c: the safetensors writer.
 *
 * Tensors of wide types come first and the header is padded with spaces to a multiple of eight, so that
 * every float32 lies aligned and a reader can use it from the mapping. Values are converted in chunks:
 * memory use does not depend on the size of the model.
 */
#include "engine/half.h"
#include "engine/jsonload.h"
#include "engine/newfile.h"
#include "engine/safetensors.h"
#include "engine/status.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 16384 /* values */

static eng_status entry_bytes(const struct safetensors_entry *entry, size_t *count, size_t *bytes,
                              eng_error *err)
{
    *count = 1;
    bool fits = entry->dims <= TENSOR_MAX_DIMS;
    for (size_t i = 0; fits && i < entry->dims; i++) {
        fits = size_mul(*count, entry->shape[i], count);
    }
    if (!fits || !size_mul(*count, dtype_size(entry->dtype), bytes)) {
        return fail(err, ENG_EINVAL, entry->name, "tensor \"%s\": shape overflows", entry->name);
    }
    if (entry->dtype != DTYPE_F32 && entry->dtype != DTYPE_F16 && entry->dtype != DTYPE_BF16) {
        return fail(err, ENG_EUNSUPPORTED, entry->name, "tensor \"%s\": %s is not written",
                    entry->name, dtype_name(entry->dtype));
    }
    return ENG_OK;
}

/* ---- header ----------------------------------------------------------------------------------- */

static bool set_metadata(json_t *header, const struct safetensors_meta *meta, size_t n)
{
    if (n == 0) {
        return true;
    }
    json_t *object = json_object();
    bool good = object != NULL;
    for (size_t i = 0; good && i < n; i++) {
        good = json_object_set_new(object, meta[i].key, json_string(meta[i].value)) == 0;
    }
    /* set_new takes the reference also when it fails. */
    return json_object_set_new(header, "__metadata__", object) == 0 && good;
}

static bool set_entry(json_t *header, const struct safetensors_entry *entry, size_t begin,
                      size_t end)
{
    json_t *shape = json_array();
    bool good = shape != NULL;
    for (size_t i = 0; good && i < entry->dims; i++) {
        good = json_array_append_new(shape, json_integer((json_int_t)entry->shape[i])) == 0;
    }
    json_t *object = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_name(entry->dtype), "shape",
                               shape, "data_offsets", (json_int_t)begin, (json_int_t)end);
    return json_object_set_new(header, entry->name, object) == 0 && good;
}

static eng_status make_header(const struct safetensors_entry *entries, const size_t *order,
                              size_t n, const struct safetensors_meta *meta, size_t n_meta,
                              char **out, eng_error *err)
{
    eng_status status = ENG_OK;
    size_t at = 0;
    *out = NULL;
    errno = 0; /* jansson does not say whether memory or UTF-8 was the trouble */
    json_t *header = json_object();
    if (header == NULL || !set_metadata(header, meta, n_meta)) {
        status = errno == ENOMEM ? fail_nomem(err, "__metadata__")
                                 : fail(err, ENG_EINVAL, "__metadata__", "metadata is not UTF-8");
    }
    for (size_t i = 0; i < n && status == ENG_OK; i++) {
        const struct safetensors_entry *entry = &entries[order[i]];
        size_t count = 0, bytes = 0, end = 0;
        status = entry_bytes(entry, &count, &bytes, err);
        if (status == ENG_OK && json_object_get(header, entry->name) != NULL) {
            status =
                fail(err, ENG_EINVAL, entry->name, "tensor \"%s\" is given twice", entry->name);
        }
        if (status == ENG_OK &&
            (!size_add(at, bytes, &end) || !set_entry(header, entry, at, end))) {
            status = errno == ENOMEM
                         ? fail_nomem(err, entry->name)
                         : fail(err, ENG_EINVAL, entry->name,
                                "tensor \"%s\": name is not UTF-8, or too large", entry->name);
        }
        at = end;
    }
    if (status == ENG_OK) {
        *out = json_dumps(header, JSON_COMPACT);
        status = *out != NULL ? ENG_OK : fail_nomem(err, "header");
    }
    json_decref(header);
    return status;
}

static eng_status write_header(struct newfile *file, const char *text, eng_error *err)
{
    static const char spaces[8] = "        ";
    size_t len = strlen(text), padding = (8 - len % 8) % 8;
    unsigned char length[8];
    for (size_t i = 0; i < sizeof length; i++) {
        length[i] = (unsigned char)((uint64_t)(len + padding) >> (8 * i));
    }
    eng_status status = newfile_write(file, length, sizeof length, err);
    if (status == ENG_OK) {
        status = newfile_write(file, text, len, err);
    }
    return status == ENG_OK ? newfile_write(file, spaces, padding, err) : status;
}

/* ---- data ------------------------------------------------------------------------------------- */

/* False when a finite value became infinite. */
static bool narrow(const float *values, size_t n, enum tensor_dtype dtype, uint16_t *out)
{
    bool fits = true;
    for (size_t i = 0; i < n; i++) {
        out[i] = dtype == DTYPE_F16 ? half_to_f16(values[i]) : half_to_bf16(values[i]);
        float back = dtype == DTYPE_F16 ? half_from_f16(out[i]) : half_from_bf16(out[i]);
        fits = fits && isfinite(back) == isfinite(values[i]);
    }
    return fits;
}

static eng_status write_values(struct newfile *file, const struct safetensors_entry *entry,
                               uint16_t *chunk, eng_error *err)
{
    size_t count = 0, bytes = 0;
    eng_status status = entry_bytes(entry, &count, &bytes, err);
    if (status != ENG_OK || entry->dtype == DTYPE_F32) {
        return status != ENG_OK ? status : newfile_write(file, entry->values, bytes, err);
    }
    for (size_t i = 0; i < count; i += CHUNK) {
        size_t n = count - i < CHUNK ? count - i : CHUNK;
        if (!narrow(entry->values + i, n, entry->dtype, chunk)) {
            return fail(err, ENG_EINVAL, entry->name,
                        "tensor \"%s\" holds values too large for %s; use %s", entry->name,
                        dtype_name(entry->dtype), entry->dtype == DTYPE_F16 ? "BF16" : "F32");
        }
        status = newfile_write(file, chunk, n * sizeof *chunk, err);
        if (status != ENG_OK) {
            return status;
        }
    }
    return ENG_OK;
}

/* Wide types first, otherwise as given. */
static void sort_by_width(const struct safetensors_entry *entries, size_t n, size_t *order)
{
    size_t placed = 0;
    for (size_t width = 8; width > 0; width /= 2) {
        for (size_t i = 0; i < n; i++) {
            if (dtype_size(entries[i].dtype) == width) {
                order[placed++] = i;
            }
        }
    }
}

eng_status safetensors_write(const char *path, const struct safetensors_entry *entries, size_t n,
                             const struct safetensors_meta *meta, size_t n_meta, bool replace,
                             eng_error *err)
{
    eng_status status = ENG_ENOMEM;
    char *header = NULL;
    size_t *order = calloc(n > 0 ? n : 1, sizeof *order);
    uint16_t *chunk = malloc(CHUNK * sizeof *chunk);
    struct newfile file = {.fd = -1};
    if (order == NULL || chunk == NULL) {
        status = fail_nomem(err, path);
        goto out;
    }
    sort_by_width(entries, n, order);
    status = make_header(entries, order, n, meta, n_meta, &header, err);
    if (status == ENG_OK) {
        status = newfile_begin(path, &file, err);
    }
    if (status == ENG_OK) {
        status = write_header(&file, header, err);
    }
    for (size_t i = 0; i < n && status == ENG_OK; i++) {
        status = write_values(&file, &entries[order[i]], chunk, err);
    }
    if (status == ENG_OK) {
        status = newfile_commit(&file, replace, err);
    }
out:
    newfile_abandon(&file);
    free(header);
    free(chunk);
    free(order);
    return status;
}
