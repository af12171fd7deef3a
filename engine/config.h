/* config.h (private): config.json of a model directory. Any thread.
 *
 * Hugging Face's BERT names (hidden_size, num_hidden_layers, …) or, for CPT, BART's (d_model,
 * encoder_layers, …). What would change the result but is not computed here (another activation,
 * relative positions, RoBERTa's shifted positions) is ENG_EUNSUPPORTED rather than ignored.
 */
#ifndef ENGINE_CONFIG_H
#define ENGINE_CONFIG_H

#include "engine/model.h"

#define CONFIG_MAX_HIDDEN    16384
#define CONFIG_MAX_FFN       65536
#define CONFIG_MAX_VOCAB     4000000
#define CONFIG_MAX_POSITIONS 65536
#define CONFIG_MAX_TYPES     64

/* Fills the sizes and epsilon of `params` (nothing else is touched) and checks every limit; `what`
 * names the text in errors. *positions_from_file: true for CPT, whose encoder may have other positions
 * than its config says. */
ENG_MUST_CHECK eng_status config_parse(const char *text, size_t len, const char *what,
                                       struct encoder_params *params, bool *positions_from_file,
                                       eng_error *err);
ENG_MUST_CHECK eng_status config_read(const char *path, struct encoder_params *params,
                                      bool *positions_from_file, eng_error *err);

#endif
