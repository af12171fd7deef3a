/* folds.c: cross-validation around whole runs. Contract in folds.h.
 *
 * A fold's run is one of adapt_once like any other; what is known of its vector on the fold comes with
 * its progress. A search looks only at what improves it, so between looks the last one stands. A
 * checkpoint holds the curve so far and the block of the run that is on.
 */
#include "engine/folds.h"

#include "engine/evaluate.h"
#include "engine/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KIND_FOLDS 0x4446 /* "FD" */

/* Sums over the rows left out, after g · eval_every steps. */
struct fold_look {
    double rows, right, f1, loss; /* means · rows */
};

struct folds {
    const struct adapt_call *call;
    const struct learn_method *method;
    eng_adapt_config config;
    size_t *fold_of;     /* (n_train) */
    size_t *train, *dev; /* rows of the run that is on */
    size_t n_train, n_dev;
    size_t steps[METHOD_MAX_STAGES], total;
    size_t looks; /* places of the curve */
    struct fold_look *curve;
    size_t chosen[METHOD_MAX_STAGES];
    /* saved in checkpoints beside the curve: */
    struct folds_now {
        uint64_t fold;           /* the one left out; config.folds: the last run, on all rows */
        uint64_t tokens, passes; /* of the runs before */
        double seconds;
        struct look look; /* the last of this run */
    } now;
};

/* ---- dealing ------------------------------------------------------------------------------------------ */

static void deal(struct folds *f)
{
    const struct adapt_call *call = f->call;
    bool labels = eng_dataset_get_info(call->train_set)->labels > 0;
    size_t seen[ENG_MAX_LABELS] = {0};
    struct rng rng;
    for (size_t i = 0; i < call->n_train; i++) {
        f->train[i] = i;
    }
    rng_seed(&rng, f->config.seed);
    rng_shuffle(&rng, f->train, call->n_train);
    for (size_t i = 0; i < call->n_train; i++) {
        eng_example row;
        eng_dataset_row(call->train_set, call->train[f->train[i]], &row, NULL);
        f->fold_of[f->train[i]] = seen[labels ? row.label : 0]++ % f->config.folds;
    }
}

static void take_rows(struct folds *f)
{
    f->n_train = f->n_dev = 0;
    for (size_t i = 0; i < f->call->n_train; i++) {
        if (f->fold_of[i] == f->now.fold) {
            f->dev[f->n_dev++] = f->call->train[i];
        } else {
            f->train[f->n_train++] = f->call->train[i];
        }
    }
}

/* ---- the curve ---------------------------------------------------------------------------------------- */

static void add_look(struct folds *f, size_t place, const struct look *look)
{
    if (place < f->looks && isfinite(look->loss)) {
        f->curve[place].rows += (double)f->n_dev;
        f->curve[place].right += look->accuracy * (double)f->n_dev;
        f->curve[place].f1 += look->macro_f1 * (double)f->n_dev;
        f->curve[place].loss += look->loss * (double)f->n_dev;
    }
}

static struct look look_of(const struct fold_look *sums)
{
    return (struct look){sums->right / sums->rows, sums->f1 / sums->rows, sums->loss / sums->rows};
}

/* The best place of from … to that every row has been looked at in; `from` when there is none. */
static size_t best_place(const struct folds *f, size_t from, size_t to)
{
    const eng_task *task = f->call->task;
    size_t best = from;
    for (size_t i = from; i <= to && i < f->looks; i++) {
        bool whole = f->curve[i].rows >= (double)f->call->n_train;
        struct look one = look_of(&f->curve[i]), than = look_of(&f->curve[best]);
        if (whole &&
            (f->curve[best].rows < f->curve[i].rows || look_is_better(task, &one, &than))) {
            best = i;
        }
    }
    return best;
}

/* Steps of each stage, and the place of the whole. */
static size_t choose(struct folds *f)
{
    size_t every = f->config.eval_every, end = f->steps[0] / every;
    size_t first = best_place(f, 0, end), best = best_place(f, 0, f->looks - 1);
    f->chosen[0] = first * every;
    for (size_t i = 1; i < f->method->n_stages; i++) {
        f->chosen[i] = best > end ? best * every - f->steps[0] : 0;
    }
    return f->method->n_stages > 1 ? best : first;
}

/* ---- checkpoints --------------------------------------------------------------------------------------- */

