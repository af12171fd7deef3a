/* test_gemm.c: every back end against a plain sum over odd shapes, edges and layouts, and the promise
 * that an element's bits depend on its row and column alone. */
#include "engine/gemm.h"
#include "engine/half.h"
#include "engine/ops.h"
#include "engine/pool.h"
#include "engine/rng.h"
#include "tests/unit/test.h"

#include <float.h>

struct problem {
    struct gemm_product g;
    float *a, *b, *bias, *c, *gelu, *old; /* b as its packed form has it */
    struct gemm_packed *packed;
    size_t c_floats;
};

static float *random_floats(struct rng *rng, size_t n)
{
    float *x = malloc((n > 0 ? n : 1) * sizeof *x);
    for (size_t i = 0; x != NULL && i < n; i++) {
        x[i] = (float)(rng_uniform(rng) * 2 - 1);
    }
    return x;
}

struct shape {
    size_t m, n, k;
    bool a_transposed, b_transposed, packed, half, alone, bias, add, gelu;
};

static bool problem_init(struct problem *p, const struct shape *s, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    size_t lda = (s->a_transposed ? s->m : s->k) + 3, ldb = (s->b_transposed ? s->k : s->n);
    *p = (struct problem){0};
    p->c_floats = s->m * (s->n + 5);
    p->a = random_floats(&rng, (s->a_transposed ? s->k : s->m) * lda);
    p->b = random_floats(&rng, (s->b_transposed ? s->n : s->k) * ldb);
    p->bias = random_floats(&rng, s->n);
    p->c = random_floats(&rng, p->c_floats);
    p->old = malloc(p->c_floats * sizeof(float));
    p->gelu = calloc(p->c_floats, sizeof(float));
    if (p->a == NULL || p->b == NULL || p->bias == NULL || p->c == NULL || p->old == NULL ||
        p->gelu == NULL) {
        return false;
    }
    memcpy(p->old, p->c, p->c_floats * sizeof(float));
    p->g = (struct gemm_product){.m = s->m,
                                 .n = s->n,
                                 .k = s->k,
                                 .a = p->a,
                                 .lda = lda,
                                 .b = p->b,
                                 .ldb = ldb,
                                 .bias = s->bias ? p->bias : NULL,
                                 .c = p->c,
                                 .ldc = s->n + 5,
                                 .gelu = s->gelu ? p->gelu : NULL,
                                 .a_transposed = s->a_transposed,
                                 .b_transposed = s->b_transposed,
                                 .add = s->add};
    if (s->packed && gemm_cpu_capable()) {
        size_t rows = s->b_transposed ? s->n : s->k, columns = s->b_transposed ? s->k : s->n;
        void *memory = aligned_alloc(64, gemm_packed_bytes(rows, columns, s->half));
        if (memory == NULL) {
            return false;
        }
        for (size_t i = 0; s->half && i < rows * columns; i++) {
            p->b[i] = half_from_f16(half_to_f16(p->b[i]));
        }
        p->packed = gemm_pack(p->b, rows, columns, s->half, memory);
        p->g.b = s->alone ? NULL : p->b;
    }
    p->g.packed = p->packed;
    return true;
}

static void problem_fini(struct problem *p)
{
    free(p->a);
    free(p->b);
    free(p->bias);
    free(p->c);
    free(p->old);
    free(p->gelu);
    free(p->packed);
}

static float a_at(const struct gemm_product *g, size_t i, size_t p)
{
    return g->a_transposed ? g->a[p * g->lda + i] : g->a[i * g->lda + p];
}

static float b_at(const struct problem *p, size_t s, size_t j)
{
    return p->g.b_transposed ? p->b[j * p->g.ldb + s] : p->b[s * p->g.ldb + j];
}

/* The documented chain: init, then one fused multiply-add per step. */
static float chain(const struct problem *p, size_t i, size_t j)
{
    const struct gemm_product *g = &p->g;
    float sum = g->add ? p->old[i * g->ldc + j] : g->bias != NULL ? g->bias[j] : 0;
    for (size_t s = 0; s < g->k; s++) {
        sum = fmaf(a_at(g, i, s), b_at(p, s, j), sum);
    }
    return sum;
}

