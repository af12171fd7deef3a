/* gp.c: Gaussian-process regression (Rasmussen and Williams, algorithm 2.1 and eq. 5.9).
 *
 *     K = k(X, X) + σ² I = L Lᵀ        α = K⁻¹ y
 *     log p(y) = -½ yᵀα - Σ log L_ii - n/2 log 2π
 *     d log p(y)/dθ = ½ Σ_ij (α_i α_j - K⁻¹_ij) dK_ij/dθ
 *     dk/dlog s² = k    dk/dlog ℓ_j = c (x_j - x'_j)²/ℓ_j²    c = 5/3 s² (1 + a) exp(-a)
 *     mean(x) = k(x, X) α              variance(x) = s² - |L⁻¹ k(X, x)|²
 *     dk/dx_j = -c (x_j - x'_j)/ℓ_j²
 *
 * Priors (on the logarithms, normal). ℓ for each dimension: log 0.5 ± 0.6, about BoTorch's Gamma(3, 6):
 * with longer ones, dimensions that seem not to matter near a local minimum are never looked at again
 * (Hartmann-6: found in 2 of 10 runs instead of 7). One ℓ for many dimensions: centred at exp(√2)·√d
 * ± √3 after Hvarfner, Hellsten and Nardi, "Vanilla Bayesian optimization performs great in high
 * dimensions" (2024), so that distances, which grow like √d, stay informative. s²: 0 ± 1. σ²: log 1e-4
 * ± 3, weak enough for data without noise and with much of it.
 */
#include "engine/gp.h"

#include "engine/opt_descent.h"
#include "engine/opt_linalg.h"
#include "engine/opt_search_impl.h"
#include "engine/status.h"

#include <assert.h>
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK    256 /* points predicted at once */
#define LOG_2_PI 1.8378770664093454836
#define ROOT_5   2.2360679774997896964
#define SIGNAL   0 /* places in hyper */
#define NOISE    1
#define LENGTH   2

struct prior {
    double mean, deviation, low, high;
};

struct gp {
    size_t dims, capacity, n, lengths;
    bool ard;
    double signal, noise;  /* s², σ² (with jitter) of gp_condition */
    double *x;             /* (capacity, dims) */
    double *scaled;        /* (capacity, dims) x/ℓ */
    double *y, *alpha;     /* (capacity) */
    double *kernel;        /* (capacity, capacity) below: k, above: c; both of x_i, x_j */
    double *factor;        /* (capacity, capacity) lower: L, or K⁻¹ */
    double *distance;      /* (capacity, capacity) squared, lower; only without ard */
    double *block;         /* (BLOCK, capacity) */
    double *inverse_width; /* (dims) 1/ℓ */
    double *hyper_work;    /* low, high, two starts, best, and scratch of descent */
    double *doubles;
};

/* ---- hyper-parameters -------------------------------------------------------------------------- */

size_t gp_hyper_count(const struct gp *gp)
{
    return LENGTH + gp->lengths;
}

static struct prior prior_of(const struct gp *gp, size_t i)
{
    double root = 0.5 * log((double)gp->dims);
    if (i == SIGNAL) {
        return (struct prior){0.0, 1.0, log(0.02), log(50.0)};
    }
    if (i == NOISE) {
        return (struct prior){log(1e-4), 3.0, log(1e-8), log(1.0)};
    }
    if (gp->ard) {
        return (struct prior){log(0.5), 0.6, log(0.02), log(50.0) + root};
    }
    return (struct prior){sqrt(2.0) + root, sqrt(3.0), log(0.02) + root, log(50.0) + root};
}

void gp_hyper_default(const struct gp *gp, double *hyper)
{
    for (size_t i = 0; i < gp_hyper_count(gp); i++) {
        hyper[i] = prior_of(gp, i).mean;
    }
}

/* ---- kernel -------------------------------------------------------------------------------------- */

static double matern(double signal, double r2, double *c)
{
    double a = ROOT_5 * sqrt(r2), e = signal * exp(-a);
    *c = (5.0 / 3.0) * (1.0 + a) * e;
    return (1.0 + a + a * a / 3.0) * e;
}

static double squared_distance(const double *a, const double *b, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        double d = a[i] - b[i];
        sum += d * d;
    }
    return sum;
}

static void set_hyper(struct gp *gp, const double *hyper)
{
    gp->signal = exp(hyper[SIGNAL]);
    gp->noise = exp(hyper[NOISE]);
    for (size_t j = 0; j < gp->dims; j++) {
        gp->inverse_width[j] = exp(-hyper[LENGTH + (gp->ard ? j : 0)]);
    }
    for (size_t i = 0; i < gp->n; i++) {
        for (size_t j = 0; j < gp->dims; j++) {
            gp->scaled[i * gp->dims + j] = gp->x[i * gp->dims + j] * gp->inverse_width[j];
        }
    }
}

