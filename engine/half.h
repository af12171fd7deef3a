/* half.h (private): 16-bit floating point, to and from float32. Pure functions, any thread.
 *
 *   f16   1 sign, 5 exponent, 10 fraction bits     largest 65504, subnormals down to 2^-24
 *   bf16  1 sign, 8 exponent, 7 fraction bits      the upper half of a float32
 * Widening is exact. Narrowing rounds to nearest, ties to even; what is too large becomes infinite;
 * a NaN stays a (quiet) NaN.
 */
#ifndef ENGINE_HALF_H
#define ENGINE_HALF_H

#include <stddef.h>
#include <stdint.h>

float half_from_f16(uint16_t bits);
float half_from_bf16(uint16_t bits);
uint16_t half_to_f16(float value);
uint16_t half_to_bf16(float value);

/* `n` values. `src` and `dst` bytes need no alignment and are little endian. */
void half_widen_f16(const void *src, float *dst, size_t n);
void half_widen_bf16(const void *src, float *dst, size_t n);

#endif
