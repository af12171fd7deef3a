/* http.c: the listener. libmicrohttpd without threads of its own, driven by the uv loop.
 *
 * uv watches libmicrohttpd's epoll descriptor. After every MHD_run a timer is set from
 * MHD_get_timeout: its inner sockets are edge triggered, and a timeout of 0 means that data is still
 * buffered. Version 0.9.75 does not wake its own epoll when a connection is resumed, nor when a slot of
 * the connection limit comes free, so both are followed by a kick: run again as soon as the present
 * callbacks have returned. MHD_run is never called from inside one of its own callbacks.
 *
 * libmicrohttpd's timeout restarts with every byte, so deadlines are ours. A sweep shuts down (never
 * closes) the sockets that overran one; libmicrohttpd then sees the end and cleans up. Suspended
 * connections are out of its sight altogether: the sweep asks the kernel whether their clients are
 * still there. A client that has closed its sending half counts as gone once its request is parked.
 *
 * Stopping with a suspended connection aborts the process: http_stop answers all of them first.
 */
#include "server/http_internal.h"
#include "server/log.h"
#include "server/stats.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SWEEP_MS     200
#define STUCK_SWEEPS 5
#define RATE_AFTER   5000 /* ms before a body must keep its rate */

/* ---- running libmicrohttpd ---------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer);
static void on_soon(uv_idle_t *soon);

/* In the next turn of the loop. Not a timer of 0 ms: libuv 1.44 runs one that is set again in its own
 * callback for ever, and nothing else any more. */
static void run_soon(struct http *http)
{
    uv_timer_stop(&http->timer);
    uv_idle_start(&http->soon, on_soon);
}

static void run_daemon(struct http *http)
{
    unsigned long long ms = 0;
    http->inside = true;
    http->again = false;
    MHD_run(http->daemon);
    http->inside = false;
    uv_idle_stop(&http->soon);
    bool waits = MHD_get_timeout(http->daemon, &ms) == MHD_YES;
    if (http->again || (waits && ms == 0)) {
        run_soon(http);
    } else if (waits) {
        uv_timer_start(&http->timer, on_timer, ms, 0);
    } else {
        uv_timer_stop(&http->timer);
    }
}

static void on_soon(uv_idle_t *soon)
{
    run_daemon(soon->data);
}

static void on_timer(uv_timer_t *timer)
{
    run_daemon(timer->data);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    run_daemon(poll->data);
}

void http_kick(struct http *http)
{
    if (http->inside) {
        http->again = true;
    } else if (http->handles_open) {
        run_soon(http);
    }
}

/* ---- callbacks of libmicrohttpd ------------------------------------------------------------------------ */

static struct conn *conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info != NULL ? info->socket_context : NULL;
}

static void conn_open(struct http *http, struct MHD_Connection *mhd, void **context)
{
    struct conn *conn = calloc(1, sizeof *conn);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    *context = conn;
    if (conn == NULL || info == NULL) {
        return;
    }
    conn->mhd = mhd;
    conn->fd = info->connect_fd;
    info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    conn->counted = info != NULL && address_of(info->client_addr, &conn->peer) &&
                    peers_connected(http->peers, &conn->peer);
    conn->idle_since = clock_ms();
    conn->deadline = conn->idle_since + http->server->config->headers_timeout;
    conn->next = http->conns;
    if (conn->next != NULL) {
        conn->next->link = &conn->next;
    }
    conn->link = &http->conns;
    http->conns = conn;
    http->n_conns++;
}

