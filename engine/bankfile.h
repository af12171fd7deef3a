/* bankfile.h (private): what opening and converting a prompt bank share. Any thread. */
#ifndef ENGINE_BANKFILE_H
#define ENGINE_BANKFILE_H

#include "engine/weights.h"
#include "engine/weights_impl.h"

#define BANK_MAX_MODULES       256
#define BANK_MAX_INTRINSIC     8192
#define BANK_MAX_PROMPT_TOKENS 4096
#define BANK_MAX_ROWS          100000
#define BANK_DEFAULT_SEPARATOR "，"

/* Sizes of a bank, with the layer dimension put in where a shallow file leaves it out. */
struct bank_shape {
    size_t layers, modules, intrinsic, prompt_tokens, hidden, rows;
    size_t A[3], z[3], router[3];
};

/* Checks that A, z, router, lmhead and qa_bias are there and fit together. */
ENG_MUST_CHECK eng_status bank_read_shape(const struct weights *weights, struct bank_shape *shape,
                                          eng_error *err);
/* Values of a tensor that is there, finite or refused; malloc'ed, the caller's. */
ENG_MUST_CHECK eng_status bank_read_tensor(const struct weights *weights, const char *name,
                                           float **out, eng_error *err);

/* Step size and steps of the route method when a bank does not say: the paper's for its sizes; small
 * banks want larger steps. */
double bank_default_lr(size_t hidden);
/* First id of the prompt when a bank does not say: the paper's, where the vocabulary has it. */
uint32_t bank_default_offset(size_t vocab, size_t prompt_tokens);
size_t bank_default_steps(size_t hidden);

/* The bank's sizes and ids fit its model: ENG_EMISMATCH names what does not. `path`: for the text. */
struct eng_bank;
ENG_MUST_CHECK eng_status bank_check_model(const struct eng_bank *bank, const char *path,
                                           eng_error *err);

/* "shallow.bank.safetensors" → "shallow", cut to `size`. */
void bank_base_name(const char *file, char *name, size_t size);

#endif
