/* ops_avx2.c: the vector form of every operation. Mathematics and contracts are in ops.h.
 *
 * Compiled for AVX2 and FMA by attribute; callers have asked gemm_cpu_capable(). Rows whose length is
 * no multiple of eight end in one masked step, whose missing lanes count as zero. Sums are kept in
 * eight (or sixteen) lanes and folded in one fixed order.
 */
#include "engine/ops.h"

#if defined(__x86_64__)

#include <float.h>
#include <immintrin.h>

#define AVX2   __attribute__((target("avx2,fma")))
#define INLINE AVX2 static inline __attribute__((always_inline))

/* Lanes 0 … n-1 of a masked step, n < 8. */
INLINE __m256i tail_mask(size_t n)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lanes);
}

INLINE __m256 load_part(const float *x, size_t n)
{
    return n >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, tail_mask(n));
}

INLINE void store_part(float *x, size_t n, __m256 value)
{
    if (n >= 8) {
        _mm256_storeu_ps(x, value);
    } else {
        _mm256_maskstore_ps(x, tail_mask(n), value);
    }
}

/* `value` in the first n lanes, `other` in the rest. */
INLINE __m256 keep_part(__m256 value, __m256 other, size_t n)
{
    return n >= 8 ? value : _mm256_blendv_ps(other, value, _mm256_castsi256_ps(tail_mask(n)));
}

INLINE float fold_add(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

INLINE float fold_max(__m256 v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}

/* exp: 2^n times a polynomial on [-ln2/2, ln2/2] (Cephes' coefficients); relative error < 3e-7.
 * Arguments are held to [-87.3, 88.3]. */
INLINE __m256 exp8(__m256 x)
{
    x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-87.3f)), _mm256_set1_ps(88.3f));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    x = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    x = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), x);
    __m256 y = _mm256_set1_ps(1.9875691500e-4f);
    y = _mm256_fmadd_ps(y, x, _mm256_set1_ps(1.3981999507e-3f));
    y = _mm256_fmadd_ps(y, x, _mm256_set1_ps(8.3334519073e-3f));
    y = _mm256_fmadd_ps(y, x, _mm256_set1_ps(4.1665795894e-2f));
    y = _mm256_fmadd_ps(y, x, _mm256_set1_ps(1.6666665459e-1f));
    y = _mm256_fmadd_ps(y, x, _mm256_set1_ps(5.0000001201e-1f));
    y = _mm256_fmadd_ps(y, _mm256_mul_ps(x, x), _mm256_add_ps(x, _mm256_set1_ps(1)));
    __m256i power =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(y, _mm256_castsi256_ps(power));
}

/* erf (N. Juffa's coefficients): near 0 an odd polynomial, from 0.9277 on 1 - exp(polynomial). Within
 * one unit in the last place of 1 everywhere; ±1 from about ±4 on. */
INLINE __m256 erf8(__m256 x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 t = _mm256_andnot_ps(sign, x), s = _mm256_mul_ps(x, x);
    __m256 near = _mm256_set1_ps(-5.96761703e-4f);
    near = _mm256_fmadd_ps(near, s, _mm256_set1_ps(4.99119423e-3f));
    near = _mm256_fmadd_ps(near, s, _mm256_set1_ps(-2.67681349e-2f));
    near = _mm256_fmadd_ps(near, s, _mm256_set1_ps(1.12819925e-1f));
    near = _mm256_fmadd_ps(near, s, _mm256_set1_ps(-3.76125336e-1f));
    near = _mm256_fmadd_ps(near, s, _mm256_set1_ps(1.28379166e-1f));
    near = _mm256_fmadd_ps(near, x, x);
    t = _mm256_min_ps(_mm256_set1_ps(4.5f), t); /* in this order a NaN stays one */
    s = _mm256_mul_ps(t, t);
    __m256 far =
        _mm256_fmadd_ps(_mm256_set1_ps(-1.72853470e-5f), t, _mm256_set1_ps(3.83197126e-4f));
    __m256 u = _mm256_fmadd_ps(_mm256_set1_ps(-3.88396438e-3f), t, _mm256_set1_ps(2.42546219e-2f));
    far = _mm256_fmadd_ps(far, s, u);
    far = _mm256_fmadd_ps(far, t, _mm256_set1_ps(-1.06777877e-1f));
    far = _mm256_fmadd_ps(far, t, _mm256_set1_ps(-6.34846687e-1f));
    far = _mm256_fmadd_ps(far, t, _mm256_set1_ps(-1.28717512e-1f));
    far = _mm256_fmsub_ps(far, t, t);
    far = _mm256_sub_ps(_mm256_set1_ps(1), exp8(far));
    far = _mm256_or_ps(far, _mm256_and_ps(sign, x));
    __m256 is_far = _mm256_cmp_ps(t, _mm256_set1_ps(0.927734375f), _CMP_GT_OQ);
    return _mm256_blendv_ps(near, far, is_far);
}

