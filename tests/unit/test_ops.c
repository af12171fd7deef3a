/* test_ops.c: every operation against its naive form in double, and every backward against central
 * differences of that form, portable and vector, at lengths with and without a tail. */
#include "engine/attention.h"
#include "engine/gemm.h"
#include "engine/ops.h"
#include "engine/ops_naive.h"
#include "engine/pool.h"
#include "engine/rng.h"
#include "tests/unit/test.h"

#define MAX_N 300
#define STEP  1e-5

static const size_t lengths[] = {1, 2, 7, 8, 9, 15, 16, 17, 64, 100, 129, 300};
#define LENGTHS (sizeof lengths / sizeof lengths[0])

static struct rng rng;

static double draw(void)
{
    return rng_normal(&rng);
}

static void draw_floats(float *x, size_t n, double scale)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(scale * draw());
    }
}

static void widen(const float *x, size_t n, double *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = x[i];
    }
}

/* f: an operation of n inputs and n outputs. The gradient of Σ weight·f(x) by central differences. */
typedef void (*operation)(const double *x, size_t n, double *y);
static void differences(operation f, const float *x, const float *weight, size_t n, double *out)
{
    static double at[MAX_N], up[MAX_N], down[MAX_N];
    widen(x, n, at);
    for (size_t i = 0; i < n; i++) {
        double keep = at[i];
        at[i] = keep + STEP;
        f(at, n, up);
        at[i] = keep - STEP;
        f(at, n, down);
        at[i] = keep;
        out[i] = 0;
        for (size_t j = 0; j < n; j++) {
            out[i] += weight[j] * (up[j] - down[j]) / (2 * STEP);
        }
    }
}

static double worst(const float *got, const double *want, size_t n)
{
    double error = 0;
    for (size_t i = 0; i < n; i++) {
        double e = fabs(got[i] - want[i]) / (1 + fabs(want[i]));
        error = e <= error ? error : e; /* a NaN sticks */
    }
    return error;
}

/* ---- gelu ---- */

static void gelu_is_right(enum simd simd)
{
    float x[MAX_N], y[MAX_N], d[MAX_N], weight[MAX_N];
    double wide[MAX_N], want[MAX_N];
    for (size_t l = 0; l < LENGTHS; l++) {
        size_t n = lengths[l];
        draw_floats(x, n, 2);
        draw_floats(weight, n, 1);
        memcpy(d, weight, sizeof d);
        ops_gelu_rows(simd, x, y, 1, n, n);
        widen(x, n, wide);
        naive_gelu(wide, n, want);
        CHECK_NEAR(worst(y, want, n), 0, 1.5e-6);
        ops_gelu_backward_rows(simd, x, d, 1, n, n);
        differences(naive_gelu, x, weight, n, want);
        CHECK_NEAR(worst(d, want, n), 0, 5e-6);
    }
}

/* The bounds stated in ops.h, over the whole range, and the far ends. */
static void gelu_error_of(enum simd simd)
{
    double error = 0, relative = 0;
    for (double at = -12; at < 12; at += 1e-3) {
        float x = (float)at, y = 0;
        ops_gelu_rows(simd, &x, &y, 1, 1, 1);
        double want = 0.5 * x * (1 + erf(x / sqrt(2)));
        error = fmax(error, fabs(y - want) / (1 + fabs((double)x)));
        relative = at >= 0.001 ? fmax(relative, fabs(y / want - 1)) : relative;
    }
    CHECK(error < 2.5e-7);
    CHECK(relative < 4e-7);
    float ends[4] = {-1e30f, 1e30f, NAN, -0.0f}, y[4];
    ops_gelu_rows(simd, ends, y, 1, 4, 4);
    CHECK(y[1] == 1e30f && isnan(y[2]) && y[3] == 0);
    CHECK(y[0] == 0); /* erf is exactly ±1 far out */
}

static void gelu_error(void)
{
    for (enum simd simd = SIMD_AVX2; simd <= gemm_cpu(); simd++) {
        gelu_error_of(simd);
    }
}

/* ---- layernorm ---- */

static struct layernorm norm;
static double norm_w[MAX_N], norm_b[MAX_N];

static void naive_norm(const double *x, size_t n, double *y)
{
    naive_layernorm(x, norm_w, norm_b, 1e-12, n, y);
}