static void write_access_line(const struct request *req, int64_t us)
{
    struct log_line line;
    char from[ADDRESS_TEXT];
    if (!req->http->server->config->access_log && req->status < 500) {
        return;
    }
    address_print(&req->client, from);
    /* Probes and scrapers ask every few seconds. */
    bool probe = req->endpoint != NULL && req->endpoint->scopes == 0 && req->status < 400;
    log_begin(&line, probe ? LOG_DEBUG : LOG_INFO, "request");
    log_text(&line, "id", req->id);
    log_text(&line, "method", req->head ? "HEAD" : req->method);
    log_text(&line, "path", req->path);
    log_number(&line, "status", req->status);
    log_text(&line, "from", from);
    log_text(&line, "tenant", req->who.tenant != NULL ? req->who.tenant->name : NULL);
    log_text(&line, "key", req->who.tenant != NULL ? req->who.key_id : NULL);
    if (req->trace[0] != '\0') {
        char trace[TRACE_ID_CHARS + 1];
        snprintf(trace, sizeof trace, "%s", req->trace + 3);
        log_text(&line, "trace", trace);
    }
    log_real(&line, "ms", (double)us / 1000);
    log_number(&line, "in", (int64_t)req->body_seen);
    log_number(&line, "out", (int64_t)req->reply_bytes);
    log_end(&line);
}

static void exchange_over(struct request *req)
{
    if (!req->replied) {
        req->status = 499; /* gone before an answer; nginx's number for it */
    }
    write_access_line(req, clock_us() - req->started_us);
    http_count(req);
    request_detach(req);
}

static void conn_close(struct http *http, struct conn *conn)
{
    if (conn == NULL) {
        return;
    }
    if (conn->req != NULL) {
        /* Version 1.0 does not tell of the end of every request that a reset cut off. */
        exchange_over(conn->req);
    }
    if (conn->link != NULL) {
        *conn->link = conn->next;
        if (conn->next != NULL) {
            conn->next->link = conn->link;
        }
        http->n_conns--;
    }
    if (conn->counted) {
        peers_gone(http->peers, &conn->peer);
    }
    free(conn);
}

/* Too many connections of one address are closed before a byte is read. */
static enum MHD_Result on_accept(void *cls, const struct sockaddr *from, socklen_t len)
{
    (void)len;
    struct http *http = cls;
    struct address peer;
    uint64_t most = http->server->config->max_connections_per_ip;
    if (most == 0 || !address_of(from, &peer) ||
        address_in(&peer, http->trusted, http->n_trusted) ||
        peers_connections(http->peers, &peer) < most) {
        return MHD_YES;
    }
    counter_add(&http->rejected[REJECT_ADDRESS], 1);
    return MHD_NO;
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *http = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        conn_open(http, mhd, context);
    } else {
        conn_close(http, *context);
        *context = NULL;
    }
    http_kick(http);
}

/* The request line has come: what is returned becomes the request's context. */
static void *on_target(void *cls, const char *target, struct MHD_Connection *mhd)
{
    struct http *http = cls;
    struct conn *conn = conn_of(mhd);
    if (conn == NULL || conn->req != NULL) {
        return NULL;
    }
    int64_t deadline = clock_ms() + http->server->config->headers_timeout;
    conn->deadline = deadline < conn->deadline ? deadline : conn->deadline;
    return request_new(http, conn, target);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **context)
{
    (void)cls;
    (void)mhd;
    struct request *req = *context;
    return req != NULL ? admit_call(req, url, method, version, upload, upload_size) : MHD_NO;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **context,
                         enum MHD_RequestTerminationCode code)
{
    (void)mhd;
    (void)code;
    struct http *http = cls;
    struct request *req = *context;
    *context = NULL;
    if (req == NULL) {
        return;
    }
    struct conn *conn = req->conn;
    exchange_over(req);
    if (conn != NULL) {
        conn->idle_since = clock_ms();
        conn->deadline = conn->idle_since + http->server->config->idle_timeout;
    }
}

static void on_library_log(void *cls, const char *format, va_list args)
{
    (void)cls;
    char text[256];
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\r\n")] = '\0';
    log_event(LOG_DEBUG, "http_library", "%s", text);
}

static void on_panic(void *cls, const char *file, unsigned line, const char *reason)
{
    (void)cls;
    log_event(LOG_ERROR, "http_library_panic", "%s:%u: %s", file, line,
              reason != NULL ? reason : "");
    log_close();
    abort();
}

