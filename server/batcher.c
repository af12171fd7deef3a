/* batcher.c: three threads and two fair queues between a request and its answer.
 *
 * Encoding (templates, WordPiece) and computing are separate stages, each with its own queue by tenant:
 * a tenant that sends long texts may not hold up another's at either. The encoder takes a few inputs of
 * the prediction that is due and hands them on; a lane takes sequences, tenant by tenant, until the token
 * budget is full, runs one forward pass, decodes, and hands out what became complete. There are two: the
 * shared lane takes everybody's; the express lane goes before a heavy tenant's batch with light ones'.
 * A sequence that does not fit waits aside for the next batch and is first there. The budget is never
 * below one sequence of full length.
 *
 * One lock covers the queues and the private part of every prediction inside. It is held to choose and to
 * account, never to encode, compute or call out. A prediction ends when nothing works on it any more
 * (`encoding`, `in_batch`) and either all is computed or it is `over` (cancelled, late, failed).
 */
#include "server/batcher_parts.h"

#include "server/fault.h"
#include "server/loop.h"
#include "server/prediction.h"
#include "server/slice.h"

#include <stdlib.h>
#include <string.h>

#define ENCODE_TURN 16 /* inputs encoded before the queue is asked again */

static struct prediction *from_encode(struct fair_item *item)
{
    return (struct prediction *)(void *)((char *)item - offsetof(struct prediction, encode_item));
}

static struct prediction *from_run(struct fair_item *item)
{
    return (struct prediction *)(void *)((char *)item - offsetof(struct prediction, run_item));
}

/* ---- endings (lock held, but call_done) ---------------------------------------------------- */

/* Stops further work on it; what already runs is waited for. */
static void end_early(struct prediction *p, enum prediction_end end)
{
    if (!p->over && !p->complete) {
        p->over = true;
        p->end = end;
    }
}

static void fail(struct prediction *p, const eng_error *err, size_t input)
{
    if (!p->over && !p->complete) {
        p->err = *err;
        p->failed_input = input;
        end_early(p, PREDICTION_FAILED);
    }
}

static bool is_late(const struct prediction *p, int64_t now)
{
    return p->deadline_us != 0 && now > p->deadline_us;
}

/* Takes a prediction that nothing more will happen to out of the batcher, onto *finished. */
static void settle(struct batcher *b, struct prediction *p, struct prediction **finished)
{
    if (p->complete || p->encoding || p->in_batch > 0 || !(p->over || p->computed == p->n)) {
        return;
    }
    p->complete = true;
    if (p->over) {
        b->stats.dropped += p->n - p->computed;
    } else {
        p->end = PREDICTION_DONE;
        p->queue_us = clock_us() - p->submitted_us - p->encode_us - p->infer_us;
        p->queue_us = p->queue_us > 0 ? p->queue_us : 0;
        b->stats.predictions++;
        histogram_add(&b->seen.encode_seconds, (double)p->encode_us * 1e-6);
        histogram_add(&b->seen.queue_seconds, (double)p->queue_us * 1e-6);
        histogram_add(&b->seen.infer_seconds, (double)p->infer_us * 1e-6);
    }
    fair_remove(&b->encode_queue, &p->encode_item);
    fair_remove(&b->run_queue, &p->run_item);
    fair_release(&b->encode_queue, (uint64_t)p->tenant, &p->load);
    p->next_done = *finished;
    *finished = p;
}

/* Without the lock. */
static void call_done(struct prediction *finished)
{
    while (finished != NULL) {
        struct prediction *p = finished;
        finished = p->next_done;
        prediction_free_work(p);
        if (p->end != PREDICTION_DONE) {
            prediction_fini(p);
        }
        p->done(p);
    }
}

/* ---- entering and leaving ------------------------------------------------------------------ */

/* Before encoding only the bytes are known: three make a token, beside some for the template. */
uint64_t batcher_estimate(const struct batcher *b, const struct prediction *p)
{
    uint64_t most = (uint64_t)p->n * eng_model_get_info(b->options.model)->positions;
    uint64_t likely = p->bytes / 3 + (uint64_t)p->n * 48;
    return likely < most ? likely : most;
}