/* ½ (1 + erf(x/√2)) */
INLINE __m256 normal_cdf8(__m256 x)
{
    __m256 e = erf8(_mm256_mul_ps(x, _mm256_set1_ps(0.70710678f)));
    return _mm256_fmadd_ps(e, _mm256_set1_ps(0.5f), _mm256_set1_ps(0.5f));
}

AVX2 static void gelu(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = load_part(x + i, n - i);
        store_part(y + i, n - i, _mm256_mul_ps(v, normal_cdf8(v)));
    }
}

AVX2 static void gelu_backward(const float *x, float *d, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = load_part(x + i, n - i);
        __m256 e = exp8(_mm256_mul_ps(_mm256_mul_ps(v, v), _mm256_set1_ps(-0.5f)));
        __m256 density = _mm256_mul_ps(e, _mm256_set1_ps(0.39894228f));
        __m256 slope = _mm256_fmadd_ps(v, density, normal_cdf8(v));
        store_part(d + i, n - i, _mm256_mul_ps(slope, load_part(d + i, n - i)));
    }
}

/* Two passes over a row that stays in the first-level cache: the variance of differences from the
 * mean does not cancel. */
AVX2 static void layernorm(const float *x, const float *r, const struct layernorm *norm,
                           float epsilon, size_t H, float *y, float *xhat, float *rstd)
{
    __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t i = 0; i < H; i += 8) {
        __m256 s = load_part(x + i, H - i);
        if (r != NULL) {
            s = _mm256_add_ps(s, load_part(r + i, H - i));
        }
        store_part(y + i, H - i, s);
        sums[i / 8 % 2] = _mm256_add_ps(sums[i / 8 % 2], s);
    }
    __m256 mean = _mm256_set1_ps(fold_add(_mm256_add_ps(sums[0], sums[1])) / (float)H);
    sums[0] = sums[1] = _mm256_setzero_ps();
    for (size_t i = 0; i < H; i += 8) {
        __m256 d = _mm256_sub_ps(load_part(y + i, H - i), mean);
        d = keep_part(d, _mm256_setzero_ps(), H - i);
        sums[i / 8 % 2] = _mm256_fmadd_ps(d, d, sums[i / 8 % 2]);
    }
    float variance = fold_add(_mm256_add_ps(sums[0], sums[1])) / (float)H;
    float scale = 1 / __builtin_sqrtf(variance + epsilon);
    for (size_t i = 0; i < H; i += 8) {
        __m256 d = _mm256_sub_ps(load_part(y + i, H - i), mean);
        __m256 hat = _mm256_mul_ps(d, _mm256_set1_ps(scale));
        if (xhat != NULL) {
            store_part(xhat + i, H - i, hat);
        }
        __m256 w = load_part(norm->w + i, H - i), b = load_part(norm->b + i, H - i);
        store_part(y + i, H - i, _mm256_fmadd_ps(hat, w, b));
    }
    if (rstd != NULL) {
        *rstd = scale;
    }
}

