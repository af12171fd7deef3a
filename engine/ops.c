/* ops.c: the portable form of every operation, and the choice between it and the vector forms.
 * Mathematics and contracts are in ops.h. */
#include "engine/ops.h"

#include <math.h>

#define INV_SQRT2   0.70710678118654752f
#define INV_SQRT2PI 0.39894228040143268f

static const struct ops_vector *const forms[] = {
    [SIMD_NONE] = NULL, [SIMD_AVX2] = &ops_avx2, [SIMD_AVX512] = &ops_avx512};

void ops_gelu_rows(enum simd simd, const float *x, float *y, size_t rows, size_t columns,
                   size_t stride)
{
    for (size_t r = 0; r < rows; r++, x += stride, y += stride) {
        if (simd != SIMD_NONE) {
            forms[simd]->gelu(x, y, columns);
            continue;
        }
        for (size_t i = 0; i < columns; i++) {
            y[i] = 0.5f * x[i] * (1 + erff(x[i] * INV_SQRT2));
        }
    }
}

void ops_gelu_backward_rows(enum simd simd, const float *x, float *d, size_t rows, size_t columns,
                            size_t stride)
{
    for (size_t r = 0; r < rows; r++, x += stride, d += stride) {
        if (simd != SIMD_NONE) {
            forms[simd]->gelu_backward(x, d, columns);
            continue;
        }
        for (size_t i = 0; i < columns; i++) {
            float density = INV_SQRT2PI * expf(-0.5f * x[i] * x[i]);
            d[i] *= 0.5f * (1 + erff(x[i] * INV_SQRT2)) + x[i] * density;
        }
    }
}

void ops_layernorm_row(enum simd simd, const float *x, const float *r, const struct layernorm *norm,
                       float epsilon, size_t H, float *y, float *xhat, float *rstd)
{
    if (simd != SIMD_NONE) {
        forms[simd]->layernorm(x, r, norm, epsilon, H, y, xhat, rstd);
        return;
    }
    double sum = 0, squares = 0;
    for (size_t i = 0; i < H; i++) {
        y[i] = r != NULL ? x[i] + r[i] : x[i];
        sum += y[i];
    }
    double mean = sum / (double)H;
    for (size_t i = 0; i < H; i++) {
        squares += (y[i] - mean) * (y[i] - mean);
    }
    double scale = 1 / sqrt(squares / (double)H + epsilon);
    for (size_t i = 0; i < H; i++) {
        float hat = (float)((y[i] - mean) * scale);
        y[i] = hat * norm->w[i] + norm->b[i];
        if (xhat != NULL) {
            xhat[i] = hat;
        }
    }
    if (rstd != NULL) {
        *rstd = (float)scale;
    }
}

void ops_layernorm_backward_row(enum simd simd, const float *dy, const float *xhat, float rstd,
                                const struct layernorm *norm, size_t H, float *dx)
{
    if (simd != SIMD_NONE) {
        forms[simd]->layernorm_backward(dy, xhat, rstd, norm->w, H, dx);
        return;
    }
    double sum = 0, along = 0;
    for (size_t i = 0; i < H; i++) {
        double g = (double)dy[i] * norm->w[i];
        sum += g;
        along += g * xhat[i];
    }
    sum /= (double)H;
    along /= (double)H;
    for (size_t i = 0; i < H; i++) {
        dx[i] = (float)(rstd * ((double)dy[i] * norm->w[i] - sum - xhat[i] * along));
    }
}

void ops_column_sums(const float *dy, size_t dy_stride, const float *xhat, size_t xhat_stride,
                     size_t rows, size_t from, size_t to, float *dw, float *db)
{
    for (size_t r = 0; r < rows; r++) {
        const float *d = dy + r * dy_stride;
        for (size_t i = from; i < to; i++) {
            db[i] += d[i];
        }
        for (size_t i = from; xhat != NULL && i < to; i++) {
            dw[i] += d[i] * xhat[r * xhat_stride + i];
        }
    }
}

void ops_softmax_row(enum simd simd, float *x, size_t n, float scale)
{
    if (simd != SIMD_NONE) {
        forms[simd]->softmax(x, n, scale);
        return;
    }
    float max = x[0];
    double sum = 0;
    for (size_t i = 1; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(scale * (x[i] - max));
        sum += x[i];
    }
    float inverse = (float)(1 / sum);
    for (size_t i = 0; i < n; i++) {
        x[i] *= inverse;
    }
}

void ops_softmax_backward_row(enum simd simd, const float *p, float *d, size_t n, float scale)
{
    if (simd != SIMD_NONE) {
        forms[simd]->softmax_backward(p, d, n, scale);
        return;
    }
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)p[i] * d[i];
    }
    for (size_t i = 0; i < n; i++) {
        d[i] = scale * p[i] * (d[i] - (float)sum);
    }
}

void ops_add_scaled(enum simd simd, const float *x, float scale, float *y, size_t n)
{
    if (simd != SIMD_NONE) {
        forms[simd]->add_scaled(x, scale, y, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        y[i] += scale * x[i];
    }
}

float ops_dot(enum simd simd, const float *x, const float *y, size_t n)
{
    if (simd != SIMD_NONE) {
        return forms[simd]->dot(x, y, n);
    }
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * y[i];
    }
    return (float)sum;
}

static double cross_entropy_vector(const struct ops_vector *form, const float *x, size_t n,
                                   size_t target, double weight, float *dx)
{
    float max, wanted = x[target];
    double sum = form->exp_sum(x, n, &max, dx);
    if (dx != NULL) {
        float scale = (float)(weight / sum);
        for (size_t i = 0; i < n; i++) {
            dx[i] *= scale;
        }
        dx[target] -= (float)weight;
    }
    return log(sum) + (double)max - wanted;
}

double ops_cross_entropy(enum simd simd, const float *x, size_t n, size_t target, double weight,
                         float *dx)
{
    if (simd != SIMD_NONE) {
        return cross_entropy_vector(forms[simd], x, n, target, weight, dx);
    }
    double wanted = x[target], max = x[0], sum = 0;
    for (size_t i = 1; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    for (size_t i = 0; i < n; i++) {
        sum += exp(x[i] - max);
    }
    for (size_t i = 0; dx != NULL && i < n; i++) {
        dx[i] = (float)(weight * (exp(x[i] - max) / sum - (i == target ? 1 : 0)));
    }
    return log(sum) + max - wanted;
}
