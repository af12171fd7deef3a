/* bench.c: how fast this machine multiplies, and how fast the engine is beside that.
 *
 * Rates are best-of: on a shared machine the best run is the one least disturbed, and a floor is
 * compared with a floor. Matrices are the size of real weights, so they come from the caches and
 * memory that a forward pass would find them in.
 */
#include "engine/arena.h"
#include "engine/bank.h"
#include "engine/encoder.h"
#include "engine/gemm.h"
#include "engine/mrc_gradient.h"
#include "engine/pool.h"
#include "engine/rng.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- the ceiling ---- */

struct peak_job {
    double seconds;
    enum simd simd;
    double rates[POOL_MAX_THREADS];
};

static void peak_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    struct peak_job *job = arg;
    job->rates[index] = gemm_peak(job->simd, job->seconds);
}

static double bench_peak(eng_compute *compute, double seconds)
{
    enum simd own = compute_simd(compute);
    struct peak_job job = {.seconds = seconds, .simd = own != SIMD_NONE ? own : gemm_cpu()};
    size_t threads = compute_threads(compute);
    compute_turn_take(compute, ENG_SERVING);
    pool_run(compute, threads, 1e12, peak_task, &job);
    compute_turn_give(compute);
    double sum = 0;
    for (size_t i = 0; i < threads; i++) {
        sum += job.rates[i];
    }
    return sum;
}

/* ---- matrix products ---- */

struct operands {
    struct arena arena;
    float *a, *w, *c;
    void *memory; /* for the packed w */
    struct gemm_packed *packed;
};

static void operands_carve(struct operands *o, struct arena *arena, size_t m, size_t n, size_t k)
{
    size_t bytes = gemm_packed_bytes(n, k, false);
    o->a = arena_floats(arena, m, gemm_stride(k));
    o->w = arena_floats(arena, n, k);
    o->c = arena_floats(arena, m, gemm_stride(n));
    o->memory = arena_take(arena, bytes, 1);
    arena->overflow = arena->overflow || bytes == 0;
}

static void noise(float *values, size_t count, struct rng *rng)
{
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)(rng_uniform(rng) - 0.5);
    }
}

static eng_status operands_init(struct operands *o, size_t m, size_t n, size_t k, enum simd simd,
                                eng_error *err)
{
    struct arena plan = arena_plan();
    struct rng rng;
    *o = (struct operands){0};
    operands_carve(o, &plan, m, n, k);
    eng_status status = arena_init(&o->arena, &plan, "gemm", err);
    if (status != ENG_OK) {
        return status;
    }
    operands_carve(o, &o->arena, m, n, k);
    rng_seed(&rng, 1);
    noise(o->a, m * gemm_stride(k), &rng);
    noise(o->w, n * k, &rng);
    if (simd != SIMD_NONE) {
        o->packed = gemm_pack(o->w, n, k, false, o->memory);
    }
    return ENG_OK;
}

static eng_status bench_product(eng_compute *compute, size_t m, size_t n, size_t k, double seconds,
                                double *gflops, eng_error *err)
{
    struct operands o;
    eng_status status = operands_init(&o, m, n, k, compute_simd(compute), err);
    if (status != ENG_OK) {
        return status;
    }
    struct gemm_product product = {.m = m,
                                   .n = n,
                                   .k = k,
                                   .a = o.a,
                                   .lda = gemm_stride(k),
                                   .b = o.w,
                                   .ldb = k,
                                   .b_transposed = true,
                                   .packed = o.packed,
                                   .c = o.c,
                                   .ldc = gemm_stride(n)};
    double work = 2.0 * (double)m * (double)n * (double)k, end = now() + seconds;
    /* several products between two looks at the clock when one is short */
    size_t repeats = 1 + (size_t)(2e8 / work);
    compute_turn_take(compute, ENG_SERVING);
    gemm_run(compute, &product, 1);
    do {
        double start = now();
        for (size_t i = 0; i < repeats; i++) {
            gemm_run(compute, &product, 1);
        }
        double rate = work * (double)repeats / (now() - start) * 1e-9;
        *gflops = rate > *gflops ? rate : *gflops;
    } while (now() < end);
    compute_turn_give(compute);
    arena_fini(&o.arena);
    return ENG_OK;
}