static void layernorm_is_right(enum simd simd)
{
    float x[MAX_N], r[MAX_N], sum[MAX_N], y[MAX_N], xhat[MAX_N], d[MAX_N], weight[MAX_N], rstd = 0;
    float w[MAX_N], b[MAX_N];
    double wide[MAX_N], want[MAX_N];
    norm = (struct layernorm){w, b};
    for (size_t l = 2; l < LENGTHS; l++) { /* of one or two values little is left */
        size_t n = lengths[l];
        draw_floats(x, n, 1);
        draw_floats(r, n, 1);
        draw_floats(w, n, 1);
        draw_floats(b, n, 1);
        draw_floats(weight, n, 1);
        widen(w, n, norm_w);
        widen(b, n, norm_b);
        for (size_t i = 0; i < n; i++) {
            sum[i] = x[i] + r[i];
        }
        ops_layernorm_row(simd, x, r, &norm, 1e-12f, n, y, xhat, &rstd);
        widen(sum, n, wide);
        naive_norm(wide, n, want);
        CHECK_NEAR(worst(y, want, n), 0, 2e-6);
        ops_layernorm_row(simd, sum, NULL, &norm, 1e-12f, n, sum, NULL, NULL); /* in place */
        CHECK_NEAR(worst(sum, want, n), 0, 2e-6);
        ops_layernorm_backward_row(simd, weight, xhat, rstd, &norm, n, d);
        for (size_t i = 0; i < n; i++) {
            sum[i] = x[i] + r[i];
        }
        differences(naive_norm, sum, weight, n, want);
        CHECK_NEAR(worst(d, want, n), 0, 2e-5);
    }
}

static void column_sums_are_right(void)
{
    enum { ROWS = 5, N = 11 };
    float dy[ROWS * N], xhat[ROWS * N], dw[N] = {0}, db[N] = {0};
    draw_floats(dy, ROWS * N, 1);
    draw_floats(xhat, ROWS * N, 1);
    ops_column_sums(dy, N, xhat, N, ROWS, 0, 4, dw, db);
    ops_column_sums(dy, N, xhat, N, ROWS, 4, N, dw, db);
    for (size_t i = 0; i < N; i++) {
        double w = 0, b = 0;
        for (size_t r = 0; r < ROWS; r++) {
            w += (double)dy[r * N + i] * xhat[r * N + i];
            b += dy[r * N + i];
        }
        CHECK_NEAR(dw[i], w, 1e-6);
        CHECK_NEAR(db[i], b, 1e-6);
    }
}

/* ---- softmax and cross-entropy ---- */

static void naive_softmax_op(const double *x, size_t n, double *y)
{
    naive_softmax(x, 0.3, n, y);
}

static void softmax_is_right(enum simd simd)
{
    float x[MAX_N], y[MAX_N], d[MAX_N], weight[MAX_N];
    double wide[MAX_N], want[MAX_N];
    for (size_t l = 0; l < LENGTHS; l++) {
        size_t n = lengths[l];
        draw_floats(x, n, 20);
        draw_floats(weight, n, 1);
        memcpy(y, x, sizeof y);
        memcpy(d, weight, sizeof d);
        ops_softmax_row(simd, y, n, 0.3f);
        widen(x, n, wide);
        naive_softmax_op(wide, n, want);
        CHECK_NEAR(worst(y, want, n), 0, 2e-6);
        ops_softmax_backward_row(simd, y, d, n, 0.3f);
        differences(naive_softmax_op, x, weight, n, want);
        CHECK_NEAR(worst(d, want, n), 0, 5e-6);
    }
}

static void softmax_far_out(void)
{
    for (enum simd simd = SIMD_NONE; simd <= gemm_cpu(); simd++) {
        float x[3] = {-3e38f, 0, -1e5f}, y[2] = {88, 88};
        ops_softmax_row(simd, x, 3, 1);
        CHECK(x[1] == 1 && x[0] >= 0 && x[0] < 1e-30f && x[2] < 1e-30f);
        ops_softmax_row(simd, y, 2, 1000);
        CHECK_NEAR(y[0], 0.5, 1e-7);
    }
}

