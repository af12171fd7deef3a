/* encoder.c: the backbone forward on packed batches, for inference.
 *
 *   h = LayerNorm(word + position + type)
 *   for each layer l:   h[1..P] += p[l]                               (l < Lp, per sequence)
 *                       q, k, v = h·Wᵀ + b      c = attention(q, k, v)
 *                       m = LayerNorm(h + c·Woᵀ + bo)
 *                       h = LayerNorm(m + gelu(m·Wupᵀ + bup)·Wdownᵀ + bdown)
 *   start, end = h·headᵀ + b
 *
 * The rows of all sequences stand end to end without padding, and every step but attention treats
 * them alike. Each step is one parallel loop; queries, keys and values are one. The same steps, given
 * places to keep what backward needs, are the training forward: both give the same bits.
 *
 * A serving pass holds the turn from start to end. A training pass gives it back after every layer.
 */
#include "engine/attention.h"
#include "engine/encoder_pass.h"
#include "engine/ops.h"
#include "engine/params.h"
#include "engine/pool.h"
#include "engine/status.h"
#include "engine/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct eng_workspace {
    struct arena arena;
    const eng_model *model;
    struct batch batch;
    struct layer_values values;
};

/* ---- preparing a model ---- */

eng_status encoder_check(const struct encoder_params *params, eng_error *err)
{
    if (params->heads == 0 || params->hidden % params->heads != 0) {
        return fail(err, ENG_EFORMAT, "num_attention_heads",
                    "hidden_size %zu is not a multiple of %zu heads", params->hidden,
                    params->heads);
    }
    if (params->positions > ATTENTION_MAX_LEN) {
        return fail(err, ENG_ELIMIT, "max_position_embeddings",
                    "at most %d positions are supported, the model has %zu", ATTENTION_MAX_LEN,
                    params->positions);
    }
    return ENG_OK;
}

/* Models up to this size hold their matrices in both directions: a training step then packs nothing. A
 * larger one would pay more memory than the 3 to 6 % of a step are worth. */
#define TURNED_MOST ((size_t)16 << 20) /* bytes of all matrices in one direction */

/* Packs one matrix, whose first form is then let go: never do two whole models lie in memory. */
static void pack_linear(const eng_model *model, struct linear *linear, void *memory)
{
    size_t count = linear->out * linear->in;
    linear->packed =
        gemm_pack(linear->w, linear->out, linear->in, model->info.half_weights, memory);
    if (model->weights == NULL) {
        arena_drop(linear->w, count * sizeof *linear->w);
        linear->w = NULL;
    } else if (!weights_drop(model->weights, linear->w, count)) {
        linear->w = NULL;
    }
}

/* Floats of the matrices that are packed, in one direction. */
static size_t packed_floats(const struct encoder_params *params)
{
    return params->layers * (4 * params->hidden + 2 * params->ffn) * params->hidden;
}

/* Packs every matrix into the arena, or counts while it plans. */
static void pack_all(eng_model *model, struct arena *arena)
{
    bool half = model->info.half_weights;
    size_t value = half ? sizeof(uint16_t) : sizeof(float);
    bool turned = packed_floats(&model->params) <= TURNED_MOST / value;
    for (size_t l = 0; l < model->params.layers; l++) {
        struct linear *linears[LAYER_LINEARS];
        layer_linears(&model->params.layer[l], linears);
        for (size_t i = 0; i < LAYER_LINEARS; i++) {
            struct linear *linear = linears[i];
            size_t bytes = gemm_packed_bytes(linear->out, linear->in, half);
            size_t again = turned ? gemm_packed_bytes(linear->in, linear->out, half) : 0;
            void *memory = arena_take(arena, bytes, 1), *more = arena_take(arena, again, 1);
            arena->overflow = arena->overflow || bytes == 0;
            if (memory != NULL) {
                pack_linear(model, linear, memory);
            }
            if (more != NULL && again > 0) { /* taken after memory: then there is that too */
                linear->turned = gemm_pack_turned(linear->packed, more);
            }
        }
    }
}

