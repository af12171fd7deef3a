/* trainer.h (private): the one training loop, and what a method has to say about itself.
 *
 *     method = a start + stages        stage = a part that is trained + how it steps
 *
 * A part turns its flat vector of parameters into what the sequences carry (a mix, a prompt), and the
 * gradient of the merged prompt into a gradient of its parameters. The loops know only vectors, and
 * there are two: one follows a gradient (trainer.c), one searches with forward passes alone
 * (trainer_search.c). Both look at dev every so often, keep the best vector and watch the clock, the
 * caller and the loss. New methods are rows of a table (methods.c), not new loops.
 *
 * A learner belongs to one thread. Nothing here writes to the model or the bank.
 */
#ifndef ENGINE_TRAINER_H
#define ENGINE_TRAINER_H

#include "engine/batch.h"
#include "engine/blob.h"
#include "engine/encoder.h"
#include "engine/evaluate.h"
#include "engine/opt_search.h"
#include "engine/rng.h"

struct learner;

/* What the best vector of a part becomes. */
enum learn_gives { LEARN_ROUTE, LEARN_PROMPT, LEARN_MODEL };

/* What is trainable. */
struct learn_part {
    const char *name;
    enum learn_gives gives;
    unsigned want; /* of enum encoder_want */
    size_t (*size)(const struct learner *learner);
    /* Equal blocks of the vector that a search takes in turn; NULL: one. */
    size_t (*blocks)(const struct learner *learner);
    /* params (size) overwritten: where the part starts from learner->route. */
    void (*start)(struct learner *learner, float *params);
    /* Makes the sequences carry `params`: sets learner->carried. */
    void (*use)(struct learner *learner, const float *params);
    /* From learner->dmerged, the mean loss by the prompt added, and the tape's other gradients.
     * gradient (size) overwritten. NULL: the part is only searched. */
    void (*gradient)(struct learner *learner, const float *params, float *gradient);
};

/* How a gradient-free stage searches a block of its part. */
struct learn_search {
    size_t evaluations; /* of a block, unless the caller says */
    size_t least;       /* evaluations a block cannot do without */
    double bound;       /* box ±bound, widened where the start lies outside */
    eng_status (*make)(const struct search_problem *problem, size_t block, size_t blocks,
                       struct search **out, eng_error *err);
};

