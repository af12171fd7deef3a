/* jobstream.c: who watches which job, and how its events reach them.
 *
 *     a commit ─ changed() ─→ channel of the job: dirty ─→ one read by a worker ─→ its watchers
 *
 * A channel is a job somebody watches. However many watch, a change is read once: from the event that
 * the least advanced of those with room has seen. Each watcher knows the number of the last event it was
 * given, takes what comes behind it, and stops where its buffer is full; when that drains, it asks for
 * a read from there; a read writes no more text than a buffer takes. So nothing is lost, nothing is kept for the slow, and a client that comes back
 * with the last id it saw is served by the same path. The worker also writes the events as text.
 *
 * A read looks at the job's status before it looks at its events: when the job had ended and the page
 * was the last one, its readers have everything, and the stream ends with [DONE].
 */
#include "server/jobstream.h"

#include "server/auth.h"
#include "server/config.h"
#include "server/jobs_internal.h"
#include "server/jobview.h"
#include "server/log.h"
#include "server/workers.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 100 /* events of a read */

/* One stream. */
struct watcher {
    struct channel *channel;
    struct request *req;
    int64_t seen;  /* number of the last event written */
    bool full;     /* the last write did not fit: room() will tell */
    bool finished; /* [DONE] is written */
    struct watcher *next, **link;
};

struct piece {
    int64_t seq;
    char *text;
    size_t len;
};

struct channel {
    struct job_streams *streams;
    int64_t tenant;
    char job[JOB_MAX_ID];
    struct watcher *watchers;
    bool reading;
    bool dirty; /* under streams->lock */
    struct channel *next;

    /* of the read that is out */
    struct worker_job work;
    int64_t after;
    store_status status;
    bool ended, has_more;
    struct piece pieces[PAGE];
    size_t n;
};

struct job_streams {
    struct server *server;
    struct counter events;

    pthread_mutex_t lock; /* covers the list (changed by the loop alone) and the rest */
    struct channel *channels;
    bool posted;
    struct loop_task wake;
};

static void read_on(struct channel *channel);

/* ---- channels ------------------------------------------------------------------------------------ */

static bool take_dirty(struct channel *channel, bool dirty)
{
    pthread_mutex_lock(&channel->streams->lock);
    bool before = channel->dirty;
    channel->dirty = dirty;
    pthread_mutex_unlock(&channel->streams->lock);
    return before;
}

static struct channel *find_channel(struct job_streams *streams, int64_t tenant, const char *job)
{
    struct channel *channel = streams->channels;
    while (channel != NULL && (channel->tenant != tenant || strcmp(channel->job, job) != 0)) {
        channel = channel->next;
    }
    return channel;
}

static struct channel *get_channel(struct job_streams *streams, int64_t tenant, const char *job)
{
    struct channel *channel = find_channel(streams, tenant, job);
    if (channel != NULL || strlen(job) >= sizeof channel->job) {
        return channel;
    }
    channel = calloc(1, sizeof *channel);
    if (channel != NULL) {
        channel->streams = streams;
        channel->tenant = tenant;
        snprintf(channel->job, sizeof channel->job, "%s", job);
        pthread_mutex_lock(&streams->lock);
        channel->next = streams->channels;
        streams->channels = channel;
        pthread_mutex_unlock(&streams->lock);
    }
    return channel;
}

/* Frees a channel that nobody watches and nothing reads for. */
static void drop_unused(struct channel *channel)
{
    struct job_streams *streams = channel->streams;
    if (channel->watchers != NULL || channel->reading) {
        return;
    }
    pthread_mutex_lock(&streams->lock);
    struct channel **link = &streams->channels;
    while (*link != channel) {
        link = &(*link)->next;
    }
    *link = channel->next;
    pthread_mutex_unlock(&streams->lock);
    free(channel);
}

/* ---- reading, on a worker -------------------------------------------------------------------------- */

