/* test_opt_gp.c: Gaussian-process regression against a direct dense computation, and GP-UCB as an
 * optimiser against published budgets and random search.
 *
 * Published: average evaluations to within 1 % of the minimum over 30 runs, six kriging-based methods
 * (International Journal of Aerospace Engineering 2023, 4493349, table 4): Branin 21 to 25, Hartmann-6
 * 131 to 170. Our 20 points of first design count, so Branin is held to twice that (50), Hartmann-6 to
 * 131 in the runs that find the global minimum. */
#include "engine/gp.h"
#include "engine/opt_descent.h"
#include "engine/opt_gp.h"
#include "engine/rng.h"
#include "tests/unit/test.h"

#include <cblas.h>
#include <stdbool.h>
#include <time.h>

#define MAX_N 200

typedef double (*objective)(const double *x, size_t n);

static bool slow_build(void)
{
    return getenv("MP2_SLOW_BUILD") != NULL;
}

/* ---- the model ----------------------------------------------------------------------------------- */

static double kernel(const double *a, const double *b, size_t dims, bool ard, const double *hyper)
{
    double r2 = 0;
    for (size_t j = 0; j < dims; j++) {
        double d = (a[j] - b[j]) / exp(hyper[2 + (ard ? j : 0)]);
        r2 += d * d;
    }
    double r = sqrt(r2);
    return exp(hyper[0]) * (1 + sqrt(5) * r + 5.0 / 3 * r2) * exp(-sqrt(5) * r);
}

/* Solves A·X = B by elimination with pivoting, A (n,n), B (n,m), both overwritten; returns log|A|. */
static double eliminate(long double *a, long double *b, size_t n, size_t m)
{
    long double log_det = 0;
    for (size_t k = 0; k < n; k++) {
        size_t pivot = k;
        for (size_t i = k; i < n; i++) {
            pivot = fabsl(a[i * n + k]) > fabsl(a[pivot * n + k]) ? i : pivot;
        }
        for (size_t j = 0; j < n; j++) {
            long double keep = a[k * n + j];
            a[k * n + j] = a[pivot * n + j];
            a[pivot * n + j] = keep;
        }
        for (size_t j = 0; j < m; j++) {
            long double keep = b[k * m + j];
            b[k * m + j] = b[pivot * m + j];
            b[pivot * m + j] = keep;
        }
        log_det += logl(fabsl(a[k * n + k]));
        for (size_t i = 0; i < n; i++) {
            long double factor = i == k ? 0 : a[i * n + k] / a[k * n + k];
            for (size_t j = 0; j < n && factor != 0; j++) {
                a[i * n + j] -= factor * a[k * n + j];
            }
            for (size_t j = 0; j < m && factor != 0; j++) {
                b[i * m + j] -= factor * b[k * m + j];
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < m; j++) {
            b[i * m + j] /= a[i * n + i];
        }
    }
    return (double)log_det;
}

#define N    23
#define DIMS 3

struct sample {
    double x[N * DIMS], y[N], hyper[2 + DIMS];
};

static void draw(struct sample *s, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (size_t i = 0; i < N * DIMS; i++) {
        s->x[i] = rng_uniform(&rng);
    }
    for (size_t i = 0; i < N; i++) {
        s->y[i] = sin(5 * s->x[i * DIMS]) + s->x[i * DIMS + 1] + 0.1 * rng_normal(&rng);
    }
    const double hyper[] = {0.3, -4, log(0.4), log(1.1), log(0.7)};
    memcpy(s->hyper, hyper, sizeof hyper);
}

/* Mean and variance at `at`, and the log marginal likelihood, without a factor or a shortcut. */
static double direct(const struct sample *s, size_t n, bool ard, const double *at, double *mean,
                     double *variance)
{
    long double a[N * N], b[N * 2];
    double k[N];
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            a[i * n + j] =
                (long double)kernel(s->x + i * DIMS, s->x + j * DIMS, DIMS, ard, s->hyper) +
                (i == j ? (long double)exp(s->hyper[1]) : 0);
        }
        k[i] = kernel(s->x + i * DIMS, at, DIMS, ard, s->hyper);
        b[i * 2] = (long double)s->y[i];
        b[i * 2 + 1] = (long double)k[i];
    }
    double log_det = eliminate(a, b, n, 2), fit = 0;
    *mean = 0;
    *variance = exp(s->hyper[0]);
    for (size_t i = 0; i < n; i++) {
        *mean += k[i] * (double)b[i * 2];
        *variance -= k[i] * (double)b[i * 2 + 1];
        fit += s->y[i] * (double)b[i * 2];
    }
    return -0.5 * fit - 0.5 * log_det - 0.5 * (double)n * log(2 * 3.14159265358979323846);
}

