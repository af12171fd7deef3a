/* gemm.c: tiles, packing and the two back ends behind gemm_run. Contract in gemm.h.
 *
 * A tile of C is up to TILE_ROWS rows by some panels of 16 columns. Inside, the sum is cut into
 * blocks of BLOCK_K: the A block (TILE_ROWS x BLOCK_K, at most 384 KiB) stays in the second-level
 * cache while every panel (16 x BLOCK_K, 32 KiB) passes through the first once. With one block of
 * rows, as in a short request, each weight is read from memory once. Later blocks start from the
 * partial C, which continues the same chain of multiply-adds: blocking changes no bit.
 *
 * Weights are packed once, when a model is opened. Whatever is not packed (attention, backward) is
 * packed on the fly into the thread's scratch, a block at a time.
 *
 * A itself is not packed: activations have padded rows (gemm_stride), so six rows neither fight for
 * cache sets nor need a copy. A transposed A (weight gradients) is copied into rows first.
 */
#include "engine/gemm.h"
#include "engine/arena.h"
#include "engine/ops.h"
#include "engine/pool.h"
#include "engine/status.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#define PANEL     ((size_t)16)
#define KERNEL_M  ((size_t)6)
#define TILE_ROWS ((size_t)192)
#define BLOCK_K   ((size_t)512)
/* Panels packed on the fly live in scratch: SCRATCH_PANELS of B, each SCRATCH_K deep and a line
 * longer, so that they do not fall into the same cache sets; and one chunk of Aᵀ. */
#define SCRATCH_K      ((size_t)256)
#define SCRATCH_PANELS ((size_t)16)
#define SCRATCH_STRIDE (SCRATCH_K * PANEL + 16)
#define TURN_STRIDE    (SCRATCH_K + 16)
#define FLY_ROWS       ((size_t)1536) /* rows under one packed block */

_Static_assert((SCRATCH_STRIDE * SCRATCH_PANELS + TILE_ROWS * TURN_STRIDE) * sizeof(float) <=
                   GEMM_SCRATCH,
               "scratch holds one block of B and one of A");

struct gemm_packed {
    size_t n, k;
    float data[] __attribute__((aligned(64))); /* (⌈n/16⌉, k, 16), columns past n are 0 */
};

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

bool gemm_cpu_capable(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
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

double gemm_peak(double seconds)
{
    return gemm_cpu_capable() ? gemm_peak_avx2(seconds) : 0;
}

/* ---- packing ---- */

size_t gemm_packed_bytes(size_t n, size_t k)
{
    size_t bytes = 0;
    bool fits = n <= SIZE_MAX - PANEL && size_mul(round_up(n, PANEL), k, &bytes) &&
                size_mul(bytes, sizeof(float), &bytes) &&
                size_add(bytes, sizeof(struct gemm_packed), &bytes);
    return fits ? bytes : 0; /* panels are whole cache lines, and so is the header */
}

/* One panel from B stored (n,k): to[p*16+j] = b[(from+j)*ldb + p], p = 0 … k-1, j < columns. */
static void pack_panel_transposed(const float *b, size_t ldb, size_t columns, size_t k, float *to)
{
    if (columns < PANEL) {
        memset(to, 0, k * PANEL * sizeof *to);
    }
    gemm_transpose(b, ldb, columns, k, to, PANEL);
}

struct gemm_packed *gemm_pack(const float *w, size_t n, size_t k, void *memory)
{
    struct gemm_packed *packed = memory;
    packed->n = n;
    packed->k = k;
    for (size_t from = 0; from < n; from += PANEL) {
        pack_panel_transposed(w + from * k, k, min_size(PANEL, n - from), k,
                              packed->data + from * k);
    }
    return packed;
}

/* ---- one tile, vector back end ---- */

struct tile {
    size_t row, rows;       /* of C */
    size_t column, columns; /* column is a multiple of 16 */
};

/* A block of the sum: operands as the kernel wants them. */
struct block {
    const float *a; /* (rows, k) */
    size_t lda;
    const float *panels; /* panel j of the tile at panels + j * panel_stride, (k,16) */
    size_t panel_stride;
    size_t from, k;
};

static const float zero_row[PANEL] __attribute__((aligned(64)));

/* The last panel of C may be narrower than 16: computed aside, copied over. */
static void narrow_kernel(const struct gemm_product *g, const struct block *block, size_t row,
                          size_t rows, size_t column, const float *a, const float *panel)
{
    float c[KERNEL_M * PANEL], *out = g->c + row * g->ldc + column;
    size_t columns = g->n - column;
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = 0; j < PANEL; j++) {
            bool old = j < columns && (block->from > 0 || g->add);
            float bias = j < columns && g->bias != NULL ? g->bias[column + j] : 0;
            c[r * PANEL + j] = old ? out[r * g->ldc + j] : bias;
        }
    }
    gemm_kernel(rows, block->k, a, block->lda, panel, c, PANEL, c, PANEL);
    for (size_t r = 0; r < rows; r++) {
        memcpy(out + r * g->ldc, c + r * PANEL, columns * sizeof *c);
    }
}

