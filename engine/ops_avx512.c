/* ops_avx512.c: the vector form of every operation for AVX-512, sixteen floats at a time; the same
 * formulas as ops_avx2.c. Mathematics and contracts are in ops.h.
 *
 * Compiled for AVX-512 by attribute; used only if gemm_cpu() says so. The end of a row is a masked step,
 * whose missing lanes count as zero. Sums are kept in sixteen lanes (or twice sixteen) and folded in
 * one fixed order.
 */
#include "engine/ops.h"

#if defined(__x86_64__)

#include <float.h>
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma")))
#define INLINE AVX512 static inline __attribute__((always_inline))

/* Lanes 0 … n-1, all of them when n ≥ 16. */
INLINE __mmask16 lanes(size_t n)
{
    unsigned mask = n >= 16 ? 0xFFFFu : (1u << n) - 1;
    return (__mmask16)mask;
}

/* Missing lanes are 0. */
INLINE __m512 load_part(const float *x, size_t n)
{
    return _mm512_maskz_loadu_ps(lanes(n), x);
}

INLINE void store_part(float *x, size_t n, __m512 value)
{
    _mm512_mask_storeu_ps(x, lanes(n), value);
}

/* `value` in the first n lanes, `other` in the rest. */
INLINE __m512 keep_part(__m512 value, __m512 other, size_t n)
{
    return _mm512_mask_blend_ps(lanes(n), other, value);
}

INLINE float fold_add(__m512 v)
{
    return _mm512_reduce_add_ps(v);
}

INLINE float fold_max(__m512 v)
{
    return _mm512_reduce_max_ps(v);
}

/* exp: 2^n times a polynomial on [-ln2/2, ln2/2] (Cephes' coefficients); relative error < 3e-7.
 * Arguments are held to [-87.3, 88.3]. */
INLINE __m512 exp16(__m512 x)
{
    x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.3f)), _mm512_set1_ps(88.3f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    x = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    x = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), x);
    __m512 y = _mm512_set1_ps(1.9875691500e-4f);
    y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(1.3981999507e-3f));
    y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(8.3334519073e-3f));
    y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(4.1665795894e-2f));
    y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(1.6666665459e-1f));
    y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(5.0000001201e-1f));
    y = _mm512_fmadd_ps(y, _mm512_mul_ps(x, x), _mm512_add_ps(x, _mm512_set1_ps(1)));
    __m512i power =
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
    return _mm512_mul_ps(y, _mm512_castsi512_ps(power));
}

/* erf (N. Juffa's coefficients): near 0 an odd polynomial, from 0.9277 on 1 - exp(polynomial). Within
 * one unit in the last place of 1 everywhere; ±1 from about ±4 on. */
INLINE __m512 erf16(__m512 x)
{
    const __m512 sign = _mm512_set1_ps(-0.0f);
    __m512 t = _mm512_andnot_ps(sign, x), s = _mm512_mul_ps(x, x);
    __m512 near = _mm512_set1_ps(-5.96761703e-4f);
    near = _mm512_fmadd_ps(near, s, _mm512_set1_ps(4.99119423e-3f));
    near = _mm512_fmadd_ps(near, s, _mm512_set1_ps(-2.67681349e-2f));
    near = _mm512_fmadd_ps(near, s, _mm512_set1_ps(1.12819925e-1f));
    near = _mm512_fmadd_ps(near, s, _mm512_set1_ps(-3.76125336e-1f));
    near = _mm512_fmadd_ps(near, s, _mm512_set1_ps(1.28379166e-1f));
    near = _mm512_fmadd_ps(near, x, x);
    t = _mm512_min_ps(_mm512_set1_ps(4.5f), t); /* in this order a NaN stays one */
    s = _mm512_mul_ps(t, t);
    __m512 far =
        _mm512_fmadd_ps(_mm512_set1_ps(-1.72853470e-5f), t, _mm512_set1_ps(3.83197126e-4f));
    __m512 u = _mm512_fmadd_ps(_mm512_set1_ps(-3.88396438e-3f), t, _mm512_set1_ps(2.42546219e-2f));
    far = _mm512_fmadd_ps(far, s, u);
    far = _mm512_fmadd_ps(far, t, _mm512_set1_ps(-1.06777877e-1f));
    far = _mm512_fmadd_ps(far, t, _mm512_set1_ps(-6.34846687e-1f));
    far = _mm512_fmadd_ps(far, t, _mm512_set1_ps(-1.28717512e-1f));
    far = _mm512_fmsub_ps(far, t, t);
    far = _mm512_sub_ps(_mm512_set1_ps(1), exp16(far));
    far = _mm512_or_ps(far, _mm512_and_ps(sign, x));
    __mmask16 is_far = _mm512_cmp_ps_mask(t, _mm512_set1_ps(0.927734375f), _CMP_GT_OQ);
    return _mm512_mask_blend_ps(is_far, near, far);
}

