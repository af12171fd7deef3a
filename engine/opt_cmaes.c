/* opt_cmaes.c: the update of one generation. (The box and when to stop: opt_cmaes_guard.c.)
 *
 * n dimensions, population λ, parents μ = ⌊λ/2⌋. A generation draws
 *     z_i ~ N(0, I)    y_i = B D z_i    x_i = m + σ y_i           C = B D² Bᵀ
 * (z in the eigenbasis of C, so that C^-1/2 y_i = B z_i and |C^-1/2 y_i| = |z_i|) and updates, with
 * y_(1) the best,
 *     m   ← m + σ Σ_{i≤μ} w_i y_(i)
 *     p_σ ← (1-c_σ) p_σ + √(c_σ(2-c_σ)μ_eff) C^-1/2 ⟨y⟩        σ ← σ exp(c_σ/d_σ (|p_σ|/E|N| - 1))
 *     p_c ← (1-c_c) p_c + h_σ √(c_c(2-c_c)μ_eff) ⟨y⟩
 *     C   ← (1 + c_1 δ(h_σ) - c_1 - c_μ Σ w) C + c_1 p_c p_cᵀ + c_μ Σ_i w°_i y_(i) y_(i)ᵀ
 *     w°_i = w_i for w_i ≥ 0, else w_i n / |z_(i)|²              constants: tutorial, table 1
 *
 * Values that are not finite rank behind all others, in order of index. A generation without any
 * finite value teaches nothing and changes nothing; ten in a row end the run.
 */
#include "engine/opt_cmaes_impl.h"
#include "engine/opt_linalg.h"
#include "engine/status.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RESTARTS 16
#define WORTHLESS    10 /* generations without a finite value before giving up */

static struct cmaes *of(struct search *search)
{
    return (struct cmaes *)search;
}

/* ---- constants (tutorial, table 1) ------------------------------------------------------------- */

/* Raw weights ln((λ+1)/2) - ln i; returns μ_eff of those first … last-1. */
static double raw_weights(double *weights, size_t lambda, size_t first, size_t last)
{
    double sum = 0.0, squares = 0.0;
    for (size_t i = first; i < last; i++) {
        weights[i] = log(((double)lambda + 1.0) / 2.0) - log((double)i + 1.0);
        sum += weights[i];
        squares += weights[i] * weights[i];
    }
    return squares > 0.0 ? sum * sum / squares : 0.0;
}

/* Scales weights first … last-1 to the given sum of magnitudes. */
static void scale_weights(double *weights, size_t first, size_t last, double total)
{
    double sum = 0.0;
    for (size_t i = first; i < last; i++) {
        sum += fabs(weights[i]);
    }
    for (size_t i = first; i < last && sum > 0.0; i++) {
        weights[i] *= total / sum;
    }
}

static void set_constants(struct cmaes *es, size_t lambda)
{
    struct cmaes_constants *k = &es->k;
    double n = (double)es->base.dims;
    k->lambda = lambda;
    k->mu = lambda / 2;
    k->mu_eff = raw_weights(es->weights, lambda, 0, k->mu);
    double mu_eff_negative = raw_weights(es->weights, lambda, k->mu, lambda);
    double m = k->mu_eff;
    k->c_sigma = (m + 2.0) / (n + m + 5.0);
    k->d_sigma = 1.0 + 2.0 * fmax(0.0, sqrt((m - 1.0) / (n + 1.0)) - 1.0) + k->c_sigma;
    k->c_c = (4.0 + m / n) / (n + 4.0 + 2.0 * m / n);
    k->c_1 = 2.0 / ((n + 1.3) * (n + 1.3) + m);
    k->c_mu = fmin(1.0 - k->c_1, 2.0 * (0.25 + m + 1.0 / m - 2.0) / ((n + 2.0) * (n + 2.0) + m));
    k->chi = sqrt(n) * (1.0 - 1.0 / (4.0 * n) + 1.0 / (21.0 * n * n));
    double negative = fmin(1.0 + k->c_1 / k->c_mu, 1.0 + 2.0 * mu_eff_negative / (m + 2.0));
    negative = fmin(negative, (1.0 - k->c_1 - k->c_mu) / (n * k->c_mu));
    scale_weights(es->weights, 0, k->mu, 1.0);
    scale_weights(es->weights, k->mu, lambda, es->options.positive ? 0.0 : fmax(negative, 0.0));
    k->weight_sum = 0.0;
    for (size_t i = 0; i < lambda; i++) {
        k->weight_sum += es->weights[i];
    }
    k->eigen_gap = (size_t)fmax(1.0, floor(1.0 / (10.0 * n * (k->c_1 + k->c_mu))));
}

