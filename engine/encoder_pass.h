/* encoder_pass.h (private to encoder*.c): a packed batch, where a layer's values lie, and the steps
 * that inference (encoder.c) and training (encoder_tape.c, encoder_backward.c) share.
 *
 * One thread at a time per batch; every step that computes expects the caller to hold the turn.
 */
#ifndef ENGINE_ENCODER_PASS_H
#define ENGINE_ENCODER_PASS_H

#include "engine/arena.h"
#include "engine/encoder.h"
#include "engine/gemm.h"

/* Dropout: each value is kept with probability 1 - rate and then divided by it. Which values fall out is
 * a function of key, place and position, so backward makes the mask again and nothing is stored. */
struct dropout {
    float rate; /* 0: none */
    uint64_t key;
};
/* The places: the embeddings, and of layer l the outputs of attention and of the ffn. */
#define DROPOUT_EMBEDDINGS   ((size_t)0)
#define DROPOUT_ATTENTION(l) (1 + 2 * (l))
#define DROPOUT_FFN(l)       (2 + 2 * (l))
/* x ← x · mask / (1 − rate)     one row, x (n) */
void dropout_row(const struct dropout *dropout, size_t place, size_t row, float *x, size_t n);

/* Sequences end to end. Copies what a pass needs, so that nothing borrowed outlives the call that
 * set it but the banks, mixes and prompts of `sequences`. */
struct batch {
    size_t max_tokens, max_sequences;
    size_t n, tokens;
    struct dropout dropout;
    bool bare;       /* sequences without banks: token type 0, no prompts, no head */
    size_t *offsets; /* (n+1) first row of each sequence */
    eng_sequence *sequences;
    int32_t *ids, *positions, *types; /* (T) */
    /* What the head reads. */
    bool some;            /* not every row */
    size_t *read_offsets; /* (n+1) first row of each sequence among those read */
    size_t *read;         /* (read_offsets[n]) rows */
};

/* Row strides in floats. */
struct strides {
    size_t hidden, qkv, ffn;
};

/* One layer's values, row-major. Those marked * may be NULL when nothing is kept. */
struct layer_values {
    float *x;              /* (T,H) input, the prompt added */
    float *qkv;            /* (T,3H) queries, keys, values side by side */
    float *context;        /* (T,H) attention's output */
    float *sum;            /* (T,H) output of o, then of down: scratch */
    float *middle;         /* (T,H) after attention_norm */
    float *up;             /* (T,F) before GELU */
    float *gelu;           /* (T,F) after; may be `up` */
    float *y;              /* (T,H) output; may be x */
    float *attention_xhat; /* (T,H) * */
    float *attention_rstd; /* (T)   * */
    float *output_xhat;    /* (T,H) * */
    float *output_rstd;    /* (T)   * */
};

void batch_carve(struct batch *batch, struct arena *arena, size_t max_tokens, size_t max_sequences);
/* Checks every id, length, bank (unless `bare`) and place of a batch, and fills it in. Errors name the
 * sequence. */
ENG_MUST_CHECK eng_status batch_set(struct batch *batch, const eng_model *model,
                                    const eng_sequence *sequences, size_t n, bool bare,
                                    eng_error *err);

struct strides strides_of(const struct encoder_params *params);

/* h = LayerNorm(word[id] + position[t] + type[c])       xhat, rstd: kept, or NULL */
void pass_embed(eng_compute *compute, const struct encoder_params *params,
                const struct batch *batch, float *h, float *xhat, float *rstd);
/* Before layer l < Lp of each sequence's bank:  h[1..P] += p[l] */
void pass_inject(eng_compute *compute, const struct encoder_params *params,
                 const struct batch *batch, size_t l, float *h);
/* `some`: the rows of batch->read alone, which are then the first rows of y (and of x, which must be
 * ours to change). Gives way to who is more urgent than `who`, also before its first part. */
void pass_layer(eng_compute *compute, eng_class who, const struct encoder_params *params,
                const struct layer_params *layer, const struct batch *batch,
                const struct layer_values *v, bool some);
/* The head of a sequence: weights (2,H), biases (2). */
struct head {
    const float *w, *b;
};
static inline struct head head_of(const eng_sequence *sequence, size_t hidden)
{
    if (sequence->head != NULL) {
        return (struct head){sequence->head, sequence->head + 2 * hidden};
    }
    return (struct head){sequence->bank->head_w, sequence->bank->head_b};
}
/* start[t] = h[t]·head[0] + b[0], end likewise, with each sequence's own head. `some`: h is as
 * pass_layer leaves it; other logits are NaN. */
void pass_head(eng_compute *compute, const struct encoder_params *params, const struct batch *batch,
               const float *h, bool some, float *start, float *end);

/* Row loops: tasks of ROWS_PER_TASK rows. */
#define ROWS_PER_TASK ((size_t)16)
static inline size_t row_tasks(size_t rows)
{
    return (rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
}
static inline size_t task_end(size_t task, size_t rows)
{
    size_t end = (task + 1) * ROWS_PER_TASK;
    return end < rows ? end : rows;
}

#endif
