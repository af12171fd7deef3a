/* serving.c: starts and stops registry and batcher, and shows their numbers. */
#include "server/serving.h"

#include "server/batcher.h"
#include "server/config.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/metrics.h"
#include "server/prompts.h"
#include "server/registry.h"
#include "server/storeq.h"
#include "server/tasks.h"

#include <string.h>

/* ---- registry -------------------------------------------------------------------------------- */

struct loading_tasks {
    struct registry *registry;
    size_t loaded, refused;
};

static store_status load_tasks(store *s, void *arg, store_error *err)
{
    struct loading_tasks *loading = arg;
    return tasks_load(s, loading->registry, &loading->loaded, &loading->refused, err);
}

static void write_registry(struct metrics_out *out, void *arg)
{
    const struct registry *registry = arg;
    metrics_gauge(out, "mp2_tasks", "Tasks that can be asked.", (double)registry_count(registry));
    metrics_gauge(out, "mp2_tasks_bytes", "Memory of tasks, versions and forms.",
                  (double)registry_bytes(registry));
}

static void write_prompts(struct metrics_out *out, void *arg)
{
    struct prompts_stats stats;
    prompts_get_stats(arg, &stats);
    metrics_gauge(out, "mp2_prompt_cache_bytes", "Memory of tuned prompts.", (double)stats.bytes);
    metrics_gauge(out, "mp2_prompt_cache_limit_bytes", "What they may take.", (double)stats.limit);
    metrics_gauge(out, "mp2_prompt_cache_entries", "Versions whose prompt is in memory.",
                  (double)stats.entries);
    metrics_counter(out, "mp2_prompt_cache_hits_total", "Requests that found theirs there.",
                    (double)stats.hits);
    metrics_counter(out, "mp2_prompt_cache_misses_total", "Requests that waited for a read.",
                    (double)stats.misses);
    metrics_counter(out, "mp2_prompt_cache_evictions_total", "Prompts dropped for others.",
                    (double)stats.evictions);
}

static bool make_prompts(struct server *server)
{
    const eng_bank_info *bank = eng_bank_get_info(server->bank);
    size_t hidden = eng_model_get_info(server->model)->hidden;
    size_t floats = bank->layers * bank->prompt_tokens * hidden + 2 * hidden + 2;
    server->prompts = prompts_new(server->config->prompt_cache, floats * sizeof(float));
    if (server->prompts != NULL) {
        metrics_section(server->metrics, write_prompts, server->prompts);
    }
    return server->prompts != NULL;
}

bool registry_part_start(struct server *server, char *why, size_t size)
{
    eng_error err;
    if (registry_new(server->model, &server->bank, 1, &server->registry, &err) != ENG_OK) {
        snprintf(why, size, "%s: %s", err.field, err.text);
        return false;
    }
    if (!make_prompts(server)) {
        snprintf(why, size, "out of memory");
        return false;
    }
    struct loading_tasks loading = {.registry = server->registry};
    store_error store_err;
    int64_t began = clock_ms();
    if (storeq_call(server->storeq, load_tasks, &loading, true, &store_err) != STORE_OK) {
        snprintf(why, size, "the tasks could not be read: %s", store_err.text);
        return false;
    }
    struct log_line line;
    log_begin(&line, LOG_INFO, "tasks_loaded");
    log_number(&line, "tasks", (int64_t)loading.loaded);
    log_number(&line, "refused", (int64_t)loading.refused);
    log_number(&line, "bytes", (int64_t)registry_bytes(server->registry));
    log_number(&line, "ms", clock_ms() - began);
    log_end(&line);
    metrics_section(server->metrics, write_registry, server->registry);
    return true;
}

/* ---- batcher --------------------------------------------------------------------------------- */

static void write_histogram(struct metrics_out *out, const char *name, const char *help,
                            const struct histogram *histogram)
{
    metrics_family(out, name, "histogram", help);
    metrics_histogram(out, name, NULL, histogram);
}

static void write_stages(struct metrics_out *out, const struct batcher_histograms *seen)
{
    const char *name = "mp2_stage_duration_seconds";
    metrics_family(out, name, "histogram", "Stages of a prediction request.");
    metrics_histogram(out, name, "stage=\"tokenize\"", &seen->encode_seconds);
    metrics_histogram(out, name, "stage=\"queue\"", &seen->queue_seconds);
    metrics_histogram(out, name, "stage=\"infer\"", &seen->infer_seconds);
}

static void write_batcher(struct metrics_out *out, void *arg)
{
    struct batcher *batcher = arg;
    const struct batcher_histograms *seen = batcher_get_histograms(batcher);
    struct batcher_stats stats;
    batcher_get_stats(batcher, &stats);
    write_histogram(out, "mp2_batch_sequences", "Inputs of a batch.", &seen->batch_sequences);
    write_histogram(out, "mp2_batch_tokens", "Tokens of a batch.", &seen->batch_tokens);
    write_histogram(out, "mp2_batch_tasks", "Distinct tasks of a batch.", &seen->batch_tasks);
    write_histogram(out, "mp2_input_tokens", "Tokens of an input, prompt included.",
                    &seen->input_tokens);
    write_stages(out, seen);
    metrics_gauge(out, "mp2_queue_requests", "Predictions waiting for a place in a batch.",
                  (double)stats.waiting);
    metrics_gauge(out, "mp2_queue_tokens", "Tokens admitted and not answered, as estimated.",
                  (double)stats.inside_tokens);
    metrics_gauge(out, "mp2_inflight", "Inputs in the batch that computes now.",
                  (double)stats.inflight);
    metrics_counter(out, "mp2_dropped_inputs_total", "Inputs dropped before they were computed.",
                    (double)stats.dropped);
    metrics_gauge(out, "mp2_batch_budget_tokens", "Tokens a batch may have.",
                  (double)stats.budget_tokens);
    metrics_gauge(out, "mp2_gemm_gflops",
                  "Matrix products of the batches measured at start, 1e9 operations a second.",
                  stats.gemm_gflops);
    metrics_gauge(out, "mp2_workspace_bytes", "Memory of the batches' workspace.",
                  (double)stats.workspace_bytes);
}

bool batcher_part_start(struct server *server, char *why, size_t size)
{
    const struct config *config = server->config;
    const struct batcher_options options = {
        .model = server->model,
        .bank = server->bank,
        .compute = server->compute,
        .max_tokens = config->batch_tokens,
        .max_sequences = config->batch_sequences,
        .target_seconds = (double)config->batch_time * 1e-3,
        .warmup_seconds = (double)config->warmup_timeout * 1e-3,
        .limit = {config->queue_requests, config->queue_tokens, config->queue_bytes}};
    eng_error err;
    if (batcher_start(&options, &server->batcher, &err) != ENG_OK) {
        snprintf(why, size, "%s: %s", err.field, err.text);
        return false;
    }
    struct batcher_stats stats;
    batcher_get_stats(server->batcher, &stats);
    struct log_line line;
    log_begin(&line, LOG_INFO, "batcher_ready");
    log_number(&line, "budget_tokens", (int64_t)stats.budget_tokens);
    log_number(&line, "tokens_per_second", (int64_t)stats.tokens_per_second);
    log_number(&line, "workspace_bytes", (int64_t)stats.workspace_bytes);
    log_end(&line);
    metrics_section(server->metrics, write_batcher, server->batcher);
    return true;
}

bool batcher_part_idle(struct server *server)
{
    return batcher_is_idle(server->batcher);
}

void batcher_part_stop(struct server *server)
{
    batcher_stop(server->batcher);
    server->batcher = NULL;
}