/* ---- starting a run ---------------------------------------------------------------------------- */

static void start_run(struct cmaes *es, size_t lambda)
{
    size_t n = es->base.dims;
    set_constants(es, lambda);
    es->now.generation = es->now.eigen_generation = es->now.worthless = 0;
    es->now.history = es->now.spreads = es->now.penalised = 0;
    es->now.sigma = es->options.sigma;
    memset(es->path_sigma, 0, n * sizeof(double));
    memset(es->path_c, 0, n * sizeof(double));
    memset(es->gamma, 0, n * sizeof(double));
    memset(es->covariance, 0, n * n * sizeof(double));
    memset(es->basis, 0, n * n * sizeof(double));
    for (size_t i = 0; i < n; i++) {
        es->covariance[i * n + i] = es->basis[i * n + i] = es->axes[i] = 1.0;
    }
}

static void random_mean(struct cmaes *es)
{
    const struct search *base = &es->base;
    for (size_t i = 0; i < base->dims; i++) {
        if (base->boxed) {
            double u = rng_uniform(&es->base.now.rng);
            es->mean[i] = (1.0 - u) * base->lower[i] + u * base->upper[i];
        } else {
            es->mean[i] = base->start[i] + es->options.sigma * rng_normal(&es->base.now.rng);
        }
    }
}

/* Ends the run: begins the next one, with twice the population, while restarts and budget last. */
static void end_run(struct cmaes *es, enum search_stop why)
{
    struct search *base = &es->base;
    size_t doubled = 2 * es->k.lambda;
    bool affordable =
        base->max_evaluations == 0 || base->now.evaluations + doubled <= base->max_evaluations;
    if (es->now.restart >= es->options.restarts || !affordable) {
        base->now.stop = (uint64_t)why;
        return;
    }
    es->now.restart++;
    es->now.last_restart = (uint64_t)why;
    random_mean(es);
    start_run(es, doubled);
}

/* ---- asking ------------------------------------------------------------------------------------ */

static size_t cmaes_batch(const struct search *search)
{
    return ((const struct cmaes *)search)->k.lambda;
}

/* Refreshes B and D from C. False when C is no longer a sound covariance. */
static bool refresh_axes(struct cmaes *es)
{
    size_t n = es->base.dims;
    memcpy(es->basis, es->covariance, n * n * sizeof(double));
    if (!linalg_eigen(n, es->basis, es->axes, es->eigen_work, es->eigen_iwork)) {
        return false;
    }
    if (!(es->axes[0] > 0.0) || es->axes[n - 1] > CMAES_CONDITION * es->axes[0]) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        es->axes[i] = sqrt(es->axes[i]);
    }
    es->now.eigen_generation = es->now.generation;
    return true;
}

static eng_status cmaes_propose(struct search *search, double *points, eng_error *err)
{
    (void)err;
    struct cmaes *es = of(search);
    size_t n = search->dims, lambda = es->k.lambda;
    for (size_t i = 0; i < lambda * n; i++) {
        es->z[i] = rng_normal(&search->now.rng);
        points[i] = es->z[i] * es->axes[i % n];
    }
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)lambda, (int)n, (int)n, 1.0, points,
                (int)n, es->basis, (int)n, 0.0, es->y, (int)n);
    for (size_t i = 0; i < lambda; i++) {
        for (size_t j = 0; j < n; j++) {
            points[i * n + j] = es->mean[j] + es->now.sigma * es->y[i * n + j];
        }
        search_repair(search, points + i * n);
    }
    return ENG_OK;
}

