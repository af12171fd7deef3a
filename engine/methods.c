/* methods.c: THE table of adaptation methods, the parts they train and the searches they use. */
#include "engine/bank.h"
#include "engine/full.h"
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
    eng_route_mix(learner->bank, params, learner->mix_room);
    learner->carried = (struct carried){.mix = learner->mix_room};
}

static void route_gradient(struct learner *learner, const float *params, float *gradient)
{
    bank_route_gradient(learner->bank, params, learner->dmerged, gradient);
}

const struct learn_part learn_route = {.name = "route",
                                       .gives = LEARN_ROUTE,
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

static void carry_prompt(struct learner *learner, const float *prompt)
{
    memcpy(learner->prompt_room, prompt, learner_prompt_floats(learner) * sizeof *prompt);
    learner->carried = (struct carried){.prompt = learner->prompt_room};
}

static void scratch_start(struct learner *learner, float *params)
{
    for (size_t i = 0; i < learner_prompt_floats(learner); i++) {
        params[i] = (float)(0.02 * rng_normal(&learner->rng));
    }
}

static void scratch_gradient(struct learner *learner, const float *params, float *gradient)
{
    (void)params;
    memcpy(gradient, learner->dmerged, learner_prompt_floats(learner) * sizeof *gradient);
}

static const struct learn_part learn_scratch = {.name = "prompt",
                                                .gives = LEARN_PROMPT,
                                                .want = WANT_PROMPT,
                                                .size = learner_prompt_floats,
                                                .start = scratch_start,
                                                .use = carry_prompt,
                                                .gradient = scratch_gradient};

/* ---- prompt and head: (Lp, P, H), then (2, H) and 2 ------------------------------------------------- */

static size_t prompt_head_size(const struct learner *learner)
{
    return learner_prompt_floats(learner) + learner_head_floats(learner);
}

/* Merged from the best route, and the bank's head: the sequences carry the same numbers as before, now
 * free to move. */
static void prompt_head_start(struct learner *learner, float *params)
{
    float *head = params + learner_prompt_floats(learner);
    size_t weights = 2 * learner->model->info.hidden;
    eng_route_mix(learner->bank, learner->route, learner->mix_room);
    eng_merged_prompt(learner->bank, learner->mix_room, params);
    memcpy(head, learner->bank->head_w, weights * sizeof *head);
    memcpy(head + weights, learner->bank->head_b, 2 * sizeof *head);
}

static void prompt_head_use(struct learner *learner, const float *params)
{
    const float *head = params + learner_prompt_floats(learner);
    carry_prompt(learner, params);
    memcpy(learner->head_room, head, learner_head_floats(learner) * sizeof *head);
    learner->carried.head = learner->head_room;
}

static void prompt_head_gradient(struct learner *learner, const float *params, float *gradient)
{
    const float *bias = NULL, *weights = encoder_head_gradient(learner->tape, &bias);
    size_t n = 2 * learner->model->info.hidden;
    float *head = gradient + learner_prompt_floats(learner);
    scratch_gradient(learner, params, gradient);
    memcpy(head, weights, n * sizeof *head);
    memcpy(head + n, bias, 2 * sizeof *head);
}

static const struct learn_part learn_prompt_head = {.name = "prompt and head",
                                                    .gives = LEARN_PROMPT,
                                                    .want = WANT_PROMPT | WANT_HEAD,
                                                    .size = prompt_head_size,
                                                    .start = prompt_head_start,
                                                    .use = prompt_head_use,
                                                    .gradient = prompt_head_gradient};

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
    eng_route_mix(learner->bank, learner->route, learner->mix_room);
    bank_intrinsic(learner->bank, learner->mix_room, params);
}

static void intrinsic_use(struct learner *learner, const float *params)
{
    bank_intrinsic_prompt(learner->bank, params, learner->prompt_room);
    learner->carried = (struct carried){.prompt = learner->prompt_room};
}

static const struct learn_part learn_intrinsic = {.name = "intrinsic vector",
                                                  .gives = LEARN_PROMPT,
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

/* Step sizes of what is wider than a route fall with the width H, as the paper's do (2e-5 … 3e-4 at
 * 1,024): 0.128 / H for a prompt that starts from a route, five times that for one from scratch, a tenth
 * for a whole backbone. Chosen on upstream tasks of the embedded model, H 128. */
static const struct learn_method methods[] = {
    {.name = "average", .fixed_start = true, .start = ENG_INIT_AVERAGE},
    {.name = "retrieve", .fixed_start = true, .start = ENG_INIT_RETRIEVE},
    {.name = "route", .stages = {{&learn_route, NULL, 0}}, .n_stages = 1},
    {.name = "blackbox-route", .stages = {{&learn_route, &gp_search, 0}}, .n_stages = 1},
    {.name = "blackbox",
     .stages = {{&learn_route, &gp_search, 0}, {&learn_intrinsic, &cmaes_search, 0}},
     .n_stages = 2},
    {.name = "route+prompt",
     .stages = {{&learn_route, NULL, 0}, {&learn_prompt_head, NULL, 0.128}},
     .n_stages = 2},
    {.name = "prompt",
     .fixed_start = true,
     .start = ENG_INIT_AVERAGE,
     .stages = {{&learn_scratch, NULL, 0.64}},
     .n_stages = 1},
    {.name = "full", .stages = {{&learn_full, NULL, 0.0128}}, .n_stages = 1},
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

static bool gives(const char *name, enum learn_gives what)
{
    const struct learn_method *method = method_find(name);
    for (size_t i = 0; method != NULL && i < method->n_stages; i++) {
        if (method->stages[i].part->gives == what) {
            return true;
        }
    }
    return false;
}

bool eng_adapt_gives_prompt(const char *name)
{
    return gives(name, LEARN_PROMPT);
}

bool eng_adapt_gives_model(const char *name)
{
    return gives(name, LEARN_MODEL);
}
