/* prompts.h (private to prompts*.c): a bank in training.
 *
 *   prompts.c          the step, the look at dev, the run
 *   prompts_begin.c    settings, the model, room
 *   prompts_write.c    what a run writes, and where
 *   prompts_tasks.c    task folders as tasks to draw from: copies with neutral words, rows, order, dev
 *   prompts_bank.c     the bank itself: modules from z and A, gradients back to them, the file
 *   mrc_gradient.c     loss and gradients of a batch; pretrain_run.c the loop
 * One thread, but for what the compute pool does. The whole state of a run is: the tensors, the
 * optimisers, how many rows of each task were drawn, the best score. All of it is in the checkpoint;
 * whatever is random in a step is a function of seed and step.
 */
#ifndef ENGINE_PROMPTS_H
#define ENGINE_PROMPTS_H

#include "engine/bank.h"
#include "engine/batch.h"
#include "engine/model.h"
#include "engine/mrc_gradient.h"
#include "engine/pretrain.h"
#include "engine/prompt_encoder.h"
#include "engine/rng.h"

#include <limits.h>

/* ---- the bank ---- */

struct train_bank {
    eng_compute *compute;
    eng_bank *bank; /* ours to write; its router is written at the end, from routes */
    float *routes;  /* (rows, route_len) */
    float *droutes; /* (rows, route_len) */
    float *dz, *dA, *dhead;
    float *dmodules;                /* (Lp, K, P*H) dL/d bank->modules: the caller zeroes */
    struct prompt_encoder *encoder; /* or NULL; then the modules come from base through it */
    float *base, *dbase;            /* (Lp, K, P*H) z·A, with an encoder */
};

/* Random z and A, routes near 0, a random head; no rows yet. ENG_EMISMATCH when the sizes do not fit the
 * model. train_bank_fini frees, also after a failure. */
ENG_MUST_CHECK eng_status train_bank_init(struct train_bank *train, eng_compute *compute,
                                          const eng_model *model, const eng_prompts_config *config,
                                          struct rng *rng, eng_error *err);
void train_bank_fini(struct train_bank *train);
/* Starts from a bank file of the same sizes: modules, head, and the routes of its rows' names; after
 * train_bank_rows. A shallow one starts a deep one, too: its layer is the first, the others begin without a
 * prompt. ENG_EMISMATCH for other sizes, ENG_EINVAL with an encoder, whose factors no file has. */
ENG_MUST_CHECK eng_status train_bank_take(struct train_bank *train, const char *path,
                                          eng_error *err);
/* Makes `rows` routes of these names (copied). */
ENG_MUST_CHECK eng_status train_bank_rows(struct train_bank *train, const char *const *names,
                                          size_t rows, struct rng *rng, eng_error *err);
/* modules = z·A, through the encoder if there is one; after any of them changed. */
void train_bank_modules(struct train_bank *train);
/* Adds what one route's prompts say:  droutes[row] += dL/dr   dmodules += mix ⊗ dmerged
 *   noise as in the forward pass, mix (Lp,K) what it gave, dmerged (Lp,P,H) */
void train_bank_route_gradient(struct train_bank *train, size_t row, const struct bank_noise *noise,
                               const float *mix, const float *dmerged);
/* dz, dA from dmodules, overwritten. */
void train_bank_factor_gradient(struct train_bank *train);

struct prompt_tasks;
/* The bank as a file (an encoder is folded away: the modules, as they are, become its factors), with what is known about its rows; `record` is JSON. Replaces an existing file. */
ENG_MUST_CHECK eng_status train_bank_write(const struct train_bank *train,
                                           const struct prompt_tasks *tasks, const char *record,
                                           const char *path, eng_error *err);

/* ---- the tasks ---- */

struct prompt_task {
    char name[128];
    const eng_task *task;
    eng_task *own; /* a copy with neutral words, or NULL: the folder's */
    const eng_dataset *train;
    size_t row, rows;       /* its routes: [row, row + rows) */
    size_t *order, n;       /* training rows, as shuffled for `epoch` */
    uint64_t epoch;         /* UINT64_MAX: not yet */
    struct batch_rows *dev; /* (rows) dev rows of each route */
    size_t copies;          /* neutral ones, which follow it; 0 for a copy */
    size_t weight;          /* of the draws between folders; a copy is drawn by its folder's */
    double share;           /* of all draws; the dev score is the mean by them */
    bool first;             /* of the tasks that come first, with its copies */
};

