/* metrics.h: numbers for Prometheus. A module keeps its own counters (atomics below, or plain numbers
 * of the loop thread) and registers a section that writes them when /metrics is asked.
 *
 * Threads.   counter_add and histogram_add from any thread. Sections are registered before the loop
 *            starts and called on the loop.
 */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct metrics;
struct metrics_out; /* the text being written */

struct counter {
    _Atomic uint64_t value;
};
void counter_add(struct counter *counter, uint64_t n);
uint64_t counter_value(const struct counter *counter);

#define HISTOGRAM_MAX 24

/* Bounds rise; what is above the last one counts in +Inf. */
struct histogram {
    const double *bounds;
    size_t n;
    _Atomic uint64_t counts[HISTOGRAM_MAX + 1];
    _Atomic uint64_t sum_millionths;
};
void histogram_init(struct histogram *histogram, const double *bounds, size_t n);
void histogram_add(struct histogram *histogram, double value); /* value >= 0 */

extern const double seconds_bounds[]; /* 0.5 ms … 60 s */
extern const size_t seconds_bounds_count;

double metrics_resident_bytes(void); /* of this process */

struct metrics *metrics_new(void);
void metrics_free(struct metrics *metrics);
/* At most 32 sections. */
void metrics_section(struct metrics *metrics, void (*write)(struct metrics_out *out, void *arg),
                     void *arg);
/* The whole text, malloc'ed; NULL: out of memory. */
char *metrics_text(struct metrics *metrics, size_t *len);

/* For sections. type: "counter", "gauge", "histogram". labels: NULL or `a="x",b="y"` (values without
 * quotes, backslashes and line ends). Family first, then its samples. */
void metrics_family(struct metrics_out *out, const char *name, const char *type, const char *help);
void metrics_sample(struct metrics_out *out, const char *name, const char *labels, double value);
void metrics_histogram(struct metrics_out *out, const char *name, const char *labels,
                       const struct histogram *histogram);
/* Family and one sample. */
void metrics_gauge(struct metrics_out *out, const char *name, const char *help, double value);
void metrics_counter(struct metrics_out *out, const char *name, const char *help, double value);

#endif