/* ½ (1 + erf(x/√2)) */
INLINE __m512 normal_cdf16(__m512 x)
{
    __m512 e = erf16(_mm512_mul_ps(x, _mm512_set1_ps(0.70710678f)));
    return _mm512_fmadd_ps(e, _mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f));
}

AVX512 static void gelu(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __m512 v = load_part(x + i, n - i);
        store_part(y + i, n - i, _mm512_mul_ps(v, normal_cdf16(v)));
    }
}

AVX512 static void gelu_backward(const float *x, float *d, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __m512 v = load_part(x + i, n - i);
        __m512 e = exp16(_mm512_mul_ps(_mm512_mul_ps(v, v), _mm512_set1_ps(-0.5f)));
        __m512 density = _mm512_mul_ps(e, _mm512_set1_ps(0.39894228f));
        __m512 slope = _mm512_fmadd_ps(v, density, normal_cdf16(v));
        store_part(d + i, n - i, _mm512_mul_ps(slope, load_part(d + i, n - i)));
    }
}

/* Two passes over a row that stays in the first-level cache: the variance of differences from the
 * mean does not cancel. */
AVX512 static void layernorm(const float *x, const float *r, const struct layernorm *norm,
                             float epsilon, size_t H, float *y, float *xhat, float *rstd)
{
    __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (size_t i = 0; i < H; i += 16) {
        __m512 s = load_part(x + i, H - i);
        if (r != NULL) {
            s = _mm512_add_ps(s, load_part(r + i, H - i));
        }
        store_part(y + i, H - i, s);
        sums[i / 16 % 2] = _mm512_add_ps(sums[i / 16 % 2], s);
    }
    __m512 mean = _mm512_set1_ps(fold_add(_mm512_add_ps(sums[0], sums[1])) / (float)H);
    sums[0] = sums[1] = _mm512_setzero_ps();
    for (size_t i = 0; i < H; i += 16) {
        __m512 d = _mm512_sub_ps(load_part(y + i, H - i), mean);
        d = keep_part(d, _mm512_setzero_ps(), H - i);
        sums[i / 16 % 2] = _mm512_fmadd_ps(d, d, sums[i / 16 % 2]);
    }
    float variance = fold_add(_mm512_add_ps(sums[0], sums[1])) / (float)H;
    float scale = 1 / __builtin_sqrtf(variance + epsilon);
    for (size_t i = 0; i < H; i += 16) {
        __m512 d = _mm512_sub_ps(load_part(y + i, H - i), mean);
        __m512 hat = _mm512_mul_ps(d, _mm512_set1_ps(scale));
        if (xhat != NULL) {
            store_part(xhat + i, H - i, hat);
        }
        __m512 w = load_part(norm->w + i, H - i), b = load_part(norm->b + i, H - i);
        store_part(y + i, H - i, _mm512_fmadd_ps(hat, w, b));
    }
    if (rstd != NULL) {
        *rstd = scale;
    }
}