/* r² of observations i and j at the hyper-parameters set. */
static double pair_distance(const struct gp *gp, size_t i, size_t j)
{
    if (gp->ard) {
        return squared_distance(gp->scaled + i * gp->dims, gp->scaled + j * gp->dims, gp->dims);
    }
    double inverse = gp->inverse_width[0];
    return gp->distance[i * gp->capacity + j] * inverse * inverse;
}

static void fill_kernel(struct gp *gp)
{
    size_t ld = gp->capacity;
    for (size_t i = 0; i < gp->n; i++) {
        for (size_t j = 0; j < i; j++) {
            double c = 0.0;
            gp->kernel[i * ld + j] = matern(gp->signal, pair_distance(gp, i, j), &c);
            gp->kernel[j * ld + i] = c;
        }
        gp->kernel[i * ld + i] = gp->signal;
    }
}

/* L of K, with jitter from nothing to 1e-3 s²; noise then includes it. */
static bool factor(struct gp *gp)
{
    size_t ld = gp->capacity;
    double jitter = 0.0;
    for (size_t attempt = 0; attempt < 8; attempt++) {
        for (size_t i = 0; i < gp->n; i++) {
            memcpy(gp->factor + i * ld, gp->kernel + i * ld, i * sizeof(double));
            gp->factor[i * ld + i] = gp->signal + gp->noise + jitter;
        }
        if (linalg_cholesky(gp->n, gp->factor, ld)) {
            gp->noise += jitter;
            return true;
        }
        jitter = jitter == 0.0 ? 1e-10 * gp->signal : 10.0 * jitter;
    }
    return false;
}

static void solve(struct gp *gp)
{
    int n = (int)gp->n, ld = (int)gp->capacity;
    memcpy(gp->alpha, gp->y, gp->n * sizeof(double));
    cblas_dtrsv(CblasRowMajor, CblasLower, CblasNoTrans, CblasNonUnit, n, gp->factor, ld, gp->alpha,
                1);
    cblas_dtrsv(CblasRowMajor, CblasLower, CblasTrans, CblasNonUnit, n, gp->factor, ld, gp->alpha,
                1);
}

void gp_observe(struct gp *gp, const double *x, const double *y, size_t n)
{
    assert(n > 0 && n <= gp->capacity);
    gp->n = n;
    memcpy(gp->x, x, n * gp->dims * sizeof(double));
    memcpy(gp->y, y, n * sizeof(double));
    for (size_t i = 0; i < n && !gp->ard; i++) {
        for (size_t j = 0; j < i; j++) {
            gp->distance[i * gp->capacity + j] =
                squared_distance(x + i * gp->dims, x + j * gp->dims, gp->dims);
        }
    }
}

/* ---- likelihood ---------------------------------------------------------------------------------- */

/* One pair's part of the gradient; w = α_i α_j - K⁻¹_ij, counted for both triangles. */
static void add_pair(const struct gp *gp, size_t i, size_t j, double w, double *gradient)
{
    size_t ld = gp->capacity;
    double c = w * gp->kernel[j * ld + i];
    gradient[SIGNAL] += w * gp->kernel[i * ld + j];
    if (!gp->ard) {
        gradient[LENGTH] += c * pair_distance(gp, i, j);
        return;
    }
    const double *a = gp->scaled + i * gp->dims, *b = gp->scaled + j * gp->dims;
    for (size_t k = 0; k < gp->dims; k++) {
        double d = a[k] - b[k];
        gradient[LENGTH + k] += c * d * d;
    }
}

/* factor holds K⁻¹. */
static void likelihood_gradient(const struct gp *gp, double *gradient)
{
    size_t ld = gp->capacity;
    memset(gradient, 0, gp_hyper_count(gp) * sizeof *gradient);
    double trace = 0.0;
    for (size_t i = 0; i < gp->n; i++) {
        for (size_t j = 0; j < i; j++) {
            double w = gp->alpha[i] * gp->alpha[j] - gp->factor[i * ld + j];
            add_pair(gp, i, j, w, gradient);
        }
        trace += gp->alpha[i] * gp->alpha[i] - gp->factor[i * ld + i];
    }
    gradient[SIGNAL] += 0.5 * trace * gp->signal;
    gradient[NOISE] = 0.5 * trace * gp->noise;
}