/* ---- telling ----------------------------------------------------------------------------------- */

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->value != y->value) {
        return x->value < y->value ? -1 : 1;
    }
    return (x->index > y->index) - (x->index < y->index);
}

/* Fills order, best first; returns how many values are finite (they come first). */
static size_t rank_points(struct cmaes *es, const double *values, const double *points)
{
    size_t n = es->base.dims, finite = 0;
    for (size_t i = 0; i < es->k.lambda; i++) {
        double extra = es->now.penalised ? cmaes_penalty(es, i, points + i * n) : 0.0;
        es->order[i] = (struct ranked){values[i] + extra, i};
        finite += isfinite(es->order[i].value) ? 1 : 0;
    }
    qsort(es->order, es->k.lambda, sizeof *es->order, compare_ranked);
    return finite;
}

/* ⟨v⟩ = Σ_{i≤μ} w_i v_(i) over rows of v. */
static void recombine(const struct cmaes *es, const double *v, double *out)
{
    size_t n = es->base.dims;
    memset(out, 0, n * sizeof(double));
    for (size_t i = 0; i < es->k.mu; i++) {
        cblas_daxpy((int)n, es->weights[i], v + es->order[i].index * n, 1, out, 1);
    }
}

/* p_σ, p_c and σ; returns h_σ. */
static bool update_paths(struct cmaes *es)
{
    const struct cmaes_constants *k = &es->k;
    size_t n = es->base.dims;
    double scale = sqrt(k->c_sigma * (2.0 - k->c_sigma) * k->mu_eff);
    cblas_dgemv(CblasRowMajor, CblasTrans, (int)n, (int)n, scale, es->basis, (int)n, es->mix_z, 1,
                1.0 - k->c_sigma, es->path_sigma, 1);
    double length = cblas_dnrm2((int)n, es->path_sigma, 1);
    double settled = 1.0 - pow(1.0 - k->c_sigma, 2.0 * ((double)es->now.generation + 1.0));
    bool h = length / sqrt(settled) < (1.4 + 2.0 / ((double)n + 1.0)) * k->chi;
    double along = h ? sqrt(k->c_c * (2.0 - k->c_c) * k->mu_eff) : 0.0;
    for (size_t i = 0; i < n; i++) {
        es->path_c[i] = (1.0 - k->c_c) * es->path_c[i] + along * es->mix_y[i];
    }
    es->now.sigma *= exp(fmin(1.0, k->c_sigma / k->d_sigma * (length / k->chi - 1.0)));
    return h;
}

static void update_covariance(struct cmaes *es, bool h)
{
    const struct cmaes_constants *k = &es->k;
    size_t n = es->base.dims;
    double lost = h ? 0.0 : k->c_c * (2.0 - k->c_c);
    double keep = 1.0 + k->c_1 * lost - k->c_1 - k->c_mu * k->weight_sum;
    cblas_dscal((int)(n * n), keep, es->covariance, 1);
    cblas_dsyr(CblasRowMajor, CblasUpper, (int)n, k->c_1, es->path_c, 1, es->covariance, (int)n);
    for (size_t i = 0; i < k->lambda; i++) {
        size_t row = es->order[i].index;
        double w = es->weights[i];
        if (w < 0.0) {
            double length = cblas_dnrm2((int)n, es->z + row * n, 1);
            w *= (double)n / fmax(length * length, 1e-300);
        }
        cblas_dsyr(CblasRowMajor, CblasUpper, (int)n, k->c_mu * w, es->y + row * n, 1,
                   es->covariance, (int)n);
    }
}

static void adapt(struct cmaes *es)
{
    recombine(es, es->y, es->mix_y);
    recombine(es, es->z, es->mix_z);
    cblas_daxpy((int)es->base.dims, es->now.sigma, es->mix_y, 1, es->mean, 1);
    bool h = update_paths(es);
    update_covariance(es, h);
    es->now.generation++;
}

