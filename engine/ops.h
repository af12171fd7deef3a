/* ops.h (private): everything between the matrix products, one row (or a few) at a time.
 *
 * Each operation has vector forms (ops_avx2.c, ops_avx512.c), a portable form (ops.c) and a naive one
 * in double (ops_naive.c) that tests compare with; `simd` chooses, and is compute_simd(). Sums run in
 * an order fixed by the form and the row's length, so a row's result never depends on anything else.
 * Pure functions on the caller's memory: any thread. Backward beside forward.
 */
#ifndef ENGINE_OPS_H
#define ENGINE_OPS_H

#include "engine/gemm.h"
#include "engine/model.h"

/* gelu:  y = ½ x (1 + erf(x/√2)), exact form      x, y (rows, columns), `stride` floats between rows
 *   The vector erf is within 1.2e-7 of erf, one unit in the last place of 1; gelu within 2.5e-7 (1 + |x|).
 * backward:  d ← d · (½ (1 + erf(x/√2)) + x φ(x)),   φ the normal density; d in place */
void ops_gelu_rows(enum simd simd, const float *x, float *y, size_t rows, size_t columns,
                   size_t stride);
void ops_gelu_backward_rows(enum simd simd, const float *x, float *d, size_t rows, size_t columns,
                            size_t stride);

/* layernorm:  s = x + r   x̂ = (s − mean s) / √(var s + ε)   y = x̂ w + b           all (H)
 *   r NULL: s = x.   xhat, rstd: kept for backward, or NULL.   y may be x or r.
 * backward:  dx = rstd (g − mean g − x̂ mean(g x̂)),  g = dy w            dx may be dy */
void ops_layernorm_row(enum simd simd, const float *x, const float *r, const struct layernorm *norm,
                       float epsilon, size_t H, float *y, float *xhat, float *rstd);
void ops_layernorm_backward_row(enum simd simd, const float *dy, const float *xhat, float rstd,
                                const struct layernorm *norm, size_t H, float *dx);
/* Columns from … to-1 of  dw += Σ_rows dy x̂   db += Σ_rows dy     dy, xhat (rows, H), own strides.
 * xhat and dw NULL: a bias alone. Rows are added in order. */
void ops_column_sums(const float *dy, size_t dy_stride, const float *xhat, size_t xhat_stride,
                     size_t rows, size_t from, size_t to, float *dw, float *db);

/* softmax:  x ← exp(scale (x − max x)) / Σ      x (n) in place, n ≥ 1
 * backward:  d ← scale · p (d − Σ p d)          p (n) the softmax, d (n) in place */
void ops_softmax_row(enum simd simd, float *x, size_t n, float scale);
void ops_softmax_backward_row(enum simd simd, const float *p, float *d, size_t n, float scale);

/* y += scale · x     (n) */
void ops_add_scaled(enum simd simd, const float *x, float scale, float *y, size_t n);
/* Σ x y     (n) */
float ops_dot(enum simd simd, const float *x, const float *y, size_t n);

/* cross-entropy:  loss = log Σ exp(x) − x[target]      x (n); in double for SIMD_NONE, else within 1e-6
 * backward:  dx = weight (softmax(x) − [target])       dx (n) overwritten, may be x, or NULL */
double ops_cross_entropy(enum simd simd, const float *x, size_t n, size_t target, double weight,
                         float *dx);

/* ---- the vector forms: only what gemm_cpu() has ---- */
struct ops_vector {
    void (*gelu)(const float *x, float *y, size_t n);
    void (*gelu_backward)(const float *x, float *d, size_t n);
    void (*layernorm)(const float *x, const float *r, const struct layernorm *norm, float epsilon,
                      size_t H, float *y, float *xhat, float *rstd);
    void (*layernorm_backward)(const float *dy, const float *xhat, float rstd, const float *w,
                               size_t H, float *dx);
    void (*softmax)(float *x, size_t n, float scale);
    void (*softmax_backward)(const float *p, float *d, size_t n, float scale);
    /* Σ exp(x − max); the terms to y, which may be x, or NULL. */
    double (*exp_sum)(const float *x, size_t n, float *max, float *y);
    void (*add_scaled)(const float *x, float scale, float *y, size_t n);
    float (*dot)(const float *x, const float *y, size_t n);
};
extern const struct ops_vector ops_avx2, ops_avx512;

#endif
