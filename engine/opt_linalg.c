/* opt_linalg.c: the three LAPACK routines we need, as OpenBLAS exports them (Debian has no LAPACKE
 * beside OpenBLAS, so the Fortran names are declared here). LAPACK counts columns first; a row-major
 * triangle is the other triangle to it, hence the letters below. Fortran passes the length of every
 * string after the last argument. */
#include "engine/opt_linalg.h"

#include <assert.h>
#include <limits.h>
#include <math.h>

void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w,
             double *work, const int *lwork, int *iwork, const int *liwork, int *info,
             size_t jobz_len, size_t uplo_len);
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_len);
void dpotri_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_len);

size_t linalg_eigen_work(size_t n)
{
    return 1 + 6 * n + 2 * n * n;
}

size_t linalg_eigen_iwork(size_t n)
{
    return 3 + 5 * n;
}

bool linalg_eigen(size_t n, double *a, double *values, double *work, int *iwork)
{
    assert(n > 0 && linalg_eigen_work(n) <= INT_MAX);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = i; j < n; j++) {
            if (!isfinite(a[i * n + j])) {
                return false;
            }
        }
    }
    int order = (int)n, info = 0;
    int lwork = (int)linalg_eigen_work(n), liwork = (int)linalg_eigen_iwork(n);
    dsyevd_("V", "L", &order, a, &order, values, work, &lwork, iwork, &liwork, &info, 1, 1);
    return info == 0;
}

bool linalg_cholesky(size_t n, double *a, size_t ld)
{
    assert(n > 0 && n <= ld && ld <= INT_MAX);
    int order = (int)n, stride = (int)ld, info = 0;
    dpotrf_("U", &order, a, &stride, &info, 1);
    /* A pivot that is not a number fails no comparison: it ends in the last one. */
    return info == 0 && isfinite(a[(n - 1) * ld + n - 1]);
}

bool linalg_cholesky_inverse(size_t n, double *l, size_t ld)
{
    int order = (int)n, stride = (int)ld, info = 0;
    dpotri_("U", &order, l, &stride, &info, 1);
    return info == 0;
}
