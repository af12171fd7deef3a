/* bank.h (private): routes, mixes and their gradients, in the form training needs.
 *
 * The public functions (eng_route_mix, eng_merged_prompt) and bank_prepare are declared in engine.h
 * and model.h. All are pure functions of a bank that never changes: any thread.
 */
#ifndef ENGINE_BANK_H
#define ENGINE_BANK_H

#include "engine/model.h"

/* Relaxed Bernoulli noise of multi-task pre-training (METHOD 2). noise (Lp,K) uniform in (0,1). */
struct bank_noise {
    const float *u;
    float tau;
};

/* mix[l,k] = w[l,k] / (Σ_j w[l,j] + 1e-12),  w = sigmoid(r), or sigmoid((r + log u − log(1−u))/tau).
 *   route (route_len)   noise NULL when serving or adapting   mix, weights (Lp,K), weights or NULL */
void bank_mix(const eng_bank *bank, const float *route, const struct bank_noise *noise, float *mix,
              float *weights);

/* Backward of bank_mix and of the merged prompt together.
 *   dmerged (Lp,P,H)   droute (route_len) overwritten; a tied route sums over the layers. */
void bank_mix_gradient(const eng_bank *bank, const float *route, const struct bank_noise *noise,
                       const float *dmerged, float *droute);

/* The intrinsic vector of a mix, and the prompt of an intrinsic vector: through both, a mix gives its
 * merged prompt.
 *   mix (Lp,K)   z (Lp,d) overwritten: Σ_k mix[l,k] z[l,k]
 *   z (Lp,d)     prompt (Lp,P,H) overwritten: z[l]·A[l] */
void bank_intrinsic(const eng_bank *bank, const float *mix, float *z);
void bank_intrinsic_prompt(const eng_bank *bank, const float *z, float *prompt);

/* Gradients of the bank itself from the gradient of one merged prompt p[l] = Σ_k mix[l,k] z[l,k]·A[l].
 *   mix (Lp,K)   dmerged (Lp,P,H)   dz (Lp,K,d), dA (Lp,d,P*H) accumulated; either may be NULL. */
void bank_za_gradient(const eng_bank *bank, const float *mix, const float *dmerged, float *dz,
                      float *dA);

#endif