static eng_status cmaes_learn(struct search *search, const double *points, const double *values,
                              size_t count, eng_error *err)
{
    (void)count;
    (void)err;
    struct cmaes *es = of(search);
    size_t finite = rank_points(es, values, points);
    if (finite == 0) {
        if (++es->now.worthless >= WORTHLESS) {
            end_run(es, SEARCH_DIVERGED);
        }
        return ENG_OK;
    }
    es->now.worthless = 0;
    cmaes_remember_generation(es, es->order[0].value, es->order[es->k.lambda / 2].value);
    if (search->boxed) {
        cmaes_remember_spread(es, finite);
    }
    adapt(es);
    if (search->boxed) {
        cmaes_update_penalty(es);
    }
    enum search_stop why = SEARCH_RUNNING;
    if (es->now.generation - es->now.eigen_generation >= es->k.eigen_gap && !refresh_axes(es)) {
        why = SEARCH_CONDITION;
    } else {
        why = cmaes_why_stop(es);
    }
    if (why != SEARCH_RUNNING) {
        end_run(es, why);
    }
    return ENG_OK;
}

/* ---- state ------------------------------------------------------------------------------------- */

static bool plausible(const struct cmaes *es, const struct cmaes_now *now)
{
    return now->history <= CMAES_HISTORY && now->spreads <= CMAES_SPREADS && now->penalised <= 1 &&
           now->restart <= es->options.restarts && now->worthless <= WORTHLESS &&
           now->eigen_generation <= now->generation && now->last_restart <= SEARCH_DIVERGED &&
           isfinite(now->sigma) && now->sigma > 0.0;
}

static bool cmaes_state(struct search *search, struct blob *blob)
{
    struct cmaes *es = of(search);
    size_t n = search->dims;
    struct cmaes_now now = es->now;
    if (!blob_move(blob, &now, sizeof now)) {
        return false;
    }
    if (blob->mode == BLOB_READ) {
        if (!plausible(es, &now)) {
            return false;
        }
        es->now = now;
        set_constants(es, es->lambda_first << now.restart);
    }
    /* mean … gamma lie side by side. */
    size_t asked = search->now.pending != 0 ? es->k.lambda * n : 0;
    return (search->now.pending == 0 || search->now.pending == es->k.lambda) &&
           blob_doubles(blob, es->mean, (size_t)(es->gamma - es->mean) + n) &&
           blob_doubles(blob, es->best_of, es->now.history) &&
           blob_doubles(blob, es->median_of, es->now.history) &&
           blob_doubles(blob, es->spread_of, es->now.spreads) && blob_doubles(blob, es->z, asked) &&
           blob_doubles(blob, es->y, asked);
}

void cmaes_get_report(const struct search *search, struct cmaes_report *report)
{
    const struct cmaes *es = (const struct cmaes *)search;
    *report = (struct cmaes_report){.generation = es->now.generation,
                                    .restart = es->now.restart,
                                    .population = es->k.lambda,
                                    .sigma = es->now.sigma,
                                    .axis_ratio = es->axes[search->dims - 1] / es->axes[0],
                                    .mean = es->mean,
                                    .last_restart = (enum search_stop)es->now.last_restart};
}

/* ---- making ------------------------------------------------------------------------------------ */

static void cmaes_fini(struct search *search)
{
    struct cmaes *es = of(search);
    free(es->doubles);
    free(es->eigen_iwork);
    free(es->order);
    search_fini(search);
    free(es);
}

static const struct search_ops cmaes_ops = {.kind = 0x414D43, /* "CMA" */
                                            .name = "cmaes",
                                            .batch = cmaes_batch,
                                            .propose = cmaes_propose,
                                            .learn = cmaes_learn,
                                            .state = cmaes_state,
                                            .fini = cmaes_fini};

/* Hands out the block; with base NULL only counts. */
static size_t carve(struct cmaes *es, double *base)
{
    size_t n = es->base.dims, square = n * n, lambda = es->lambda_max;
    size_t scratch = CMAES_HISTORY > n ? CMAES_HISTORY : n;
    struct {
        double **place;
        size_t count;
    } parts[] = {{&es->mean, n},
                 {&es->path_sigma, n},
                 {&es->path_c, n},
                 {&es->covariance, square},
                 {&es->basis, square},
                 {&es->axes, n},
                 {&es->gamma, n},
                 {&es->best_of, CMAES_HISTORY},
                 {&es->median_of, CMAES_HISTORY},
                 {&es->spread_of, CMAES_SPREADS},
                 {&es->weights, lambda},
                 {&es->mix_y, n},
                 {&es->mix_z, n},
                 {&es->scratch, scratch},
                 {&es->eigen_work, linalg_eigen_work(n)},
                 {&es->z, lambda * n},
                 {&es->y, lambda * n}};
    size_t used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (base != NULL) {
            *parts[i].place = base + used;
        }
        used += parts[i].count;
    }
    return used;
}

