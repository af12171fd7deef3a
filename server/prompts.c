/* prompts.c: the cache of tuned prompts.
 *
 * One entry a (task, number), in a small hash table and a list by last use. An entry is made when the
 * first request misses it: room is set aside (evicting what nothing uses), a worker reads the blobs, and
 * every request that came meanwhile waits parked at the entry. Nothing else waits: other predictions
 * pass, and the loop does no reading. The blobs are computed with where SQLite's copy lies, so that a
 * prompt is in memory once.
 */
#include "server/prompts.h"

#include "server/config.h"
#include "server/log.h"
#include "server/registry_parts.h"
#include "server/workers.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024

struct waiter {
    struct request *req;
    struct version *version;
    void (*then)(struct request *req, struct version *version, void *arg);
    void *arg;
    struct prompt *prompt; /* held; NULL: it could not be read */
    store_status status;
    store_error err;
    struct waiter *next;
};

struct prompt {
    struct prompts *prompts;
    int64_t tenant, task, number;
    size_t refs, bytes;
    size_t prompt_bytes, head_bytes; /* expected */
    bool ready;
    const float *prompt, *head; /* in mem; NULL: the version has none */
    store_mem *mem;
    struct prompt *next;          /* in its bucket */
    struct prompt *newer, *older; /* by last use, once ready */

    struct worker_job work;
    store_status status;
    store_error err;
    struct waiter *waiters;
};

struct prompts {
    size_t limit;
    struct prompts_stats stats;
    struct prompt *buckets[BUCKETS];
    struct prompt *newest, *oldest;
};

/* ---- entries ------------------------------------------------------------------------------- */

static struct prompt **bucket_of(struct prompts *prompts, int64_t task, int64_t number)
{
    const int64_t key[2] = {task, number};
    return &prompts->buckets[hash_bytes(0, key, sizeof key) & (BUCKETS - 1)];
}

static struct prompt *find(struct prompts *prompts, int64_t task, int64_t number)
{
    struct prompt *prompt = *bucket_of(prompts, task, number);
    while (prompt != NULL && (prompt->task != task || prompt->number != number)) {
        prompt = prompt->next;
    }
    return prompt;
}

static void unlist(struct prompts *prompts, struct prompt *prompt)
{
    if (prompt->newer != NULL) {
        prompt->newer->older = prompt->older;
    } else if (prompts->newest == prompt) {
        prompts->newest = prompt->older;
    }
    if (prompt->older != NULL) {
        prompt->older->newer = prompt->newer;
    } else if (prompts->oldest == prompt) {
        prompts->oldest = prompt->newer;
    }
    prompt->newer = prompt->older = NULL;
}

static void list_newest(struct prompts *prompts, struct prompt *prompt)
{
    unlist(prompts, prompt);
    prompt->older = prompts->newest;
    if (prompt->older != NULL) {
        prompt->older->newer = prompt;
    } else {
        prompts->oldest = prompt;
    }
    prompts->newest = prompt;
}

static void drop(struct prompts *prompts, struct prompt *prompt)
{
    struct prompt **link = bucket_of(prompts, prompt->task, prompt->number);
    while (*link != prompt) {
        link = &(*link)->next;
    }
    *link = prompt->next;
    unlist(prompts, prompt);
    prompts->stats.bytes -= prompt->bytes;
    prompts->stats.entries--;
    store_mem_free(prompt->mem);
    free(prompt);
}

/* False: what is in use leaves no room. */
static bool make_room(struct prompts *prompts, size_t bytes)
{
    struct prompt *old = prompts->oldest;
    while (old != NULL && prompts->stats.bytes + bytes > prompts->limit) {
        struct prompt *newer = old->newer;
        if (old->refs == 0) {
            drop(prompts, old);
            prompts->stats.evictions++;
        }
        old = newer;
    }
    return prompts->stats.bytes + bytes <= prompts->limit;
}

void prompt_hold(struct prompt *prompt)
{
    prompt->refs++;
    list_newest(prompt->prompts, prompt);
}

struct prompt *prompts_find(struct prompts *prompts, int64_t task, int64_t number)
{
    struct prompt *prompt = find(prompts, task, number);
    bool hit = prompt != NULL && prompt->ready;
    prompts->stats.hits += hit;
    prompts->stats.misses += !hit;
    if (!hit) {
        return NULL;
    }
    prompt_hold(prompt);
    return prompt;
}

void prompt_release(struct prompt *prompt)
{
    prompt->refs--;
}

const float *prompt_floats(const struct prompt *prompt)
{
    return prompt->prompt;
}

