/* request.c: a request's memory, what handlers ask of it, and parking.
 *
 * Two things keep a request alive: the exchange in libmicrohttpd (conn is set) and work handed to
 * another thread (working is set). Either may end first. A deadline or a vanished client ends the
 * exchange while work is out; the completion then finds the request alive but over, and its end frees
 * it. That is why request_resume must come exactly once for every park.
 */
#include "server/gate.h"
#include "server/http_internal.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_BLOCK 2048

/* ---- memory ---------------------------------------------------------------------------------------- */

static size_t align_up(size_t size)
{
    return (size + 15) & ~(size_t)15;
}

static struct arena_block *arena_grow(struct request *req, size_t size)
{
    size_t header = align_up(sizeof(struct arena_block));
    size_t room = size > ARENA_BLOCK ? size : ARENA_BLOCK;
    size_t limit = req->http->server->config->request_memory;
    if (room > limit || req->arena_total > limit - room) {
        return NULL;
    }
    struct arena_block *block = malloc(header + room);
    if (block == NULL) {
        return NULL;
    }
    block->used = 0;
    block->room = room;
    block->next = req->arena;
    req->arena = block;
    req->arena_total += room;
    return block;
}

void *request_alloc(struct request *req, size_t size)
{
    if (size > SIZE_MAX / 2) {
        return NULL;
    }
    size = align_up(size > 0 ? size : 1);
    struct arena_block *block = req->arena;
    if (block == NULL || block->room - block->used < size) {
        block = arena_grow(req, size);
    }
    if (block == NULL) {
        return NULL;
    }
    char *at = (char *)block + align_up(sizeof *block) + block->used;
    block->used += size;
    return at;
}

char *request_printf(struct request *req, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n >= 0 ? request_alloc(req, (size_t)n + 1) : NULL;
    if (text != NULL) {
        va_start(args, format);
        vsnprintf(text, (size_t)n + 1, format, args);
        va_end(args);
    }
    return text;
}

bool request_reserve(struct request *req, size_t more)
{
    struct http *http = req->http;
    uint64_t limit = http->server->config->max_body_memory;
    if (more > limit || http->body_bytes > limit - more) {
        reply_full(req, "max_body_memory", limit);
        return false;
    }
    http->body_bytes += more;
    req->body_room += more;
    return true;
}

void request_set_data(struct request *req, void *data, void (*release)(void *data))
{
    req->data = data;
    req->release_data = release;
}

void *request_data(const struct request *req)
{
    return req->data;
}

/* ---- life ------------------------------------------------------------------------------------------- */

static void make_id(char id[65])
{
    unsigned char bytes[12];
    randombytes_buf(bytes, sizeof bytes);
    memcpy(id, "req_", 4);
    sodium_bin2hex(id + 4, 61, bytes, sizeof bytes);
}

struct request *request_new(struct http *http, struct conn *conn, const char *target)
{
    struct request *req = calloc(1, sizeof *req);
    if (req == NULL) {
        return NULL;
    }
    req->http = http;
    req->started_us = clock_us();
    req->deadline = req->started_us / 1000 + http->server->config->request_timeout;
    req->target_at = (uintptr_t)target;
    req->target_len = strlen(target);
    make_id(req->id);
    req->path = request_printf(req, "%s", target);
    if (req->path == NULL) {
        free(req);
        return NULL;
    }
    req->query_raw = "";
    req->conn = conn;
    conn->req = req;
    req->next = http->requests;
    if (req->next != NULL) {
        req->next->link = &req->next;
    }
    req->link = &http->requests;
    http->requests = req;
    http->n_requests++;
    return req;
}

static void request_free(struct request *req)
{
    struct http *http = req->http;
    *req->link = req->next;
    if (req->next != NULL) {
        req->next->link = req->link;
    }
    http->n_requests--;
    http->body_bytes -= req->body_room;
    if (req->release_data != NULL) {
        req->release_data(req->data);
    }
    if (req->response != NULL) {
        MHD_destroy_response(req->response);
    }
    idem_close(req);
    auth_leave(&req->who);
    json_decref(req->json);
    free(req->body);
    while (req->arena != NULL) {
        struct arena_block *next = req->arena->next;
        free(req->arena);
        req->arena = next;
    }
    free(req);
}

struct quota_party request_party(const struct request *req)
{
    return (struct quota_party){.config = req->http->server->config,
                                .tenant = &req->who.tenant->quota,
                                .key = req->who.key_quota != NULL ? &req->who.key_quota->account
                                                                  : NULL};
}

void request_leave_inflight(struct request *req)
{
    if (req->counted) {
        struct quota_party party = request_party(req);
        req->counted = false;
        req->http->inflight--;
        quota_leave(&party);
    }
}

void request_detach(struct request *req)
{
    request_leave_inflight(req);
    stream_close(req);
    if (req->conn != NULL) {
        req->conn->req = NULL;
        req->conn = NULL;
    }
    req->state = REQUEST_DONE;
    if (!req->working) {
        request_free(req);
    }
}

