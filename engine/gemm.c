/* gemm.c: stub until the kernels land. */
#include "engine/gemm.h"
#include "engine/status.h"

bool gemm_cpu_capable(void)
{
    return false;
}

eng_status gemm_blas_check(char *config, size_t size, eng_error *err)
{
    (void)err;
    snprintf(config, size, "%s", "");
    return ENG_OK;
}
