/* bench_figures.c: times, quantiles and how figures are printed. */
#include "server/commands/bench_figures.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void figure(struct figures *figures, const char *key, const char *format, double value)
{
    json_object_set_new(figures->object, key, json_real(value));
    if (!figures->json) {
        printf("  %-30s ", key);
        printf(format, value);
        putchar('\n');
    }
}

void figures_print(const struct figures *figures)
{
    if (figures->json) {
        json_dumpf(figures->object, stdout, JSON_REAL_PRECISION(9) | JSON_INDENT(2));
        putchar('\n');
    }
}

double bench_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void sort_values(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_size);
}

double quantile(const double *sorted, size_t n, double p)
{
    size_t at = (size_t)(p * (double)n);
    return n == 0 ? 0 : sorted[at < n ? at : n - 1];
}