static eng_status check_options(const struct search_problem *problem,
                                const struct cmaes_options *options, eng_error *err)
{
    if (problem->dims == 0 || problem->dims > CMAES_MAX_DIMS) {
        return fail(err, ENG_EINVAL, "dims", "%zu dimensions, want 1 to %d: the covariance is full",
                    problem->dims, CMAES_MAX_DIMS);
    }
    if (!isfinite(options->sigma) || options->sigma <= 0.0) {
        return fail(err, ENG_EINVAL, "sigma", "is %g, want a finite number above 0",
                    options->sigma);
    }
    if (!(options->tolfun >= 0.0) || !(options->tolx >= 0.0)) {
        return fail(err, ENG_EINVAL, "tolerance", "tolfun %g and tolx %g, want 0 or more",
                    options->tolfun, options->tolx);
    }
    if (options->restarts > MAX_RESTARTS) {
        return fail(err, ENG_EINVAL, "restarts", "is %zu, at most %d are made", options->restarts,
                    MAX_RESTARTS);
    }
    return ENG_OK;
}

static eng_status check_population(size_t lambda, size_t restarts, size_t budget, eng_error *err)
{
    if (lambda < 4 || lambda > (size_t)CMAES_MAX_POPULATION >> restarts) {
        return fail(err, ENG_EINVAL, "population",
                    "is %zu, want 4 to %d with %zu restarts that each double it", lambda,
                    CMAES_MAX_POPULATION >> restarts, restarts);
    }
    if (budget != 0 && budget < lambda) {
        return fail(err, ENG_EINVAL, "max_evaluations",
                    "is %zu, less than one population of %zu; allow more or shrink it", budget,
                    lambda);
    }
    return ENG_OK;
}

static bool allocate(struct cmaes *es)
{
    size_t n = es->base.dims;
    es->doubles = search_doubles(carve(es, NULL));
    es->order = calloc(es->lambda_max, sizeof *es->order);
    es->eigen_iwork = calloc(linalg_eigen_iwork(n), sizeof *es->eigen_iwork);
    if (es->doubles == NULL || es->order == NULL || es->eigen_iwork == NULL) {
        return false;
    }
    carve(es, es->doubles);
    return true;
}

eng_status cmaes_new(const struct search_problem *problem, const struct cmaes_options *options,
                     struct search **out, eng_error *err)
{
    *out = NULL;
    eng_status status = check_options(problem, options, err);
    if (status != ENG_OK) {
        return status;
    }
    size_t lambda = options->population;
    if (lambda == 0) {
        lambda = 4 + (size_t)(3.0 * log((double)problem->dims));
    }
    status = check_population(lambda, options->restarts, problem->max_evaluations, err);
    if (status != ENG_OK) {
        return status;
    }
    struct cmaes *es = calloc(1, sizeof *es);
    if (es == NULL) {
        return fail_nomem(err, "cmaes");
    }
    es->options = *options;
    es->lambda_first = lambda;
    es->lambda_max = lambda << options->restarts;
    double hashed[] = {options->sigma,  (double)lambda, (double)options->restarts,
                       options->tolfun, options->tolx,  options->positive ? 1.0 : 0.0};
    status =
        search_init(&es->base, &cmaes_ops, problem, es->lambda_max, hashed, sizeof hashed, err);
    if (status != ENG_OK) {
        free(es);
        return status;
    }
    if (!allocate(es)) {
        cmaes_fini(&es->base);
        return fail_nomem(err, "cmaes");
    }
    memcpy(es->mean, es->base.start, problem->dims * sizeof(double));
    start_run(es, lambda);
    *out = &es->base;
    return ENG_OK;
}
