/* bench_tasks.c: what a start costs that reads many tasks, and what they take in memory.
 *
 * A database is filled through the store's own calls, in groups, as the server writes. Then it is
 * opened and read into a registry as `mp2 serve` does it, --rounds times: the first round after
 * filling finds the file in the page cache, and so do the others. In the last registry tasks are
 * looked up by name, tenants and tasks at random.
 */
#include "server/commands/bench_tasks.h"

#include "server/commands/bench_figures.h"
#include "server/commands/commands.h"
#include "server/commands/opened.h"
#include "server/loop.h"
#include "server/metrics.h"
#include "server/registry.h"
#include "server/tasks.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROUP      10000 /* tasks of one transaction */
#define LOOKUPS    1000000
#define MAX_ROUNDS 64
#define MAX_ROUTE  1024

struct many {
    const struct bench_tasks_options *options;
    struct opened opened;
    struct registry *registry;
    char folder[256], path[320];
    int64_t first_tenant;
    uint64_t random;
    double *seconds; /* (LOOKUPS) */
    struct figures report;
};

/* xorshift64 */
static uint64_t draw(struct many *m, uint64_t below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return m->random % below;
}

static int store_failed(const store_error *err)
{
    fprintf(stderr, "mp2 bench: %s%s%s\n", err->field, err->field[0] != '\0' ? ": " : "",
            err->text);
    return EXIT_FAILED;
}

/* ---- making the database ----------------------------------------------------------------------------- */

static int64_t tenant_of(const struct many *m, size_t task)
{
    return m->first_tenant + (int64_t)(task % m->options->tenants);
}

static void name_of(size_t task, char name[32])
{
    snprintf(name, 32, "task-%zu", task);
}

static store_status add_tenants(struct many *m, store *s, store_error *err)
{
    store_status status = STORE_OK;
    for (size_t i = 0; i < m->options->tenants && status == STORE_OK; i++) {
        char name[32];
        int64_t id = 0;
        snprintf(name, sizeof name, "bench-%zu", i);
        status = store_tenant_create(s, name, NULL, wall_ms(), &id, err);
        m->first_tenant = i == 0 ? id : m->first_tenant;
    }
    return status;
}

static store_status add_task(struct many *m, store *s, size_t i, store_error *err)
{
    static const char *const labels[] = {"[\"负面\", \"正面\"]", "[\"甲\", \"乙\"]",
                                         "[\"差\", \"好\"]", "[\"否\", \"是\"]"};
    const eng_bank_info *bank = eng_bank_get_info(m->opened.bank);
    float route[MAX_ROUTE];
    char name[32];
    int64_t id = 0;
    size_t len = bank->route_len <= MAX_ROUTE ? bank->route_len : 0;
    for (size_t k = 0; k < len; k++) {
        route[k] = (float)draw(m, 1000) / 250 - 2;
    }
    name_of(i, name);
    const store_task task = {.tenant = tenant_of(m, i),
                             .name = name,
                             .type = "classification",
                             .labels = labels[i % 4],
                             .created = wall_ms()};
    const store_version first = {.route = {route, len * sizeof *route},
                                 .method = "route",
                                 .model_fingerprint =
                                     eng_model_get_info(m->opened.model)->fingerprint,
                                 .bank_fingerprint = bank->fingerprint,
                                 .bank = bank->name,
                                 .created = task.created};
    return store_task_create(s, &task, &first, &id, err);
}

static store_status fill(struct many *m, store *s, store_error *err)
{
    store_status status = add_tenants(m, s, err);
    for (size_t i = 0; i < m->options->tasks && status == STORE_OK;) {
        status = store_begin(s, err);
        for (size_t end = i + GROUP; i < end && i < m->options->tasks && status == STORE_OK; i++) {
            status = add_task(m, s, i, err);
        }
        if (status == STORE_OK) {
            status = store_commit(s, err);
        }
    }
    return status;
}

/* Makes the file, or finds the tenants of one that an earlier run made. */
static int prepare(struct many *m)
{
    const store_options options = {.sync = STORE_SYNC_NORMAL};
    store *s = NULL;
    store_error err = {0};
    store_tenant tenant = {0};
    bool made = access(m->path, F_OK) != 0;
    double began = bench_now();
    store_mem *mem = store_mem_new();
    store_status status =
        mem != NULL ? store_open(m->path, &options, &s, &err) : (store_status)STORE_ENOMEM;
    if (status == STORE_OK && made) {
        status = fill(m, s, &err);
    } else if (status == STORE_OK) {
        status = store_tenant_find(s, "bench-0", mem, &tenant, &err);
        m->first_tenant = tenant.id;
    }
    store_close(s);
    store_mem_free(mem);
    if (status == STORE_OK && made) {
        double each = 1e6 * (bench_now() - began) / (double)m->options->tasks;
        figure(&m->report, "create_us", "%.1f us a task", each);
    }
    return status == STORE_OK ? EXIT_DONE : store_failed(&err);
}

/* ---- reading it -------------------------------------------------------------------------------------- */

