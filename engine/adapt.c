/* adapt.c: the public face of learning: settings checked, the method looked up, its start made, its
 * stages run, the result handed over.
 */
#include "engine/evaluate.h"
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

static eng_status make_start(struct learner *learner, eng_init init, float *route,
                             eng_adapt_result *result, eng_error *err)
{
    size_t row = 0, n = learner->bank->info.route_len;
    eng_status status = ENG_OK;
    const char *from = "average";
    memset(route, 0, n * sizeof *route);
    if (init == ENG_INIT_RANDOM) {
        from = "random";
        random_route(&learner->rng, route, n);
    } else if (init == ENG_INIT_RETRIEVE) {
        status = retrieve_row(learner, &row, NULL, err);
        if (status != ENG_OK) {
            return status;
        }
        from = eng_bank_row_name(learner->bank, row);
        eng_bank_row(learner->bank, row, route);
    }
    snprintf(result->started_from, sizeof result->started_from, "%s", from);
    return ENG_OK;
}

/* ---- running ----------------------------------------------------------------------------------------------- */

static void take_result(const struct learner *learner, const struct stage_run *run,
                        eng_adapt_result *result)
{
    bool has_dev = learner->dev.n > 0;
    result->route_len = learner->bank->info.route_len;
    result->best_step = run->best_step;
    result->train_loss = run->train_loss;
    result->dev_loss = has_dev ? run->look.loss : (double)NAN;
    result->dev_accuracy = has_dev ? run->look.accuracy : (double)NAN;
    result->dev_macro_f1 = has_dev ? run->look.macro_f1 : (double)NAN;
    result->steps = run->steps;
    result->tokens = learner_tokens(learner);
    result->forward_passes = learner_sequences(learner);
    result->seconds = seconds_now() - learner->began;
}

/* The best of a stage becomes where the next one starts, and the result so far. */
static void keep_best(struct learner *learner, const struct learn_part *part, struct stage_run *run,
                      eng_adapt_result *result)
{
    if (!run->moved) {
        return;
    }
    if (part == &learn_route) {
        memcpy(learner->route, run->best, learner->bank->info.route_len * sizeof *learner->route);
        return;
    }
    part->use(learner, run->best);
    memcpy(result->prompt, learner->prompt, result->prompt_len * sizeof *result->prompt);
    run->prompt_is_best = true;
}

/* The first look, at where the first part starts: everything learnt has to beat it. */
static eng_status look_at_start(struct learner *learner, const struct learn_part *part,
                                struct stage_run *run, eng_adapt_result *result, eng_error *err)
{
    memcpy(run->best, run->params, part->size(learner) * sizeof *run->best);
    run->moved = true;
    part->use(learner, run->params);
    eng_status status = learner_look(learner, &run->look, err);
    result->dev_accuracy_before = learner->dev.n > 0 ? run->look.accuracy : (double)NAN;
    return status;
}

/* Stage `i`, or the start alone of a method that has none. */
static eng_status run_stage(struct learner *learner, const struct learn_method *method, size_t i,
                            struct stage_run *run, eng_adapt_result *result, eng_error *err)
{
    const struct learn_part *part = i < method->n_stages ? method->stages[i].part : &learn_route;
    size_t size = part->size(learner), steps = 0;
    eng_status status = ENG_OK;
    run->params = calloc(size, sizeof *run->params);
    run->best = calloc(size, sizeof *run->best);
    run->moved = false;
    if (run->params == NULL || run->best == NULL) {
        status = fail_nomem(err, part->name);
        goto out;
    }
    part->start(learner, run->params);
    if (i == 0) {
        status = look_at_start(learner, part, run, result, err);
    }
    if (status == ENG_OK && i < method->n_stages) {
        learner->seconds = learner->config.seconds * (double)(i + 1) / (double)method->n_stages;
        status = learner_budget(learner, method, i, &steps, err);
    }
    if (status == ENG_OK && i < method->n_stages) {
        status = learner_stage(learner, &method->stages[i], steps, run, err);
    }
    keep_best(learner, part, run, result);
out:
    free(run->params);
    free(run->best);
    run->params = run->best = NULL;
    return status;
}

