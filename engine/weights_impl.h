/* weights_impl.h (private to the readers): how a reader hands over what it found.
 *
 * A reader gets a mapped file and a `struct weights` to fill: names and metadata are copied, tensor
 * data is pointed at. When it fails half way the caller frees everything.
 */
#ifndef ENGINE_WEIGHTS_IMPL_H
#define ENGINE_WEIGHTS_IMPL_H

#include "engine/mapfile.h"
#include "engine/weights.h"

/* Adds a tensor; `tensor->name` (string) is copied, its strides and count must be set. Refuses the
 * tensor past WEIGHTS_MAX_TENSORS. Duplicate names are found by weights_finish. */
ENG_MUST_CHECK eng_status weights_add(struct weights *weights, const struct tensor *tensor,
                                      eng_error *err);
ENG_MUST_CHECK eng_status weights_add_metadata(struct weights *weights, const char *key,
                                               const char *value, eng_error *err);
/* Name of the file being read, for messages. */
const char *weights_file(const struct weights *weights);

/* True when `name` is 1 … TENSOR_MAX_NAME bytes without control characters. */
bool tensor_name_ok(const char *name, size_t len);
/* C-order strides and the count from dtype and shape; false when a product overflows. */
bool tensor_set_contiguous(struct tensor *tensor);

/* Opening by hand, for directories: new, any number of files, finish (sorts, refuses names that are
 * there twice). After a failure the caller frees `weights`. */
struct weights *weights_new(const char *path); /* NULL: out of memory */
ENG_MUST_CHECK eng_status weights_add_file(struct weights *weights, const char *path,
                                           eng_error *err);
ENG_MUST_CHECK eng_status weights_finish(struct weights *weights, eng_error *err);

/* The readers. `map` outlives `weights`. */
ENG_MUST_CHECK eng_status safetensors_read(const struct mapfile *map, struct weights *weights,
                                           eng_error *err);
ENG_MUST_CHECK eng_status torchzip_read(const struct mapfile *map, struct weights *weights,
                                        eng_error *err);
ENG_MUST_CHECK eng_status torchlegacy_read(const struct mapfile *map, struct weights *weights,
                                           eng_error *err);
bool torchzip_is(const struct mapfile *map);
bool torchlegacy_is(const struct mapfile *map);

#endif
