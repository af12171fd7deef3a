/* taskuse.c: counting who asks which task, and GET /v1/tasks/{task}/usage. */
#include "server/taskuse.h"

#include "server/auth.h"
#include "server/endpoints.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/task_call.h"
#include "server/usage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS (2 * TASKUSE_MAX) /* a power of two */

struct pair {
    int64_t task, requests, inputs, tokens;
    char key[AUTH_KEY_ID_CHARS + 1];
};

struct taskuse {
    size_t n;
    bool full;             /* said already */
    uint16_t slots[SLOTS]; /* 0: empty; else the pair's number + 1 */
    struct pair pairs[TASKUSE_MAX];
};

/* ---- counting --------------------------------------------------------------------------------- */

static uint64_t hash_of(int64_t task, const char *key)
{
    uint64_t hash = (uint64_t)task * UINT64_C(0x9E3779B97F4A7C15);
    for (; *key != '\0'; key++) {
        hash = (hash ^ (unsigned char)*key) * UINT64_C(0x100000001B3);
    }
    return hash ^ hash >> 32;
}

/* The pair of task and key, new when there is room. */
static struct pair *find(struct taskuse *uses, int64_t task, const char *key)
{
    size_t at = hash_of(task, key) % SLOTS;
    while (uses->slots[at] != 0) {
        struct pair *pair = &uses->pairs[uses->slots[at] - 1];
        if (pair->task == task && strcmp(pair->key, key) == 0) {
            return pair;
        }
        at = (at + 1) % SLOTS;
    }
    if (uses->n == TASKUSE_MAX) {
        return NULL;
    }
    struct pair *pair = &uses->pairs[uses->n++];
    uses->slots[at] = (uint16_t)uses->n;
    *pair = (struct pair){.task = task};
    snprintf(pair->key, sizeof pair->key, "%s", key);
    return pair;
}

void taskuse_count(struct taskuse **uses, int64_t task, const char *key, int64_t requests,
                   int64_t inputs, int64_t tokens)
{
    if (*uses == NULL) {
        *uses = calloc(1, sizeof **uses);
    }
    struct pair *pair = *uses != NULL ? find(*uses, task, key) : NULL;
    if (pair != NULL) {
        pair->requests += requests;
        pair->inputs += inputs;
        pair->tokens += tokens;
    } else if (*uses != NULL && !(*uses)->full) {
        (*uses)->full = true;
        log_event(LOG_WARN, "task_usage_full",
                  "more than %d pairs of task and key in two seconds: some are not counted by task",
                  TASKUSE_MAX);
    }
}

void taskuse_add(struct taskuse **uses, const struct taskuse *from)
{
    for (size_t i = 0; from != NULL && i < from->n; i++) {
        const struct pair *pair = &from->pairs[i];
        taskuse_count(uses, pair->task, pair->key, pair->requests, pair->inputs, pair->tokens);
    }
}

store_status taskuse_write(store *s, const struct taskuse *uses, int64_t day, store_error *err)
{
    store_status status = STORE_OK;
    for (size_t i = 0; uses != NULL && i < uses->n && status == STORE_OK; i++) {
        const struct pair *pair = &uses->pairs[i];
        const store_task_use use = {.task = pair->task,
                                    .key = pair->key,
                                    .day = day,
                                    .requests = pair->requests,
                                    .inputs = pair->inputs,
                                    .tokens = pair->tokens};
        status = store_task_use_add(s, &use, err);
    }
    return status;
}

void taskuse_free(struct taskuse *uses)
{
    free(uses);
}

/* ---- GET /v1/tasks/{task}/usage ------------------------------------------------------------------ */

struct uses_call {
    struct task_call *call;
    int64_t first;
    store_task_use *uses;
    size_t n;
};

/* On the store thread, after the flush that ep_task_usage has handed to it. */
static store_status read_uses(store *s, void *arg, store_error *err)
{
    struct uses_call *asked = arg;
    struct task_call *call = asked->call;
    store_status status = store_task_find(s, call->tenant, call->name, call->mem, &call->task, err);
    return status == STORE_OK ? store_task_use_list(s, call->tenant, call->task.id, asked->first,
                                                    call->mem, &asked->uses, &asked->n, err)
                              : status;
}

static json_t *use_json(const store_task_use *use)
{
    char day[USAGE_DAY];
    usage_day(use->day, day);
    return json_pack("{s:s, s:s, s:I, s:I, s:I}", "day", day, "key", use->key, "requests",
                     (json_int_t)use->requests, "inputs", (json_int_t)use->inputs, "tokens",
                     (json_int_t)use->tokens);
}

static void show_uses(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct uses_call *asked = arg;
    asked->call->status = status;
    asked->call->err = *err;
    if (task_call_failed(req, asked->call)) {
        return;
    }
    json_t *data = json_array();
    for (size_t i = asked->n; i > 0; i--) {
        json_array_append_new(data, use_json(&asked->uses[i - 1]));
    }
    reply_json(req, 200, json_pack("{s:s, s:o}", "object", "list", "data", data));
}

void ep_task_usage(struct request *req)
{
    struct task_call *call = task_call_new(req, true);
    struct uses_call *asked = request_alloc(req, sizeof *asked);
    uint64_t days = 0;
    if (call == NULL || !request_query_u64(req, "days", 1, STORE_TASK_USE_DAYS, 30, &days)) {
        return;
    }
    if (asked == NULL) {
        reply_no_memory(req);
        return;
    }
    *asked = (struct uses_call){.call = call, .first = wall_ms() / DAY_MS - (int64_t)days + 1};
    usage_flush(request_server(req)->usage);
    request_store(req, read_uses, false, show_uses, asked);
}