eng_status eng_bench_gemm(eng_compute *compute, const char *kernel, size_t m, size_t n, size_t k,
                          double seconds, double *gflops, eng_error *err)
{
    *gflops = 0;
    if (kernel != NULL && strcmp(kernel, "peak") == 0) {
        *gflops = bench_peak(compute, seconds);
        return ENG_OK;
    }
    if (m == 0 || n == 0 || k == 0) {
        return fail(err, ENG_EINVAL, "shape", "m, n and k must be at least 1");
    }
    if (kernel == NULL || strcmp(kernel, eng_compute_get_info(compute)->kernel) == 0) {
        return bench_product(compute, m, n, k, seconds, gflops, err);
    }
    eng_compute *other = NULL;
    eng_status status = eng_compute_start(compute_threads(compute), kernel, &other, err);
    if (status == ENG_OK) {
        status = bench_product(other, m, n, k, seconds, gflops, err);
        eng_compute_stop(other);
    }
    return status;
}

/* A linear map of I inputs and O outputs costs 2·T·I·O; attention 2·2·len²·H a sequence. */
double eng_forward_flops(const eng_model *model, const size_t *lens, size_t n)
{
    double H = (double)model->params.hidden, F = (double)model->params.ffn, flops = 0;
    for (size_t s = 0; s < n; s++) {
        double len = (double)lens[s];
        double layer = 2 * len * (4 * H * H + 2 * H * F) + 4 * len * len * H;
        flops += (double)model->params.layers * layer + 4 * len * H;
    }
    return flops;
}

/* ---- a training step ---- */

/* A step as a job takes it: micro-batches on one tape (mrc_gradient.h). */
struct train_bench {
    struct mrc_gradient gradient;
    int32_t *ids;
    struct mrc_row *rows;
    float *route, *mix, *dmerged;
};

static void train_fini(struct train_bench *t)
{
    mrc_gradient_fini(&t->gradient);
    free(t->ids);
    free(t->rows);
    free(t->route);
    free(t->mix);
    free(t->dmerged);
}

static eng_status train_init(struct train_bench *t, eng_compute *compute, const eng_bank *bank,
                             size_t tokens, size_t batch, eng_error *err)
{
    const eng_bank_info *info = &bank->info;
    const struct encoder_params *params = &bank->model->params;
    size_t prompt = info->layers * info->prompt_tokens * params->hidden;
    if (tokens > params->positions) {
        return fail(err, ENG_ELIMIT, "tokens", "%zu tokens, the model reads %zu", tokens,
                    params->positions);
    }
    t->ids = calloc(tokens, sizeof *t->ids);
    t->rows = calloc(batch, sizeof *t->rows);
    t->route = calloc(info->route_len, sizeof *t->route);
    t->mix = calloc(info->layers * info->modules, sizeof *t->mix);
    t->dmerged = calloc(prompt, sizeof *t->dmerged);
    if (t->ids == NULL || t->rows == NULL || t->route == NULL || t->mix == NULL ||
        t->dmerged == NULL) {
        return fail_nomem(err, "train");
    }
    for (size_t i = 0; i < tokens; i++) {
        t->ids[i] = (int32_t)(i * 37 % params->vocab);
    }
    for (size_t s = 0; s < batch; s++) {
        t->rows[s] = (struct mrc_row){
            .sequence = {.ids = t->ids, .len = tokens, .bank = bank, .mix = t->mix},
            .dmerged = t->dmerged};
    }
    return mrc_gradient_init(&t->gradient, compute, bank->model, tokens, 0, prompt, WANT_PROMPT,
                             err);
}

static eng_status train_step(struct train_bench *t, const eng_bank *bank, size_t batch,
                             eng_error *err)
{
    double loss = 0;
    bank_mix(bank, t->route, NULL, t->mix, NULL);
    memset(t->dmerged, 0, t->gradient.prompt_floats * sizeof *t->dmerged);
    eng_status status = mrc_gradient_run(&t->gradient, t->rows, batch, &loss, err);
    bank_route_gradient(bank, t->route, t->dmerged, t->mix); /* into spent memory: only timed */
    return status;
}

eng_status eng_bench_train_step(eng_compute *compute, const eng_model *model, const eng_bank *bank,
                                size_t tokens, size_t batch, double *seconds, eng_error *err)
{
    struct train_bench t = {0};
    (void)model; /* the bank's */
    eng_status status = train_init(&t, compute, bank, tokens, batch, err);
    double best = 0, deadline = now() + 10;
    for (size_t i = 0; i < 4 && status == ENG_OK && (i < 2 || now() < deadline); i++) {
        double start = now();
        status = train_step(&t, bank, batch, err);
        double took = now() - start;
        best = i == 1 || took < best ? took : best; /* the first run touches the memory */
    }
    *seconds = best;
    train_fini(&t);
    return status;
}