/* float16 ends at 65504; a weight beyond it would become infinite. */
static eng_status check_half(const eng_model *model, eng_error *err)
{
    if (!gemm_cpu_capable()) {
        return fail(err, ENG_EUNSUPPORTED, "half_weights",
                    "float16 weights need a processor with AVX2, FMA and F16C");
    }
    for (size_t l = 0; l < model->params.layers; l++) {
        struct linear *linears[LAYER_LINEARS];
        struct layer_params layer = model->params.layer[l];
        layer_linears(&layer, linears);
        for (size_t i = 0; i < LAYER_LINEARS; i++) {
            for (size_t j = 0; j < linears[i]->out * linears[i]->in; j++) {
                if (!(fabsf(linears[i]->w[j]) < 65504)) {
                    return fail(err, ENG_EUNSUPPORTED, "half_weights",
                                "layer %zu has a weight of %g, float16 ends at 65504", l,
                                (double)linears[i]->w[j]);
                }
            }
        }
    }
    return ENG_OK;
}

eng_status encoder_prepare(eng_model *model, eng_error *err)
{
    eng_status status = encoder_check(&model->params, err);
    if (status == ENG_OK && model->info.half_weights) {
        status = check_half(model, err);
    }
    if (status != ENG_OK || !gemm_cpu_capable()) {
        return status;
    }
    struct arena plan = arena_plan(), arena;
    pack_all(model, &plan);
    status = arena_init(&arena, &plan, "weights", err);
    if (status != ENG_OK) {
        return status;
    }
    pack_all(model, &arena);
    if (model->weights != NULL && weights_mapped(model->weights, model->params.word)) {
        /* read whole for the fingerprint; of its rows those come back that texts use */
        (void)weights_drop(model->weights, model->params.word,
                           model->params.vocab * model->params.hidden);
    }
    model->packed = arena.base;
    model->info.bytes += arena.size - packed_floats(&model->params) * sizeof(float);
    return ENG_OK;
}

void encoder_unprepare(eng_model *model)
{
    free(model->packed);
    model->packed = NULL;
}

struct strides strides_of(const struct encoder_params *params)
{
    return (struct strides){gemm_stride(params->hidden), gemm_stride(3 * params->hidden),
                            gemm_stride(params->ffn)};
}

/* ---- batches ---- */

void batch_carve(struct batch *batch, struct arena *arena, size_t max_tokens, size_t max_sequences)
{
    size_t ends = 0;
    if (!size_add(max_sequences, 1, &ends)) {
        arena->overflow = true;
    }
    batch->max_tokens = max_tokens;
    batch->max_sequences = max_sequences;
    batch->offsets = arena_take(arena, ends, sizeof *batch->offsets);
    batch->sequences = arena_take(arena, max_sequences, sizeof *batch->sequences);
    batch->ids = arena_take(arena, max_tokens, sizeof *batch->ids);
    batch->positions = arena_take(arena, max_tokens, sizeof *batch->positions);
    batch->types = arena_take(arena, max_tokens, sizeof *batch->types);
    batch->read_offsets = arena_take(arena, ends, sizeof *batch->read_offsets);
    batch->read = arena_take(arena, max_tokens, sizeof *batch->read);
}

static eng_status check_bank(const eng_model *model, const eng_sequence *s, size_t index,
                             eng_error *err)
{
    if (s->bank == NULL || s->bank->model != model) {
        return fail(err, ENG_EMISMATCH, "bank", "sequence %zu has %s", index,
                    s->bank == NULL ? "no bank" : "a bank opened for another model");
    }
    const eng_bank_info *bank = &s->bank->info;
    if (bank->token_type < 0 || (size_t)bank->token_type >= model->params.types) {
        return fail(err, ENG_EMISMATCH, "bank", "token type %d, the model has %zu",
                    (int)bank->token_type, model->params.types);
    }
    if ((s->mix != NULL || s->prompt != NULL) && s->len < 1 + bank->prompt_tokens) {
        return fail(err, ENG_EINVAL, "ids", "sequence %zu has %zu tokens, its prompt alone %zu",
                    index, s->len, 1 + bank->prompt_tokens);
    }
    return ENG_OK;
}

static eng_status check_read(const eng_sequence *s, size_t index, eng_error *err)
{
    for (size_t i = 0; i < s->n_read; i++) {
        if (s->read[i] >= s->len || (i > 0 && s->read[i] <= s->read[i - 1])) {
            return fail(err, ENG_EINVAL, "read",
                        "sequence %zu reads position %u: not below its length %zu, or not above "
                        "the position before",
                        index, (unsigned)s->read[i], s->len);
        }
    }
    return s->n_read > 0 ? ENG_OK
                         : fail(err, ENG_EINVAL, "read", "sequence %zu reads nothing", index);
}

