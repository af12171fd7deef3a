/* opt_gp.c: what to evaluate next, from all values so far.
 *
 * Coordinates are scaled to the unit cube. Values become standard scores after two repairs: what was
 * not finite counts as the worst finite value, so the model learns to keep away; and values far above
 * the bulk are cut at q + 2 (q - best), q the upper quartile, so that one exploded loss does not
 * flatten all differences below it. Neither moves the minimum.
 *
 * The bound is minimised over many points at once, uniform ones and perturbations of the best ones
 * seen (in many dimensions of a few coordinates only: there a uniform point is far from everything),
 * and the best of these are refined by descent on the bound's gradient.
 *
 * Nothing but values, points, hyper-parameters and the generator is state: the model is rebuilt in
 * every ask, so a loaded search goes on to the bit.
 */
#include "engine/opt_gp.h"

#include "engine/gp.h"
#include "engine/opt_descent.h"
#include "engine/opt_search_impl.h"
#include "engine/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BATCH    64
#define MAX_INITIAL  1000
#define UNIFORM      512 /* points tried anywhere */
#define LOCAL        256 /* points tried near incumbents */
#define INCUMBENTS   4
#define REFINED      6    /* tried points that descent starts from */
#define DESCENT      30   /* iterations each */
#define COORDINATES  20.0 /* perturbed on average in many dimensions */
#define DESIGNS      16   /* Latin hypercubes drawn; the one with the widest gaps is used */
#define TOO_CLOSE    1e-5 /* · √dims: a point already seen */
#define REFIT_GROWTH 1.25 /* more observations since the last wide fit: another */
#define ALWAYS_FIT   200  /* observations up to which every ask fits; then every 5 % more */
#define MAX_HYPER    (2 + GP_SEARCH_ARD_DIMS)

struct gp_search {
    struct search base;
    double kappa;
    size_t initial, batch, capacity;
    struct gp *gp;
    struct gp_search_now {       /* saved whole */
        uint64_t count;          /* observations */
        uint64_t fitted, widely; /* count at the last fit, at the last wide fit; 0: none */
        double hyper[MAX_HYPER];
    } now;
    double *points; /* (capacity, dims) unit cube; saved */
    double *values; /* (capacity) as told, INFINITY for useless; saved */
    /* scratch */
    double *scores;             /* (capacity) */
    double *tried;              /* (UNIFORM + LOCAL, dims) */
    double *mean, *variance;    /* (UNIFORM + LOCAL) */
    double *zeros, *ones;       /* (dims) the cube */
    double *point, *best_point; /* (dims) */
    double *slope_mean, *slope_variance, *work;
    double *doubles; /* the block they all live in */
};

static struct gp_search *of(struct search *search)
{
    return (struct gp_search *)search;
}

static void to_unit(const struct search *s, const double *point, double *unit)
{
    for (size_t i = 0; i < s->dims; i++) {
        unit[i] = (point[i] - s->lower[i]) / (s->upper[i] - s->lower[i]);
    }
}

static void from_unit(const struct search *s, const double *unit, double *point)
{
    for (size_t i = 0; i < s->dims; i++) {
        point[i] = s->lower[i] + unit[i] * (s->upper[i] - s->lower[i]);
    }
    search_repair(s, point);
}

static size_t gp_search_batch(const struct search *search)
{
    const struct gp_search *g = (const struct gp_search *)search;
    size_t want = g->now.count == 0 ? g->initial : g->batch;
    size_t left = g->capacity - g->now.count;
    return want < left ? want : left;
}

/* ---- first design -------------------------------------------------------------------------------- */

static double unit_distance(const double *a, const double *b, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    }
    return sqrt(sum);
}

/* Row 0 is the start; the others take one stratum each of every dimension. */
static void latin_hypercube(struct gp_search *g, size_t n, const double *start, size_t *strata,
                            double *design)
{
    size_t dims = g->base.dims;
    memcpy(design, start, dims * sizeof *design);
    for (size_t j = 0; j < dims; j++) {
        for (size_t i = 0; i + 1 < n; i++) {
            strata[i] = i;
        }
        rng_shuffle(&g->base.now.rng, strata, n - 1);
        for (size_t i = 1; i < n; i++) {
            double inside = rng_uniform(&g->base.now.rng);
            design[i * dims + j] = ((double)strata[i - 1] + inside) / (double)(n - 1);
        }
    }
}

static double smallest_gap(const double *design, size_t n, size_t dims)
{
    double gap = HUGE_VAL;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            gap = fmin(gap, unit_distance(design + i * dims, design + j * dims, dims));
        }
    }
    return gap;
}

