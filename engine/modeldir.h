/* modeldir.h (private): writing a trained model as a directory in Hugging Face's layout. One thread.
 *
 * Files appear whole or not at all, one by one: config.json and the vocabulary first, the weights last.
 */
#ifndef ENGINE_MODELDIR_H
#define ENGINE_MODELDIR_H

#include "engine/model.h"
#include "engine/pretrain_run.h"

#include <limits.h>

/* "dir/file" into path; ENG_ELIMIT when it is too long. */
ENG_MUST_CHECK eng_status modeldir_path(const char *dir, const char *file, char path[PATH_MAX],
                                        eng_error *err);
/* Makes the directory unless it is there. */
ENG_MUST_CHECK eng_status modeldir_make(const char *dir, eng_error *err);
/* Copies a small file; its absence is ENG_ENOTFOUND. */
ENG_MUST_CHECK eng_status modeldir_copy(const char *from, const char *dir, const char *name,
                                        eng_error *err);
/* config.json and model.safetensors: the backbone under "bert.", and the tensors of a head, if any,
 * under their own names. `architecture`: "BertForMaskedLM", "BertModel". Existing files are replaced. */
ENG_MUST_CHECK eng_status modeldir_write(const char *dir, eng_model *model,
                                         const char *architecture, const struct run_tensor *head,
                                         size_t n, eng_error *err);

#endif
