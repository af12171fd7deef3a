/* usage.c: counting what tenants use, and GET /v1/usage.
 *
 * Each tenant has its counts in the table of keys; those with something to write hang in a list. A
 * flush moves the counts into one operation of the store thread, which shares its transaction with
 * whatever else is written. What could not be written is counted again.
 */
#include "server/usage.h"

#include "server/auth.h"
#include "server/endpoints.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/storeq.h"
#include "server/taskuse.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_DAYS 3660

struct use {
    struct auth_tenant *tenant;
    store_usage counts;
};

struct flush {
    struct usage *usage;
    struct storeq_op op;
    struct taskuse *tasks; /* owned */
    int64_t day;
    size_t n;
    struct use uses[];
};

struct usage {
    struct server *server;
    struct auth_tenant *dirty; /* with counts to write */
    size_t n_dirty;
    struct taskuse *tasks; /* by task and key; NULL: nothing */
    struct flush *flush;   /* on its way, or NULL */
};

struct usage *usage_new(struct server *server)
{
    struct usage *usage = calloc(1, sizeof *usage);
    if (usage != NULL) {
        usage->server = server;
    }
    return usage;
}

/* ---- counting --------------------------------------------------------------------------------- */

static void add(struct usage *usage, struct auth_tenant *tenant, const store_usage *more)
{
    tenant->usage.requests += more->requests;
    tenant->usage.inputs += more->inputs;
    tenant->usage.tokens += more->tokens;
    if (!tenant->has_usage) {
        tenant->has_usage = true;
        tenant->next_used = usage->dirty;
        usage->dirty = tenant;
        usage->n_dirty++;
    }
}

void usage_count(struct usage *usage, struct auth_tenant *tenant, int64_t requests, int64_t inputs,
                 int64_t tokens)
{
    if (usage != NULL) {
        add(usage, tenant,
            &(store_usage){.requests = requests, .inputs = inputs, .tokens = tokens});
    }
}

void usage_count_task(struct usage *usage, int64_t task, const char *key, int64_t inputs,
                      int64_t tokens)
{
    if (usage != NULL) {
        taskuse_count(&usage->tasks, task, key, 1, inputs, tokens);
    }
}

/* ---- writing ---------------------------------------------------------------------------------- */

static store_status write_uses(store *s, void *arg, store_error *err)
{
    const struct flush *flush = arg;
    store_status status = STORE_OK;
    for (size_t i = 0; i < flush->n && status == STORE_OK; i++) {
        status = store_usage_add(s, flush->uses[i].tenant->id, &flush->uses[i].counts, err);
    }
    return status == STORE_OK ? taskuse_write(s, flush->tasks, flush->day, err) : status;
}

static void give_back(struct flush *flush)
{
    for (size_t i = 0; i < flush->n; i++) {
        add(flush->usage, flush->uses[i].tenant, &flush->uses[i].counts);
    }
    taskuse_add(&flush->usage->tasks, flush->tasks);
}

static void free_flush(struct flush *flush)
{
    if (flush != NULL) {
        taskuse_free(flush->tasks);
    }
    free(flush);
}

static void flushed(struct storeq_op *op)
{
    struct flush *flush = op->arg;
    if (op->status != STORE_OK) {
        log_event(LOG_WARN, "usage_not_written", "%s", op->err.text);
        give_back(flush);
    }
    flush->usage->flush = NULL;
    free_flush(flush);
}

/* All counts, for one operation; NULL: none, or out of memory. */
static struct flush *take_all(struct usage *usage)
{
    struct flush *flush = usage->n_dirty > 0
                              ? calloc(1, sizeof *flush + usage->n_dirty * sizeof flush->uses[0])
                              : NULL;
    if (flush == NULL) {
        return NULL;
    }
    flush->usage = usage;
    flush->day = wall_ms() / DAY_MS;
    flush->tasks = usage->tasks; /* whoever asks a task uses something: a tenant is dirty, too */
    usage->tasks = NULL;
    while (usage->dirty != NULL) {
        struct auth_tenant *tenant = usage->dirty;
        usage->dirty = tenant->next_used;
        flush->uses[flush->n] = (struct use){tenant, tenant->usage};
        flush->uses[flush->n++].counts.day = flush->day;
        tenant->usage = (store_usage){0};
        tenant->has_usage = false;
    }
    usage->n_dirty = 0;
    return flush;
}

