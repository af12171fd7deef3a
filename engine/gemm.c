/* gemm.c: products cut into tiles for the pool, and the OpenBLAS back end. Contract in gemm.h. */
#include "engine/gemm.h"
#include "engine/gemm_tile.h"
#include "engine/ops.h"
#include "engine/pool.h"
#include "engine/status.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* clang 14's __builtin_cpu_supports does not know "f16c": CPUID leaf 1, ECX bit 29. */
static bool cpu_has_f16c(void)
{
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

enum simd gemm_cpu(void)
{
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !cpu_has_f16c()) {
        return SIMD_NONE;
    }
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
               ? SIMD_AVX512
               : SIMD_AVX2;
#else
    return SIMD_NONE;
#endif
}

bool gemm_cpu_capable(void)
{
    return gemm_cpu() != SIMD_NONE;
}

const char *gemm_kernel_name(enum simd simd)
{
    static const char *const names[] = {"openblas", "avx2-packed", "avx512-packed"};
    return names[simd];
}

eng_status gemm_blas_check(char *config, size_t size, eng_error *err)
{
    snprintf(config, size, "%s", openblas_get_config());
    if (openblas_get_parallel() == 0 || strstr(config, "SINGLE_THREADED") != NULL) {
        return fail(err, ENG_EUNSUPPORTED, "openblas",
                    "this OpenBLAS is built without threads and locks and gives wrong results to "
                    "concurrent callers; install libopenblas0-pthread (found: %s)",
                    config);
    }
    openblas_set_num_threads(1);
    return ENG_OK;
}

size_t gemm_stride(size_t n)
{
    size_t stride = round_up(n, 16);
    return stride % 64 == 0 ? stride + 16 : stride;
}

double gemm_peak(enum simd simd, double seconds)
{
    if (simd == SIMD_AVX512) {
        return gemm_peak_avx512(seconds);
    }
    return simd == SIMD_AVX2 ? gemm_peak_avx2(seconds) : 0;
}

/* ---- one tile, OpenBLAS ---- */

/* C (+)= A·B for operands where they lie; A and C at the tile's corner. */
static void blas(const struct gemm_product *g, const struct tile *tile, const float *b, size_t ldb,
                 bool transposed, size_t column, size_t columns, size_t from, size_t k, float beta)
{
    const float *a =
        g->a + (g->a_transposed ? tile->row + from * g->lda : tile->row * g->lda + from);
    cblas_sgemm(CblasRowMajor, g->a_transposed ? CblasTrans : CblasNoTrans,
                transposed ? CblasTrans : CblasNoTrans, (int)tile->rows, (int)columns, (int)k, 1, a,
                (int)g->lda, b, (int)ldb, beta, g->c + tile->row * g->ldc + column, (int)g->ldc);
}

#define ROOM_ROWS (GEMM_SCRATCH / sizeof(float) / PANEL) /* of a widened panel */

/* Of a matrix that only its panels are left of: Wᵀ panel by panel, W as sums over its panels. */
static void blas_packed(const struct gemm_product *g, const struct tile *tile, float beta,
                        float *room)
{
    size_t end = tile->column + tile->columns;
    for (size_t at = tile->column; g->b_transposed && at < end; at += PANEL) {
        for (size_t from = 0; from < g->k; from += ROOM_ROWS) {
            size_t k = min_size(ROOM_ROWS, g->k - from);
            const float *panel = packed_panel(g->packed, at / PANEL, from, k, room);
            blas(g, tile, panel, PANEL, false, at, min_size(PANEL, end - at), from, k,
                 from > 0 ? 1 : beta);
        }
    }
    for (size_t from = 0; !g->b_transposed && from < g->k; from += PANEL) {
        for (size_t at = tile->column; at < end; at += ROOM_ROWS) {
            size_t columns = min_size(ROOM_ROWS, end - at);
            const float *panel = packed_panel(g->packed, from / PANEL, at, columns, room);
            blas(g, tile, panel, PANEL, true, at, columns, from, min_size(PANEL, g->k - from),
                 from > 0 ? 1 : beta);
        }
    }
}

static void tile_blas(const struct gemm_product *g, const struct tile *tile, void *scratch)
{
    float *c = g->c + tile->row * g->ldc + tile->column;
    for (size_t r = 0; r < tile->rows && g->bias != NULL && !g->add; r++) {
        memcpy(c + r * g->ldc, g->bias + tile->column, tile->columns * sizeof *c);
    }
    float beta = g->add || g->bias != NULL ? 1 : 0;
    if (g->b == NULL) {
        blas_packed(g, tile, beta, scratch);
    } else {
        const float *b = g->b + (g->b_transposed ? tile->column * g->ldb : tile->column);
        blas(g, tile, b, g->ldb, g->b_transposed, tile->column, tile->columns, 0, g->k, beta);
    }
    if (g->gelu != NULL) {
        size_t at = tile->row * g->ldc + tile->column;
        ops_gelu_rows(SIMD_NONE, c, g->gelu + at, tile->rows, tile->columns, g->ldc);
    }
}

static void run_tile(enum simd simd, const struct gemm_product *g, const struct tile *tile,
                     void *scratch)
{
    if (simd == SIMD_NONE) {
        tile_blas(g, tile, scratch);
    } else {
        tile_run(simd, g, tile, scratch);
    }
}

/* ---- cutting products into tiles ---- */

/* Columns go by units of the kernel's width: first chunks of several units, which the threads share
 * out, then single ones, so that the threads end together. Every chunk is cut into the same rows. */