static void check_problem(const struct problem *p, bool bitwise)
{
    size_t wrong = 0, outside = 0, wrong_gelu = 0;
    for (size_t i = 0; i < p->g.m; i++) {
        for (size_t j = 0; j < p->g.ldc; j++) {
            float got = p->c[i * p->g.ldc + j];
            if (j >= p->g.n) {
                outside += memcmp(&got, &p->old[i * p->g.ldc + j], sizeof got) != 0;
                continue;
            }
            float want = chain(p, i, j), tolerance = 4e-7f * (float)(p->g.k + 8);
            wrong +=
                bitwise ? memcmp(&got, &want, sizeof got) != 0 : !(fabsf(got - want) <= tolerance);
            double gelu = 0.5 * got * (1 + erf(got / sqrt(2)));
            wrong_gelu += p->g.gelu != NULL &&
                          !(fabs(p->gelu[i * p->g.ldc + j] - gelu) <= 1.5e-6 + 1e-6 * fabs(gelu));
        }
    }
    CHECK_INT(wrong, 0);
    CHECK_INT(outside, 0); /* columns past n are somebody else's */
    CHECK_INT(wrong_gelu, 0);
    if (wrong + outside + wrong_gelu != 0) {
        fprintf(stderr, "  at m %zu n %zu k %zu, a_t %d b_t %d packed %d bias %d add %d\n", p->g.m,
                p->g.n, p->g.k, p->g.a_transposed, p->g.b_transposed, p->packed != NULL,
                p->g.bias != NULL, p->g.add);
    }
}

static struct shape random_shape(struct rng *rng, size_t round)
{
    static const size_t edges[] = {1, 2, 5, 6, 7, 13, 15, 16, 17, 31, 33, 64, 97, 191, 193, 260};
    size_t count = sizeof edges / sizeof edges[0];
    struct shape s = {.m = edges[rng_below(rng, count)],
                      .n = edges[rng_below(rng, count)],
                      .k = edges[rng_below(rng, count)],
                      .a_transposed = rng_below(rng, 3) == 0,
                      .b_transposed = rng_below(rng, 2) == 0,
                      .bias = rng_below(rng, 2) == 0,
                      .gelu = rng_below(rng, 3) == 0};
    s.k = round % 10 == 0 ? 511 + rng_below(rng, 4) : s.k; /* across the blocks of k */
    s.packed = rng_below(rng, 2) == 0;
    s.half = rng_below(rng, 2) == 0;
    s.alone = rng_below(rng, 2) == 0; /* only the packed form is left */
    s.add = !s.bias && rng_below(rng, 2) == 0;
    return s;
}

static void check_kernel(const char *kernel, size_t threads, bool bitwise)
{
    eng_compute *compute = NULL;
    eng_error err = {0};
    struct rng rng;
    rng_seed(&rng, 5 + threads);
    REQUIRE(eng_compute_start(threads, kernel, &compute, &err) == ENG_OK);
    for (size_t round = 0; round < 120; round++) {
        struct shape shape = random_shape(&rng, round);
        struct problem p;
        REQUIRE(problem_init(&p, &shape, round));
        compute_turn_take(compute, ENG_SERVING);
        gemm_run(compute, &p.g, 1);
        compute_turn_give(compute);
        check_problem(&p, bitwise);
        problem_fini(&p);
    }
    eng_compute_stop(compute);
}

static void openblas_is_right(void)
{
    check_kernel("openblas", 1, false);
    check_kernel("openblas", 3, false);
}

static void vectors_are_right_to_the_bit(void)
{
    for (enum simd simd = SIMD_AVX2; simd <= gemm_cpu(); simd++) {
        for (size_t threads = 1; threads <= 3; threads++) {
            check_kernel(gemm_kernel_name(simd), threads, true);
        }
    }
}

