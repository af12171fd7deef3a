/* test_rng.c: published vectors of both generators, moments, bounds, saving. */
#include "engine/rng.h"
#include "tests/unit/test.h"

static void splitmix_matches_its_reference(void)
{
    uint64_t state = 1234567;
    CHECK(splitmix64(&state) == 6457827717110365317u);
    CHECK(splitmix64(&state) == 3203168211198807973u);
    CHECK(splitmix64(&state) == 9817491932198370423u);
}

static void xoshiro_matches_its_reference(void)
{
    struct rng rng = {.s = {1, 2, 3, 4}};
    CHECK(rng_next(&rng) == 11520);
    CHECK(rng_next(&rng) == 0);
    CHECK(rng_next(&rng) == 1509978240);
    CHECK(rng_next(&rng) == 1215971899390074240u);
}

static void uniform_and_normal_have_their_moments(void)
{
    struct rng rng;
    rng_seed(&rng, 7);
    double sum = 0, normal = 0, square = 0, fourth = 0;
    enum { N = 200000 };
    for (size_t i = 0; i < N; i++) {
        double u = rng_uniform(&rng), z = rng_normal(&rng);
        CHECK(u >= 0.0 && u < 1.0);
        sum += u;
        normal += z;
        square += z * z;
        fourth += z * z * z * z;
    }
    CHECK_NEAR(sum / N, 0.5, 0.005);
    CHECK_NEAR(normal / N, 0.0, 0.01);
    CHECK_NEAR(square / N, 1.0, 0.02);
    CHECK_NEAR(fourth / N, 3.0, 0.1);
}

static void below_is_even(void)
{
    struct rng rng;
    rng_seed(&rng, 1);
    size_t count[7] = {0};
    for (size_t i = 0; i < 70000; i++) {
        uint64_t x = rng_below(&rng, 7);
        REQUIRE(x < 7);
        count[x]++;
    }
    for (size_t i = 0; i < 7; i++) {
        CHECK_NEAR(count[i], 10000, 400);
    }
    CHECK_INT(rng_below(&rng, 1), 0);
}

static void shuffle_keeps_every_item_and_depends_on_the_seed(void)
{
    size_t a[100], b[100];
    struct rng rng;
    for (uint64_t seed = 1; seed < 3; seed++) {
        size_t *items = seed == 1 ? a : b;
        for (size_t i = 0; i < 100; i++) {
            items[i] = i;
        }
        rng_seed(&rng, seed);
        rng_shuffle(&rng, items, 100);
        unsigned char seen[100] = {0};
        for (size_t i = 0; i < 100; i++) {
            seen[items[i]]++;
        }
        for (size_t i = 0; i < 100; i++) {
            CHECK_INT(seen[i], 1);
        }
    }
    CHECK(memcmp(a, b, sizeof a) != 0);
    rng_shuffle(&rng, NULL, 0);
}

static void a_saved_state_goes_on(void)
{
    struct rng rng, saved;
    rng_seed(&rng, 3);
    (void)rng_normal(&rng); /* leaves a spare */
    saved = rng;
    for (size_t i = 0; i < 9; i++) {
        CHECK(rng_normal(&rng) == rng_normal(&saved));
    }
}

int main(void)
{
    TESTS_BEGIN;
    RUN(splitmix_matches_its_reference);
    RUN(xoshiro_matches_its_reference);
    RUN(uniform_and_normal_have_their_moments);
    RUN(below_is_even);
    RUN(shuffle_keeps_every_item_and_depends_on_the_seed);
    RUN(a_saved_state_goes_on);
    TESTS_END;
}
