/* adapt.c: the public face of learning: settings checked, the method looked up, its start made, its
 * stages run, the result handed over.
 */
#include "engine/folds.h"
#include "engine/full.h"
#include "engine/status.h"
#include "engine/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_BATCH      32
#define DEFAULT_EVAL_EVERY 20
#define MAX_STEPS          1000000
#define MAX_BATCH          4096

void eng_adapt_defaults(const eng_bank *bank, eng_adapt_config *config)
{
    *config = (eng_adapt_config){.method = "route",
                                 .init = ENG_INIT_RETRIEVE,
                                 .lr = bank->info.adapt_lr,
                                 .steps = bank->info.adapt_steps,
                                 .batch = DEFAULT_BATCH,
                                 .eval_every = DEFAULT_EVAL_EVERY};
    if (bank->info.rows == 0) {
        config->init = ENG_INIT_RANDOM;
    }
}

static void fill_defaults(const eng_bank *bank, eng_adapt_config *config)
{
    eng_adapt_config defaults;
    eng_adapt_defaults(bank, &defaults);
    config->method = config->method != NULL ? config->method : defaults.method;
    config->lr = config->lr == 0 ? defaults.lr : config->lr;
    config->steps = config->steps == 0 ? defaults.steps : config->steps;
    config->batch = config->batch == 0 ? defaults.batch : config->batch;
    config->eval_every = config->eval_every == 0 ? defaults.eval_every : config->eval_every;
}

static eng_status unknown_method(const char *name, eng_error *err)
{
    char known[256] = "";
    size_t used = 0;
    for (size_t i = 0; eng_adapt_method(i) != NULL && used < sizeof known; i++) {
        int len = snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "",
                           eng_adapt_method(i));
        used += len > 0 ? (size_t)len : 0;
    }
    return fail(err, ENG_EINVAL, "method", "method \"%.40s\" is not one of %s", name, known);
}

static eng_status check_config(const eng_adapt_config *config, eng_error *err)
{
    if (!(config->lr > 0) || !isfinite(config->lr)) {
        return fail(err, ENG_EINVAL, "lr", "lr is %g, want a number above 0", config->lr);
    }
    if (!(config->weight_decay >= 0) || !isfinite(config->weight_decay)) {
        return fail(err, ENG_EINVAL, "weight_decay", "weight_decay is %g, want 0 or more",
                    config->weight_decay);
    }
    if (!(config->seconds >= 0)) {
        return fail(err, ENG_EINVAL, "seconds", "seconds is %g, want 0 or more", config->seconds);
    }
    if (!(config->prompt_lr >= 0) || !isfinite(config->prompt_lr)) {
        return fail(err, ENG_EINVAL, "prompt_lr", "prompt_lr is %g, want a number above 0",
                    config->prompt_lr);
    }
    if (config->folds == 1 || config->folds > ENG_MAX_FOLDS) {
        return fail(err, ENG_EINVAL, "folds", "%zu folds, want 0 or 2 to %d", config->folds,
                    ENG_MAX_FOLDS);
    }
    if (config->evaluations > MAX_STEPS) {
        return fail(err, ENG_ELIMIT, "evaluations", "at most %d evaluations", MAX_STEPS);
    }
    if (config->steps > MAX_STEPS || config->batch > MAX_BATCH) {
        return fail(err, ENG_ELIMIT, config->steps > MAX_STEPS ? "steps" : "batch",
                    "at most %d steps of at most %d rows", MAX_STEPS, MAX_BATCH);
    }
    return ENG_OK;
}

/* ---- the start ----------------------------------------------------------------------------------------- */

static void random_route(struct rng *rng, float *route, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        route[i] = (float)rng_normal(rng);
    }
}

static eng_status make_start(struct learner *learner, eng_error *err)
{
    const struct learn_method *method = learner->method;
    eng_init init = method->fixed_start ? method->start : learner->config.init;
    char *from = learner->result->started_from;
    size_t room = sizeof learner->result->started_from, n = learner->bank->info.route_len;
    eng_status status = ENG_OK;
    memset(learner->route, 0, n * sizeof *learner->route);
    snprintf(from, room, "%s", init == ENG_INIT_RANDOM ? "random" : "average");
    if (learner->config.start != NULL && !method->fixed_start) {
        memcpy(learner->route, learner->config.start->route, n * sizeof *learner->route);
        snprintf(from, room, "%s", learner->config.start->name);
    } else if (init == ENG_INIT_RANDOM) {
        random_route(&learner->rng, learner->route, n);
    } else if (init == ENG_INIT_RETRIEVE) {
        status = retrieve_route(learner, learner->route, from, room, err);
    }
    if (method->n_stages > 0 && method->stages[0].part->gives == LEARN_PROMPT) {
        snprintf(from, room, "scratch");
    }
    return status;
}

