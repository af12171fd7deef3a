/* ops_naive.h (private): every operation again, in double, as plainly as its formula reads.
 *
 * Nothing in the engine calls these: they are what tests hold the fast forms against, forward by
 * value and backward by central differences. Pure functions.
 */
#ifndef ENGINE_OPS_NAIVE_H
#define ENGINE_OPS_NAIVE_H

#include <stddef.h>

/* linear:  y = x·Wᵀ + b      x (N,I)   W (O,I)   b (O) or NULL   y (N,O) */
void naive_linear(const double *x, const double *w, const double *b, size_t N, size_t I, size_t O,
                  double *y);
/* gelu:  y = ½ x (1 + erf(x/√2))      x, y (n) */
void naive_gelu(const double *x, size_t n, double *y);
/* layernorm:  y = (x − mean) / √(var + ε) · w + b      all (n) */
void naive_layernorm(const double *x, const double *w, const double *b, double epsilon, size_t n,
                     double *y);
/* softmax:  y = exp(scale x) / Σ      x, y (n) */
void naive_softmax(const double *x, double scale, size_t n, double *y);
/* attention of one head:  out = softmax(q·kᵀ/√d) · v      q, k, v, out (len,d)   scores (len) scratch */
void naive_attention(const double *q, const double *k, const double *v, size_t len, size_t d,
                     double *scores, double *out);
/* cross-entropy:  log Σ exp(x) − x[target]      x (n) */
double naive_cross_entropy(const double *x, size_t n, size_t target);

#endif