/* Steps of all stages. Refuses a budget before anything is computed. */
static eng_status count_steps(struct learner *learner, const struct learn_method *method,
                              eng_error *err)
{
    eng_status status = ENG_OK;
    for (size_t i = 0; i < method->n_stages && status == ENG_OK; i++) {
        size_t steps = 0;
        status = learner_budget(learner, method, i, &steps, err);
        learner->total_steps += steps;
    }
    return status;
}

/* Start, first look, stages. What is best so far is in learner->route and result->prompt. */
static eng_status learn(struct learner *learner, const struct learn_method *method,
                        struct stage_run *run, eng_adapt_result *result, eng_error *err)
{
    eng_init init = method->fixed_start ? method->start : learner->config.init;
    run->train_loss = (double)NAN;
    eng_status status = count_steps(learner, method, err);
    if (status == ENG_OK) {
        status = make_start(learner, init, learner->route, result, err);
    }
    if (method->n_stages > 0 && method->stages[0].part != &learn_route) {
        snprintf(result->started_from, sizeof result->started_from, "scratch");
    }
    for (size_t i = 0; status == ENG_OK && (i == 0 || i < method->n_stages); i++) {
        status = run_stage(learner, method, i, run, result, err);
    }
    return status;
}

/* Room for a tuned prompt, when the method makes one. */
static eng_status make_prompt_room(struct learner *learner, const struct learn_method *method,
                                   eng_adapt_result *result, eng_error *err)
{
    size_t floats = learner_prompt_floats(learner);
    if (!eng_adapt_gives_prompt(method->name)) {
        return ENG_OK;
    }
    learner->prompt_room = calloc(floats, sizeof *learner->prompt_room);
    result->prompt = calloc(floats, sizeof *result->prompt);
    result->prompt_len = floats;
    return learner->prompt_room != NULL && result->prompt != NULL ? ENG_OK
                                                                  : fail_nomem(err, "prompt");
}

/* Hands over route and prompt after a success or a divergence, else nothing. */
static void hand_over(struct learner *learner, eng_status status, const struct stage_run *run,
                      eng_adapt_result *result)
{
    bool whole = status == ENG_OK || status == ENG_EDIVERGED;
    if (whole) {
        take_result(learner, run, result);
        result->route = learner->route;
        learner->route = NULL;
    }
    if (!whole || !run->prompt_is_best) {
        free(result->prompt);
        result->prompt = NULL;
        result->prompt_len = 0;
    }
}

eng_status eng_adapt(eng_compute *compute, const eng_model *model, const eng_bank *bank,
                     const eng_task *task, const eng_dataset *train_set, const size_t *train,
                     size_t n_train, const eng_dataset *dev_set, const size_t *dev, size_t n_dev,
                     const eng_adapt_config *config, eng_on_progress on_progress, void *arg,
                     eng_adapt_result *result, eng_error *err)
{
    struct learner learner = {.compute = compute,
                              .model = model,
                              .bank = bank,
                              .task = task,
                              .config = *config,
                              .on_progress = on_progress,
                              .on_progress_arg = arg};
    struct stage_run run = {0};
    memset(result, 0, sizeof *result);
    fill_defaults(bank, &learner.config);
    const struct learn_method *method =
        method_find(config->method != NULL ? config->method : "route");
    if (method == NULL) {
        return unknown_method(config->method, err);
    }
    eng_status status = check_config(&learner.config, err);
    if (status == ENG_OK) {
        status = learner_init(&learner, train_set, train, n_train, dev_set, dev, n_dev, err);
    }
    if (status == ENG_OK) {
        status = make_prompt_room(&learner, method, result, err);
    }
    if (status == ENG_OK) {
        status = learn(&learner, method, &run, result, err);
    }
    hand_over(&learner, status, &run, result);
    learner_fini(&learner);
    return status;
}

void eng_adapt_result_fini(eng_adapt_result *result)
{
    free(result->route);
    free(result->prompt);
    memset(result, 0, sizeof *result);
}
