/* gemm_tile.c: one tile of C by the vector kernels.
 *
 * A tile of C is up to TILE_ROWS rows by some panels of 16 columns. Inside, the sum is cut into
 * blocks of BLOCK_K: the A block (TILE_ROWS x BLOCK_K, at most 384 KiB) stays in the second-level
 * cache while the panels pass through the first once, as many side by side as the kernel is wide. With
 * one block of rows, as in a short request, each weight is read from memory once; with many rows the next
 * panels are asked for while the present ones are computed. Later blocks start from the partial C, which
 * continues the same chain of multiply-adds: blocking changes no bit.
 *
 * Whatever is not packed (attention, backward) is packed on the fly into the thread's scratch, a block
 * at a time. A itself is not packed: activations have padded rows (gemm_stride), so a few rows neither
 * fight for cache sets nor need a copy. A transposed A (weight gradients) is copied into rows first.
 */
#include "engine/gemm_tile.h"
#include "engine/ops.h"

#include <string.h>

/* Panels packed on the fly live in scratch: SCRATCH_PANELS of B, each SCRATCH_K deep and a line
 * longer, so that they do not fall into the same cache sets; and one chunk of Aᵀ. Panels of float16
 * weights are widened there, a kernel's width at a time. */
#define SCRATCH_K      ((size_t)256)
#define SCRATCH_PANELS (TILE_COLUMNS / PANEL)
#define SCRATCH_STRIDE (SCRATCH_K * PANEL + 16)
#define TURN_STRIDE    (SCRATCH_K + 16)
#define MAX_STEP_ROWS  ((size_t)8)
#define MAX_PANELS     ((size_t)3)

_Static_assert((SCRATCH_STRIDE * SCRATCH_PANELS + TILE_ROWS * TURN_STRIDE) * sizeof(float) <=
                   GEMM_SCRATCH,
               "scratch holds one block of B and one of A");
_Static_assert(MAX_PANELS *BLOCK_K *PANEL * sizeof(float) <= GEMM_SCRATCH, "and widened panels");

struct kernel {
    size_t rows, panels; /* most of one step */
    size_t sharers;      /* steps that share out the next panels, at least */
    void (*step)(const struct gemm_step *);
};

static const struct kernel kernels[] = {
    [SIMD_AVX2] = {6, 1, 2, gemm_step_avx2},
    [SIMD_AVX512] = {8, 3, 8, gemm_step_avx512},
};

size_t tile_unit(enum simd simd)
{
    return simd == SIMD_NONE ? PANEL : kernels[simd].panels * PANEL;
}

size_t tile_step_rows(enum simd simd)
{
    return simd == SIMD_NONE ? 1 : kernels[simd].rows;
}

/* A block of the sum: operands as the kernel wants them. */
struct block {
    enum simd simd;
    const float *a; /* (rows, k) */
    size_t lda;
    const struct gemm_packed *packed; /* or NULL, then: */
    const float *panels; /* panel j of the tile at panels + j · SCRATCH_STRIDE, (k,16) */
    float *room;         /* for widened panels */
    size_t from, k;
};

static const float zero_row[MAX_PANELS * PANEL] __attribute__((aligned(64)));

/* The last panel of C may be narrower than 16: computed aside, copied over. */
static void narrow_step(const struct gemm_product *g, const struct block *block,
                        struct gemm_step *step, size_t column)
{
    float c[MAX_STEP_ROWS * PANEL], *out = step->c;
    size_t columns = g->n - column;
    for (size_t r = 0; r < step->rows; r++) {
        for (size_t j = 0; j < PANEL; j++) {
            bool old = j < columns && (block->from > 0 || g->add);
            float bias = j < columns && g->bias != NULL ? g->bias[column + j] : 0;
            c[r * PANEL + j] = old ? out[r * g->ldc + j] : bias;
        }
    }
    step->init = step->c = c;
    step->ldinit = step->ldc = PANEL;
    kernels[block->simd].step(step);
    for (size_t r = 0; r < step->rows; r++) {
        memcpy(out + r * g->ldc, c + r * PANEL, columns * sizeof *c);
    }
}

static void step_at(const struct gemm_product *g, const struct block *block, struct gemm_step *step,
                    size_t row, size_t column)
{
    step->c = g->c + row * g->ldc + column;
    step->ldc = g->ldc;
    if (column + PANEL > g->n) {
        narrow_step(g, block, step, column);
        return;
    }
    bool old = block->from > 0 || g->add;
    const float *bias = g->bias != NULL ? g->bias + column : zero_row;
    step->init = old ? step->c : bias;
    step->ldinit = old ? g->ldc : 0;
    kernels[block->simd].step(step);
}

/* Part `index` of `parts` of the panels from j on, as many as the step has, is asked for while the step
 * computes: weights come from far away. Kernels ask on their way; asking for all at once holds up the loads
 * behind it, and where few steps share three panels that costs more than it saves. */