/* ---- running ----------------------------------------------------------------------------------------------- */

/* The vectors of all stages together. */
static size_t tuned_parameters(const struct learner *learner)
{
    size_t sum = 0;
    for (size_t i = 0; i < learner->method->n_stages; i++) {
        sum += learner->method->stages[i].part->size(learner);
    }
    return sum;
}

static void take_result(struct learner *learner, const struct stage_run *run,
                        eng_adapt_result *result)
{
    bool has_dev = learner->dev.n > 0;
    result->route_len = learner->bank->info.route_len;
    result->answer_length = learner->answer_length;
    result->label_scaling = learner->scaling.best;
    result->dev_label_scaling = learner->scaling.best_of_train;
    result->label_scaling_len = learner->scaling.len;
    learner->scaling.best = learner->scaling.best_of_train = NULL;
    result->best_step = run->best_step;
    result->train_loss = run->train_loss;
    result->dev_loss = has_dev ? run->look.loss : (double)NAN;
    result->dev_accuracy = has_dev ? run->look.accuracy : (double)NAN;
    result->dev_macro_f1 = has_dev ? run->look.macro_f1 : (double)NAN;
    result->steps = run->steps;
    result->tuned = tuned_parameters(learner);
    result->tokens = learner_tokens(learner);
    result->forward_passes = learner_sequences(learner);
    result->seconds = seconds_now() - learner->began;
}

static eng_status keep_prompt(struct learner *learner, const struct learn_part *part,
                              struct stage_run *run)
{
    eng_adapt_result *result = learner->result;
    part->use(learner, run->best);
    memcpy(result->prompt, learner->carried.prompt, result->prompt_len * sizeof *result->prompt);
    if (learner->carried.head != NULL) {
        memcpy(result->head, learner->carried.head, result->head_len * sizeof *result->head);
    }
    run->prompt_is_best = true;
    return ENG_OK;
}

/* Where nothing has moved the caller's model is as good. */
static eng_status keep_model(struct learner *learner, const struct learn_part *part,
                             struct stage_run *run, eng_error *err)
{
    eng_adapt_result *result = learner->result;
    if (run->best_step == 0) {
        return ENG_OK;
    }
    part->use(learner, run->best);
    memcpy(result->head, learner->carried.head, result->head_len * sizeof *result->head);
    eng_status status = full_finish(learner->own_model, run->best, err);
    if (status == ENG_OK) {
        result->model = learner->own_model;
        result->bank = learner->own_bank;
        learner->own_model = NULL;
        learner->own_bank = NULL;
    }
    return status;
}

/* The best of a stage becomes where the next one starts, and the result so far. */
static eng_status keep_best(struct learner *learner, const struct learn_part *part,
                            struct stage_run *run, eng_error *err)
{
    if (!run->moved) {
        return ENG_OK;
    }
    if (part->gives == LEARN_MODEL) {
        return keep_model(learner, part, run, err);
    }
    if (part->gives == LEARN_PROMPT) {
        return keep_prompt(learner, part, run);
    }
    memcpy(learner->route, run->best, learner->bank->info.route_len * sizeof *learner->route);
    return ENG_OK;
}

/* The first look, at where the first part starts: everything learnt has to beat it. */
static eng_status look_at_start(struct learner *learner, const struct learn_part *part,
                                struct stage_run *run, eng_error *err)
{
    memcpy(run->best, run->params, part->size(learner) * sizeof *run->best);
    run->moved = true;
    part->use(learner, run->params);
    eng_status status = learner_look(learner, &run->look, err);
    if (status == ENG_OK) {
        status = scaling_keep(learner, err);
    }
    learner->result->dev_accuracy_before = learner->dev.n > 0 ? run->look.accuracy : (double)NAN;
    learner->result->dev_macro_f1_before = learner->dev.n > 0 ? run->look.macro_f1 : (double)NAN;
    learner->result->dev_loss_before = learner->dev.n > 0 ? run->look.loss : (double)NAN;
    return status;
}

/* Begins a stage, or begins it again as it was where a resumed run stands in it. */
static eng_status start_stage(struct learner *learner, const struct learn_part *part,
                              struct stage_run *run, eng_error *err)
{
    if (learner->resuming) {
        learner->rng = run->first_rng;
        part->start(learner, run->params);
        return ENG_OK;
    }
    run->first_rng = learner->rng;
    run->first_step = run->steps;
    run->moved = false;
    part->start(learner, run->params);
    return run->stage == 0 ? look_at_start(learner, part, run, err) : ENG_OK;
}

/* Steps a stage may take: what was chosen for it, or its budget. A search cannot do with less than its
 * least. */