static eng_status check_sequence(const eng_model *model, const eng_sequence *s, size_t index,
                                 bool bare, eng_error *err)
{
    const struct encoder_params *params = &model->params;
    if (s->ids == NULL || s->len == 0) {
        return fail(err, ENG_EINVAL, "ids", "sequence %zu is empty; at least one token is needed",
                    index);
    }
    if (s->len > params->positions) {
        return fail(err, ENG_ELIMIT, "ids", "sequence %zu has %zu tokens, the model reads %zu",
                    index, s->len, params->positions);
    }
    eng_status status = bare ? ENG_OK : check_bank(model, s, index, err);
    if (status == ENG_OK && s->read != NULL) {
        status = check_read(s, index, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    for (size_t t = 0; t < s->len; t++) {
        if (s->ids[t] < 0 || (size_t)s->ids[t] >= params->vocab) {
            return fail(err, ENG_EINVAL, "ids",
                        "sequence %zu, token %zu: id %d is outside the vocabulary of %zu", index, t,
                        (int)s->ids[t], params->vocab);
        }
    }
    return ENG_OK;
}

static void list_read(struct batch *batch)
{
    size_t rows = 0;
    for (size_t s = 0; s < batch->n; s++) {
        const eng_sequence *sequence = &batch->sequences[s];
        size_t n = sequence->read != NULL ? sequence->n_read : sequence->len;
        batch->read_offsets[s] = rows;
        for (size_t i = 0; i < n; i++) {
            size_t position = sequence->read != NULL ? sequence->read[i] : i;
            batch->read[rows++] = batch->offsets[s] + position;
        }
    }
    batch->read_offsets[batch->n] = rows;
    batch->some = rows < batch->tokens;
}

eng_status batch_set(struct batch *batch, const eng_model *model, const eng_sequence *sequences,
                     size_t n, bool bare, eng_error *err)
{
    batch->bare = bare;
    batch->n = 0;
    batch->tokens = 0;
    if (n == 0 || sequences == NULL) {
        return fail(err, ENG_EINVAL, "sequences", "a batch needs at least one sequence");
    }
    if (n > batch->max_sequences) {
        return fail(err, ENG_ELIMIT, "sequences", "%zu sequences, the workspace holds %zu", n,
                    batch->max_sequences);
    }
    size_t row = 0;
    for (size_t s = 0; s < n; s++) {
        eng_status status = check_sequence(model, &sequences[s], s, bare, err);
        if (status != ENG_OK) {
            return status;
        }
        if (sequences[s].len > batch->max_tokens - row) {
            return fail(err, ENG_ELIMIT, "sequences",
                        "more than the %zu tokens the workspace holds, at sequence %zu",
                        batch->max_tokens, s);
        }
        batch->offsets[s] = row;
        batch->sequences[s] = sequences[s];
        if (bare) {
            batch->sequences[s].bank = NULL;
            batch->sequences[s].read = NULL;
        }
        for (size_t t = 0; t < sequences[s].len; t++, row++) {
            batch->ids[row] = sequences[s].ids[t];
            batch->positions[row] = (int32_t)t;
            batch->types[row] = bare ? 0 : sequences[s].bank->info.token_type;
        }
    }
    batch->offsets[n] = row;
    batch->n = n;
    batch->tokens = row;
    list_read(batch);
    return ENG_OK;
}

/* ---- embeddings ---- */

struct embed_job {
    const struct encoder_params *params;
    const struct batch *batch;
    float *h, *xhat, *rstd;
    size_t stride;
    enum simd simd;
};

static void embed_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct embed_job *job = arg;
    const struct encoder_params *params = job->params;
    size_t H = params->hidden;
    for (size_t t = index * ROWS_PER_TASK; t < task_end(index, job->batch->tokens); t++) {
        const float *word = params->word + (size_t)job->batch->ids[t] * H;
        const float *position = params->position + (size_t)job->batch->positions[t] * H;
        const float *type = params->type + (size_t)job->batch->types[t] * H;
        float *h = job->h + t * job->stride;
        for (size_t i = 0; i < H; i++) {
            h[i] = word[i] + type[i] + position[i];
        }
        ops_layernorm_row(job->simd, h, NULL, &params->embedding_norm, params->epsilon, H, h,
                          job->xhat != NULL ? job->xhat + t * job->stride : NULL,
                          job->rstd != NULL ? job->rstd + t : NULL);
        dropout_row(&job->batch->dropout, DROPOUT_EMBEDDINGS, t, h, H);
    }
}

void pass_embed(eng_compute *compute, const struct encoder_params *params,
                const struct batch *batch, float *h, float *xhat, float *rstd)
{
    struct embed_job job = {
        params, batch, h, xhat, rstd, gemm_stride(params->hidden), compute_simd(compute)};
    double work = 12.0 * (double)batch->tokens * (double)params->hidden;
    pool_run(compute, row_tasks(batch->tokens), work, embed_task, &job);
}

/* ---- prompts ---- */

/* Prompt rows of one sequence are shared out among INJECT_PARTS tasks. */
#define INJECT_PARTS ((size_t)4)

struct inject_job {
    const struct batch *batch;
    size_t l, H, stride;
    float *h;
    enum simd simd;
};

static bool has_prompt(const eng_sequence *s, size_t l)
{
    return s->bank != NULL && l < s->bank->info.layers && (s->mix != NULL || s->prompt != NULL);
}

static void inject_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct inject_job *job = arg;
    const eng_sequence *s = &job->batch->sequences[index / INJECT_PARTS];
    if (!has_prompt(s, job->l)) {
        return;
    }
    size_t P = s->bank->info.prompt_tokens, K = s->bank->info.modules, H = job->H;
    float *first = job->h + (job->batch->offsets[index / INJECT_PARTS] + 1) * job->stride;
    for (size_t p = index % INJECT_PARTS; p < P; p += INJECT_PARTS) {
        float *row = first + p * job->stride;
        if (s->prompt != NULL) {
            ops_add_scaled(job->simd, s->prompt + (job->l * P + p) * H, 1, row, H);
            continue;
        }
        const float *module = s->bank->modules + (job->l * K * P + p) * H;
        for (size_t k = 0; k < K; k++) {
            ops_add_scaled(job->simd, module + k * P * H, s->mix[job->l * K + k], row, H);
        }
    }
}

