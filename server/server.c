/* server.c: starting and stopping, in order.
 *
 * Start: log, store, keys, model, compute, store thread, workers, the parts of parts.c, and the
 * listener last, so that the first request finds everything there. Stop: the first SIGINT or SIGTERM
 * turns /readyz to 503, closes the door (after drain_delay), lets what is in flight finish and parts
 * hand back their work, at most drain_timeout; then everything ends in the reverse order. A second
 * signal ends the process at once: what was acknowledged is on disk already. SIGHUP reloads (reload.c).
 */
#include "server/server.h"
#include "server/auth.h"
#include "server/banner.h"
#include "server/cgroup.h"
#include "server/commands/commands.h"
#include "server/config.h"
#include "server/http.h"
#include "server/jobstream.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/metrics.h"
#include "server/notify.h"
#include "server/prompts.h"
#include "server/registry.h"
#include "server/reload.h"
#include "server/storeq.h"
#include "server/workers.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define DRAIN_LOOK_MS 50

struct running {
    struct server server;
    size_t parts_started;
    char first_key[AUTH_KEY_CHARS + 1]; /* "" when there were keys already */
    struct cgroup_limits limits;
    uv_signal_t signals[3];
    uv_timer_t drain_timer, watchdog;
    unsigned handles_open;
    bool door_closed;
    int exit_code;
};

/* Says why on stderr; for `return`. */
static int failed(int code, const char *text)
{
    fprintf(stderr, "mp2: %s\n", text);
    return code;
}

/* ---- the database -------------------------------------------------------------------------------------- */

bool server_make_directories(const char *path)
{
    char dir[PATH_MAX];
    if (strlen(path) >= sizeof dir) {
        return false;
    }
    memcpy(dir, path, strlen(path) + 1);
    for (char *slash = strchr(dir + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
            return false;
        }
        *slash = '/';
    }
    return true;
}

