/* tokens.c: the public face of the tokenizer. */
#include "engine/model.h"
#include "engine/status.h"
#include "engine/tokenizer.h"

eng_status eng_tokenize(const eng_model *model, eng_text text, eng_token **tokens, size_t *n,
                        eng_error *err)
{
    struct token_list list = {0};
    *tokens = NULL;
    *n = 0;
    if (model->tokenizer == NULL) {
        return fail(err, ENG_EINVAL, "model", "%s has no vocab.txt: it takes ids, not text",
                    model->name);
    }
    eng_status status = tokenizer_run(model->tokenizer, text, &list, NULL, err);
    if (status != ENG_OK) {
        token_list_fini(&list);
        return status;
    }
    *tokens = list.tokens;
    *n = list.n;
    return ENG_OK;
}

const char *eng_token_string(const eng_model *model, int32_t id)
{
    return model->tokenizer != NULL ? tokenizer_string(model->tokenizer, id) : NULL;
}
