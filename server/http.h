/* http.h: requests and replies.
 *
 * A request is a small state machine: reading → admitted → parked → replying → done. The loop thread
 * reads it, checks it (gate, route in the table of endpoints, key and scope, body limit, JSON) and
 * calls the endpoint's handler. The handler replies at once, or parks the request, gives work to
 * another thread, and replies when a completion comes back to the loop.
 *
 * Threads.   Everything here belongs to the loop thread, but request_resume (any thread). While a
 *            request is parked the thread that works for it may read what it was given (the arena,
 *            the JSON body) but calls nothing else here.
 * Lifetime.  A request lives until its answer has been sent (or its client has gone) and no work is
 *            out for it. So a completion always finds its request alive; when the deadline passed or
 *            the client went away meanwhile, request_is_over() is true and replies do nothing.
 *            Every string and block from an accessor lives as long as the request.
 */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include "server/json.h"
#include "server/quota.h"
#include "server/server.h"
#include "server/storeq.h"

#include <jansson.h>
#include <stdarg.h>
#include <stddef.h>

struct request;

/* ---- what was asked -------------------------------------------------------------------------- */

struct server *request_server(const struct request *req);
const char *request_id(const struct request *req);     /* x-request-id */
const char *request_method(const struct request *req); /* "GET" also for HEAD */
const char *request_path(const struct request *req);   /* raw, without the query */
/* Part {name} of the pattern, percent-decoded, checked UTF-8 without control bytes. Never NULL for a
 * name of the endpoint's pattern. */
const char *request_param(const struct request *req, const char *name);
/* Query parameter, decoded; NULL when absent; given twice: the request was refused before. */
const char *request_query(const struct request *req, const char *name);
/* The i-th query parameter, for patterns such as metadata[k]=v. False past the last. */
bool request_query_at(const struct request *req, size_t i, const char **name, const char **value);
/* Query parameter as a whole number; absent: *out = fallback. False: replied 422 already. */
bool request_query_u64(struct request *req, const char *name, uint64_t min, uint64_t max,
                       uint64_t fallback, uint64_t *out);
const char *request_header(const struct request *req, const char *name); /* NULL when absent */
/* BODY_JSON: the body, an object, borrowed (NULL when it was empty and the endpoint allows that). */
json_t *request_json(const struct request *req);
/* BODY_RAW: the body's bytes. */
const char *request_body(const struct request *req, size_t *len);

/* BODY_STREAM: counts to what an Idempotency-Key stands for. The endpoint passes what its body means and
 * leaves out what changes from one sending to the next (boundaries). */
void request_digest(struct request *req, const void *bytes, size_t len);

/* Who asks. Public endpoints: tenant 0, no scopes. */
int64_t request_tenant(const struct request *req);
const char *request_tenant_name(const struct request *req);
double request_weight(const struct request *req); /* the tenant's share of service, 1 by default */
/* The tenant's limit; 0: none. Whoever finds it exceeded replies with reply_quota. */
uint64_t request_quota(const struct request *req, enum quota_kind kind);
/* As quota_json (quota.h), for the tenant or the key of the request. */
json_t *request_quotas_json(const struct request *req, bool key, const int64_t counts[QUOTA_KINDS]);
/* Counts tokens that will be computed against the quotas. False: replied 429. What really was used is
 * settled once, also when the client has gone, and counted as usage with the inputs that were computed. */
bool request_take_tokens(struct request *req, uint64_t tokens);
void request_settle_tokens(struct request *req, uint64_t taken, uint64_t used, uint64_t inputs);
/* The task it asks, for the usage of tasks. */
void request_note_task(struct request *req, int64_t task);
const char *request_key_id(const struct request *req);
uint32_t request_scopes(const struct request *req); /* STORE_SCOPE_… */

int64_t request_started_us(const struct request *req); /* clock_us when its headers were read */

/* ---- memory ------------------------------------------------------------------------------------ */

/* From the request's arena, aligned to 16, freed with it. NULL: out of memory or over the setting
 * request_memory. Loop thread, or the one thread that works for the parked request. */
void *request_alloc(struct request *req, size_t size);
char *request_printf(struct request *req, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Counts `more` bytes that a BODY_STREAM endpoint keeps of its body to max_body_memory, until the
 * request ends. False: replied 503. */
bool request_reserve(struct request *req, size_t more);
/* One pointer of the handler's own; `release` (may be NULL) is called with it when the request ends. */
void request_set_data(struct request *req, void *data, void (*release)(void *data));
void *request_data(const struct request *req);

/* ---- replying: the first reply counts, later ones do nothing -------------------------------------- */

/* A header of the answer, before the reply. Copied. Names and values must be plain ASCII without
 * control bytes; others are dropped. */
void reply_header(struct request *req, const char *name, const char *value);
/* Takes `body` also when it fails or is NULL (out of memory: 503). */
void reply_json(struct request *req, int status, json_t *body);
/* The same, for an answer with a secret in `member`: a repeated request under its Idempotency-Key gets
 * null there. */
void reply_json_once(struct request *req, int status, json_t *body, const char *member);
/* Copies. */
void reply_bytes(struct request *req, int status, const char *content_type, const void *data,
                 size_t len);
/* Takes `data`; `release` is called with it when it has been sent. */
void reply_take(struct request *req, int status, const char *content_type, void *data, size_t len,
                void (*release)(void *data));
void reply_empty(struct request *req, int status);

/* problem+json, or the shape of OpenAI or the façades by path (errmap.h). `code` is a short word such
 * as "task_not_found"; `pointer` names the place ("#/inputs/3/text") or is NULL. The text names the
 * field, the limit, what was found and what to do. */
void reply_problem(struct request *req, int status, const char *code, const char *pointer,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));
/* 422 with everything wrong that was gathered (json.h). */
void reply_problems(struct request *req, const struct problems *problems);
/* The status of a failed engine or store call as HTTP. `pointer` as above, or NULL for err->field. */
void reply_eng_error(struct request *req, eng_status status, const eng_error *err,
                     const char *pointer);
