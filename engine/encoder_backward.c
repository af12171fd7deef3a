/* encoder_backward.c: the backbone backward. Numbered against pass_layer of encoder.c:
 *
 *   (1) q, k, v = x·Wᵀ + b   (2) c = attention   (3) o = c·Woᵀ + bo   (4) m = LN(x + o)
 *   (5) u = m·Wupᵀ + bup     (6) g = gelu(u)     (7) d = g·Wdownᵀ + bdown   (8) y = LN(m + d)
 *
 * given dy:
 *   (8') ds = LN'(dy)                       of the sum m + d: it is dd, and a part of dm
 *   (7') dg = ds·Wdown     (6') du = dg·gelu'(u)     (5') dm = ds + du·Wup
 *   (4') ds = LN'(dm)                       of the sum x + o: it is do, and a part of dx
 *   (3') dc = ds·Wo        (2') dq, dk, dv           (1') dx = ds + dq·Wq + dk·Wk + dv·Wv
 * and dp[l] = dx at rows 1..P, since the prompt was added to x.
 *
 * A frozen backbone stops there. WANT_WEIGHTS also sums dW += dyᵀ·x and db += Σ dy over the tokens,
 * each element in one thread and in the order of the rows, so it too is the same for any split.
 * reference: tests/golden, every parameter; finite differences in tests/unit/test_ops.c.
 */
#include "engine/attention.h"
#include "engine/encoder_tape.h"
#include "engine/ops.h"
#include "engine/params.h"
#include "engine/pool.h"
#include "engine/status.h"

#include <string.h>

/* One backward in progress. */
struct backward {
    eng_compute *compute;
    eng_class who;
    struct encoder_tape *tape;
    const struct encoder_params *params;
    struct strides ld;
    size_t rows;
    enum simd simd;
    bool weights;
};

/* Between two loops: a prediction that waits goes first. A layer's backward pass takes milliseconds, as long
 * as a small prediction from end to end. */
static void give_way(const struct backward *b)
{
    compute_turn_yield(b->compute, b->who);
}

/* Gradient tables hold const pointers because parameters do; these are ours to write. */
static float *writable(const float *gradient)
{
    return (float *)(uintptr_t)gradient;
}

/* ---- norms ---- */

struct norm_job {
    const struct backward *b;
    const float *xhat, *rstd;
    const struct layernorm *norm;
    float *d; /* dy in, dx out */
};

static void norm_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct norm_job *job = arg;
    for (size_t t = index * ROWS_PER_TASK; t < task_end(index, job->b->rows); t++) {
        size_t at = t * job->b->ld.hidden;
        ops_layernorm_backward_row(job->b->simd, job->d + at, job->xhat + at, job->rstd[t],
                                   job->norm, job->b->params->hidden, job->d + at);
    }
}

struct sums_job {
    const float *dy, *xhat;
    size_t dy_stride, xhat_stride, rows, columns;
    float *dw, *db;
};

#define SUM_COLUMNS ((size_t)64)

static void sums_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct sums_job *job = arg;
    size_t from = index * SUM_COLUMNS, to = from + SUM_COLUMNS;
    ops_column_sums(job->dy, job->dy_stride, job->xhat, job->xhat_stride, job->rows, from,
                    to < job->columns ? to : job->columns, job->dw, job->db);
}

static void run_sums(const struct backward *b, struct sums_job *job)
{
    double work = 3.0 * (double)job->rows * (double)job->columns;
    pool_run(b->compute, (job->columns + SUM_COLUMNS - 1) / SUM_COLUMNS, work, sums_task, job);
}

/* d ← LN'(d); with weights also dw, db of the norm. */
static void norm_backward(const struct backward *b, const struct layernorm *norm,
                          const struct layernorm *gradient, const float *xhat, const float *rstd,
                          float *d)
{
    size_t H = b->params->hidden, ld = b->ld.hidden;
    if (b->weights) {
        struct sums_job sums = {
            d, xhat, ld, ld, b->rows, H, writable(gradient->w), writable(gradient->b)};
        run_sums(b, &sums);
    }
    struct norm_job job = {b, xhat, rstd, norm, d};
    pool_run(b->compute, row_tasks(b->rows), 10.0 * (double)b->rows * (double)H, norm_task, &job);
}

