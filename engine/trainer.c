/* trainer.c: the loop that follows a gradient.
 *
 * A step draws a batch of rows (all of them when they are few; else epochs, reshuffled), runs it in
 * micro-batches small enough to let predictions in between, and adds their gradients in a fixed
 * order: the same seed gives the same bytes whatever else the machine does. The loss is what is served: of
 * labels −ln p(label) as they are read (trainer_scaling.c), else that of the two pointers. Rows without a target
 * (an answer that was cut away) do not train.
 */
#include "engine/trainer.h"

#include "engine/answer_length.h"
#include "engine/full.h"
#include "engine/mrc.h"
#include "engine/opt_adamw.h"
#include "engine/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t learner_prompt_floats(const struct learner *learner)
{
    const eng_bank *bank = learner->bank;
    return bank->info.layers * bank->info.prompt_tokens * bank->model->info.hidden;
}

size_t learner_head_floats(const struct learner *learner)
{
    return 2 * learner->model->info.hidden + 2;
}

const eng_model *learner_model(const struct learner *learner)
{
    return learner->own_model != NULL ? learner->own_model : learner->model;
}

const eng_bank *learner_bank(const struct learner *learner)
{
    return learner->own_bank != NULL ? learner->own_bank : learner->bank;
}

/* ---- room ------------------------------------------------------------------------------------------ */

static eng_status make_order(struct learner *learner, eng_error *err)
{
    learner->order = calloc(learner->train.n + 1, sizeof *learner->order);
    if (learner->order == NULL) {
        return fail_nomem(err, "rows");
    }
    for (size_t i = 0; i < learner->train.n; i++) {
        if (learner->train.items[i].has_target) {
            learner->order[learner->n_order++] = i;
        }
    }
    learner->order_at = learner->n_order; /* the first draw shuffles */
    if (learner->n_order == 0) {
        return fail(err, ENG_EINVAL, "training_file",
                    "none of the %zu training rows can train: their answers do not fit the model",
                    learner->train.n);
    }
    return ENG_OK;
}

