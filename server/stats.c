/* stats.c: GET /v1/admin/stats. */
#include "server/stats.h"

#include "server/batcher.h"
#include "server/cgroup.h"
#include "server/http_internal.h"
#include "server/registry.h"
#include "server/storeq.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVERY_MS 5000
#define KEPT     13 /* a minute, and the sample it began with */

struct counts {
    uint64_t at[HISTOGRAM_MAX + 1];
    double sum;
};

/* Everything that grows, at one moment. */
struct sample {
    int64_t ms;
    struct http_totals http;
    struct counts whole, encode, queue, infer;
    struct counts sequences, batch_tokens, tasks;
    uint64_t tokens, inputs, batches;
};

struct stats {
    struct server *server;
    struct sample ring[KEPT];
    size_t n, next;
    struct cgroup_limits limits;

    bool asked;    /* since the last tick: then jobs are counted */
    bool counting; /* a worker is at it */
    bool stopped;  /* the last count frees this */
    int64_t tick_ms;
    struct worker_job job;
    int64_t counted[STORE_JOB_STATUSES], jobs[STORE_JOB_STATUSES];
};

/* ---- samples --------------------------------------------------------------------------------- */

static void read_histogram(const struct histogram *histogram, struct counts *out)
{
    for (size_t i = 0; i <= histogram->n; i++) {
        out->at[i] += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
    }
    out->sum +=
        (double)atomic_load_explicit(&histogram->sum_millionths, memory_order_relaxed) * 1e-6;
}

static void take_sample(struct server *server, struct sample *out)
{
    const struct batcher_histograms *seen = batcher_get_histograms(server->batcher);
    struct batcher_stats stats;
    batcher_get_stats(server->batcher, &stats);
    memset(out, 0, sizeof *out);
    out->ms = clock_ms();
    http_get_totals(server->http, &out->http);
    for (size_t i = 0; i < endpoints_count; i++) {
        if (endpoints[i].scopes == STORE_SCOPE_PREDICT) {
            read_histogram(&server->http->durations[i], &out->whole);
        }
    }
    read_histogram(&seen->encode_seconds, &out->encode);
    read_histogram(&seen->queue_seconds, &out->queue);
    read_histogram(&seen->infer_seconds, &out->infer);
    read_histogram(&seen->batch_sequences, &out->sequences);
    read_histogram(&seen->batch_tokens, &out->batch_tokens);
    read_histogram(&seen->batch_tasks, &out->tasks);
    out->tokens = stats.tokens;
    out->inputs = stats.sequences;
    out->batches = stats.batches;
}

static void minus(struct counts *after, const struct counts *before)
{
    for (size_t i = 0; i <= HISTOGRAM_MAX; i++) {
        after->at[i] -= before->at[i];
    }
    after->sum -= before->sum;
}

/* What happened between two samples, in `after`. */
static void difference(struct sample *after, const struct sample *before)
{
    for (size_t i = 0; i < HTTP_CLASSES; i++) {
        after->http.answers[i] -= before->http.answers[i];
    }
    for (size_t i = 0; i < REJECT_REASONS; i++) {
        after->http.rejected[i] -= before->http.rejected[i];
    }
    minus(&after->whole, &before->whole);
    minus(&after->encode, &before->encode);
    minus(&after->queue, &before->queue);
    minus(&after->infer, &before->infer);
    minus(&after->sequences, &before->sequences);
    minus(&after->batch_tokens, &before->batch_tokens);
    minus(&after->tasks, &before->tasks);
    after->tokens -= before->tokens;
    after->inputs -= before->inputs;
    after->batches -= before->batches;
    after->ms -= before->ms;
}

double stats_quantile(const double *bounds, const uint64_t *counts, size_t n, double q)
{
    double all = 0, below = 0, from = 0;
    for (size_t i = 0; i <= n; i++) {
        all += (double)counts[i];
    }
    for (size_t i = 0; i < n; i++) {
        double here = (double)counts[i];
        if (here > 0 && below + here >= q * all) {
            return from + (bounds[i] - from) * (q * all - below) / here;
        }
        below += here;
        from = bounds[i];
    }
    return all > 0 ? from : (double)NAN;
}

/* ---- the tick -------------------------------------------------------------------------------- */

static void count_jobs(void *arg, store *reader)
{
    struct stats *stats = arg;
    store_error err;
    if (reader == NULL || store_job_counts(reader, 0, stats->counted, &err) != STORE_OK) {
        memset(stats->counted, 0, sizeof stats->counted);
    }
}

static void jobs_counted(void *arg)
{
    struct stats *stats = arg;
    stats->counting = false;
    memcpy(stats->jobs, stats->counted, sizeof stats->jobs);
    if (stats->stopped) {
        free(stats);
    }
}

/* When the workers are busy the old numbers stay. */
static void refresh_jobs(struct stats *stats)
{
    if (stats->counting) {
        return;
    }
    stats->job = (struct worker_job){.run = count_jobs, .done = jobs_counted, .arg = stats};
    stats->counting = workers_submit(stats->server->workers, &stats->job);
}