static void cross_entropy_is_right(void)
{
    float x[17], d[17];
    double wide[17];
    draw_floats(x, 17, 3);
    widen(x, 17, wide);
    CHECK_NEAR(ops_cross_entropy(SIMD_NONE, x, 17, 4, 0.25, d), naive_cross_entropy(wide, 17, 4),
               1e-12);
    for (size_t i = 0; i < 17; i++) {
        double keep = wide[i];
        wide[i] = keep + STEP;
        double up = naive_cross_entropy(wide, 17, 4);
        wide[i] = keep - STEP;
        double down = naive_cross_entropy(wide, 17, 4);
        wide[i] = keep;
        CHECK_NEAR(d[i], 0.25 * (up - down) / (2 * STEP), 1e-7);
    }
    float huge[2] = {3e38f, -3e38f};
    CHECK(isfinite(ops_cross_entropy(SIMD_NONE, huge, 2, 0, 1, d)));
}

/* As many words as a vocabulary has, in place as the masked head does it, and the loss alone. */
static void cross_entropy_of_words(enum simd simd)
{
    enum { WORDS = 21128 };
    static const size_t counts[] = {1, 15, 16, 17, 5784, WORDS};
    static float x[WORDS], d[WORDS], wanted[WORDS];
    static double wide[WORDS];
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        size_t n = counts[c], target = n / 3;
        draw_floats(x, n, 4);
        double loss = ops_cross_entropy(SIMD_NONE, x, n, target, 0.25, wanted);
        widen(wanted, n, wide);
        CHECK_NEAR(ops_cross_entropy(simd, x, n, target, 0, NULL), loss, 1e-6);
        memcpy(d, x, n * sizeof *d);
        CHECK_NEAR(ops_cross_entropy(simd, d, n, target, 0.25, d), loss, 1e-6);
        CHECK_NEAR(worst(d, wide, n), 0, 1e-6);
    }
    float huge[2] = {3e38f, -3e38f};
    CHECK(isfinite(ops_cross_entropy(simd, huge, 2, 1, 1, d)));
    CHECK_NEAR(d[0], 1, 1e-7);
    CHECK_NEAR(d[1], -1, 1e-7);
}

/* ---- sums ---- */

static void dots_are_right(enum simd simd)
{
    float x[MAX_N], y[MAX_N];
    for (size_t l = 0; l < LENGTHS; l++) {
        size_t n = lengths[l];
        draw_floats(x, n, 1);
        draw_floats(y, n, 1);
        double want = 0;
        for (size_t i = 0; i < n; i++) {
            want += (double)x[i] * y[i];
        }
        CHECK_NEAR(ops_dot(simd, x, y, n), want, 2e-5);
        float before = y[n - 1];
        ops_add_scaled(simd, x, 0.5f, y, n);
        CHECK_NEAR(y[n - 1], before + 0.5 * x[n - 1], 1e-6);
    }
}

/* ---- attention ---- */

#define HEADS 2

/* Values of a packed batch of two sequences, and their gradients. */
struct attention_case {
    size_t lens[2], width, offsets[3], floats;
    float *q, *k, *v, *out, *dout, *dq, *dk, *dv;
};

static float *drawn(size_t n)
{
    float *x = malloc(n * sizeof *x);
    if (x != NULL) {
        draw_floats(x, n, 1);
    }
    return x;
}

static bool case_init(struct attention_case *c, size_t len_a, size_t len_b, size_t width)
{
    *c = (struct attention_case){.lens = {len_a, len_b}, .width = width};
    c->offsets[1] = len_a;
    c->offsets[2] = len_a + len_b;
    c->floats = c->offsets[2] * width * HEADS;
    c->q = drawn(c->floats);
    c->k = drawn(c->floats);
    c->v = drawn(c->floats);
    c->out = drawn(c->floats);
    c->dout = drawn(c->floats);
    c->dq = drawn(c->floats);
    c->dk = drawn(c->floats);
    c->dv = drawn(c->floats);
    return c->q && c->k && c->v && c->out && c->dout && c->dq && c->dk && c->dv;
}

static void case_fini(struct attention_case *c)
{
    float *all[] = {c->q, c->k, c->v, c->out, c->dout, c->dq, c->dk, c->dv};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
}

/* Column block of one head of one sequence, as doubles (len,width). */
static void gather(const struct attention_case *c, const float *x, size_t s, size_t h, double *out)
{
    for (size_t t = 0; t < c->lens[s]; t++) {
        for (size_t i = 0; i < c->width; i++) {
            out[t * c->width + i] = x[(c->offsets[s] + t) * c->width * HEADS + h * c->width + i];
        }
    }
}

