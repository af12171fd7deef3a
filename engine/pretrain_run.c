/* pretrain_run.c: the loop. A step: gradients from the kind, their norm clipped, AdamW. Every sum has a
 * fixed order, tensors are shared out whole: the same bytes for any number of threads.
 */
#include "engine/pretrain_run.h"

#include "engine/evaluate.h"
#include "engine/pool.h"
#include "engine/status.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- tensors ---- */

eng_status run_check_schedule(const eng_schedule *schedule, eng_error *err)
{
    if (schedule->steps == 0 || !(schedule->weight_decay >= 0) || !(schedule->clip >= 0)) {
        return fail(err, ENG_EINVAL, "settings",
                    "steps above 0, decay and clip not below; got %zu, %g, %g", schedule->steps,
                    schedule->weight_decay, schedule->clip);
    }
    return ENG_OK;
}

eng_status run_init(struct pretrain_run *run, size_t max, eng_error *err)
{
    *run = (struct pretrain_run){.max = max};
    run->tensors = calloc(max, sizeof *run->tensors);
    run->optimisers = calloc(max, sizeof *run->optimisers);
    return run->tensors != NULL && run->optimisers != NULL ? ENG_OK : fail_nomem(err, "settings");
}

void run_fini(struct pretrain_run *run)
{
    for (size_t i = 0; i < run->n; i++) {
        adamw_free(run->optimisers[i]);
    }
    free(run->tensors);
    free(run->optimisers);
    *run = (struct pretrain_run){0};
}

eng_status run_add(struct pretrain_run *run, const struct run_tensor *tensor, eng_error *err)
{
    if (run->n == run->max) {
        return fail(err, ENG_ELIMIT, tensor->name, "more than %zu tensors", run->max);
    }
    struct run_tensor *added = &run->tensors[run->n];
    *added = *tensor;
    added->count = 1;
    for (size_t i = 0; i < tensor->dims; i++) {
        if (!size_mul(added->count, tensor->shape[i], &added->count)) {
            return fail_nomem(err, tensor->name);
        }
    }
    eng_status status = adamw_new(added->count, &run->optimisers[run->n], err);
    run->n += status == ENG_OK;
    return status;
}

/* ---- one step ---- */

double run_step_share(const eng_schedule *schedule, uint64_t step)
{
    if (step < schedule->warmup) {
        return (double)(step + 1) / (double)schedule->warmup;
    }
    double left = (double)schedule->steps - (double)step;
    double of = (double)schedule->steps - (double)schedule->warmup;
    return left / (of > 0 ? of : 1);
}

struct update {
    struct pretrain_run *run;
    double share, decay;
    double *squares; /* of each tensor's gradient */
    float scale;
};

static bool learns(const struct run_tensor *tensor)
{
    return tensor->lr > 0 && !tensor->idle;
}

static void square_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    struct update *update = arg;
    const struct run_tensor *tensor = &update->run->tensors[index];
    double sum = 0;
    for (size_t i = 0; learns(tensor) && i < tensor->count; i++) {
        sum += (double)tensor->gradient[i] * tensor->gradient[i];
    }
    update->squares[index] = sum;
}

static void adamw_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    struct update *update = arg;
    struct run_tensor *tensor = &update->run->tensors[index];
    if (!learns(tensor)) {
        return;
    }
    for (size_t i = 0; update->scale < 1 && i < tensor->count; i++) {
        tensor->gradient[i] *= update->scale;
    }
    adamw_step(update->run->optimisers[index], tensor->lr * update->share,
               tensor->decayed ? update->decay : 0, tensor->gradient, tensor->values);
}

/* Clips and steps; *norm: the gradient's, before clipping. */
static eng_status apply(struct pretrain_run *run, double *norm, eng_error *err)
{
    const eng_schedule *schedule = run->schedule;
    struct update update = {.run = run,
                            .share = run_step_share(schedule, run->step),
                            .decay = schedule->weight_decay,
                            .squares = calloc(run->n + 1, sizeof *update.squares),
                            .scale = 1};
    double sum = 0, work = 0;
    if (update.squares == NULL) {
        return fail_nomem(err, "settings");
    }
    for (size_t i = 0; i < run->n; i++) {
        work += 20.0 * (double)run->tensors[i].count;
    }
    compute_turn_take(run->compute, ENG_TRAINING);
    pool_run(run->compute, run->n, work, square_task, &update);
    for (size_t i = 0; i < run->n; i++) {
        sum += update.squares[i];
    }
    *norm = sqrt(sum);
    if (schedule->clip > 0 && *norm > schedule->clip) {
        update.scale = (float)(schedule->clip / *norm);
    }
    if (isfinite(*norm)) {
        pool_run(run->compute, run->n, work, adamw_task, &update);
    }
    compute_turn_give(run->compute);
    free(update.squares);
    return ENG_OK;
}