struct prompt_tasks {
    eng_task_folder *folders;
    size_t n_folders;
    struct prompt_task *tasks;
    size_t n, rows;
};

/* Opens every folder and makes copies, dev rows and row numbers. ENG_EINVAL for two tasks of one name and
 * for a task that is to come first, or has a weight, and is not there. prompt_tasks_fini frees, also after a
 * failure. */
ENG_MUST_CHECK eng_status prompt_tasks_open(const eng_model *model, const eng_bank *bank,
                                            const eng_prompts_config *config,
                                            struct prompt_tasks *out, eng_error *err);
void prompt_tasks_fini(struct prompt_tasks *tasks);
/* Name of route `row`: its task's, with "/2" … behind it where a task has several. */
void prompt_tasks_row_name(const struct prompt_tasks *tasks, size_t row, char name[160]);
const struct prompt_task *prompt_tasks_of_row(const struct prompt_tasks *tasks, size_t row);
/* Hash over everything of the tasks that changes a run: words, templates, rows. */
void prompt_tasks_hash(const struct prompt_tasks *tasks, unsigned char hash[RUN_SETTINGS]);

/* The task of this step: a folder's by its weight, every other time one of its copies. */
size_t prompt_tasks_draw(const struct prompt_tasks *tasks, const eng_prompts_config *config,
                         uint64_t step, struct rng *rng);
/* The next n training rows, of which *drawn were drawn before; every epoch is shuffled anew. */
void prompt_task_rows(struct prompt_task *task, size_t index, uint64_t seed, uint64_t *drawn,
                      size_t n, size_t *rows);
/* Which of the task's routes an example belongs to: a hash of its texts. */
size_t prompt_task_route(const struct prompt_task *task, const eng_example *example);

/* ---- the run ---- */

/* Saved with the tensors; drawn has one number a task. */
struct prompts_state {
    double best;
    uint64_t best_step;
    uint64_t at[TEXT_MAX_LANES]; /* of the text */
    uint64_t drawn[];
};

/* Masked language modelling beside the tasks. */
struct prompts_text {
    struct mlm_limits limits;
    struct textstream text;
    struct mlm_words words;
    struct mlm_batch batch;
    struct mlm_learner learner;
    float *dword; /* the word embeddings' gradient */
};

struct prompts {
    const eng_prompts_config *config;
    eng_compute *compute;
    eng_model *model; /* joint: ours to write */
    struct pretrain_run run;
    struct train_bank train;
    struct prompt_tasks tasks;
    struct mrc_gradient gradient;
    struct batch_runner runner; /* of looks at dev */
    struct prompts_text text;   /* when config->mlm_weight > 0 */
    struct prompts_state *state;
    size_t first_route; /* run.tensors[first_route + row] is route `row` */
    size_t first_head;  /* … and [first_head …) the masked head's, if there is one */
    /* of a step: */
    size_t *which;        /* (batch) rows of the set */
    struct mrc_row *rows; /* (batch) */
    int32_t *ids;         /* (batch, positions) sequences with their options reordered */
    float *mix;           /* (rows_per_task, Lp, K) */
    float *noise;         /* (rows_per_task, Lp, K) */
    float *dmerged;       /* (rows_per_task, Lp, P, H) */
    double *scores;       /* (tasks) of the last look */
    const char **names;   /* (tasks) */
    char checkpoint[PATH_MAX], bank[PATH_MAX], last[PATH_MAX], last_dir[PATH_MAX];
};

/* Checks the settings and makes everything but run.kind. prompts_end frees, also after a failure. */
ENG_MUST_CHECK eng_status prompts_begin(struct prompts *p, eng_error *err);
void prompts_end(struct prompts *p);

/* Settles the paths; ENG_EINVAL when something is there already. prompts_write.c. */
ENG_MUST_CHECK eng_status prompts_place(struct prompts *p, eng_error *err);
/* Writes what there is (joint: the model too) as the best, or as the last. */
ENG_MUST_CHECK eng_status prompts_write(struct prompts *p, size_t step, double mean, bool last,
                                        eng_error *err);

#endif
