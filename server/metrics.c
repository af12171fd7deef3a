/* metrics.c: the Prometheus text format (version 0.0.4), and the process's own numbers. */
#include "server/metrics.h"

#include "server/loop.h"
#include "server/textout.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_SECTIONS  32
#define MAX_TEXT      (4u << 20)
#define PROC_EVERY_MS 200

const double seconds_bounds[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                 0.25,   0.5,   1,      2.5,   5,    10,    30,   60};
const size_t seconds_bounds_count = sizeof seconds_bounds / sizeof seconds_bounds[0];

struct metrics {
    size_t n;
    struct {
        void (*write)(struct metrics_out *out, void *arg);
        void *arg;
    } sections[MAX_SECTIONS];
    double started; /* seconds since 1970 */

    /* write_process's */
    int64_t looked_ms;
    double size, resident, descriptors; /* pages, pages, count */
};

struct metrics_out {
    struct text_out text;
};

void counter_add(struct counter *counter, uint64_t n)
{
    atomic_fetch_add_explicit(&counter->value, n, memory_order_relaxed);
}

uint64_t counter_value(const struct counter *counter)
{
    return atomic_load_explicit(&counter->value, memory_order_relaxed);
}

void histogram_init(struct histogram *histogram, const double *bounds, size_t n)
{
    memset(histogram, 0, sizeof *histogram);
    histogram->bounds = bounds;
    histogram->n = n < HISTOGRAM_MAX ? n : HISTOGRAM_MAX;
}

void histogram_add(struct histogram *histogram, double value)
{
    size_t i = 0;
    while (i < histogram->n && value > histogram->bounds[i]) {
        i++;
    }
    atomic_fetch_add_explicit(&histogram->counts[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_millionths, (uint64_t)llround(value * 1e6),
                              memory_order_relaxed);
}

/* A whole number with `decimals` of its digits behind the point, without zeros at the end. */
static void put_digits(struct metrics_out *out, uint64_t n, size_t decimals)
{
    char text[32];
    size_t at = sizeof text - 1;
    text[at] = '\0';
    for (; decimals > 0 && n % 10 == 0; decimals--) {
        n /= 10;
    }
    for (size_t i = 0; n > 0 || i <= decimals; i++) {
        if (i == decimals && i > 0) {
            text[--at] = '.';
        }
        text[--at] = (char)('0' + n % 10);
        n /= 10;
    }
    text_puts(&out->text, text + at);
}

/* What "%.15g" would write; most numbers here are whole, or whole millionths, and printf takes longer for
 * one than all else of its line. */
static void put_number(struct metrics_out *out, double value)
{
    char text[40];
    double millionths = value * 1e6;
    if (value >= 0 && value < 1e15 && value == floor(value)) {
        put_digits(out, (uint64_t)value, 0);
    } else if (value >= 1e-4 && value < 1e9 && (double)llround(millionths) / 1e6 == value) {
        put_digits(out, (uint64_t)llround(millionths), 6);
    } else {
        snprintf(text, sizeof text, "%.15g", value);
        text_puts(&out->text, text);
    }
}

void metrics_family(struct metrics_out *out, const char *name, const char *type, const char *help)
{
    const char *const parts[] = {"# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        text_puts(&out->text, parts[i]);
    }
}

static void put_sample(struct metrics_out *out, const char *name, const char *end,
                       const char *labels, double value)
{
    text_puts(&out->text, name);
    text_puts(&out->text, end);
    if (labels != NULL) {
        text_puts(&out->text, "{");
        text_puts(&out->text, labels);
        text_puts(&out->text, "}");
    }
    text_puts(&out->text, " ");
    put_number(out, value);
    text_puts(&out->text, "\n");
}

void metrics_sample(struct metrics_out *out, const char *name, const char *labels, double value)
{
    put_sample(out, name, "", labels, value);
}

void metrics_histogram(struct metrics_out *out, const char *name, const char *labels,
                       const struct histogram *histogram)
{
    uint64_t total = 0;
    size_t start = out->text.len, prefix = 0; /* of every bucket's line */
    for (size_t i = 0; i <= histogram->n; i++) {
        total += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
        if (i == 0) {
            text_puts(&out->text, name);
            text_puts(&out->text, "_bucket{");
            text_puts(&out->text, labels != NULL ? labels : "");
            text_puts(&out->text, labels != NULL ? ",le=\"" : "le=\"");
            prefix = out->text.len - start;
        } else {
            text_again(&out->text, start, prefix);
        }
        if (i < histogram->n) {
            put_number(out, histogram->bounds[i]);
        } else {
            text_puts(&out->text, "+Inf");
        }
        text_puts(&out->text, "\"} ");
        put_digits(out, total, 0);
        text_puts(&out->text, "\n");
    }
    uint64_t sum = atomic_load_explicit(&histogram->sum_millionths, memory_order_relaxed);
    put_sample(out, name, "_sum", labels, (double)sum / 1e6);
    put_sample(out, name, "_count", labels, (double)total);
}

void metrics_gauge(struct metrics_out *out, const char *name, const char *help, double value)
{
    metrics_family(out, name, "gauge", help);
    metrics_sample(out, name, NULL, value);
}

void metrics_counter(struct metrics_out *out, const char *name, const char *help, double value)
{
    metrics_family(out, name, "counter", help);
    metrics_sample(out, name, NULL, value);
}

static double open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    double n = 0;
    while (dir != NULL && readdir(dir) != NULL) {
        n++;
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return n > 3 ? n - 3 : 0; /* ".", ".." and the directory itself */
}

static void resident_pages(double *size, double *resident)
{
    long a = 0, b = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file != NULL) {
        if (fscanf(file, "%ld %ld", &a, &b) != 2) {
            a = b = 0;
        }
        fclose(file);
    }
    *size = (double)a;
    *resident = (double)b;
}

