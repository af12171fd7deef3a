/* params.c: the parameter table, generated from the sizes rather than stored. */
#include "engine/params.h"

#include "engine/status.h"

#include <stdio.h>
#include <string.h>

#define PARAMS_FIXED     5
#define PARAMS_PER_LAYER 16

/* The linear maps and norms of one layer, in table order: weight then bias of each. */
struct layer_entry {
    const char *name;
    struct linear *linear;
    struct layernorm *norm;
};

#define LAYER_ENTRIES 8

static void layer_entries(struct layer_params *layer, struct layer_entry out[LAYER_ENTRIES])
{
    const struct layer_entry entries[LAYER_ENTRIES] = {
        {"attention.self.query", &layer->q, NULL},
        {"attention.self.key", &layer->k, NULL},
        {"attention.self.value", &layer->v, NULL},
        {"attention.output.dense", &layer->o, NULL},
        {"attention.output.LayerNorm", NULL, &layer->attention_norm},
        {"intermediate.dense", &layer->up, NULL},
        {"output.dense", &layer->down, NULL},
        {"output.LayerNorm", NULL, &layer->output_norm},
    };
    memcpy(out, entries, sizeof entries);
}

static void set_linear(struct linear *linear, size_t in, size_t out)
{
    linear->in = in;
    linear->out = out;
}

bool params_shape(struct encoder_params *params)
{
    size_t hidden = params->hidden, ffn = params->ffn;
    for (size_t l = 0; l < params->layers; l++) {
        struct layer_params *layer = &params->layer[l];
        set_linear(&layer->q, hidden, hidden);
        set_linear(&layer->k, hidden, hidden);
        set_linear(&layer->v, hidden, hidden);
        set_linear(&layer->o, hidden, hidden);
        set_linear(&layer->up, hidden, ffn);
        set_linear(&layer->down, ffn, hidden);
    }
    size_t total = 0;
    for (size_t i = 0; i < params_count(params); i++) {
        struct param param;
        params_at(params, i, &param);
        size_t count = 0, bytes = 0;
        if (!size_mul(param.shape[0], param.shape[1], &count) || !size_add(total, count, &total) ||
            !size_mul(total, sizeof(float), &bytes)) {
            return false;
        }
    }
    return true;
}

size_t params_count(const struct encoder_params *params)
{
    return PARAMS_FIXED + PARAMS_PER_LAYER * params->layers;
}

static void set_param(struct param *out, size_t rows, size_t columns, const float **place)
{
    out->dims = columns > 0 ? 2 : 1;
    out->shape[0] = rows;
    out->shape[1] = columns > 0 ? columns : 1;
    out->count = out->shape[0] * out->shape[1];
    out->place = place;
}

static void fixed_param(struct encoder_params *params, size_t i, struct param *out)
{
    size_t hidden = params->hidden;
    const struct {
        const char *name;
        size_t rows, columns;
        const float **place;
    } table[PARAMS_FIXED] = {
        {"word_embeddings.weight", params->vocab, hidden, &params->word},
        {"position_embeddings.weight", params->positions, hidden, &params->position},
        {"token_type_embeddings.weight", params->types, hidden, &params->type},
        {"LayerNorm.weight", hidden, 0, &params->embedding_norm.w},
        {"LayerNorm.bias", hidden, 0, &params->embedding_norm.b},
    };
    snprintf(out->name, sizeof out->name, "embeddings.%s", table[i].name);
    set_param(out, table[i].rows, table[i].columns, table[i].place);
}

void params_at(struct encoder_params *params, size_t i, struct param *out)
{
    *out = (struct param){0};
    if (i < PARAMS_FIXED) {
        fixed_param(params, i, out);
        return;
    }
    size_t l = (i - PARAMS_FIXED) / PARAMS_PER_LAYER;
    size_t within = (i - PARAMS_FIXED) % PARAMS_PER_LAYER;
    struct layer_entry entries[LAYER_ENTRIES];
    layer_entries(&params->layer[l], entries);
    const struct layer_entry *entry = &entries[within / 2];
    bool is_bias = within % 2 == 1;
    snprintf(out->name, sizeof out->name, "encoder.layer.%zu.%s.%s", l, entry->name,
             is_bias ? "bias" : "weight");
    if (entry->norm != NULL) {
        set_param(out, params->hidden, 0, is_bias ? &entry->norm->b : &entry->norm->w);
    } else if (is_bias) {
        set_param(out, entry->linear->out, 0, &entry->linear->b);
    } else {
        set_param(out, entry->linear->out, entry->linear->in, &entry->linear->w);
    }
}

size_t params_total(struct encoder_params *params)
{
    size_t total = 0;
    for (size_t i = 0; i < params_count(params); i++) {
        struct param param;
        params_at(params, i, &param);
        total += param.count;
    }
    return total;
}

void layer_linears(struct layer_params *layer, struct linear *out[LAYER_LINEARS])
{
    struct linear *linears[LAYER_LINEARS] = {&layer->q, &layer->k,  &layer->v,
                                             &layer->o, &layer->up, &layer->down};
    memcpy(out, linears, sizeof linears);
}
