/* pool.h (private): the compute threads, and whose turn it is to use them.
 *
 * Threads.  Any number of threads may share one eng_compute. Work runs only between
 *           compute_turn_take and compute_turn_give, so one caller at a time owns all compute
 *           threads: two callers never slow each other down by half, they wait for each other.
 *           A caller that waits goes before every less urgent one that waits (eng_class).
 * Lifetime. eng_compute_start … eng_compute_stop; nobody may hold or wait for the turn at stop.
 */
#ifndef ENGINE_POOL_H
#define ENGINE_POOL_H

#include "engine/gemm.h"

#define POOL_MAX_THREADS 64

/* Task `index` of a parallel loop, on compute thread `thread` (0 is the caller). `scratch` is that
 * thread's own memory of POOL_SCRATCH bytes, 64-byte aligned, contents undefined. */
#define POOL_SCRATCH ((size_t)1536 << 10)
typedef void (*pool_task)(void *arg, size_t index, size_t thread, void *scratch);

/* Runs tasks 0 … n-1, in any order, and returns when all have ended. The caller must hold the turn
 * and works along. `work` is a rough count of floating-point operations: below a threshold the
 * caller does everything itself, because waking a thread costs more. n < 2^32.
 *
 * Each thread begins with its own n-th part of the numbers, from its first on, and then helps the
 * others from their last on: loops whose index goes by the rows of a batch find those rows in the same
 * core's cache from loop to loop. */
void pool_run(eng_compute *compute, size_t n, double work, pool_task task, void *arg);
/* For tasks that should begin in order whatever the number of threads (large ones first): the tasks
 * 0 … n-1 dealt out in turn. A permutation of them; index is pool_run's. */
size_t pool_dealt(size_t n, size_t threads, size_t index);

void compute_turn_take(eng_compute *compute, eng_class who);
void compute_turn_give(eng_compute *compute);
/* Between two pieces: lets callers that are more urgent than `who`, who holds the turn, go before the next.
 * Nothing may lie in scratch meanwhile. */
void compute_turn_yield(eng_compute *compute, eng_class who);
/* Callers that wait for the turn right now: for tests and metrics. */
size_t compute_turn_waiting(eng_compute *compute, eng_class who);

/* Our kernels on packed weights, or (SIMD_NONE) OpenBLAS and portable C. */
enum simd compute_simd(const eng_compute *compute);
size_t compute_threads(const eng_compute *compute);
/* Scratch of the caller's thread (index 0); the caller must hold the turn. */
void *compute_scratch(eng_compute *compute);

#endif
