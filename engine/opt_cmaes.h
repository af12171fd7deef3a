/* opt_cmaes.h (private): CMA-ES, a gradient-free minimiser for some ten to some thousand
 * evaluations per dimension. Used through opt_search.h.
 *
 * (μ/μ_w, λ)-CMA-ES with full covariance, rank-one and rank-μ update with negative weights, and
 * cumulative step-size adaptation, after N. Hansen, "The CMA Evolution Strategy: A Tutorial"
 * (arXiv 1604.00772, 2023); restarts with doubled population after Auger and Hansen (CEC 2005).
 *
 * Only the order of the values matters (except to the box, see opt_cmaes.c, and to tolfun).
 * Memory: about 8 (4 n² + 3 λ n) bytes, λ the largest population. Time of one generation beyond the
 * evaluations: O(λ n²), and O(n³) every 1/(10 n (c1 + cμ)) generations.
 */
#ifndef ENGINE_OPT_CMAES_H
#define ENGINE_OPT_CMAES_H

#include "engine/opt_search.h"

#define CMAES_MAX_DIMS       1024
#define CMAES_MAX_POPULATION 65536

struct cmaes_options {
    double sigma;      /* initial standard deviation of every coordinate; > 0 */
    size_t population; /* λ, at least 4; 0: 4 + ⌊3 ln n⌋ */
    size_t restarts;   /* each with twice the population, from a random point; at most 16 */
    double tolfun;     /* stop when values differ by less; 0: off. Usual: 1e-12 */
    double tolx;       /* stop when steps are below tolx·sigma; 0: off. Usual: 1e-12 */
    bool positive;     /* without the negative weights */
};

/* ENG_EINVAL names the option; ENG_ENOMEM. A budget below one population is ENG_EINVAL. */
ENG_MUST_CHECK eng_status cmaes_new(const struct search_problem *problem,
                                    const struct cmaes_options *options, struct search **out,
                                    eng_error *err);

/* For tests and reports. */
struct cmaes_report {
    size_t generation; /* of this run */
    size_t restart;    /* 0 … */
    size_t population;
    double sigma;
    double axis_ratio;             /* longest over shortest axis of the distribution */
    const double *mean;            /* (dims), may lie outside the box */
    enum search_stop last_restart; /* why the run before ended */
};
void cmaes_get_report(const struct search *search, struct cmaes_report *report);

#endif
