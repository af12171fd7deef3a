/* batch.h (private): rows of a set as sequences of the model, and the one way to run many of them.
 *
 * Training, evaluation and retrieval all read batch_rows and run packed batches within one budget of
 * tokens. A batch_rows never changes after it is made; a batch_runner belongs to one thread.
 */
#ifndef ENGINE_BATCH_H
#define ENGINE_BATCH_H

#include "engine/engine.h"

struct batch_item {
    eng_encoded
        *encoded; /* NULL: the row does not fit the model (its options alone are too long) */
    const int32_t *ids;
    size_t len;
    bool has_target; /* the answer is in the sequence: the row has a loss */
    size_t start, end;
    eng_example row; /* label as the task numbers it */
};

struct batch_rows {
    struct batch_item *items;
    size_t n;
    size_t longest;   /* tokens */
    size_t targets;   /* items with a target */
    size_t truncated; /* items whose text was cut */
};

/* Encodes rows `which` (NULL: rows 0 … n-1) of a set. `for_training` keeps an extractive answer in
 * view where a context must be cut. ENG_EINVAL names a row whose label the task does not know or
 * that lacks a field of the template. batch_rows_fini frees, also after a failure. */
ENG_MUST_CHECK eng_status batch_rows_make(const eng_task *task, const eng_dataset *set,
                                          const size_t *which, size_t n, size_t text_limit,
                                          bool for_training, struct batch_rows *out,
                                          eng_error *err);
void batch_rows_fini(struct batch_rows *rows);

/* What learning changes about a sequence; each as in eng_sequence. */
struct carried {
    const float *mix, *prompt, *head;
};
eng_sequence batch_sequence(const struct batch_item *item, const eng_bank *bank,
                            const struct carried *carried);

/* Tokens of a packed batch: what keeps a layer near 4 GFLOP, so that training lets a prediction in
 * after some tens of milliseconds, and of a small model after one or two; never less than `longest`.
 * It also bounds a tape: of BERT-large some 200 MiB, whatever the batch. */
size_t batch_token_budget(const eng_model *model, size_t longest);
#define BATCH_MAX_SEQUENCES 32

/* A forward pass over any number of sequences, in packed batches. */
struct batch_runner {
    eng_compute *compute;
    const eng_model *model;
    eng_class who;
    eng_cancelled cancelled; /* looked at between batches, may be NULL */
    void *cancelled_arg;
    size_t max_tokens;
    eng_workspace *workspace;
    float *start, *end; /* (max_tokens) */
    size_t tokens;      /* run so far */
    size_t sequences;
};
ENG_MUST_CHECK eng_status batch_runner_init(struct batch_runner *runner, eng_compute *compute,
                                            eng_class who, const eng_model *model, size_t longest,
                                            eng_error *err);
void batch_runner_fini(struct batch_runner *runner);

/* Called for every sequence with its logits (len of the sequence). */
typedef eng_status (*batch_each)(void *arg, size_t i, const eng_sequence *sequence,
                                 const float *start, const float *end, eng_error *err);
/* Runs `sequences` in order. ENG_ECANCELLED; whatever `each` fails with. */
ENG_MUST_CHECK eng_status batch_run(struct batch_runner *runner, const eng_sequence *sequences,
                                    size_t n, batch_each each, void *arg, eng_error *err);

#endif