eng_status learner_init(struct learner *learner, const eng_dataset *train_set, const size_t *train,
                        size_t n_train, const eng_dataset *dev_set, const size_t *dev, size_t n_dev,
                        eng_error *err)
{
    size_t labels = eng_task_label_count(learner->task), limit = learner->config.text_limit;
    rng_seed(&learner->rng, learner->config.seed);
    learner->began = learner->saved_at = seconds_now();
    eng_status status = batch_rows_make(learner->task, train_set, train, n_train, limit, true,
                                        &learner->train, err);
    if (status == ENG_OK) {
        learner->answer_length = answer_length_of(&learner->train);
        status = make_order(learner, err);
    }
    if (status == ENG_OK && n_dev > 0) {
        status =
            batch_rows_make(learner->task, dev_set, dev, n_dev, limit, false, &learner->dev, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    size_t mix = learner->bank->info.layers * learner->bank->info.modules;
    learner->mix_room = calloc(mix + 1, sizeof *learner->mix_room);
    learner->confusion = calloc(labels * labels + 1, sizeof *learner->confusion);
    learner->route = calloc(learner->bank->info.route_len + 1, sizeof *learner->route);
    if (learner->mix_room == NULL || learner->confusion == NULL || learner->route == NULL) {
        return fail_nomem(err, "adapt");
    }
    status = scaling_init(learner, err);
    if (status != ENG_OK) {
        return status;
    }
    size_t longest = learner->train.longest;
    longest = learner->dev.longest > longest ? learner->dev.longest : longest;
    return batch_runner_init(&learner->runner, learner->compute, ENG_TRAINING,
                             learner_model(learner), longest, err);
}

void learner_fini(struct learner *learner)
{
    batch_rows_fini(&learner->train);
    batch_rows_fini(&learner->dev);
    batch_runner_fini(&learner->runner);
    encoder_tape_free(learner->tape);
    free(learner->order);
    free(learner->dprompt);
    free(learner->dstart);
    free(learner->dend);
    free(learner->dmerged);
    free(learner->route);
    free(learner->mix_room);
    free(learner->prompt_room);
    free(learner->head_room);
    free(learner->confusion);
    scaling_fini(&learner->scaling);
    eng_model_free(learner->own_model);
    full_free_bank(learner->own_bank);
    memset(learner, 0, sizeof *learner);
}

size_t learner_tokens(const struct learner *learner)
{
    return learner->runner.tokens + learner->train_tokens;
}

size_t learner_sequences(const struct learner *learner)
{
    return learner->runner.sequences + learner->train_sequences;
}

/* The tape and gradients of all stages, made when the first one asks. */
static eng_status make_tape(struct learner *learner, eng_error *err)
{
    size_t floats = learner_prompt_floats(learner), all = 0;
    unsigned want = 0;
    for (size_t i = 0; i < learner->method->n_stages; i++) {
        want |= learner->method->stages[i].part->want;
    }
    if (learner->tape != NULL) {
        return ENG_OK;
    }
    if (!size_mul(floats, BATCH_MAX_SEQUENCES * sizeof(float), &all)) {
        return fail_nomem(err, "adapt");
    }
    learner->dprompt = malloc(all);
    learner->dmerged = calloc(floats, sizeof *learner->dmerged);
    learner->dstart = calloc(learner->runner.max_tokens, sizeof *learner->dstart);
    learner->dend = calloc(learner->runner.max_tokens, sizeof *learner->dend);
    if (learner->dprompt == NULL || learner->dmerged == NULL || learner->dstart == NULL ||
        learner->dend == NULL) {
        return fail_nomem(err, "adapt");
    }
    return encoder_tape_new(learner_model(learner), learner->runner.max_tokens, BATCH_MAX_SEQUENCES,
                            want, &learner->tape, err);
}

/* ---- looking at dev ---------------------------------------------------------------------------------- */

bool look_is_better(const eng_task *task, const struct look *look, const struct look *than)
{
    eng_task_type type = eng_task_get_type(task);
    double score = eng_score_of(type, look->accuracy, look->macro_f1);
    double to_beat = eng_score_of(type, than->accuracy, than->macro_f1);
    return score > to_beat || (!(score < to_beat) && look->loss < than->loss);
}

eng_status learner_look(struct learner *learner, struct look *look, eng_error *err)
{
    size_t labels = eng_task_label_count(learner->task);
    const struct learn_scaling *scaling = &learner->scaling;
    bool has_dev = learner->dev.n > 0;
    eng_status status = scaling_fit(learner, err);
    struct tally tally = {.task = learner->task,
                          .confusion = labels > 0 ? learner->confusion : NULL,
                          .reading = {learner->answer_length, {scaling->of_train, scaling->len}},
                          .scored = has_dev && scaling->len > 0 ? &learner->scaling.scored : NULL};
    memset(learner->confusion, 0, labels * labels * sizeof *learner->confusion);
    if (status == ENG_OK) {
        status = tally_rows(&tally, &learner->runner, learner_bank(learner),
                            has_dev ? &learner->dev : &learner->train, &learner->carried, err);
    }
    *look = (struct look){tally_accuracy(&tally), tally_macro_f1(&tally), tally_loss(&tally)};
    return status;
}

/* ---- one step ------------------------------------------------------------------------------------------- */

/* The next `n` items of training into `items`; a new epoch is shuffled anew. */
static void draw(struct learner *learner, size_t n, size_t *items)
{
    for (size_t i = 0; i < n; i++) {
        if (learner->order_at == learner->n_order) {
            rng_shuffle(&learner->rng, learner->order, learner->n_order);
            learner->order_at = 0;
        }
        items[i] = learner->order[learner->order_at++];
    }
}

/* Items [0, count) that fit the tape, as sequences and targets. */
struct micro {
    eng_sequence sequences[BATCH_MAX_SEQUENCES];
    const struct batch_item *items[BATCH_MAX_SEQUENCES];
    size_t start[BATCH_MAX_SEQUENCES], end[BATCH_MAX_SEQUENCES];
    size_t n, tokens;
};

static void fill_micro(const struct learner *learner, const size_t *items, size_t n,
                       struct micro *micro)
{
    micro->n = micro->tokens = 0;
    while (micro->n < n && micro->n < BATCH_MAX_SEQUENCES) {
        const struct batch_item *item = &learner->train.items[items[micro->n]];
        if (micro->tokens + item->len > learner->runner.max_tokens) {
            break;
        }
        micro->sequences[micro->n] = batch_sequence(item, learner_bank(learner), &learner->carried);
        micro->items[micro->n] = item;
        micro->start[micro->n] = item->start;
        micro->end[micro->n] = item->end;
        micro->tokens += item->len;
        micro->n++;
    }
}

static void scale(float *values, size_t n, float by)
{
    for (size_t i = 0; i < n; i++) {
        values[i] *= by;
    }
}

/* Mean −ln p(label) of the micro-batch, as labels are read since the last look, and its derivatives: where
 * the pointers point beside the labels is nobody's business then. */
static double label_loss(const struct learner *learner, const struct micro *micro,
                         const float *start, const float *end, float *dstart, float *dend)
{
    const eng_label_scaling scaling = {learner->scaling.of_train, learner->scaling.len};
    double by_scores[ENG_MAX_LABELS], loss = 0, weight = 1 / (double)micro->n;
    size_t at = 0;
    memset(dstart, 0, micro->tokens * sizeof *dstart);
    memset(dend, 0, micro->tokens * sizeof *dend);
    for (size_t i = 0; i < micro->n; i++) {
        const struct batch_item *item = micro->items[i];
        loss += weight * item_label_loss(item, &scaling, start + at, end + at, by_scores);
        mrc_option_gradient(item->encoded, by_scores, weight, dstart + at, dend + at);
        at += item->len;
    }
    return loss;
}

/* Adds the micro-batch's share (share = its rows / the step's rows) to *loss and dmerged. */
static eng_status micro_gradient(struct learner *learner, const struct micro *micro, double share,
                                 double *loss, eng_error *err)
{
    float *start = learner->runner.start, *end = learner->runner.end;
    float *dstart = learner->dstart, *dend = learner->dend;
    eng_status status = encoder_forward_keep(learner->compute, learner->tape, ENG_TRAINING,
                                             micro->sequences, micro->n, start, end, err);
    if (status != ENG_OK) {
        return status;
    }
    *loss += share * (learner->scaling.len > 0
                          ? label_loss(learner, micro, start, end, dstart, dend)
                          : encoder_mrc_loss(micro->sequences, micro->n, start, end, micro->start,
                                             micro->end, dstart, dend));
    scale(dstart, micro->tokens, (float)share);
    scale(dend, micro->tokens, (float)share);
    status = encoder_backward(learner->compute, learner->tape, ENG_TRAINING, dstart, dend,
                              learner->dprompt, err);
    size_t floats = learner_prompt_floats(learner);
    for (size_t i = 0; i < micro->n && status == ENG_OK; i++) {
        for (size_t k = 0; k < floats; k++) {
            learner->dmerged[k] += learner->dprompt[i * floats + k];
        }
    }
    learner->train_tokens += micro->tokens;
    learner->train_sequences += micro->n;
    return status;
}

/* Mean loss of a batch and its gradient: by the merged prompt into learner->dmerged, the others into the
 * tape. */
static eng_status batch_gradient(struct learner *learner, const size_t *items, size_t n,
                                 double *loss, eng_error *err)
{
    struct micro micro;
    *loss = 0;
    encoder_tape_zero(learner->tape);
    memset(learner->dmerged, 0, learner_prompt_floats(learner) * sizeof *learner->dmerged);
    for (size_t done = 0; done < n; done += micro.n) {
        fill_micro(learner, items + done, n - done, &micro);
        eng_status status = micro_gradient(learner, &micro, (double)micro.n / (double)n, loss, err);
        if (status != ENG_OK) {
            return status;
        }
    }
    return ENG_OK;
}

static bool all_finite(const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i])) {
            return false;
        }
    }
    return true;
}