/* One start: opened, read, closed. Seconds of opening and of reading. */
static int start_once(struct many *m, double *open_seconds, double *load_seconds)
{
    size_t loaded = 0, refused = 0;
    store *s = NULL;
    store_error err = {0};
    eng_error engine_err = {0};
    registry_free(m->registry);
    m->registry = NULL;
    if (registry_new(m->opened.model, &m->opened.bank, 1, &m->registry, &engine_err) != ENG_OK) {
        return engine_failed("bench", engine_err.status, &engine_err);
    }
    double began = bench_now();
    store_status status = store_open(m->path, NULL, &s, &err);
    *open_seconds = bench_now() - began;
    if (status == STORE_OK) {
        status = tasks_load(s, m->registry, &loaded, &refused, &err);
    }
    *load_seconds = bench_now() - began - *open_seconds;
    store_close(s);
    if (status != STORE_OK) {
        return store_failed(&err);
    }
    if (loaded != m->options->tasks || refused != 0) {
        fprintf(stderr, "mp2 bench: %zu tasks were read and %zu refused, not %zu and none\n",
                loaded, refused, m->options->tasks);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

static int start_all(struct many *m)
{
    double opens[MAX_ROUNDS], loads[MAX_ROUNDS], n = (double)m->options->tasks;
    struct stat file = {0};
    double before = metrics_resident_bytes();
    size_t rounds = m->options->rounds;
    for (size_t i = 0; i < rounds; i++) {
        int code = start_once(m, &opens[i], &loads[i]);
        if (code != EXIT_DONE) {
            return code;
        }
        if (i == 0) {
            figure(&m->report, "resident_bytes_per_task", "%.0f bytes",
                   (metrics_resident_bytes() - before) / n);
        }
    }
    sort_values(opens, rounds);
    sort_values(loads, rounds);
    figure(&m->report, "tasks", "%.0f", n);
    if (stat(m->path, &file) == 0) {
        figure(&m->report, "database_bytes_per_task", "%.0f bytes", (double)file.st_size / n);
    }
    figure(&m->report, "open_ms", "%.1f ms (median)", 1e3 * opens[rounds / 2]);
    figure(&m->report, "load_seconds", "%.2f s (median)", loads[rounds / 2]);
    figure(&m->report, "load_best_seconds", "%.2f s", loads[0]);
    figure(&m->report, "load_worst_seconds", "%.2f s", loads[rounds - 1]);
    figure(&m->report, "registry_bytes_per_task", "%.0f bytes",
           (double)registry_bytes(m->registry) / n);
    return EXIT_DONE;
}

static int look_up(struct many *m)
{
    struct reg_task_view view;
    size_t missed = 0;
    for (size_t i = 0; i < LOOKUPS; i++) {
        size_t task = draw(m, m->options->tasks);
        char name[32];
        name_of(task, name);
        double began = bench_now();
        missed += registry_find(m->registry, tenant_of(m, task), name, strlen(name), &view) ? 0 : 1;
        m->seconds[i] = bench_now() - began;
    }
    sort_values(m->seconds, LOOKUPS);
    figure(&m->report, "lookup_p50_us", "%.2f us", 1e6 * quantile(m->seconds, LOOKUPS, 0.5));
    figure(&m->report, "lookup_p99_us", "%.2f us", 1e6 * quantile(m->seconds, LOOKUPS, 0.99));
    figure(&m->report, "lookups_missed", "%.0f", (double)missed);
    return missed == 0 ? EXIT_DONE : EXIT_FAILED;
}

/* ---- the command --------------------------------------------------------------------------------------- */

static int many_init(struct many *m)
{
    const struct bench_tasks_options *o = m->options;
    const struct open_request request = {.command = "bench", .model = o->model, .threads = 1};
    int code = opened_open(&request, &m->opened);
    if (code != EXIT_DONE) {
        return code;
    }
    m->seconds = calloc(LOOKUPS, sizeof *m->seconds);
    m->report = (struct figures){json_object(), o->json};
    if (m->seconds == NULL || m->report.object == NULL) {
        fputs("mp2 bench: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    if (o->db != NULL) {
        snprintf(m->path, sizeof m->path, "%s", o->db);
        return strlen(o->db) < sizeof m->path ? EXIT_DONE : usage_error("--db is too long");
    }
    const char *top = getenv("TMPDIR");
    snprintf(m->folder, sizeof m->folder, "%s/mp2-bench-XXXXXX", top != NULL ? top : "/tmp");
    if (mkdtemp(m->folder) == NULL) {
        fprintf(stderr, "mp2 bench: cannot make %s; name a file with --db\n", m->folder);
        m->folder[0] = '\0';
        return EXIT_FAILED;
    }
    snprintf(m->path, sizeof m->path, "%s/tasks.db", m->folder);
    return EXIT_DONE;
}

static void many_fini(struct many *m)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-lock"};
    for (size_t i = 0; m->folder[0] != '\0' && i < sizeof ends / sizeof ends[0]; i++) {
        char name[352];
        snprintf(name, sizeof name, "%s%s", m->path, ends[i]);
        unlink(name);
    }
    if (m->folder[0] != '\0') {
        rmdir(m->folder);
    }
    registry_free(m->registry);
    free(m->seconds);
    json_decref(m->report.object);
    opened_close(&m->opened);
}

int bench_tasks(const struct bench_tasks_options *options)
{
    struct many m = {.options = options, .random = 0x9E3779B97F4A7C15u};
    if (options->rounds < 1 || options->rounds > MAX_ROUNDS) {
        return usage_error("--rounds is 1 to 64");
    }
    int code = many_init(&m);
    if (code == EXIT_DONE) {
        code = prepare(&m);
    }
    if (code == EXIT_DONE) {
        code = start_all(&m);
    }
    if (code == EXIT_DONE) {
        code = look_up(&m);
    }
    if (m.report.object != NULL) {
        figures_print(&m.report);
    }
    many_fini(&m);
    return code;
}
