/* mlm.c: the head of masked language modelling, forward and backward. Numbered:
 *
 *   (1) x = h[rows]   (2) u = x·Wᵀ + b   (3) g = gelu(u)   (4) y = LN(g)   (5) o = y·wordᵀ + bias
 *   loss = mean of −log softmax(o)[target]
 * given do = share · (softmax(o) − [target]) / n:
 *   (5') dy = do·word   dword += doᵀ·y   dbias += Σ do
 *   (4') dg = LN'(dy)   (3') du = dg·gelu'(u)
 *   (2') dx = du·W      dW += duᵀ·x      db += Σ du          (1') dh[rows] = dx, 0 elsewhere
 *
 * Each row's loss is summed by one thread and the rows in order, so the result is the same for any
 * number of threads. reference: tests/golden/expected_mlm.safetensors, finite differences in test_mlm.c
 */
#include "engine/mlm.h"

#include "engine/arena.h"
#include "engine/encoder_tape.h"
#include "engine/ops.h"
#include "engine/params.h"
#include "engine/pool.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

struct mlm_tape {
    struct arena arena;
    const eng_model *model;
    size_t max_targets, n;
    size_t ld, ld_vocab; /* floats between rows of (n,H) and of (n,vocab) */
    size_t *rows;        /* (n) of the packed batch */
    int32_t *targets;    /* (n) */
    double *losses;      /* (n) */
    float *x, *u, *y;    /* (n,H) */
    float *xhat, *rstd;  /* (n,H), (n) */
    float *logits;       /* (n,vocab); dL/dlogits after backward began */
    float *d;            /* (n,H) dy, then dg, then du */
    float *dx;           /* (n,H) */
    float *gradient_block;
    struct mlm_params gradient;
};

/* ---- memory ---- */

static void carve(struct mlm_tape *tape, struct arena *arena)
{
    size_t n = tape->max_targets;
    tape->rows = arena_take(arena, n, sizeof *tape->rows);
    tape->targets = arena_take(arena, n, sizeof *tape->targets);
    tape->losses = arena_take(arena, n, sizeof *tape->losses);
    tape->x = arena_floats(arena, n, tape->ld);
    tape->u = arena_floats(arena, n, tape->ld);
    tape->y = arena_floats(arena, n, tape->ld);
    tape->xhat = arena_floats(arena, n, tape->ld);
    tape->rstd = arena_floats(arena, n, 1);
    tape->logits = arena_floats(arena, n, tape->ld_vocab);
    tape->d = arena_floats(arena, n, tape->ld);
    tape->dx = arena_floats(arena, n, tape->ld);
    tape->gradient_block = arena_floats(arena, mlm_params_total(&tape->model->params), 1);
    mlm_params_place(&tape->model->params, &tape->gradient, tape->gradient_block);
}

eng_status mlm_tape_new(const eng_model *model, size_t max_targets, struct mlm_tape **out,
                        eng_error *err)
{
    *out = NULL;
    struct mlm_tape *tape = calloc(1, sizeof *tape);
    if (tape == NULL) {
        return fail_nomem(err, "tape");
    }
    tape->model = model;
    tape->max_targets = max_targets;
    tape->ld = gemm_stride(model->params.hidden);
    tape->ld_vocab = gemm_stride(model->params.vocab);
    struct arena plan = arena_plan();
    carve(tape, &plan);
    eng_status status = arena_init(&tape->arena, &plan, "tape", err);
    if (status != ENG_OK) {
        free(tape);
        return status;
    }
    carve(tape, &tape->arena);
    mlm_tape_zero(tape);
    *out = tape;
    return ENG_OK;
}

void mlm_tape_free(struct mlm_tape *tape)
{
    if (tape != NULL) {
        arena_fini(&tape->arena);
        free(tape);
    }
}

size_t mlm_tape_bytes(const struct mlm_tape *tape)
{
    return sizeof *tape + tape->arena.size;
}

void mlm_tape_zero(struct mlm_tape *tape)
{
    memset(tape->gradient_block, 0, mlm_params_total(&tape->model->params) * sizeof(float));
}

float *mlm_gradient(struct mlm_tape *tape)
{
    return tape->gradient_block;
}

const float *mlm_logits(const struct mlm_tape *tape)
{
    return tape->logits;
}

/* ---- loops over rows ---- */

struct rows_job {
    struct mlm_tape *tape;
    const struct mlm_params *head;
    const float *hidden;
    double weight; /* of a row's loss, backward */
    enum simd simd;
};

