/* banner.c: one line a subject, "name, spaces, text"; scripts read the lines of key and address. */
#include "server/banner.h"

#include "server/batcher.h"
#include "server/config.h"
#include "server/http.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/tls.h"

#include <stdio.h>
#include <uv.h>

#define MIB 1048576.0

static void print_model(const struct server *server)
{
    const eng_model_info *model = eng_model_get_info(server->model);
    const eng_bank_info *bank = eng_bank_get_info(server->bank);
    printf("model      %s: %zu layers, width %zu, %.1f million parameters, %.1f MiB\n", model->name,
           model->layers, model->hidden, (double)model->parameters / 1e6,
           (double)model->bytes / MIB);
    printf("bank       %s: %zu modules, %s\n", bank->name, bank->modules,
           bank->layers > 1 ? "deep" : "shallow");
}

static void print_threads(const struct server *server, const struct cgroup_limits *limits)
{
    const struct config *config = server->config;
    const eng_compute_info *compute = eng_compute_get_info(server->compute);
    printf("threads    1 loop, %zu compute (%s), %d batching, %llu workers, 1 store, %llu jobs\n",
           compute->threads, compute->kernel, BATCHER_THREADS, (unsigned long long)config->workers,
           (unsigned long long)config->job_threads);
    if (limits->cpus > 0) {
        printf("cpu time   %.2f cores by its control group\n", limits->cpus);
    }
}

/* What is in use now (model, packed weights, workspace, tasks, keys) and what full queues add. */
static void print_memory(const struct server *server, const struct cgroup_limits *limits)
{
    const struct config *config = server->config;
    struct batcher_stats stats;
    batcher_get_stats(server->batcher, &stats);
    double now = metrics_resident_bytes();
    double more = (double)config->max_body_memory + (double)config->queue_bytes +
                  (double)config->max_connections * (double)config->connection_memory;
    printf("workspace  %.1f MiB, %zu tokens a batch\n", (double)stats.workspace_bytes / MIB,
           stats.budget_tokens);
    printf("memory     %.0f MiB now, %.0f MiB with full queues, jobs aside", now / MIB,
           (now + more) / MIB);
    if (limits->memory > 0) {
        printf("; its control group allows %.0f MiB", (double)limits->memory / MIB);
    }
    printf("\n");
    if (limits->memory > 0 && now + more > (double)limits->memory) {
        log_event(LOG_WARN, "memory_limit",
                  "with full queues this server needs %.0f MiB, its control group allows %.0f: "
                  "lower max_body_memory, queue_bytes, max_connections or batch_tokens",
                  (now + more) / MIB, (double)limits->memory / MIB);
    }
}

static void print_limits(const struct server *server)
{
    const struct config *config = server->config;
    printf("limits     %llu connections, %llu requests at work, %llu predictions and %llu tokens "
           "waiting, JSON %.1f MiB, files %.0f MiB\n",
           (unsigned long long)config->max_connections, (unsigned long long)config->max_inflight,
           (unsigned long long)config->queue_requests, (unsigned long long)config->queue_tokens,
           (double)config->max_json / MIB, (double)config->max_upload / MIB);
}

void banner_print(const struct server *server, const struct cgroup_limits *limits,
                  const char *first_key, const char *key_file)
{
    printf("mp2 %s, %s, %s, libuv %s, %s, jansson %s\n", MP2_VERSION, http_library(), tls_library(),
           uv_version_string(), store_library(), JANSSON_VERSION);
    print_model(server);
    print_threads(server, limits);
    print_memory(server, limits);
    print_limits(server);
    printf("database   %s\n", server->db_path);
    if (key_file[0] != '\0') {
        printf("admin key  is in the file %s   (of tenant \"default\")\n", key_file);
    } else if (first_key[0] != '\0') {
        printf("admin key  %s   (of tenant \"default\"; shown once, keep it)\n", first_key);
    }
    printf("listening  %s\n", http_url(server->http));
    fflush(stdout);
}
