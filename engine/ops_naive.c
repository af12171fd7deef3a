/* ops_naive.c: see ops_naive.h. */
#include "engine/ops_naive.h"

#include <math.h>

void naive_linear(const double *x, const double *w, const double *b, size_t N, size_t I, size_t O,
                  double *y)
{
    for (size_t n = 0; n < N; n++) {
        for (size_t o = 0; o < O; o++) {
            double sum = b != NULL ? b[o] : 0;
            for (size_t i = 0; i < I; i++) {
                sum += x[n * I + i] * w[o * I + i];
            }
            y[n * O + o] = sum;
        }
    }
}

void naive_gelu(const double *x, size_t n, double *y)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = 0.5 * x[i] * (1 + erf(x[i] / sqrt(2)));
    }
}

void naive_layernorm(const double *x, const double *w, const double *b, double epsilon, size_t n,
                     double *y)
{
    double mean = 0, variance = 0;
    for (size_t i = 0; i < n; i++) {
        mean += x[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        variance += (x[i] - mean) * (x[i] - mean) / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        y[i] = (x[i] - mean) / sqrt(variance + epsilon) * w[i] + b[i];
    }
}

void naive_softmax(const double *x, double scale, size_t n, double *y)
{
    double max = x[0], sum = 0;
    for (size_t i = 0; i < n; i++) {
        max = fmax(max, x[i]);
    }
    for (size_t i = 0; i < n; i++) {
        sum += exp(scale * (x[i] - max));
    }
    for (size_t i = 0; i < n; i++) {
        y[i] = exp(scale * (x[i] - max)) / sum;
    }
}

void naive_attention(const double *q, const double *k, const double *v, size_t len, size_t d,
                     double *scores, double *out)
{
    for (size_t i = 0; i < len; i++) {
        naive_linear(q + i * d, k, NULL, 1, d, len, scores);
        naive_softmax(scores, 1 / sqrt((double)d), len, scores);
        for (size_t c = 0; c < d; c++) {
            out[i * d + c] = 0;
            for (size_t j = 0; j < len; j++) {
                out[i * d + c] += scores[j] * v[j * d + c];
            }
        }
    }
}

double naive_cross_entropy(const double *x, size_t n, size_t target)
{
    double max = x[0], sum = 0;
    for (size_t i = 0; i < n; i++) {
        max = fmax(max, x[i]);
    }
    for (size_t i = 0; i < n; i++) {
        sum += exp(x[i] - max);
    }
    return log(sum) + max - x[target];
}
