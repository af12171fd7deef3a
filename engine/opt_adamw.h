/* opt_adamw.h (private): AdamW over a flat vector of float32 parameters.
 *
 * Loshchilov and Hutter, "Decoupled weight decay regularization", as torch.optim.AdamW steps:
 *     w ← w (1 - lr·decay)      m ← β1 m + (1-β1) g      v ← β2 v + (1-β2) g²
 *     w ← w - lr · (m / (1-β1ᵗ)) / (√(v / (1-β2ᵗ)) + ε)
 * One thread at a time. The whole state is one block of adamw_bytes bytes: save it with the
 * parameters and a run goes on to the bit.
 */
#ifndef ENGINE_OPT_ADAMW_H
#define ENGINE_OPT_ADAMW_H

#include "engine/engine.h"

struct adamw; /* the block itself */

/* ENG_ENOMEM. State of zeros for n parameters. */
ENG_MUST_CHECK eng_status adamw_new(size_t n, struct adamw **out, eng_error *err);
void adamw_free(struct adamw *opt);

/* One step with β = (0.9, 0.999), ε = 1e-8.   gradient (n)   weights (n) changed in place. */
void adamw_step(struct adamw *opt, double lr, double decay, const float *gradient, float *weights);

size_t adamw_bytes(const struct adamw *opt);
/* Copies the state out of, or back into, an optimiser of the same size. adamw_load: ENG_EFORMAT
 * when `bytes` is not such a block; the optimiser is then as before. */
void adamw_save(const struct adamw *opt, void *block);
ENG_MUST_CHECK eng_status adamw_load(struct adamw *opt, const void *block, size_t bytes,
                                     eng_error *err);

#endif
