/* idem.c: Idempotency-Key: a POST that makes something, repeated under the same key, makes it once.
 *
 *     begin    the key is taken in the database, with a hash of method, target and body
 *     mark     the write of the work itself sets a mark in the same transaction (idem_mark)
 *     finish   the answer is stored, before it is sent; without a 2xx the key is given back
 *
 * So a repeated request finds: nothing or an unmarked row that a crash left (removed at start): it is
 * done now; the answer: it is sent again; a row without answer: 409 while the first is at work. A row
 * that is marked and has no answer was cut off by a crash in the few milliseconds between the two
 * commits: the work is done, so it is not done again, and the client is told to look for it.
 *
 * The answer of a request whose client has gone, or whose deadline passed, is kept like any other: such
 * clients are those who come back. A secret in an answer is never kept (reply_json_once).
 */
#include "server/http_internal.h"
#include "server/log.h"

#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_MS    86400000 /* 24 h */
#define KEY_LENGTH 255

struct idem {
    const char *key; /* in the request's arena */
    crypto_hash_sha256_state digest;
    char hash[crypto_hash_sha256_BYTES * 2 + 1];
    store_mem *mem;
    enum idem_stage { IDEM_READING, IDEM_ASKED, IDEM_WORKING, IDEM_SETTLING } stage;
    store_idem_state state;
    store_reply found;
    int64_t tenant, now;
    bool kept; /* the handler has answered */
    store_reply answer;
    char *body, *content_type;
};

/* ---- the key ---------------------------------------------------------------------------------- */

static bool is_key(const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        if (text[i] < 0x21 || text[i] > 0x7E) {
            return false;
        }
    }
    return len > 0 && len <= KEY_LENGTH;
}

bool idem_open(struct request *req)
{
    const char *given = request_header(req, "Idempotency-Key");
    if (given == NULL || !endpoint_makes(req->endpoint)) {
        return true;
    }
    if (!is_key(given)) {
        reply_problem(req, 400, "invalid_header", NULL,
                      "Idempotency-Key is 1 to %d printable ASCII characters without spaces",
                      KEY_LENGTH);
        return false;
    }
    struct idem *idem = calloc(1, sizeof *idem);
    char *key = request_printf(req, "%s", given);
    store_mem *mem = store_mem_new();
    if (idem == NULL || key == NULL || mem == NULL) {
        free(idem);
        store_mem_free(mem);
        reply_no_memory(req);
        return false;
    }
    idem->key = key;
    idem->mem = mem;
    idem->tenant = request_tenant(req);
    idem->now = wall_ms();
    crypto_hash_sha256_init(&idem->digest);
    req->idem = idem;
    request_digest(req, req->method, strlen(req->method) + 1);
    request_digest(req, req->path, strlen(req->path) + 1);
    request_digest(req, req->query_raw, strlen(req->query_raw) + 1);
    return true;
}

void idem_close(struct request *req)
{
    if (req->idem != NULL) {
        store_mem_free(req->idem->mem);
        free(req->idem->body);
        free(req->idem->content_type);
        free(req->idem);
        req->idem = NULL;
    }
}

void request_digest(struct request *req, const void *bytes, size_t len)
{
    if (req->idem != NULL && len > 0) {
        crypto_hash_sha256_update(&req->idem->digest, bytes, len);
    }
}

/* ---- begin ------------------------------------------------------------------------------------ */

static store_status begin(store *s, void *arg, store_error *err)
{
    struct idem *idem = arg;
    return store_idem_begin(s, idem->tenant, idem->key, idem->hash, idem->now, idem->now + KEEP_MS,
                            idem->mem, &idem->state, &idem->found, err);
}

static void replay(struct request *req, const store_reply *found)
{
    reply_header(req, "Idempotent-Replayed", "true");
    reply_bytes(req, found->status, found->content_type, found->body.data, found->body.len);
}

static void begun(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct idem *idem = arg;
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
        return;
    }
    switch (idem->state) {
    case STORE_IDEM_NEW:
        idem->stage = IDEM_WORKING;
        if (!request_is_over(req)) {
            req->endpoint->handle(req);
        }
        break;
    case STORE_IDEM_RUNNING:
        reply_header(req, "x-should-retry", "true");
        reply_problem(req, 409, "idempotency_running", NULL,
                      "a request with this Idempotency-Key is at work; ask again for its answer");
        break;
    case STORE_IDEM_DONE:
        replay(req, &idem->found);
        break;
    case STORE_IDEM_LOST:
        reply_problem(req, 409, "idempotency_answer_lost", NULL,
                      "a request with this Idempotency-Key was carried out, but the server stopped "
                      "before its answer was kept: look for what it made");
        break;
    case STORE_IDEM_DIFFERS:
        reply_problem(req, 422, "idempotency_key_reused", NULL,
                      "this Idempotency-Key was used for a request with another method, path or "
                      "body; take a new key for a new request");
        break;
    }
}

void idem_run(struct request *req)
{
    struct idem *idem = req->idem;
    unsigned char hash[crypto_hash_sha256_BYTES];
    if (idem == NULL) {
        req->endpoint->handle(req);
        return;
    }
    crypto_hash_sha256_final(&idem->digest, hash);
    sodium_bin2hex(idem->hash, sizeof idem->hash, hash, sizeof hash);
    idem->stage = IDEM_ASKED;
    request_store(req, begin, false, begun, idem);
}

/* ---- mark ------------------------------------------------------------------------------------- */

bool idem_works(const struct request *req)
{
    return req->idem != NULL && req->idem->stage == IDEM_WORKING;
}

/* Without its mark the work is still done and its answer will be kept: not worth failing for. */
void idem_mark(const struct request *req, store *s)
{
    store_error err;
    if (store_idem_mark(s, req->idem->tenant, req->idem->key, &err) != STORE_OK) {
        log_event(LOG_WARN, "idempotency_mark_lost", "%s: %s", req->id, err.text);
    }
}

/* ---- finish ----------------------------------------------------------------------------------- */

void idem_keep(struct request *req, int status, const char *content_type, const void *data,
               size_t len)
{
    struct idem *idem = req->idem;
    if (!idem_works(req) || idem->kept) {
        return;
    }
    idem->kept = true;
    if (status < 200 || status >= 300) {
        return;
    }
    idem->body = malloc(len + 1);
    idem->content_type = strdup(content_type != NULL ? content_type : "");
    if (idem->body != NULL && idem->content_type != NULL) {
        memcpy(idem->body, len > 0 ? data : "", len);
        idem->answer = (store_reply){status, idem->content_type, {idem->body, len}};
    }
}

/* An answer that cannot be kept (out of memory) leaves the mark: the work is not repeated. */
static store_status finish(store *s, void *arg, store_error *err)
{
    const struct idem *idem = arg;
    return idem->answer.status != 0
               ? store_idem_finish(s, idem->tenant, idem->key, &idem->answer, err)
               : store_idem_drop(s, idem->tenant, idem->key, err);
}

static void finished(struct request *req, store_status status, const store_error *err, void *arg)
{
    (void)arg;
    if (status != STORE_OK) {
        log_event(LOG_WARN, "idempotency_answer_lost", "%s: %s", req->id, err->text);
    }
}

bool idem_settle(struct request *req)
{
    if (!idem_works(req) || req->http->stopping) {
        return false; /* stopping: the store thread may have ended */
    }
    req->idem->stage = IDEM_SETTLING;
    return request_store_last(req, finish, finished, req->idem);
}
