/* test_opt_adamw.c: AdamW as an optimiser. Against steps worked out by hand and by torch's rule in
 * double, on a quadratic, and saved mid-run. (The golden trace through the model: test_adapt.c.) */
#include "engine/opt_adamw.h"
#include "tests/unit/test.h"

#include <stdint.h>

static void first_step_is_the_sign_of_the_gradient(void)
{
    struct adamw *opt = NULL;
    REQUIRE(adamw_new(3, &opt, NULL) == ENG_OK);
    float w[3] = {1, 1, 1}, g[3] = {5, -0.001f, 0};
    adamw_step(opt, 0.1, 0.5, g, w);
    /* w·(1 - 0.1·0.5) ∓ 0.1 */
    CHECK_NEAR(w[0], 0.85, 1e-6);
    CHECK_NEAR(w[1], 1.05, 1e-5);
    CHECK_NEAR(w[2], 0.95, 1e-6);
    adamw_free(opt);
}

static void follows_the_rule_in_double(void)
{
    struct adamw *opt = NULL;
    REQUIRE(adamw_new(1, &opt, NULL) == ENG_OK);
    float w = 0.3f;
    double want = (double)w, m = 0, v = 0;
    for (int t = 1; t <= 200; t++) {
        float g = (float)sin(t * 0.7) * 2;
        adamw_step(opt, 0.01, 0.02, &g, &w);
        m = 0.9 * m + 0.1 * (double)g;
        v = 0.999 * v + 0.001 * (double)g * (double)g;
        want = want * (1 - 0.01 * 0.02) -
               0.01 * (m / (1 - pow(0.9, t))) / (sqrt(v / (1 - pow(0.999, t))) + 1e-8);
    }
    CHECK_NEAR(w, want, 1e-5);
    adamw_free(opt);
}

static void finds_the_bottom_of_a_quadratic(void)
{
    struct adamw *opt = NULL;
    REQUIRE(adamw_new(2, &opt, NULL) == ENG_OK);
    float w[2] = {4, -3};
    for (int t = 0; t < 2000; t++) {
        float g[2] = {w[0] - 1, 100 * (w[1] - 2)};
        adamw_step(opt, 0.02, 0, g, w);
    }
    CHECK_NEAR(w[0], 1, 1e-3);
    CHECK_NEAR(w[1], 2, 1e-3);
    adamw_free(opt);
}

static void a_saved_state_goes_on_to_the_bit(void)
{
    struct adamw *a = NULL, *b = NULL;
    REQUIRE(adamw_new(2, &a, NULL) == ENG_OK && adamw_new(2, &b, NULL) == ENG_OK);
    float wa[2] = {1, 2}, wb[2], g[2] = {0.3f, -0.7f};
    for (int t = 0; t < 5; t++) {
        adamw_step(a, 0.1, 0.01, g, wa);
    }
    size_t bytes = adamw_bytes(a);
    unsigned char *block = malloc(bytes);
    REQUIRE(block != NULL);
    adamw_save(a, block);
    memcpy(wb, wa, sizeof wa);
    REQUIRE(adamw_load(b, block, bytes, NULL) == ENG_OK);
    for (int t = 0; t < 5; t++) {
        g[0] += 0.1f;
        adamw_step(a, 0.1, 0.01, g, wa);
        adamw_step(b, 0.1, 0.01, g, wb);
    }
    CHECK(memcmp(wa, wb, sizeof wa) == 0);
    eng_error err;
    CHECK(adamw_load(b, block, bytes - 1, &err) == ENG_EFORMAT);
    block[0] ^= 1;
    CHECK(adamw_load(b, block, bytes, &err) == ENG_EFORMAT);
    free(block);
    adamw_free(a);
    adamw_free(b);
}

static void absurd_sizes_are_refused(void)
{
    struct adamw *opt = NULL;
    eng_error err;
    CHECK(adamw_new(SIZE_MAX / 4, &opt, &err) == ENG_ENOMEM && opt == NULL);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(first_step_is_the_sign_of_the_gradient);
    RUN(follows_the_rule_in_double);
    RUN(finds_the_bottom_of_a_quadratic);
    RUN(a_saved_state_goes_on_to_the_bit);
    RUN(absurd_sizes_are_refused);
    TESTS_END;
}