static void posterior_and_likelihood_are_the_direct_ones(void)
{
    for (int ard = 0; ard < 2; ard++) {
        struct sample s;
        struct gp *gp = NULL;
        draw(&s, 11);
        REQUIRE(gp_new(DIMS, N + 2, ard == 1, &gp, NULL) == ENG_OK);
        gp_observe(gp, s.x, s.y, N);
        double at[] = {0.3, 0.9, 0.5, 0.21, 0.01, 0.77}, mean[2], variance[2];
        double want_mean = 0, want_variance = 0;
        double want = direct(&s, N, ard == 1, at, &want_mean, &want_variance);
        CHECK_NEAR(gp_log_marginal(gp, s.hyper, NULL), want, 1e-9);
        REQUIRE(gp_condition(gp, s.hyper));
        gp_predict(gp, at, 2, mean, variance);
        CHECK_NEAR(mean[0], want_mean, 1e-10);
        CHECK_NEAR(variance[0], want_variance, 1e-10);
        (void)direct(&s, N, ard == 1, at + DIMS, &want_mean, &want_variance);
        CHECK_NEAR(mean[1], want_mean, 1e-10);
        CHECK_NEAR(variance[1], want_variance, 1e-10);
        gp_free(gp);
    }
}

static void appended_observations_equal_a_new_model(void)
{
    struct sample s;
    struct gp *gp = NULL;
    draw(&s, 12);
    REQUIRE(gp_new(DIMS, N, true, &gp, NULL) == ENG_OK);
    gp_observe(gp, s.x, s.y, N - 3);
    REQUIRE(gp_condition(gp, s.hyper));
    for (size_t i = N - 3; i < N; i++) {
        gp_append(gp, s.x + i * DIMS, s.y[i]);
    }
    double at[] = {0.6, 0.2, 0.4}, mean = 0, variance = 0, want_mean = 0, want_variance = 0;
    gp_predict(gp, at, 1, &mean, &variance);
    (void)direct(&s, N, true, at, &want_mean, &want_variance);
    CHECK_NEAR(mean, want_mean, 1e-10);
    CHECK_NEAR(variance, want_variance, 1e-10);
    gp_free(gp);
}