static struct blob_frame frame_of(const struct folds *f)
{
    uint64_t numbers[] = {f->config.folds, f->config.seed, f->call->n_train, f->looks};
    return (struct blob_frame){"checkpoint", KIND_FOLDS,
                               blob_hash(HASH_START, numbers, sizeof numbers)};
}

/* All but the block of the run that is on. */
static bool move(struct folds *f, struct blob *blob)
{
    return blob_move(blob, &f->now, sizeof f->now) && f->now.fold <= f->config.folds &&
           blob_move(blob, f->curve, f->looks * sizeof *f->curve);
}

static void on_checkpoint(void *arg, const void *block, size_t bytes)
{
    struct folds *f = arg;
    struct blob count = blob_count();
    bool ok = move(f, &count);
    unsigned char *whole = ok ? malloc(count.used + bytes) : NULL;
    if (whole == NULL) {
        return; /* the next one may find room */
    }
    struct blob blob = blob_write(whole);
    struct blob_frame frame = frame_of(f);
    if (move(f, &blob)) {
        memcpy(whole + blob.used, block, bytes);
        blob_close(&frame, whole, blob.used + bytes);
        f->config.on_checkpoint(f->config.checkpoint_arg, whole, blob.used + bytes);
    }
    free(whole);
}

/* Leaves the block of the run that was on in f->config. */
static eng_status resume(struct folds *f, eng_error *err)
{
    const unsigned char *block = f->config.resume;
    size_t bytes = f->config.resume_bytes;
    struct blob_frame frame = frame_of(f);
    eng_status status = blob_check(&frame, block, bytes, err);
    struct blob blob = blob_read(block, bytes);
    if (status == ENG_OK && !move(f, &blob)) {
        status = fail(err, ENG_EFORMAT, "checkpoint", "saved state holds impossible numbers");
    }
    f->config.resume = block + blob.used;
    f->config.resume_bytes = bytes - blob.used;
    return status;
}

/* ---- runs ------------------------------------------------------------------------------------------------ */

static eng_verdict on_progress(void *arg, const eng_progress *progress)
{
    struct folds *f = arg;
    eng_progress told = *progress;
    if (isfinite(progress->dev_loss)) {
        f->now.look =
            (struct look){progress->dev_accuracy, progress->dev_macro_f1, progress->dev_loss};
    }
    if (progress->step % f->config.eval_every == 0 && f->now.fold < f->config.folds) {
        add_look(f, progress->step / f->config.eval_every, &f->now.look);
    }
    told.step += f->now.fold * f->total;
    told.steps = (f->config.folds + 1) * f->total;
    told.fold = f->now.fold;
    told.folds = f->config.folds;
    told.tokens += f->now.tokens;
    told.seconds += f->now.seconds;
    return f->call->on_progress != NULL ? f->call->on_progress(f->call->arg, &told) : ENG_GO_ON;
}

/* The run of fold now.fold, or the last. */
static eng_status run(struct folds *f, eng_adapt_result *result, eng_error *err)
{
    struct adapt_call call = *f->call;
    eng_adapt_config config = f->config;
    bool last = f->now.fold == config.folds;
    config.folds = 0;
    config.patience = 0; /* the curve wants all of it */
    config.seconds = config.seconds / (double)(f->config.folds + 1);
    call.on_progress = on_progress;
    call.arg = f;
    if (config.on_checkpoint != NULL) {
        config.on_checkpoint = on_checkpoint;
        config.checkpoint_arg = f;
    }
    take_rows(f);
    call.train = last ? call.train : f->train;
    call.n_train = last ? call.n_train : f->n_train;
    call.dev_set = last ? NULL : call.train_set;
    call.dev = f->dev;
    call.n_dev = f->n_dev;
    eng_status status = adapt_once(&call, &config, last ? f->chosen : NULL, result, err);
    f->config.resume = NULL; /* only the first run resumes */
    return status;
}

static eng_status run_fold(struct folds *f, eng_error *err)
{
    eng_adapt_result result;
    if (f->config.resume == NULL) {
        f->now.look = (struct look){(double)NAN, (double)NAN, (double)NAN};
    }
    eng_status status = run(f, &result, err);
    if (status == ENG_OK || status == ENG_EDIVERGED) { /* what diverges leaves a shorter curve */
        status = ENG_OK;
        const struct look before = {result.dev_accuracy_before, result.dev_macro_f1_before,
                                    result.dev_loss_before};
        add_look(f, 0, &before);
        f->now.tokens += result.tokens;
        f->now.passes += result.forward_passes;
        f->now.seconds += result.seconds;
        f->now.fold++;
    }
    eng_adapt_result_fini(&result);
    return status;
}

