/* http_stream.c: answers that are written piece by piece for as long as they last.
 *
 * What is written goes into a small buffer of the stream. libmicrohttpd asks for bytes only when the
 * socket can take some, so a slow reader stops being fed by itself: its buffer stays full, its writer
 * waits for room() and keeps nothing in memory meanwhile. When the buffer is empty the connection is
 * suspended and costs nothing; a write resumes it. Suspended connections are out of libmicrohttpd's
 * sight, so the sweep looks whether the client is still there, and calls tick() every so often, whose
 * bytes keep proxies from closing a silent connection.
 *
 * A reader that takes no byte for reply_timeout is cut off by the sweep (http.c) like any other.
 */
#include "server/http_internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define KERNEL_BYTES 65536 /* of a stream's socket: what a slow reader may leave there */

struct stream {
    const struct stream_source *source;
    void *arg;
    char *buffer;
    size_t at, len, room; /* bytes at … at + len are to be sent */
    bool idle;            /* suspended: nothing to send */
    bool ended;           /* closes once the buffer has been sent */
    int64_t next_tick;
};

static size_t stream_limit(const struct request *req)
{
    return req->http->server->config->stream_buffer;
}

static void wake(struct request *req)
{
    struct stream *stream = req->stream;
    if (stream->idle) {
        stream->idle = false;
        req->conn->deadline = clock_ms() + req->http->server->config->reply_timeout;
        MHD_resume_connection(req->conn->mhd);
        http_kick(req->http);
    }
}

/* libmicrohttpd wants at most `most` bytes. */
static ssize_t read_stream(void *arg, uint64_t position, char *to, size_t most)
{
    (void)position;
    struct request *req = arg;
    struct stream *stream = req->stream;
    if (stream->len == 0 && stream->ended) {
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    if (stream->len == 0) {
        stream->idle = true;
        req->conn->deadline = INT64_MAX;
        MHD_suspend_connection(req->conn->mhd);
        return 0;
    }
    size_t n = stream->len < most ? stream->len : most;
    memcpy(to, stream->buffer + stream->at, n);
    stream->at += n;
    stream->len -= n;
    req->reply_bytes += n;
    req->conn->deadline = clock_ms() + req->http->server->config->reply_timeout;
    if (!stream->ended && stream->len <= stream_limit(req) / 2) {
        stream->source->room(stream->arg);
    }
    return (ssize_t)n;
}

static size_t streams_of_tenant(const struct request *req)
{
    size_t n = 0;
    for (const struct request *other = req->http->requests; other != NULL; other = other->next) {
        n += other->stream != NULL && other->who.tenant == req->who.tenant;
    }
    return n;
}

bool request_may_stream(struct request *req)
{
    const struct config *config = req->http->server->config;
    if (req->http->n_streams >= config->max_streams) {
        reply_full(req, "max_streams", config->max_streams);
        return false;
    }
    if (streams_of_tenant(req) >= config->max_tenant_streams) {
        counter_add(&req->http->rejected[REJECT_FULL], 1);
        reply_problem(req, 429, "too_many_streams", NULL,
                      "%llu streams of this tenant are open already (setting max_tenant_streams)",
                      (unsigned long long)config->max_tenant_streams);
        return false;
    }
    return true;
}

bool reply_stream(struct request *req, const char *content_type, const struct stream_source *source,
                  void *arg)
{
    if (req->replied || req->conn == NULL || !request_may_stream(req)) {
        return false;
    }
    struct stream *stream = calloc(1, sizeof *stream);
    struct MHD_Response *response =
        stream != NULL
            ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_stream, req, NULL)
            : NULL;
    if (response == NULL) {
        free(stream);
        reply_no_memory(req);
        return false;
    }
    int bytes = KERNEL_BYTES;
    setsockopt(req->conn->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    stream->source = source;
    stream->arg = arg;
    stream->next_tick = clock_ms() + req->http->server->config->event_ping;
    req->stream = stream;
    req->http->n_streams++;
    counter_add(&req->http->streams, 1);
    request_leave_inflight(req);
    reply_header(req, "X-Accel-Buffering", "no");
    reply_with(req, 200, content_type, response);
    return true;
}

bool stream_write(struct request *req, const char *data, size_t len)
{
    struct stream *stream = req->stream;
    if (stream->ended || (stream->len > 0 && stream->len + len > stream_limit(req))) {
        return false;
    }
    if (stream->at > 0) {
        memmove(stream->buffer, stream->buffer + stream->at, stream->len);
        stream->at = 0;
    }
    if (stream->len + len > stream->room) {
        char *buffer = realloc(stream->buffer, stream->len + len);
        if (buffer == NULL) {
            return false;
        }
        stream->buffer = buffer;
        stream->room = stream->len + len;
    }
    memcpy(stream->buffer + stream->len, data, len);
    stream->len += len;
    stream->next_tick = clock_ms() + req->http->server->config->event_ping;
    wake(req);
    return true;
}

void stream_end(struct request *req)
{
    req->stream->ended = true;
    wake(req);
}

/* Every few hundred milliseconds. */
void stream_sweep(struct request *req, int64_t now)
{
    struct stream *stream = req->stream;
    if (!stream->idle || stream->ended || req->conn == NULL) {
        return;
    }
    struct pollfd client = {.fd = req->conn->fd, .events = POLLRDHUP};
    if (poll(&client, 1, 0) > 0 && (client.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) {
        shutdown(req->conn->fd, SHUT_RDWR);
        stream_end(req);
    } else if (now >= stream->next_tick) {
        stream->next_tick = now + req->http->server->config->event_ping;
        stream->source->tick(stream->arg);
    }
}

/* The exchange is over. */
void stream_close(struct request *req)
{
    struct stream *stream = req->stream;
    if (stream != NULL) {
        req->http->n_streams--;
        req->stream = NULL;
        stream->source->closed(stream->arg);
        free(stream->buffer);
        free(stream);
    }
}