/* Σ dout·attention(q,k,v) of one head, in double. */
static double head_value(const double *qkv[3], const double *dout, size_t len, size_t width)
{
    static double scores[MAX_N], out[64 * 64];
    double sum = 0;
    naive_attention(qkv[0], qkv[1], qkv[2], len, width, scores, out);
    for (size_t i = 0; i < len * width; i++) {
        sum += out[i] * dout[i];
    }
    return sum;
}

static void check_head(const struct attention_case *c, size_t s, size_t h)
{
    static double q[64 * 64], k[64 * 64], v[64 * 64], dout[64 * 64], got[64 * 64], want[64 * 64];
    static double scores[MAX_N];
    size_t len = c->lens[s], n = len * c->width;
    gather(c, c->q, s, h, q);
    gather(c, c->k, s, h, k);
    gather(c, c->v, s, h, v);
    gather(c, c->dout, s, h, dout);
    gather(c, c->out, s, h, got);
    naive_attention(q, k, v, len, c->width, scores, want);
    double error = 0;
    for (size_t i = 0; i < n; i++) {
        error = fmax(error, fabs(got[i] - want[i]));
    }
    CHECK_NEAR(error, 0, 3e-6);
    double *inputs[3] = {q, k, v};
    const double *held[3] = {q, k, v};
    const float *gradients[3] = {c->dq, c->dk, c->dv};
    for (size_t g = 0; g < 3; g++) {
        error = 0;
        gather(c, gradients[g], s, h, got);
        for (size_t i = 0; i < n; i += 1 + n / 40) { /* a sample: each costs two forwards */
            double keep = inputs[g][i];
            inputs[g][i] = keep + STEP;
            double up = head_value(held, dout, len, c->width);
            inputs[g][i] = keep - STEP;
            double down = head_value(held, dout, len, c->width);
            inputs[g][i] = keep;
            error = fmax(error, fabs(got[i] - (up - down) / (2 * STEP)));
        }
        CHECK_NEAR(error, 0, 2e-5);
    }
}

static void attention_is_right(const char *kernel)
{
    static const size_t cases[][3] = {{1, 2, 8}, {23, 40, 8}, {17, 5, 12}, {33, 64, 64}};
    eng_compute *compute = NULL;
    REQUIRE(eng_compute_start(2, kernel, &compute, NULL) == ENG_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct attention_case c;
        REQUIRE(case_init(&c, cases[i][0], cases[i][1], cases[i][2]));
        size_t stride = c.width * HEADS;
        struct attention attention = {.n = 2,
                                      .offsets = c.offsets,
                                      .heads = HEADS,
                                      .width = c.width,
                                      .q = c.q,
                                      .k = c.k,
                                      .v = c.v,
                                      .stride = stride,
                                      .out = c.out,
                                      .out_stride = stride};
        compute_turn_take(compute, ENG_SERVING);
        attention_forward(compute, &attention);
        attention.dout = c.dout;
        attention.dq = c.dq;
        attention.dk = c.dk;
        attention.dv = c.dv;
        attention_backward(compute, &attention);
        compute_turn_give(compute);
        for (size_t s = 0; s < 2; s++) {
            for (size_t h = 0; h < HEADS; h++) {
                check_head(&c, s, h);
            }
        }
        case_fini(&c);
    }
    eng_compute_stop(compute);
}

/* A sequence so long that its queries go in several blocks: forward and gradients must equal what
 * one row at a time gives. */
