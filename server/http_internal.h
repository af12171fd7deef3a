/* http_internal.h: what the files of the HTTP part share.
 *
 *   http.c          the listener: libmicrohttpd inside the uv loop, connections, deadlines, draining
 *   http_metrics.c  its numbers
 *   admit.c         from the first byte to the handler: gate, endpoint, key, limits, body, JSON
 *   request.c       a request's life: memory, accessors, parking
 *   reply.c         answers
 *   idem.c          Idempotency-Key: the same POST once
 *   http_stream.c   answers that last
 *
 * Threads. All of it belongs to the loop thread.
 */
#ifndef SERVER_HTTP_INTERNAL_H
#define SERVER_HTTP_INTERNAL_H

#include "server/address.h"
#include "server/auth.h"
#include "server/config.h"
#include "server/endpoints.h"
#include "server/errmap.h"
#include "server/http.h"
#include "server/loop.h"
#include "server/metrics.h"
#include "server/peers.h"
#include "server/tls.h"
#include "server/trace.h"
#include "server/usage.h"
#include "server/workers.h"

#include <microhttpd.h>
#include <uv.h>

/* Why a request was turned away, for mp2_rejected_total. The quotas are a tenant's or a key's own. */
enum reject {
    REJECT_GATE,
    REJECT_AUTH,
    REJECT_FULL,
    REJECT_DRAINING,
    REJECT_TOO_LARGE,
    REJECT_SLOW,
    REJECT_DEADLINE,
    REJECT_ADDRESS,
    REJECT_QUOTA,
    REJECT_REASONS = REJECT_QUOTA + QUOTA_KINDS
};

/* The allowed moves: NEW → READING → ADMITTED → (PARKED → ADMITTED)* → REPLYING → DONE;
 * READING → SWALLOWING when an error is known before the body has come, then → REPLYING. */
enum request_state {
    REQUEST_NEW,        /* the request line is there */
    REQUEST_READING,    /* the headers are accepted; the body comes */
    REQUEST_SWALLOWING, /* the answer is known; the rest of the body is read and dropped */
    REQUEST_ADMITTED,   /* the handler runs, or a completion of its work */
    REQUEST_PARKED,     /* suspended in libmicrohttpd; work is out */
    REQUEST_REPLYING,   /* handed to libmicrohttpd */
    REQUEST_DONE
};

/* One TCP connection. */
struct conn {
    struct MHD_Connection *mhd;
    int fd;
    int64_t deadline; /* clock_ms; what for depends on the request's state */
    int64_t idle_since;
    struct address peer;
    bool counted;        /* in http->peers */
    struct request *req; /* the one being read or answered, or NULL */
    struct conn *next, **link;
};

struct arena_block {
    struct arena_block *next;
    size_t used, room;
};

struct pair {
    const char *name, *value;
};

#define MAX_QUERY         32
#define MAX_REPLY_HEADERS 16

struct request {
    struct http *http;
    struct conn *conn; /* NULL once the exchange is over */
    enum request_state state;
    bool working;   /* work is out: request_resume will come */
    bool suspended; /* in libmicrohttpd */
    bool counted;   /* in http->inflight and its quotas */

    char id[65];
    const char *method;
    char version[12];
    char trace[TRACE_CHARS + 1]; /* traceparent of the answer; "" when the request had none */
    int64_t asked_ms;            /* X-Request-Timeout; 0: none */
    int64_t asked_task;          /* that it asks; 0: none, or one without a name */
    struct idem *idem;           /* NULL: no Idempotency-Key that counts */
    bool outside;                /* it is being answered over its handler's head */
    bool head;
    char *path;
    const char *query_raw;
    uintptr_t target_at; /* where libmicrohttpd keeps the target, and its length */
    size_t target_len;
    const struct endpoint *endpoint;
    enum api api;
    struct pair params[ENDPOINT_MAX_PARAMS];
    size_t n_params;
    struct pair query[MAX_QUERY];
    size_t n_query;
    struct auth_identity who;
    struct address client; /* the other end, or whom a trusted proxy names */

    struct arena_block *arena;
    size_t arena_total;

    char *body;
    size_t body_len, body_room, body_limit, body_seen;
    bool has_body, chunked;
    uint64_t body_declared;
    int64_t body_started;
    size_t swept; /* body_seen at the last sweep, and sweeps since it changed */
    unsigned still;
    json_t *json;
    char json_why[256];