/* ---- the sweep --------------------------------------------------------------------------------------------- */

static bool is_body_slow(const struct http *http, const struct request *req, int64_t now)
{
    int64_t ms = now - req->body_started;
    uint64_t rate = http->server->config->body_min_rate;
    return ms > RATE_AFTER && (uint64_t)req->body_seen * 1000 < rate * (uint64_t)ms;
}

/* The client has sent its last byte and we have read it. libmicrohttpd misses that when the end came
 * together with the last bytes. */
static bool is_input_over(const struct conn *conn)
{
    char byte;
    return recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* Bytes wait in the kernel, sweep after sweep, and none becomes body: libmicrohttpd 0.9.75 turns in
 * circles on a chunk's head that is larger than its buffer. */
static bool is_stuck(struct request *req, int fd)
{
    int unread = 0;
    bool moves = ioctl(fd, FIONREAD, &unread) != 0 || unread == 0 || req->swept != req->body_seen;
    req->swept = req->body_seen;
    req->still = moves ? 0 : req->still + 1;
    return req->still >= STUCK_SWEEPS;
}

static void sweep_conn(struct http *http, struct conn *conn, int64_t now)
{
    struct request *req = conn->req;
    bool late = now >= conn->deadline;
    if (req == NULL) {
        bool settled = now - conn->idle_since > 2 * SWEEP_MS;
        late = late || (settled && (http->quiesced || is_input_over(conn)));
    } else if (req->state == REQUEST_READING || req->state == REQUEST_SWALLOWING) {
        late = late || is_input_over(conn) || is_stuck(req, conn->fd) ||
               (req->has_body && is_body_slow(http, req, now));
    }
    if (!late || (req != NULL && req->suspended)) {
        return;
    }
    if (req != NULL) {
        counter_add(&http->rejected[REJECT_SLOW], 1);
    }
    shutdown(conn->fd, SHUT_RDWR);
    conn->deadline = INT64_MAX;
    http_kick(http);
}

static void give_up(struct request *req, int status, const char *code, const char *text)
{
    req->outside = true;
    reply_problem(req, status, code, NULL, "%s", text);
    req->outside = false;
    request_give_up(req);
}

static void sweep_parked(struct http *http, int64_t now)
{
    struct request *next = NULL;
    for (struct request *req = http->requests; req != NULL; req = next) {
        next = req->next;
        if (req->stream != NULL) {
            stream_sweep(req, now);
        }
        if (!req->suspended) {
            continue;
        }
        struct pollfd client = {.fd = req->conn->fd, .events = POLLRDHUP};
        if (now >= req->deadline) {
            req->outside = true;
            reply_late(req);
            req->outside = false;
            request_give_up(req);
        } else if (poll(&client, 1, 0) > 0 &&
                   (client.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) {
            shutdown(req->conn->fd, SHUT_RDWR);
            req->close_after = true;
            give_up(req, 499, "client_gone", "the client closed the connection");
        }
    }
}

static void on_sweep(uv_timer_t *timer)
{
    struct http *http = timer->data;
    int64_t now = clock_ms();
    for (struct conn *conn = http->conns; conn != NULL; conn = conn->next) {
        sweep_conn(http, conn, now);
    }
    sweep_parked(http, now);
    stats_tick(http->server);
}

/* ---- starting ------------------------------------------------------------------------------------------------ */

/* The socket is ours, so that errors name the address and port 0 works in every version. */
static int listen_socket(const struct sockaddr_storage *address, const char *text, char *why,
                         size_t size)
{
    socklen_t len =
        address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (const struct sockaddr *)address, len) != 0 || listen(fd, 1024) != 0) {
        snprintf(why, size, "cannot listen on %.64s: %s (setting listen)", text, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

static void write_url(struct http *http, int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    char host[64] = "?";
    const char *scheme = http->tls != NULL ? "https" : "http";
    memset(&address, 0, sizeof address);
    getsockname(fd, (struct sockaddr *)&address, &len);
    if (address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(http->url, sizeof http->url, "%s://[%s]:%u", scheme, host, ntohs(v6->sin6_port));
    } else {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(http->url, sizeof http->url, "%s://%s:%u", scheme, host, ntohs(v4->sin_port));
    }
}

/* Strict since 1.0, which would otherwise take bare line feeds and folded headers. Not before: 0.9.75
 * then refuses a request without Host itself, and sends that refusal twice; the gate sends it once. */
static struct MHD_Daemon *start_daemon(struct http *http, int fd)
{
    const struct config *config = http->server->config;
    struct MHD_OptionItem options[] = {
        {MHD_OPTION_EXTERNAL_LOGGER, (intptr_t)on_library_log, NULL},
        {MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)on_completed, http},
        {MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)on_connection, http},
        {MHD_OPTION_URI_LOG_CALLBACK, (intptr_t)on_target, http},
        {MHD_OPTION_CONNECTION_LIMIT, (intptr_t)config->max_connections, NULL},
        {MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)(config->idle_timeout / 1000 + 1), NULL},
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)config->connection_memory, NULL},
        {MHD_OPTION_LISTEN_SOCKET, (intptr_t)fd, NULL},
        {MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, NULL},
        {MHD_OPTION_STRICT_FOR_CLIENT, MHD_get_version()[0] != '0', NULL},
        {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem tls_options[] = {
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)TLS_PRIORITIES},
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(intptr_t)tls_retrieve},
        {MHD_OPTION_END, 0, NULL}};
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    if (http->tls != NULL) {
        flags |= MHD_USE_TLS;
    } else {
        tls_options[0].option = MHD_OPTION_END;
    }
    return MHD_start_daemon(flags, 0, on_accept, http, on_request, http, MHD_OPTION_ARRAY, options,
                            MHD_OPTION_ARRAY, tls_options, MHD_OPTION_END);
}

