/* safetensors.h (private): writing safetensors files. (Reading is weights.h, for every format.)
 *
 * The file appears whole or not at all: written beside its place under a temporary name, fsync'ed,
 * renamed, and the folder fsync'ed. Any thread.
 */
#ifndef ENGINE_SAFETENSORS_H
#define ENGINE_SAFETENSORS_H

#include "engine/weights.h"

/* What one tensor of the file is. Values are float32 and are rounded to `dtype` (F32, F16 or BF16). */
struct safetensors_entry {
    const char *name;
    enum tensor_dtype dtype;
    size_t dims;
    size_t shape[TENSOR_MAX_DIMS];
    const float *values; /* (product of shape), C order, borrowed */
};

struct safetensors_meta {
    const char *key, *value; /* UTF-8 strings */
};

/* Writes `path`. An existing file is replaced only when `replace`, else ENG_EINVAL. A finite value
 * that does not fit F16 or BF16 is ENG_EINVAL and names the tensor. ENG_EIO otherwise. */
ENG_MUST_CHECK eng_status safetensors_write(const char *path,
                                            const struct safetensors_entry *entries, size_t n,
                                            const struct safetensors_meta *meta, size_t n_meta,
                                            bool replace, eng_error *err);

#endif
