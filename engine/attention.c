/* attention.c: see attention.h.
 *
 *   S = q·kᵀ (len,len)   P = softmax(S/√width)   out = P·v
 *   dP = dout·vᵀ   dS = P (dP − Σ P dP)/√width   dq = dS·k   dk = dSᵀ·q   dv = Pᵀ·dout
 *
 * Query rows go by blocks whose scores fit SCORES; a sequence of a few hundred tokens is one block.
 * The block size depends on the sequence's length alone. dk and dv sum over the blocks in order.
 * reference: naive_attention (ops_naive.c), finite differences in tests/unit/test_ops.c.
 */
#include "engine/attention.h"
#include "engine/gemm.h"
#include "engine/ops.h"

#include <math.h>

#define SCORES ((size_t)64 << 10) /* floats: 256 KiB */
_Static_assert(GEMM_SCRATCH + 2 * SCORES * sizeof(float) <= POOL_SCRATCH, "scratch fits");
_Static_assert(ATTENTION_MAX_LEN + 32 <= SCORES, "one row of scores fits");

/* One head of one sequence: pointers at its first row and column. */
struct head {
    size_t len, queries, width, stride, out_stride;
    const float *q, *k, *v, *dout;
    float *out, *dq, *dk, *dv;
    float scale;
    enum simd simd;
    void *gemm_scratch;
    float *scores, *dscores;
    size_t scores_stride, block;
};

struct job {
    const struct attention *attention;
    enum simd simd;
};

static struct head head_at(const struct job *job, size_t index, void *scratch)
{
    const struct attention *a = job->attention;
    size_t s = index / a->heads, column = index % a->heads * a->width;
    const size_t *queries = a->q_offsets != NULL ? a->q_offsets : a->offsets;
    size_t at = a->offsets[s] * a->stride + column, out_at = queries[s] * a->out_stride + column;
    struct head head = {.len = a->offsets[s + 1] - a->offsets[s],
                        .queries = queries[s + 1] - queries[s],
                        .width = a->width,
                        .stride = a->stride,
                        .out_stride = a->out_stride,
                        .q = a->q + queries[s] * a->stride + column,
                        .k = a->k + at,
                        .v = a->v + at,
                        .scale = 1 / sqrtf((float)a->width),
                        .simd = job->simd,
                        .gemm_scratch = scratch};
    if (a->dout != NULL) {
        head.dout = a->dout + out_at;
        head.dq = a->dq + at;
        head.dk = a->dk + at;
        head.dv = a->dv + at;
    } else {
        head.out = a->out + out_at;
    }
    head.scores = (float *)((char *)scratch + GEMM_SCRATCH);
    head.dscores = head.scores + SCORES;
    head.scores_stride = gemm_stride(head.len);
    head.block = SCORES / head.scores_stride;
    head.block = head.block < head.queries ? head.block : head.queries;
    return head;
}

/* P of query rows from … from+rows-1 */
static void probabilities(const struct head *head, size_t from, size_t rows)
{
    struct gemm_product product = {.m = rows,
                                   .n = head->len,
                                   .k = head->width,
                                   .a = head->q + from * head->stride,
                                   .lda = head->stride,
                                   .b = head->k,
                                   .ldb = head->stride,
                                   .b_transposed = true,
                                   .c = head->scores,
                                   .ldc = head->scores_stride};
    gemm_serial(head->simd, &product, head->gemm_scratch);
    for (size_t r = 0; r < rows; r++) {
        ops_softmax_row(head->simd, head->scores + r * head->scores_stride, head->len, head->scale);
    }
}

static void forward_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    struct head head = head_at(arg, index, scratch);
    for (size_t from = 0; from < head.queries; from += head.block) {
        size_t rows = head.block < head.queries - from ? head.block : head.queries - from;
        probabilities(&head, from, rows);
        struct gemm_product product = {.m = rows,
                                       .n = head.width,
                                       .k = head.len,
                                       .a = head.scores,
                                       .lda = head.scores_stride,
                                       .b = head.v,
                                       .ldb = head.stride,
                                       .c = head.out + from * head.out_stride,
                                       .ldc = head.out_stride};
        gemm_serial(head.simd, &product, head.gemm_scratch);
    }
}

/* dscores = dS of query rows from …; scores hold P. */
static void score_gradient(const struct head *head, size_t from, size_t rows)
{
    struct gemm_product product = {.m = rows,
                                   .n = head->len,
                                   .k = head->width,
                                   .a = head->dout + from * head->out_stride,
                                   .lda = head->out_stride,
                                   .b = head->v,
                                   .ldb = head->stride,
                                   .b_transposed = true,
                                   .c = head->dscores,
                                   .ldc = head->scores_stride};
    gemm_serial(head->simd, &product, head->gemm_scratch);
    for (size_t r = 0; r < rows; r++) {
        ops_softmax_backward_row(head->simd, head->scores + r * head->scores_stride,
                                 head->dscores + r * head->scores_stride, head->len, head->scale);
    }
}

/* to (len,width) (+)= sᵀ · rows of `from_rows`, over the queries of one block. */
static void add_over_queries(const struct head *head, const float *s, size_t rows,
                             const float *from_rows, size_t stride, float *to, bool add)
{
    struct gemm_product product = {.m = head->len,
                                   .n = head->width,
                                   .k = rows,
                                   .a = s,
                                   .lda = head->scores_stride,
                                   .a_transposed = true,
                                   .b = from_rows,
                                   .ldb = stride,
                                   .c = to,
                                   .ldc = head->stride,
                                   .add = add};
    gemm_serial(head->simd, &product, head->gemm_scratch);
}

static void backward_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    struct head head = head_at(arg, index, scratch);
    for (size_t from = 0; from < head.len; from += head.block) {
        size_t rows = head.block < head.len - from ? head.block : head.len - from;
        probabilities(&head, from, rows);
        add_over_queries(&head, head.scores, rows, head.dout + from * head.out_stride,
                         head.out_stride, head.dv, from > 0);
        score_gradient(&head, from, rows);
        add_over_queries(&head, head.dscores, rows, head.q + from * head.stride, head.stride,
                         head.dk, from > 0);
        struct gemm_product product = {.m = rows,
                                       .n = head.width,
                                       .k = head.len,
                                       .a = head.dscores,
                                       .lda = head.scores_stride,
                                       .b = head.k,
                                       .ldb = head.stride,
                                       .c = head.dq + from * head.stride,
                                       .ldc = head.stride};
        gemm_serial(head.simd, &product, head.gemm_scratch);
    }
}

static void run(eng_compute *compute, const struct attention *attention, pool_task task,
                double products)
{
    struct job job = {attention, compute_simd(compute)};
    double work = 0;
    for (size_t s = 0; s < attention->n; s++) {
        double len = (double)(attention->offsets[s + 1] - attention->offsets[s]);
        work += products * len * len * (double)(attention->width * attention->heads);
    }
    pool_run(compute, attention->n * attention->heads, work, task, &job);
}

void attention_forward(eng_compute *compute, const struct attention *attention)
{
    run(compute, attention, forward_task, 4);
}

void attention_backward(eng_compute *compute, const struct attention *attention)
{
    run(compute, attention, backward_task, 10);
}