static void gather_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct rows_job *job = arg;
    struct mlm_tape *tape = job->tape;
    for (size_t i = index * ROWS_PER_TASK; i < task_end(index, tape->n); i++) {
        memcpy(tape->x + i * tape->ld, job->hidden + tape->rows[i] * tape->ld,
               tape->model->params.hidden * sizeof(float));
    }
}

/* (3) and (4) */
static void transform_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct rows_job *job = arg;
    struct mlm_tape *tape = job->tape;
    size_t H = tape->model->params.hidden;
    for (size_t i = index * ROWS_PER_TASK; i < task_end(index, tape->n); i++) {
        float *y = tape->y + i * tape->ld;
        ops_gelu_rows(job->simd, tape->u + i * tape->ld, y, 1, H, tape->ld);
        ops_layernorm_row(job->simd, y, NULL, &job->head->norm, tape->model->params.epsilon, H, y,
                          tape->xhat + i * tape->ld, tape->rstd + i);
    }
}

static void loss_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct rows_job *job = arg;
    struct mlm_tape *tape = job->tape;
    tape->losses[index] =
        ops_cross_entropy(job->simd, tape->logits + index * tape->ld_vocab,
                          tape->model->params.vocab, (size_t)tape->targets[index], 0, NULL);
}

static void dlogits_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct rows_job *job = arg;
    struct mlm_tape *tape = job->tape;
    float *logits = tape->logits + index * tape->ld_vocab;
    (void)ops_cross_entropy(job->simd, logits, tape->model->params.vocab,
                            (size_t)tape->targets[index], job->weight, logits);
}

/* (4') and (3') */
static void transform_backward_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct rows_job *job = arg;
    struct mlm_tape *tape = job->tape;
    size_t H = tape->model->params.hidden;
    for (size_t i = index * ROWS_PER_TASK; i < task_end(index, tape->n); i++) {
        float *d = tape->d + i * tape->ld;
        ops_layernorm_backward_row(job->simd, d, tape->xhat + i * tape->ld, tape->rstd[i],
                                   &job->head->norm, H, d);
        ops_gelu_backward_rows(job->simd, tape->u + i * tape->ld, d, 1, H, tape->ld);
    }
}

/* ---- forward ---- */

static eng_status set_targets(struct mlm_tape *tape, const struct encoder_tape *encoder,
                              const size_t *rows, const int32_t *targets, size_t n, eng_error *err)
{
    tape->n = 0;
    if (n == 0 || n > tape->max_targets) {
        return fail(err, n == 0 ? ENG_EINVAL : ENG_ELIMIT, "targets",
                    "%zu tokens to predict, wanted 1 to %zu", n, tape->max_targets);
    }
    for (size_t i = 0; i < n; i++) {
        if (rows[i] >= encoder->batch.tokens || targets[i] < 0 ||
            (size_t)targets[i] >= tape->model->params.vocab) {
            return fail(err, ENG_EINVAL, "targets",
                        "target %zu: row %zu of %zu, id %d of a vocabulary of %zu", i, rows[i],
                        encoder->batch.tokens, (int)targets[i], tape->model->params.vocab);
        }
    }
    memcpy(tape->rows, rows, n * sizeof *rows);
    memcpy(tape->targets, targets, n * sizeof *targets);
    tape->n = n;
    return ENG_OK;
}

eng_status mlm_forward(eng_compute *compute, struct mlm_tape *tape, eng_class who,
                       const struct mlm_params *head, const struct encoder_tape *encoder,
                       const size_t *rows, const int32_t *targets, size_t n, double *loss,
                       eng_error *err)
{
    eng_status status = set_targets(tape, encoder, rows, targets, n, err);
    if (status != ENG_OK) {
        return status;
    }
    const struct encoder_params *params = &tape->model->params;
    size_t H = params->hidden, V = params->vocab, tasks = row_tasks(n);
    struct rows_job job = {tape, head, encoder_hidden(encoder), 1, compute_simd(compute)};
    struct gemm_product dense = {.m = n,
                                 .n = H,
                                 .k = H,
                                 .a = tape->x,
                                 .lda = tape->ld,
                                 .b = head->dense.w,
                                 .ldb = H,
                                 .b_transposed = true,
                                 .bias = head->dense.b,
                                 .c = tape->u,
                                 .ldc = tape->ld};
    struct gemm_product decoder = {.m = n,
                                   .n = V,
                                   .k = H,
                                   .a = tape->y,
                                   .lda = tape->ld,
                                   .b = params->word,
                                   .ldb = H,
                                   .b_transposed = true,
                                   .bias = head->bias,
                                   .c = tape->logits,
                                   .ldc = tape->ld_vocab};
    compute_turn_take(compute, who);
    pool_run(compute, tasks, (double)(n * H), gather_task, &job);
    gemm_run(compute, &dense, 1);
    pool_run(compute, tasks, 40.0 * (double)(n * H), transform_task, &job);
    gemm_run(compute, &decoder, 1);
    pool_run(compute, n, 20.0 * (double)n * (double)V, loss_task, &job);
    compute_turn_give(compute);
    *loss = 0;
    for (size_t i = 0; i < n; i++) {
        *loss += tape->losses[i] / (double)n;
    }
    return ENG_OK;
}