void stats_tick(struct server *server)
{
    struct stats *stats = server->stats;
    int64_t now = clock_ms();
    if (stats == NULL || server->http == NULL || now - stats->tick_ms < EVERY_MS) {
        return;
    }
    stats->tick_ms = now;
    take_sample(server, &stats->ring[stats->next]);
    stats->next = (stats->next + 1) % KEPT;
    stats->n += stats->n < KEPT;
    if (stats->asked) {
        stats->asked = false;
        refresh_jobs(stats);
    }
}

static void write_jobs(struct metrics_out *out, void *arg)
{
    struct stats *stats = arg;
    char labels[64];
    stats->asked = true;
    metrics_family(out, "mp2_jobs", "gauge", "Jobs in the database by state, some seconds old.");
    for (int i = 0; i < STORE_JOB_STATUSES; i++) {
        snprintf(labels, sizeof labels, "state=\"%s\"", store_job_status_text((store_job_status)i));
        metrics_sample(out, "mp2_jobs", labels, (double)stats->jobs[i]);
    }
}

static store_status count_at_start(store *s, void *arg, store_error *err)
{
    struct stats *stats = arg;
    return store_job_counts(s, 0, stats->jobs, err);
}

bool stats_part_start(struct server *server, char *why, size_t size)
{
    struct stats *stats = calloc(1, sizeof *stats);
    store_error err = {0};
    if (stats == NULL) {
        snprintf(why, size, "out of memory");
        return false;
    }
    stats->server = server;
    server->stats = stats;
    cgroup_read("/sys/fs/cgroup", "/proc/self/cgroup", &stats->limits);
    if (storeq_call(server->storeq, count_at_start, stats, true, &err) != STORE_OK) {
        snprintf(why, size, "the jobs could not be counted: %s", err.text);
        return false;
    }
    metrics_section(server->metrics, write_jobs, stats);
    return true;
}

void stats_part_stop(struct server *server)
{
    struct stats *stats = server->stats;
    server->stats = NULL;
    if (stats != NULL && stats->counting) {
        stats->stopped = true;
    } else {
        free(stats);
    }
}

/* ---- the answer ------------------------------------------------------------------------------ */

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *quantiles(const struct counts *counts)
{
    const double *bounds = seconds_bounds;
    size_t n = seconds_bounds_count;
    return json_pack("{s:o, s:o, s:o}", "p50",
                     number_or_null(stats_quantile(bounds, counts->at, n, 0.5)), "p95",
                     number_or_null(stats_quantile(bounds, counts->at, n, 0.95)), "p99",
                     number_or_null(stats_quantile(bounds, counts->at, n, 0.99)));
}

static json_t *latency(const struct sample *window)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "whole", quantiles(&window->whole), "tokenize",
                     quantiles(&window->encode), "queue", quantiles(&window->queue), "inference",
                     quantiles(&window->infer));
}

static json_t *requests(const struct sample *now, const struct sample *window)
{
    static const char *const names[HTTP_CLASSES] = {"2xx", "3xx", "4xx", "5xx"};
    json_t *total = json_object(), *recent = json_object();
    double all = 0, seconds = (double)window->ms / 1000;
    for (size_t i = 0; i < HTTP_CLASSES; i++) {
        json_object_set_new(total, names[i], json_integer((json_int_t)now->http.answers[i]));
        json_object_set_new(recent, names[i], json_integer((json_int_t)window->http.answers[i]));
        all += (double)window->http.answers[i];
    }
    return json_pack("{s:o, s:o, s:f}", "total", total, "window", recent, "per_second",
                     seconds > 0 ? all / seconds : 0);
}

static json_t *refusals(const struct sample *now, const struct sample *window)
{
    json_t *all = json_object();
    for (size_t i = 0; i < REJECT_REASONS; i++) {
        char name[48];
        http_reject_name(i, name, sizeof name);
        json_object_set_new(all, name,
                            json_pack("{s:I, s:I}", "total", (json_int_t)now->http.rejected[i],
                                      "window", (json_int_t)window->http.rejected[i]));
    }
    return all;
}

static json_t *batches(const struct sample *window, const struct batcher_stats *stats)
{
    double n = (double)window->batches, seconds = (double)window->ms / 1000;
    bool any = n > 0;
    return json_pack("{s:f, s:f, s:o, s:o, s:o, s:I}", "tokens_per_second",
                     seconds > 0 ? (double)window->tokens / seconds : 0, "inputs_per_second",
                     seconds > 0 ? (double)window->inputs / seconds : 0, "mean_inputs",
                     number_or_null(any ? window->sequences.sum / n : (double)NAN), "mean_tokens",
                     number_or_null(any ? window->batch_tokens.sum / n : (double)NAN), "mean_tasks",
                     number_or_null(any ? window->tasks.sum / n : (double)NAN), "budget_tokens",
                     (json_int_t)stats->budget_tokens);
}