static eng_status first_design(struct gp_search *g, size_t n, double *points, eng_error *err)
{
    const struct search *base = &g->base;
    size_t dims = base->dims;
    size_t *strata = calloc(n, sizeof *strata);
    double *design = search_doubles(n * dims);
    if (strata == NULL || design == NULL) {
        free(strata);
        free(design);
        return fail_nomem(err, "gp-ucb");
    }
    to_unit(base, base->start, g->point);
    double widest = -1.0;
    for (size_t k = 0; k < DESIGNS; k++) {
        latin_hypercube(g, n, g->point, strata, design);
        double gap = smallest_gap(design, n, dims);
        if (gap > widest) {
            widest = gap;
            memcpy(points, design, n * dims * sizeof *points);
        }
    }
    free(strata);
    free(design);
    return ENG_OK;
}

/* ---- the model ------------------------------------------------------------------------------------ */

/* Standard scores of all values; false when none is finite. */
static bool score_values(struct gp_search *g)
{
    size_t n = g->now.count, finite = 0;
    double *sorted = g->scores, best = HUGE_VAL, sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++) {
        if (isfinite(g->values[i])) {
            sorted[finite++] = g->values[i];
            best = fmin(best, g->values[i]);
        }
    }
    if (finite == 0) {
        return false;
    }
    (void)search_median(sorted, finite); /* for its order */
    double upper = sorted[3 * (finite - 1) / 4], worst = sorted[finite - 1];
    double cut = upper > best ? upper + 2.0 * (upper - best) : worst;
    for (size_t i = 0; i < n; i++) {
        double value = fmin(isfinite(g->values[i]) ? g->values[i] : worst, cut);
        g->scores[i] = value - best;
        sum += g->scores[i];
    }
    double middle = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        g->scores[i] -= middle;
        squares += g->scores[i] * g->scores[i];
    }
    double deviation = sqrt(squares / (double)n);
    for (size_t i = 0; i < n && deviation > 0.0 && isfinite(deviation); i++) {
        g->scores[i] /= deviation;
    }
    return isfinite(deviation);
}

/* Fits where it is due and conditions the model on everything told. */
static bool build_model(struct gp_search *g)
{
    size_t n = g->now.count;
    gp_observe(g->gp, g->points, g->scores, n);
    bool wide = (double)n >= REFIT_GROWTH * (double)g->now.widely;
    bool due = n <= ALWAYS_FIT || (double)n >= 1.05 * (double)g->now.fitted;
    if (g->now.fitted == 0) {
        gp_hyper_default(g->gp, g->now.hyper);
    }
    if ((wide || due) && gp_fit(g->gp, g->now.hyper, wide ? 40 : 10, wide)) {
        g->now.fitted = n;
        g->now.widely = wide ? n : g->now.widely;
    }
    return gp_condition(g->gp, g->now.hyper);
}

/* ---- the bound ------------------------------------------------------------------------------------ */

static double lower_bound(void *arg, const double *x, double *gradient)
{
    struct gp_search *g = arg;
    double mean = 0.0, variance = 0.0;
    gp_predict_gradient(g->gp, x, &mean, &variance, g->slope_mean, g->slope_variance);
    double deviation = sqrt(variance);
    for (size_t i = 0; i < g->base.dims; i++) {
        gradient[i] = g->slope_mean[i] - g->kappa * g->slope_variance[i] / (2.0 * deviation);
    }
    return mean - g->kappa * deviation;
}

/* The `rank`-th best observation by score. */
static size_t incumbent(const struct gp_search *g, size_t rank)
{
    size_t taken[INCUMBENTS] = {0};
    for (size_t k = 0; k <= rank; k++) {
        size_t best = g->now.count;
        for (size_t i = 0; i < g->now.count; i++) {
            bool free_one = true;
            for (size_t t = 0; t < k; t++) {
                free_one = free_one && taken[t] != i;
            }
            if (free_one && (best == g->now.count || g->scores[i] < g->scores[best])) {
                best = i;
            }
        }
        taken[k] = best;
    }
    return taken[rank];
}

/* A few coordinates of `from` moved by about `width`; at least one. */
static void perturb(struct gp_search *g, const double *from, double width, double *to)
{
    size_t dims = g->base.dims;
    struct rng *rng = &g->base.now.rng;
    double share = fmin(1.0, COORDINATES / (double)dims);
    size_t always = (size_t)rng_below(rng, dims);
    for (size_t j = 0; j < dims; j++) {
        bool moves = rng_uniform(rng) < share || j == always;
        double x = from[j] + (moves ? width * rng_normal(rng) : 0.0);
        to[j] = fmin(fmax(x, 0.0), 1.0);
    }
}

