/* batcher.h: admitted predictions become packed batches, results go back.
 *
 * A prediction is some inputs for one version of a task. It is admitted whole or refused whole; its
 * inputs may be spread over several batches, and a batch mixes inputs of all tenants and tasks. There
 * is no timer: while one batch computes, the next gathers.
 *
 *     batcher_submit → waiting for the encoder thread → encoded, waiting for a place in a batch
 *                    → computed → done()
 *
 * A tenant with little inside does not wait for a batch of one with much: its sequences are computed
 * between two pieces of that batch (the express lane), up to as many tokens as the batch has itself.
 *
 * Threads.   BATCHER_THREADS of its own: one encodes, two compose batches and run forward passes. submit,
 *            cancel and the getters may be called from any thread. `prepare` runs on the encoding
 *            thread; `done` on any thread, submit's and cancel's caller included, without locks held.
 * Lifetime.  A prediction belongs to its submitter, who leaves it alone from submit until done();
 *            then prediction_fini. The version must be held all that time.
 */
#ifndef SERVER_BATCHER_H
#define SERVER_BATCHER_H

#include "server/metrics.h"
#include "server/queue.h"
#include "server/registry.h"

#include <stdatomic.h>

struct batcher;

#define BATCHER_THREADS 3

/* One input's answer. */
struct answer {
    float
        *probabilities; /* (n_options), in the order of the labels or options; NULL if extractive */
    size_t n_options;
    eng_span *spans; /* (n_spans), best first; extractive */
    size_t n_spans;
    size_t tokens;    /* of its sequence, prompt included */
    size_t truncated; /* code points of text left out */
};

enum prediction_end {
    PREDICTION_DONE,
    PREDICTION_CANCELLED, /* batcher_cancel */
    PREDICTION_LATE,      /* its deadline passed before it was computed */
    PREDICTION_FAILED,    /* err, and failed_input */
    PREDICTION_STOPPED    /* the batcher stopped */
};

struct prediction_piece; /* private: an encoded input */

struct prediction {
    /* set by the submitter; zero the rest */
    int64_t tenant;
    double weight;           /* of the tenant; > 0 */
    struct version *version; /* held by the submitter */
    size_t n;                /* inputs, at least 1 */
    uint64_t bytes;          /* of the request, for the bounds and the encoder's fairness */
    size_t text_limit;       /* as in eng_encode */
    size_t n_best;           /* spans wanted of an extractive input; 0: 1 */
    size_t max_answer;       /* as in eng_decode_spans */
    int64_t deadline_us;     /* of clock_us; 0: none */
    /* Sets `inputs`. False: err is filled, failed_input too; ends as PREDICTION_FAILED. May be NULL when
     * inputs are set already. */
    bool (*prepare)(struct prediction *prediction);
    void (*done)(struct prediction *prediction);
    void *arg;
    const eng_input *inputs; /* (n), valid until done */

    /* for done() */
    enum prediction_end end;
    eng_error err;
    size_t failed_input;    /* SIZE_MAX: none in particular */
    struct answer *answers; /* (n) when PREDICTION_DONE */
    size_t tokens;          /* computed, of all inputs */
    int64_t encode_us, queue_us, infer_us;

    /* the batcher's */
    struct fair_item encode_item, run_item;
    struct fair_load load;
    const eng_task *task;
    float *mix;
    struct prediction_piece *pieces;
    size_t encoded, taken, computed, in_batch;
    uint64_t last_batch; /* that it was in */
    bool encoding, over, complete;
    int64_t submitted_us;
    struct prediction *next_done;
};

struct batcher_options {
    const eng_model *model;
    const eng_bank *bank; /* for calibration and warm-up */
    eng_compute *compute;
    size_t max_tokens;      /* of a batch, at most; raised to the model's positions */
    size_t max_sequences;   /* of a batch */
    double target_seconds;  /* of a batch's computation; 0: always gather up to max_tokens */
    double warmup_seconds;  /* at most, for measuring at start */
    struct fair_load limit; /* of all that is inside; tokens as estimated before encoding */
};

/* Sizes the workspace, measures how many tokens the target time allows (in at most about a second),
 * starts the threads. */
ENG_MUST_CHECK eng_status batcher_start(const struct batcher_options *options, struct batcher **out,
                                        eng_error *err);
/* Ends what is inside as PREDICTION_STOPPED (done is called), returns when the threads have ended. */
void batcher_stop(struct batcher *batcher);

/* Its tokens, roughly, from `n` and `bytes`: what the bounds count. Never more than really possible. */
uint64_t batcher_estimate(const struct batcher *batcher, const struct prediction *prediction);
/* FAIR_ADMITTED: taken, done will be called. Otherwise nothing was taken. */
enum fair_verdict batcher_submit(struct batcher *batcher, struct prediction *prediction);
/* Drops it as soon as nothing computes with it; it then ends as PREDICTION_CANCELLED, perhaps inside
 * this call. Nothing happens when it is complete. */
void batcher_cancel(struct batcher *batcher, struct prediction *prediction);
/* Frees answers; the struct itself is the submitter's. */
void prediction_fini(struct prediction *prediction);

struct batcher_stats {
    size_t inside_requests, inside_tokens, inside_bytes; /* admitted and not ended */
    size_t waiting;                                      /* predictions not yet wholly in a batch */
    size_t inflight; /* sequences in the batch that computes now */
    uint64_t batches, sequences, tokens, predictions;
    uint64_t dropped; /* inputs of cancelled, late or failed predictions, not computed */
    size_t budget_tokens, max_tokens, workspace_bytes;
    double tokens_per_second; /* at calibration */
    double gemm_gflops;       /* what that means for the backbone's matrix products alone */
};

/* Live: counted up by the batcher's threads, read by any. */
struct batcher_histograms {
    struct histogram batch_sequences, batch_tokens, batch_tasks, input_tokens;
    struct histogram encode_seconds, queue_seconds, infer_seconds; /* of a prediction */
};
const struct batcher_histograms *batcher_get_histograms(const struct batcher *batcher);
void batcher_get_stats(struct batcher *batcher, struct batcher_stats *stats);
bool batcher_is_idle(struct batcher *batcher);

#endif