void reply_store_error(struct request *req, store_status status, const store_error *err);
void reply_no_memory(struct request *req); /* 503 */
void reply_late(struct request *req);      /* 504: its deadline has passed */
/* How much is used of a quota that the database counts: the answer's headers show it. Before the reply. */
void reply_counted(struct request *req, enum quota_kind kind, uint64_t limit, uint64_t used);
/* 429 with Retry-After: a limit of the tenant or key itself. */
void reply_quota(struct request *req, const struct quota_excess *excess);
/* 503 with Retry-After: a queue named by its setting is full. */
void reply_full(struct request *req, const char *setting, uint64_t limit);

/* ---- streaming: an answer that lasts ------------------------------------------------------------------ */

/* What a stream tells its writer, on the loop. `room`: some of what was written has been sent. `tick`:
 * nothing was written for the setting event_ping. `closed`: the stream and its request are over; called
 * once, nothing else after it. */
struct stream_source {
    void (*room)(void *arg);
    void (*tick)(void *arg);
    void (*closed)(void *arg);
};
/* False: there are as many streams as settings allow; replied 503 or 429. */
bool request_may_stream(struct request *req);
/* Answers 200 and keeps the answer open. False: replied otherwise, `source` will not be called. */
bool reply_stream(struct request *req, const char *content_type, const struct stream_source *source,
                  void *arg);
/* Until `closed`. False: no room (setting stream_buffer), nothing was taken; an empty buffer takes
 * anything. */
bool stream_write(struct request *req, const char *data, size_t len);
/* Ends the answer once what was written has been sent. */
void stream_end(struct request *req);

/* ---- parking --------------------------------------------------------------------------------------- */

/* Parks the request before work is handed to another thread. `cancelled` (may be NULL) is called on
 * the loop when the deadline passes or the client goes away, so that work still waiting can be
 * dropped; the work must end with request_resume all the same, which cancelled() itself may call. */
void request_park(struct request *req, void (*cancelled)(struct request *req, void *arg),
                  void *arg);
/* Ends a park, from any thread, exactly once: `done` runs on the loop, always. It replies or parks
 * again; when it does neither, the request is answered 500. */
void request_resume(struct request *req, void (*done)(struct request *req, void *arg), void *arg);
/* True when the answer has been given already (deadline passed, client gone). */
bool request_is_over(const struct request *req);
/* Changes the time the whole request may take from now (default: setting request_timeout). What the
 * client asked for with X-Request-Timeout stays the bound when it is less. */
void request_set_deadline(struct request *req, int64_t ms);
int64_t request_deadline_us(const struct request *req); /* of clock_us */

/* Park, run `work` on a worker (with its read-only database handle, see workers.h), then `done` on
 * the loop. Workers busy: replied 503 and returns false, nothing will be called. */
bool request_offload(struct request *req, void (*work)(void *arg, store *reader),
                     void (*done)(struct request *req, void *arg), void *arg);
/* Park, run `run` on the store thread, then `done` on the loop after the commit. Full queue: replied
 * 503 and returns false. */
typedef void (*request_stored)(struct request *req, store_status status, const store_error *err,
                               void *arg);
bool request_store(struct request *req, storeq_fn run, bool alone, request_stored done, void *arg);

/* ---- the listener ------------------------------------------------------------------------------------ */

/* Binds and begins to serve. False: `why` says what. */
bool http_start(struct server *server, char *why, size_t size);
struct config;
/* Takes certificate and trusted proxies of new settings. False: `why`; nothing changed. */
bool http_reload(struct server *server, const struct config *fresh, char *why, size_t size);
const char *http_url(const struct http *http); /* "http://127.0.0.1:8080" with the real port */
void http_drain(struct server *server);        /* no new connections; answers close theirs */
bool http_idle(struct server *server);         /* no request and no connection is left */
void http_stop(struct server *server);         /* answers what is parked with 503 and closes all */
/* After the loop has run what was posted: requests whose work came back late are freed with it. */
void http_free(struct http *http);
const char *http_library(void); /* "libmicrohttpd 0.9.75" */

struct http_stats {
    size_t connections, requests, parked, streams;
};
void http_get_stats(const struct http *http, struct http_stats *stats);

#endif