static eng_status take_step(struct pretrain_run *run, eng_pretrain_progress *progress,
                            eng_error *err)
{
    uint64_t tokens = 0;
    eng_status status = run->kind->step(run->self, run->step, progress, &tokens, err);
    if (status != ENG_OK) {
        return status;
    }
    progress->lr = run->lr * run_step_share(run->schedule, run->step);
    status = apply(run, &progress->gradient_norm, err);
    if (status != ENG_OK) {
        return status;
    }
    if (!isfinite(progress->loss) || !isfinite(progress->gradient_norm)) {
        return fail(err, ENG_EDIVERGED, "loss",
                    "loss %g, gradient norm %g in step %zu; a smaller step size may help",
                    progress->loss, progress->gradient_norm, (size_t)run->step + 1);
    }
    run->step++;
    run->tokens += tokens;
    return ENG_OK;
}

/* ---- the loop ---- */

struct clock {
    double from;
    uint64_t first, tokens;
};

static bool is_due(uint64_t step, size_t every, size_t steps)
{
    return (every > 0 && step % every == 0) || step == steps;
}

static eng_pretrain_progress no_progress(const struct pretrain_run *run)
{
    return (eng_pretrain_progress){
        .steps = run->schedule->steps, .dev_perplexity = (double)NAN, .dev_score = (double)NAN};
}

static bool tell(const struct pretrain_run *run, const struct clock *clock,
                 eng_pretrain_progress *progress, eng_on_pretrain on_progress, void *arg)
{
    double left = (double)(run->schedule->steps - run->step);
    progress->step = (size_t)run->step;
    progress->tokens = run->tokens;
    progress->seconds = seconds_now() - clock->from;
    progress->tokens_per_second =
        (double)(run->tokens - clock->tokens) / (progress->seconds + 1e-9);
    if (run->step > clock->first) {
        progress->seconds_left = progress->seconds / (double)(run->step - clock->first) * left;
    }
    return on_progress == NULL || on_progress(arg, progress);
}

static eng_status one_step(struct pretrain_run *run, eng_pretrain_progress *progress,
                           eng_error *err)
{
    const eng_schedule *schedule = run->schedule;
    eng_status status = take_step(run, progress, err);
    if (status == ENG_OK && run->kind->look != NULL &&
        is_due(run->step, schedule->dev_every, schedule->steps)) {
        progress->step = (size_t)run->step;
        status = run->kind->look(run->self, progress, err);
    }
    if (status == ENG_OK && schedule->save_every > 0 && run->step % schedule->save_every == 0) {
        status = run_save(run, err);
    }
    return status;
}

static eng_status stop(const struct pretrain_run *run, eng_error *err)
{
    eng_status status = run_save(run, err);
    return status != ENG_OK
               ? status
               : fail(err, ENG_ECANCELLED, NULL, "stopped after step %zu; the checkpoint is saved",
                      (size_t)run->step);
}

static eng_status finish(struct pretrain_run *run, eng_error *err)
{
    eng_status status = run->kind->finish(run->self, err);
    if (status == ENG_OK && unlink(run->checkpoint) != 0 && errno != ENOENT) {
        status = fail(err, ENG_EIO, "to", "cannot remove %s: %s", run->checkpoint, strerror(errno));
    }
    return status;
}

eng_status run_steps(struct pretrain_run *run, eng_on_pretrain on_progress, void *arg,
                     eng_error *err)
{
    eng_status status = run->schedule->resume ? run_load(run, err) : ENG_OK;
    struct clock clock = {seconds_now(), run->step, run->tokens};
    if (status == ENG_OK && run->step == 0 && run->kind->look_first) {
        eng_pretrain_progress progress = no_progress(run);
        status = run->kind->look(run->self, &progress, err);
        if (status == ENG_OK && !tell(run, &clock, &progress, on_progress, arg)) {
            return stop(run, err);
        }
    }
    while (status == ENG_OK && run->step < run->schedule->steps) {
        eng_pretrain_progress progress = no_progress(run);
        status = one_step(run, &progress, err);
        if (status == ENG_OK && !tell(run, &clock, &progress, on_progress, arg)) {
            return stop(run, err);
        }
    }
    return status == ENG_OK ? finish(run, err) : status;
}
