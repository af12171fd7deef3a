/* gemm_avx2.c: the 6x16 inner kernel, twelve accumulators of eight floats.
 *
 * Sixteen vector registers: 12 sums, 2 for a row of the panel, 1 for a broadcast element of A. Each
 * step over k reads 2 vectors of B and 6 scalars of A and does 12 multiply-adds, so the multiply-add
 * units, two a cycle, are the limit and not the loads. The sums are named variables because gcc
 * spills arrays of them. Compiled for AVX2 by attribute: the rest of the program stays portable, and
 * callers ask gemm_cpu_capable() first.
 *
 * Four steps stand side by side, so that asking ahead and counting cost little, and they are kept in order:
 * mixed by the compiler they want more registers than there are, which costs a tenth.
 *
 * Row counts 1 … 6 are the same code with rows left out, so a row's sums never depend on which.
 */
#include "engine/gemm_tile.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <time.h>

#define AVX2 __attribute__((target("avx2,fma")))

/* Macros only so that the twelve names are written once; `rows` is a constant where they expand.
 * Rows 0 … 2 and 3 … 5 of A are read through a pointer each: base, base + lda and base + 2 lda are one
 * addressing mode. */
#define ROW_START(i)                                                                               \
    const float *init##i = s->init + (rows > (i) ? (i) : 0) * s->ldinit;                           \
    __m256 low##i = _mm256_loadu_ps(init##i), high##i = _mm256_loadu_ps(init##i + 8);
#define ROW_STEP(i, a)                                                                             \
    if (rows > (i)) {                                                                              \
        __m256 x = _mm256_broadcast_ss(a);                                                         \
        low##i = _mm256_fmadd_ps(x, b_low, low##i);                                                \
        high##i = _mm256_fmadd_ps(x, b_high, high##i);                                             \
    }
