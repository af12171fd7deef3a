/* bench_figures.h (private to cmd_bench.c, bench_*.c): times, quantiles and how figures are printed. */
#ifndef SERVER_COMMANDS_BENCH_FIGURES_H
#define SERVER_COMMANDS_BENCH_FIGURES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* A report is an object for programs and, unless `json`, a line a figure for people. */
struct figures {
    json_t *object;
    bool json;
};

/* `format` takes the value: "%.1f GFLOP/s". */
void figure(struct figures *figures, const char *key, const char *format, double value);
/* The object on stdout, when programs are to read it. */
void figures_print(const struct figures *figures);

double bench_now(void); /* seconds, monotonic */
void sort_values(double *values, size_t n);
/* The value that a share `p` of the n sorted values does not exceed; 0 when there are none. */
double quantile(const double *sorted, size_t n, double p);

#endif