struct learn_stage {
    const struct learn_part *part;
    const struct learn_search *search; /* NULL: AdamW */
    double
        width_lr; /* AdamW: this over H is the step size unless config.prompt_lr says; 0: config.lr */
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
extern const struct learn_part learn_route; /* the part that every bank has */

/* How good a vector is on the rows that choose. */
struct look {
    double accuracy, macro_f1, loss;
};

/* How the labels' scores are read (label_scaling.h). */
struct learn_scaling {
    size_t len;                  /* numbers; 0: no fixed labels, or config.no_label_scaling */
    struct batch_rows rows;      /* of those that train, borrowed */
    struct scored scored;        /* rows, then dev, at the last look */
    float *of_train;             /* (len) fitted to `rows` at the last look */
    float *best, *best_of_train; /* (len) of the best so far, fitted to all rows, and to `rows` */
};

struct learner {
    eng_compute *compute;
    const eng_model *model;
    const eng_bank *bank;
    const eng_task *task;
    const struct learn_method *method;
    eng_adapt_config config;  /* every default filled in */
    eng_adapt_result *result; /* prompt, head and start are filled in on the way */
    eng_model *own_model; /* weights to train, and a bank for them: NULL unless the method does */
    eng_bank *own_bank;
    struct batch_rows train, dev;
    eng_answer_length answer_length; /* of train */
    struct learn_scaling scaling;
    size_t *order; /* items of train that have a target, reshuffled every epoch */
    size_t n_order, order_at;
    struct rng rng;
    struct batch_runner runner;
    struct encoder_tape *tape; /* NULL until a stage needs gradients */
    float *dprompt;            /* (BATCH_MAX_SEQUENCES, Lp, P, H) */
    float *dmerged;            /* (Lp, P, H) */
    float *dstart, *dend;      /* (tokens of a micro-batch) */
    float *route;              /* (route_len) the start, then the best route */
    struct carried carried;    /* what sequences carry now, in the rooms */
    float *mix_room;           /* (Lp, K) */
    float *prompt_room;        /* (Lp, P, H) or NULL, when no stage has a prompt */
    float *head_room;          /* (2H + 2) likewise */
    size_t *confusion;         /* of a look */
    double began;
    const size_t *chosen; /* steps of each stage, all to be taken; NULL: dev chooses */
    double seconds;       /* the stage ends this long after `began`; 0: no limit */
    size_t total_steps;   /* of all stages, for reports */
    size_t train_tokens, train_sequences;
    eng_on_progress on_progress;
    void *on_progress_arg;
    bool stop; /* the caller said so, or time is up */
    bool cancelled;
    uint64_t identity; /* of settings, rows and bank: a checkpoint must agree */
    double saved_at;   /* seconds_now of the last checkpoint */
    bool resuming;     /* config.resume has been read as far as `resume` says */
    struct blob resume;
    struct rng resume_rng; /* the generator to go on with */
};

/* Encodes the rows and makes room. learner_fini frees, also after a failure. */
ENG_MUST_CHECK eng_status learner_init(struct learner *learner, const eng_dataset *train_set,
                                       const size_t *train, size_t n_train,
                                       const eng_dataset *dev_set, const size_t *dev, size_t n_dev,
                                       eng_error *err);
void learner_fini(struct learner *learner);
size_t learner_tokens(const struct learner *learner);
size_t learner_sequences(const struct learner *learner);

/* Lp·P·H of the bank, and 2H + 2. */
size_t learner_prompt_floats(const struct learner *learner);
size_t learner_head_floats(const struct learner *learner);
/* The model and bank that sequences run on: the caller's, or the learner's own. */
const eng_model *learner_model(const struct learner *learner);
const eng_bank *learner_bank(const struct learner *learner);

/* The labels' scaling: trainer_scaling.c. All of these do nothing where none is fitted.
 * scaling_fit fits scaling.of_train to the training rows, under what sequences carry; scaling_keep fits
 * scaling.best to all rows scored since, and keeps of_train beside it. */
ENG_MUST_CHECK eng_status scaling_init(struct learner *learner, eng_error *err);
void scaling_fini(struct learn_scaling *scaling);
ENG_MUST_CHECK eng_status scaling_fit(struct learner *learner, eng_error *err);
ENG_MUST_CHECK eng_status scaling_keep(struct learner *learner, eng_error *err);

/* Scores what the sequences carry on dev, or on the training rows when there is no dev, read with the
 * labels' scaling that fits it. */
ENG_MUST_CHECK eng_status learner_look(struct learner *learner, struct look *look, eng_error *err);
/* Higher eng_score_of, then lower loss. */
bool look_is_better(const eng_task *task, const struct look *look, const struct look *than);

/* A stage on its way, and the best vector of its part. */
struct stage_run {
    size_t stage;         /* of the method */
    size_t first_step;    /* steps done before it */
    struct rng first_rng; /* as it began: its random start and its searches' seeds */
    float *params, *best; /* (size of the part) */
    /* What the stage's loop has beside, for checkpoints. */
    void *loop;
    bool (*move_loop)(void *loop, struct blob *blob);
    struct look look;    /* of the best of all stages, read with the scaling of the training rows */
    bool moved;          /* `best` is that best */
    bool prompt_is_best; /* a stage with a prompt has moved */
    size_t best_step;
    size_t steps;      /* done, of all stages */
    double train_loss; /* of the last step; of the best candidate when searching */
};
/* Runs `steps` steps of one stage from `params`, which it leaves as the last step did; `best`, `look` and `best_step`
 * move on when a better vector is seen. ENG_EDIVERGED, ENG_ECANCELLED. */
ENG_MUST_CHECK eng_status learner_stage(struct learner *learner, const struct learn_stage *stage,
                                        size_t steps, struct stage_run *run, eng_error *err);
/* Steps (of a search: evaluations) that a stage of `method` takes at most. ENG_EINVAL when the
 * caller's budget of evaluations is too small for it. trainer_search.c. */
ENG_MUST_CHECK eng_status learner_budget(const struct learner *learner,
                                         const struct learn_method *method, size_t stage,
                                         size_t *steps, eng_error *err);

/* Says that this step has no figures of dev. */
void progress_not_looked(eng_progress *progress);
/* For the two loops. Looks at `params`: what is better than all before becomes the best. */
ENG_MUST_CHECK eng_status learner_consider(struct learner *learner, const struct learn_part *part,
                                           const float *params, struct stage_run *run,
                                           eng_progress *progress, eng_error *err);
/* Tells the caller, hands a checkpoint over when it is time, and looks at the clock: sets
 * learner->stop. The run and its loop must be such that a resumed run can go on from here. */
ENG_MUST_CHECK eng_status learner_report(struct learner *learner, struct stage_run *run,
                                         eng_progress *progress, eng_error *err);
/* The gradient-free loop; `steps` evaluations at most. trainer_search.c. */
ENG_MUST_CHECK eng_status learner_search(struct learner *learner, const struct learn_stage *stage,
                                         size_t steps, struct stage_run *run, eng_error *err);

/* The few-shot loss of n candidates: the mean over the training rows, all of them under every candidate
 * in packed batches; of labels whose scaling is fitted −ln p(label) at the candidate's own, and its priors.
 *   carried (n)   losses (n) overwritten */
ENG_MUST_CHECK eng_status few_shot_losses(struct learner *learner, const struct carried *carried,
                                          size_t n, double *losses, eng_error *err);

/* Of the bank's rows, config.candidates and the average of all modules the route that serves the training
 * rows best: the least −log p(answer), among the options and at the temperature that suits the route; of
 * extractive rows the least few-shot loss. And its name. retrieve.c.
 *   route (route_len), name (size bytes) overwritten */
ENG_MUST_CHECK eng_status retrieve_route(struct learner *learner, float *route, char *name,
                                         size_t size, eng_error *err);

/* ---- checkpoints: trainer_state.c ---- */

/* Hashes what a checkpoint depends on into learner->identity. */
void learner_identify(struct learner *learner);
ENG_MUST_CHECK eng_status learner_checkpoint(struct learner *learner, struct stage_run *run,
                                             eng_error *err);
/* A resumed run reads its block in two parts: which stage it is in and what came before; then, when
 * the stage and its loop have their rooms, what they hold. */
ENG_MUST_CHECK eng_status learner_resume(struct learner *learner, struct stage_run *run,
                                         eng_error *err);
ENG_MUST_CHECK eng_status learner_resume_stage(struct learner *learner, struct stage_run *run,
                                               eng_error *err);

#endif