const float *prompt_head(const struct prompt *prompt)
{
    return prompt->head;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* Absent or of the size that the bank wants. */
static const float *check_blob(struct prompt *prompt, const store_blob *blob, size_t bytes,
                               const char *what)
{
    if (prompt->status == STORE_OK && blob->len != bytes) {
        prompt->status = STORE_ECORRUPT;
        snprintf(prompt->err.text, sizeof prompt->err.text,
                 "the tuned %s of task %lld version %lld has %zu bytes, want %zu", what,
                 (long long)prompt->task, (long long)prompt->number, blob->len, bytes);
    }
    return bytes > 0 ? blob->data : NULL;
}

static void read_blobs(void *arg, store *reader)
{
    struct prompt *prompt = arg;
    store_blob floats, head;
    prompt->status = STORE_EBUSY;
    prompt->mem = store_mem_new();
    if (prompt->mem == NULL || reader == NULL) {
        return;
    }
    prompt->status = store_version_blobs(reader, prompt->tenant, prompt->task, prompt->number,
                                         prompt->mem, &floats, &head, &prompt->err);
    prompt->prompt = check_blob(prompt, &floats, prompt->prompt_bytes, "prompt");
    prompt->head = check_blob(prompt, &head, prompt->head_bytes, "head");
}

/* ---- requests that wait ---------------------------------------------------------------------- */

/* The deadline has passed, the client is gone, or the server stops: what it holds goes back now. */
static void give_up(struct request *req, void *arg)
{
    struct waiter *waiter = arg;
    if (waiter->prompt != NULL) {
        prompt_release(waiter->prompt);
    }
    version_release(request_server(req)->registry, waiter->version);
    waiter->version = NULL;
}

static void go_on(struct request *req, void *arg)
{
    struct waiter *waiter = arg;
    if (waiter->version == NULL) {
        return;
    }
    if (waiter->prompt != NULL) {
        version_give_prompt(waiter->version, waiter->prompt);
        waiter->then(req, waiter->version, waiter->arg);
        return;
    }
    reply_store_error(req, waiter->status, &waiter->err);
    version_release(request_server(req)->registry, waiter->version);
}

static void blobs_read(void *arg)
{
    struct prompt *prompt = arg;
    struct waiter *waiter = prompt->waiters;
    prompt->waiters = NULL;
    prompt->ready = prompt->status == STORE_OK;
    while (waiter != NULL) {
        struct waiter *next = waiter->next; /* it lives in its request */
        if (prompt->ready && waiter->version != NULL) {
            prompt_hold(prompt);
            waiter->prompt = prompt;
        }
        waiter->status = prompt->status;
        waiter->err = prompt->err;
        request_resume(waiter->req, go_on, waiter);
        waiter = next;
    }
    if (!prompt->ready) {
        drop(prompt->prompts, prompt);
    }
}

static size_t parts_bytes(const struct server *server, const struct version *version,
                          size_t *prompt, size_t *head)
{
    const eng_bank_info *info = eng_bank_get_info(version->base->bank);
    size_t hidden = eng_model_get_info(server->model)->hidden;
    *prompt = version->has_prompt ? info->layers * info->prompt_tokens * hidden * sizeof(float) : 0;
    *head = version->has_head ? (2 * hidden + 2) * sizeof(float) : 0;
    return *prompt + *head + sizeof(struct prompt);
}

/* An entry whose read is out; NULL: replied. */
static struct prompt *begin_read(struct request *req, const struct version *version,
                                 const struct tuned *tuned)
{
    struct server *server = request_server(req);
    struct prompts *prompts = server->prompts;
    size_t prompt_bytes = 0, head_bytes = 0;
    size_t bytes = parts_bytes(server, version, &prompt_bytes, &head_bytes);
    if (!make_room(prompts, bytes)) {
        reply_full(req, "prompt_cache", prompts->limit);
        return NULL;
    }
    struct prompt *prompt = calloc(1, sizeof *prompt);
    if (prompt == NULL) {
        reply_no_memory(req);
        return NULL;
    }
    *prompt = (struct prompt){.prompts = prompts,
                              .tenant = tuned->tenant,
                              .task = tuned->task,
                              .number = version->number,
                              .bytes = bytes,
                              .prompt_bytes = prompt_bytes,
                              .head_bytes = head_bytes,
                              .work = {.run = read_blobs, .done = blobs_read, .arg = prompt}};
    if (!workers_submit(server->workers, &prompt->work)) {
        free(prompt);
        reply_full(req, "worker_queue", server->config->worker_queue);
        return NULL;
    }
    struct prompt **bucket = bucket_of(prompts, prompt->task, prompt->number);
    prompt->next = *bucket;
    *bucket = prompt;
    prompts->stats.bytes += bytes;
    prompts->stats.entries++;
    return prompt;
}

static bool wait_at(struct prompt *prompt, const struct waiter *wanted)
{
    struct waiter *waiter = request_alloc(wanted->req, sizeof *waiter);
    if (waiter == NULL) {
        reply_no_memory(wanted->req);
        return false;
    }
    *waiter = *wanted;
    waiter->next = prompt->waiters;
    prompt->waiters = waiter;
    request_park(waiter->req, give_up, waiter);
    return true;
}

void prompts_ready(struct request *req, struct version *version,
                   void (*then)(struct request *req, struct version *version, void *arg), void *arg)
{
    struct server *server = request_server(req);
    struct tuned *tuned = version_tuned(version);
    if (tuned == NULL || tuned->prompt != NULL) {
        server->prompts->stats.hits += tuned != NULL;
        then(req, version, arg);
        return;
    }
    struct prompt *prompt = prompts_find(server->prompts, tuned->task, version->number);
    if (prompt != NULL) {
        version_give_prompt(version, prompt);
        then(req, version, arg);
        return;
    }
    prompt = find(server->prompts, tuned->task, version->number);
    if (prompt == NULL) {
        prompt = begin_read(req, version, tuned);
    }
    const struct waiter waiter = {.req = req, .version = version, .then = then, .arg = arg};
    if (prompt == NULL || !wait_at(prompt, &waiter)) {
        version_release(server->registry, version);
    }
}

/* ---- all of them ------------------------------------------------------------------------------- */

struct prompts *prompts_new(size_t limit, size_t largest)
{
    struct prompts *prompts = calloc(1, sizeof *prompts);
    if (prompts != NULL) {
        largest += sizeof(struct prompt);
        prompts->limit = limit > largest ? limit : largest;
    }
    return prompts;
}

void prompts_free(struct prompts *prompts)
{
    for (size_t i = 0; prompts != NULL && i < BUCKETS; i++) {
        while (prompts->buckets[i] != NULL) {
            drop(prompts, prompts->buckets[i]);
        }
    }
    free(prompts);
}

void prompts_get_stats(const struct prompts *prompts, struct prompts_stats *stats)
{
    *stats = prompts->stats;
    stats->limit = prompts->limit;
}