/* ---- a stage -------------------------------------------------------------------------------------------- */

struct stage_room {
    struct adamw *opt;
    float *gradient;
    size_t *items;
    size_t batch;
    double lr;
};

static eng_status diverged(size_t step, double loss, double lr, eng_error *err)
{
    return fail(err, ENG_EDIVERGED, "loss",
                "the loss is %g at step %zu: try a smaller step size than %g", loss, step, lr);
}

static eng_status take_step(struct learner *learner, const struct learn_part *part,
                            struct stage_room *room, struct stage_run *run, eng_error *err)
{
    size_t size = part->size(learner);
    draw(learner, room->batch, room->items);
    part->use(learner, run->params);
    eng_status status = batch_gradient(learner, room->items, room->batch, &run->train_loss, err);
    if (status != ENG_OK) {
        return status;
    }
    part->gradient(learner, run->params, room->gradient);
    run->steps++;
    if (!isfinite(run->train_loss) || !all_finite(room->gradient, size)) {
        return diverged(run->steps, run->train_loss, room->lr, err);
    }
    adamw_step(room->opt, room->lr, learner->config.weight_decay, room->gradient, run->params);
    if (!all_finite(run->params, size)) {
        return diverged(run->steps, (double)INFINITY, room->lr, err);
    }
    return ENG_OK;
}

void progress_not_looked(eng_progress *progress)
{
    progress->dev_loss = progress->dev_accuracy = progress->dev_macro_f1 = (double)NAN;
}

eng_status learner_consider(struct learner *learner, const struct learn_part *part,
                            const float *params, struct stage_run *run, eng_progress *progress,
                            eng_error *err)
{
    struct look look;
    part->use(learner, params);
    eng_status status = learner_look(learner, &look, err);
    if (status != ENG_OK) {
        return status;
    }
    progress->dev_loss = look.loss;
    progress->dev_accuracy = look.accuracy;
    progress->dev_macro_f1 = look.macro_f1;
    progress->best = look_is_better(learner->task, &look, &run->look);
    if (progress->best) {
        run->look = look;
        run->moved = true;
        run->best_step = run->steps;
        memcpy(run->best, params, part->size(learner) * sizeof *run->best);
        status = scaling_keep(learner, err);
    }
    return status;
}

