/* params.h (private): THE table of a backbone's parameters: canonical name, shape, place.
 *
 * Reading a checkpoint, the fingerprint, random models, gradients and writing a trained backbone all
 * walk this one table, in this order. Canonical names are those of a bare BERT checkpoint
 * ("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight", …). Any thread.
 */
#ifndef ENGINE_PARAMS_H
#define ENGINE_PARAMS_H

#include "engine/model.h"

struct param {
    char name[96];
    size_t dims;         /* 1 or 2 */
    size_t shape[2];     /* shape[1] is 1 when dims is 1 */
    size_t count;        /* product of shape; params_shape checked that it fits */
    const float **place; /* where struct encoder_params keeps its pointer */
};

/* Sets `in` and `out` of every linear map from the sizes (layers, hidden, …) in `params`. False when
 * a size or the sum of all parameters does not fit size_t. */
bool params_shape(struct encoder_params *params);
/* 5 + 16 a layer. */
size_t params_count(const struct encoder_params *params);
/* Entry i < params_count. */
void params_at(struct encoder_params *params, size_t i, struct param *out);
/* Sum of all counts. */
size_t params_total(struct encoder_params *params);

/* The linear maps of a layer, in the table's order. */
#define LAYER_LINEARS 6
void layer_linears(struct layer_params *layer, struct linear *out[LAYER_LINEARS]);

#endif