AVX512 static void layernorm_backward(const float *dy, const float *xhat, float rstd,
                                      const float *w, size_t H, float *dx)
{
    __m512 sum = _mm512_setzero_ps(), along = _mm512_setzero_ps();
    for (size_t i = 0; i < H; i += 16) {
        __m512 g = _mm512_mul_ps(load_part(dy + i, H - i), load_part(w + i, H - i));
        sum = _mm512_add_ps(sum, g);
        along = _mm512_fmadd_ps(g, load_part(xhat + i, H - i), along);
    }
    __m512 mean = _mm512_set1_ps(fold_add(sum) / (float)H);
    __m512 mean_along = _mm512_set1_ps(fold_add(along) / (float)H);
    for (size_t i = 0; i < H; i += 16) {
        __m512 g = _mm512_mul_ps(load_part(dy + i, H - i), load_part(w + i, H - i));
        g = _mm512_sub_ps(g, mean);
        g = _mm512_fnmadd_ps(load_part(xhat + i, H - i), mean_along, g);
        store_part(dx + i, H - i, _mm512_mul_ps(g, _mm512_set1_ps(rstd)));
    }
}

INLINE float largest(const float *x, size_t n)
{
    const __m512 lowest = _mm512_set1_ps(-FLT_MAX);
    __m512 max = lowest;
    for (size_t i = 0; i < n; i += 16) {
        max = _mm512_max_ps(max, keep_part(load_part(x + i, n - i), lowest, n - i));
    }
    return fold_max(max);
}

AVX512 static void softmax(float *x, size_t n, float scale)
{
    const __m512 max = _mm512_set1_ps(largest(x, n));
    __m512 sum = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        __m512 d = _mm512_sub_ps(load_part(x + i, n - i), max);
        __m512 e = exp16(_mm512_mul_ps(d, _mm512_set1_ps(scale)));
        e = keep_part(e, _mm512_setzero_ps(), n - i);
        store_part(x + i, n - i, e);
        sum = _mm512_add_ps(sum, e);
    }
    __m512 inverse = _mm512_set1_ps(1 / fold_add(sum));
    for (size_t i = 0; i < n; i += 16) {
        store_part(x + i, n - i, _mm512_mul_ps(load_part(x + i, n - i), inverse));
    }
}

AVX512 static void softmax_backward(const float *p, float *d, size_t n, float scale)
{
    __m512 sum = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        sum = _mm512_fmadd_ps(load_part(p + i, n - i), load_part(d + i, n - i), sum);
    }
    __m512 along = _mm512_set1_ps(fold_add(sum));
    for (size_t i = 0; i < n; i += 16) {
        __m512 ps = _mm512_mul_ps(load_part(p + i, n - i), _mm512_set1_ps(scale));
        __m512 difference = _mm512_sub_ps(load_part(d + i, n - i), along);
        store_part(d + i, n - i, _mm512_mul_ps(ps, difference));
    }
}

/* The lower eight plus the upper eight. */
INLINE __m512d halves_in_double(__m512 v)
{
    return _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(v)),
                         _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)));
}

AVX512 static double exp_sum(const float *x, size_t n, float *max, float *y)
{
    *max = largest(x, n);
    const __m512 most = _mm512_set1_ps(*max);
    __m512d sum = _mm512_setzero_pd();
    for (size_t i = 0; i < n; i += 16) {
        __m512 e = exp16(_mm512_sub_ps(load_part(x + i, n - i), most));
        e = keep_part(e, _mm512_setzero_ps(), n - i);
        if (y != NULL) {
            store_part(y + i, n - i, e);
        }
        sum = _mm512_add_pd(sum, halves_in_double(e));
    }
    return _mm512_reduce_add_pd(sum);
}

AVX512 static void add_scaled(const float *x, float scale, float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __m512 sum = _mm512_fmadd_ps(load_part(x + i, n - i), _mm512_set1_ps(scale),
                                     load_part(y + i, n - i));
        store_part(y + i, n - i, sum);
    }
}

AVX512 static float dot(const float *x, const float *y, size_t n)
{
    __m512 sum = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        sum = _mm512_fmadd_ps(load_part(x + i, n - i), load_part(y + i, n - i), sum);
    }
    return fold_add(sum);
}

const struct ops_vector ops_avx512 = {gelu,    gelu_backward,    layernorm, layernorm_backward,
                                      softmax, softmax_backward, exp_sum,   add_scaled,
                                      dot};

#else

const struct ops_vector ops_avx512 = {0}; /* gemm_cpu() never answers with it */

#endif
