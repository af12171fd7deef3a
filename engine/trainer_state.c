/* trainer_state.c: a run on its way as one block of bytes, and back.
 *
 *     block = frame · the run's numbers · order of the rows · route, labels' scaling, tuned prompt and head so far
 *             · the stage's vector and its best · the loop's own (moments, or searches)
 *
 * A stage begins the same way in a resumed run: with the generator as it was then it makes the same
 * start and the same searches, and then all that has happened since is moved in. What a block says is
 * checked before it is believed: it may come from a disk that lies.
 */
#include "engine/status.h"
#include "engine/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KIND_RUN 0x4E52 /* "RN" */

/* ---- whose state it is ------------------------------------------------------------------------------- */

static uint64_t hash_text(uint64_t hash, const char *text)
{
    return blob_hash(hash, text, strlen(text) + 1);
}

static uint64_t hash_rows(uint64_t hash, const struct batch_rows *rows)
{
    hash = blob_hash(hash, &rows->n, sizeof rows->n);
    for (size_t i = 0; i < rows->n; i++) {
        const struct batch_item *item = &rows->items[i];
        uint64_t numbers[] = {item->len, item->has_target, item->start,
                              item->end, item->row.label,  item->row.answer.len};
        hash = blob_hash(hash, numbers, sizeof numbers);
        hash = blob_hash(hash, item->ids, item->len * sizeof *item->ids);
        hash = blob_hash(hash, item->row.answer.data, item->row.answer.len);
    }
    return hash;
}

void learner_identify(struct learner *learner)
{
    const eng_adapt_config *c = &learner->config;
    uint64_t counts[] = {c->init,
                         c->steps,
                         c->batch,
                         c->eval_every,
                         c->seed,
                         c->text_limit,
                         c->patience,
                         c->evaluations,
                         c->n_candidates,
                         learner->bank->info.tied,
                         c->no_label_scaling};
    double reals[] = {c->lr, c->weight_decay, c->seconds, c->prompt_lr};
    uint64_t hash = hash_text(HASH_START, learner->method->name);
    hash = blob_hash(hash, counts, sizeof counts);
    hash = blob_hash(hash, reals, sizeof reals);
    for (size_t i = 0; i < c->n_candidates; i++) {
        hash = blob_hash(hash, c->candidates[i].route,
                         learner->bank->info.route_len * sizeof *c->candidates[i].route);
    }
    if (c->start != NULL) {
        hash = blob_hash(hash, c->start->route,
                         learner->bank->info.route_len * sizeof *c->start->route);
    }
    hash = hash_text(hash, learner->model->info.fingerprint);
    hash = hash_text(hash, learner->bank->info.fingerprint);
    hash = hash_rows(hash, &learner->train);
    learner->identity = hash_rows(hash, &learner->dev);
}

static struct blob_frame frame_of(const struct learner *learner)
{
    return (struct blob_frame){"checkpoint", KIND_RUN, learner->identity};
}

/* ---- before the stage -------------------------------------------------------------------------------- */

struct numbers {
    uint64_t stage, first_step, steps, best_step, moved, prompt_is_best;
    uint64_t tokens, sequences, order_at;
    double accuracy, macro_f1, loss, train_loss, accuracy_before, macro_f1_before, seconds;
    struct rng first_rng, rng;
    char started_from[96];
};

static struct numbers numbers_of(const struct learner *learner, const struct stage_run *run)
{
    struct numbers n = {.stage = run->stage,
                        .first_step = run->first_step,
                        .steps = run->steps,
                        .best_step = run->best_step,
                        .moved = run->moved,
                        .prompt_is_best = run->prompt_is_best,
                        .tokens = learner_tokens(learner),
                        .sequences = learner_sequences(learner),
                        .order_at = learner->order_at,
                        .accuracy = run->look.accuracy,
                        .macro_f1 = run->look.macro_f1,
                        .loss = run->look.loss,
                        .train_loss = run->train_loss,
                        .accuracy_before = learner->result->dev_accuracy_before,
                        .macro_f1_before = learner->result->dev_macro_f1_before,
                        .seconds = seconds_now() - learner->began,
                        .first_rng = run->first_rng,
                        .rng = learner->rng};
    memcpy(n.started_from, learner->result->started_from, sizeof n.started_from);
    return n;
}

static bool plausible(const struct learner *learner, const struct numbers *n)
{
    return n->stage < learner->method->n_stages && n->first_step <= n->steps &&
           n->best_step <= n->steps && n->steps <= learner->total_steps && n->moved <= 1 &&
           n->prompt_is_best <= (learner->result->prompt != NULL) &&
           n->order_at <= learner->n_order && n->first_rng.has_spare <= 1 &&
           n->rng.has_spare <= 1 && n->seconds >= 0 && isfinite(n->seconds) &&
           memchr(n->started_from, '\0', sizeof n->started_from) != NULL;
}