enum fair_verdict batcher_submit(struct batcher *b, struct prediction *p)
{
    if (!prediction_alloc(p)) {
        return FAIR_NOMEM;
    }
    p->load = (struct fair_load){1, batcher_estimate(b, p), p->bytes};
    p->submitted_us = clock_us();
    p->failed_input = SIZE_MAX;
    pthread_mutex_lock(&b->lock);
    enum fair_verdict verdict =
        b->stopping ? FAIR_FULL : fair_admit(&b->encode_queue, (uint64_t)p->tenant, &p->load);
    if (verdict == FAIR_ADMITTED &&
        !fair_push(&b->encode_queue, (uint64_t)p->tenant, p->weight, &p->encode_item)) {
        fair_release(&b->encode_queue, (uint64_t)p->tenant, &p->load);
        verdict = FAIR_NOMEM;
    }
    if (verdict == FAIR_ADMITTED) {
        pthread_cond_signal(&b->encode_wanted);
    }
    pthread_mutex_unlock(&b->lock);
    if (verdict != FAIR_ADMITTED) {
        prediction_free_work(p);
        prediction_fini(p);
    }
    return verdict;
}

void batcher_cancel(struct batcher *b, struct prediction *p)
{
    struct prediction *finished = NULL;
    pthread_mutex_lock(&b->lock);
    end_early(p, PREDICTION_CANCELLED);
    settle(b, p, &finished);
    pthread_mutex_unlock(&b->lock);
    call_done(finished);
}

/* ---- the encoding thread ------------------------------------------------------------------- */

/* Up to ENCODE_TURN inputs more. Without the lock; p->encoding keeps others off. Returns how many; a
 * failure is in *err. */
static size_t encode_some(struct batcher *b, struct prediction *p, eng_error *err)
{
    int64_t began = clock_us();
    size_t first = p->encoded, n = 0; /* `encoded` changes on this thread only */
    err->status = ENG_OK;
    if (first == 0 && !prediction_prepare(p)) {
        *err = p->err; /* nothing of it is in a batch yet */
    }
    while (err->status == ENG_OK && n < ENCODE_TURN && first + n < p->n) {
        if (prediction_encode(p, first + n, b->options.max_tokens, err) == ENG_OK) {
            n++;
        }
    }
    p->encode_us += clock_us() - began;
    return n;
}

/* All it has inside fits into one batch of the express lane. */
static bool is_light(const struct batcher *b, const struct prediction *p)
{
    return fair_tokens(&b->encode_queue, (uint64_t)p->tenant) <= b->express.max_tokens;
}

/* The next sequence is of a light tenant, and the batch of the shared lane is one that may be interrupted:
 * it holds a heavy tenant's, and not as much has gone before it as it is long itself. */
static bool express_may_go(const struct batcher *b)
{
    struct fair_item *item = b->express_left > 0 ? fair_next(&b->run_queue) : NULL;
    return item != NULL && is_light(b, from_run(item));
}

/* With the lock: what was encoded is ready for a batch. */
static void hand_on(struct batcher *b, struct prediction *p, size_t n, const eng_error *err)
{
    bool prepared = p->task != NULL && p->mix != NULL;
    for (size_t i = p->encoded; i < p->encoded + n; i++) {
        histogram_add(&b->seen.input_tokens, (double)p->pieces[i].len);
    }
    double share = (double)p->bytes / (double)p->n;
    fair_charge(&b->encode_queue, &p->encode_item, (double)n * share + 1);
    p->encoded += n;
    p->encoding = false;
    if (err->status != ENG_OK) {
        fail(p, err, prepared ? p->encoded : p->failed_input);
    }
    if (p->over || p->encoded == p->n) {
        fair_remove(&b->encode_queue, &p->encode_item);
    }
    if (!p->over && p->run_item.tenant == NULL && p->taken < p->encoded) {
        if (!fair_push(&b->run_queue, (uint64_t)p->tenant, p->weight, &p->run_item)) {
            eng_error nomem;
            (void)fault_nomem(&nomem, "");
            fail(p, &nomem, SIZE_MAX);
        }
        pthread_cond_signal(express_may_go(b) ? &b->express.wanted : &b->shared.wanted);
    }
}

/* With the lock, released while encoding. */
static void encode_turn(struct batcher *b, struct prediction *p)
{
    struct prediction *finished = NULL;
    if (is_late(p, clock_us())) {
        end_early(p, PREDICTION_LATE);
    }
    if (!p->over) {
        p->encoding = true;
        pthread_mutex_unlock(&b->lock);
        eng_error err;
        size_t n = encode_some(b, p, &err);
        pthread_mutex_lock(&b->lock);
        hand_on(b, p, n, &err);
    } else {
        fair_remove(&b->encode_queue, &p->encode_item);
    }
    settle(b, p, &finished);
    if (finished != NULL) {
        pthread_mutex_unlock(&b->lock);
        call_done(finished);
        pthread_mutex_lock(&b->lock);
    }
}