/* ---- linear maps ---- */

/* dx (+)= dy·W of the first `rows` rows */
static void rows_dx(const struct backward *b, size_t rows, const struct linear *linear,
                    const float *dy, size_t ldy, float *dx, size_t ldx, bool add)
{
    give_way(b);
    bool turned = linear->turned != NULL;
    struct gemm_product product = {.m = rows,
                                   .n = linear->in,
                                   .k = linear->out,
                                   .a = dy,
                                   .lda = ldy,
                                   .b = turned ? NULL : linear->w,
                                   .ldb = linear->in,
                                   .packed = turned ? linear->turned : linear->packed,
                                   .b_transposed = turned,
                                   .c = dx,
                                   .ldc = ldx,
                                   .add = add};
    gemm_run(b->compute, &product, 1);
}

static void linear_dx(const struct backward *b, const struct linear *linear, const float *dy,
                      size_t ldy, float *dx, size_t ldx, bool add)
{
    rows_dx(b, b->rows, linear, dy, ldy, dx, ldx, add);
}

/* dW += dyᵀ·x   db += Σ dy */
static void linear_dw(const struct backward *b, const struct linear *gradient, const float *dy,
                      size_t ldy, const float *x, size_t ldx)
{
    if (!b->weights) {
        return;
    }
    give_way(b);
    struct gemm_product product = {.m = gradient->out,
                                   .n = gradient->in,
                                   .k = b->rows,
                                   .a = dy,
                                   .lda = ldy,
                                   .a_transposed = true,
                                   .b = x,
                                   .ldb = ldx,
                                   .c = writable(gradient->w),
                                   .ldc = gradient->in,
                                   .add = true};
    gemm_run(b->compute, &product, 1);
    struct sums_job sums = {dy, NULL, ldy, 0, b->rows, gradient->out, NULL, writable(gradient->b)};
    run_sums(b, &sums);
}

/* ---- the elementwise steps ---- */

struct rows_job {
    const struct backward *b;
    const struct layer_values *v;
    const struct layernorm *norm;
};

static void gelu_backward_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct rows_job *job = arg;
    size_t from = index * ROWS_PER_TASK, rows = task_end(index, job->b->rows) - from;
    size_t at = from * job->b->ld.ffn;
    ops_gelu_backward_rows(job->b->simd, job->v->up + at, job->b->tape->dup + at, rows,
                           job->b->params->ffn, job->b->ld.ffn);
}

/* gelu(u) and m = x̂ w + b again, for weight gradients */
static void recompute_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct rows_job *job = arg;
    const struct backward *b = job->b;
    size_t from = index * ROWS_PER_TASK, end = task_end(index, b->rows);
    ops_gelu_rows(b->simd, job->v->up + from * b->ld.ffn, job->v->gelu + from * b->ld.ffn,
                  end - from, b->params->ffn, b->ld.ffn);
    for (size_t t = from; t < end; t++) {
        const float *xhat = job->v->attention_xhat + t * b->ld.hidden;
        float *middle = job->v->middle + t * b->ld.hidden;
        for (size_t i = 0; i < b->params->hidden; i++) {
            middle[i] = xhat[i] * job->norm->w[i] + job->norm->b[i];
        }
    }
}

static void run_rows(const struct backward *b, pool_task task, struct rows_job *job)
{
    double work = 30.0 * (double)b->rows * (double)b->params->ffn;
    give_way(b);
    pool_run(b->compute, row_tasks(b->rows), work, task, job);
}

/* ---- dropout ---- */

/* Where a gradient lies: d, rows ld floats apart. */
struct gradient_rows {
    float *d;
    size_t ld;
};

/* Through the dropout of `place`: dh itself without one, else a masked copy in dqkv, whose turn has not
 * come yet. dh stays as it is for the residual. */
