/* rng.h (private): the seeded generator behind every random choice of the engine.
 *
 * xoshiro256** seeded through splitmix64 (Blackman, Vigna; public domain). The whole state is the
 * struct: copy it to save, copy it back to go on with the same numbers. One thread at a time.
 */
#ifndef ENGINE_RNG_H
#define ENGINE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t s[4];
    uint64_t has_spare; /* rng_normal makes two numbers at a time and keeps one here */
    double spare;
};

/* One step of splitmix64; also a good way to make several seeds of one. */
uint64_t splitmix64(uint64_t *state);

void rng_seed(struct rng *rng, uint64_t seed);
uint64_t rng_next(struct rng *rng);              /* 64 uniform bits */
uint64_t rng_below(struct rng *rng, uint64_t n); /* uniform in 0 … n-1 without bias; n > 0 */
double rng_uniform(struct rng *rng);             /* uniform in [0, 1), 53 bits */
double rng_normal(struct rng *rng);              /* mean 0, deviation 1 (polar method) */
void rng_shuffle(struct rng *rng, size_t *items, size_t n); /* Fisher-Yates */

#endif