void usage_flush(struct usage *usage)
{
    struct flush *flush = usage->flush == NULL ? take_all(usage) : NULL;
    if (flush == NULL) {
        return;
    }
    flush->op = (struct storeq_op){.run = write_uses, .done = flushed, .arg = flush};
    if (storeq_submit(usage->server->storeq, &flush->op)) {
        usage->flush = flush;
    } else {
        give_back(flush);
        free_flush(flush);
    }
}

bool usage_is_flushing(const struct usage *usage)
{
    return usage->flush != NULL;
}

void usage_stop(struct usage *usage)
{
    store_error err;
    struct flush *flush = usage != NULL ? take_all(usage) : NULL;
    if (flush != NULL &&
        storeq_call(usage->server->storeq, write_uses, flush, false, &err) != STORE_OK) {
        log_event(LOG_WARN, "usage_not_written", "%s", err.text);
    }
    free_flush(flush);
}

/* ---- GET /v1/usage ---------------------------------------------------------------------------- */

struct usage_call {
    struct request *req;
    store_mem *mem;
    const char *tenant_name; /* of another one, or NULL */
    int64_t tenant, first, last;
    struct flush *flush; /* counted and not written yet: written first */
    store_usage *days;
    size_t n;
};

static void release_call(void *data)
{
    struct usage_call *call = data;
    store_mem_free(call->mem);
    free_flush(call->flush);
}

static store_status read_days(store *s, void *arg, store_error *err)
{
    struct usage_call *call = arg;
    store_status status = call->flush != NULL ? write_uses(s, call->flush, err) : STORE_OK;
    if (status == STORE_OK && call->tenant_name != NULL) {
        store_tenant tenant;
        status = store_tenant_find(s, call->tenant_name, call->mem, &tenant, err);
        call->tenant = tenant.id;
    }
    return status == STORE_OK ? store_usage_list(s, call->tenant, call->first, call->last,
                                                 call->mem, &call->days, &call->n, err)
                              : status;
}

void usage_day(int64_t number, char day[USAGE_DAY])
{
    time_t at = (time_t)(number * (DAY_MS / 1000));
    struct tm utc;
    day[0] = '\0';
    if (gmtime_r(&at, &utc) != NULL) {
        strftime(day, USAGE_DAY, "%Y-%m-%d", &utc);
    }
}

static json_t *day_json(const store_usage *use)
{
    char day[USAGE_DAY];
    usage_day(use->day, day);
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "day", day, "requests",
                     (json_int_t)use->requests, "inputs", (json_int_t)use->inputs, "tokens",
                     (json_int_t)use->tokens, "jobs", (json_int_t)use->jobs, "trained_tokens",
                     (json_int_t)use->trained_tokens);
}

static void show_days(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct usage_call *call = arg;
    if (status != STORE_OK && call->flush != NULL) {
        give_back(call->flush);
    }
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
        return;
    }
    json_t *data = json_array();
    for (size_t i = 0; i < call->n; i++) {
        json_array_append_new(data, day_json(&call->days[i]));
    }
    reply_json(req, 200, json_pack("{s:s, s:o}", "object", "list", "data", data));
}

void ep_usage(struct request *req)
{
    const struct server *server = request_server(req);
    const char *tenant = request_query(req, "tenant");
    uint64_t days = 0;
    if (!request_query_u64(req, "days", 1, MAX_DAYS, 30, &days)) {
        return;
    }
    bool other = tenant != NULL && strcmp(tenant, request_tenant_name(req)) != 0;
    if (other && (request_scopes(req) & STORE_SCOPE_ADMIN) == 0) {
        reply_problem(req, 403, "missing_scope", NULL,
                      "another tenant's usage needs a key with the scope: admin");
        return;
    }
    struct usage_call *call = request_alloc(req, sizeof *call);
    store_mem *mem = store_mem_new();
    if (call == NULL || mem == NULL) {
        store_mem_free(mem);
        reply_no_memory(req);
        return;
    }
    int64_t today = wall_ms() / DAY_MS;
    *call = (struct usage_call){.req = req,
                                .mem = mem,
                                .tenant_name = other ? tenant : NULL,
                                .tenant = request_tenant(req),
                                .first = today - (int64_t)days + 1,
                                .last = today,
                                .flush = take_all(server->usage)};
    request_set_data(req, call, release_call);
    if (!request_store(req, read_days, false, show_days, call) && call->flush != NULL) {
        give_back(call->flush);
    }
}