static bool write_piece(struct piece *piece, const store_event *event)
{
    size_t len = 0;
    json_t *view = job_event_json(event);
    char *json = view != NULL ? json_text(view, &len) : NULL;
    char head[48];
    int head_len = snprintf(head, sizeof head, "id: %" PRId64 "\ndata: ", event->seq);
    json_decref(view);
    piece->seq = event->seq;
    piece->len = (size_t)head_len + len + 2;
    piece->text = json != NULL ? malloc(piece->len) : NULL;
    if (piece->text != NULL) {
        memcpy(piece->text, head, (size_t)head_len);
        memcpy(piece->text + head_len, json, len); /* without line ends: JSON writes them \n */
        memcpy(piece->text + head_len + len, "\n\n", 2);
    }
    free(json);
    return piece->text != NULL;
}

static void read_page(void *arg, store *reader)
{
    struct channel *channel = arg;
    store_mem *mem = store_mem_new();
    store_job job;
    store_event *events = NULL;
    store_error err = {0};
    char after[24];
    size_t n = 0;
    snprintf(after, sizeof after, "%" PRId64, channel->after);
    store_page page = {.after = after, .limit = PAGE, .oldest_first = true};
    channel->n = 0;
    channel->status = mem == NULL || reader == NULL ? STORE_EBUSY : STORE_OK;
    if (channel->status == STORE_OK) {
        channel->status = store_job_get(reader, channel->tenant, channel->job, mem, &job, &err);
    }
    if (channel->status == STORE_OK) {
        channel->ended = store_job_finished(job.status);
        channel->status = store_event_list(reader, channel->tenant, channel->job, &page, mem,
                                           &events, &n, &channel->has_more, &err);
    }
    size_t bytes = 0, most = channel->streams->server->config->stream_buffer;
    for (size_t i = 0; channel->status == STORE_OK && i < n && bytes < most; i++) {
        if (write_piece(&channel->pieces[i], &events[i])) {
            bytes += channel->pieces[i].len;
            channel->n++;
        } else {
            channel->status = STORE_ENOMEM;
        }
    }
    channel->has_more = channel->has_more || channel->n < n;
    store_mem_free(mem);
}

/* ---- what was read, on the loop ---------------------------------------------------------------------- */

static void give(struct channel *channel, struct watcher *watcher)
{
    for (size_t i = 0; i < channel->n && !watcher->full; i++) {
        const struct piece *piece = &channel->pieces[i];
        if (piece->seq <= watcher->seen) {
            continue;
        }
        if (stream_write(watcher->req, piece->text, piece->len)) {
            watcher->seen = piece->seq;
            counter_add(&channel->streams->events, 1);
        } else {
            watcher->full = true;
        }
    }
}

/* Everybody who was where the read began, or behind, has all that came. */
static void give_all(struct channel *channel)
{
    static const char done[] = "data: [DONE]\n\n";
    for (struct watcher *watcher = channel->watchers; watcher != NULL; watcher = watcher->next) {
        if (watcher->seen < channel->after || watcher->finished) {
            continue; /* it had no room when the read began */
        }
        give(channel, watcher);
        if (channel->ended && !channel->has_more && !watcher->full) {
            watcher->full = !stream_write(watcher->req, done, sizeof done - 1);
            watcher->finished = !watcher->full;
        }
        if (watcher->finished) {
            stream_end(watcher->req);
        }
    }
}

static void page_read(void *arg)
{
    struct channel *channel = arg;
    bool failed = channel->status != STORE_OK;
    channel->reading = false;
    if (channel->status == STORE_ENOTFOUND) {
        for (struct watcher *w = channel->watchers; w != NULL; w = w->next) {
            stream_end(w->req); /* retention took the job away */
        }
    } else if (!failed) {
        give_all(channel);
    } else {
        take_dirty(channel, true); /* a later tick tries again */
    }
    for (size_t i = 0; i < channel->n; i++) {
        free(channel->pieces[i].text);
    }
    channel->n = 0;
    if (!failed && channel->has_more) {
        take_dirty(channel, true);
    }
    if (!failed) {
        read_on(channel);
    }
    drop_unused(channel);
}

/* Starts a read when one is wanted, none is out and somebody has room. */
static void read_on(struct channel *channel)
{
    int64_t least = INT64_MAX;
    for (const struct watcher *w = channel->watchers; w != NULL; w = w->next) {
        if (!w->full && !w->finished && w->seen < least) {
            least = w->seen;
        }
    }
    if (channel->reading || least == INT64_MAX || !take_dirty(channel, false)) {
        return;
    }
    channel->after = least;
    channel->work = (struct worker_job){.run = read_page, .done = page_read, .arg = channel};
    channel->reading = workers_submit(channel->streams->server->workers, &channel->work);
    if (!channel->reading) {
        take_dirty(channel, true); /* the workers are busy: a later change or tick tries again */
    }
}