static eng_status stage_steps(const struct learner *learner, size_t stage, size_t *steps,
                              eng_error *err)
{
    const struct learn_stage *one = &learner->method->stages[stage];
    eng_status status = learner_budget(learner, learner->method, stage, steps, err);
    if (status == ENG_OK && learner->chosen != NULL) {
        size_t blocks = one->part->blocks != NULL ? one->part->blocks(learner) : 1;
        size_t least = one->search != NULL ? one->search->least * blocks : 0;
        size_t chosen = learner->chosen[stage];
        *steps = chosen > 0 && chosen < least ? least : chosen;
    }
    return status;
}

/* Stage run->stage, or the start alone of a method that has none. */
static eng_status run_stage(struct learner *learner, struct stage_run *run, eng_error *err)
{
    const struct learn_method *method = learner->method;
    const struct learn_stage *stage =
        run->stage < method->n_stages ? &method->stages[run->stage] : NULL;
    const struct learn_part *part = stage != NULL ? stage->part : &learn_route;
    size_t size = part->size(learner), steps = 0;
    eng_status status = ENG_OK;
    run->params = calloc(size, sizeof *run->params);
    run->best = calloc(size, sizeof *run->best);
    if (run->params == NULL || run->best == NULL) {
        status = fail_nomem(err, part->name);
        goto out;
    }
    status = start_stage(learner, part, run, err);
    if (status == ENG_OK && stage != NULL) {
        learner->seconds =
            learner->config.seconds * (double)(run->stage + 1) / (double)method->n_stages;
        status = stage_steps(learner, run->stage, &steps, err);
    }
    if (status == ENG_OK && stage != NULL && steps > 0) {
        status = learner_stage(learner, stage, steps, run, err);
    }
    if (status == ENG_OK && learner->chosen != NULL && steps > 0) {
        memcpy(run->best, run->params, size * sizeof *run->best);
        run->best_step = run->steps;
        run->moved = true;
        part->use(learner, run->best);
        status = scaling_fit(learner, err);
        status = status == ENG_OK ? scaling_keep(learner, err) : status;
    }
    if (status == ENG_OK || status == ENG_EDIVERGED) {
        eng_status kept = keep_best(learner, part, run, status == ENG_OK ? err : NULL);
        status = kept == ENG_OK ? status : kept;
    }
out:
    free(run->params);
    free(run->best);
    run->params = run->best = NULL;
    return status;
}

/* Steps of all stages. Refuses a budget before anything is computed. */
static eng_status count_steps(struct learner *learner, eng_error *err)
{
    eng_status status = ENG_OK;
    for (size_t i = 0; i < learner->method->n_stages && status == ENG_OK; i++) {
        size_t steps = 0;
        status = stage_steps(learner, i, &steps, err);
        learner->total_steps += steps;
    }
    return status;
}

/* Start, first look, stages; or what is left of them. What is best so far is in learner->route and the
 * result. */
static eng_status learn(struct learner *learner, struct stage_run *run, eng_error *err)
{
    run->train_loss = (double)NAN;
    eng_status status = count_steps(learner, err);
    if (status == ENG_OK) {
        learner_identify(learner);
        status = learner->config.resume != NULL ? learner_resume(learner, run, err)
                                                : make_start(learner, err);
    }
    do {
        status = status == ENG_OK ? run_stage(learner, run, err) : status;
        run->stage++;
    } while (status == ENG_OK && run->stage < learner->method->n_stages);
    return status;
}

/* Room for a tuned prompt and head, when the method makes them. */
static eng_status make_prompt_room(struct learner *learner, eng_error *err)
{
    eng_adapt_result *result = learner->result;
    bool prompt = eng_adapt_gives_prompt(learner->method->name);
    if (!prompt && !eng_adapt_gives_model(learner->method->name)) {
        return ENG_OK;
    }
    result->head_len = learner_head_floats(learner);
    learner->head_room = calloc(result->head_len, sizeof *learner->head_room);
    result->head = calloc(result->head_len, sizeof *result->head);
    if (prompt) {
        result->prompt_len = learner_prompt_floats(learner);
        learner->prompt_room = calloc(result->prompt_len, sizeof *learner->prompt_room);
        result->prompt = calloc(result->prompt_len, sizeof *result->prompt);
    }
    bool ok = learner->head_room != NULL && result->head != NULL &&
              (!prompt || (learner->prompt_room != NULL && result->prompt != NULL));
    return ok ? ENG_OK : fail_nomem(err, "prompt");
}

