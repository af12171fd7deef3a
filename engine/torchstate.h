/* torchstate.h (private): from a parsed pickle to named tensors. */
#ifndef ENGINE_TORCHSTATE_H
#define ENGINE_TORCHSTATE_H

#include "engine/pickle.h"
#include "engine/weights_impl.h"

/* Finds the bytes of storage `i`: count · dtype_size of them, inside the file. */
typedef eng_status (*torch_storage_find)(void *arg, const struct pickle_storage *storage,
                                         const unsigned char **out, eng_error *err);

/* Adds the tensors of a state dictionary to `weights`: those of the root dictionary and of the
 * dictionaries that wrap a model ("state_dict", "model", …) in it. Other nested dictionaries (an
 * optimiser's state) are left out. Views are checked against their storage. */
ENG_MUST_CHECK eng_status torchstate_collect(const struct pickle *pickle, torch_storage_find find,
                                             void *arg, struct weights *weights, eng_error *err);

#endif