double metrics_resident_bytes(void)
{
    double size = 0, resident = 0;
    resident_pages(&size, &resident);
    return resident * (double)sysconf(_SC_PAGESIZE);
}

/* Counting descriptors takes a call for every few of them: done once in PROC_EVERY_MS, however often and by
 * how many /metrics is asked. */
static void look_at_process(struct metrics *metrics)
{
    int64_t now = clock_ms();
    if (metrics->looked_ms != 0 && now - metrics->looked_ms < PROC_EVERY_MS) {
        return;
    }
    metrics->looked_ms = now;
    resident_pages(&metrics->size, &metrics->resident);
    metrics->descriptors = open_descriptors();
}

static void write_process(struct metrics_out *out, void *arg)
{
    struct metrics *metrics = arg;
    struct rusage use;
    struct rlimit files;
    double page = (double)sysconf(_SC_PAGESIZE);
    getrusage(RUSAGE_SELF, &use);
    getrlimit(RLIMIT_NOFILE, &files);
    look_at_process(metrics);
    double cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                 (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    metrics_counter(out, "process_cpu_seconds_total", "User and system time.", cpu);
    metrics_gauge(out, "process_resident_memory_bytes", "Resident memory.",
                  metrics->resident * page);
    metrics_gauge(out, "process_virtual_memory_bytes", "Virtual memory.", metrics->size * page);
    metrics_gauge(out, "process_open_fds", "Open descriptors.", metrics->descriptors);
    metrics_gauge(out, "process_max_fds", "Limit of open descriptors.", (double)files.rlim_cur);
    metrics_gauge(out, "process_start_time_seconds", "Start, seconds since 1970.",
                  metrics->started);
}

struct metrics *metrics_new(void)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics != NULL) {
        metrics->started = (double)time(NULL);
        metrics_section(metrics, write_process, metrics);
    }
    return metrics;
}

void metrics_free(struct metrics *metrics)
{
    free(metrics);
}

void metrics_section(struct metrics *metrics, void (*write)(struct metrics_out *out, void *arg),
                     void *arg)
{
    if (metrics->n < MAX_SECTIONS) {
        metrics->sections[metrics->n].write = write;
        metrics->sections[metrics->n].arg = arg;
        metrics->n++;
    }
}

char *metrics_text(struct metrics *metrics, size_t *len)
{
    struct metrics_out out;
    text_init(&out.text, MAX_TEXT);
    for (size_t i = 0; i < metrics->n; i++) {
        metrics->sections[i].write(&out, metrics->sections[i].arg);
    }
    if (out.text.failed) {
        free(out.text.data);
        return NULL;
    }
    *len = out.text.len;
    return out.text.data;
}
