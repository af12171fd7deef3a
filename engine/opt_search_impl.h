/* opt_search_impl.h (private to opt_*.c): what a method of opt_search.h is made of. */
#ifndef ENGINE_OPT_SEARCH_IMPL_H
#define ENGINE_OPT_SEARCH_IMPL_H

#include "engine/blob.h"
#include "engine/opt_search.h"
#include "engine/rng.h"

struct search_ops {
    uint32_t kind; /* in saved blocks */
    const char *name;
    size_t (*batch)(const struct search *search); /* points of the next proposal; 0: no more */
    /* points (batch, dims) overwritten, inside the box. */
    eng_status (*propose)(struct search *search, double *points, eng_error *err);
    /* values (n): finite, or INFINITY for what was not. May set search->now.stop. */
    eng_status (*learn)(struct search *search, const double *points, const double *values, size_t n,
                        eng_error *err);
    /* Moves the method's own state. READ: false for counts it could not have written (search_load
     * then puts the old state back); may be called many times, so it owns nothing new. */
    bool (*state)(struct search *search, struct blob *blob);
    void (*fini)(struct search *search);
};

/* First member of a method's struct. */
struct search {
    const struct search_ops *ops;
    size_t dims;
    size_t max_batch;
    size_t max_evaluations;
    double target;
    bool boxed;
    double *lower, *upper, *start; /* (dims) each; the block they all live in starts at lower */
    double *best;                  /* (dims) */
    double *pending;               /* (max_batch, dims) points asked and not told */
    double *told;                  /* (max_batch) scratch of search_tell */
    uint64_t identity;             /* hash of problem and options: a saved block must agree */
    struct search_now {            /* saved whole */
        uint64_t evaluations;
        uint64_t pending; /* points asked and not told; 0: none */
        uint64_t has_best;
        uint64_t stop; /* enum search_stop */
        double best_value;
        struct rng rng;
    } now;
};

/* Checks the problem, allocates and seeds. `options` are the method's own, hashed into identity:
 * no padding, no pointers. On failure nothing is left to free. */
ENG_MUST_CHECK eng_status search_init(struct search *search, const struct search_ops *ops,
                                      const struct search_problem *problem, size_t max_batch,
                                      const void *options, size_t options_bytes, eng_error *err);
void search_fini(struct search *search);

/* Nearest point of the box, in place. */
void search_repair(const struct search *search, double *point);
/* Median of n > 0 values; reorders them. */
double search_median(double *values, size_t n);
/* n doubles, 64-byte aligned, zero. NULL when there is no room. */
double *search_doubles(size_t n);

#endif
