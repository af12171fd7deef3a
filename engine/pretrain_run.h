/* pretrain_run.h (private): the one loop of every pre-training, and what a pre-training tells it.
 *
 *     a run = tensors that are trained + a step that fills their gradients + a schedule
 *
 * The loop clips, steps (AdamW, a step size for each tensor), looks at dev, saves, reports and watches
 * the caller. The checkpoint is one file, replaced whole: a fixed head, the kind's own state, every
 * tensor's values, every optimiser's block. It belongs to the machine and the settings it was made
 * with: a hash of them is in it. A run belongs to one thread, but for what the compute pool does.
 */
#ifndef ENGINE_PRETRAIN_RUN_H
#define ENGINE_PRETRAIN_RUN_H

#include "engine/opt_adamw.h"

#define RUN_SETTINGS 32 /* bytes of a hash */

/* One tensor in training. A gradient is overwritten by every step of the kind. */
struct run_tensor {
    char name[96];
    size_t dims, shape[3], count;
    float *values, *gradient;
    double lr;    /* of its group; the schedule scales it. 0: stays as it is */
    bool decayed; /* weight decay applies */
    bool idle;    /* this step has nothing to say about it: neither moments nor values move */
};

/* What a pre-training says about itself. All calls get `self`. */
struct run_kind {
    char magic[16]; /* of its checkpoints */
    /* Fills the gradients, *loss and *tokens (of this step) for step `step` (from 0), and may fill
     * in progress->task. */
    eng_status (*step)(void *self, uint64_t step, eng_pretrain_progress *progress, uint64_t *tokens,
                       eng_error *err);
    /* Looks at dev and fills its part of the progress; progress->step is what was done. NULL: none. */
    eng_status (*look)(void *self, eng_pretrain_progress *progress, eng_error *err);
    bool look_first; /* look once before the first step, and report it as step 0 */
    /* What is left when all steps are done; the loop then removes the checkpoint. */
    eng_status (*finish)(void *self, eng_error *err);
    /* Whether a state read back makes sense; NULL: any does. */
    eng_status (*check)(const void *self, const char *path, eng_error *err);
};

struct pretrain_run {
    eng_compute *compute;
    const struct run_kind *kind;
    void *self;
    const eng_schedule *schedule;
    const char *checkpoint; /* path */
    double lr;              /* reported: of the first group that learns */
    struct run_tensor *tensors;
    struct adamw **optimisers;
    size_t n, max;
    unsigned char settings[RUN_SETTINGS];
    void *state; /* the kind's own, saved with everything else */
    size_t state_bytes;
    uint64_t step, tokens;
};

/* ENG_EINVAL names the setting that makes no sense. */
ENG_MUST_CHECK eng_status run_check_schedule(const eng_schedule *schedule, eng_error *err);

/* Room for at most `max` tensors; the caller then fills in the rest of the struct. run_fini frees, also
 * after a failure. */
ENG_MUST_CHECK eng_status run_init(struct pretrain_run *run, size_t max, eng_error *err);
void run_fini(struct pretrain_run *run);
/* Adds a tensor (count from its shape) and its optimiser. */
ENG_MUST_CHECK eng_status run_add(struct pretrain_run *run, const struct run_tensor *tensor,
                                  eng_error *err);

/* The schedule's share of a step size at step `step` (from 0): linear up, then linear down to 0. */
double run_step_share(const eng_schedule *schedule, uint64_t step);

/* ENG_OK when `path` is free, or is a checkpoint that may be gone on with (*found). */
ENG_MUST_CHECK eng_status run_may_begin(const char *checkpoint, const char *output, bool resume,
                                        eng_error *err);
ENG_MUST_CHECK eng_status run_save(const struct pretrain_run *run, eng_error *err);
/* ENG_OK also when there is no checkpoint; a foreign or damaged one is an error. */
ENG_MUST_CHECK eng_status run_load(struct pretrain_run *run, eng_error *err);

/* Loads the checkpoint if the schedule resumes, then steps to the end. */
ENG_MUST_CHECK eng_status run_steps(struct pretrain_run *run, eng_on_pretrain on_progress,
                                    void *arg, eng_error *err);

#endif
