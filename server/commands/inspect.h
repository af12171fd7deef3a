/* inspect.h: what the parts of `mp2 inspect` share (cmd_inspect.c, inspect_mlm.c). */
#ifndef SERVER_INSPECT_H
#define SERVER_INSPECT_H

#include "engine/engine.h"

struct json_t;

struct inspect_args {
    const char *model, *bank, *text, *ids, *row, *prompt_tokens, *top;
    bool json, tensors, tied;
};

/* Prints the sentence; the exit code that fits. */
int inspect_report(eng_status status, const eng_error *err);
/* Prints `root` and lets go of it; an exit code. NULL: out of memory. */
int inspect_print(struct json_t *root);
/* "101,1,2" as token ids, at most as many as the model has positions. An exit code; the caller frees
 * *ids in any case. */
int inspect_ids(const eng_model *model, const char *text, int32_t **ids, size_t *len);

/* mp2 inspect mlm: an exit code. */
int inspect_mlm(const eng_model *model, const struct inspect_args *args);

#endif