static void draw_tries(struct gp_search *g)
{
    size_t dims = g->base.dims;
    size_t known = g->now.count < INCUMBENTS ? g->now.count : INCUMBENTS;
    for (size_t i = 0; i < UNIFORM * dims; i++) {
        g->tried[i] = rng_uniform(&g->base.now.rng);
    }
    for (size_t k = 0; k < known; k++) {
        const double *from = g->points + incumbent(g, k) * dims;
        for (size_t i = k; i < LOCAL; i += known) {
            double width = pow(10.0, -1.0 - 2.0 * (double)i / LOCAL);
            perturb(g, from, width, g->tried + (UNIFORM + i) * dims);
        }
    }
}

/* Least bound: best_point is set. */
static void minimise_bound(struct gp_search *g)
{
    size_t dims = g->base.dims, tries = UNIFORM + LOCAL;
    draw_tries(g);
    gp_predict(g->gp, g->tried, tries, g->mean, g->variance);
    for (size_t i = 0; i < tries; i++) {
        g->mean[i] -= g->kappa * sqrt(g->variance[i]);
    }
    double least = HUGE_VAL;
    for (size_t k = 0; k < REFINED; k++) {
        size_t best = 0;
        for (size_t i = 1; i < tries; i++) {
            best = g->mean[i] < g->mean[best] ? i : best;
        }
        memcpy(g->point, g->tried + best * dims, dims * sizeof(double));
        double bound = descent(lower_bound, g, dims, g->zeros, g->ones, DESCENT, g->point, g->work);
        if (bound < least || k == 0) {
            least = bound;
            memcpy(g->best_point, g->point, dims * sizeof(double));
        }
        g->mean[best] = HUGE_VAL;
    }
}

/* When the least bound is at a point already seen, there is little left to gain there: the point the
 * model knows least about is taken instead. */
static void look_elsewhere(struct gp_search *g, const double *asked, size_t n)
{
    size_t dims = g->base.dims;
    double limit = TOO_CLOSE * sqrt((double)dims);
    bool seen = false;
    for (size_t i = 0; i < g->now.count && !seen; i++) {
        seen = unit_distance(g->points + i * dims, g->best_point, dims) < limit;
    }
    for (size_t i = 0; i < n && !seen; i++) {
        seen = unit_distance(asked + i * dims, g->best_point, dims) < limit;
    }
    if (seen) {
        size_t least_known = 0;
        for (size_t i = 1; i < UNIFORM; i++) {
            least_known = g->variance[i] > g->variance[least_known] ? i : least_known;
        }
        memcpy(g->best_point, g->tried + least_known * dims, dims * sizeof(double));
    }
}

static eng_status next_points(struct gp_search *g, size_t n, double *unit, eng_error *err)
{
    size_t dims = g->base.dims;
    if (!score_values(g)) {
        for (size_t i = 0; i < n * dims; i++) {
            unit[i] = rng_uniform(&g->base.now.rng);
        }
        return ENG_OK;
    }
    if (!build_model(g)) {
        return fail(err, ENG_EDIVERGED, "gp-ucb",
                    "the covariance of %zu observations cannot be factored", (size_t)g->now.count);
    }

    for (size_t i = 0; i < n; i++) {
        minimise_bound(g);
        look_elsewhere(g, unit, i);
        memcpy(unit + i * dims, g->best_point, dims * sizeof *unit);
        if (i + 1 < n) {
            double mean = 0.0, variance = 0.0;
            gp_predict(g->gp, g->best_point, 1, &mean, &variance);
            gp_append(g->gp, g->best_point, mean);
        }
    }
    return ENG_OK;
}

static eng_status gp_search_propose(struct search *search, double *points, eng_error *err)
{
    struct gp_search *g = of(search);
    size_t n = gp_search_batch(search);
    eng_status status =
        g->now.count == 0 ? first_design(g, n, points, err) : next_points(g, n, points, err);
    for (size_t i = 0; i < n && status == ENG_OK; i++) {
        memcpy(g->point, points + i * search->dims, search->dims * sizeof(double));
        from_unit(search, g->point, points + i * search->dims);
    }
    return status;
}

static eng_status gp_search_learn(struct search *search, const double *points, const double *values,
                                  size_t n, eng_error *err)
{
    (void)err;
    struct gp_search *g = of(search);
    for (size_t i = 0; i < n; i++) {
        to_unit(search, points + i * search->dims, g->points + g->now.count * search->dims);
        g->values[g->now.count++] = values[i];
    }
    if (g->now.count == g->capacity) {
        search->now.stop = SEARCH_BUDGET;
    }
    return ENG_OK;
}

/* ---- state ---------------------------------------------------------------------------------------- */

static bool plausible(const struct gp_search *g, const struct gp_search_now *now)
{
    bool finite = true;
    for (size_t i = 0; i < MAX_HYPER; i++) {
        finite = finite && isfinite(now->hyper[i]);
    }
    return finite && now->count <= g->capacity && now->fitted <= now->count &&
           now->widely <= now->count && g->base.now.pending <= g->capacity - now->count;
}