static bool open_handles(struct http *http)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    struct uv_loop_s *uv = loop_uv(http->server->loop);
    if (info == NULL || uv_poll_init(uv, &http->poll, info->epoll_fd) != 0) {
        return false;
    }
    uv_timer_init(uv, &http->timer);
    uv_timer_init(uv, &http->sweeper);
    uv_idle_init(uv, &http->soon);
    http->poll.data = http->timer.data = http->sweeper.data = http->soon.data = http;
    http->handles_open = true;
    uv_poll_start(&http->poll, UV_READABLE, on_readable);
    run_soon(http);
    uv_timer_start(&http->sweeper, on_sweep, SWEEP_MS, SWEEP_MS);
    return true;
}

/* Certificate, trusted proxies, addresses. False: `why`. */
static bool prepare(struct http *http, char *why, size_t size)
{
    const struct config *config = http->server->config;
    if (!address_networks(config->trusted_proxies, http->trusted, &http->n_trusted, why, size)) {
        return false;
    }
    http->peers = peers_new();
    if (http->peers == NULL) {
        snprintf(why, size, "out of memory");
        return false;
    }
    if (config->tls_certificate[0] != '\0') {
        http->tls = tls_new(config->tls_certificate, config->tls_key, why, size);
        return http->tls != NULL;
    }
    return true;
}

bool http_reload(struct server *server, const struct config *fresh, char *why, size_t size)
{
    struct http *http = server->http;
    struct network trusted[ADDRESS_MAX_NETWORKS];
    size_t n = 0;
    if (!address_networks(fresh->trusted_proxies, trusted, &n, why, size)) {
        return false;
    }
    if ((fresh->tls_certificate[0] != '\0') != (http->tls != NULL)) {
        snprintf(why, size, "TLS is turned on or off by a restart (setting tls_certificate)");
        return false;
    }
    if (http->tls != NULL &&
        !tls_reload(http->tls, fresh->tls_certificate, fresh->tls_key, why, size)) {
        return false;
    }
    memcpy(http->trusted, trusted, sizeof trusted);
    http->n_trusted = n;
    return true;
}