    bool replied;
    bool close_after;
    int status;
    struct MHD_Response *response;
    size_t reply_bytes;
    struct stream *stream; /* of an answer that lasts, or NULL */
    int64_t answered_us;   /* clock_us when a lasting answer began; else 0 */
    struct pair reply_headers[MAX_REPLY_HEADERS];
    size_t n_reply_headers;
    char retry_seconds[24], retry_ms[24]; /* Retry-After of this answer */
    struct quota_excess counted_quota;    /* a counted quota to show in it; limit 0: none */

    void (*cancelled)(struct request *req, void *arg);
    void *cancelled_arg;
    void (*done)(struct request *req, void *arg);
    void *done_arg;
    struct loop_task task;
    int64_t deadline; /* of the whole request, clock_ms */
    struct worker_job job;
    void (*offload_work)(void *arg, store *reader);
    void (*offload_done)(struct request *req, void *arg);
    void *offload_arg;
    struct storeq_op op;
    storeq_fn op_run;
    request_stored op_done;
    void *op_arg;

    void *data;
    void (*release_data)(void *data);
    int64_t started_us;
    struct request *next, **link; /* in http->requests */
};

struct http {
    struct server *server;
    struct MHD_Daemon *daemon;
    char url[128];
    uv_poll_t poll;
    uv_timer_t timer; /* libmicrohttpd's */
    uv_timer_t sweeper;
    uv_idle_t soon; /* active: run libmicrohttpd in the next turn */
    bool handles_open;
    unsigned handles_closing;
    bool inside, again; /* in MHD_run; run it once more */
    bool quiesced, stopping;
    struct tls *tls; /* NULL: plain HTTP */
    struct peers *peers;
    struct network trusted[ADDRESS_MAX_NETWORKS];
    size_t n_trusted;

    struct conn *conns;
    struct request *requests;
    size_t n_conns, n_requests, n_parked, n_streams;
    size_t inflight;
    size_t body_bytes;

    struct histogram *durations; /* one an endpoint */
    struct counter *answers;     /* endpoints × statuses */
    struct counter rejected[REJECT_REASONS];
    struct counter streams; /* begun */
};

/* http.c */
void http_kick(struct http *http); /* run libmicrohttpd soon: after a resume, or a slot came free */

/* http_metrics.c */
bool http_counters_new(struct http *http); /* false: out of memory */
void http_count(struct request *req);
#define HTTP_CLASSES 4 /* 2xx, 3xx, 4xx, 5xx */
struct http_totals {
    uint64_t answers[HTTP_CLASSES];
    uint64_t rejected[REJECT_REASONS];
};
void http_get_totals(const struct http *http, struct http_totals *out);
void http_reject_name(size_t reason, char *text, size_t size);
void http_write_metrics(struct metrics_out *out, void *arg);

/* admit.c */
enum MHD_Result admit_call(struct request *req, const char *url, const char *method,
                           const char *version, const char *upload, size_t *upload_size);

/* request.c */
struct quota_party request_party(const struct request *req); /* of a request with a key */
struct request *request_new(struct http *http, struct conn *conn, const char *target);
/* The exchange is over: freed now, or when its work comes back. */
void request_detach(struct request *req);
/* Answers a parked request from outside its handler (deadline, client gone, shutdown). */
void request_give_up(struct request *req);
/* It is not at work any more, though its answer may still be on its way. */
void request_leave_inflight(struct request *req);
/* Suspends or queues what the handler left behind. */
enum MHD_Result request_settle(struct request *req);

/* As request_store, also when the queue is full: the end of what was begun. */
bool request_store_last(struct request *req, storeq_fn run, request_stored done, void *arg);

/* idem.c, in the order of a request's life */
struct idem;
bool idem_open(struct request *req); /* false: replied */
/* Calls the endpoint's handler, or answers as the key's first request was answered. */
void idem_run(struct request *req);
bool idem_works(const struct request *req); /* its handler's writes are to be marked */
void idem_mark(const struct request *req, store *s);
/* The handler answers. */
void idem_keep(struct request *req, int status, const char *content_type, const void *data,
               size_t len);
/* The work has ended: true when the request is parked again until the answer is stored. */
bool idem_settle(struct request *req);
void idem_close(struct request *req);

/* reply.c */
enum MHD_Result reply_send(struct request *req);
void reply_error(struct request *req, const struct error_view *view);
/* Takes `response`: the first reply, with the usual headers. */
void reply_with(struct request *req, int status, const char *content_type,
                struct MHD_Response *response);

/* http_stream.c */
void stream_sweep(struct request *req, int64_t now);
void stream_close(struct request *req);

#endif