double gp_log_marginal(struct gp *gp, const double *hyper, double *gradient)
{
    set_hyper(gp, hyper);
    fill_kernel(gp);
    if (!factor(gp)) {
        return -HUGE_VAL;
    }
    solve(gp);
    double value = -0.5 * LOG_2_PI * (double)gp->n;
    for (size_t i = 0; i < gp->n; i++) {
        value -= 0.5 * gp->y[i] * gp->alpha[i] + log(gp->factor[i * gp->capacity + i]);
    }
    if (gradient != NULL) {
        if (!linalg_cholesky_inverse(gp->n, gp->factor, gp->capacity)) {
            return -HUGE_VAL;
        }
        likelihood_gradient(gp, gradient);
    }
    return value;
}

double gp_log_posterior(struct gp *gp, const double *hyper, double *gradient)
{
    double value = gp_log_marginal(gp, hyper, gradient);
    for (size_t i = 0; i < gp_hyper_count(gp); i++) {
        struct prior prior = prior_of(gp, i);
        double z = (hyper[i] - prior.mean) / prior.deviation;
        value -= 0.5 * z * z;
        if (gradient != NULL) {
            gradient[i] -= z / prior.deviation;
        }
    }
    return value;
}

static double negative_posterior(void *arg, const double *hyper, double *gradient)
{
    struct gp *gp = arg;
    double value = -gp_log_posterior(gp, hyper, gradient);
    for (size_t i = 0; i < gp_hyper_count(gp); i++) {
        gradient[i] = -gradient[i];
    }
    return value;
}

/* Start `which`: the caller's, then long and short length scales, both with some noise. */
static void start_at(const struct gp *gp, size_t which, const double *hyper, double *start)
{
    for (size_t i = 0; i < gp_hyper_count(gp); i++) {
        struct prior prior = prior_of(gp, i);
        double value = prior.mean;
        if (which == 0) {
            value = hyper[i];
        } else if (i >= LENGTH) {
            value = 0.5 * log((double)gp->dims) + log(which == 1 ? 1.0 : 0.2);
        }
        start[i] = fmin(fmax(value, prior.low), prior.high);
    }
}

bool gp_fit(struct gp *gp, double *hyper, size_t iterations, bool wide)
{
    size_t count = gp_hyper_count(gp);
    double *low = gp->hyper_work, *high = low + count, *start = high + count;
    double *best = start + count, *work = best + count;
    double best_value = HUGE_VAL;
    for (size_t i = 0; i < count; i++) {
        low[i] = prior_of(gp, i).low;
        high[i] = prior_of(gp, i).high;
    }
    for (size_t which = 0; which < (wide ? 3 : 1); which++) {
        start_at(gp, which, hyper, start);
        double value = descent(negative_posterior, gp, count, low, high, iterations, start, work);
        if (value < best_value) {
            best_value = value;
            memcpy(best, start, count * sizeof *best);
        }
    }
    if (!isfinite(best_value)) {
        return false;
    }
    memcpy(hyper, best, count * sizeof *hyper);
    return true;
}

/* ---- prediction ---------------------------------------------------------------------------------- */

bool gp_condition(struct gp *gp, const double *hyper)
{
    set_hyper(gp, hyper);
    fill_kernel(gp);
    if (!factor(gp)) {
        return false;
    }
    solve(gp);
    return true;
}

/* k(point, X) into row; c too unless NULL. */
static void kernel_row(const struct gp *gp, const double *point, double *row, double *c_row)
{
    for (size_t i = 0; i < gp->n; i++) {
        const double *seen = gp->scaled + i * gp->dims;
        double r2 = 0.0, c = 0.0;
        for (size_t j = 0; j < gp->dims; j++) {
            double d = point[j] * gp->inverse_width[j] - seen[j];
            r2 += d * d;
        }
        row[i] = matern(gp->signal, r2, &c);
        if (c_row != NULL) {
            c_row[i] = c;
        }
    }
}

void gp_predict(struct gp *gp, const double *points, size_t m, double *mean, double *variance)
{
    int n = (int)gp->n, ld = (int)gp->capacity;
    for (size_t first = 0; first < m; first += BLOCK) {
        size_t rows = m - first < BLOCK ? m - first : BLOCK;
        for (size_t i = 0; i < rows; i++) {
            kernel_row(gp, points + (first + i) * gp->dims, gp->block + i * gp->n, NULL);
        }
        cblas_dgemv(CblasRowMajor, CblasNoTrans, (int)rows, n, 1.0, gp->block, n, gp->alpha, 1, 0.0,
                    mean + first, 1);
        cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, (int)rows, n,
                    1.0, gp->factor, ld, gp->block, n);
        for (size_t i = 0; i < rows; i++) {
            const double *row = gp->block + i * gp->n;
            double left = gp->signal - cblas_ddot(n, row, 1, row, 1);
            variance[first + i] = fmax(left, 1e-14 * gp->signal);
        }
    }
}