static json_t *memory(const struct server *server, const struct batcher_stats *stats,
                      double resident)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "resident_bytes", (json_int_t)resident,
                     "workspace_bytes", (json_int_t)stats->workspace_bytes, "task_bytes",
                     (json_int_t)registry_bytes(server->registry), "body_bytes",
                     (json_int_t)server->http->body_bytes, "model_bytes",
                     (json_int_t)eng_model_get_info(server->model)->bytes);
}

static void add_limit(json_t *limits, const char *name, double used, double limit)
{
    if (limit > 0) {
        json_object_set_new(
            limits, name,
            json_pack("{s:I, s:I}", "used", (json_int_t)used, "limit", (json_int_t)limit));
    }
}

static json_t *limits(const struct server *server, const struct batcher_stats *stats,
                      double resident)
{
    const struct config *config = server->config;
    const struct http *http = server->http;
    struct storeq_stats writes;
    storeq_get_stats(server->storeq, &writes);
    json_t *all = json_object();
    add_limit(all, "connections", (double)http->n_conns, (double)config->max_connections);
    add_limit(all, "requests", (double)http->inflight, (double)config->max_inflight);
    add_limit(all, "queue_requests", (double)stats->inside_requests,
              (double)config->queue_requests);
    add_limit(all, "queue_tokens", (double)stats->inside_tokens, (double)config->queue_tokens);
    add_limit(all, "queue_bytes", (double)stats->inside_bytes, (double)config->queue_bytes);
    add_limit(all, "body_bytes", (double)http->body_bytes, (double)config->max_body_memory);
    add_limit(all, "streams", (double)http->n_streams, (double)config->max_streams);
    add_limit(all, "worker_queue", (double)workers_waiting(server->workers),
              (double)config->worker_queue);
    add_limit(all, "store_queue", (double)writes.waiting, (double)config->store_queue);
    add_limit(all, "jobs_running", (double)server->stats->jobs[STORE_JOB_RUNNING],
              (double)config->job_threads);
    add_limit(all, "tenants", (double)auth_tenant_count(server->auth), (double)config->max_tenants);
    add_limit(all, "keys", (double)auth_key_count(server->auth), (double)config->max_keys);
    add_limit(all, "memory_bytes", resident, (double)server->stats->limits.memory);
    return all;
}

static json_t *job_states(const struct stats *stats)
{
    json_t *all = json_object();
    for (int i = 0; i < STORE_JOB_STATUSES; i++) {
        json_object_set_new(all, store_job_status_text((store_job_status)i),
                            json_integer((json_int_t)stats->jobs[i]));
    }
    return all;
}

/* The minute that ends now; since the start when that is shorter. */
static void read_window(struct server *server, struct sample *now, struct sample *window)
{
    const struct stats *stats = server->stats;
    take_sample(server, now);
    *window = *now;
    if (stats->n > 0) {
        size_t oldest = stats->n < KEPT ? 0 : stats->next;
        difference(window, &stats->ring[oldest]);
    } else {
        struct sample none = {.ms = now->ms - (wall_ms() - server->started_ms)};
        difference(window, &none);
    }
}

struct stats_call {
    store_status status;
    store_error err;
    int64_t jobs[STORE_JOB_STATUSES];
};

static void count_for_answer(void *arg, store *reader)
{
    struct stats_call *call = arg;
    call->status = STORE_EBUSY;
    if (reader != NULL) {
        call->status = store_job_counts(reader, 0, call->jobs, &call->err);
    }
}

static void answer(struct request *req, void *arg)
{
    const struct stats_call *call = arg;
    struct server *server = request_server(req);
    struct sample now, window;
    struct batcher_stats stats;
    if (server->stats == NULL) {
        reply_problem(req, 503, "stopping", NULL, "the server is stopping");
        return;
    }
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    memcpy(server->stats->jobs, call->jobs, sizeof call->jobs);
    double resident = metrics_resident_bytes();
    batcher_get_stats(server->batcher, &stats);
    read_window(server, &now, &window);
    json_t *body = json_pack(
        "{s:s, s:s, s:I, s:b, s:b, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:f}",
        "object", "stats", "version", MP2_VERSION, "uptime_seconds",
        (json_int_t)((wall_ms() - server->started_ms) / 1000), "ready", (int)server->ready,
        "draining", (int)server->draining, "window_seconds", (double)window.ms / 1000, "requests",
        requests(&now, &window), "latency", latency(&window), "batches", batches(&window, &stats),
        "refusals", refusals(&now, &window), "memory", memory(server, &stats, resident), "jobs",
        job_states(server->stats), "limits", limits(server, &stats, resident), "tasks",
        (json_int_t)registry_count(server->registry), "tenants",
        (json_int_t)auth_tenant_count(server->auth), "keys",
        (json_int_t)auth_key_count(server->auth), "cpus", server->stats->limits.cpus);
    reply_json(req, 200, body);
}

void ep_stats(struct request *req)
{
    struct stats_call *call = request_alloc(req, sizeof *call);
    if (call == NULL) {
        reply_no_memory(req);
        return;
    }
    memset(call, 0, sizeof *call);
    request_offload(req, count_for_answer, answer, call);
}
