/* http_metrics.c: counters of requests by endpoint and status, their durations, and the section that
 * writes them.
 */
#include "server/http_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ANSWERS 24 /* statuses counted for an endpoint; the last is "other" */

bool http_counters_new(struct http *http)
{
    http->durations = calloc(endpoints_count + 1, sizeof *http->durations);
    http->answers = calloc((endpoints_count + 1) * MAX_ANSWERS, sizeof *http->answers);
    for (size_t i = 0; http->durations != NULL && i <= endpoints_count; i++) {
        histogram_init(&http->durations[i], seconds_bounds, seconds_bounds_count);
    }
    return http->durations != NULL && http->answers != NULL;
}

static const int counted_statuses[MAX_ANSWERS] = {200, 201, 202, 204, 206, 304, 400, 401,
                                                  403, 404, 405, 408, 409, 411, 413, 415,
                                                  422, 429, 499, 500, 501, 503, 504, 0};

void http_count(struct request *req)
{
    size_t row = endpoints_count; /* the last row: no endpoint */
    if (req->endpoint != NULL) {
        row = (size_t)(req->endpoint - endpoints);
    }
    size_t column = 0;
    while (column + 1 < MAX_ANSWERS && counted_statuses[column] != req->status) {
        column++;
    }
    counter_add(&req->http->answers[row * MAX_ANSWERS + column], 1);
    int64_t end = req->answered_us != 0 ? req->answered_us : clock_us();
    histogram_add(&req->http->durations[row], (double)(end - req->started_us) / 1e6);
}

/* One after the other, what fits. snprintf takes several times as long, and there are hundreds a scrape. */
static void join(char *text, size_t size, const char *const *parts, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len = strnlen(parts[i], size - 1 - at);
        memcpy(text + at, parts[i], len);
        at += len;
    }
    text[at] = '\0';
}
#define JOIN(text, ...)                                                                            \
    join(text, sizeof(text), (const char *const[]){__VA_ARGS__},                                   \
         sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static const char *const api_names[] = {"native", "openai", "hf", "oip"};
static const char *const reject_names[REJECT_QUOTA] = {"gate",      "auth", "full",     "draining",
                                                       "too_large", "slow", "deadline", "address"};

void http_reject_name(size_t reason, char *text, size_t size)
{
    bool quota = reason >= REJECT_QUOTA;
    snprintf(text, size, "%s%s", quota ? "quota_" : "",
             quota ? quota_member((enum quota_kind)(reason - REJECT_QUOTA)) : reject_names[reason]);
}

void http_get_totals(const struct http *http, struct http_totals *out)
{
    memset(out, 0, sizeof *out);
    for (size_t row = 0; row <= endpoints_count; row++) {
        for (size_t k = 0; k < MAX_ANSWERS; k++) {
            int class = counted_statuses[k] / 100 - 2;
            if (class >= 0 && class < HTTP_CLASSES) {
                out->answers[class] += counter_value(&http->answers[row * MAX_ANSWERS + k]);
            }
        }
    }
    for (size_t i = 0; i < REJECT_REASONS; i++) {
        out->rejected[i] = counter_value(&http->rejected[i]);
    }
}

struct row_labels {
    char text[160];
};

static struct row_labels row_labels(size_t row)
{
    const struct endpoint *endpoint = row < endpoints_count ? &endpoints[row] : NULL;
    struct row_labels labels;
    JOIN(labels.text, "api=\"", endpoint != NULL ? api_names[endpoint->api] : "none", "\",type=\"",
         endpoint != NULL ? endpoint->label : "none", "\",method=\"",
         endpoint != NULL ? endpoint->method : "none", "\"");
    return labels;
}

/* A status has three digits. */
static void sample_with_code(struct metrics_out *out, const struct row_labels *labels, int status,
                             uint64_t n)
{
    char with_code[192];
    const char code[] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10),
                         (char)('0' + status % 10), '\0'};
    JOIN(with_code, labels->text, ",code=\"", code, "\"");
    metrics_sample(out, "mp2_requests_total", with_code, (double)n);
}

static void write_requests(struct metrics_out *out, const struct http *http)
{
    metrics_family(out, "mp2_requests_total", "counter", "Requests answered.");
    for (size_t row = 0; row <= endpoints_count; row++) {
        struct row_labels labels = {""};
        for (size_t k = 0; k < MAX_ANSWERS; k++) {
            uint64_t n = counter_value(&http->answers[row * MAX_ANSWERS + k]);
            if (n > 0) {
                if (labels.text[0] == '\0') {
                    labels = row_labels(row);
                }
                sample_with_code(out, &labels, counted_statuses[k], n);
            }
        }
    }
    metrics_family(out, "mp2_request_duration_seconds", "histogram",
                   "From the request line to the end of the answer (of a stream: its beginning).");
    for (size_t row = 0; row <= endpoints_count; row++) {
        if (atomic_load(&http->durations[row].sum_millionths) > 0) {
            struct row_labels labels = row_labels(row);
            metrics_histogram(out, "mp2_request_duration_seconds", labels.text,
                              &http->durations[row]);
        }
    }
}

void http_write_metrics(struct metrics_out *out, void *arg)
{
    const struct http *http = arg;
    write_requests(out, http);
    metrics_family(out, "mp2_rejected_total", "counter", "Requests turned away.");
    for (size_t i = 0; i < REJECT_REASONS; i++) {
        char name[48], labels[64];
        http_reject_name(i, name, sizeof name);
        JOIN(labels, "reason=\"", name, "\"");
        metrics_sample(out, "mp2_rejected_total", labels,
                       (double)counter_value(&http->rejected[i]));
    }
    metrics_gauge(out, "mp2_requests_at_work", "Requests at work.", (double)http->inflight);
    metrics_gauge(out, "mp2_parked", "Requests waiting for work elsewhere.",
                  (double)http->n_parked);
    metrics_gauge(out, "mp2_connections", "Open connections.", (double)http->n_conns);
    metrics_gauge(out, "mp2_streams", "Event streams open now.", (double)http->n_streams);
    metrics_counter(out, "mp2_streams_total", "Event streams begun.",
                    (double)counter_value(&http->streams));
    metrics_gauge(out, "mp2_client_addresses", "Client addresses that are kept in mind.",
                  (double)peers_count(http->peers));
    if (http->tls != NULL) {
        metrics_gauge(out, "mp2_tls_certificate_not_after_seconds",
                      "End of the certificate's validity, seconds since 1970.",
                      (double)tls_not_after(http->tls));
    }
    metrics_gauge(out, "mp2_body_bytes", "Memory of request bodies.", (double)http->body_bytes);
}
