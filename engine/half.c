/* half.c: 16-bit floating point by bit arithmetic on the float32 pattern.
 *
 * Portable and exact; the loops are simple enough for the compiler to vectorise where it can. A
 * model is widened once, when it is opened.
 */
#include "engine/half.h"

#include <string.h>

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float half_from_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    uint32_t exponent = (bits >> 10) & 0x1Fu;
    uint32_t fraction = bits & 0x3FFu;
    if (exponent == 0) { /* zero or subnormal: fraction · 2^-24, exact in float32 */
        return float_of(sign | bits_of((float)fraction * 0x1p-24f));
    }
    if (exponent == 31) {
        return float_of(sign | 0x7F800000u | fraction << 13);
    }
    return float_of(sign | (exponent + 112) << 23 | fraction << 13);
}

float half_from_bf16(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

/* Keeps the upper bits of `value` after dropping `shift` of them: nearest, ties to even. */
static uint32_t round_shift(uint32_t value, unsigned shift)
{
    uint32_t half = 1u << (shift - 1);
    uint32_t kept = value >> shift;
    uint32_t dropped = value & ((1u << shift) - 1);
    return kept + (dropped > half || (dropped == half && (kept & 1u) != 0) ? 1u : 0u);
}

uint16_t half_to_f16(float value)
{
    uint32_t bits = bits_of(value);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) { /* NaN: quiet, upper fraction bits kept */
        return (uint16_t)(sign | 0x7E00u | (magnitude >> 13 & 0x1FFu));
    }
    if (magnitude >= 0x477FF000u) { /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7C00u);
    }
    if (magnitude >= 0x38800000u) { /* 2^-14: normal; a carry moves into the exponent by itself */
        return (uint16_t)(sign | round_shift(magnitude - (112u << 23), 13));
    }
    if (magnitude < 0x33000000u) { /* below 2^-25: nearer to zero than to 2^-24 */
        return (uint16_t)sign;
    }
    uint32_t fraction = (magnitude & 0x7FFFFFu) | 0x800000u;
    unsigned shift = 126u - (magnitude >> 23); /* 14 … 24 */
    return (uint16_t)(sign | round_shift(fraction, shift));
}

uint16_t half_to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    return (uint16_t)round_shift(bits, 16);
}

void half_widen_f16(const void *src, float *dst, size_t n)
{
    const unsigned char *bytes = src;
    for (size_t i = 0; i < n; i++) {
        dst[i] = half_from_f16((uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8));
    }
}

void half_widen_bf16(const void *src, float *dst, size_t n)
{
    const unsigned char *bytes = src;
    for (size_t i = 0; i < n; i++) {
        dst[i] = half_from_bf16((uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8));
    }
}