static void gradients_agree_with_finite_differences(void)
{
    for (int ard = 0; ard < 2; ard++) {
        struct sample s;
        struct gp *gp = NULL;
        draw(&s, 13);
        REQUIRE(gp_new(DIMS, N, ard == 1, &gp, NULL) == ENG_OK);
        gp_observe(gp, s.x, s.y, N);
        double g[5], p[5], unused[5], h = 1e-5;
        gp_log_marginal(gp, s.hyper, g);
        gp_log_posterior(gp, s.hyper, p);
        for (size_t i = 0; i < gp_hyper_count(gp); i++) {
            double at = s.hyper[i];
            s.hyper[i] = at + h;
            double up = gp_log_marginal(gp, s.hyper, NULL);
            double up_p = gp_log_posterior(gp, s.hyper, unused);
            s.hyper[i] = at - h;
            double down = gp_log_marginal(gp, s.hyper, NULL);
            double down_p = gp_log_posterior(gp, s.hyper, unused);
            s.hyper[i] = at;
            CHECK_NEAR(g[i], (up - down) / (2 * h), 1e-6 * (1 + fabs(g[i])));
            CHECK_NEAR(p[i], (up_p - down_p) / (2 * h), 1e-6 * (1 + fabs(p[i])));
        }
        REQUIRE(gp_condition(gp, s.hyper));
        double at[] = {0.35, 0.6, 0.1}, mean, variance, dm[3], dv[3], um[3], uv[3];
        gp_predict_gradient(gp, at, &mean, &variance, dm, dv);
        for (size_t j = 0; j < DIMS; j++) {
            double keep = at[j], m1, v1, m2, v2;
            at[j] = keep + h;
            gp_predict_gradient(gp, at, &m1, &v1, um, uv);
            at[j] = keep - h;
            gp_predict_gradient(gp, at, &m2, &v2, um, uv);
            at[j] = keep;
            CHECK_NEAR(dm[j], (m1 - m2) / (2 * h), 1e-7);
            CHECK_NEAR(dv[j], (v1 - v2) / (2 * h), 1e-7);
        }
        gp_free(gp);
    }
}

static void fitting_finds_what_made_the_data(void)
{
    enum { n = 120 };
    static double x[n * 2], y[n];
    struct rng rng;
    rng_seed(&rng, 5);
    for (size_t i = 0; i < n; i++) {
        x[2 * i] = rng_uniform(&rng), x[2 * i + 1] = rng_uniform(&rng);
        y[i] = 1.4 * sin(9 * x[2 * i]) + 0.2 * rng_normal(&rng); /* the second does not matter */
    }
    struct gp *gp = NULL;
    double hyper[4];
    REQUIRE(gp_new(2, n, true, &gp, NULL) == ENG_OK);
    gp_observe(gp, x, y, n);
    gp_hyper_default(gp, hyper);
    double before = gp_log_posterior(gp, hyper, (double[4]){0});
    CHECK(gp_fit(gp, hyper, 60, true));
    double gradient[4];
    CHECK(gp_log_posterior(gp, hyper, gradient) > before + 10);
    for (size_t i = 0; i < 4; i++) {
        CHECK_NEAR(gradient[i], 0, 0.05);
    }
    CHECK_NEAR(exp(0.5 * hyper[1]), 0.2, 0.05);
    CHECK(hyper[3] > hyper[2] + log(4));
    gp_free(gp);
}

static void equal_points_are_factored_with_jitter(void)
{
    double x[40] = {0}, y[20];
    for (size_t i = 0; i < 20; i++) {
        y[i] = (double)(i % 2);
    }
    struct gp *gp = NULL;
    REQUIRE(gp_new(2, 20, true, &gp, NULL) == ENG_OK);
    gp_observe(gp, x, y, 20);
    double hyper[4] = {0, -60, 0, 0}, mean = 0, variance = 0;
    CHECK(gp_condition(gp, hyper));
    gp_predict(gp, x, 1, &mean, &variance);
    CHECK_NEAR(mean, 0.5, 1e-4);
    CHECK(variance > 0);
    gp_free(gp);
    eng_error err;
    CHECK(gp_new(SIZE_MAX / 4, SIZE_MAX / 4, false, &gp, &err) == ENG_ENOMEM && gp == NULL);
    CHECK(gp_new(8, (size_t)1 << 31, false, &gp, &err) == ENG_ENOMEM && gp == NULL);
}

/* Quadratic whose free minimum lies outside the box in the first coordinate. */
static double bowl(void *arg, const double *x, double *g)
{
    (void)arg;
    double d[] = {x[0] - 2, x[1] - 0.25, x[0] + 10 * x[2] - 6};
    g[0] = 2 * d[0] + 2 * d[2], g[1] = 200 * d[1], g[2] = 20 * d[2];
    return d[0] * d[0] + 100 * d[1] * d[1] + d[2] * d[2];
}