#define ROW_END(i)                                                                                 \
    if (rows > (i)) {                                                                              \
        _mm256_storeu_ps(s->c + (i)*s->ldc, low##i);                                               \
        _mm256_storeu_ps(s->c + (i)*s->ldc + 8, high##i);                                          \
    }
/* Nothing is moved across: the sums and pointers may have changed here. */
#define IN_ORDER                                                                                   \
    __asm__(""                                                                                     \
            : "+x"(low0), "+x"(low1), "+x"(low2), "+x"(low3), "+x"(low4), "+x"(low5), "+x"(high0), \
              "+x"(high1), "+x"(high2), "+x"(high3), "+x"(high4), "+x"(high5), "+r"(panel),        \
              "+r"(first), "+r"(second));
#define STEP(p)                                                                                    \
    {                                                                                              \
        __m256 b_low = _mm256_load_ps(panel + (p)*16);                                             \
        __m256 b_high = _mm256_load_ps(panel + (p)*16 + 8);                                        \
        ROW_STEP(0, first + (p))                                                                   \
        ROW_STEP(1, first + lda + (p))                                                             \
        ROW_STEP(2, first + 2 * lda + (p))                                                         \
        ROW_STEP(3, second + (p))                                                                  \
        ROW_STEP(4, second + lda + (p))                                                            \
        ROW_STEP(5, second + 2 * lda + (p))                                                        \
        IN_ORDER                                                                                   \
    }

/* One chain of multiply-adds per element. */
AVX2 static inline __attribute__((always_inline)) void kernel(const size_t rows,
                                                              const struct gemm_step *s)
{
    const size_t lda = s->lda, k = s->k;
    const float *panel = s->panel, *first = s->a, *second = s->a + (rows > 3 ? 3 : 0) * lda;
    /* hides that the two are related, or the compiler makes them six */
    __asm__("" : "+r"(first), "+r"(second));
    ROW_START(0)
    ROW_START(1)
    ROW_START(2)
    ROW_START(3)
    ROW_START(4)
    ROW_START(5)
    const unsigned char *ahead = s->ahead, *const ahead_end = s->ahead_end;
    size_t p = 0;
    for (; p + 4 <= k; p += 4) {
        if (ahead < ahead_end) {
            __builtin_prefetch(ahead, 0, 2);
            __builtin_prefetch(ahead + 64, 0, 2);
            ahead += 128;
        }
        STEP(0)
        STEP(1)
        STEP(2)
        STEP(3)
        panel += 64;
        first += 4;
        second += 4;
    }
    for (; p < k; p++) {
        STEP(0)
        panel += 16;
        first++;
        second++;
    }
    ROW_END(0)
    ROW_END(1)
    ROW_END(2)
    ROW_END(3)
    ROW_END(4)
    ROW_END(5)
}

AVX2 void gemm_step_avx2(const struct gemm_step *s)
{
    switch (s->rows) {
    case 6:
        kernel(6, s);
        break;
    case 5:
        kernel(5, s);
        break;
    case 4:
        kernel(4, s);
        break;
    case 3:
        kernel(3, s);
        break;
    case 2:
        kernel(2, s);
        break;
    case 1:
        kernel(1, s);
        break;
    default:
        break;
    }
}

/* to[c*ldto + r] = from[r*ldfrom + c] for 8 x 8: pairs, then quads, then halves change places. */
AVX2 static inline __attribute__((always_inline)) void
transpose_8x8(const float *from, size_t ldfrom, float *to, size_t ldto)
{
    __m256 row[8], pair[8];
    for (size_t i = 0; i < 8; i++) {
        row[i] = _mm256_loadu_ps(from + i * ldfrom);
    }
    for (size_t i = 0; i < 8; i += 2) {
        pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    for (size_t i = 0; i < 8; i += 4) {
        row[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
        row[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xEE);
        row[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
        row[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xEE);
    }
    for (size_t i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * ldto, _mm256_permute2f128_ps(row[i], row[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * ldto, _mm256_permute2f128_ps(row[i], row[i + 4], 0x31));
    }
}

AVX2 void gemm_transpose(const float *from, size_t ldfrom, size_t rows, size_t columns, float *to,
                         size_t ldto)
{
    size_t whole_rows = rows / 8 * 8, whole_columns = columns / 8 * 8;
    for (size_t r = 0; r < whole_rows; r += 8) {
        for (size_t c = 0; c < whole_columns; c += 8) {
            transpose_8x8(from + r * ldfrom + c, ldfrom, to + c * ldto + r, ldto);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = r < whole_rows ? whole_columns : 0; c < columns; c++) {
            to[c * ldto + r] = from[r * ldfrom + c];
        }
    }
}

__attribute__((target("avx2,f16c"))) void gemm_widen(const uint16_t *src, float *dst, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m128i half = _mm_loadu_si128((const __m128i *)(const void *)(src + i));
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(half));
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

#define PEAK_STEP(i) sum##i = _mm256_fmadd_ps(x, x, sum##i)

/* 64 steps of twelve independent chains in registers. */
AVX2 static void multiply_add_only(float *out)
{
    __m256 x = _mm256_setzero_ps();
    __m256 sum0 = x, sum1 = x, sum2 = x, sum3 = x, sum4 = x, sum5 = x;
    __m256 sum6 = x, sum7 = x, sum8 = x, sum9 = x, sum10 = x, sum11 = x;
    /* hides from the compiler that all sums are equal, and that x is 0 */
    __asm__ volatile("" : "+x"(sum0), "+x"(sum1), "+x"(sum2), "+x"(sum3), "+x"(sum4), "+x"(sum5));
    __asm__ volatile("" : "+x"(sum6), "+x"(sum7), "+x"(sum8), "+x"(sum9), "+x"(sum10), "+x"(sum11));
    for (size_t p = 0; p < 64; p++) {
        PEAK_STEP(0);
        PEAK_STEP(1);
        PEAK_STEP(2);
        PEAK_STEP(3);
        PEAK_STEP(4);
        PEAK_STEP(5);
        PEAK_STEP(6);
        PEAK_STEP(7);
        PEAK_STEP(8);
        PEAK_STEP(9);
        PEAK_STEP(10);
        PEAK_STEP(11);
        __asm__ volatile("" : "+x"(x));
    }
    __m256 sum = sum0 + sum1 + sum2 + sum3 + sum4 + sum5;
    _mm256_storeu_ps(out, sum + sum6 + sum7 + sum8 + sum9 + sum10 + sum11);
}

AVX2 double gemm_peak_avx2(double seconds)
{
    float out[8];
    double best = 0, end = now() + seconds;
    do {
        const size_t repeats = 2000;
        double start = now();
        for (size_t i = 0; i < repeats; i++) {
            multiply_add_only(out);
            __asm__ volatile("" : : "r"(out) : "memory");
        }
        double rate = 2.0 * 8 * 12 * 64 * (double)repeats / (now() - start) * 1e-9;
        best = rate > best ? rate : best;
    } while (now() < end);
    return best;
}

#else

void gemm_step_avx2(const struct gemm_step *step)
{
    (void)step;
}

void gemm_transpose(const float *from, size_t ldfrom, size_t rows, size_t columns, float *to,
                    size_t ldto)
{
    (void)from;
    (void)ldfrom;
    (void)rows;
    (void)columns;
    (void)to;
    (void)ldto;
}

void gemm_widen(const uint16_t *src, float *dst, size_t n)
{
    (void)src;
    (void)dst;
    (void)n;
}

double gemm_peak_avx2(double seconds)
{
    (void)seconds;
    return 0;
}

#endif
