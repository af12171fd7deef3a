/* pretrain_batch.c: masked batches. Of every piece 15 % (limits.mask) of the tokens are to be predicted, at
 * least one: 80 % of them are written [MASK], 10 % become any other word, 10 % stay as they are.
 *
 * A piece that no longer fits is put back, generator and all, so that between two batches the stream's
 * offsets and the generator are the whole state.
 */
#include "engine/pretrain.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

eng_status mlm_words_init(const struct tokenizer *tokenizer, struct mlm_words *words,
                          eng_error *err)
{
    size_t size = tokenizer_size(tokenizer);
    words->cls = tokenizer_cls(tokenizer);
    words->sep = tokenizer_sep(tokenizer);
    words->mask = tokenizer_id(tokenizer, "[MASK]");
    words->n = 0;
    words->ids = calloc(size, sizeof *words->ids);
    if (words->ids == NULL) {
        return fail_nomem(err, "vocab");
    }
    for (size_t id = 0; id < size; id++) {
        const char *token = tokenizer_string(tokenizer, (int32_t)id);
        size_t len = strlen(token);
        if (!(len > 2 && token[0] == '[' && token[len - 1] == ']')) {
            words->ids[words->n++] = (int32_t)id;
        }
    }
    if (words->mask < 0 || words->n == 0) {
        return fail(err, ENG_EFORMAT, "vocab", "the vocabulary has %s",
                    words->mask < 0 ? "no [MASK]" : "no words");
    }
    return ENG_OK;
}

eng_status mlm_batch_init(const struct mlm_limits *limits, struct mlm_batch *batch, eng_error *err)
{
    size_t tokens = limits->batch_tokens;
    *batch = (struct mlm_batch){.max_sequences = tokens / 3, .max_targets = tokens / 2};
    batch->ids = calloc(tokens, sizeof *batch->ids);
    batch->sequences = calloc(batch->max_sequences, sizeof *batch->sequences);
    batch->rows = calloc(batch->max_targets, sizeof *batch->rows);
    batch->targets = calloc(batch->max_targets, sizeof *batch->targets);
    if (batch->ids == NULL || batch->sequences == NULL || batch->rows == NULL ||
        batch->targets == NULL) {
        mlm_batch_fini(batch);
        return fail_nomem(err, "batch_tokens");
    }
    return ENG_OK;
}

void mlm_batch_fini(struct mlm_batch *batch)
{
    free(batch->ids);
    free(batch->sequences);
    free(batch->rows);
    free(batch->targets);
    *batch = (struct mlm_batch){0};
}

static void mask_one(struct mlm_batch *batch, const struct mlm_words *words, struct rng *rng,
                     size_t row)
{
    batch->rows[batch->n_targets] = row;
    batch->targets[batch->n_targets++] = batch->ids[row];
    double u = rng_uniform(rng);
    if (u < 0.8) {
        batch->ids[row] = words->mask;
    } else if (u < 0.9) {
        batch->ids[row] = words->ids[rng_below(rng, words->n)];
    }
}

/* Rows from … from+n-1 hold one piece. A third of the batch is the most that short pieces can force; the
 * half there is room for is never reached at the rates allowed but by chance, and then it is enough. */
static void mask_piece(struct mlm_batch *batch, const struct mlm_words *words, double rate,
                       struct rng *rng, size_t from, size_t n)
{
    size_t before = batch->n_targets;
    for (size_t t = from; t < from + n; t++) {
        if (rng_uniform(rng) < rate && batch->n_targets < batch->max_targets) {
            mask_one(batch, words, rng, t);
        }
    }
    if (batch->n_targets == before && batch->n_targets < batch->max_targets) {
        mask_one(batch, words, rng, from + (size_t)rng_below(rng, n));
    }
}

eng_status mlm_batch_fill(struct mlm_batch *batch, const struct mlm_limits *limits,
                          const struct tokenizer *tokenizer, const struct mlm_words *words,
                          struct textstream *text, bool once, struct rng *rng, eng_error *err)
{
    int32_t *piece = malloc(limits->max_len * sizeof *piece);
    if (piece == NULL) {
        return fail_nomem(err, "max_len");
    }
    eng_status status = ENG_OK;
    batch->n = batch->tokens = batch->n_targets = 0;
    while (batch->n < batch->max_sequences) {
        struct rng kept = *rng;
        uint64_t at[TEXT_MAX_LANES], passes = text->passes;
        memcpy(at, text->at, sizeof at);
        size_t n = 0, lane = (size_t)rng_below(rng, text->lanes);
        status = textstream_next(text, tokenizer, lane, limits->max_len - 2, piece, &n, err);
        if (once && text->passes > 0) {
            break;
        }
        if (status != ENG_OK || n + 2 > limits->batch_tokens - batch->tokens) {
            *rng = kept;
            memcpy(text->at, at, sizeof at);
            text->passes = passes;
            break;
        }
        int32_t *ids = batch->ids + batch->tokens;
        ids[0] = words->cls;
        memcpy(ids + 1, piece, n * sizeof *ids);
        ids[n + 1] = words->sep;
        mask_piece(batch, words, limits->mask, rng, batch->tokens + 1, n);
        batch->sequences[batch->n++] = (eng_sequence){.ids = ids, .len = n + 2};
        batch->tokens += n + 2;
    }
    free(piece);
    return status;
}