static void descent_finds_the_corner(void)
{
    double low[] = {0, 0, 0}, high[] = {1, 1, 1}, x[] = {0.1, 0.9, 0.9};
    double *work = malloc(descent_work(3) * sizeof *work);
    REQUIRE(work != NULL);
    CHECK_NEAR(descent(bowl, NULL, 3, low, high, 100, x, work), 1, 1e-7);
    CHECK_NEAR(x[0], 1, 1e-9);
    CHECK_NEAR(x[1], 0.25, 1e-5);
    CHECK_NEAR(x[2], 0.5, 1e-5);
    free(work);
}

/* ---- the search ------------------------------------------------------------------------------------ */

static double branin(const double *x, size_t n)
{
    (void)n;
    double pi = 3.14159265358979323846;
    double a = x[1] - 5.1 / (4 * pi * pi) * x[0] * x[0] + 5 / pi * x[0] - 6;
    return a * a + 10 * (1 - 1 / (8 * pi)) * cos(x[0]) + 10;
}

static double hartmann6(const double *x, size_t n)
{
    static const double a[4][6] = {{10, 3, 17, 3.5, 1.7, 8},
                                   {0.05, 10, 17, 0.1, 8, 14},
                                   {3, 3.5, 1.7, 10, 17, 8},
                                   {17, 8, 0.05, 10, 0.1, 14}};
    static const double p[4][6] = {{.1312, .1696, .5569, .0124, .8283, .5886},
                                   {.2329, .4135, .8307, .3736, .1004, .9991},
                                   {.2348, .1451, .3522, .2883, .3047, .6650},
                                   {.4047, .8828, .8732, .5743, .1091, .0381}};
    static const double c[4] = {1, 1.2, 3, 3.2};
    double sum = 0;
    for (size_t i = 0; i < 4; i++) {
        double e = 0;
        for (size_t j = 0; j < n; j++) {
            e += a[i][j] * (x[j] - p[i][j]) * (x[j] - p[i][j]);
        }
        sum -= c[i] * exp(-e);
    }
    return sum;
}

static struct rng noise;

/* Like the few-shot loss over a route: smooth, a valley in the middle of things, a little noise. */
static double noisy_route(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = x[i] - (i % 2 == 0 ? 1.5 : -2.0);
        sum += d * d * (1 + (double)i / 2);
    }
    return 0.01 * sum + 0.02 * rng_normal(&noise);
}

static double route_truth(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = x[i] - (i % 2 == 0 ? 1.5 : -2.0);
        sum += d * d * (1 + (double)i / 2);
    }
    return 0.01 * sum;
}

static double always_nan(const double *x, size_t n)
{
    (void)x;
    (void)n;
    return NAN;
}

static double partly_useless(const double *x, size_t n)
{
    return x[0] < -2 ? NAN : x[1] > 13 ? INFINITY : x[1] < 1 ? 1e30 : branin(x, n);
}

struct box {
    size_t dims;
    double low[MAX_N], high[MAX_N];
};

static struct box cube(size_t dims, double low, double high)
{
    struct box box = {.dims = dims};
    for (size_t i = 0; i < dims; i++) {
        box.low[i] = low, box.high[i] = high;
    }
    return box;
}

static struct search *make(const struct box *box, uint64_t seed, size_t budget, double target,
                           size_t batch)
{
    struct search_problem problem = {.dims = box->dims,
                                     .lower = box->low,
                                     .upper = box->high,
                                     .seed = seed,
                                     .max_evaluations = budget,
                                     .target = target};
    struct gp_search_options options = {.batch = batch};
    struct search *s = NULL;
    return gp_search_new(&problem, &options, &s, NULL) == ENG_OK ? s : NULL;
}

static bool inside(const struct box *box, const double *points, size_t n)
{
    bool all = true;
    for (size_t i = 0; i < n * box->dims; i++) {
        all = all && points[i] >= box->low[i % box->dims] && points[i] <= box->high[i % box->dims];
    }
    return all;
}