/* ---- backward ---- */

/* Gradient tables hold const pointers because parameters do; these are ours to write. */
static float *writable(const float *gradient)
{
    return (float *)(uintptr_t)gradient;
}

static void scatter(const struct mlm_tape *tape, struct encoder_tape *encoder)
{
    float *dhidden = encoder_dhidden(encoder);
    memset(dhidden, 0, encoder->batch.tokens * tape->ld * sizeof *dhidden);
    for (size_t i = 0; i < tape->n; i++) {
        float *to = dhidden + tape->rows[i] * tape->ld;
        const float *from = tape->dx + i * tape->ld;
        for (size_t j = 0; j < tape->model->params.hidden; j++) {
            to[j] += from[j];
        }
    }
}

/* (5') */
static void decoder_backward(eng_compute *compute, struct mlm_tape *tape, float *dword)
{
    size_t H = tape->model->params.hidden, V = tape->model->params.vocab, n = tape->n;
    struct gemm_product dy = {.m = n,
                              .n = H,
                              .k = V,
                              .a = tape->logits,
                              .lda = tape->ld_vocab,
                              .b = tape->model->params.word,
                              .ldb = H,
                              .c = tape->d,
                              .ldc = tape->ld};
    struct gemm_product dw = {.m = V,
                              .n = H,
                              .k = n,
                              .a = tape->logits,
                              .lda = tape->ld_vocab,
                              .a_transposed = true,
                              .b = tape->y,
                              .ldb = tape->ld,
                              .c = dword,
                              .ldc = H,
                              .add = true};
    gemm_run(compute, &dy, 1);
    gemm_run(compute, &dw, 1);
    ops_column_sums(tape->logits, tape->ld_vocab, NULL, 0, n, 0, V, NULL,
                    writable(tape->gradient.bias));
}

void mlm_backward(eng_compute *compute, struct mlm_tape *tape, eng_class who,
                  const struct mlm_params *head, double share, struct encoder_tape *encoder,
                  float *dword)
{
    size_t H = tape->model->params.hidden, n = tape->n;
    struct rows_job job = {tape, head, NULL, share / (double)n, compute_simd(compute)};
    compute_turn_take(compute, who);
    pool_run(compute, n, 40.0 * (double)n * (double)tape->model->params.vocab, dlogits_task, &job);
    decoder_backward(compute, tape, dword);
    ops_column_sums(tape->d, tape->ld, tape->xhat, tape->ld, n, 0, H,
                    writable(tape->gradient.norm.w), writable(tape->gradient.norm.b));
    pool_run(compute, row_tasks(n), 60.0 * (double)(n * H), transform_backward_task, &job);
    struct gemm_product dw = {.m = H,
                              .n = H,
                              .k = n,
                              .a = tape->d,
                              .lda = tape->ld,
                              .a_transposed = true,
                              .b = tape->x,
                              .ldb = tape->ld,
                              .c = writable(tape->gradient.dense.w),
                              .ldc = H,
                              .add = true};
    struct gemm_product dx = {.m = n,
                              .n = H,
                              .k = H,
                              .a = tape->d,
                              .lda = tape->ld,
                              .b = head->dense.w,
                              .ldb = H,
                              .c = tape->dx,
                              .ldc = tape->ld};
    gemm_run(compute, &dw, 1);
    gemm_run(compute, &dx, 1);
    ops_column_sums(tape->d, tape->ld, NULL, 0, n, 0, H, NULL, writable(tape->gradient.dense.b));
    scatter(tape, encoder);
    compute_turn_give(compute);
}