eng_status learner_report(struct learner *learner, struct stage_run *run, eng_progress *progress,
                          eng_error *err)
{
    const eng_adapt_config *config = &learner->config;
    double now = seconds_now(), seconds = now - learner->began;
    eng_verdict verdict = ENG_GO_ON;
    if (learner->dev.n == 0) { /* what was looked at are the rows that train */
        progress_not_looked(progress);
    }
    progress->step = run->steps;
    progress->steps = learner->total_steps;
    progress->train_loss = run->train_loss;
    progress->tokens = learner_tokens(learner);
    progress->seconds = seconds;
    if (learner->on_progress != NULL) {
        verdict = learner->on_progress(learner->on_progress_arg, progress);
    }
    learner->cancelled = verdict != ENG_GO_ON;
    size_t from = run->best_step > run->first_step ? run->best_step : run->first_step;
    bool idle = config->patience > 0 && run->steps - from >= config->patience * config->eval_every;
    learner->stop =
        learner->cancelled || idle || (learner->seconds > 0 && seconds >= learner->seconds);
    bool due = config->checkpoint_seconds > 0 && verdict == ENG_GO_ON &&
               now - learner->saved_at >= config->checkpoint_seconds;
    if (config->on_checkpoint == NULL || !(due || verdict == ENG_PAUSE)) {
        return ENG_OK;
    }
    return learner_checkpoint(learner, run, err);
}

static eng_status make_room(struct learner *learner, const struct learn_stage *stage,
                            struct stage_room *room, eng_error *err)
{
    size_t size = stage->part->size(learner);
    room->lr = learner->config.lr;
    if (stage->width_lr > 0) {
        room->lr = learner->config.prompt_lr > 0
                       ? learner->config.prompt_lr
                       : stage->width_lr / (double)learner->model->info.hidden;
    }
    room->batch =
        learner->config.batch < learner->n_order ? learner->config.batch : learner->n_order;
    room->gradient = calloc(size, sizeof *room->gradient);
    room->items = calloc(room->batch, sizeof *room->items);
    if (room->gradient == NULL || room->items == NULL) {
        return fail_nomem(err, "adapt");
    }
    eng_status status = adamw_new(size, &room->opt, err);
    return status == ENG_OK ? make_tape(learner, err) : status;
}

/* One step, a look at dev when it is time, and a word to the caller. */
static eng_status one_step(struct learner *learner, const struct learn_part *part,
                           struct stage_room *room, bool last, struct stage_run *run,
                           eng_error *err)
{
    eng_progress progress = {0};
    progress_not_looked(&progress);
    eng_status status = take_step(learner, part, room, run, err);
    if (status == ENG_OK && (last || run->steps % learner->config.eval_every == 0)) {
        status = learner_consider(learner, part, run->params, run, &progress, err);
        if (status == ENG_OK && !isfinite(progress.dev_loss) && learner->dev.n == 0) {
            status = diverged(run->steps, progress.dev_loss, room->lr, err);
        }
    }
    return status == ENG_OK ? learner_report(learner, run, &progress, err) : status;
}

static bool move_room(void *loop, struct blob *blob)
{
    struct stage_room *room = loop;
    size_t bytes = adamw_bytes(room->opt);
    bool ok = false;
    unsigned char *at = blob_take(blob, bytes, &ok);
    if (at != NULL && blob->mode == BLOB_WRITE) {
        adamw_save(room->opt, at);
    }
    return ok && (blob->mode != BLOB_READ || adamw_load(room->opt, at, bytes, NULL) == ENG_OK);
}

static eng_status descend(struct learner *learner, const struct learn_stage *stage, size_t steps,
                          struct stage_run *run, eng_error *err)
{
    struct stage_room room = {0};
    eng_status status = make_room(learner, stage, &room, err);
    run->loop = &room;
    run->move_loop = move_room;
    if (status == ENG_OK && learner->resuming) {
        status = learner_resume_stage(learner, run, err);
    }
    size_t end = run->first_step + steps;
    while (run->steps < end && !learner->stop && status == ENG_OK) {
        status = one_step(learner, stage->part, &room, run->steps + 1 == end, run, err);
    }
    adamw_free(room.opt);
    free(room.gradient);
    free(room.items);
    return status;
}

eng_status learner_stage(struct learner *learner, const struct learn_stage *stage, size_t steps,
                         struct stage_run *run, eng_error *err)
{
    learner->stop = false;
    eng_status status = stage->search != NULL ? learner_search(learner, stage, steps, run, err)
                                              : descend(learner, stage, steps, run, err);
    if (status == ENG_OK && learner->cancelled) {
        status = fail(err, ENG_ECANCELLED, NULL, "cancelled at step %zu", run->steps);
    }
    return status;
}
