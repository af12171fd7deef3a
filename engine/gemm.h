/* gemm.h (private): the one matrix product everything is built on, C = A·B, with three back ends.
 *
 *   avx512-packed   our 8x48 AVX-512 kernel
 *   avx2-packed     our 6x16 AVX2/FMA kernel; weights are packed once, when a model is opened
 *   openblas        cblas_sgemm, one thread a call: portable, and the oracle of the tests
 *
 * Work is split over rows and columns of C, never over the sum. With our own kernels every element is
 * one chain of fused multiply-adds over k = 0, 1, 2, … started from its bias (or old value), in every
 * tile shape and at every edge: its bits depend on its row of A and its column of B alone, not on the
 * number of threads, the batch around it, the blocking, or which of the two it was. (OpenBLAS promises
 * no such thing: there, equality is to rounding.)
 */
#ifndef ENGINE_GEMM_H
#define ENGINE_GEMM_H

#include "engine/engine.h"

struct gemm_packed; /* W (n,k) in panels of 16 columns of Wᵀ: one format for both kernels */

/* What the processor can do, asked at run time. Zero is "no vectors of ours". */
enum simd { SIMD_NONE, SIMD_AVX2, SIMD_AVX512 };
enum simd gemm_cpu(void);
bool gemm_cpu_capable(void); /* AVX2, FMA and F16C at least */
/* "avx512-packed", "avx2-packed", "openblas". */
const char *gemm_kernel_name(enum simd simd);
/* Copies OpenBLAS's configuration string, sets it to one thread a call, and refuses a build without
 * locking (Debian's "serial" flavour gives wrong results to concurrent callers). */
ENG_MUST_CHECK eng_status gemm_blas_check(char *config, size_t size, eng_error *err);

/* Bytes that gemm_pack needs for a matrix (n,k), a multiple of 64; 0 when they overflow. */
size_t gemm_packed_bytes(size_t n, size_t k, bool half);
/* Packs w (n,k), row-major, into `memory`: gemm_packed_bytes of it, 64-byte aligned, owned by the
 * caller and in use as long as the result. `half`: as float16, rounded to nearest; products are those
 * of the rounded matrix, to the bit. Only if gemm_cpu_capable(). */
struct gemm_packed *gemm_pack(const float *w, size_t n, size_t k, bool half, void *memory);

/* Packs Wᵀ (k,n) of a packed W (n,k), its values to the bit, into `memory`: gemm_packed_bytes(k, n, half) of
 * it, otherwise as gemm_pack. */
struct gemm_packed *gemm_pack_turned(const struct gemm_packed *packed, void *memory);

/* The matrix again.   w (n,k) overwritten */
void gemm_unpack(const struct gemm_packed *packed, float *w);

/* One product. C (m,n) = init + A (m,k) · B (k,n), rows `ld?` floats apart.
 *   a_transposed   A is stored (k,m)
 *   b_transposed   B is stored (n,k): a weight in PyTorch's layout
 *   packed         what lies at b, packed (as gemm_pack's w), or NULL; b may then be NULL
 *   bias (n)       init of every row; with add, init is the old C; with neither 0
 *   gelu           NULL, or where gelu(C) goes (stride ldc; may be C itself)                       */
struct gemm_product {
    size_t m, n, k;
    const float *a;
    size_t lda;
    const float *b;
    size_t ldb;
    const struct gemm_packed *packed;
    const float *bias;
    float *c;
    size_t ldc;
    float *gelu;
    bool a_transposed, b_transposed, add;
};

/* Computes `count` independent products on the pool. The caller holds the turn. */
void gemm_run(eng_compute *compute, const struct gemm_product *products, size_t count);

/* Computes one on this thread alone, inside a pool task. scratch: GEMM_SCRATCH bytes, aligned. */
#define GEMM_SCRATCH ((size_t)512 << 10)
void gemm_serial(enum simd simd, const struct gemm_product *product, void *scratch);

/* Floats between rows of an activation of n columns: padded so that rows a power of two apart do not
 * fall into the same cache set. A multiple of 16. */
size_t gemm_stride(size_t n);

/* Rate of back-to-back fused multiply-adds in registers on this thread, GFLOP/s, for about
 * `seconds`: the ceiling the kernels are compared with. 0 without vectors. */
double gemm_peak(enum simd simd, double seconds);

/* ---- the vector kernels (gemm_avx2.c, gemm_avx512.c); call only what gemm_cpu() has ---- */

/* c (rows, 16·panels) = init + a (rows,k) · B, panel j of B (k,16) at panel + j·panel_stride.
 * init rows ldinit floats apart (0: one row for all). AVX2: 1 … 6 rows, 1 panel. AVX-512: 1 … 8 rows,
 * 1 … 3 panels. */
struct gemm_step {
    size_t rows, panels, k;
    const float *a;
    size_t lda;
    const float *panel;
    size_t panel_stride;
    const float *init;
    size_t ldinit;
    float *c;
    size_t ldc;
    /* With all panels: what a later step will read is asked for on the way, from `ahead` to ahead_end. AVX2: at
     * most k / 2 lines of 64 bytes; AVX-512: k / 4, and as many one and two ahead_stride bytes behind. NULL, NULL:
     * none. */
    const unsigned char *ahead, *ahead_end;
    size_t ahead_stride;
};
void gemm_step_avx2(const struct gemm_step *step);
void gemm_step_avx512(const struct gemm_step *step);
/* to (columns,rows) = fromᵀ, from (rows,columns) */
void gemm_transpose(const float *from, size_t ldfrom, size_t rows, size_t columns, float *to,
                    size_t ldto);
double gemm_peak_avx2(double seconds);
double gemm_peak_avx512(double seconds);

#endif
