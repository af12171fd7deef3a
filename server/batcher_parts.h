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

struct batcher {
    struct batcher_options options;
    eng_workspace *workspace;
    float *start, *end; /* (max_tokens) logits of a batch */
    struct place *places;
    eng_sequence *sequences; /* (max_sequences) */
    eng_error batch_err;     /* of a failed place; batch thread only */
    pthread_t encoder, batcher;

    pthread_mutex_t lock; /* covers all below, and predictions inside */
    pthread_cond_t encode_wanted, run_wanted;
    struct fair_queue encode_queue; /* its bounds are the admission's */
    struct fair_queue run_queue;
    bool stopping;
    int64_t tenant;       /* of the sequence chosen last */
    int64_t shared_until; /* clock_us; until then batches are short */
    int64_t hog; /* whose sequences alone filled a batch, and who has not been without since */
    struct batcher_stats stats;

    struct batcher_histograms seen; /* atomics: outside the lock */
};

/* Before the threads start. Room for a batch of options.max_tokens; the budget in tokens, measured. */
ENG_MUST_CHECK eng_status batcher_allocate(struct batcher *b, eng_error *err);
ENG_MUST_CHECK eng_status batcher_calibrate(struct batcher *b, eng_error *err);

#endif