/* Ends all that waits; what is in a batch ends with it. With the lock. */
static void stop_waiting(struct batcher *b, struct prediction **finished)
{
    struct fair_item *item;
    while ((item = fair_next(&b->encode_queue)) != NULL) {
        struct prediction *p = from_encode(item);
        end_early(p, PREDICTION_STOPPED);
        fair_remove(&b->encode_queue, item);
        settle(b, p, finished);
    }
    while ((item = fair_next(&b->run_queue)) != NULL) {
        struct prediction *p = from_run(item);
        end_early(p, PREDICTION_STOPPED);
        fair_remove(&b->run_queue, item);
        settle(b, p, finished);
    }
}

static void *encoder_main(void *arg)
{
    struct batcher *b = arg;
    struct prediction *finished = NULL;
    slice_brief();
    pthread_mutex_lock(&b->lock);
    while (!b->stopping) {
        struct fair_item *item = fair_next(&b->encode_queue);
        if (item == NULL) {
            pthread_cond_wait(&b->encode_wanted, &b->lock);
        } else {
            encode_turn(b, from_encode(item));
        }
    }
    stop_waiting(b, &finished);
    pthread_mutex_unlock(&b->lock);
    call_done(finished);
    return NULL;
}

/* ---- the batch thread ---------------------------------------------------------------------- */

/* Several tenants ask, or did a moment ago: a batch then has a fraction of the tokens, for what arrives
 * waits for the batch that is on. */
#define SHARED_FOR_US 1000000
#define SHARED_PART   4
#define SHARED_LEAST  256 /* tokens; fewer would waste the matrix products */

static size_t budget(struct batcher *b, int64_t now)
{
    size_t all = b->stats.budget_tokens, part = all / SHARED_PART;
    part = part < SHARED_LEAST ? SHARED_LEAST : part;
    return now < b->shared_until && part < all ? part : all;
}

static void note_tenant(struct batcher *b, int64_t tenant, int64_t now)
{
    if (b->tenant != 0 && tenant != b->tenant) {
        b->shared_until = now + SHARED_FOR_US;
    }
    b->tenant = tenant;
}

/* With the lock: fills places from the least served tenants. Returns how many; *rows: their tokens. */
static size_t compose(struct batcher *b, struct lane *lane, size_t *rows,
                      struct prediction **finished)
{
    size_t n = 0, used = 0;
    int64_t now = clock_us();
    bool express = lane == &b->express, heavy = false;
    struct fair_item *item;
    while (n < lane->max_sequences && (item = fair_next(&b->run_queue)) != NULL) {
        size_t most = express ? lane->max_tokens : budget(b, now);
        struct prediction *p = from_run(item);
        if (is_late(p, now)) {
            end_early(p, PREDICTION_LATE);
        }
        if (p->over) {
            fair_remove(&b->run_queue, item);
            settle(b, p, finished);
            continue;
        }
        bool light = is_light(b, p);
        /* all that light tenants want is in the batch: it goes alone, in the time that it needs */
        bool alone = n > 0 && !heavy && b->run_queue.n_heap == 1;
        if (used >= most || (!light && (express || alone))) {
            break;
        }
        note_tenant(b, p->tenant, now);
        size_t len = p->pieces[p->taken].len;
        if (n > 0 && used + len > most) {
            fair_skip(&b->run_queue);
            continue;
        }
        heavy = heavy || !light;
        lane->places[n++] = (struct place){p, p->taken, used, false};
        used += len;
        p->in_batch++;
        p->taken++;
        fair_charge(&b->run_queue, item, (double)len);
        if (p->taken == p->encoded) {
            fair_remove(&b->run_queue, item);
        }
    }
    fair_resume(&b->run_queue);
    if (express) {
        b->express_left -= used < b->express_left ? used : b->express_left;
    } else {
        b->express_left = heavy ? used : 0;
    }
    *rows = used;
    return n;
}

/* Inline tasks have a version each; those that ask the same count once. */
static bool same_task(const struct version *a, const struct version *b)
{
    return a == b || (a->number == 0 && b->number == 0 && a->form == b->form);
}