static void ask_ahead(const struct block *block, size_t j, size_t index, size_t parts,
                      struct gemm_step *step)
{
    const struct kernel *kernel = &kernels[block->simd];
    step->ahead = step->ahead_end = NULL;
    if (block->packed == NULL || parts < kernel->sharers || step->panels != kernel->panels) {
        return;
    }
    size_t value = block->packed->half ? sizeof(uint16_t) : sizeof(float);
    size_t share = divide_up(divide_up(block->k * PANEL * value, 64), parts) * 64;
    step->ahead_stride = block->packed->k * PANEL * value;
    step->ahead =
        block->packed->data + j * step->ahead_stride + block->from * PANEL * value + index * share;
    step->ahead_end = step->ahead + share;
}

/* Panels of the next step, `columns` before the tile's end: the kernel's width, but two and two rather
 * than three and one; a narrow last panel goes alone. */
static size_t step_panels(const struct kernel *kernel, size_t columns)
{
    size_t whole = columns / PANEL;
    if (whole == kernel->panels + 1 && kernel->panels > 1) {
        return divide_up(whole, 2);
    }
    return whole == 0 ? 1 : min_size(whole, kernel->panels);
}

/* Where panel j of C (counted from its first column) and its neighbours are. */
static void point_at_panels(const struct block *block, const struct tile *tile, size_t j,
                            size_t panels, struct gemm_step *step)
{
    if (block->packed == NULL) {
        step->panel = block->panels + (j - tile->column / PANEL) * SCRATCH_STRIDE;
        step->panel_stride = SCRATCH_STRIDE;
        return;
    }
    step->panel = packed_panel(block->packed, j, block->from, block->k, block->room);
    step->panel_stride = (block->packed->half ? block->k : block->packed->k) * PANEL;
    for (size_t p = 1; p < panels; p++) {
        (void)packed_panel(block->packed, j + p, block->from, block->k,
                           block->room + p * block->k * PANEL);
    }
}

static void multiply_block(const struct gemm_product *g, const struct tile *tile,
                           const struct block *block)
{
    const struct kernel *kernel = &kernels[block->simd];
    size_t end = min_size(tile->column + tile->columns, g->n);
    size_t parts = divide_up(tile->rows, kernel->rows), rows = divide_up(tile->rows, parts);
    struct gemm_step step = {.k = block->k, .lda = block->lda};
    for (size_t column = tile->column; column < end; column += step.panels * PANEL) {
        size_t j = column / PANEL;
        step.panels = step_panels(kernel, end - column);
        point_at_panels(block, tile, j, step.panels, &step);
        for (size_t r = 0; r < tile->rows; r += rows) {
            ask_ahead(block, j + step.panels, r / rows, parts, &step);
            step.rows = min_size(rows, tile->rows - r);
            step.a = block->a + r * block->lda;
            step_at(g, block, &step, tile->row + r, column);
        }
    }
    if (block->from + block->k == g->k && g->gelu != NULL) {
        size_t at = tile->row * g->ldc + tile->column;
        ops_gelu_rows(block->simd, g->c + at, g->gelu + at, tile->rows, tile->columns, g->ldc);
    }
}

static void tile_packed(enum simd simd, const struct gemm_product *g, const struct tile *tile,
                        float *scratch)
{
    for (size_t from = 0; from < g->k || from == 0; from += BLOCK_K) {
        struct block block = {.simd = simd,
                              .a = g->a + tile->row * g->lda + from,
                              .lda = g->lda,
                              .packed = g->packed,
                              .room = scratch,
                              .from = from,
                              .k = min_size(BLOCK_K, g->k - from)};
        multiply_block(g, tile, &block);
    }
}

/* ---- B packed on the fly ---- */

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

/* One panel of a matrix that is packed already. */
static void copy_panel(const struct gemm_packed *packed, size_t j, size_t from, size_t k, float *to)
{
    const float *panel = packed_panel(packed, j, from, k, to);
    if (panel != to) {
        memcpy(to, panel, k * PANEL * sizeof *to);
    }
}

static void pack_block(const struct gemm_product *g, const struct tile *tile, size_t from, size_t k,
                       float *to)
{
    if (!g->b_transposed && g->packed == NULL) {
        pack_rows(g, tile, from, k, to);
        return;
    }
    for (size_t column = tile->column; column < tile->column + tile->columns; column += PANEL) {
        if (!g->b_transposed) {
            packed_turned(g->packed, from, k, column, to);
        } else if (g->packed != NULL) {
            copy_panel(g->packed, column / PANEL, from, k, to);
        } else {
            pack_panel_transposed(g->b + column * g->ldb + from, g->ldb,
                                  min_size(PANEL, g->n - column), k, to);
        }
        to += SCRATCH_STRIDE;
    }
}

/* Rows go by chunks under one packed block of B, which pays for the packing. */
static void tile_on_the_fly(enum simd simd, const struct gemm_product *g, const struct tile *tile,
                            float *scratch)
{
    float *turned = scratch + SCRATCH_STRIDE * SCRATCH_PANELS;
    for (size_t from = 0; from < g->k || from == 0; from += SCRATCH_K) {
        size_t k = min_size(SCRATCH_K, g->k - from);
        struct block block = {.simd = simd, .panels = scratch, .from = from, .k = k};
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

void tile_run(enum simd simd, const struct gemm_product *g, const struct tile *tile, void *scratch)
{
    if (g->packed != NULL && g->b_transposed && !g->a_transposed) {
        tile_packed(simd, g, tile, scratch);
    } else {
        tile_on_the_fly(simd, g, tile, scratch);
    }
}
