/* reply.c: answers. A reply is made at once, as a libmicrohttpd response that holds the bytes, and
 * sent when libmicrohttpd next calls for it (reply_send). The first reply counts: a completion that
 * comes after a deadline makes none.
 */
#include "server/cors.h"
#include "server/http_internal.h"
#include "server/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MS 1000 /* when nobody knows when there will be room */

static bool is_plain(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || (unsigned char)*text > 0x7E) {
            return false;
        }
    }
    return true;
}

void reply_header(struct request *req, const char *name, const char *value)
{
    if (req->replied || req->n_reply_headers == MAX_REPLY_HEADERS || !is_plain(name) ||
        !is_plain(value)) {
        return;
    }
    char *name_copy = request_printf(req, "%s", name);
    char *value_copy = request_printf(req, "%s", value);
    if (name_copy != NULL && value_copy != NULL) {
        req->reply_headers[req->n_reply_headers++] = (struct pair){name_copy, value_copy};
    }
}

/* Strings that outlive the request. Not through the arena, which the thread that works for a parked
 * request may be using when a deadline answers it from the loop. */
static void add_fixed_header(struct request *req, const char *name, const char *value)
{
    if (req->n_reply_headers < MAX_REPLY_HEADERS) {
        req->reply_headers[req->n_reply_headers++] = (struct pair){name, value};
    }
}