static size_t distinct_tasks(const struct place *places, size_t n)
{
    size_t distinct = 0;
    for (size_t i = 0; i < n; i++) {
        size_t j = 0;
        while (!same_task(places[j].prediction->version, places[i].prediction->version)) {
            j++;
        }
        distinct += j == i;
    }
    return distinct;
}

static eng_status forward(struct lane *lane, const eng_sequence *sequences, size_t n, size_t at)
{
    const struct batcher_options *options = &lane->batcher->options;
    return eng_forward(options->compute, lane->workspace, lane->class, options->model, sequences, n,
                       lane->start + at, lane->end + at, &lane->err);
}

/* One forward pass over n places; when it fails, each alone, so that only the culprit fails. */
static void compute(struct lane *lane, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        prediction_sequence(lane->places[i].prediction, lane->places[i].input, &lane->sequences[i]);
    }
    eng_status together = forward(lane, lane->sequences, n, 0);
    for (size_t i = 0; i < n; i++) {
        struct place *place = &lane->places[i];
        eng_status status = together;
        if (together != ENG_OK && n > 1) {
            status = forward(lane, &lane->sequences[i], 1, place->at);
        }
        if (status == ENG_OK &&
            !prediction_decode(place->prediction, place->input, lane->start + place->at,
                               lane->end + place->at)) {
            status = fault_nomem(&lane->err, "");
        }
        place->failed = status != ENG_OK;
    }
}

static void note_batch(struct batcher *b, size_t n, size_t rows, size_t tasks)
{
    b->stats.batches++;
    b->stats.sequences += n;
    b->stats.tokens += rows;
    b->stats.inflight -= n;
    histogram_add(&b->seen.batch_sequences, (double)n);
    histogram_add(&b->seen.batch_tokens, (double)rows);
    histogram_add(&b->seen.batch_tasks, (double)tasks);
}

/* With the lock, after a batch: accounts for it and settles what it completed. */
static void finish_batch(struct batcher *b, const struct lane *lane, size_t n, size_t rows,
                         int64_t took_us, struct prediction **finished)
{
    for (size_t i = 0; i < n; i++) {
        const struct place *place = &lane->places[i];
        struct prediction *p = place->prediction;
        p->tokens += (i + 1 < n ? lane->places[i + 1].at : rows) - place->at;
        if (place->failed) {
            fail(p, &lane->err, place->input);
        } else {
            p->computed++;
        }
        if (p->last_batch != b->stats.batches) {
            p->last_batch = b->stats.batches;
            p->infer_us += took_us;
        }
        p->in_batch--;
        settle(b, p, finished);
    }
}

/* With the lock, released while computing. */
static void run_batch(struct batcher *b, struct lane *lane)
{
    struct prediction *finished = NULL;
    size_t rows = 0;
    size_t n = compose(b, lane, &rows, &finished);
    b->stats.inflight += n;
    if (lane == &b->shared && express_may_go(b)) {
        pthread_cond_signal(&b->express.wanted); /* what found no room */
    }
    pthread_mutex_unlock(&b->lock);
    call_done(finished);
    finished = NULL;
    int64_t began = clock_us();
    if (n > 0) {
        compute(lane, n);
    }
    int64_t took = clock_us() - began;
    size_t tasks = distinct_tasks(lane->places, n);
    pthread_mutex_lock(&b->lock);
    if (n > 0) {
        note_batch(b, n, rows, tasks);
        finish_batch(b, lane, n, rows, took, &finished);
    }
    if (lane == &b->shared) {
        b->express_left = 0;
    }
    if (finished != NULL) {
        pthread_mutex_unlock(&b->lock);
        call_done(finished);
        pthread_mutex_lock(&b->lock);
    }
}

static bool has_work(const struct lane *lane)
{
    const struct batcher *b = lane->batcher;
    return lane == &b->express ? express_may_go(b) : fair_next(&b->run_queue) != NULL;
}

