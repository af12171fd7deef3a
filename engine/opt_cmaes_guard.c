/* opt_cmaes_guard.c: what surrounds the update of CMA-ES: the box and when to stop.
 *
 * Box. Points are repaired (projected to the box) before they are evaluated and a penalty
 *     Σ_j γ_j (x_j - repaired_j)² / n
 * is added for the ranking only; the update uses the unrepaired y. Why not resampling: near a
 * corner of many dimensions almost every draw would be refused. Why not updating with repaired
 * points: that squeezes C against the face. The γ_j follow Hansen et al., "A method for handling
 * uncertainty in evolutionary optimization" (2009), in the form of Hansen's pycma: they start from
 * the spread of the values once the mean has left the box, grow while it stays far outside and
 * shrink when it does not. Without a face in play the order of the values alone matters.
 */
#include "engine/opt_cmaes_impl.h"

#include <math.h>
#include <string.h>

#define MAX_SIGMA_GROWTH 1e4

/* ---- the box ----------------------------------------------------------------------------------- */

/* Spread of the middle half of the finite values; sorted (count) ascending. */
static double middle_spread(const struct ranked *sorted, size_t count)
{
    return sorted[3 * (count - 1) / 4].value - sorted[(count - 1) / 4].value;
}

static double mean_variance(const struct cmaes *es)
{
    size_t n = es->base.dims;
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += es->covariance[i * n + i];
    }
    return es->now.sigma * es->now.sigma * sum / (double)n;
}

/* Keeps the spread of the values per variance of the coordinates, over the last generations. */
void cmaes_remember_spread(struct cmaes *es, size_t finite)
{
    double spread = finite > 0 ? middle_spread(es->order, finite) / mean_variance(es) : 0.0;
    if (!(spread > 0.0) || !isfinite(spread)) {
        return;
    }
    size_t window = 20 + 3 * es->base.dims / es->k.lambda;
    window = window < CMAES_SPREADS ? window : CMAES_SPREADS;
    if (es->now.spreads == window) {
        memmove(es->spread_of, es->spread_of + 1, (window - 1) * sizeof(double));
        es->now.spreads--;
    }
    es->spread_of[es->now.spreads++] = spread;
}

/* How far the mean lies outside, in standard deviations of the coordinate. */
static double outside(const struct cmaes *es, size_t i)
{
    double x = es->mean[i];
    double near = fmin(fmax(x, es->base.lower[i]), es->base.upper[i]);
    return fabs(x - near) / (es->now.sigma * sqrt(es->covariance[i * es->base.dims + i]));
}

void cmaes_update_penalty(struct cmaes *es)
{
    size_t n = es->base.dims;
    if (es->now.spreads == 0) {
        return;
    }
    memcpy(es->scratch, es->spread_of, es->now.spreads * sizeof(double));
    double spread = search_median(es->scratch, es->now.spreads);
    double damp = fmin(1.0, es->k.mu_eff / (10.0 * (double)n));
    double far = 3.0 * fmax(1.0, sqrt((double)n) / es->k.mu_eff);
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        any = any || outside(es, i) > 0.0;
    }
    for (size_t i = 0; i < n && any && !es->now.penalised; i++) {
        es->gamma[i] = 2.0 * spread;
    }
    es->now.penalised |= any;
    for (size_t i = 0; i < n && es->now.penalised; i++) {
        double beyond = outside(es, i) - far;
        if (beyond > 0.0) {
            es->gamma[i] *= exp(damp * tanh(beyond / 3.0) / 2.0);
        } else if (es->gamma[i] > 5.0 * spread) {
            es->gamma[i] *= exp(-damp / 3.0);
        }
    }
}

double cmaes_penalty(const struct cmaes *es, size_t point, const double *repaired)
{
    size_t n = es->base.dims;
    double sum = 0.0;
    for (size_t j = 0; j < n; j++) {
        double x = es->mean[j] + es->now.sigma * es->y[point * n + j];
        double d = x - repaired[j];
        sum += es->gamma[j] * d * d;
    }
    return sum / (double)n;
}