static void serial_equals_the_chain(void)
{
    struct rng rng;
    rng_seed(&rng, 77);
    void *scratch = aligned_alloc(64, GEMM_SCRATCH);
    REQUIRE(scratch != NULL);
    for (enum simd simd = SIMD_AVX2; simd <= gemm_cpu(); simd++) {
        for (size_t round = 0; round < 60; round++) {
            struct shape shape = random_shape(&rng, round);
            struct problem p;
            REQUIRE(problem_init(&p, &shape, round));
            gemm_serial(simd, &p.g, scratch);
            check_problem(&p, true);
            problem_fini(&p);
        }
    }
    free(scratch);
}

/* A wide matrix: every kind of tile, and panels side by side. */
static void wide_products(void)
{
    for (enum simd simd = SIMD_NONE; simd <= gemm_cpu(); simd++) {
        eng_compute *compute = NULL;
        REQUIRE(eng_compute_start(2, gemm_kernel_name(simd), &compute, NULL) == ENG_OK);
        for (size_t i = 0; i < 8; i++) {
            struct shape shape = {.m = i < 4 ? 9 : 23,
                                  .n = 500 + i * 8,
                                  .k = 530,
                                  .b_transposed = i % 2 == 0,
                                  .packed = true,
                                  .half = i % 4 >= 2,
                                  .alone = true};
            struct problem p;
            REQUIRE(problem_init(&p, &shape, i));
            if (p.g.b != NULL || p.packed != NULL) {
                compute_turn_take(compute, ENG_SERVING);
                gemm_run(compute, &p.g, 1);
                compute_turn_give(compute);
                check_problem(&p, simd != SIMD_NONE);
            }
            problem_fini(&p);
        }
        eng_compute_stop(compute);
    }
}

/* Many rows of a small matrix, which the threads share out by rows: alone and several at once, with as many
 * rows and with others. */
static void many_rows(void)
{
    for (enum simd simd = SIMD_NONE; simd <= gemm_cpu(); simd++) {
        eng_compute *compute = NULL;
        REQUIRE(eng_compute_start(3, gemm_kernel_name(simd), &compute, NULL) == ENG_OK);
        for (size_t i = 0; i < 12; i++) {
            struct problem p[3];
            struct gemm_product products[3];
            size_t count = i % 2 == 0 ? 1 : 3;
            for (size_t j = 0; j < count; j++) {
                struct shape shape = {.m = (i < 8 ? 600 : 1200) + (i % 4 == 3 ? 500 * j : i),
                                      .n = 40 + 7 * i + 16 * j,
                                      .k = 60,
                                      .b_transposed = true,
                                      .packed = true,
                                      .half = i % 3 == 2,
                                      .alone = true,
                                      .bias = i % 3 == 0,
                                      .add = i % 3 == 1,
                                      .gelu = i % 5 == 0};
                REQUIRE(problem_init(&p[j], &shape, 10 * i + j));
                products[j] = p[j].g;
            }
            if (p[0].g.b != NULL || p[0].packed != NULL) {
                compute_turn_take(compute, ENG_SERVING);
                gemm_run(compute, products, count);
                compute_turn_give(compute);
            }
            for (size_t j = 0; j < count; j++) {
                if (p[j].g.b != NULL || p[j].packed != NULL) {
                    check_problem(&p[j], simd != SIMD_NONE);
                }
                problem_fini(&p[j]);
            }
        }
        eng_compute_stop(compute);
    }
}

/* Wᵀ packed from W packed holds W's values, rounded where W is. */
static void turned_is_the_same_matrix(void)
{
    const size_t sizes[][2] = {{1, 1}, {16, 16}, {17, 33}, {48, 100}, {130, 20}};
    struct rng rng;
    rng_seed(&rng, 5);
    for (size_t i = 0; i < 10 && gemm_cpu_capable(); i++) {
        size_t n = sizes[i / 2][0], k = sizes[i / 2][1];
        bool half = i % 2 == 1;
        float *w = random_floats(&rng, n * k), *back = calloc(n * k, sizeof *back);
        void *packed = aligned_alloc(64, gemm_packed_bytes(n, k, half));
        void *turned = aligned_alloc(64, gemm_packed_bytes(k, n, half));
        REQUIRE(w != NULL && back != NULL && packed != NULL && turned != NULL);
        struct gemm_packed *once = gemm_pack(w, n, k, half, packed);
        gemm_unpack(gemm_pack_turned(once, turned), back);
        int wrong = 0;
        for (size_t r = 0; r < n; r++) {
            for (size_t c = 0; c < k; c++) {
                float want = half ? half_from_f16(half_to_f16(w[r * k + c])) : w[r * k + c];
                wrong += back[c * n + r] != want;
            }
        }
        CHECK_INT(wrong, 0);
        free(w);
        free(back);
        free(packed);
        free(turned);
    }
}