static eng_status run_last(struct folds *f, eng_adapt_result *result, eng_error *err)
{
    size_t best = choose(f);
    struct look look = look_of(&f->curve[best]), before = look_of(&f->curve[0]);
    eng_status status = run(f, result, err);
    result->folds = f->config.folds;
    result->best_step = best * f->config.eval_every;
    result->dev_accuracy = look.accuracy;
    if (eng_task_get_type(f->call->task) == ENG_EXTRACTIVE) { /* of labels it is no mean of rows */
        result->dev_macro_f1 = look.macro_f1;
        result->dev_macro_f1_before = before.macro_f1;
    }
    result->dev_loss = look.loss;
    result->dev_accuracy_before = before.accuracy;
    result->dev_loss_before = before.loss;
    result->tokens += f->now.tokens;
    result->forward_passes += f->now.passes;
    result->seconds += f->now.seconds;
    return status;
}

/* ---- all of it ---------------------------------------------------------------------------------------------- */

static eng_status make_room(struct folds *f, eng_error *err)
{
    const struct learner learner = {
        .bank = f->call->bank, .model = f->call->model, .config = f->config, .method = f->method};
    size_t n = f->call->n_train;
    for (size_t i = 0; i < f->method->n_stages; i++) {
        eng_status status = learner_budget(&learner, f->method, i, &f->steps[i], err);
        if (status != ENG_OK) {
            return status;
        }
        f->total += f->steps[i];
        if (f->steps[i] > 0 && f->steps[i] < f->config.eval_every) {
            f->config.eval_every = f->steps[i]; /* else a short stage would never be looked at */
        }
    }
    f->looks = f->total / f->config.eval_every + 1;
    f->curve = calloc(f->looks, sizeof *f->curve);
    f->fold_of = calloc(n, sizeof *f->fold_of);
    f->train = calloc(n, sizeof *f->train);
    f->dev = calloc(n, sizeof *f->dev);
    return f->curve != NULL && f->fold_of != NULL && f->train != NULL && f->dev != NULL
               ? ENG_OK
               : fail_nomem(err, "folds");
}

eng_status adapt_folds(const struct adapt_call *call, const eng_adapt_config *config,
                       eng_adapt_result *result, eng_error *err)
{
    struct folds f = {.call = call, .method = method_find(config->method), .config = *config};
    memset(result, 0, sizeof *result);
    if (call->n_train < 2 * config->folds) {
        return fail(err, ENG_EINVAL, "folds", "%zu rows are too few for %zu folds", call->n_train,
                    config->folds);
    }
    eng_status status = make_room(&f, err);
    if (status == ENG_OK) {
        deal(&f);
        status = config->resume != NULL ? resume(&f, err) : ENG_OK;
    }
    while (status == ENG_OK && f.now.fold < f.config.folds) {
        status = run_fold(&f, err);
    }
    if (status == ENG_OK) {
        status = run_last(&f, result, err);
    }
    free(f.curve);
    free(f.fold_of);
    free(f.train);
    free(f.dev);
    return status;
}

/* ---- the rule ------------------------------------------------------------------------------------------------- */

size_t eng_folds(const eng_dataset *set)
{
    const eng_dataset_info *info = eng_dataset_get_info(set);
    size_t rarest = info->labels > 0 ? SIZE_MAX : info->rows;
    for (size_t i = 0; i < info->labels; i++) {
        size_t rows = eng_dataset_label_rows(set, i);
        rarest = rows < rarest ? rows : rarest;
    }
    size_t enough = info->labels > 0 ? ENG_FEW_ROWS : 2 * ENG_FEW_ROWS;
    if (rarest >= enough || rarest < 2) {
        return 0;
    }
    size_t most = info->rows / 2 < ENG_USUAL_FOLDS ? info->rows / 2 : ENG_USUAL_FOLDS;
    size_t folds = rarest < most ? rarest : most;
    return folds < 2 ? 0 : folds;
}
