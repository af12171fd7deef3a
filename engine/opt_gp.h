/* opt_gp.h (private): GP-UCB, Bayesian optimisation for losses that cost much and dimensions from a
 * few to some hundred. Used through opt_search.h.
 *
 * The first ask is a Latin-hypercube design. Every later ask fits a Gaussian process (gp.h) to all
 * values told and hands out the points of least lower confidence bound mean - kappa·deviation (the
 * upper confidence bound of Srinivas et al. 2010, for minimisation); further points of a batch treat
 * the ones before as observed at their predicted mean ("kriging believer", Ginsbourger et al. 2010).
 *
 * The problem must have a box. Observations are at most max_evaluations, or GP_SEARCH_CAPACITY when
 * that is 0; the search then stops with SEARCH_BUDGET.
 * Memory: 16 to 24 N² bytes for N observations (24 MiB at 1000). Time of one ask: some ten to some
 * hundred times n³ operations; a few ms at 50 observations, under a second at 300.
 */
#ifndef ENGINE_OPT_GP_H
#define ENGINE_OPT_GP_H

#include "engine/opt_search.h"

#define GP_SEARCH_CAPACITY 1000 /* observations without a budget */
#define GP_SEARCH_MOST     4000 /* largest budget */
#define GP_SEARCH_ARD_DIMS 16   /* up to here one length scale a dimension, beyond one for all */

struct gp_search_options {
    double kappa;   /* 0: 2 */
    size_t initial; /* points of the first design, the problem's start among them; 0: 20 */
    size_t batch;   /* points of later asks, at most 64; 0: 1 */
};

/* ENG_EINVAL names the option; ENG_ENOMEM. */
ENG_MUST_CHECK eng_status gp_search_new(const struct search_problem *problem,
                                        const struct gp_search_options *options,
                                        struct search **out, eng_error *err);

#endif