/* ---- when to stop (tutorial, B.3) -------------------------------------------------------------- */

void cmaes_remember_generation(struct cmaes *es, double best, double median)
{
    if (es->now.history == CMAES_HISTORY) {
        size_t bytes = (CMAES_HISTORY - 1) * sizeof(double);
        memmove(es->best_of, es->best_of + 1, bytes);
        memmove(es->median_of, es->median_of + 1, bytes);
        es->now.history--;
    }
    es->best_of[es->now.history] = best;
    es->median_of[es->now.history] = median;
    es->now.history++;
}

/* Range of the best values of the last generations and of all values of this one. */
static bool values_agree(const struct cmaes *es)
{
    size_t window = 10 + (30 * es->base.dims + es->k.lambda - 1) / es->k.lambda;
    window = window < CMAES_HISTORY ? window : CMAES_HISTORY;
    if (es->options.tolfun <= 0.0 || es->now.history < window) {
        return false;
    }
    double low = es->best_of[es->now.history - 1], high = low;
    for (size_t i = es->now.history - window; i < es->now.history; i++) {
        low = fmin(low, es->best_of[i]);
        high = fmax(high, es->best_of[i]);
    }
    for (size_t i = 0; i < es->k.lambda; i++) {
        low = fmin(low, es->order[i].value);
        high = fmax(high, es->order[i].value);
    }
    return high - low < es->options.tolfun;
}

/* Neither the best nor the median of the last third is better than of the first. */
static bool stagnates(struct cmaes *es)
{
    size_t g = es->now.history;
    size_t least = 120 + 30 * es->base.dims / es->k.lambda;
    size_t window = least > g / 5 ? least : g / 5;
    window = window < CMAES_HISTORY ? window : CMAES_HISTORY;
    if (g < window) {
        return false;
    }
    const double *series[] = {es->best_of, es->median_of};
    size_t part = 3 * window / 10;
    for (size_t s = 0; s < 2; s++) {
        memcpy(es->scratch, series[s] + g - window, part * sizeof(double));
        double early = search_median(es->scratch, part);
        memcpy(es->scratch, series[s] + g - part, part * sizeof(double));
        if (search_median(es->scratch, part) < early) {
            return false;
        }
    }
    return true;
}

static bool steps_vanish(const struct cmaes *es)
{
    size_t n = es->base.dims;
    double limit = es->options.tolx * es->options.sigma;
    bool small = limit > 0.0, lost = false;
    for (size_t i = 0; i < n; i++) {
        double deviation = es->now.sigma * sqrt(es->covariance[i * n + i]);
        small = small && deviation < limit && es->now.sigma * fabs(es->path_c[i]) < limit;
        lost = lost || es->mean[i] + 0.2 * deviation == es->mean[i];
    }
    size_t axis = es->now.generation % n;
    bool axis_lost = true;
    for (size_t i = 0; i < n; i++) {
        double step = 0.1 * es->now.sigma * es->axes[axis] * es->basis[axis * n + i];
        axis_lost = axis_lost && es->mean[i] + step == es->mean[i];
    }
    return small || lost || axis_lost;
}

enum search_stop cmaes_why_stop(struct cmaes *es)
{
    size_t n = es->base.dims;
    double longest = es->now.sigma * es->axes[n - 1];
    if (!isfinite(longest) || longest > MAX_SIGMA_GROWTH * es->options.sigma) {
        return SEARCH_DIVERGED;
    }
    if (values_agree(es)) {
        return SEARCH_TOLFUN;
    }
    if (steps_vanish(es)) {
        return SEARCH_TOLX;
    }
    return stagnates(es) ? SEARCH_STAGNATION : SEARCH_RUNNING;
}