static struct gradient_rows dropped(const struct backward *b, size_t place)
{
    struct encoder_tape *tape = b->tape;
    if (tape->batch.dropout.rate <= 0) {
        return (struct gradient_rows){tape->dh, b->ld.hidden};
    }
    for (size_t t = 0; t < b->rows; t++) {
        float *to = tape->dqkv + t * b->ld.qkv;
        memcpy(to, tape->dh + t * b->ld.hidden, b->params->hidden * sizeof *to);
        dropout_row(&tape->batch.dropout, place, t, to, b->params->hidden);
    }
    return (struct gradient_rows){tape->dqkv, b->ld.qkv};
}

/* ---- one layer ---- */

/* dh ← dL/d middle, dy in dh */
static void ffn_backward(const struct backward *b, size_t l)
{
    struct encoder_tape *tape = b->tape;
    const struct layer_values *v = &tape->values[l];
    const struct layer_params *layer = &b->params->layer[l], *gradient = &tape->gradient.layer[l];
    struct rows_job job = {b, v, &layer->attention_norm};
    if (b->weights) {
        run_rows(b, recompute_task, &job);
    }
    norm_backward(b, &layer->output_norm, &gradient->output_norm, v->output_xhat, v->output_rstd,
                  tape->dh); /* (8') */
    struct gradient_rows dd = dropped(b, DROPOUT_FFN(l));
    linear_dw(b, &gradient->down, dd.d, dd.ld, v->gelu, b->ld.ffn); /* (7') */
    linear_dx(b, &layer->down, dd.d, dd.ld, tape->dup, b->ld.ffn, false);
    run_rows(b, gelu_backward_task, &job);                                      /* (6') */
    linear_dw(b, &gradient->up, tape->dup, b->ld.ffn, v->middle, b->ld.hidden); /* (5') */
    linear_dx(b, &layer->up, tape->dup, b->ld.ffn, tape->dh, b->ld.hidden, true);
}

/* Prompt rows 1..P of every sequence, one after the other: dqkv in its own first rows, dh in dmiddle,
 * which nothing reads any more. How many. */
static size_t gather_prompt_rows(const struct backward *b)
{
    struct encoder_tape *tape = b->tape;
    const struct batch *batch = &tape->batch;
    size_t P = batch->sequences[0].bank->info.prompt_tokens, H = b->params->hidden;
    for (size_t s = 0; s < batch->n; s++) {
        for (size_t p = 0; p < P; p++) {
            size_t to = s * P + p, from = batch->offsets[s] + 1 + p; /* to < from: none is lost */
            memcpy(tape->dqkv + to * b->ld.qkv, tape->dqkv + from * b->ld.qkv,
                   3 * H * sizeof *tape->dqkv);
            memcpy(tape->dmiddle + to * b->ld.hidden, tape->dh + from * b->ld.hidden,
                   H * sizeof *tape->dh);
        }
    }
    return batch->n * P;
}

/* (1') of the first layer where only the prompt's gradient is read: at its rows, into dprompt. A row of
 * a product does not depend on the others, so these are the bits of the whole. */
static void first_dx(const struct backward *b, float *dprompt)
{
    struct encoder_tape *tape = b->tape;
    const struct layer_params *layer = &b->params->layer[0];
    const struct linear *linears[3] = {&layer->q, &layer->k, &layer->v};
    const eng_bank_info *bank = &tape->batch.sequences[0].bank->info;
    size_t H = b->params->hidden, P = bank->prompt_tokens, rows = gather_prompt_rows(b);
    for (size_t i = 0; i < 3; i++) {
        rows_dx(b, rows, linears[i], tape->dqkv + i * H, b->ld.qkv, tape->dmiddle, b->ld.hidden,
                true);
    }
    for (size_t r = 0; r < rows; r++) {
        memcpy(dprompt + (r / P * bank->layers * P + r % P) * H, tape->dmiddle + r * b->ld.hidden,
               H * sizeof *dprompt);
    }
}

