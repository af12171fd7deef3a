/* fuzz_safetensors.c: a safetensors file, whole, or (input begins with '{') a header up to the first
 * NUL byte with the data behind it, so that mutations need not keep the length right. */
#include "engine/bankfile.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile double sink;

static void walk(struct weights *weights)
{
    struct bank_shape shape;
    char text[64];
    for (size_t i = 0; i < weights_count(weights); i++) {
        const struct tensor *tensor = weights_at(weights, i);
        const float *values = NULL;
        tensor_shape_text(tensor->shape, tensor->dims, text, sizeof text);
        if (weights_find(weights, tensor->name) != tensor) {
            abort();
        }
        if (weights_f32(weights, tensor, &values, NULL) == ENG_OK) {
            for (size_t j = 0; j < tensor->count; j++) {
                sink = (double)values[j];
            }
        }
    }
    if (bank_read_shape(weights, &shape, NULL) != ENG_OK) {
        return;
    }
    float *values = NULL;
    if (bank_read_tensor(weights, "A", &values, NULL) == ENG_OK) {
        free(values);
    }
}

static void open_and_walk(const uint8_t *data, size_t size)
{
    struct weights *weights = NULL;
    eng_error err = {0};
    eng_status status = weights_open_memory(data, size, "fuzz", &weights, &err);
    if ((status == ENG_OK) != (weights != NULL) || (status != ENG_OK && err.text[0] == '\0')) {
        abort();
    }
    if (weights != NULL) {
        walk(weights);
        weights_free(weights);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || data[0] != '{') {
        open_and_walk(data, size);
        return 0;
    }
    const uint8_t *end = memchr(data, 0, size);
    size_t header = end != NULL ? (size_t)(end - data) : size;
    size_t rest = end != NULL ? size - header - 1 : 0;
    uint8_t *file = malloc(8 + header + rest);
    if (file == NULL) {
        return 0;
    }
    for (size_t i = 0; i < 8; i++) {
        file[i] = (uint8_t)((uint64_t)header >> (8 * i));
    }
    memcpy(file + 8, data, header);
    if (rest > 0) {
        memcpy(file + 8 + header, end + 1, rest);
    }
    open_and_walk(file, 8 + header + rest);
    free(file);
    return 0;
}