static void *lane_main(void *arg)
{
    struct lane *lane = arg;
    struct batcher *b = lane->batcher;
    slice_brief();
    pthread_mutex_lock(&b->lock);
    while (!b->stopping) {
        if (has_work(lane)) {
            run_batch(b, lane);
        } else {
            pthread_cond_wait(&lane->wanted, &b->lock);
        }
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* ---- starting and stopping ----------------------------------------------------------------- */

static void init_histograms(struct batcher_histograms *seen)
{
    static const double counts[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
    static const double tokens[] = {16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
    const size_t n_counts = sizeof counts / sizeof counts[0];
    const size_t n_tokens = sizeof tokens / sizeof tokens[0];
    histogram_init(&seen->batch_sequences, counts, n_counts);
    histogram_init(&seen->batch_tasks, counts, n_counts);
    histogram_init(&seen->batch_tokens, tokens, n_tokens);
    histogram_init(&seen->input_tokens, tokens, n_tokens);
    histogram_init(&seen->encode_seconds, seconds_bounds, seconds_bounds_count);
    histogram_init(&seen->queue_seconds, seconds_bounds, seconds_bounds_count);
    histogram_init(&seen->infer_seconds, seconds_bounds, seconds_bounds_count);
}

static void lane_init(struct batcher *b, struct lane *lane, eng_class class)
{
    lane->batcher = b;
    lane->class = class;
    pthread_cond_init(&lane->wanted, NULL);
}

static void lane_fini(struct lane *lane)
{
    eng_workspace_free(lane->workspace);
    free(lane->start);
    free(lane->end);
    free(lane->places);
    free(lane->sequences);
    pthread_cond_destroy(&lane->wanted);
}

static void release(struct batcher *b)
{
    fair_fini(&b->encode_queue);
    fair_fini(&b->run_queue);
    pthread_cond_destroy(&b->encode_wanted);
    lane_fini(&b->shared);
    lane_fini(&b->express);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

/* The first n of its threads. */
static void end_threads(struct batcher *b, int n)
{
    pthread_t threads[] = {b->encoder, b->shared.thread, b->express.thread};
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    pthread_cond_broadcast(&b->encode_wanted);
    pthread_cond_broadcast(&b->shared.wanted);
    pthread_cond_broadcast(&b->express.wanted);
    pthread_mutex_unlock(&b->lock);
    for (int i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
    }
}

static eng_status start_threads(struct batcher *b, eng_error *err)
{
    int n = pthread_create(&b->encoder, NULL, encoder_main, b) == 0;
    n += n == 1 && pthread_create(&b->shared.thread, NULL, lane_main, &b->shared) == 0;
    n += n == 2 && pthread_create(&b->express.thread, NULL, lane_main, &b->express) == 0;
    if (n < BATCHER_THREADS) {
        end_threads(b, n);
        return fault(err, ENG_ENOMEM, "batcher", "its threads could not be started");
    }
    return ENG_OK;
}

eng_status batcher_start(const struct batcher_options *options, struct batcher **out,
                         eng_error *err)
{
    *out = NULL;
    struct batcher *b = calloc(1, sizeof *b);
    if (b == NULL) {
        return fault_nomem(err, "batcher");
    }
    b->options = *options;
    init_histograms(&b->seen);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->encode_wanted, NULL);
    lane_init(b, &b->shared, ENG_SERVING);
    lane_init(b, &b->express, ENG_URGENT);
    fair_init(&b->encode_queue, &options->limit);
    fair_init(&b->run_queue, &(struct fair_load){0});
    eng_status status = batcher_allocate(b, err);
    if (status == ENG_OK) {
        status = batcher_calibrate(b, err);
    }
    if (status == ENG_OK) {
        status = start_threads(b, err);
    }
    if (status != ENG_OK) {
        release(b);
        return status;
    }
    *out = b;
    return ENG_OK;
}

void batcher_stop(struct batcher *b)
{
    if (b == NULL) {
        return;
    }
    end_threads(b, BATCHER_THREADS);
    struct prediction *finished = NULL;
    stop_waiting(b, &finished); /* what the last batch left, and the encoder handed on meanwhile */
    call_done(finished);
    release(b);
}

void batcher_get_stats(struct batcher *b, struct batcher_stats *stats)
{
    pthread_mutex_lock(&b->lock);
    *stats = b->stats;
    stats->inside_requests = (size_t)b->encode_queue.held.requests;
    stats->inside_tokens = (size_t)b->encode_queue.held.tokens;
    stats->inside_bytes = (size_t)b->encode_queue.held.bytes;
    stats->waiting = b->encode_queue.n_items + b->run_queue.n_items;
    pthread_mutex_unlock(&b->lock);
}

const struct batcher_histograms *batcher_get_histograms(const struct batcher *b)
{
    return &b->seen;
}

bool batcher_is_idle(struct batcher *b)
{
    struct batcher_stats stats;
    batcher_get_stats(b, &stats);
    return stats.inside_requests == 0;
}
