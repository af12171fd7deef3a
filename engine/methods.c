/* methods.c: THE table of adaptation methods, the parts they train and the searches they use. */
#include "engine/bank.h"
#include "engine/opt_cmaes.h"
#include "engine/opt_gp.h"
#include "engine/trainer.h"

#include <string.h>

/* ---- the route: K numbers, or K a layer -------------------------------------------------------------- */

static size_t route_size(const struct learner *learner)
{
    return learner->bank->info.route_len;
}

static void route_start(struct learner *learner, float *params)
{
    memcpy(params, learner->route, route_size(learner) * sizeof *params);
}

static void route_use(struct learner *learner, const float *params)
{
    eng_route_mix(learner->bank, params, learner->mix);
    learner->prompt = NULL;
}

static void route_gradient(struct learner *learner, const float *params, const float *dmerged,
                           float *gradient)
{
    bank_route_gradient(learner->bank, params, dmerged, gradient);
}

const struct learn_part learn_route = {.name = "route",
                                       .want = WANT_PROMPT,
                                       .size = route_size,
                                       .start = route_start,
                                       .use = route_use,
                                       .gradient = route_gradient};

/* GP-UCB in the box of METHOD 4; a few candidates an ask, so that few rows still fill a batch. */
static eng_status make_gp(const struct search_problem *problem, size_t block, size_t blocks,
                          struct search **out, eng_error *err)
{
    struct gp_search_options options = {.kappa = 2, .initial = 20, .batch = 4};
    (void)block;
    (void)blocks;
    if (options.initial > problem->max_evaluations) {
        options.initial = problem->max_evaluations;
    }
    return gp_search_new(problem, &options, out, err);
}

static const struct learn_search gp_search = {
    .evaluations = 100, .least = 2, .bound = 5, .make = make_gp};

/* ---- the prompt itself: (Lp, P, H) ------------------------------------------------------------------ */

/* Merged from the best route: the sequences carry the same numbers as before, now free to move. */
static void prompt_start(struct learner *learner, float *params)
{
    eng_route_mix(learner->bank, learner->route, learner->mix);
    eng_merged_prompt(learner->bank, learner->mix, params);
}

static void scratch_start(struct learner *learner, float *params)
{
    for (size_t i = 0; i < learner_prompt_floats(learner); i++) {
        params[i] = (float)(0.02 * rng_normal(&learner->rng));
    }
}

static void prompt_use(struct learner *learner, const float *params)
{
    memcpy(learner->prompt_room, params, learner_prompt_floats(learner) * sizeof *params);
    learner->prompt = learner->prompt_room;
}

static void prompt_gradient(struct learner *learner, const float *params, const float *dmerged,
                            float *gradient)
{
    (void)params;
    memcpy(gradient, dmerged, learner_prompt_floats(learner) * sizeof *gradient);
}

static const struct learn_part learn_prompt = {.name = "prompt",
                                               .want = WANT_PROMPT,
                                               .size = learner_prompt_floats,
                                               .start = prompt_start,
                                               .use = prompt_use,
                                               .gradient = prompt_gradient};

static const struct learn_part learn_scratch = {.name = "prompt",
                                                .want = WANT_PROMPT,
                                                .size = learner_prompt_floats,
                                                .start = scratch_start,
                                                .use = prompt_use,
                                                .gradient = prompt_gradient};

/* ---- the intrinsic vector: d numbers a layer, the prompt through A ---------------------------------- */

static size_t intrinsic_size(const struct learner *learner)
{
    return learner->bank->info.layers * learner->bank->info.intrinsic;
}

static size_t intrinsic_blocks(const struct learner *learner)
{
    return learner->bank->info.layers;
}

static void intrinsic_start(struct learner *learner, float *params)
{
    eng_route_mix(learner->bank, learner->route, learner->mix);
    bank_intrinsic(learner->bank, learner->mix, params);
}

static void intrinsic_use(struct learner *learner, const float *params)
{
    bank_intrinsic_prompt(learner->bank, params, learner->prompt_room);
    learner->prompt = learner->prompt_room;
}

static const struct learn_part learn_intrinsic = {.name = "intrinsic vector",
                                                  .size = intrinsic_size,
                                                  .blocks = intrinsic_blocks,
                                                  .start = intrinsic_start,
                                                  .use = intrinsic_use};

/* Layer 0 of a deep bank takes larger steps (METHOD 4): what it adds passes every layer. */
static eng_status make_cmaes(const struct search_problem *problem, size_t block, size_t blocks,
                             struct search **out, eng_error *err)
{
    struct cmaes_options options = {.sigma = blocks > 1 && block == 0 ? 0.5 : 0.1,
                                    .population = 20};
    return cmaes_new(problem, &options, out, err);
}

static const struct learn_search cmaes_search = {
    .evaluations = 500, .least = 20, .bound = 5, .make = make_cmaes};

/* ---- the table ------------------------------------------------------------------------------------------- */

static const struct learn_method methods[] = {
    {.name = "average", .fixed_start = true, .start = ENG_INIT_AVERAGE},
    {.name = "retrieve", .fixed_start = true, .start = ENG_INIT_RETRIEVE},
    {.name = "route", .stages = {{&learn_route, NULL, 0}}, .n_stages = 1},
    {.name = "blackbox-route", .stages = {{&learn_route, &gp_search, 0}}, .n_stages = 1},
    {.name = "blackbox",
     .stages = {{&learn_route, &gp_search, 0}, {&learn_intrinsic, &cmaes_search, 0}},
     .n_stages = 2},
    {.name = "route+prompt",
     .stages = {{&learn_route, NULL, 0}, {&learn_prompt, NULL, 3e-4}},
     .n_stages = 2},
    {.name = "prompt",
     .fixed_start = true,
     .start = ENG_INIT_AVERAGE,
     .stages = {{&learn_scratch, NULL, 5e-3}},
     .n_stages = 1},
};
static const size_t count = sizeof methods / sizeof methods[0];

const struct learn_method *method_find(const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(methods[i].name, name) == 0) {
            return &methods[i];
        }
    }
    return NULL;
}

const char *eng_adapt_method(size_t i)
{
    return i < count ? methods[i].name : NULL;
}

bool eng_adapt_gives_prompt(const char *name)
{
    const struct learn_method *method = method_find(name);
    for (size_t i = 0; method != NULL && i < method->n_stages; i++) {
        if (method->stages[i].part != &learn_route) {
            return true;
        }
    }
    return false;
}