/* ---- accessors ---------------------------------------------------------------------------------------- */

struct server *request_server(const struct request *req)
{
    return req->http->server;
}

const char *request_id(const struct request *req)
{
    return req->id;
}

const char *request_method(const struct request *req)
{
    return req->method;
}

const char *request_path(const struct request *req)
{
    return req->path;
}

static const char *find_pair(const struct pair *pairs, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(pairs[i].name, name) == 0) {
            return pairs[i].value;
        }
    }
    return NULL;
}

const char *request_param(const struct request *req, const char *name)
{
    return find_pair(req->params, req->n_params, name);
}

const char *request_query(const struct request *req, const char *name)
{
    return find_pair(req->query, req->n_query, name);
}

bool request_query_at(const struct request *req, size_t i, const char **name, const char **value)
{
    if (i >= req->n_query) {
        return false;
    }
    *name = req->query[i].name;
    *value = req->query[i].value;
    return true;
}

bool request_query_u64(struct request *req, const char *name, uint64_t min, uint64_t max,
                       uint64_t fallback, uint64_t *out)
{
    const char *text = request_query(req, name);
    *out = fallback;
    if (text == NULL) {
        return true;
    }
    uint64_t number = 0;
    bool ok = text[0] != '\0';
    for (; *text != '\0' && ok; text++) {
        ok = *text >= '0' && *text <= '9' && !__builtin_mul_overflow(number, 10, &number) &&
             !__builtin_add_overflow(number, (uint64_t)(*text - '0'), &number);
    }
    if (!ok || number < min || number > max) {
        reply_problem(req, 422, "invalid_query", NULL,
                      "query parameter \"%s\" must be a whole number from %" PRIu64 " to %" PRIu64,
                      name, min, max);
        return false;
    }
    *out = number;
    return true;
}

const char *request_header(const struct request *req, const char *name)
{
    return req->conn != NULL ? MHD_lookup_connection_value(req->conn->mhd, MHD_HEADER_KIND, name)
                             : NULL;
}

json_t *request_json(const struct request *req)
{
    return req->json;
}

const char *request_body(const struct request *req, size_t *len)
{
    *len = req->body_len;
    return req->body_len > 0 ? req->body : "";
}

int64_t request_tenant(const struct request *req)
{
    return req->who.tenant != NULL ? req->who.tenant->id : 0;
}

const char *request_tenant_name(const struct request *req)
{
    return req->who.tenant != NULL ? req->who.tenant->name : "";
}

double request_weight(const struct request *req)
{
    return req->who.tenant != NULL ? req->who.tenant->weight : 1;
}

uint64_t request_quota(const struct request *req, enum quota_kind kind)
{
    struct quota_party party = request_party(req);
    return quota_limit(&party, kind, false);
}

json_t *request_quotas_json(const struct request *req, bool key, const int64_t counts[QUOTA_KINDS])
{
    struct quota_party party = request_party(req);
    return quota_json(&party, key, counts, clock_us());
}

bool request_take_tokens(struct request *req, uint64_t tokens)
{
    struct quota_party party = request_party(req);
    struct quota_excess excess;
    if (quota_take_tokens(&party, tokens, clock_us(), &excess)) {
        return true;
    }
    reply_quota(req, &excess);
    return false;
}

void request_settle_tokens(struct request *req, uint64_t taken, uint64_t used, uint64_t inputs)
{
    struct quota_party party = request_party(req);
    quota_settle_tokens(&party, taken, used, clock_us());
    struct usage *usage = req->http->server->usage;
    usage_count(usage, req->who.tenant, 0, (int64_t)inputs, (int64_t)used);
    if (req->asked_task != 0) {
        usage_count_task(usage, req->asked_task, req->who.key_id, (int64_t)inputs, (int64_t)used);
    }
}

void request_note_task(struct request *req, int64_t task)
{
    req->asked_task = task;
}

const char *request_key_id(const struct request *req)
{
    return req->who.key_id;
}

uint32_t request_scopes(const struct request *req)
{
    return req->who.scopes;
}

int64_t request_started_us(const struct request *req)
{
    return req->started_us;
}

/* ---- parking -------------------------------------------------------------------------------------------- */

void request_park(struct request *req, void (*cancelled)(struct request *req, void *arg), void *arg)
{
    req->working = true;
    req->cancelled = cancelled;
    req->cancelled_arg = arg;
    if (!req->replied) {
        req->state = REQUEST_PARKED;
    }
    req->http->n_parked++;
}

/* libmicrohttpd calls the handler again for a resumed connection, which then sends. */
static void wake(struct request *req)
{
    if (req->suspended) {
        req->suspended = false;
        MHD_resume_connection(req->conn->mhd);
        http_kick(req->http);
    }
}