static bool has_header(const struct request *req, const char *name)
{
    for (size_t i = 0; i < req->n_reply_headers; i++) {
        if (strcmp(req->reply_headers[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* How much is left of the limits that hold for this request, if there are any. */
static void add_quota_headers(struct request *req)
{
    char policy[QUOTA_HEADER_SIZE], state[QUOTA_HEADER_SIZE];
    if (req->who.tenant == NULL) {
        return;
    }
    struct quota_party party = request_party(req);
    if (quota_headers(&party, &req->counted_quota, clock_us(), policy, state)) {
        MHD_add_response_header(req->response, "RateLimit-Policy", policy);
        MHD_add_response_header(req->response, "RateLimit", state);
    }
}

/* For pages of other origins (cors.h). */
static void add_cors(struct request *req)
{
    const char *list = req->http->server->config->cors_origins;
    if (list[0] == '\0') {
        return;
    }
    const char *allowed = cors_allow(list, request_header(req, "Origin"));
    MHD_add_response_header(req->response, "Vary", "Origin");
    if (allowed != NULL) {
        MHD_add_response_header(req->response, "Access-Control-Allow-Origin", allowed);
        MHD_add_response_header(req->response, "Access-Control-Expose-Headers",
                                CORS_ANSWER_HEADERS);
    }
}

/* What every answer says to a browser unless its endpoint said it already: an answer is no page. */
static void add_security(struct request *req)
{
    static const struct pair all[] = {
        {"Cache-Control", "no-store"},
        {"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"},
        {"Referrer-Policy", "no-referrer"},
        {"X-Frame-Options", "DENY"},
        {"Cross-Origin-Resource-Policy", "same-origin"}};
    MHD_add_response_header(req->response, "X-Content-Type-Options", "nosniff");
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (!has_header(req, all[i].name)) {
            MHD_add_response_header(req->response, all[i].name, all[i].value);
        }
    }
    if (req->http->tls != NULL) {
        MHD_add_response_header(req->response, "Strict-Transport-Security", "max-age=31536000");
    }
}

static void add_headers(struct request *req, const char *content_type)
{
    struct MHD_Response *response = req->response;
    if (content_type != NULL) {
        MHD_add_response_header(response, "Content-Type", content_type);
    }
    MHD_add_response_header(response, "x-request-id", req->id);
    if (req->trace[0] != '\0') {
        MHD_add_response_header(response, "traceparent", req->trace);
    }
    add_security(req);
    add_cors(req);
    bool says_retry = has_header(req, "x-should-retry");
    if (!says_retry && req->status >= 400 && !status_is_passing(req->status)) {
        MHD_add_response_header(response, "x-should-retry", "false");
    }
    add_quota_headers(req);
    for (size_t i = 0; i < req->n_reply_headers; i++) {
        MHD_add_response_header(response, req->reply_headers[i].name, req->reply_headers[i].value);
    }
}

void reply_with(struct request *req, int status, const char *content_type,
                struct MHD_Response *response)
{
    req->replied = true;
    req->status = status;
    req->response = response;
    req->answered_us = clock_us();
    add_headers(req, content_type);
}

/* Takes `data` when release is not NULL, else copies. */
static void make_reply(struct request *req, int status, const char *content_type, void *data,
                       size_t len, void (*release)(void *data))
{
    if (!req->outside) {
        idem_keep(req, status, content_type, data, len);
    }
    if (req->replied || req->conn == NULL) {
        if (release != NULL) {
            release(data);
        }
        return;
    }
    req->replied = true;
    req->status = status;
    req->reply_bytes = len;
    if (release != NULL) {
        req->response = MHD_create_response_from_buffer_with_free_callback(len, data, release);
    } else {
        req->response = MHD_create_response_from_buffer(len, len > 0 ? data : (void *)"",
                                                        MHD_RESPMEM_MUST_COPY);
    }
    if (req->response == NULL) {
        /* Out of memory even for this: reply_send closes the connection. */
        if (release != NULL) {
            release(data);
        }
        return;
    }
    add_headers(req, content_type);
}

enum MHD_Result reply_send(struct request *req)
{
    if (req->response == NULL) {
        return MHD_NO;
    }
    struct server *server = req->http->server;
    if (req->close_after || server->draining) {
        MHD_add_response_header(req->response, "Connection", "close");
    }
    req->state = REQUEST_REPLYING;
    req->conn->deadline = clock_ms() + server->config->reply_timeout;
    return MHD_queue_response(req->conn->mhd, (unsigned)req->status, req->response);
}

void reply_bytes(struct request *req, int status, const char *content_type, const void *data,
                 size_t len)
{
    make_reply(req, status, content_type, (void *)data, len, NULL);
}

void reply_take(struct request *req, int status, const char *content_type, void *data, size_t len,
                void (*release)(void *data))
{
    make_reply(req, status, content_type, data, len, release);
}

void reply_empty(struct request *req, int status)
{
    make_reply(req, status, NULL, NULL, 0, NULL);
}

/* When to come back: what 429 and 503 carry. */
static void add_retry(struct request *req, int64_t ms)
{
    snprintf(req->retry_seconds, sizeof req->retry_seconds, "%" PRId64, (ms + 999) / 1000);
    snprintf(req->retry_ms, sizeof req->retry_ms, "%" PRId64, ms);
    add_fixed_header(req, "Retry-After", req->retry_seconds);
    add_fixed_header(req, "retry-after-ms", req->retry_ms);
}

static void reply_json_as(struct request *req, int status, const char *content_type, json_t *body)
{
    size_t len = 0;
    char *text = body != NULL ? json_text(body, &len) : NULL;
    json_decref(body);
    if (text != NULL) {
        make_reply(req, status, content_type, text, len, free);
        return;
    }
    if (status != 503 && status != 429) {
        add_retry(req, RETRY_MS);
    }
    static const char sorry[] = "{\"error\":\"out of memory\",\"status\":503}";
    make_reply(req, 503, "application/json", (void *)sorry, sizeof sorry - 1, NULL);
}

void reply_json(struct request *req, int status, json_t *body)
{
    reply_json_as(req, status, "application/json", body);
}

void reply_json_once(struct request *req, int status, json_t *body, const char *member)
{
    size_t len = 0;
    json_t *kept = json_copy(body);
    char *text = json_put(kept, member, json_null()) ? json_text(kept, &len) : NULL;
    if (text != NULL) {
        idem_keep(req, status, "application/json", text, len);
    }
    free(text);
    json_decref(kept);
    reply_json(req, status, body);
}

void reply_error(struct request *req, const struct error_view *view)
{
    if (req->replied) {
        return;
    }
    if (view->status == 503 || view->status == 429) {
        int64_t known = view->quota != NULL ? view->quota->wait_ms : view->retry_ms;
        add_retry(req, known > 0 ? known : RETRY_MS);
    }
    if (view->status == 401) {
        add_fixed_header(req, "WWW-Authenticate", "Bearer realm=\"mp2\"");
    }
    reply_json_as(req, view->status, error_content_type(req->api), error_body(req->api, view));
}

void reply_problem(struct request *req, int status, const char *code, const char *pointer,
                   const char *format, ...)
{
    char detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    /* A cut in the middle of a character would not be UTF-8, and jansson would refuse it. */
    size_t len = strlen(detail);
    while (len > 0 && len + 1 == sizeof detail && ((unsigned char)detail[len - 1] & 0x80) != 0) {
        detail[--len] = '\0';
        if (((unsigned char)detail[len] & 0xC0) == 0xC0) {
            break;
        }
    }
    reply_error(req, &(struct error_view){.status = status,
                                          .code = code,
                                          .detail = detail,
                                          .request_id = req->id,
                                          .pointer = pointer});
}

void reply_problems(struct request *req, const struct problems *problems)
{
    char detail[512];
    if (problems->count > 1) {
        snprintf(detail, sizeof detail, "%s (and %zu more)", problems->items[0].detail,
                 problems->count - 1);
    } else {
        snprintf(detail, sizeof detail, "%s", problems->items[0].detail);
    }
    reply_error(req, &(struct error_view){.status = 422,
                                          .code = "invalid",
                                          .detail = detail,
                                          .request_id = req->id,
                                          .problems = problems});
}

/* What a client is told of a fault of ours: that it happened, under the request id of the log. */
static void reply_fault(struct request *req, int status, const char *code, const char *what)
{
    struct log_line line;
    log_begin(&line, LOG_ERROR, "fault");
    log_text(&line, "id", req->id);
    log_text(&line, "code", code);
    log_text(&line, "text", what);
    log_end(&line);
    reply_problem(req, status, code, NULL, "the server could not do this: see its log for %s",
                  req->id);
}

void reply_eng_error(struct request *req, eng_status status, const eng_error *err,
                     const char *pointer)
{
    struct error_class class = error_of_engine(status);
    char own[128];
    if (class.status >= 500 && status != ENG_ENOMEM && status != ENG_ECANCELLED) {
        reply_fault(req, class.status, class.code, err->text);
        return;
    }
    if (pointer == NULL && err->field[0] != '\0') {
        snprintf(own, sizeof own, "#/%s", err->field);
        pointer = own;
    }
    reply_problem(req, class.status, class.code, pointer, "%s",
                  err->text[0] != '\0' ? err->text : eng_status_text(status));
}

void reply_store_error(struct request *req, store_status status, const store_error *err)
{
    struct error_class class = error_of_store(status);
    if (class.status >= 500) {
        reply_fault(req, class.status, class.code, err->text);
        return;
    }
    reply_problem(req, class.status, class.code, NULL, "%s",
                  err->text[0] != '\0' ? err->text : store_status_text(status));
}

void reply_no_memory(struct request *req)
{
    reply_problem(req, 503, "out_of_memory", NULL,
                  "out of memory, or the request needs more than the setting request_memory");
}

void reply_counted(struct request *req, enum quota_kind kind, uint64_t limit, uint64_t used)
{
    req->counted_quota = quota_counted(kind, limit, used, 0);
}

void reply_quota(struct request *req, const struct quota_excess *excess)
{
    if (excess->kind >= QUOTA_KEY_KINDS) {
        reply_counted(req, excess->kind, excess->limit, excess->used);
    }
    char detail[256], code[48];
    counter_add(&req->http->rejected[REJECT_QUOTA + excess->kind], 1);
    quota_explain(excess, detail, sizeof detail);
    snprintf(code, sizeof code, "quota_%s", quota_member(excess->kind));
    reply_error(
        req,
        &(struct error_view){
            .status = 429, .code = code, .detail = detail, .request_id = req->id, .quota = excess});
}

void reply_full(struct request *req, const char *setting, uint64_t limit)
{
    counter_add(&req->http->rejected[REJECT_FULL], 1);
    reply_problem(req, 503, "server_full", NULL,
                  "the server is full: %llu are waiting already (setting %s); try again later",
                  (unsigned long long)limit, setting);
}