void pass_inject(eng_compute *compute, const struct encoder_params *params,
                 const struct batch *batch, size_t l, float *h)
{
    struct inject_job job = {
        batch, l, params->hidden, gemm_stride(params->hidden), h, compute_simd(compute)};
    double work = 0;
    for (size_t s = 0; s < batch->n; s++) {
        if (has_prompt(&batch->sequences[s], l)) {
            const eng_bank_info *info = &batch->sequences[s].bank->info;
            work += 2.0 * (double)(info->prompt_tokens * info->modules) * (double)params->hidden;
        }
    }
    if (work > 0) {
        pool_run(compute, batch->n * INJECT_PARTS, work, inject_task, &job);
    }
}

/* ---- one layer ---- */

struct norm_job {
    size_t rows, H, stride;
    const float *x;
    float *r; /* dropout changes it */
    const struct layernorm *norm;
    float epsilon;
    float *y, *xhat, *rstd;
    const struct dropout *dropout;
    size_t place;
    enum simd simd;
};

static void norm_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct norm_job *job = arg;
    for (size_t t = index * ROWS_PER_TASK; t < task_end(index, job->rows); t++) {
        size_t at = t * job->stride;
        dropout_row(job->dropout, job->place, t, job->r + at, job->H);
        ops_layernorm_row(job->simd, job->x + at, job->r + at, job->norm, job->epsilon, job->H,
                          job->y + at, job->xhat != NULL ? job->xhat + at : NULL,
                          job->rstd != NULL ? job->rstd + t : NULL);
    }
}

static void run_norm(eng_compute *compute, struct norm_job *job)
{
    job->simd = compute_simd(compute);
    pool_run(compute, row_tasks(job->rows), 12.0 * (double)job->rows * (double)job->H, norm_task,
             job);
}

/* y = x·Wᵀ + b on all rows */
static struct gemm_product linear_product(const struct linear *linear, size_t rows, const float *x,
                                          size_t ldx, float *y, size_t ldy)
{
    return (struct gemm_product){.m = rows,
                                 .n = linear->out,
                                 .k = linear->in,
                                 .a = x,
                                 .lda = ldx,
                                 .b = linear->w,
                                 .ldb = linear->in,
                                 .b_transposed = true,
                                 .packed = linear->packed,
                                 .bias = linear->b,
                                 .c = y,
                                 .ldc = ldy};
}

