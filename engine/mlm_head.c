/* mlm_head.c: the masked language modelling head's parameters: their table, and reading them from the files
 * of a model that has them.
 */
#include "engine/mlm.h"
#include "engine/params.h"
#include "engine/status.h"

#include <stdio.h>

static void set_param(struct param *out, const char *name, size_t dims, size_t rows, size_t columns,
                      const float **place)
{
    *out = (struct param){
        .dims = dims, .shape = {rows, columns}, .count = rows * columns, .place = place};
    snprintf(out->name, sizeof out->name, "cls.predictions.%s", name);
}

void mlm_params_at(const struct encoder_params *encoder, struct mlm_params *head, size_t i,
                   struct param *out)
{
    size_t H = encoder->hidden;
    switch (i) {
    case 0:
        set_param(out, "transform.dense.weight", 2, H, H, &head->dense.w);
        return;
    case 1:
        set_param(out, "transform.dense.bias", 1, H, 1, &head->dense.b);
        return;
    case 2:
        set_param(out, "transform.LayerNorm.weight", 1, H, 1, &head->norm.w);
        return;
    case 3:
        set_param(out, "transform.LayerNorm.bias", 1, H, 1, &head->norm.b);
        return;
    default:
        set_param(out, "bias", 1, encoder->vocab, 1, &head->bias);
        return;
    }
}

size_t mlm_params_total(const struct encoder_params *encoder)
{
    struct mlm_params head;
    size_t total = 0;
    for (size_t i = 0; i < MLM_PARAMS; i++) {
        struct param param;
        mlm_params_at(encoder, &head, i, &param);
        total += param.count;
    }
    return total;
}

void mlm_params_place(const struct encoder_params *encoder, struct mlm_params *head, float *block)
{
    *head = (struct mlm_params){.dense = {.in = encoder->hidden, .out = encoder->hidden}};
    for (size_t i = 0; i < MLM_PARAMS; i++) {
        struct param param;
        mlm_params_at(encoder, head, i, &param);
        *param.place = block;
        block = block != NULL ? block + param.count : NULL;
    }
}

/* Names of what the model's files lack, cut at `size`; true when there are none. */
static bool has_all(const eng_model *model, char *missing, size_t size)
{
    size_t used = 0;
    missing[0] = '\0';
    for (size_t i = 0; i < MLM_PARAMS && used < size; i++) {
        struct mlm_params head;
        struct param param;
        mlm_params_at(&model->params, &head, i, &param);
        if (!model_has_param(model, &param)) {
            used += (size_t)snprintf(missing + used, size - used, "%s%s", used > 0 ? ", " : "",
                                     param.name);
        }
    }
    return used == 0;
}

bool mlm_params_in(const eng_model *model)
{
    char missing[224];
    return has_all(model, missing, sizeof missing);
}

eng_status mlm_params_read(const eng_model *model, struct mlm_params *head, float *block,
                           eng_error *err)
{
    char missing[224];
    if (!has_all(model, missing, sizeof missing)) {
        return fail(err, ENG_EUNSUPPORTED, "cls.predictions",
                    "the model has no masked-language head: missing are %s", missing);
    }
    mlm_params_place(&model->params, head, block);
    eng_status status = ENG_OK;
    for (size_t i = 0; status == ENG_OK && i < MLM_PARAMS; i++) {
        struct param param;
        mlm_params_at(&model->params, head, i, &param);
        status = model_read_param(model, &param, block, err);
        block += param.count;
    }
    return status;
}
