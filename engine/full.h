/* full.h (private): a backbone of one's own, for the method that tunes every weight.
 *
 * The caller's model and bank never change: training works on a copy of the weights, and on a bank that
 * is the caller's but for the model it points at. One thread.
 */
#ifndef ENGINE_FULL_H
#define ENGINE_FULL_H

#include "engine/trainer.h"

/* The part: every backbone weight in the table's order, then the head. The sequences carry the start's
 * route. Needs learner->own_model. */
extern const struct learn_part learn_full;

/* A copy of the weights that may be changed, without vocabulary; and a bank for it, which borrows what
 * `bank` owns. */
ENG_MUST_CHECK eng_status full_copy_model(const eng_model *model, eng_model **out, eng_error *err);
ENG_MUST_CHECK eng_status full_borrow_bank(const eng_bank *bank, const eng_model *model,
                                           eng_bank **out, eng_error *err);
/* Sets the copy to `params`, and makes it ready to serve. */
ENG_MUST_CHECK eng_status full_finish(eng_model *copy, const float *params, eng_error *err);
void full_free_bank(eng_bank *borrowed);

#endif