static void take_numbers(struct learner *learner, struct stage_run *run, const struct numbers *n)
{
    run->stage = n->stage;
    run->first_step = n->first_step;
    run->steps = n->steps;
    run->best_step = n->best_step;
    run->moved = n->moved != 0;
    run->prompt_is_best = n->prompt_is_best != 0;
    run->look = (struct look){n->accuracy, n->macro_f1, n->loss};
    run->train_loss = n->train_loss;
    run->first_rng = n->first_rng;
    learner->resume_rng = n->rng;
    learner->order_at = n->order_at;
    learner->train_tokens = n->tokens;
    learner->train_sequences = n->sequences;
    learner->began = seconds_now() - n->seconds;
    learner->result->dev_accuracy_before = n->accuracy_before;
    learner->result->dev_macro_f1_before = n->macro_f1_before;
    memcpy(learner->result->started_from, n->started_from, sizeof n->started_from);
}

/* A row that cannot train would be no part of any order. */
static bool move_order(struct learner *learner, struct blob *blob)
{
    if (!blob_sizes(blob, learner->order, learner->n_order)) {
        return false;
    }
    for (size_t i = 0; i < learner->n_order; i++) {
        size_t item = learner->order[i];
        if (item >= learner->train.n || !learner->train.items[item].has_target) {
            return false;
        }
    }
    return true;
}

static bool move_before(struct learner *learner, struct stage_run *run, struct blob *blob)
{
    eng_adapt_result *result = learner->result;
    struct numbers n = numbers_of(learner, run);
    if (!blob_move(blob, &n, sizeof n) || !plausible(learner, &n)) {
        return false;
    }
    if (blob->mode == BLOB_READ) {
        take_numbers(learner, run, &n);
    }
    return move_order(learner, blob) &&
           blob_floats(blob, learner->route, learner->bank->info.route_len) &&
           blob_floats(blob, learner->scaling.of_train, learner->scaling.len) &&
           blob_floats(blob, learner->scaling.best, learner->scaling.len) &&
           blob_floats(blob, learner->scaling.best_of_train, learner->scaling.len) &&
           (!run->prompt_is_best || (blob_floats(blob, result->prompt, result->prompt_len) &&
                                     blob_floats(blob, result->head, result->head_len)));
}

/* ---- the stage ----------------------------------------------------------------------------------------- */

static bool move_stage(struct learner *learner, struct stage_run *run, struct blob *blob)
{
    size_t size = learner->method->stages[run->stage].part->size(learner);
    return blob_floats(blob, run->params, size) && blob_floats(blob, run->best, size) &&
           run->move_loop(run->loop, blob);
}

eng_status learner_checkpoint(struct learner *learner, struct stage_run *run, eng_error *err)
{
    struct blob count = blob_count();
    if (!move_before(learner, run, &count) || !move_stage(learner, run, &count)) {
        return fail(err, ENG_EINVAL, "checkpoint", "this state cannot be saved");
    }
    unsigned char *block = malloc(count.used);
    if (block == NULL) {
        return fail_nomem(err, "checkpoint");
    }
    struct blob blob = blob_write(block);
    struct blob_frame frame = frame_of(learner);
    if (move_before(learner, run, &blob) && move_stage(learner, run, &blob)) {
        blob_close(&frame, block, blob.used);
        learner->config.on_checkpoint(learner->config.checkpoint_arg, block, blob.used);
    }
    free(block);
    learner->saved_at = seconds_now();
    return ENG_OK;
}

/* ---- reading --------------------------------------------------------------------------------------------- */

static eng_status impossible(eng_error *err)
{
    return fail(err, ENG_EFORMAT, "checkpoint", "saved state holds impossible numbers");
}

eng_status learner_resume(struct learner *learner, struct stage_run *run, eng_error *err)
{
    const eng_adapt_config *config = &learner->config;
    struct blob_frame frame = frame_of(learner);
    eng_status status = blob_check(&frame, config->resume, config->resume_bytes, err);
    if (status != ENG_OK) {
        return status;
    }
    learner->resume = blob_read(config->resume, config->resume_bytes);
    learner->resuming = true;
    return move_before(learner, run, &learner->resume) ? ENG_OK : impossible(err);
}

eng_status learner_resume_stage(struct learner *learner, struct stage_run *run, eng_error *err)
{
    learner->resuming = false;
    learner->rng = learner->resume_rng;
    if (!move_stage(learner, run, &learner->resume) ||
        learner->resume.used != learner->resume.size) {
        return impossible(err);
    }
    return ENG_OK;
}