static void kernel_at(const struct gemm_product *g, const struct block *block, size_t row,
                      size_t rows, size_t column, const float *a, const float *panel)
{
    if (column + PANEL > g->n) {
        narrow_kernel(g, block, row, rows, column, a, panel);
        return;
    }
    float *c = g->c + row * g->ldc + column;
    if (block->from > 0 || g->add) {
        gemm_kernel(rows, block->k, a, block->lda, panel, c, g->ldc, c, g->ldc);
    } else {
        const float *init = g->bias != NULL ? g->bias + column : zero_row;
        gemm_kernel(rows, block->k, a, block->lda, panel, init, 0, c, g->ldc);
    }
}

/* Asks for a share of the next panel while this one is computed: weights come from far away. */
static void prefetch_share(const float *panel, size_t k, size_t row, size_t rows)
{
    size_t lines = k * PANEL / 16, share = lines * KERNEL_M / rows + 1;
    const float *from = panel + row / KERNEL_M * share * 16;
    for (size_t i = 0; i < share; i++) {
        __builtin_prefetch(from + i * 16, 0, 2);
    }
}

static void multiply_block(const struct gemm_product *g, const struct tile *tile,
                           const struct block *block)
{
    for (size_t column = tile->column; column < tile->column + tile->columns; column += PANEL) {
        size_t j = (column - tile->column) / PANEL;
        const float *panel = block->panels + j * block->panel_stride;
        for (size_t r = 0; r < tile->rows; r += KERNEL_M) {
            size_t rows = min_size(KERNEL_M, tile->rows - r);
            prefetch_share(panel + block->panel_stride, block->k, r, tile->rows);
            kernel_at(g, block, tile->row + r, rows, column, block->a + r * block->lda, panel);
        }
    }
    if (block->from + block->k == g->k && g->gelu != NULL) {
        size_t at = tile->row * g->ldc + tile->column;
        ops_gelu_rows(true, g->c + at, g->gelu + at, tile->rows, tile->columns, g->ldc);
    }
}

static void tile_packed(const struct gemm_product *g, const struct tile *tile)
{
    for (size_t from = 0; from < g->k || from == 0; from += BLOCK_K) {
        size_t k = min_size(BLOCK_K, g->k - from);
        struct block block = {.a = g->a + tile->row * g->lda + from,
                              .lda = g->lda,
                              .panels = g->packed->data + tile->column * g->k + from * PANEL,
                              .panel_stride = g->k * PANEL,
                              .from = from,
                              .k = k};
        multiply_block(g, tile, &block);
    }
}

/* All panels of the tile, from B stored (k,n): rows of B are read from end to end. */
static void pack_rows(const struct gemm_product *g, const struct tile *tile, size_t from, size_t k,
                      float *to)
{
    for (size_t p = 0; p < k; p++) {
        const float *row = g->b + (from + p) * g->ldb;
        size_t column = tile->column, end = tile->column + tile->columns;
        float *out = to + p * PANEL;
        for (; column + PANEL <= end; column += PANEL, out += SCRATCH_STRIDE) {
            memcpy(out, row + column, PANEL * sizeof *out);
        }
        for (size_t j = 0; column < end && j < PANEL; j++) {
            out[j] = column + j < g->n ? row[column + j] : 0;
        }
    }
}

static void pack_block(const struct gemm_product *g, const struct tile *tile, size_t from, size_t k,
                       float *to)
{
    if (!g->b_transposed) {
        pack_rows(g, tile, from, k, to);
        return;
    }
    for (size_t column = tile->column; column < tile->column + tile->columns; column += PANEL) {
        pack_panel_transposed(g->b + column * g->ldb + from, g->ldb, min_size(PANEL, g->n - column),
                              k, to);
        to += SCRATCH_STRIDE;
    }
}

/* Rows go by chunks under one packed block of B, which pays for the packing. */
static void tile_on_the_fly(const struct gemm_product *g, const struct tile *tile, float *scratch)
{
    float *turned = scratch + SCRATCH_STRIDE * SCRATCH_PANELS;
    for (size_t from = 0; from < g->k || from == 0; from += SCRATCH_K) {
        size_t k = min_size(SCRATCH_K, g->k - from);
        struct block block = {
            .panels = scratch, .panel_stride = SCRATCH_STRIDE, .from = from, .k = k};
        pack_block(g, tile, from, k, scratch);
        for (size_t row = 0; row < tile->rows; row += TILE_ROWS) {
            struct tile chunk = *tile;
            chunk.row += row;
            chunk.rows = min_size(TILE_ROWS, tile->rows - row);
            block.a = g->a + chunk.row * g->lda + from;
            block.lda = g->lda;
            if (g->a_transposed) {
                gemm_transpose(g->a + from * g->lda + chunk.row, g->lda, k, chunk.rows, turned,
                               TURN_STRIDE);
                block.a = turned;
                block.lda = TURN_STRIDE;
            }
            multiply_block(g, &chunk, &block);
        }
    }
}