static void want_read(struct channel *channel)
{
    take_dirty(channel, true);
    read_on(channel);
}

/* ---- changes, from any thread -------------------------------------------------------------------------- */

static void on_wake(void *arg)
{
    struct job_streams *streams = arg;
    pthread_mutex_lock(&streams->lock);
    streams->posted = false;
    pthread_mutex_unlock(&streams->lock);
    for (struct channel *channel = streams->channels; channel != NULL; channel = channel->next) {
        read_on(channel);
    }
}

void job_streams_changed(struct job_streams *streams, const char *job)
{
    pthread_mutex_lock(&streams->lock);
    bool watched = false;
    for (struct channel *channel = streams->channels; channel != NULL; channel = channel->next) {
        if (strcmp(channel->job, job) == 0) {
            channel->dirty = watched = true;
        }
    }
    if (watched && !streams->posted) {
        streams->posted = true;
        streams->wake = (struct loop_task){.run = on_wake, .arg = streams};
        loop_post(streams->server->loop, &streams->wake);
    }
    pthread_mutex_unlock(&streams->lock);
}

/* ---- one stream ------------------------------------------------------------------------------------------ */

static void on_room(void *arg)
{
    struct watcher *watcher = arg;
    if (watcher->full) {
        watcher->full = false;
        want_read(watcher->channel);
    }
}

/* A key may have been revoked, or have expired, since the stream began. */
static bool may_still_read(const struct watcher *watcher)
{
    struct auth_identity who;
    const char *key = request_header(watcher->req, "Authorization");
    if (auth_check(request_server(watcher->req)->auth, key, wall_ms(), &who) != NULL) {
        return false;
    }
    auth_leave(&who);
    return true;
}

static void on_tick(void *arg)
{
    static const char ping[] = ": ping\n\n";
    struct watcher *watcher = arg;
    if (!may_still_read(watcher)) {
        stream_end(watcher->req);
        return;
    }
    stream_write(watcher->req, ping, sizeof ping - 1);
    read_on(watcher->channel); /* only what is known to be dirty */
}

static void on_closed(void *arg)
{
    struct watcher *watcher = arg;
    struct channel *channel = watcher->channel;
    *watcher->link = watcher->next;
    if (watcher->next != NULL) {
        watcher->next->link = watcher->link;
    }
    free(watcher);
    drop_unused(channel);
}

static const struct stream_source source = {.room = on_room, .tick = on_tick, .closed = on_closed};

void job_stream_begin(struct request *req, const char *job, int64_t after)
{
    struct job_streams *streams = request_server(req)->job_streams;
    struct channel *channel = get_channel(streams, request_tenant(req), job);
    struct watcher *watcher = channel != NULL ? calloc(1, sizeof *watcher) : NULL;
    if (watcher == NULL) {
        reply_no_memory(req);
    } else if (reply_stream(req, "text/event-stream", &source, watcher)) {
        *watcher = (struct watcher){.channel = channel,
                                    .req = req,
                                    .seen = after,
                                    .next = channel->watchers,
                                    .link = &channel->watchers};
        if (watcher->next != NULL) {
            watcher->next->link = &watcher->next;
        }
        channel->watchers = watcher;
        want_read(channel);
        return;
    }
    free(watcher);
    if (channel != NULL) {
        drop_unused(channel);
    }
}

/* ---- all of them -------------------------------------------------------------------------------------------- */

struct job_streams *job_streams_new(struct server *server)
{
    struct job_streams *streams = calloc(1, sizeof *streams);
    if (streams != NULL) {
        streams->server = server;
        pthread_mutex_init(&streams->lock, NULL);
    }
    return streams;
}

void job_streams_free(struct job_streams *streams)
{
    if (streams == NULL) {
        return;
    }
    while (streams->channels != NULL) {
        struct channel *next = streams->channels->next;
        free(streams->channels);
        streams->channels = next;
    }
    pthread_mutex_destroy(&streams->lock);
    free(streams);
}

uint64_t job_streams_events(const struct job_streams *streams)
{
    return counter_value(&streams->events);
}
