/* pretrain_model.c: models whose weights are ours to write. A model's weights lie in a mapping or a
 * converted block that nobody may change; here they are in one block of the model's own, without packed
 * copies, which a step would make stale: the kernel packs as it goes.
 */
#include "engine/arena.h"
#include "engine/mapfile.h"
#include "engine/pretrain.h"
#include "engine/status.h"

#include <string.h>

static eng_status read_vocab(const char *path, struct tokenizer **tokenizer, eng_error *err)
{
    struct tokenizer_options options = tokenizer_defaults();
    struct mapfile map = {.fd = -1};
    eng_status status = mapfile_open(path, TOKENIZER_MAX_FILE_BYTES, &map, err);
    if (status == ENG_OK) {
        status = tokenizer_from_vocab((eng_text){(const char *)map.data, map.size}, &options,
                                      tokenizer, err);
    }
    mapfile_close(&map);
    return status;
}

eng_status pretrain_model_random(const char *vocab, const eng_model_info *shape, bool plain_start,
                                 uint64_t seed, eng_model **out, eng_error *err)
{
    struct tokenizer *tokenizer = NULL;
    eng_model_info sizes = *shape;
    *out = NULL;
    eng_status status = read_vocab(vocab, &tokenizer, err);
    if (status == ENG_OK) {
        sizes.vocab = tokenizer_size(tokenizer);
        sizes.types = 2;
        status = model_random_bare(&sizes, seed, out, err);
    }
    if (status != ENG_OK) {
        tokenizer_free(tokenizer);
        return status;
    }
    if (!plain_start) {
        pretrain_start_looking(&(*out)->params);
    }
    (*out)->tokenizer = tokenizer;
    model_describe(*out);
    return ENG_OK;
}

/* Every parameter into one block, in table order. */
static eng_status take_weights(eng_model *model, eng_error *err)
{
    struct encoder_params *params = &model->params;
    struct arena plan = arena_plan(), arena;
    (void)arena_floats(&plan, params_total(params), 1);
    eng_status status = arena_init(&arena, &plan, "weights", err);
    if (status != ENG_OK) {
        return status;
    }
    float *block = (float *)(void *)arena.base;
    model->block = arena.base; /* the model frees it */
    for (size_t i = 0; i < params_count(params); i++) {
        struct param param;
        params_at(params, i, &param);
        memcpy(block, *param.place, param.count * sizeof *block);
        *param.place = block;
        block += param.count;
    }
    return ENG_OK;
}

eng_status pretrain_model_own(const char *dir, eng_model **out, eng_error *err)
{
    eng_status status = model_open_bare(dir, out, err);
    if (status != ENG_OK) {
        return status;
    }
    status = take_weights(*out, err);
    if (status != ENG_OK) {
        eng_model_free(*out);
        *out = NULL;
    }
    return status;
}