static void no_more_than_the_processor_has(void)
{
    eng_compute *compute = NULL;
    eng_error err = {0};
    CHECK(eng_compute_start(1, "magic", &compute, &err) == ENG_EINVAL && compute == NULL);
    for (enum simd simd = SIMD_AVX2; simd <= SIMD_AVX512; simd++) {
        eng_status want = simd <= gemm_cpu() ? ENG_OK : ENG_EUNSUPPORTED;
        CHECK(eng_compute_start(1, gemm_kernel_name(simd), &compute, &err) == want);
        CHECK((compute != NULL) == (want == ENG_OK));
        if (compute != NULL) {
            CHECK_STR(eng_compute_get_info(compute)->kernel, gemm_kernel_name(simd));
        }
        eng_compute_stop(compute);
    }
}

static void several_products_at_once(void)
{
    eng_compute *compute = NULL;
    REQUIRE(eng_compute_start(2, NULL, &compute, NULL) == ENG_OK);
    struct problem p[3];
    struct gemm_product products[3];
    for (size_t i = 0; i < 3; i++) {
        struct shape shape = {
            .m = 70, .n = 48 + 16 * i, .k = 130, .b_transposed = true, .packed = true};
        REQUIRE(problem_init(&p[i], &shape, i));
        products[i] = p[i].g;
    }
    compute_turn_take(compute, ENG_SERVING);
    gemm_run(compute, products, 3);
    compute_turn_give(compute);
    for (size_t i = 0; i < 3; i++) {
        check_problem(&p[i], compute_simd(compute) != SIMD_NONE);
        problem_fini(&p[i]);
    }
    eng_compute_stop(compute);
}

static void sizes_that_overflow(void)
{
    CHECK(gemm_packed_bytes(SIZE_MAX, 1, false) == 0);
    CHECK(gemm_packed_bytes(SIZE_MAX / 8, 64, false) == 0);
    CHECK(gemm_packed_bytes(SIZE_MAX / 8, 64, true) == 0);
    CHECK(gemm_packed_bytes(16, SIZE_MAX / 64, false) == 0);
    size_t whole = gemm_packed_bytes(17, 3, false), half = gemm_packed_bytes(17, 3, true);
    CHECK(whole % 64 == 0 && whole >= 2 * 16 * 3 * 4);
    CHECK(half % 64 == 0 && half >= 2 * 16 * 3 * 2 && half < whole);
}

static void the_checker_can_fail(void)
{
    struct shape shape = {.m = 7, .n = 17, .k = 9};
    struct problem p;
    REQUIRE(problem_init(&p, &shape, 1));
    for (size_t i = 0; i < p.g.m; i++) {
        for (size_t j = 0; j < p.g.n; j++) {
            p.c[i * p.g.ldc + j] = chain(&p, i, j);
        }
    }
    check_problem(&p, true);
    CHECK_INT(test_failures_, 0);
    p.c[3] = nextafterf(p.c[3], FLT_MAX);
    fprintf(stderr, "(the next failure is wanted)\n");
    check_problem(&p, true);
    CHECK_INT(test_failures_, 1);
    test_failures_ = test_failures_ == 1 ? 0 : 1;
    problem_fini(&p);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(the_checker_can_fail);
    RUN(openblas_is_right);
    RUN(vectors_are_right_to_the_bit);
    RUN(serial_equals_the_chain);
    RUN(several_products_at_once);
    RUN(wide_products);
    RUN(many_rows);
    RUN(turned_is_the_same_matrix);
    RUN(no_more_than_the_processor_has);
    RUN(sizes_that_overflow);
    TESTS_END;
}
