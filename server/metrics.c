/* metrics.c: the Prometheus text format (version 0.0.4), and the process's own numbers. */
#include "server/metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_SECTIONS 32
#define MAX_TEXT     (4u << 20)

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
};

struct metrics_out {
    char *text;
    size_t len, room;
    bool failed;
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

static void write_text(struct metrics_out *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void write_text(struct metrics_out *out, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof line || out->failed) {
        out->failed = true;
        return;
    }
    if (out->len + (size_t)n + 1 > out->room) {
        size_t room = out->room * 2;
        char *text = room <= MAX_TEXT ? realloc(out->text, room) : NULL;
        if (text == NULL) {
            out->failed = true;
            return;
        }
        out->text = text;
        out->room = room;
    }
    memcpy(out->text + out->len, line, (size_t)n + 1);
    out->len += (size_t)n;
}

void metrics_family(struct metrics_out *out, const char *name, const char *type, const char *help)
{
    write_text(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_sample(struct metrics_out *out, const char *name, const char *labels, double value)
{
    if (labels != NULL) {
        write_text(out, "%s{%s} %.15g\n", name, labels, value);
    } else {
        write_text(out, "%s %.15g\n", name, value);
    }
}

void metrics_histogram(struct metrics_out *out, const char *name, const char *labels,
                       const struct histogram *histogram)
{
    const char *comma = labels != NULL ? "," : "";
    const char *given = labels != NULL ? labels : "";
    uint64_t total = 0;
    for (size_t i = 0; i <= histogram->n; i++) {
        total += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
        if (i < histogram->n) {
            write_text(out, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, given, comma,
                       histogram->bounds[i], total);
        } else {
            write_text(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, given, comma, total);
        }
    }
    uint64_t sum = atomic_load_explicit(&histogram->sum_millionths, memory_order_relaxed);
    const char *open = labels != NULL ? "{" : "", *close = labels != NULL ? "}" : "";
    write_text(out, "%s_sum%s%s%s %.15g\n", name, open, given, close, (double)sum / 1e6);
    write_text(out, "%s_count%s%s%s %" PRIu64 "\n", name, open, given, close, total);
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

static void write_process(struct metrics_out *out, void *arg)
{
    const struct metrics *metrics = arg;
    struct rusage use;
    struct rlimit files;
    double size = 0, resident = 0, page = (double)sysconf(_SC_PAGESIZE);
    getrusage(RUSAGE_SELF, &use);
    getrlimit(RLIMIT_NOFILE, &files);
    resident_pages(&size, &resident);
    double cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                 (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    metrics_counter(out, "process_cpu_seconds_total", "User and system time.", cpu);
    metrics_gauge(out, "process_resident_memory_bytes", "Resident memory.", resident * page);
    metrics_gauge(out, "process_virtual_memory_bytes", "Virtual memory.", size * page);
    metrics_gauge(out, "process_open_fds", "Open descriptors.", open_descriptors());
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
    struct metrics_out out = {.text = malloc(16384), .room = 16384};
    if (out.text == NULL) {
        return NULL;
    }
    out.text[0] = '\0';
    for (size_t i = 0; i < metrics->n; i++) {
        metrics->sections[i].write(&out, metrics->sections[i].arg);
    }
    if (out.failed) {
        free(out.text);
        return NULL;
    }
    *len = out.len;
    return out.text;
}
