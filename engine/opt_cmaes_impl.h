/* opt_cmaes_impl.h (private to opt_cmaes*.c): the state of a run. Letters as in opt_cmaes.c. */
#ifndef ENGINE_OPT_CMAES_IMPL_H
#define ENGINE_OPT_CMAES_IMPL_H

#include "engine/opt_cmaes.h"
#include "engine/opt_search_impl.h"

#define CMAES_HISTORY   2000 /* generations remembered for stagnation (the tutorial: 20000) */
#define CMAES_SPREADS   512  /* generations remembered for the penalty */
#define CMAES_CONDITION 1e14 /* largest condition number of C */

/* Constants of one population size. */
struct cmaes_constants {
    size_t lambda, mu;
    double mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu, weight_sum, chi;
    size_t eigen_gap; /* generations between eigendecompositions */
};

struct ranked {
    double value;
    size_t index;
};

struct cmaes {
    struct search base;
    struct cmaes_options options;
    size_t lambda_first, lambda_max;
    struct cmaes_constants k;
    struct cmaes_now { /* saved whole */
        uint64_t generation, eigen_generation, restart, worthless;
        uint64_t history, spreads; /* entries in use */
        uint64_t penalised;        /* the penalty is on */
        uint64_t last_restart;
        double sigma;
    } now;
    double *doubles; /* the block all of these live in */
    /* saved */
    double *mean, *path_sigma, *path_c; /* (n) */
    double *covariance;                 /* (n, n) upper triangle */
    double *basis, *axes;               /* (n, n) row j is axis j, (n) its standard deviation */
    double *gamma;                      /* (n) */
    double *best_of, *median_of;        /* (CMAES_HISTORY) */
    double *spread_of;                  /* (CMAES_SPREADS) */
    double *z, *y;                      /* (λ, n) of the points asked */
    /* scratch */
    double *weights; /* (λ) */
    double *mix_y, *mix_z, *sum;
    double *scratch, *eigen_work;
    int *eigen_iwork;
    struct ranked *order; /* (λ) */
};

/* opt_cmaes_guard.c. Order of calls in a generation: ranking asks for the penalties; then
 * cmaes_remember_generation, and in a box cmaes_remember_spread; the update; and in a box
 * cmaes_update_penalty; last cmaes_why_stop. */

/* Added to the value of point `point`, which was repaired to `repaired` (n), for the ranking. */
double cmaes_penalty(const struct cmaes *es, size_t point, const double *repaired);
/* `finite` values lead es->order. */
void cmaes_remember_spread(struct cmaes *es, size_t finite);
void cmaes_update_penalty(struct cmaes *es);
void cmaes_remember_generation(struct cmaes *es, double best, double median);
enum search_stop cmaes_why_stop(struct cmaes *es);

#endif