/* A model of our own to train, when the method does. */
static eng_status make_own_model(struct learner *learner, eng_error *err)
{
    if (!eng_adapt_gives_model(learner->method->name)) {
        return ENG_OK;
    }
    eng_status status = full_copy_model(learner->model, &learner->own_model, err);
    return status == ENG_OK
               ? full_borrow_bank(learner->bank, learner->own_model, &learner->own_bank, err)
               : status;
}

static bool tunes_head(const struct learn_method *method)
{
    return method->n_stages > 0 &&
           (method->stages[method->n_stages - 1].part->want & WANT_HEAD) != 0;
}

/* Hands over route, prompt and head after a success or a divergence, else nothing. */
static void hand_over(struct learner *learner, eng_status status, const struct stage_run *run)
{
    eng_adapt_result *result = learner->result;
    bool whole = status == ENG_OK || status == ENG_EDIVERGED;
    bool prompt = whole && run->prompt_is_best;
    if (whole) {
        take_result(learner, run, result);
        result->route = learner->route;
        learner->route = NULL;
    }
    if (!prompt) {
        free(result->prompt);
        result->prompt = NULL;
        result->prompt_len = 0;
    }
    if (!(prompt && tunes_head(learner->method)) && result->model == NULL) {
        free(result->head);
        result->head = NULL;
        result->head_len = 0;
    }
}

eng_status adapt_once(const struct adapt_call *call, const eng_adapt_config *config,
                      const size_t *chosen, eng_adapt_result *result, eng_error *err)
{
    struct learner learner = {.compute = call->compute,
                              .model = call->model,
                              .bank = call->bank,
                              .task = call->task,
                              .method = method_find(config->method),
                              .config = *config,
                              .chosen = chosen,
                              .result = result,
                              .on_progress = call->on_progress,
                              .on_progress_arg = call->arg};
    struct stage_run run = {0};
    memset(result, 0, sizeof *result);
    eng_status status = make_own_model(&learner, err);
    if (status == ENG_OK) {
        status = learner_init(&learner, call->train_set, call->train, call->n_train, call->dev_set,
                              call->dev, call->n_dev, err);
    }
    learner.runner.cancelled = config->cancelled;
    learner.runner.cancelled_arg = config->cancelled_arg;
    if (status == ENG_OK) {
        status = make_prompt_room(&learner, err);
    }
    if (status == ENG_OK) {
        status = learn(&learner, &run, err);
    }
    hand_over(&learner, status, &run);
    learner_fini(&learner);
    return status;
}

eng_status eng_adapt_count_steps(const eng_bank *bank, const eng_adapt_config *config,
                                 eng_adapt_count *out, eng_error *err)
{
    struct learner learner = {.bank = bank, .config = *config};
    *out = (eng_adapt_count){0};
    fill_defaults(bank, &learner.config);
    learner.method = method_find(config->method != NULL ? config->method : "route");
    if (learner.method == NULL) {
        return unknown_method(config->method, err);
    }
    eng_init init = learner.method->fixed_start ? learner.method->start : config->init;
    out->retrieves = init == ENG_INIT_RETRIEVE;
    for (size_t i = 0; i < learner.method->n_stages; i++) {
        size_t steps = 0;
        eng_status status = learner_budget(&learner, learner.method, i, &steps, err);
        if (status != ENG_OK) {
            return status;
        }
        *(learner.method->stages[i].search != NULL ? &out->evaluations : &out->steps) += steps;
    }
    return ENG_OK;
}

eng_status eng_adapt(eng_compute *compute, const eng_model *model, const eng_bank *bank,
                     const eng_task *task, const eng_dataset *train_set, const size_t *train,
                     size_t n_train, const eng_dataset *dev_set, const size_t *dev, size_t n_dev,
                     const eng_adapt_config *config, eng_on_progress on_progress, void *arg,
                     eng_adapt_result *result, eng_error *err)
{
    const struct adapt_call call = {compute, model, bank,    task,  train_set,   dev_set,
                                    train,   dev,   n_train, n_dev, on_progress, arg};
    eng_adapt_config filled = *config;
    memset(result, 0, sizeof *result);
    fill_defaults(bank, &filled);
    if (method_find(filled.method) == NULL) {
        return unknown_method(filled.method, err);
    }
    eng_status status = check_config(&filled, err);
    if (status != ENG_OK) {
        return status;
    }
    return filled.folds > 0 && n_dev == 0 ? adapt_folds(&call, &filled, result, err)
                                          : adapt_once(&call, &filled, NULL, result, err);
}

void eng_adapt_result_fini(eng_adapt_result *result)
{
    free(result->route);
    free(result->prompt);
    free(result->head);
    free(result->label_scaling);
    free(result->dev_label_scaling);
    full_free_bank(result->bank);
    eng_model_free(result->model);
    memset(result, 0, sizeof *result);
}