/* dh ← dL/d x, dL/d middle in dh; with `first`, dL/d prompt of the first layer there instead */
static void attention_part_backward(const struct backward *b, size_t l, float *first)
{
    struct encoder_tape *tape = b->tape;
    const struct layer_values *v = &tape->values[l];
    const struct layer_params *layer = &b->params->layer[l], *gradient = &tape->gradient.layer[l];
    size_t H = b->params->hidden;
    norm_backward(b, &layer->attention_norm, &gradient->attention_norm, v->attention_xhat,
                  v->attention_rstd, tape->dh); /* (4') */
    struct gradient_rows d_o = dropped(b, DROPOUT_ATTENTION(l));
    linear_dw(b, &gradient->o, d_o.d, d_o.ld, v->context, b->ld.hidden); /* (3') */
    linear_dx(b, &layer->o, d_o.d, d_o.ld, tape->dmiddle, b->ld.hidden, false);
    struct attention attention = {.n = tape->batch.n,
                                  .offsets = tape->batch.offsets,
                                  .heads = b->params->heads,
                                  .width = H / b->params->heads,
                                  .q = v->qkv,
                                  .k = v->qkv + H,
                                  .v = v->qkv + 2 * H,
                                  .stride = b->ld.qkv,
                                  .out_stride = b->ld.hidden,
                                  .dout = tape->dmiddle,
                                  .dq = tape->dqkv,
                                  .dk = tape->dqkv + H,
                                  .dv = tape->dqkv + 2 * H};
    give_way(b);
    attention_backward(b->compute, &attention); /* (2') */
    if (first != NULL) {
        first_dx(b, first);
        return;
    }
    const struct linear *linears[3] = {&layer->q, &layer->k, &layer->v};
    const struct linear *gradients[3] = {&gradient->q, &gradient->k, &gradient->v};
    for (size_t i = 0; i < 3; i++) { /* (1') */
        linear_dw(b, gradients[i], tape->dqkv + i * H, b->ld.qkv, v->x, b->ld.hidden);
        linear_dx(b, linears[i], tape->dqkv + i * H, b->ld.qkv, tape->dh, b->ld.hidden, true);
    }
}

/* dprompt[s,l] = dx at rows 1..P */
static void copy_prompt_gradient(const struct backward *b, size_t l, float *dprompt)
{
    const struct batch *batch = &b->tape->batch;
    const eng_bank_info *bank = &batch->sequences[0].bank->info;
    size_t H = b->params->hidden, P = bank->prompt_tokens;
    for (size_t s = 0; s < batch->n && l < bank->layers; s++) {
        for (size_t p = 0; p < P; p++) {
            const float *row = b->tape->dh + (batch->offsets[s] + 1 + p) * b->ld.hidden;
            memcpy(dprompt + ((s * bank->layers + l) * P + p) * H, row, H * sizeof *row);
        }
    }
}

/* ---- both ends ---- */

/* dh = dstart·head[0] + dend·head[1]     dhead[0] += Σ dstart h   dbias[0] += Σ dstart */
static void head_backward(const struct backward *b, const float *dstart, const float *dend)
{
    struct encoder_tape *tape = b->tape;
    size_t H = b->params->hidden;
    for (size_t s = 0; s < tape->batch.n; s++) {
        const float *head = head_of(&tape->batch.sequences[s], H).w;
        for (size_t t = tape->batch.offsets[s]; t < tape->batch.offsets[s + 1]; t++) {
            float *dh = tape->dh + t * b->ld.hidden;
            const float *h = tape->h + t * b->ld.hidden;
            memset(dh, 0, H * sizeof *dh);
            ops_add_scaled(b->simd, head, dstart[t], dh, H);
            ops_add_scaled(b->simd, head + H, dend[t], dh, H);
            if (tape->head_gradient != NULL) {
                ops_add_scaled(b->simd, h, dstart[t], tape->head_gradient, H);
                ops_add_scaled(b->simd, h, dend[t], tape->head_gradient + H, H);
                tape->head_gradient[2 * H] += dstart[t];
                tape->head_gradient[2 * H + 1] += dend[t];
            }
        }
    }
}