static bool gp_search_state(struct search *search, struct blob *blob)
{
    struct gp_search *g = of(search);
    struct gp_search_now now = g->now;
    if (!blob_move(blob, &now, sizeof now) || !plausible(g, &now)) {
        return false;
    }
    g->now = now;
    return blob_doubles(blob, g->points, now.count * search->dims) &&
           blob_doubles(blob, g->values, now.count);
}

/* ---- making --------------------------------------------------------------------------------------- */

static void gp_search_fini(struct search *search)
{
    struct gp_search *g = of(search);
    gp_free(g->gp);
    free(g->doubles);
    search_fini(search);
    free(g);
}

static const struct search_ops gp_search_ops = {.kind = 0x5047, /* "GP" */
                                                .name = "gp-ucb",
                                                .batch = gp_search_batch,
                                                .propose = gp_search_propose,
                                                .learn = gp_search_learn,
                                                .state = gp_search_state,
                                                .fini = gp_search_fini};

/* Hands out the block; with base NULL only counts. Sizes are bounded by the checked options. */
static size_t carve(struct gp_search *g, double *base)
{
    size_t dims = g->base.dims, tries = UNIFORM + LOCAL;
    struct {
        double **place;
        size_t count;
    } parts[] = {{&g->points, g->capacity * dims},
                 {&g->values, g->capacity},
                 {&g->scores, g->capacity},
                 {&g->tried, tries * dims},
                 {&g->mean, tries},
                 {&g->variance, tries},
                 {&g->zeros, dims},
                 {&g->ones, dims},
                 {&g->point, dims},
                 {&g->best_point, dims},
                 {&g->slope_mean, dims},
                 {&g->slope_variance, dims},
                 {&g->work, descent_work(dims)}};
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
                                const struct gp_search_options *options, eng_error *err)
{
    if (problem->lower == NULL || problem->upper == NULL) {
        return fail(err, ENG_EINVAL, "box", "is missing; GP-UCB searches a box, give both bounds");
    }
    if (!isfinite(options->kappa) || options->kappa < 0.0) {
        return fail(err, ENG_EINVAL, "kappa", "is %g, want a finite number above 0 (0 means 2)",
                    options->kappa);
    }
    if (options->initial == 1 || options->initial > MAX_INITIAL) {
        return fail(err, ENG_EINVAL, "initial", "is %zu, want 2 to %d (0 means 20)",
                    options->initial, MAX_INITIAL);
    }
    if (options->batch > MAX_BATCH) {
        return fail(err, ENG_EINVAL, "batch", "is %zu, at most %d (0 means 1)", options->batch,
                    MAX_BATCH);
    }
    if (problem->max_evaluations == 1 || problem->max_evaluations > GP_SEARCH_MOST) {
        return fail(
            err, ENG_EINVAL, "max_evaluations",
            "is %zu, want 2 to %d (0 means %d): the model is exact and grows with the square",
            problem->max_evaluations, GP_SEARCH_MOST, GP_SEARCH_CAPACITY);
    }
    return ENG_OK;
}

static bool allocate(struct gp_search *g, eng_error *err)
{
    bool ard = g->base.dims <= GP_SEARCH_ARD_DIMS;
    if (gp_new(g->base.dims, g->capacity, ard, &g->gp, err) != ENG_OK) {
        return false;
    }
    g->doubles = search_doubles(carve(g, NULL));
    if (g->doubles == NULL) {
        return false;
    }
    carve(g, g->doubles);
    for (size_t i = 0; i < g->base.dims; i++) {
        g->ones[i] = 1.0;
    }
    return true;
}

eng_status gp_search_new(const struct search_problem *problem,
                         const struct gp_search_options *options, struct search **out,
                         eng_error *err)
{
    *out = NULL;
    eng_status status = check_options(problem, options, err);
    if (status != ENG_OK) {
        return status;
    }
    struct gp_search *g = calloc(1, sizeof *g);
    if (g == NULL) {
        return fail_nomem(err, "gp-ucb");
    }
    g->kappa = options->kappa > 0.0 ? options->kappa : 2.0;
    g->initial = options->initial != 0 ? options->initial : 20;
    g->batch = options->batch != 0 ? options->batch : 1;
    g->capacity = problem->max_evaluations != 0 ? problem->max_evaluations : GP_SEARCH_CAPACITY;
    double hashed[] = {g->kappa, (double)g->initial, (double)g->batch};
    size_t most = g->initial > g->batch ? g->initial : g->batch;
    status = search_init(&g->base, &gp_search_ops, problem, most, hashed, sizeof hashed, err);
    if (status != ENG_OK) {
        free(g);
        return status;
    }
    if (!allocate(g, err)) {
        gp_search_fini(&g->base);
        return fail_nomem(err, "gp-ucb");
    }
    *out = &g->base;
    return ENG_OK;
}