AVX2 static void layernorm_backward(const float *dy, const float *xhat, float rstd, const float *w,
                                    size_t H, float *dx)
{
    __m256 sum = _mm256_setzero_ps(), along = _mm256_setzero_ps();
    for (size_t i = 0; i < H; i += 8) {
        __m256 g = _mm256_mul_ps(load_part(dy + i, H - i), load_part(w + i, H - i));
        sum = _mm256_add_ps(sum, g);
        along = _mm256_fmadd_ps(g, load_part(xhat + i, H - i), along);
    }
    __m256 mean = _mm256_set1_ps(fold_add(sum) / (float)H);
    __m256 mean_along = _mm256_set1_ps(fold_add(along) / (float)H);
    for (size_t i = 0; i < H; i += 8) {
        __m256 g = _mm256_mul_ps(load_part(dy + i, H - i), load_part(w + i, H - i));
        g = _mm256_sub_ps(g, mean);
        g = _mm256_fnmadd_ps(load_part(xhat + i, H - i), mean_along, g);
        store_part(dx + i, H - i, _mm256_mul_ps(g, _mm256_set1_ps(rstd)));
    }
}

INLINE float largest(const float *x, size_t n)
{
    const __m256 lowest = _mm256_set1_ps(-FLT_MAX);
    __m256 max = lowest;
    for (size_t i = 0; i < n; i += 8) {
        max = _mm256_max_ps(max, keep_part(load_part(x + i, n - i), lowest, n - i));
    }
    return fold_max(max);
}

AVX2 static void softmax(float *x, size_t n, float scale)
{
    const __m256 max = _mm256_set1_ps(largest(x, n));
    __m256 sum = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 8) {
        __m256 d = _mm256_sub_ps(load_part(x + i, n - i), max);
        __m256 e = exp8(_mm256_mul_ps(d, _mm256_set1_ps(scale)));
        e = keep_part(e, _mm256_setzero_ps(), n - i);
        store_part(x + i, n - i, e);
        sum = _mm256_add_ps(sum, e);
    }
    __m256 inverse = _mm256_set1_ps(1 / fold_add(sum));
    for (size_t i = 0; i < n; i += 8) {
        store_part(x + i, n - i, _mm256_mul_ps(load_part(x + i, n - i), inverse));
    }
}

AVX2 static void softmax_backward(const float *p, float *d, size_t n, float scale)
{
    __m256 sum = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 8) {
        sum = _mm256_fmadd_ps(load_part(p + i, n - i), load_part(d + i, n - i), sum);
    }
    __m256 along = _mm256_set1_ps(fold_add(sum));
    for (size_t i = 0; i < n; i += 8) {
        __m256 ps = _mm256_mul_ps(load_part(p + i, n - i), _mm256_set1_ps(scale));
        __m256 difference = _mm256_sub_ps(load_part(d + i, n - i), along);
        store_part(d + i, n - i, _mm256_mul_ps(ps, difference));
    }
}

/* The lower four plus the upper four. */
INLINE __m256d halves_in_double(__m256 v)
{
    return _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(v)),
                         _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
}

AVX2 static double exp_sum(const float *x, size_t n, float *max, float *y)
{
    *max = largest(x, n);
    const __m256 most = _mm256_set1_ps(*max);
    __m256d sum = _mm256_setzero_pd();
    for (size_t i = 0; i < n; i += 8) {
        __m256 e = exp8(_mm256_sub_ps(load_part(x + i, n - i), most));
        e = keep_part(e, _mm256_setzero_ps(), n - i);
        if (y != NULL) {
            store_part(y + i, n - i, e);
        }
        sum = _mm256_add_pd(sum, halves_in_double(e));
    }
    double lanes[4];
    _mm256_storeu_pd(lanes, sum);
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

AVX2 static void add_scaled(const float *x, float scale, float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256 sum = _mm256_fmadd_ps(load_part(x + i, n - i), _mm256_set1_ps(scale),
                                     load_part(y + i, n - i));
        store_part(y + i, n - i, sum);
    }
}

AVX2 static float dot(const float *x, const float *y, size_t n)
{
    __m256 sum = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 8) {
        sum = _mm256_fmadd_ps(load_part(x + i, n - i), load_part(y + i, n - i), sum);
    }
    return fold_add(sum);
}

const struct ops_vector ops_avx2 = {gelu,    gelu_backward,    layernorm, layernorm_backward,
                                    softmax, softmax_backward, exp_sum,   add_scaled,
                                    dot};

#else

const struct ops_vector ops_avx2 = {0}; /* gemm_cpu() never answers with it */

#endif
