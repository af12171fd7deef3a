/* methods.c: THE table of adaptation methods, and the parts they train. */
#include "engine/bank.h"
#include "engine/trainer.h"

#include <string.h>

/* ---- the route: K numbers, or K a layer -------------------------------------------------------------- */

static size_t route_size(const struct learner *learner)
{
    return learner->bank->info.route_len;
}

static void route_use(struct learner *learner, const float *params)
{
    eng_route_mix(learner->bank, params, learner->mix);
}

static void route_gradient(struct learner *learner, const float *params, const float *dmerged,
                           float *gradient)
{
    bank_route_gradient(learner->bank, params, dmerged, gradient);
}

static const struct learn_part route_part = {"route", WANT_PROMPT, route_size, route_use,
                                             route_gradient};

/* ---- the table ------------------------------------------------------------------------------------------- */

static const struct learn_method methods[] = {
    {.name = "average", .fixed_start = true, .start = ENG_INIT_AVERAGE},
    {.name = "retrieve", .fixed_start = true, .start = ENG_INIT_RETRIEVE},
    {.name = "route", .stages = {{&route_part}}, .n_stages = 1},
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