static void on_resumed(void *arg)
{
    struct request *req = arg;
    req->working = false;
    req->cancelled = NULL;
    req->http->n_parked--;
    if (!req->replied) {
        req->state = REQUEST_ADMITTED;
    }
    req->done(req, req->done_arg);
    if (req->working) {
        return;
    }
    if (!req->replied) {
        reply_problem(req, 500, "internal", NULL, "the handler gave no answer");
    }
    if (idem_settle(req)) {
        return; /* parked again */
    }
    if (req->conn == NULL) {
        request_free(req);
        return;
    }
    wake(req);
}

void request_resume(struct request *req, void (*done)(struct request *req, void *arg), void *arg)
{
    req->done = done;
    req->done_arg = arg;
    req->task.run = on_resumed;
    req->task.arg = req;
    loop_post(req->http->server->loop, &req->task);
}

bool request_is_over(const struct request *req)
{
    return req->replied;
}

void request_set_deadline(struct request *req, int64_t ms)
{
    req->deadline = clock_ms() + ms;
    int64_t asked = req->started_us / 1000 + req->asked_ms;
    if (req->asked_ms > 0 && asked < req->deadline) {
        req->deadline = asked;
    }
}

int64_t request_deadline_us(const struct request *req)
{
    return req->deadline * 1000;
}

void reply_late(struct request *req)
{
    counter_add(&req->http->rejected[REJECT_DEADLINE], 1);
    reply_problem(req, 504, "deadline", NULL, "the answer was not ready in time (%s)",
                  req->asked_ms > 0 ? "header X-Request-Timeout, or the server's own limit"
                                    : "setting request_timeout");
}

void request_give_up(struct request *req)
{
    void (*cancelled)(struct request * req, void *arg) = req->cancelled;
    req->cancelled = NULL;
    request_leave_inflight(req);
    wake(req);
    if (cancelled != NULL) {
        cancelled(req, req->cancelled_arg);
    }
}

enum MHD_Result request_settle(struct request *req)
{
    if (req->replied) {
        return reply_send(req);
    }
    if (req->working) {
        req->suspended = true;
        MHD_suspend_connection(req->conn->mhd);
        return MHD_YES;
    }
    reply_problem(req, 500, "internal", NULL, "the handler gave no answer");
    return reply_send(req);
}

/* ---- work elsewhere ----------------------------------------------------------------------------------------- */

static void offload_run(void *arg, store *reader)
{
    struct request *req = arg;
    req->offload_work(req->offload_arg, reader);
}

static void offload_end(void *arg)
{
    struct request *req = arg;
    req->done = req->offload_done;
    req->done_arg = req->offload_arg;
    on_resumed(req);
}

bool request_offload(struct request *req, void (*work)(void *arg, store *reader),
                     void (*done)(struct request *req, void *arg), void *arg)
{
    req->offload_work = work;
    req->offload_done = done;
    req->offload_arg = arg;
    req->job = (struct worker_job){.run = offload_run, .done = offload_end, .arg = req};
    request_park(req, NULL, NULL);
    if (!workers_submit(req->http->server->workers, &req->job)) {
        req->working = false;
        req->http->n_parked--;
        reply_full(req, "worker_queue", req->http->server->config->worker_queue);
        return false;
    }
    return true;
}

static store_status stored_run(store *s, void *arg, store_error *err)
{
    struct request *req = arg;
    if (!idem_works(req)) {
        return req->op_run(s, req->op_arg, err);
    }
    /* The mark of an Idempotency-Key belongs into the transaction of the work. */
    store_status status = req->op.alone ? store_begin(s, err) : STORE_OK;
    if (status != STORE_OK) {
        return status;
    }
    status = req->op_run(s, req->op_arg, err);
    if (status == STORE_OK) {
        idem_mark(req, s);
    }
    if (req->op.alone && status == STORE_OK) {
        status = store_commit(s, err);
    }
    if (req->op.alone && status != STORE_OK) {
        store_rollback(s);
    }
    return status;
}

static void stored_done(struct request *req, void *arg)
{
    req->op_done(req, req->op.status, &req->op.err, arg);
}

static void stored_end(struct storeq_op *op)
{
    struct request *req = op->arg;
    req->done = stored_done;
    req->done_arg = req->op_arg;
    on_resumed(req);
}

static bool submit(struct request *req, storeq_fn run, request_stored done, void *arg,
                   struct storeq_op op)
{
    req->op_run = run;
    req->op_done = done;
    req->op_arg = arg;
    op.run = stored_run;
    op.done = stored_end;
    op.arg = req;
    req->op = op;
    request_park(req, NULL, NULL);
    if (!storeq_submit(req->http->server->storeq, &req->op)) {
        req->working = false;
        req->http->n_parked--;
        reply_full(req, "store_queue", req->http->server->config->store_queue);
        return false;
    }
    return true;
}

bool request_store(struct request *req, storeq_fn run, bool alone, request_stored done, void *arg)
{
    return submit(req, run, done, arg, (struct storeq_op){.alone = alone});
}

bool request_store_last(struct request *req, storeq_fn run, request_stored done, void *arg)
{
    return submit(req, run, done, arg, (struct storeq_op){.must = true});
}
