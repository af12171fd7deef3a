/* gemm_pack.c: matrices in panels of 16 columns, and the ways back out of them.
 *
 * A weight W (n,k) is used twice: forward as Wᵀ, whose rows of 16 columns the panels hold, and
 * backward as W itself. The second is had from the same panels, a square of 16 x 16 (which lies in one
 * piece) turned at a time, so nothing but the panels needs to be in memory; or, of small models, from
 * panels of Wᵀ made once (gemm_pack_turned).
 */
#include "engine/arena.h"
#include "engine/gemm_tile.h"
#include "engine/half.h"
#include "engine/status.h"

#include <string.h>

static bool packed_size(size_t n, size_t k, size_t value, size_t *bytes)
{
    return n <= SIZE_MAX - PANEL && size_mul(round_up(n, PANEL), k, bytes) &&
           size_mul(*bytes, value, bytes) && size_add(*bytes, sizeof(struct gemm_packed), bytes) &&
           size_add(*bytes, ARENA_ALIGN - 1, bytes);
}

size_t gemm_packed_bytes(size_t n, size_t k, bool half)
{
    size_t bytes = 0;
    bool fits = packed_size(n, k, half ? sizeof(uint16_t) : sizeof(float), &bytes);
    return fits ? bytes / ARENA_ALIGN * ARENA_ALIGN : 0;
}

void pack_panel_transposed(const float *b, size_t ldb, size_t columns, size_t k, float *to)
{
    if (columns < PANEL) {
        memset(to, 0, k * PANEL * sizeof *to);
    }
    gemm_transpose(b, ldb, columns, k, to, PANEL);
}

static void put_half(const float *square, size_t rows, uint16_t *to)
{
    for (size_t i = 0; i < rows * PANEL; i++) {
        to[i] = half_to_f16(square[i]);
    }
}

static void pack_panel_half(const float *b, size_t ldb, size_t columns, size_t k, uint16_t *to)
{
    float square[PANEL * PANEL];
    for (size_t p = 0; p < k; p += PANEL) {
        size_t rows = min_size(PANEL, k - p);
        pack_panel_transposed(b + p, ldb, columns, rows, square);
        put_half(square, rows, to + p * PANEL);
    }
}

struct gemm_packed *gemm_pack(const float *w, size_t n, size_t k, bool half, void *memory)
{
    struct gemm_packed *packed = memory;
    packed->n = n;
    packed->k = k;
    packed->half = half;
    for (size_t from = 0; from < n; from += PANEL) {
        size_t columns = min_size(PANEL, n - from);
        if (half) {
            uint16_t *to = (uint16_t *)(void *)packed->data + from * k;
            pack_panel_half(w + from * k, k, columns, k, to);
        } else {
            float *to = (float *)(void *)packed->data + from * k;
            pack_panel_transposed(w + from * k, k, columns, k, to);
        }
    }
    return packed;
}

void gemm_unpack(const struct gemm_packed *packed, float *w)
{
    const float *whole = (const float *)(const void *)packed->data;
    const uint16_t *half = (const uint16_t *)(const void *)packed->data;
    for (size_t row = 0; row < packed->n; row++) {
        size_t panel = row / PANEL * packed->k;
        for (size_t p = 0; p < packed->k; p++) {
            size_t at = (panel + p) * PANEL + row % PANEL;
            w[row * packed->k + p] = packed->half ? half_from_f16(half[at]) : whole[at];
        }
    }
}

const float *packed_panel(const struct gemm_packed *packed, size_t j, size_t from, size_t k,
                          float *room)
{
    size_t at = (j * packed->k + from) * PANEL;
    if (!packed->half) {
        return (const float *)(const void *)packed->data + at;
    }
    gemm_widen((const uint16_t *)(const void *)packed->data + at, room, k * PANEL);
    return room;
}

void packed_turned(const struct gemm_packed *packed, size_t from, size_t k, size_t column,
                   float *to)
{
    float room[PANEL * PANEL];
    size_t columns = min_size(PANEL, packed->k - column);
    if (columns < PANEL) {
        memset(to, 0, k * PANEL * sizeof *to);
    }
    for (size_t p = 0; p < k; p += PANEL) {
        const float *square = packed_panel(packed, (from + p) / PANEL, column, columns, room);
        gemm_transpose(square, PANEL, columns, min_size(PANEL, k - p), to + p * PANEL, PANEL);
    }
}

struct gemm_packed *gemm_pack_turned(const struct gemm_packed *packed, void *memory)
{
    struct gemm_packed *turned = memory;
    turned->n = packed->k;
    turned->k = packed->n;
    turned->half = packed->half;
    float square[PANEL * PANEL];
    for (size_t column = 0; column < turned->n; column += PANEL) {
        size_t panel = column * turned->k;
        if (!turned->half) {
            packed_turned(packed, 0, turned->k, column, (float *)(void *)turned->data + panel);
            continue;
        }
        for (size_t p = 0; p < turned->k; p += PANEL) {
            size_t rows = min_size(PANEL, turned->k - p);
            packed_turned(packed, p, rows, column, square);
            put_half(square, rows, (uint16_t *)(void *)turned->data + panel + p * PANEL);
        }
    }
    return turned;
}
