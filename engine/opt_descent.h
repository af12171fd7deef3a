/* opt_descent.h (private to the optimisers): smooth minimisation in a box, for small inner problems.
 *
 * Limited-memory BFGS (Nocedal and Wright, algorithm 7.4) on the coordinates that are not held by a
 * bound, with backtracking along the projected path (Bertsekas 1982). Deterministic; finds a local
 * minimum; the function may return NaN or infinity for points that make no sense.
 */
#ifndef ENGINE_OPT_DESCENT_H
#define ENGINE_OPT_DESCENT_H

#include <stddef.h>

/* Value at x (n); gradient (n) overwritten. */
typedef double (*descent_function)(void *arg, const double *x, double *gradient);

/* Doubles of scratch that descent wants. */
size_t descent_work(size_t n);

/* x (n) inside lower … upper (n): the start, overwritten by the best point found. Returns its value;
 * NaN or infinity when the start has no finite value (x is then unchanged). */
double descent(descent_function f, void *arg, size_t n, const double *lower, const double *upper,
               size_t iterations, double *x, double *work);

#endif