void gp_predict_gradient(struct gp *gp, const double *point, double *mean, double *variance,
                         double *dmean, double *dvariance)
{
    int n = (int)gp->n, ld = (int)gp->capacity;
    double *k = gp->block, *c = k + gp->n, *solved = c + gp->n;
    kernel_row(gp, point, k, c);
    *mean = cblas_ddot(n, k, 1, gp->alpha, 1);
    memcpy(solved, k, gp->n * sizeof(double));
    cblas_dtrsv(CblasRowMajor, CblasLower, CblasNoTrans, CblasNonUnit, n, gp->factor, ld, solved,
                1);
    *variance = fmax(gp->signal - cblas_ddot(n, solved, 1, solved, 1), 1e-14 * gp->signal);
    cblas_dtrsv(CblasRowMajor, CblasLower, CblasTrans, CblasNonUnit, n, gp->factor, ld, solved, 1);
    memset(dmean, 0, gp->dims * sizeof *dmean);
    memset(dvariance, 0, gp->dims * sizeof *dvariance);
    for (size_t i = 0; i < gp->n; i++) {
        const double *seen = gp->scaled + i * gp->dims;
        for (size_t j = 0; j < gp->dims; j++) {
            double dk = -c[i] * (point[j] * gp->inverse_width[j] - seen[j]) * gp->inverse_width[j];
            dmean[j] += gp->alpha[i] * dk;
            dvariance[j] -= 2.0 * solved[i] * dk;
        }
    }
}

void gp_append(struct gp *gp, const double *x, double y)
{
    assert(gp->n < gp->capacity);
    size_t n = gp->n, ld = gp->capacity;
    double *row = gp->factor + n * ld;
    kernel_row(gp, x, row, NULL);
    cblas_dtrsv(CblasRowMajor, CblasLower, CblasNoTrans, CblasNonUnit, (int)n, gp->factor, (int)ld,
                row, 1);
    double left = gp->signal + gp->noise - cblas_ddot((int)n, row, 1, row, 1);
    row[n] = sqrt(fmax(left, 1e-10 * gp->signal));
    memcpy(gp->x + n * gp->dims, x, gp->dims * sizeof(double));
    for (size_t j = 0; j < gp->dims; j++) {
        gp->scaled[n * gp->dims + j] = x[j] * gp->inverse_width[j];
    }
    gp->y[n] = y;
    gp->n++;
    solve(gp);
}

/* ---- making -------------------------------------------------------------------------------------- */

/* Hands out the block; with base NULL only counts. False when the size does not fit. */
static bool carve(struct gp *gp, double *base, size_t *used)
{
    size_t n = gp->capacity, wide = 0, square = 0, block = 0;
    size_t count = gp_hyper_count(gp);
    if (!size_mul(n, gp->dims, &wide) || !size_mul(n, n, &square) || !size_mul(BLOCK, n, &block)) {
        return false;
    }
    struct {
        double **place;
        size_t count;
    } parts[] = {{&gp->x, wide},
                 {&gp->scaled, wide},
                 {&gp->y, n},
                 {&gp->alpha, n},
                 {&gp->kernel, square},
                 {&gp->factor, square},
                 {&gp->distance, gp->ard ? 0 : square},
                 {&gp->block, block},
                 {&gp->inverse_width, gp->dims},
                 {&gp->hyper_work, 4 * count + descent_work(count)}};
    *used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (base != NULL) {
            *parts[i].place = base + *used;
        }
        if (!size_add(*used, parts[i].count, used)) {
            return false;
        }
    }
    return true;
}

eng_status gp_new(size_t dims, size_t capacity, bool ard, struct gp **out, eng_error *err)
{
    *out = NULL;
    struct gp *gp = calloc(1, sizeof *gp);
    if (gp == NULL) {
        return fail_nomem(err, "gp");
    }
    gp->dims = dims;
    gp->capacity = capacity;
    gp->ard = ard;
    gp->lengths = ard ? dims : 1;
    size_t used = 0;
    gp->doubles = carve(gp, NULL, &used) ? search_doubles(used) : NULL;
    if (gp->doubles == NULL || !carve(gp, gp->doubles, &used)) {
        gp_free(gp);
        return fail_nomem(err, "gp");
    }
    *out = gp;
    return ENG_OK;
}

void gp_free(struct gp *gp)
{
    if (gp != NULL) {
        free(gp->doubles);
        free(gp);
    }
}