/* The rows of batch->read to the front of x, which keeps no others. */
static void keep_read(const struct batch *batch, float *x, size_t H, size_t stride)
{
    for (size_t i = 0; i < batch->read_offsets[batch->n]; i++) {
        if (batch->read[i] != i) {
            memcpy(x + i * stride, x + batch->read[i] * stride, H * sizeof *x);
        }
    }
}

static void self_attention(eng_compute *compute, eng_class who, const struct encoder_params *params,
                           const struct layer_params *layer, const struct batch *batch,
                           const struct layer_values *v, const struct strides *ld, bool some)
{
    size_t H = params->hidden, T = batch->tokens,
           queries = some ? batch->read_offsets[batch->n] : T;
    struct gemm_product qkv[3] = {
        linear_product(&layer->k, T, v->x, ld->hidden, v->qkv + H, ld->qkv),
        linear_product(&layer->v, T, v->x, ld->hidden, v->qkv + 2 * H, ld->qkv),
        linear_product(&layer->q, queries, v->x, ld->hidden, v->qkv, ld->qkv)};
    gemm_run(compute, qkv, some ? 2 : 3);
    if (some) {
        keep_read(batch, v->x, H, ld->hidden);
        gemm_run(compute, qkv + 2, 1);
    }
    struct attention attention = {.n = batch->n,
                                  .offsets = batch->offsets,
                                  .q_offsets = some ? batch->read_offsets : NULL,
                                  .heads = params->heads,
                                  .width = H / params->heads,
                                  .q = v->qkv,
                                  .k = v->qkv + H,
                                  .v = v->qkv + 2 * H,
                                  .stride = ld->qkv,
                                  .out = v->context,
                                  .out_stride = ld->hidden};
    compute_turn_yield(compute, who);
    attention_forward(compute, &attention);
}

void pass_layer(eng_compute *compute, eng_class who, const struct encoder_params *params,
                const struct layer_params *layer, const struct batch *batch,
                const struct layer_values *v, bool some)
{
    struct strides ld = strides_of(params);
    size_t T = some ? batch->read_offsets[batch->n] : batch->tokens;
    size_t l = (size_t)(layer - params->layer);
    struct norm_job norm = {.rows = T,
                            .H = params->hidden,
                            .stride = ld.hidden,
                            .epsilon = params->epsilon,
                            .dropout = &batch->dropout,
                            .place = DROPOUT_ATTENTION(l)};
    compute_turn_yield(compute, who);
    self_attention(compute, who, params, layer, batch, v, &ld, some);
    compute_turn_yield(compute, who);
    struct gemm_product o = linear_product(&layer->o, T, v->context, ld.hidden, v->sum, ld.hidden);
    gemm_run(compute, &o, 1);
    norm.x = v->x;
    norm.r = v->sum;
    norm.norm = &layer->attention_norm;
    norm.y = v->middle;
    norm.xhat = v->attention_xhat;
    norm.rstd = v->attention_rstd;
    run_norm(compute, &norm);

    compute_turn_yield(compute, who);
    struct gemm_product up = linear_product(&layer->up, T, v->middle, ld.hidden, v->up, ld.ffn);
    up.gelu = v->gelu;
    gemm_run(compute, &up, 1);
    compute_turn_yield(compute, who);
    struct gemm_product down = linear_product(&layer->down, T, v->gelu, ld.ffn, v->sum, ld.hidden);
    gemm_run(compute, &down, 1);
    norm.x = v->middle;
    norm.place = DROPOUT_FFN(l);
    norm.norm = &layer->output_norm;
    norm.y = v->y;
    norm.xhat = v->output_xhat;
    norm.rstd = v->output_rstd;
    run_norm(compute, &norm);
}

/* ---- head ---- */

struct head_job {
    const struct batch *batch;
    const float *h;
    size_t H, stride;
    float *start, *end;
    enum simd simd;
    bool some;
};

