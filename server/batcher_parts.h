/* batcher_parts.h (private to batcher.c, calibrate.c): what a batcher is made of. */
#ifndef SERVER_BATCHER_PARTS_H
#define SERVER_BATCHER_PARTS_H

#include "server/batcher.h"

#include <pthread.h>

/* A place in the batch that is being composed or computed. */
struct place {
    struct prediction *prediction;
    size_t input;
    size_t at; /* its first row */
    bool failed;
};

/* A thread that composes batches and computes them; all but `wanted` is that thread's. */
struct lane {
    struct batcher *batcher;
    eng_class class;
    size_t max_tokens, max_sequences; /* of a batch */
    eng_workspace *workspace;
    float *start, *end; /* (max_tokens) logits */
    struct place *places;
    eng_sequence *sequences; /* (max_sequences) */
    eng_error err;           /* of a failed place */
    pthread_cond_t wanted;
    pthread_t thread;
};

struct batcher {
    struct batcher_options options;
    struct lane shared;  /* everybody's batches */
    struct lane express; /* small ones, of light tenants, between two pieces of a large one */
    pthread_t encoder;

    pthread_mutex_t lock; /* covers all below, and predictions inside */
    pthread_cond_t encode_wanted;
    struct fair_queue encode_queue; /* its bounds are the admission's */
    struct fair_queue run_queue;
    bool stopping;
    int64_t tenant;       /* of the sequence chosen last */
    int64_t shared_until; /* clock_us; until then batches are short: a newcomer waits less */
    size_t express_left;  /* tokens that may yet go before the batch of the shared lane */
    struct batcher_stats stats;

    struct batcher_histograms seen; /* atomics: outside the lock */
};

/* Before the threads start. Room for a batch of options.max_tokens; the budget in tokens, measured. */
ENG_MUST_CHECK eng_status batcher_allocate(struct batcher *b, eng_error *err);
ENG_MUST_CHECK eng_status batcher_calibrate(struct batcher *b, eng_error *err);

#endif
