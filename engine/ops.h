/* ops.h (private): everything between the matrix products, one row (or a few) at a time.
 *
 * Each operation has a vector form (AVX2, ops_avx2.c), a portable form (ops.c) and a naive one in
 * double (ops_naive.c) that tests compare with; `vector` chooses, and is compute_vector(). Sums run
 * in an order fixed by the row's length, so a row's result never depends on anything else.
 * Pure functions on the caller's memory: any thread. Backward beside forward.
 */
#ifndef ENGINE_OPS_H
#define ENGINE_OPS_H

#include "engine/model.h"

/* gelu:  y = ½ x (1 + erf(x/√2)), exact form      x, y (rows, columns), `stride` floats between rows
 *   The vector erf is a ratio of polynomials, |error| < 5e-7; of gelu < 1.5e-6, all x.
 * backward:  d ← d · (½ (1 + erf(x/√2)) + x φ(x)),   φ the normal density; d in place */
void ops_gelu_rows(bool vector, const float *x, float *y, size_t rows, size_t columns,
                   size_t stride);
void ops_gelu_backward_rows(bool vector, const float *x, float *d, size_t rows, size_t columns,
                            size_t stride);

/* layernorm:  s = x + r   x̂ = (s − mean s) / √(var s + ε)   y = x̂ w + b           all (H)
 *   r NULL: s = x.   xhat, rstd: kept for backward, or NULL.   y may be x or r.
 * backward:  dx = rstd (g − mean g − x̂ mean(g x̂)),  g = dy w            dx may be dy */
void ops_layernorm_row(bool vector, const float *x, const float *r, const struct layernorm *norm,
                       float epsilon, size_t H, float *y, float *xhat, float *rstd);
void ops_layernorm_backward_row(bool vector, const float *dy, const float *xhat, float rstd,
                                const struct layernorm *norm, size_t H, float *dx);
/* Columns from … to-1 of  dw += Σ_rows dy x̂   db += Σ_rows dy     dy, xhat (rows, H), own strides.
 * xhat and dw NULL: a bias alone. Rows are added in order. */
void ops_column_sums(const float *dy, size_t dy_stride, const float *xhat, size_t xhat_stride,
                     size_t rows, size_t from, size_t to, float *dw, float *db);

/* softmax:  x ← exp(scale (x − max x)) / Σ      x (n) in place, n ≥ 1
 * backward:  d ← scale · p (d − Σ p d)          p (n) the softmax, d (n) in place */
void ops_softmax_row(bool vector, float *x, size_t n, float scale);
void ops_softmax_backward_row(bool vector, const float *p, float *d, size_t n, float scale);

/* y += scale · x     (n) */
void ops_add_scaled(bool vector, const float *x, float scale, float *y, size_t n);
/* Σ x y     (n) */
float ops_dot(bool vector, const float *x, const float *y, size_t n);

/* cross-entropy:  loss = log Σ exp(x) − x[target]      x (n), in double
 * backward:  dx = weight (softmax(x) − [target])       dx (n) overwritten, or NULL */
double ops_cross_entropy(const float *x, size_t n, size_t target, double weight, float *dx);

/* ---- the vector forms (ops_avx2.c): only if gemm_cpu_capable() ---- */
void ops_gelu_avx2(const float *x, float *y, size_t n);
void ops_gelu_backward_avx2(const float *x, float *d, size_t n);
void ops_layernorm_avx2(const float *x, const float *r, const struct layernorm *norm, float epsilon,
                        size_t H, float *y, float *xhat, float *rstd);
void ops_layernorm_backward_avx2(const float *dy, const float *xhat, float rstd, const float *w,
                                 size_t H, float *dx);
void ops_softmax_avx2(float *x, size_t n, float scale);
void ops_softmax_backward_avx2(const float *p, float *d, size_t n, float scale);
void ops_add_scaled_avx2(const float *x, float scale, float *y, size_t n);
float ops_dot_avx2(const float *x, const float *y, size_t n);

#endif