static void embed_backward(const struct backward *b)
{
    struct encoder_tape *tape = b->tape;
    const struct batch *batch = &tape->batch;
    size_t H = b->params->hidden;
    for (size_t t = 0; t < b->rows; t++) {
        dropout_row(&batch->dropout, DROPOUT_EMBEDDINGS, t, tape->dh + t * b->ld.hidden, H);
    }
    norm_backward(b, &b->params->embedding_norm, &tape->gradient.embedding_norm,
                  tape->embedding_xhat, tape->embedding_rstd, tape->dh);
    for (size_t t = 0; t < b->rows; t++) {
        const float *d = tape->dh + t * b->ld.hidden;
        float *rows[3] = {
            writable(tape->gradient.word) + (size_t)batch->ids[t] * H,
            writable(tape->gradient.position) + (size_t)batch->positions[t] * H,
            writable(tape->gradient.type) + (size_t)batch->types[t] * H,
        };
        for (size_t i = 0; i < 3; i++) {
            ops_add_scaled(b->simd, d, 1, rows[i], H);
        }
    }
}

static eng_status check_banks(const struct encoder_tape *tape, eng_error *err)
{
    const struct batch *batch = &tape->batch;
    const eng_bank *bank = batch->sequences[0].bank;
    for (size_t s = 0; s < batch->n; s++) {
        if (batch->sequences[s].bank != bank) {
            return fail(err, ENG_EMISMATCH, "bank",
                        "sequence %zu has another bank than the first; a training batch shares one",
                        s);
        }
        if (batch->offsets[s + 1] - batch->offsets[s] < 1 + bank->info.prompt_tokens) {
            return fail(err, ENG_EINVAL, "ids", "sequence %zu is shorter than its prompt of %zu", s,
                        1 + bank->info.prompt_tokens);
        }
    }
    return ENG_OK;
}

/* From dL/dh of the last layer in tape->dh. The caller holds the turn. */
static void backward_layers(const struct backward *b, float *dprompt)
{
    for (size_t l = b->params->layers; l-- > 0;) {
        give_way(b);
        ffn_backward(b, l);
        give_way(b);
        bool last = l == 0 && dprompt != NULL && !b->weights;
        attention_part_backward(b, l, last ? dprompt : NULL);
        if (dprompt != NULL && !last) {
            copy_prompt_gradient(b, l, dprompt);
        }
    }
    if (b->weights) {
        embed_backward(b);
    }
    b->tape->kept = false; /* weight gradients recompute into buffers a second pass would misread */
}

static eng_status begin(struct backward *b, eng_compute *compute, struct encoder_tape *tape,
                        eng_class who, bool bare, eng_error *err)
{
    if (!tape->kept || tape->batch.bare != bare) {
        return fail(err, ENG_EINVAL, "tape", "no forward %s a bank was kept to go back through",
                    bare ? "without" : "with");
    }
    const struct encoder_params *params = &tape->model->params;
    *b = (struct backward){.compute = compute,
                           .who = who,
                           .tape = tape,
                           .params = params,
                           .ld = strides_of(params),
                           .rows = tape->batch.tokens,
                           .simd = compute_simd(compute),
                           .weights = (tape->want & WANT_WEIGHTS) != 0};
    return ENG_OK;
}

eng_status encoder_backward(eng_compute *compute, struct encoder_tape *tape, eng_class who,
                            const float *dstart, const float *dend, float *dprompt, eng_error *err)
{
    struct backward b;
    eng_status status = begin(&b, compute, tape, who, false, err);
    float *prompt = (tape->want & WANT_PROMPT) != 0 ? dprompt : NULL;
    if (status == ENG_OK && prompt != NULL) {
        status = check_banks(tape, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    compute_turn_take(compute, who);
    head_backward(&b, dstart, dend);
    backward_layers(&b, prompt);
    compute_turn_give(compute);
    return ENG_OK;
}

eng_status encoder_backward_bare(eng_compute *compute, struct encoder_tape *tape, eng_class who,
                                 eng_error *err)
{
    struct backward b;
    eng_status status = begin(&b, compute, tape, who, true, err);
    if (status != ENG_OK) {
        return status;
    }
    compute_turn_take(compute, who);
    backward_layers(&b, NULL);
    compute_turn_give(compute);
    return ENG_OK;
}
