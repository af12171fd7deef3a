/* opt_linalg.h (private to the optimisers): dense linear algebra in double, on LAPACK and CBLAS.
 *
 * Matrices are square and row-major; sizes fit int. Any thread; the
 * results are the same in every call with the same input as long as BLAS runs on one thread.
 */
#ifndef ENGINE_OPT_LINALG_H
#define ENGINE_OPT_LINALG_H

#include <stdbool.h>
#include <stddef.h>

/* Eigendecomposition of a symmetric matrix: a = Σ_j values[j] v_j v_jᵀ, values ascending.
 *   a (n, n): its upper triangle is read; overwritten, row j becomes v_j   values (n) overwritten
 *   work (linalg_eigen_work(n) doubles), iwork (linalg_eigen_iwork(n) ints) scratch
 * False when it does not converge or the matrix is not finite. */
size_t linalg_eigen_work(size_t n);
size_t linalg_eigen_iwork(size_t n);
bool linalg_eigen(size_t n, double *a, double *values, double *work, int *iwork);

/* Cholesky factor of a symmetric positive definite matrix, a = L·Lᵀ.
 *   a (n, n), rows ld apart: lower triangle read and overwritten by L; the strict upper triangle is
 *   left alone.
 * False when a is not positive definite. */
bool linalg_cholesky(size_t n, double *a, size_t ld);
/* From L of linalg_cholesky, in place, the lower triangle of a⁻¹. */
bool linalg_cholesky_inverse(size_t n, double *l, size_t ld);

#endif