/* Into a new file that nobody else can read, before the database holds the key. False: said why. */
static bool write_key_file(const char *path, const char *key)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t len = strlen(key);
    bool ok =
        fd >= 0 && write(fd, key, len) == (ssize_t)len && write(fd, "\n", 1) == 1 && fsync(fd) == 0;
    if (!ok) {
        fprintf(stderr, "mp2: %s: cannot write the first key: %s (setting admin_key_file)\n", path,
                strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* On a database without tenants: the tenant "default" and a key with every scope. */
static store_status make_first_key(store *s, const char *file, char key[AUTH_KEY_CHARS + 1],
                                   store_error *err)
{
    store_mem *mem = store_mem_new();
    store_page page = {.limit = 1};
    store_tenant *tenants = NULL;
    size_t n = 0;
    bool has_more = false;
    store_status status = STORE_ENOMEM;
    key[0] = '\0';
    if (mem != NULL) {
        status = store_tenant_list(s, &page, mem, &tenants, &n, &has_more, err);
    }
    if (status == STORE_OK && n == 0) {
        char id[AUTH_KEY_ID_CHARS + 1];
        store_key made = {
            .id = id, .scopes = AUTH_ALL_SCOPES, .label = "first admin key", .created = wall_ms()};
        auth_make_key(key, id, made.hash);
        status = file[0] == '\0' || write_key_file(file, key) ? store_begin(s, err) : STORE_EIO;
        if (status == STORE_OK) {
            status = store_tenant_create(s, "default", NULL, made.created, &made.tenant, err);
        }
        if (status == STORE_OK) {
            status = store_key_create(s, &made, err);
        }
        if (status == STORE_OK) {
            status = store_commit(s, err);
        } else {
            store_rollback(s);
        }
    }
    store_mem_free(mem);
    return status;
}

static int open_database(struct running *run, store **out)
{
    struct server *server = &run->server;
    store_error err = {0};
    store_options options = {.sync = strcmp(server->config->sync, "full") == 0 ? STORE_SYNC_FULL
                                                                               : STORE_SYNC_NORMAL,
                             .running_jobs = (int64_t)server->config->tenant_running_jobs};
    server->db_path = server->config->db;
    if (!server_make_directories(server->db_path)) {
        fprintf(stderr, "mp2: %s: cannot make its directory: %s (setting db)\n", server->db_path,
                strerror(errno));
        return EXIT_FAILED;
    }
    if (store_open(server->db_path, &options, out, &err) != STORE_OK) {
        return failed(EXIT_FAILED, err.text);
    }
    if (make_first_key(*out, server->config->admin_key_file, run->first_key, &err) != STORE_OK) {
        return err.text[0] != '\0' ? failed(EXIT_FAILED, err.text) : EXIT_FAILED;
    }
    server->auth = auth_load(*out, &err);
    return server->auth != NULL ? EXIT_DONE : failed(EXIT_FAILED, err.text);
}

/* ---- starting -------------------------------------------------------------------------------------------- */

static int open_model(struct running *run)
{
    struct server *server = &run->server;
    const struct config *config = server->config;
    size_t threads = cgroup_threads(config->threads, cgroup_cores(), &run->limits);
    eng_error err = {0};
    const char *dir = default_model_dir(config->model[0] != '\0' ? config->model : NULL);
    if (dir == NULL) {
        return EXIT_NO_INPUT; /* said already */
    }
    bool half = strcmp(config->weights, "f16") == 0;
    if ((half ? eng_model_open_half : eng_model_open)(dir, &server->model, &err) != ENG_OK) {
        return failed(EXIT_NO_INPUT, err.text);
    }
    eng_status status = config->bank[0] != '\0'
                            ? eng_bank_open(server->model, config->bank, false, &server->bank, &err)
                            : eng_bank_open_default(server->model, false, &server->bank, &err);
    if (status != ENG_OK) {
        return failed(EXIT_NO_INPUT, err.text);
    }
    if (eng_compute_start(threads, NULL, &server->compute, &err) != ENG_OK) {
        return failed(EXIT_FAILED, err.text);
    }
    eng_compute_offer_cores(server->compute);
    return EXIT_DONE;
}

static void write_store_metrics(struct metrics_out *out, void *arg)
{
    struct server *server = arg;
    struct storeq_stats stats;
    storeq_get_stats(server->storeq, &stats);
    metrics_counter(out, "mp2_store_operations_total", "Writes done.", (double)stats.ops);
    metrics_counter(out, "mp2_store_groups_total", "Transactions.", (double)stats.groups);
    metrics_counter(out, "mp2_store_failed_total", "Writes that failed.", (double)stats.failed);
    metrics_gauge(out, "mp2_store_waiting", "Writes waiting.", (double)stats.waiting);
    metrics_gauge(out, "mp2_workers_waiting", "Work waiting for a worker.",
                  (double)workers_waiting(server->workers));
    metrics_gauge(out, "mp2_keys", "Keys in force.", (double)auth_key_count(server->auth));
    metrics_counter(out, "mp2_log_dropped_total", "Log lines dropped.", (double)log_dropped());
}

static int start_threads(struct server *server, store *writer)
{
    const struct config *config = server->config;
    struct storeq_options options = {.max_waiting = config->store_queue,
                                     .group_max = config->store_group,
                                     .group_wait_us = config->store_group_wait * 1000};
    server->storeq = storeq_start(server->loop, writer, &options);
    if (server->storeq == NULL) {
        store_close(writer);
        return failed(EXIT_FAILED, "the store thread did not start: out of memory or threads");
    }
    server->workers =
        workers_start(server->loop, config->workers, config->worker_queue, server->db_path);
    server->metrics = metrics_new();
    if (server->workers == NULL || server->metrics == NULL) {
        return failed(EXIT_FAILED, "the workers did not start: out of memory or threads");
    }
    metrics_section(server->metrics, write_store_metrics, server);
    return EXIT_DONE;
}

static int start_parts(struct running *run)
{
    char why[512] = "";
    for (; run->parts_started < server_parts_count; run->parts_started++) {
        const struct server_part *part = &server_parts[run->parts_started];
        if (part->start != NULL && !part->start(&run->server, why, sizeof why)) {
            fprintf(stderr, "mp2: %s did not start: %s\n", part->name, why);
            return EXIT_FAILED;
        }
    }
    if (!http_start(&run->server, why, sizeof why)) {
        return failed(EXIT_FAILED, why);
    }
    return EXIT_DONE;
}

static int start(struct running *run)
{
    struct server *server = &run->server;
    store *writer = NULL;
    server->loop = loop_new();
    if (server->loop == NULL) {
        return failed(EXIT_FAILED, "the loop did not start: out of memory or descriptors");
    }
    int code = open_database(run, &writer);
    if (code == EXIT_DONE) {
        code = open_model(run);
    }
    if (code != EXIT_DONE) {
        store_close(writer);
        return code;
    }
    code = start_threads(server, writer);
    return code == EXIT_DONE ? start_parts(run) : code;
}

/* ---- stopping --------------------------------------------------------------------------------------------- */

static void close_door(struct running *run)
{
    struct server *server = &run->server;
    run->door_closed = true;
    server->draining = true;
    for (size_t i = 0; i < server_parts_count; i++) {
        if (server_parts[i].drain != NULL) {
            server_parts[i].drain(server);
        }
    }
    http_drain(server);
}

static bool is_idle(struct running *run)
{
    bool idle = http_idle(&run->server);
    for (size_t i = 0; i < server_parts_count; i++) {
        idle = idle && (server_parts[i].idle == NULL || server_parts[i].idle(&run->server));
    }
    return idle;
}

static void on_drain(uv_timer_t *timer)
{
    struct running *run = timer->data;
    const struct config *config = run->server.config;
    int64_t ms = clock_ms() - run->server.drain_started_ms;
    if (!run->door_closed && ms >= config->drain_delay) {
        close_door(run);
    }
    bool late = ms >= config->drain_delay + config->drain_timeout;
    if (run->door_closed && (late || is_idle(run))) {
        if (late) {
            struct http_stats stats;
            http_get_stats(run->server.http, &stats);
            log_event(LOG_WARN, "drain_timeout", "%zu requests were not finished", stats.requests);
        }
        loop_stop(run->server.loop);
    }
}

static void on_hangup(uv_signal_t *handle, int number)
{
    (void)number;
    struct running *run = handle->data;
    if (run->server.drain_started_ms == 0) {
        reload_settings(&run->server);
    }
}

/* A loop that hangs does not come here, and systemd restarts it. */
static void on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    notify_send("WATCHDOG=1");
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct running *run = handle->data;
    if (run->server.drain_started_ms != 0) {
        /* As if it had never been caught: the parent sees the signal. */
        signal(number, SIG_DFL);
        raise(number);
    }
    log_event(LOG_INFO, "stopping", "signal %d: finishing what is in flight", number);
    notify_send("STOPPING=1\nSTATUS=finishing what is in flight");
    run->server.ready = false;
    run->server.drain_started_ms = clock_ms();
    uv_timer_start(&run->drain_timer, on_drain, 0, DRAIN_LOOK_MS);
}

static void open_handles(struct running *run)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct uv_loop_s *uv = loop_uv(run->server.loop);
    int64_t watchdog_ms = notify_watchdog_ms();
    for (size_t i = 0; i < 3; i++) {
        uv_signal_init(uv, &run->signals[i]);
        run->signals[i].data = run;
        uv_signal_start(&run->signals[i], numbers[i] == SIGHUP ? on_hangup : on_signal, numbers[i]);
    }
    uv_timer_init(uv, &run->drain_timer);
    uv_timer_init(uv, &run->watchdog);
    run->drain_timer.data = run->watchdog.data = run;
    if (watchdog_ms > 0) {
        uv_timer_start(&run->watchdog, on_watchdog, 0, (uint64_t)watchdog_ms);
    }
    run->handles_open = 5;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct running *run = handle->data;
    run->handles_open--;
}

