/* test_half.c: 16-bit floating point, every f16 value and the rounding cases. */
#include "engine/half.h"
#include "tests/unit/test.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void every_f16_survives(void)
{
    size_t wrong = 0;
    for (uint32_t i = 0; i <= 0xFFFF; i++) {
        float wide = half_from_f16((uint16_t)i);
        if (isnan(wide)) {
            wrong += !((i & 0x7C00) == 0x7C00 && (i & 0x3FF) != 0);
            wrong += half_to_f16(wide) != (i | 0x200);
        } else {
            wrong += half_to_f16(wide) != i;
        }
    }
    CHECK_INT(wrong, 0);
}

/* The definition: between neighbours the nearer one, half way the even one. */
static void every_f16_midpoint_rounds_to_even(void)
{
    size_t wrong = 0;
    for (uint32_t i = 0; i < 0x7BFF; i++) {
        float low = half_from_f16((uint16_t)i), high = half_from_f16((uint16_t)(i + 1));
        float middle = (float)(((double)low + (double)high) / 2);
        uint32_t even = i % 2 == 0 ? i : i + 1;
        wrong += half_to_f16(middle) != even;
        wrong += half_to_f16(-middle) != (even | 0x8000);
        wrong += half_to_f16(nextafterf(middle, 0)) != i;
        wrong += half_to_f16(nextafterf(middle, INFINITY)) != i + 1;
    }
    CHECK_INT(wrong, 0);
}

static void known_values(void)
{
    CHECK_INT(half_to_f16(1.0f), 0x3C00);
    CHECK_INT(half_to_f16(65504.0f), 0x7BFF);
    CHECK_INT(half_to_f16(65519.99f), 0x7BFF);
    CHECK_INT(half_to_f16(65520.0f), 0x7C00);
    CHECK_INT(half_to_f16(1e30f), 0x7C00);
    CHECK_INT(half_to_f16(-INFINITY), 0xFC00);
    CHECK_INT(half_to_f16(0x1p-24f), 0x0001);
    CHECK_INT(half_to_f16(0x1p-25f), 0x0000);
    CHECK_INT(half_to_f16(0x1.8p-25f), 0x0001);
    CHECK_INT(half_to_f16(-0.0f), 0x8000);
    CHECK_INT(half_to_f16(1e-40f), 0);
    CHECK(half_from_f16(0x3555) == 0x1.554p-2f);
    CHECK_INT(half_to_bf16(1.0f), 0x3F80);
    CHECK(half_from_bf16(0x4049) == 3.140625f);
    CHECK_INT(half_to_bf16(INFINITY), 0x7F80);
    CHECK((half_to_bf16(NAN) & 0x7FC0) == 0x7FC0);
    CHECK_INT(half_to_bf16(3.4028235e38f), 0x7F80);
}

static void bf16_rounds_to_even(void)
{
    size_t wrong = 0;
    for (uint32_t i = 0; i < 0x7F7F; i++) {
        uint32_t bits = i << 16 | 0x8000; /* half way to the next */
        float middle;
        memcpy(&middle, &bits, sizeof middle);
        wrong += half_to_bf16(middle) != (i % 2 == 0 ? i : i + 1);
        bits += 1;
        memcpy(&middle, &bits, sizeof middle);
        wrong += half_to_bf16(middle) != i + 1;
        wrong += bits_of(half_from_bf16((uint16_t)i)) != i << 16;
    }
    CHECK_INT(wrong, 0);
}

static void rows_are_widened_at_any_alignment(void)
{
    unsigned char bytes[9] = {0, 0x00, 0x3C, 0x00, 0xC0, 0x80, 0x3F, 0x00, 0xC0};
    float values[2];
    half_widen_f16(bytes + 1, values, 2);
    CHECK(values[0] == 1.0f && values[1] == -2.0f);
    half_widen_bf16(bytes + 5, values, 2);
    CHECK(values[0] == 1.0f && values[1] == -2.0f);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(every_f16_survives);
    RUN(every_f16_midpoint_rounds_to_even);
    RUN(known_values);
    RUN(bf16_rounds_to_even);
    RUN(rows_are_widened_at_any_alignment);
    TESTS_END;
}
