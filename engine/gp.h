/* gp.h (private): exact Gaussian-process regression, the model inside GP-UCB (opt_gp.h).
 *
 *     f ~ GP(0, k)    y = f(x) + ε    ε ~ N(0, σ²)
 *     k(x, x') = s² (1 + a + a²/3) exp(-a)    a = √5 r    r² = Σ_j (x_j - x'_j)² / ℓ_j²     Matérn-5/2
 *
 * Inputs are meant to lie in the unit cube and outputs to have mean 0 and deviation 1: the bounds and
 * priors of the hyper-parameters assume so. hyper = (log s², log σ², log ℓ…), one ℓ for each dimension
 * (ard) or one for all.
 *
 * Threads.  One at a time.
 * Memory.   8 (2 N² + N (2 d + 258)) bytes, and 8 N² more without ard, for N observations.
 * Time.     gp_log_marginal, gp_condition: about n³ and n³/3 operations, + O(n² d). gp_predict: n²
 *           a point.
 */
#ifndef ENGINE_GP_H
#define ENGINE_GP_H

#include "engine/engine.h"

struct gp;

/* Room for `capacity` observations. ENG_ENOMEM. */
ENG_MUST_CHECK eng_status gp_new(size_t dims, size_t capacity, bool ard, struct gp **out,
                                 eng_error *err);
void gp_free(struct gp *gp);

size_t gp_hyper_count(const struct gp *gp);
/* The most probable values before any data. */
void gp_hyper_default(const struct gp *gp, double *hyper);

/* Replaces the observations: x (n, dims), y (n), copied; 1 ≤ n ≤ capacity. */
void gp_observe(struct gp *gp, const double *x, const double *y, size_t n);

/* Log marginal likelihood at hyper; gradient (gp_hyper_count) overwritten unless NULL. -INFINITY when
 * the covariance cannot be factored. Forgets gp_condition. */
double gp_log_marginal(struct gp *gp, const double *hyper, double *gradient);
/* The same plus the log priors (gp.c). */
double gp_log_posterior(struct gp *gp, const double *hyper, double *gradient);

/* Maximises gp_log_posterior within bounds from hyper (overwritten); with `wide` from two fixed
 * starts too. False (hyper unchanged) when no start has a finite value. Forgets gp_condition. */
bool gp_fit(struct gp *gp, double *hyper, size_t iterations, bool wide);

/* Factors the covariance at hyper, with growing jitter where rounding demands it. False when even the
 * largest does not help. Needed before what follows. */
bool gp_condition(struct gp *gp, const double *hyper);
/* Mean and variance of f (without ε) at points (m, dims). */
void gp_predict(struct gp *gp, const double *points, size_t m, double *mean, double *variance);
/* At one point, with gradients (dims). */
void gp_predict_gradient(struct gp *gp, const double *point, double *mean, double *variance,
                         double *dmean, double *dvariance);
/* Adds one observation under the same hyper, in O(n²); n < capacity. For prediction only: before
 * another likelihood or fit, gp_observe anew. */
void gp_append(struct gp *gp, const double *x, double y);

#endif
