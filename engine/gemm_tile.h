/* gemm_tile.h (private to gemm*.c): packed matrices, and one tile of C by the vector kernels. */
#ifndef ENGINE_GEMM_TILE_H
#define ENGINE_GEMM_TILE_H

#include "engine/gemm.h"

#define PANEL     ((size_t)16)
#define TILE_ROWS ((size_t)192)
#define BLOCK_K   ((size_t)512)
#define FLY_ROWS  ((size_t)1536) /* rows under one block of B packed on the fly */

/* Panel j at data + j·k·16 values: (k,16), what is past column n is 0. Values are float32, or float16
 * that is widened, exactly, on its way to the kernel. */
struct gemm_packed {
    size_t n, k;
    bool half;
    unsigned char data[] __attribute__((aligned(64)));
};

struct tile {
    size_t row, rows;       /* of C */
    size_t column, columns; /* column is a multiple of 16 */
};

static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t divide_up(size_t n, size_t by)
{
    return (n + by - 1) / by;
}

static inline size_t round_up(size_t n, size_t to)
{
    return divide_up(n, to) * to;
}

/* to[p*16+j] = b[j*ldb + p], p = 0 … k-1, j < columns: one panel from a matrix stored (n,k). */
void pack_panel_transposed(const float *b, size_t ldb, size_t columns, size_t k, float *to);
/* Rows from … from+k-1 of panel j as floats: where they lie, or widened into `room` (k,16). */
const float *packed_panel(const struct gemm_packed *packed, size_t j, size_t from, size_t k,
                          float *room);
/* Columns column … column+15 of rows from … from+k-1 of the matrix W that was packed, as a panel:
 * to[p*16+j] = W[from+p][column+j]. `from` is a multiple of 16. */
void packed_turned(const struct gemm_packed *packed, size_t from, size_t k, size_t column,
                   float *to);

/* Columns of C that the kernel likes to have in one tile. */
size_t tile_unit(enum simd simd);
/* Rows that one call of it takes. */
size_t tile_step_rows(enum simd simd);
/* Widest tile: its block of B, packed on the fly, fits the scratch. A multiple of every unit. */
#define TILE_COLUMNS ((size_t)240)
/* One tile of one product. scratch: GEMM_SCRATCH bytes. */
void tile_run(enum simd simd, const struct gemm_product *g, const struct tile *tile, void *scratch);

/* dst[i] = the float16 at src[i], i < n; n is a multiple of 8. gemm_avx2.c. */
void gemm_widen(const uint16_t *src, float *dst, size_t n);

#endif
