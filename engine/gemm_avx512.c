/* gemm_avx512.c: the 8x48 inner kernel of AVX-512, twenty-four accumulators of sixteen floats.
 *
 * Thirty-two vector registers: 24 sums, 3 for a row of three neighbouring panels, 1 for a broadcast
 * element of A. Each step over k reads 3 vectors of B and 8 scalars of A and does 24 multiply-adds.
 * Measured on Ice Lake: 99 % of the peak, where 12x32, with the same number of sums but 14 loads a
 * step, stops at 85 %. The packed weights are those of AVX2 (a panel is one vector wide here), and so
 * is every chain of multiply-adds: the two kernels give the same bits.
 *
 * Fewer rows and fewer panels are the same code with parts left out.
 */
#include "engine/gemm.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <time.h>

#define AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma")))
#define INLINE AVX512 static inline __attribute__((always_inline))

/* Macros only so that the names are written once; `rows` and `wide` are constants where they expand.
 * Row i of A is read through one of three pointers, three rows each: base, base + lda and base + 2 lda
 * are one addressing mode, and eight pointers leave too few registers. */
#define ROW_START(i)                                                                               \
    const float *init##i = s->init + (rows > (i) ? (i) : 0) * s->ldinit;                           \
    __m512 x##i = _mm512_loadu_ps(init##i), y##i = x##i, z##i = x##i;                              \
    if (wide > 1) {                                                                                \
        y##i = _mm512_loadu_ps(init##i + 16);                                                      \
    }                                                                                              \
    if (wide > 2) {                                                                                \
        z##i = _mm512_loadu_ps(init##i + 32);                                                      \
    }
#define ROW_STEP(i, a)                                                                             \
    if (rows > (i)) {                                                                              \
        __m512 element = _mm512_set1_ps(a);                                                        \
        x##i = _mm512_fmadd_ps(element, b_x, x##i);                                                \
        y##i = wide > 1 ? _mm512_fmadd_ps(element, b_y, y##i) : y##i;                              \
        z##i = wide > 2 ? _mm512_fmadd_ps(element, b_z, z##i) : z##i;                              \
    }
#define ROW_END(i)                                                                                 \
    if (rows > (i)) {                                                                              \
        _mm512_storeu_ps(s->c + (i)*s->ldc, x##i);                                                 \
        if (wide > 1) {                                                                            \
            _mm512_storeu_ps(s->c + (i)*s->ldc + 16, y##i);                                        \
        }                                                                                          \
        if (wide > 2) {                                                                            \
            _mm512_storeu_ps(s->c + (i)*s->ldc + 32, z##i);                                        \
        }                                                                                          \
    }
#define STEP(p)                                                                                    \
    {                                                                                              \
        __m512 b_x = _mm512_load_ps(panel + (p)*16);                                               \
        __m512 b_y = wide > 1 ? _mm512_load_ps(panel + stride + (p)*16) : b_x;                     \
        __m512 b_z = wide > 2 ? _mm512_load_ps(panel + 2 * stride + (p)*16) : b_x;                 \
        ROW_STEP(0, first[p])                                                                      \
        ROW_STEP(1, first[lda + (p)])                                                              \
        ROW_STEP(2, first[2 * lda + (p)])                                                          \
        ROW_STEP(3, second[p])                                                                     \
        ROW_STEP(4, second[lda + (p)])                                                             \
        ROW_STEP(5, second[2 * lda + (p)])                                                         \
        ROW_STEP(6, third[p])                                                                      \
        ROW_STEP(7, third[lda + (p)])                                                              \
    }

INLINE void kernel(const size_t rows, const size_t wide, const struct gemm_step *s)
{
    const size_t lda = s->lda, stride = s->panel_stride, k = s->k;
    const float *panel = s->panel, *first = s->a;
    const float *second = s->a + (rows > 3 ? 3 : 0) * lda, *third = s->a + (rows > 6 ? 6 : 0) * lda;
    /* hides that the three are related, or the compiler makes them eight again */
    __asm__("" : "+r"(first), "+r"(second), "+r"(third));
    ROW_START(0)
    ROW_START(1)
    ROW_START(2)
    ROW_START(3)
    ROW_START(4)
    ROW_START(5)
    ROW_START(6)
    ROW_START(7)
    const unsigned char *ahead = s->ahead, *const ahead_end = s->ahead_end;
    const size_t ahead_stride = s->ahead_stride;
    size_t p = 0;
    for (; p + 4 <= k; p += 4) { /* the loop's own additions compete for the multiply-add ports */
        if (wide == 3 && ahead < ahead_end) {
            __builtin_prefetch(ahead, 0, 2);
            __builtin_prefetch(ahead + ahead_stride, 0, 2);
            __builtin_prefetch(ahead + 2 * ahead_stride, 0, 2);
            ahead += 64;
        }
        STEP(0)
        STEP(1)
        STEP(2)
        STEP(3)
        panel += 64;
        first += 4;
        second += 4;
        third += 4;
    }
    for (; p < k; p++) {
        STEP(0)
        panel += 16;
        first++;
        second++;
        third++;
    }
    ROW_END(0)
    ROW_END(1)
    ROW_END(2)
    ROW_END(3)
    ROW_END(4)
    ROW_END(5)
    ROW_END(6)
    ROW_END(7)
}

#define ROWS(n)                                                                                    \
    case n:                                                                                        \
        if (s->panels == 3) {                                                                      \
            kernel(n, 3, s);                                                                       \
        } else if (s->panels == 2) {                                                               \
            kernel(n, 2, s);                                                                       \
        } else {                                                                                   \
            kernel(n, 1, s);                                                                       \
        }                                                                                          \
        break;

AVX512 void gemm_step_avx512(const struct gemm_step *s)
{
    switch (s->rows) {
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
        ROWS(5)
        ROWS(6)
        ROWS(7)
        ROWS(8)
    default:
        break;
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* 64 steps of twelve independent chains in registers; see gemm_avx2.c. */
AVX512 static void multiply_add_only(float *out)
{
    __m512 x = _mm512_setzero_ps(), sums[12];
    for (size_t i = 0; i < 12; i++) {
        sums[i] = x;
    }
    for (size_t p = 0; p < 64; p++) {
#define PEAK_STEP(i)                                                                               \
    sums[i] = _mm512_fmadd_ps(x, x, sums[i]);                                                      \
    __asm__ volatile("" : "+v"(sums[i]))
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
    }
    for (size_t i = 1; i < 12; i++) {
        sums[0] = _mm512_add_ps(sums[0], sums[i]);
    }
    _mm512_storeu_ps(out, sums[0]);
}

AVX512 double gemm_peak_avx512(double seconds)
{
    float out[16];
    double best = 0, end = now() + seconds;
    do {
        const size_t repeats = 2000;
        double start = now();
        for (size_t i = 0; i < repeats; i++) {
            multiply_add_only(out);
            __asm__ volatile("" : : "r"(out) : "memory");
        }
        double rate = 2.0 * 16 * 12 * 64 * (double)repeats / (now() - start) * 1e-9;
        best = rate > best ? rate : best;
    } while (now() < end);
    return best;
}

#else

void gemm_step_avx512(const struct gemm_step *step)
{
    (void)step;
}

double gemm_peak_avx512(double seconds)
{
    (void)seconds;
    return 0;
}

#endif
