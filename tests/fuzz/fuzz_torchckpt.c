/* fuzz_torchckpt.c: a PyTorch file (zip or legacy stream, by its first bytes), else a bare pickle whose
 * tensors lie in one small storage. */
#include "engine/torchstate.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile double sink;

static void walk(struct weights *weights)
{
    for (size_t i = 0; i < weights_count(weights); i++) {
        const struct tensor *tensor = weights_at(weights, i);
        const float *values = NULL;
        int64_t *integers = malloc(tensor->count * sizeof *integers + 1);
        if (integers != NULL && tensor_read_i64(tensor, integers, NULL) == ENG_OK) {
            sink = tensor->count > 0 ? (double)integers[tensor->count - 1] : 0;
        }
        free(integers);
        if (weights_f32(weights, tensor, &values, NULL) == ENG_OK) {
            for (size_t j = 0; j < tensor->count; j++) {
                sink = (double)values[j];
            }
        }
    }
}

static eng_status small_storage(void *arg, const struct pickle_storage *storage,
                                const unsigned char **out, eng_error *err)
{
    (void)err;
    *out = arg;
    return storage->count * dtype_size(storage->dtype) <= 96 && storage->count <= 96 ? ENG_OK
                                                                                     : ENG_EFORMAT;
}

static void bare_pickle(const uint8_t *data, size_t size)
{
    unsigned char *bytes = calloc(1, 96);
    struct weights *weights = weights_new("fuzz");
    struct pickle *pickle = NULL;
    size_t used = 0;
    if (bytes != NULL && weights != NULL &&
        pickle_parse(data, size, "fuzz", &used, &pickle, NULL) == ENG_OK) {
        if (used > size) {
            abort();
        }
        if (torchstate_collect(pickle, small_storage, bytes, weights, NULL) == ENG_OK &&
            weights_finish(weights, NULL) == ENG_OK) {
            walk(weights);
        }
    }
    pickle_free(pickle);
    weights_free(weights);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mapfile map;
    struct weights *weights = NULL;
    eng_error err = {0};
    mapfile_borrow(data, size, &map);
    if (!torchzip_is(&map) && !torchlegacy_is(&map)) {
        bare_pickle(data, size);
        return 0;
    }
    eng_status status = weights_open_memory(data, size, "fuzz", &weights, &err);
    if ((status == ENG_OK) != (weights != NULL) || (status != ENG_OK && err.text[0] == '\0')) {
        abort();
    }
    if (weights != NULL) {
        walk(weights);
        weights_free(weights);
    }
    return 0;
}