static void close_handles(struct running *run)
{
    if (run->handles_open == 0) {
        return;
    }
    for (size_t i = 0; i < 3; i++) {
        uv_close((uv_handle_t *)&run->signals[i], on_handle_closed);
    }
    uv_close((uv_handle_t *)&run->drain_timer, on_handle_closed);
    uv_close((uv_handle_t *)&run->watchdog, on_handle_closed);
    while (run->handles_open > 0) {
        uv_run(loop_uv(run->server.loop), UV_RUN_ONCE);
    }
}

static void stop(struct running *run)
{
    struct server *server = &run->server;
    server->draining = true;
    http_stop(server);
    while (run->parts_started > 0) {
        const struct server_part *part = &server_parts[--run->parts_started];
        if (part->stop != NULL) {
            part->stop(server);
        }
    }
    workers_stop(server->workers);
    storeq_stop(server->storeq);
    loop_free(server->loop); /* completions that came late end here */
    http_free(server->http);
    job_streams_free(server->job_streams);
    registry_free(server->registry); /* requests that ended late gave their versions back */
    prompts_free(server->prompts);
    eng_compute_stop(server->compute);
    eng_bank_free(server->bank);
    eng_model_free(server->model);
    metrics_free(server->metrics);
    auth_free(server->auth);
    reload_fini(server);
}

/* Memory holds texts of tenants and for a moment new keys. A limit of one byte is too little for a core
 * file, and the kernel takes it as "none" also when cores are piped to a program. */
static void forbid_core_dumps(const struct config *config)
{
    const struct rlimit one = {1, 1};
    if (!config->core_dumps) {
        setrlimit(RLIMIT_CORE, &one);
    }
}

/* Connections may need more descriptors than a shell gives by default. */
static void raise_descriptor_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* Blocks of a mebibyte and more are maps of their own and go back when they are freed. Left to itself, glibc
 * raises that bound with every such block that is freed, up to 32 MiB: what jobs need for minutes would then
 * stay in its heaps, more with every job of another size. */
static void give_memory_back(void)
{
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
}

int server_run(const struct config *config, const struct config_source *source)
{
    static struct running run; /* zeroed; one server a process */
    run.server.config = config;
    run.server.source = source;
    give_memory_back();
    forbid_core_dumps(config);
    cgroup_read("/sys/fs/cgroup", "/proc/self/cgroup", &run.limits);
    run.server.started_ms = wall_ms();
    if (sodium_init() < 0) {
        return failed(EXIT_FAILED, "libsodium did not start");
    }
    json_object_seed(0); /* before there are threads */
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    int code = start(&run);
    if (code == EXIT_DONE) {
        open_handles(&run);
        bool in_file = run.first_key[0] != '\0' && config->admin_key_file[0] != '\0';
        banner_print(&run.server, &run.limits, run.first_key,
                     in_file ? config->admin_key_file : "");
        sodium_memzero(run.first_key, sizeof run.first_key);
        run.server.ready = true;
        notify_send("READY=1\nSTATUS=serving");
        loop_run(run.server.loop);
        close_handles(&run);
    }
    stop(&run);
    return code;
}
