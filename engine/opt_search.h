/* opt_search.h (private): one face for every gradient-free minimiser in a box.
 *
 *     while (search_stopped(s) == SEARCH_RUNNING) {
 *         n = search_batch(s);
 *         search_ask(s, points, &err);             points (n, dims)
 *         for each point: values[i] = loss(points[i])
 *         search_tell(s, values, &err);            values (n)
 *     }
 *     x = search_best(s, &value);
 *
 * Made by cmaes_new (opt_cmaes.h) or gp_search_new (opt_gp.h). The points of one ask are evaluated by
 * the caller, in any order or all at once. Values are minimised. A value that is not finite counts
 * as worse than every other: it is never the best and its point is avoided.
 *
 * Threads.  One thread at a time; no global state. BLAS is called on the caller's thread and is
 *           expected to be single-threaded (eng_compute_start sees to that).
 * Same problem, options, seed, values and processor: same points, to the bit.
 * Lifetime. search_save at any moment, between ask and tell too (the next ask then repeats the same
 *           points), and search_load into a search made with the same arguments goes on to the bit.
 */
#ifndef ENGINE_OPT_SEARCH_H
#define ENGINE_OPT_SEARCH_H

#include "engine/engine.h"

struct search;

struct search_problem {
    size_t dims;                 /* 1 … SEARCH_MAX_DIMS */
    const double *lower, *upper; /* (dims) each, finite, lower < upper; both NULL: no box */
    const double *start;         /* (dims) inside the box; NULL: its middle, or zero */
    uint64_t seed;
    size_t max_evaluations; /* no ask goes beyond it; 0: no limit */
    double target;          /* stop once the best value is ≤ this; -INFINITY: never */
};

#define SEARCH_MAX_DIMS 4096

#define SEARCH_STOP_LIST(X)                                                                        \
    X(SEARCH_RUNNING, "running")                                                                   \
    X(SEARCH_TARGET, "target reached")                                                             \
    X(SEARCH_BUDGET, "evaluations spent")                                                          \
    X(SEARCH_TOLFUN, "values no longer differ")                                                    \
    X(SEARCH_TOLX, "steps too small")                                                              \
    X(SEARCH_CONDITION, "covariance too ill-conditioned")                                          \
    X(SEARCH_STAGNATION, "no progress over many generations")                                      \
    X(SEARCH_DIVERGED, "step size exploded or no value was finite")

enum search_stop {
#define SEARCH_STOP_ENUM(name, text) name,
    SEARCH_STOP_LIST(SEARCH_STOP_ENUM)
#undef SEARCH_STOP_ENUM
};
const char *search_stop_text(enum search_stop stop); /* static string */

void search_free(struct search *search);

size_t search_dims(const struct search *search);
/* Points the next ask hands out; 0 once stopped. */
size_t search_batch(const struct search *search);
/* points (search_batch, dims) overwritten, inside the box. Asked again before a tell: the same
 * points. ENG_EINVAL when stopped; ENG_EDIVERGED when the method's linear algebra fails. */
ENG_MUST_CHECK eng_status search_ask(struct search *search, double *points, eng_error *err);
/* values (search_batch) of the points of the last ask. ENG_EINVAL without one. */
ENG_MUST_CHECK eng_status search_tell(struct search *search, const double *values, eng_error *err);

/* Best point told so far (dims) and its value; NULL before the first finite value. Valid until the
 * next tell or load. */
const double *search_best(const struct search *search, double *value);
size_t search_evaluations(const struct search *search);
enum search_stop search_stopped(const struct search *search);

/* The whole state as one block (this machine's byte order). search_load: ENG_EFORMAT for a block
 * that is cut, altered or of another version, ENG_EMISMATCH for one of another method, problem or
 * options; the search is then as before. */
size_t search_bytes(const struct search *search);
void search_save(const struct search *search, void *block);
ENG_MUST_CHECK eng_status search_load(struct search *search, const void *block, size_t bytes,
                                      eng_error *err);

#endif