static bool step(struct search *s, const struct box *box, objective f, double *points)
{
    double values[64];
    size_t n = search_batch(s);
    if (n > 64 || search_ask(s, points, NULL) != ENG_OK || !inside(box, points, n)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        values[i] = f(points + i * box->dims, box->dims);
    }
    return search_tell(s, values, NULL) == ENG_OK;
}

static bool run(struct search *s, const struct box *box, objective f)
{
    static double points[64 * MAX_N];
    bool ok = s != NULL;
    while (ok && search_stopped(s) == SEARCH_RUNNING) {
        ok = step(s, box, f, points);
    }
    return ok;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Runs `seeds` searches; fills used, sorted: evaluations until within 1 % of the minimum, infinite when
 * the budget did not suffice. Returns the worst of the best values. */
static double to_one_percent(const char *name, objective f, const struct box *box, double minimum,
                             size_t budget, size_t seeds, double *used)
{
    double worst = -HUGE_VAL;
    for (size_t i = 0; i < seeds; i++) {
        struct search *s = make(box, 100 + i, budget, minimum + 0.01 * fabs(minimum), 1);
        double best = HUGE_VAL;
        CHECK(run(s, box, f) && search_best(s, &best) != NULL);
        bool reached = s != NULL && search_stopped(s) == SEARCH_TARGET;
        used[i] = reached ? (double)search_evaluations(s) : HUGE_VAL;
        worst = fmax(worst, best);
        search_free(s);
    }
    qsort(used, seeds, sizeof *used, compare);
    printf("%s: within 1 %% after %.0f evaluations (%.0f to %.0f), worst run %.4f\n", name,
           used[seeds / 2], used[0], used[seeds - 1], worst);
    return worst;
}

static void finds_branin_and_hartmann6_in_published_budgets(void)
{
    double used[32];
    struct box box = cube(2, -5, 10);
    box.low[1] = 0, box.high[1] = 15;
    size_t seeds = slow_build() ? 3 : 11;
    (void)to_one_percent("branin", branin, &box, 0.397887, 60, seeds, used);
    CHECK(used[seeds / 2] <= 50);
    /* A run ends in the global minimum or the one at -3.2032; which is a matter of luck, so four in
     * nine are asked to find the global one (seven did when this was written), all the other. */
    box = cube(6, 0, 1);
    seeds = slow_build() ? 2 : 9;
    double worst = to_one_percent("hartmann-6", hartmann6, &box, -3.32237, 131, seeds, used);
    CHECK(slow_build() || used[3] <= 131);
    CHECK(worst < -2.9);
}

static double random_search(const struct box *box, objective f, uint64_t seed, size_t budget)
{
    struct rng rng;
    rng_seed(&rng, seed);
    double best = HUGE_VAL, found = NAN;
    for (size_t i = 0; i < budget; i++) {
        double x[MAX_N];
        for (size_t j = 0; j < box->dims; j++) {
            x[j] = box->low[j] + (box->high[j] - box->low[j]) * rng_uniform(&rng);
        }
        double value = f(x, box->dims);
        if (value < best) {
            best = value;
            found = route_truth(x, box->dims);
        }
    }
    return found;
}

/* METHOD 4: box [-5,5], 20 starts, 100 evaluations in all; here batches of 4. The true value of the
 * point each would choose, median over seeds: ours at most a quarter of random search's with ten
 * times the budget. */
static void beats_random_search_on_a_noisy_route_loss(void)
{
    struct box box = cube(8, -5, 5);
    double ours[16], random[16];
    size_t seeds = slow_build() ? 3 : 11;
    for (size_t i = 0; i < seeds; i++) {
        rng_seed(&noise, i);
        struct search *s = make(&box, i, 100, -INFINITY, 4);
        REQUIRE(run(s, &box, noisy_route));
        CHECK_INT(search_evaluations(s), 100);
        CHECK_INT(search_stopped(s), SEARCH_BUDGET);
        ours[i] = route_truth(search_best(s, NULL), 8);
        search_free(s);
        random[i] = random_search(&box, noisy_route, i, 1000);
    }
    qsort(ours, seeds, sizeof *ours, compare);
    qsort(random, seeds, sizeof *random, compare);
    printf("noisy route loss: GP-UCB %.4f (%.4f to %.4f) with 100, random %.4f with 1000\n",
           ours[seeds / 2], ours[0], ours[seeds - 1], random[seeds / 2]);
    CHECK(ours[seeds / 2] < 0.25 * random[seeds / 2]);
}

static void hundred_and_ninety_two_dimensions(void)
{
    struct box box = cube(192, -5, 5);
    size_t budget = slow_build() ? 40 : 120;
    rng_seed(&noise, 1);
    struct search *s = make(&box, 1, budget, -INFINITY, 8);
    clock_t start = clock();
    REQUIRE(run(s, &box, noisy_route));
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    double ours = route_truth(search_best(s, NULL), 192);
    double random = random_search(&box, noisy_route, 1, budget);
    printf("192-D, %zu evaluations: %.0f against %.0f of random search, %.1f s, state %zu bytes\n",
           budget, ours, random, seconds, search_bytes(s));
    CHECK(ours < (slow_build() ? 1.0 : 0.7) * random);
    CHECK(search_bytes(s) < budget * 193 * 8 + 4096);
    search_free(s);
}

static void useless_values_are_survived(void)
{
    struct box box = cube(2, -5, 10);
    box.low[1] = 0, box.high[1] = 15;
    struct search *s = make(&box, 3, 70, 0.397887 * 1.05, 1);
    CHECK(run(s, &box, partly_useless));
    double best = NAN;
    CHECK(search_best(s, &best) != NULL);
    printf("branin with useless parts: %.4f after %zu evaluations\n", best, search_evaluations(s));
    CHECK_INT(search_stopped(s), SEARCH_TARGET);
    search_free(s);
    s = make(&box, 3, 30, -INFINITY, 3);
    CHECK(run(s, &box, always_nan));
    CHECK_INT(search_stopped(s), SEARCH_BUDGET);
    CHECK(search_best(s, NULL) == NULL);
    CHECK_INT(search_evaluations(s), 30);
    search_free(s);
}

static double flat(const double *x, size_t n)
{
    (void)x;
    (void)n;
    return 7;
}

static void a_flat_loss_is_survived(void)
{
    struct box box = cube(4, 0, 1);
    struct search *s = make(&box, 3, 40, -INFINITY, 1);
    CHECK(run(s, &box, flat));
    CHECK_INT(search_evaluations(s), 40);
    search_free(s);
}

static void the_first_design_is_a_latin_hypercube(void)
{
    struct box box = cube(5, -1, 1);
    struct search *s = make(&box, 8, 100, -INFINITY, 1);
    double points[20 * 5];
    REQUIRE(s != NULL && search_batch(s) == 20 && search_ask(s, points, NULL) == ENG_OK);
    for (size_t j = 0; j < 5; j++) {
        bool taken[19] = {false};
        CHECK_NEAR(points[j], 0, 1e-15); /* the start: the middle */
        for (size_t i = 1; i < 20; i++) {
            size_t stratum = (size_t)((points[i * 5 + j] + 1) / 2 * 19);
            CHECK(stratum < 19 && !taken[stratum]);
            taken[stratum] = true;
        }
    }
    search_free(s);
}

static void saved(size_t steps, bool between)
{
    struct box box = cube(6, 0, 1);
    struct search *a = make(&box, 5, 60, -INFINITY, 2), *b = make(&box, 5, 60, -INFINITY, 2);
    struct search *other = make(&box, 6, 60, -INFINITY, 2);
    static double pa[20 * 6], pb[20 * 6];
    REQUIRE(a != NULL && b != NULL && other != NULL);
    for (size_t i = 0; i < steps; i++) {
        REQUIRE(step(a, &box, hartmann6, pa));
    }
    REQUIRE(!between || search_ask(a, pa, NULL) == ENG_OK);
    size_t bytes = search_bytes(a);
    unsigned char *block = malloc(bytes);
    REQUIRE(block != NULL);
    search_save(a, block);
    eng_error err;
    CHECK(search_load(other, block, bytes, &err) == ENG_EMISMATCH);
    for (size_t at = 0; at < bytes; at += 7) {
        block[at] ^= 1;
        eng_status status = search_load(b, block, bytes, &err);
        CHECK(status == ENG_EFORMAT || status == ENG_EMISMATCH);
        block[at] ^= 1;
        CHECK(search_load(b, block, at, &err) == ENG_EFORMAT);
    }
    REQUIRE(search_load(b, block, bytes, &err) == ENG_OK);
    for (size_t i = 0; i < 6; i++) {
        REQUIRE(search_batch(a) == search_batch(b));
        CHECK(step(a, &box, hartmann6, pa) && step(b, &box, hartmann6, pb));
        CHECK(memcmp(pa, pb, sizeof pa) == 0);
    }
    search_free(a);
    search_free(b);
    search_free(other);
    free(block);
}

static void a_saved_search_goes_on_to_the_bit(void)
{
    saved(0, false);
    saved(0, true);
    saved(1, false);
    saved(6, true);
    saved(9, false);
}

static void refused(struct search_problem problem, struct gp_search_options options,
                    const char *field)
{
    struct search *s = NULL;
    eng_error err = {0};
    CHECK(gp_search_new(&problem, &options, &s, &err) == ENG_EINVAL && s == NULL);
    CHECK_STR(err.field, field);
}

static void wrong_arguments_are_refused(void)
{
    const double low[] = {0, 0}, high[] = {1, 1}, bad[] = {2, 0};
    const struct search_problem good = {
        .dims = 2, .lower = low, .upper = high, .target = -INFINITY};
    const struct gp_search_options usual = {0};
    struct search_problem p = good;
    refused((p.lower = NULL, p), usual, "box");
    refused((p.upper = NULL, p), usual, "box");
    p = good;
    refused((p.lower = bad, p), usual, "box");
    p = good;
    refused((p.start = bad, p), usual, "start");
    p = good;
    refused((p.dims = 5000, p), usual, "dims");
    p = good;
    refused((p.max_evaluations = 1, p), usual, "max_evaluations");
    refused((p.max_evaluations = 4001, p), usual, "max_evaluations");
    refused(good, (struct gp_search_options){.kappa = -1}, "kappa");
    refused(good, (struct gp_search_options){.kappa = NAN}, "kappa");
    refused(good, (struct gp_search_options){.initial = 1}, "initial");
    refused(good, (struct gp_search_options){.initial = 1001}, "initial");
    refused(good, (struct gp_search_options){.batch = 65}, "batch");
}

int main(void)
{
    TESTS_BEGIN;
    openblas_set_num_threads(1);
    RUN(posterior_and_likelihood_are_the_direct_ones);
    RUN(appended_observations_equal_a_new_model);
    RUN(gradients_agree_with_finite_differences);
    RUN(fitting_finds_what_made_the_data);
    RUN(equal_points_are_factored_with_jitter);
    RUN(descent_finds_the_corner);
    RUN(finds_branin_and_hartmann6_in_published_budgets);
    RUN(beats_random_search_on_a_noisy_route_loss);
    RUN(hundred_and_ninety_two_dimensions);
    RUN(useless_values_are_survived);
    RUN(a_flat_loss_is_survived);
    RUN(the_first_design_is_a_latin_hypercube);
    RUN(a_saved_search_goes_on_to_the_bit);
    RUN(wrong_arguments_are_refused);
    TESTS_END;
}