/* ---- one tile, OpenBLAS ---- */

static void tile_blas(const struct gemm_product *g, const struct tile *tile)
{
    const float *a = g->a + (g->a_transposed ? tile->row : tile->row * g->lda);
    const float *b = g->b + (g->b_transposed ? tile->column * g->ldb : tile->column);
    float *c = g->c + tile->row * g->ldc + tile->column;
    for (size_t r = 0; r < tile->rows && g->bias != NULL && !g->add; r++) {
        memcpy(c + r * g->ldc, g->bias + tile->column, tile->columns * sizeof *c);
    }
    float beta = g->add || g->bias != NULL ? 1 : 0;
    cblas_sgemm(CblasRowMajor, g->a_transposed ? CblasTrans : CblasNoTrans,
                g->b_transposed ? CblasTrans : CblasNoTrans, (int)tile->rows, (int)tile->columns,
                (int)g->k, 1, a, (int)g->lda, b, (int)g->ldb, beta, c, (int)g->ldc);
    if (g->gelu != NULL) {
        size_t at = tile->row * g->ldc + tile->column;
        ops_gelu_rows(false, c, g->gelu + at, tile->rows, tile->columns, g->ldc);
    }
}

static void run_tile(bool vector, const struct gemm_product *g, const struct tile *tile,
                     void *scratch)
{
    if (!vector) {
        tile_blas(g, tile);
    } else if (g->packed != NULL && !g->a_transposed) {
        tile_packed(g, tile);
    } else {
        tile_on_the_fly(g, tile, scratch);
    }
}

/* ---- cutting products into tiles ---- */

/* Tiles of one product. */
struct cut {
    size_t rows, columns; /* of a tile */
    size_t down, across;  /* tiles */
};

static size_t divide_up(size_t n, size_t by)
{
    return (n + by - 1) / by;
}

/* At least `wanted` tiles if the product is large enough, but no more than that asks for: a tile
 * pays for its operands with its size. Packed weights are shared, so rows are cut where the cache
 * says; a tile that packs for itself takes as many rows as it can. */
static struct cut cut_product(const struct gemm_product *g, size_t wanted)
{
    struct cut cut = {0};
    if (g->m == 0 || g->n == 0) {
        return cut;
    }
    size_t across = divide_up(g->n, SCRATCH_PANELS * PANEL), down = divide_up(g->m, TILE_ROWS);
    if (g->packed == NULL) {
        size_t needed = min_size(divide_up(wanted, across), down);
        down = divide_up(g->m, FLY_ROWS);
        down = needed > down ? needed : down;
    }
    if (down * across < wanted) {
        across = divide_up(wanted, down);
    }
    cut.rows = round_up(divide_up(g->m, down), KERNEL_M);
    cut.columns = round_up(divide_up(g->n, across), PANEL);
    cut.down = divide_up(g->m, cut.rows);
    cut.across = divide_up(g->n, cut.columns);
    return cut;
}

static struct tile tile_at(const struct gemm_product *g, const struct cut *cut, size_t index)
{
    /* Rows of one column block follow each other: its weights are then still in a cache. */
    size_t row = index % cut->down * cut->rows, column = index / cut->down * cut->columns;
    return (struct tile){row, min_size(cut->rows, g->m - row), column,
                         min_size(cut->columns, g->n - column)};
}

struct gemm_job {
    const struct gemm_product *products;
    size_t count, wanted; /* wanted: tiles of each */
    bool vector;
};

static void gemm_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    const struct gemm_job *job = arg;
    for (size_t i = 0; i < job->count; i++) {
        struct cut cut = cut_product(&job->products[i], job->wanted);
        if (index < cut.down * cut.across) {
            struct tile tile = tile_at(&job->products[i], &cut, index);
            run_tile(job->vector, &job->products[i], &tile, scratch);
            return;
        }
        index -= cut.down * cut.across;
    }
}

void gemm_run(eng_compute *compute, const struct gemm_product *products, size_t count)
{
    size_t threads = compute_threads(compute);
    struct gemm_job job = {products, count, threads > 1 ? 4 * threads : 1, compute_vector(compute)};
    size_t tiles = 0;
    double work = 0;
    for (size_t i = 0; i < count; i++) {
        const struct gemm_product *g = &products[i];
        struct cut cut = cut_product(g, job.wanted);
        tiles += cut.down * cut.across;
        work += 2.0 * (double)g->m * (double)g->n * (double)g->k;
    }
    pool_run(compute, tiles, work, gemm_task, &job);
}

void gemm_serial(bool vector, const struct gemm_product *product, void *scratch)
{
    struct cut cut = cut_product(product, 1);
    for (size_t i = 0; i < cut.down * cut.across; i++) {
        struct tile tile = tile_at(product, &cut, i);
        run_tile(vector, product, &tile, scratch);
    }
}