struct cut {
    size_t rows, down;   /* of a tile; tiles on top of each other */
    size_t columns;      /* of a chunk */
    size_t chunks, unit; /* chunks, then tiles of one unit */
    size_t across;       /* of both kinds */
    bool by_rows;        /* tiles as wide as C */
};

/* Many rows and a matrix that fits a core's cache beside them: tiles as wide as C, so that the threads
 * share out rows alone and find in their caches what they wrote there (pool_run). */
#define BY_ROWS_BYTES ((size_t)512 << 10)
#define BY_ROWS_LEAST ((size_t)4) /* tiles a thread */

static struct cut cut_by_rows(const struct gemm_product *g, enum simd simd, size_t threads)
{
    size_t least = BY_ROWS_LEAST * threads,
           rows = g->m >= TILE_ROWS / 2 * least ? TILE_ROWS / 2 : TILE_ROWS / 4,
           down = divide_up(g->m, rows);
    bool pays = simd != SIMD_NONE && g->packed != NULL && g->b_transposed && !g->a_transposed &&
                threads > 1 && g->n * g->k * sizeof(float) <= BY_ROWS_BYTES && down >= least;
    return (struct cut){rows, down, round_up(g->n, PANEL), 1, PANEL, 1, pays};
}

/* A tile pays for its operands with its size. Packed weights are shared, so rows are cut where the
 * cache says; a tile that packs for itself takes as many rows as it can, and no single units. */
static struct cut cut_product(const struct gemm_product *g, enum simd simd, size_t threads)
{
    if (g->m == 0 || g->n == 0) {
        return (struct cut){0};
    }
    struct cut cut = cut_by_rows(g, simd, threads);
    if (cut.by_rows) {
        return cut;
    }
    bool packed = g->packed != NULL && g->b_transposed;
    cut.unit = packed ? tile_unit(simd) : TILE_COLUMNS;
    size_t units = divide_up(g->n, cut.unit), most = TILE_COLUMNS / cut.unit;
    cut.down = divide_up(g->m, packed ? TILE_ROWS : FLY_ROWS);
    if (!packed && threads > 1 && units * cut.down < 4 * threads) {
        cut.unit = round_up(divide_up(g->n, 4 * threads), tile_unit(simd));
        cut.unit = min_size(cut.unit, TILE_COLUMNS);
        units = divide_up(g->n, cut.unit);
        most = 1;
    }
    size_t chunk = threads > 1 ? min_size(most, units / (2 * threads)) : most;
    chunk = chunk > 0 ? chunk : 1;
    size_t singles = threads > 1 ? min_size(units, threads * chunk) : 0;
    cut.chunks = threads > 1 ? (units - singles) / chunk : divide_up(units, chunk);
    cut.columns = chunk * cut.unit;
    size_t covered = min_size(units, cut.chunks * chunk);
    cut.across = cut.chunks + units - covered;
    cut.rows = round_up(divide_up(g->m, cut.down), tile_step_rows(simd));
    cut.down = divide_up(g->m, cut.rows);
    return cut;
}

static struct tile tile_at(const struct gemm_product *g, const struct cut *cut, size_t index)
{
    /* Rows of one column block follow each other: its weights are then still in a cache. */
    size_t row = index % cut->down * cut->rows, i = index / cut->down;
    size_t before = min_size(i, cut->chunks);
    size_t column = before * cut->columns + (i - before) * cut->unit;
    size_t columns = i < cut->chunks ? cut->columns : cut->unit;
    return (struct tile){row, min_size(cut->rows, g->m - row), column,
                         min_size(columns, g->n - column)};
}

struct gemm_job {
    const struct gemm_product *products;
    size_t count, threads, tiles;
    enum simd simd;
    bool by_rows; /* every product, into as many tiles */
};

static void gemm_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    const struct gemm_job *job = arg;
    if (job->by_rows) { /* the same rows of all products, one after the other */
        const struct gemm_product *g = &job->products[index % job->count];
        struct cut cut = cut_product(g, job->simd, job->threads);
        struct tile tile = tile_at(g, &cut, index / job->count);
        run_tile(job->simd, g, &tile, scratch);
        return;
    }
    index = pool_dealt(job->tiles, job->threads, index);
    for (size_t i = 0; i < job->count; i++) {
        struct cut cut = cut_product(&job->products[i], job->simd, job->threads);
        if (index < cut.down * cut.across) {
            struct tile tile = tile_at(&job->products[i], &cut, index);
            run_tile(job->simd, &job->products[i], &tile, scratch);
            return;
        }
        index -= cut.down * cut.across;
    }
}

void gemm_run(eng_compute *compute, const struct gemm_product *products, size_t count)
{
    struct gemm_job job = {.products = products,
                           .count = count,
                           .threads = compute_threads(compute),
                           .simd = compute_simd(compute),
                           .by_rows = true};
    double work = 0;
    for (size_t i = 0; i < count; i++) {
        const struct gemm_product *g = &products[i];
        struct cut cut = cut_product(g, job.simd, job.threads);
        job.tiles += cut.down * cut.across;
        job.by_rows = job.by_rows && cut.by_rows && g->m == products[0].m;
        work += 2.0 * (double)g->m * (double)g->n * (double)g->k;
    }
    pool_run(compute, job.tiles, work, gemm_task, &job);
}

void gemm_serial(enum simd simd, const struct gemm_product *product, void *scratch)
{
    struct cut cut = cut_product(product, simd, 1);
    for (size_t i = 0; i < cut.down * cut.across; i++) {
        struct tile tile = tile_at(product, &cut, i);
        run_tile(simd, product, &tile, scratch);
    }
}
