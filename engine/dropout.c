/* dropout.c: masks that are computed, not stored: four values to one step of splitmix64, which is seeded
 * by key, place and row. So a mask does not depend on threads or on the order of the work. */
#include "engine/encoder_pass.h"
#include "engine/rng.h"

#define LANES ((size_t)4) /* 16 bits each */

void dropout_row(const struct dropout *dropout, size_t place, size_t row, float *x, size_t n)
{
    if (dropout->rate <= 0) {
        return;
    }
    uint64_t state = dropout->key ^ ((uint64_t)place << 40 | (uint64_t)row);
    state = splitmix64(&state);
    uint32_t threshold = (uint32_t)(dropout->rate * 65536.0f);
    float scale = 1 / (1 - dropout->rate);
    for (size_t i = 0; i < n; i += LANES) {
        uint64_t bits = splitmix64(&state);
        for (size_t j = i; j < n && j < i + LANES; j++, bits >>= 16) {
            x[j] = (bits & 0xFFFF) < threshold ? 0 : x[j] * scale;
        }
    }
}