static void long_attention(void)
{
    enum { LEN = 400, WIDTH = 8 };
    eng_compute *compute = NULL;
    struct attention_case c;
    static double q[LEN * WIDTH], k[LEN * WIDTH], v[LEN * WIDTH], dout[LEN * WIDTH];
    static double scores[LEN], out[LEN * WIDTH], dv[LEN * WIDTH];
    REQUIRE(eng_compute_start(2, NULL, &compute, NULL) == ENG_OK && case_init(&c, LEN, 1, WIDTH));
    size_t stride = WIDTH * HEADS;
    struct attention attention = {.n = 2,
                                  .offsets = c.offsets,
                                  .heads = HEADS,
                                  .width = WIDTH,
                                  .q = c.q,
                                  .k = c.k,
                                  .v = c.v,
                                  .stride = stride,
                                  .out = c.out,
                                  .out_stride = stride};
    compute_turn_take(compute, ENG_SERVING);
    attention_forward(compute, &attention);
    attention.dout = c.dout;
    attention.dq = c.dq;
    attention.dk = c.dk;
    attention.dv = c.dv;
    attention_backward(compute, &attention);
    compute_turn_give(compute);
    gather(&c, c.q, 0, 1, q);
    gather(&c, c.k, 0, 1, k);
    gather(&c, c.v, 0, 1, v);
    gather(&c, c.dout, 0, 1, dout);
    naive_attention(q, k, v, LEN, WIDTH, scores, out);
    memset(dv, 0, sizeof dv);
    for (size_t i = 0; i < LEN; i++) { /* dv = Pᵀ·dout */
        naive_linear(q + i * WIDTH, k, NULL, 1, WIDTH, LEN, scores);
        naive_softmax(scores, 1 / sqrt((double)WIDTH), LEN, scores);
        for (size_t j = 0; j < LEN * WIDTH; j++) {
            dv[j] += scores[j / WIDTH] * dout[i * WIDTH + j % WIDTH];
        }
    }
    double error = 0, error_dv = 0;
    gather(&c, c.out, 0, 1, q);
    gather(&c, c.dv, 0, 1, k);
    for (size_t i = 0; i < LEN * WIDTH; i++) {
        error = fmax(error, fabs(q[i] - out[i]));
        error_dv = fmax(error_dv, fabs(k[i] - dv[i]));
    }
    CHECK_NEAR(error, 0, 3e-6);
    CHECK_NEAR(error_dv, 0, 2e-5);
    case_fini(&c);
    eng_compute_stop(compute);
}

/* ---- linear: backward as the products of encoder_backward.c ---- */

static void linear_backward(const char *kernel)
{
    enum { N = 9, I = 21, O = 18 };
    static float x[N * I], w[O * I], dy[N * O], dx[N * I], dw[O * I];
    static double wx[N * I], ww[O * I], y[N * O];
    eng_compute *compute = NULL;
    REQUIRE(eng_compute_start(2, kernel, &compute, NULL) == ENG_OK);
    draw_floats(x, N * I, 1);
    draw_floats(w, O * I, 1);
    draw_floats(dy, N * O, 1);
    memset(dw, 0, sizeof dw);
    struct gemm_product products[2] = {
        {.m = N, .n = I, .k = O, .a = dy, .lda = O, .b = w, .ldb = I, .c = dx, .ldc = I},
        {.m = O,
         .n = I,
         .k = N,
         .a = dy,
         .lda = O,
         .a_transposed = true,
         .b = x,
         .ldb = I,
         .c = dw,
         .ldc = I,
         .add = true}};
    compute_turn_take(compute, ENG_SERVING);
    gemm_run(compute, products, 2);
    compute_turn_give(compute);
    widen(x, N * I, wx);
    widen(w, O * I, ww);
    for (size_t i = 0; i < N * I + O * I; i++) {
        double *at = i < N * I ? &wx[i] : &ww[i - N * I], keep = *at, slope = 0;
        for (int side = -1; side <= 1; side += 2) {
            *at = keep + side * STEP;
            naive_linear(wx, ww, NULL, N, I, O, y);
            for (size_t j = 0; j < N * O; j++) {
                slope += side * y[j] * dy[j] / (2 * STEP);
            }
        }
        *at = keep;
        CHECK_NEAR(i < N * I ? dx[i] : dw[i - N * I], slope, 1e-5);
    }
    eng_compute_stop(compute);
}

/* ---- both forms ---- */

/* With every kernel this processor has. */
static void all_forms(void)
{
    for (enum simd simd = SIMD_NONE; simd <= gemm_cpu(); simd++) {
        gelu_is_right(simd);
        layernorm_is_right(simd);
        softmax_is_right(simd);
        cross_entropy_of_words(simd);
        dots_are_right(simd);
        attention_is_right(gemm_kernel_name(simd));
        linear_backward(gemm_kernel_name(simd));
    }
}

int main(void)
{
    TESTS_BEGIN;
    rng_seed(&rng, 3);
    RUN(all_forms);
    RUN(gelu_error);
    RUN(column_sums_are_right);
    RUN(softmax_far_out);
    RUN(cross_entropy_is_right);
    RUN(long_attention);
    TESTS_END;
}