static void head_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct head_job *job = arg;
    const struct batch *batch = job->batch;
    struct head head = head_of(&batch->sequences[index], job->H);
    for (size_t t = batch->offsets[index]; job->some && t < batch->offsets[index + 1]; t++) {
        job->start[t] = job->end[t] = NAN;
    }
    const size_t *rows = job->some ? batch->read_offsets : batch->offsets;
    for (size_t i = rows[index]; i < rows[index + 1]; i++) {
        const float *h = job->h + i * job->stride;
        size_t t = job->some ? batch->read[i] : i;
        job->start[t] = ops_dot(job->simd, h, head.w, job->H) + head.b[0];
        job->end[t] = ops_dot(job->simd, h, head.w + job->H, job->H) + head.b[1];
    }
}

void pass_head(eng_compute *compute, const struct encoder_params *params, const struct batch *batch,
               const float *h, bool some, float *start, float *end)
{
    struct head_job job = {.batch = batch,
                           .h = h,
                           .H = params->hidden,
                           .stride = gemm_stride(params->hidden),
                           .start = start,
                           .end = end,
                           .simd = compute_simd(compute),
                           .some = some};
    size_t rows = some ? batch->read_offsets[batch->n] : batch->tokens;
    pool_run(compute, batch->n, 4.0 * (double)rows * (double)params->hidden, head_task, &job);
}

/* ---- inference ---- */

static void carve(struct eng_workspace *w, struct arena *arena, size_t max_tokens,
                  size_t max_sequences)
{
    struct strides ld = strides_of(&w->model->params);
    struct layer_values *v = &w->values;
    batch_carve(&w->batch, arena, max_tokens, max_sequences);
    v->x = v->y = arena_floats(arena, max_tokens, ld.hidden);
    v->qkv = arena_floats(arena, max_tokens, ld.qkv);
    v->context = arena_floats(arena, max_tokens, ld.hidden);
    v->sum = arena_floats(arena, max_tokens, ld.hidden);
    v->middle = arena_floats(arena, max_tokens, ld.hidden);
    v->up = v->gelu = arena_floats(arena, max_tokens, ld.ffn);
}

eng_status eng_workspace_new(const eng_model *model, size_t max_tokens, size_t max_sequences,
                             eng_workspace **out, eng_error *err)
{
    *out = NULL;
    if (max_tokens == 0 || max_sequences == 0) {
        return fail(err, ENG_EINVAL, "max_tokens",
                    "a workspace needs at least 1 token and sequence");
    }
    eng_workspace *workspace = calloc(1, sizeof *workspace);
    if (workspace == NULL) {
        return fail_nomem(err, "workspace");
    }
    workspace->model = model;
    struct arena plan = arena_plan();
    carve(workspace, &plan, max_tokens, max_sequences);
    eng_status status = arena_init(&workspace->arena, &plan, "workspace", err);
    if (status != ENG_OK) {
        free(workspace);
        return status;
    }
    carve(workspace, &workspace->arena, max_tokens, max_sequences);
    *out = workspace;
    return ENG_OK;
}

void eng_workspace_free(eng_workspace *workspace)
{
    if (workspace != NULL) {
        arena_fini(&workspace->arena);
        free(workspace);
    }
}

size_t eng_workspace_bytes(const eng_workspace *workspace)
{
    return sizeof *workspace + workspace->arena.size;
}

eng_status eng_forward(eng_compute *compute, eng_workspace *workspace, eng_class who,
                       const eng_model *model, const eng_sequence *sequences, size_t n,
                       float *start, float *end, eng_error *err)
{
    if (workspace->model != model) {
        return fail(err, ENG_EMISMATCH, "workspace", "it was made for another model");
    }
    struct batch *batch = &workspace->batch;
    eng_status status = batch_set(batch, model, sequences, n, false, err);
    if (status != ENG_OK) {
        return status;
    }
    const struct encoder_params *params = &model->params;
    float *h = workspace->values.x;
    bool some = batch->some && params->layers > 0;
    compute_turn_take(compute, who);
    pass_embed(compute, params, batch, h, NULL, NULL);
    for (size_t l = 0; l < params->layers; l++) {
        pass_inject(compute, params, batch, l, h);
        pass_layer(compute, who, params, &params->layer[l], batch, &workspace->values,
                   some && l + 1 == params->layers);
    }
    pass_head(compute, params, batch, h, some, start, end);
    compute_turn_give(compute);
    return ENG_OK;
}