bool http_start(struct server *server, char *why, size_t size)
{
    struct sockaddr_storage address;
    if (!address_listen(server->config->listen, &address, why, size)) {
        return false;
    }
    struct http *http = calloc(1, sizeof *http);
    int fd = listen_socket(&address, server->config->listen, why, size);
    if (http == NULL || fd < 0) {
        free(http);
        if (fd >= 0) {
            close(fd);
        }
        return false;
    }
    server->http = http;
    http->server = server;
    if (!prepare(http, why, size)) {
        close(fd);
        http_stop(server);
        return false;
    }
    write_url(http, fd);
    MHD_set_panic_func(on_panic, NULL);
    http->daemon = http_counters_new(http) ? start_daemon(http, fd) : NULL;
    if (http->daemon == NULL) {
        snprintf(why, size, "libmicrohttpd did not start: out of memory or descriptors");
        close(fd);
        http_stop(server);
        return false;
    }
    if (!open_handles(http)) {
        snprintf(why, size, "libuv did not take the listener: out of descriptors");
        http_stop(server);
        return false;
    }
    metrics_section(server->metrics, http_write_metrics, http);
    return true;
}

const char *http_url(const struct http *http)
{
    return http->url;
}

const char *http_library(void)
{
    static char text[64];
    snprintf(text, sizeof text, "libmicrohttpd %s", MHD_get_version());
    return text;
}

void http_get_stats(const struct http *http, struct http_stats *stats)
{
    stats->connections = http->n_conns;
    stats->requests = http->n_requests;
    stats->parked = http->n_parked;
    stats->streams = http->n_streams;
}

/* ---- stopping ------------------------------------------------------------------------------------------------ */

void http_drain(struct server *server)
{
    struct http *http = server->http;
    if (http->quiesced) {
        return;
    }
    http->quiesced = true;
    int fd = MHD_quiesce_daemon(http->daemon);
    if (fd >= 0) {
        close(fd);
    }
    for (struct request *req = http->requests; req != NULL; req = req->next) {
        if (req->stream != NULL) {
            stream_end(req); /* its client comes back with the last id it has seen */
        }
    }
    http_kick(http);
}

bool http_idle(struct server *server)
{
    return server->http->n_conns == 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http *http = handle->data;
    http->handles_closing--;
}

static void close_handles(struct http *http)
{
    uv_handle_t *handles[] = {(uv_handle_t *)&http->poll, (uv_handle_t *)&http->timer,
                              (uv_handle_t *)&http->sweeper, (uv_handle_t *)&http->soon};
    http->handles_open = false;
    for (size_t i = 0; i < sizeof handles / sizeof handles[0]; i++) {
        http->handles_closing++;
        uv_close(handles[i], on_handle_closed);
    }
    while (http->handles_closing > 0) {
        uv_run(loop_uv(http->server->loop), UV_RUN_ONCE);
    }
}

/* Answers what is parked and lets libmicrohttpd take note of it. */
static void release_parked(struct http *http)
{
    struct request *next = NULL;
    for (struct request *req = http->requests; req != NULL; req = next) {
        next = req->next;
        if (req->stream != NULL) {
            stream_end(req);
        }
        if (req->suspended) {
            give_up(req, 503, "stopping", "the server stopped before the answer was ready");
        }
    }
    for (int i = 0; i < 3; i++) {
        MHD_run(http->daemon);
    }
}

void http_stop(struct server *server)
{
    struct http *http = server->http;
    if (http == NULL) {
        return;
    }
    http->stopping = true;
    if (http->handles_open) {
        close_handles(http);
    }
    if (http->daemon != NULL) {
        release_parked(http);
        MHD_stop_daemon(http->daemon);
        http->daemon = NULL;
    }
}

void http_free(struct http *http)
{
    if (http != NULL) {
        free(http->durations);
        free(http->answers);
        tls_free(http->tls);
        peers_free(http->peers);
        free(http);
    }
}
