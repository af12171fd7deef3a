/* trainer.h (private): the one training loop, and what a method has to say about itself.
 *
 *     method = a start + stages        stage = a part that is trained + how it steps
 *
 * A part turns its flat vector of parameters into what the sequences carry (a mix, a prompt), and the
 * gradient of the merged prompt into a gradient of its parameters. The loop knows only vectors: it
 * draws batches, steps the optimiser, looks at dev every so often, keeps the best vector and watches
 * the clock, the caller and the loss. New methods are rows of a table (methods.c), not new loops.
 *
 * A learner belongs to one thread. Nothing here writes to the model or the bank.
 */
#ifndef ENGINE_TRAINER_H
#define ENGINE_TRAINER_H

#include "engine/batch.h"
#include "engine/encoder.h"
#include "engine/rng.h"

struct learner;

/* What is trainable. */
struct learn_part {
    const char *name;
    unsigned want; /* of enum encoder_want */
    size_t (*size)(const struct learner *learner);
    /* Makes the sequences use `params`: sets learner->mix (or prompt). */
    void (*use)(struct learner *learner, const float *params);
    /* dmerged (Lp,P,H): mean loss by the prompt added. gradient (size) overwritten. */
    void (*gradient)(struct learner *learner, const float *params, const float *dmerged,
                     float *gradient);
};

struct learn_stage {
    const struct learn_part *part;
};

#define METHOD_MAX_STAGES 2

struct learn_method {
    const char *name;
    bool fixed_start; /* starts as `start` says, whatever the caller's init */
    eng_init start;
    struct learn_stage stages[METHOD_MAX_STAGES];
    size_t n_stages; /* 0: the start is the result */
};

/* NULL when there is no such method. methods.c. */
const struct learn_method *method_find(const char *name);

/* How good a vector is on the rows that choose. */
struct look {
    double accuracy, macro_f1, loss;
};

struct learner {
    eng_compute *compute;
    const eng_model *model;
    const eng_bank *bank;
    const eng_task *task;
    eng_adapt_config config; /* every default filled in */
    struct batch_rows train, dev;
    size_t *order; /* items of train that have a target, reshuffled every epoch */
    size_t n_order, order_at;
    struct rng rng;
    struct batch_runner runner;
    struct encoder_tape *tape; /* NULL until a stage needs gradients */
    float *dprompt;            /* (BATCH_MAX_SEQUENCES, Lp, P, H) */
    float *dmerged;            /* (Lp, P, H) */
    float *dstart, *dend;      /* (tokens of a micro-batch) */
    float *mix;                /* (Lp, K) */
    size_t *confusion;         /* of a look */
    double began;
    size_t train_tokens, train_sequences;
    eng_on_progress on_progress;
    void *on_progress_arg;
    bool stop; /* the caller said so, or time is up */
    bool cancelled;
};

/* Encodes the rows and makes room. learner_fini frees, also after a failure. */
ENG_MUST_CHECK eng_status learner_init(struct learner *learner, const eng_dataset *train_set,
                                       const size_t *train, size_t n_train,
                                       const eng_dataset *dev_set, const size_t *dev, size_t n_dev,
                                       eng_error *err);
void learner_fini(struct learner *learner);
size_t learner_tokens(const struct learner *learner);
size_t learner_sequences(const struct learner *learner);

/* Scores what learner->mix says on dev, or on the training rows when there is no dev. */
ENG_MUST_CHECK eng_status learner_look(struct learner *learner, struct look *look, eng_error *err);
/* Higher accuracy, then lower loss. */
bool look_is_better(const struct look *look, const struct look *than);

/* Runs one stage from `params`, which it leaves as the last step did; `best`, `look` and `best_step`
 * hold the best vector known and move on when a better one is seen. ENG_EDIVERGED, ENG_ECANCELLED. */
struct stage_run {
    float *params, *best; /* (size of the part) */
    struct look look;
    size_t best_step;
    size_t steps;      /* done */
    double train_loss; /* of the last step */
};
ENG_MUST_CHECK eng_status learner_stage(struct learner *learner, const struct learn_stage *stage,
                                        struct stage_run *run, eng_error *err);

/* The bank's row with the least mean loss on the training rows (few-shot loss), all rows in packed
 * batches. retrieve.c. losses (rows of the bank) overwritten, or NULL. */
ENG_MUST_CHECK eng_status retrieve_row(struct learner *learner, size_t *row, double *losses,
                                       eng_error *err);

#endif
