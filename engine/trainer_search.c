/* trainer_search.c: the loop without gradients.
 *
 * The objective is the few-shot loss over all training rows. The vector of a part is searched in equal
 * blocks (a route is one block; of a deep bank's intrinsic vectors each layer is one): every block has
 * an optimiser of its own, they take turns, and a block's candidates are tried beside the best known
 * values of the others. The rows are encoded once; a batch holds them under several candidates.
 *
 * Every candidate that improves the objective is looked at on dev: the optimiser minimises the
 * training loss, dev chooses. Batches, not threads, hold what runs side by side, so the same seed
 * gives the same bytes.
 */
#include "engine/status.h"
#include "engine/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_SEQUENCES 64 /* candidates run together until they fill so many places */

/* ---- budgets --------------------------------------------------------------------------------------- */

static size_t blocks_of(const struct learner *learner, const struct learn_part *part)
{
    return part->blocks != NULL ? part->blocks(learner) : 1;
}

static size_t usual_evaluations(const struct learner *learner, const struct learn_stage *stage)
{
    return stage->search == NULL ? 0 : stage->search->evaluations * blocks_of(learner, stage->part);
}

eng_status learner_budget(const struct learner *learner, const struct learn_method *method,
                          size_t stage, size_t *steps, eng_error *err)
{
    const struct learn_stage *one = &method->stages[stage];
    size_t given = learner->config.evaluations, sum = 0;
    *steps = learner->config.steps;
    if (one->search == NULL) {
        return ENG_OK;
    }
    for (size_t i = 0; i < method->n_stages; i++) {
        sum += usual_evaluations(learner, &method->stages[i]);
    }
    size_t usual = usual_evaluations(learner, one);
    *steps = given > 0 ? (size_t)((double)given * (double)usual / (double)sum) : usual;
    size_t least = one->search->least * blocks_of(learner, one->part);
    if (*steps < least) {
        return fail(err, ENG_EINVAL, "evaluations",
                    "%zu evaluations leave %zu for the stage that searches the %s, which needs "
                    "%zu: give at least %.0f",
                    given, *steps, one->part->name, least,
                    ceil((double)least * (double)sum / (double)usual));
    }
    return ENG_OK;
}

/* ---- room ------------------------------------------------------------------------------------------ */

struct hunt {
    const struct learn_part *part;
    size_t size, blocks, dims; /* size = blocks · dims */
    size_t carry;              /* floats that a sequence carries */
    size_t group;              /* candidates run side by side */
    struct search **searches;  /* (blocks), NULL once over */
    double *points, *values;   /* of one ask */
    float *candidates;         /* (group, size) */
    float *carried;            /* (group, carry) */
    double objective;          /* of run->params, the best known */
};

static void hunt_fini(struct hunt *hunt)
{
    for (size_t i = 0; hunt->searches != NULL && i < hunt->blocks; i++) {
        search_free(hunt->searches[i]);
    }
    free(hunt->searches);
    free(hunt->points);
    free(hunt->values);
    free(hunt->candidates);
    free(hunt->carried);
}

/* The box of a block around where it starts. bounds (3, dims): lower, upper, start. */
static void make_box(const float *params, size_t dims, double bound, double *bounds)
{
    for (size_t i = 0; i < dims; i++) {
        double start = (double)params[i];
        bounds[i] = start < -bound ? start : -bound;
        bounds[dims + i] = start > bound ? start : bound;
        bounds[2 * dims + i] = start;
    }
}

static eng_status make_searches(struct learner *learner, const struct learn_search *how,
                                const float *params, size_t steps, struct hunt *hunt,
                                eng_error *err)
{
    size_t dims = hunt->dims;
    eng_status status = ENG_OK;
    double *bounds = calloc(dims, 3 * sizeof *bounds);
    if (bounds == NULL) {
        return fail_nomem(err, "adapt");
    }
    for (size_t b = 0; b < hunt->blocks && status == ENG_OK; b++) {
        make_box(params + b * dims, dims, how->bound, bounds);
        struct search_problem problem = {.dims = dims,
                                         .lower = bounds,
                                         .upper = bounds + dims,
                                         .start = bounds + 2 * dims,
                                         .seed = rng_next(&learner->rng),
                                         .max_evaluations = steps / hunt->blocks,
                                         .target = -(double)INFINITY};
        status = how->make(&problem, b, hunt->blocks, &hunt->searches[b], err);
    }
    free(bounds);
    return status;
}

static eng_status hunt_init(struct learner *learner, const struct learn_stage *stage,
                            const float *params, size_t steps, struct hunt *hunt, eng_error *err)
{
    const eng_bank_info *info = &learner->bank->info;
    hunt->part = stage->part;
    hunt->size = stage->part->size(learner);
    hunt->blocks = blocks_of(learner, stage->part);
    hunt->dims = hunt->size / hunt->blocks;
    stage->part->use(learner, params); /* says what sequences carry */
    hunt->carry =
        learner->prompt != NULL ? learner_prompt_floats(learner) : info->layers * info->modules;
    hunt->group = 1 + (GROUP_SEQUENCES - 1) / learner->n_order;
    size_t size = 0, carried = 0;
    if (!size_mul(hunt->group, hunt->size, &size) ||
        !size_mul(hunt->group, hunt->carry, &carried)) {
        return fail_nomem(err, "adapt");
    }
    hunt->searches = calloc(hunt->blocks, sizeof(struct search *));
    hunt->candidates = calloc(size, sizeof *hunt->candidates);
    hunt->carried = calloc(carried, sizeof *hunt->carried);
    if (hunt->searches == NULL || hunt->candidates == NULL || hunt->carried == NULL) {
        return fail_nomem(err, "adapt");
    }
    return make_searches(learner, stage->search, params, steps, hunt, err);
}

/* ---- candidates -------------------------------------------------------------------------------------- */

/* Candidate i of the group: the best vector with block b replaced. */
static void make_candidate(struct learner *learner, struct hunt *hunt, const float *best, size_t b,
                           const double *point, size_t i)
{
    float *candidate = hunt->candidates + i * hunt->size;
    memcpy(candidate, best, hunt->size * sizeof *candidate);
    for (size_t d = 0; d < hunt->dims; d++) {
        candidate[b * hunt->dims + d] = (float)point[d];
    }
    hunt->part->use(learner, candidate);
    memcpy(hunt->carried + i * hunt->carry,
           learner->prompt != NULL ? learner->prompt : learner->mix,
           hunt->carry * sizeof *hunt->carried);
}

/* The objective of candidate i is known: keep the better, look at it, tell the caller. */
static eng_status take_candidate(struct learner *learner, struct hunt *hunt, size_t i, double value,
                                 struct stage_run *run, eng_error *err)
{
    const float *candidate = hunt->candidates + i * hunt->size;
    eng_progress progress = {.dev_loss = (double)NAN, .dev_accuracy = (double)NAN};
    eng_status status = ENG_OK;
    run->steps++;
    if (value < hunt->objective) {
        hunt->objective = run->train_loss = value;
        memcpy(run->params, candidate, hunt->size * sizeof *candidate);
        status = learner_consider(learner, hunt->part, candidate, run, &progress, err);
    }
    if (status == ENG_OK) {
        learner_report(learner, run, &progress);
    }
    return status;
}

/* Points [first, first + n) of the ask of block b. */
static eng_status run_group(struct learner *learner, struct hunt *hunt, size_t b, size_t first,
                            size_t n, struct stage_run *run, eng_error *err)
{
    for (size_t i = 0; i < n; i++) {
        make_candidate(learner, hunt, run->params, b, hunt->points + (first + i) * hunt->dims, i);
    }
    double *values = hunt->values + first;
    eng_status status =
        few_shot_losses(learner, hunt->carried, learner->prompt != NULL, n, values, err);
    for (size_t i = 0; i < n && status == ENG_OK && !learner->stop; i++) {
        status = take_candidate(learner, hunt, i, values[i], run, err);
    }
    return status;
}

/* ---- turns --------------------------------------------------------------------------------------------- */

/* One ask, its evaluations and, unless stopped on the way, its tell. */
static eng_status turn(struct learner *learner, struct hunt *hunt, size_t b, struct stage_run *run,
                       eng_error *err)
{
    struct search *search = hunt->searches[b];
    size_t n = search_batch(search);
    free(hunt->points);
    free(hunt->values);
    hunt->points = calloc(n, hunt->dims * sizeof *hunt->points);
    hunt->values = calloc(n, sizeof *hunt->values);
    if (hunt->points == NULL || hunt->values == NULL) {
        return fail_nomem(err, "adapt");
    }
    eng_status status = search_ask(search, hunt->points, err);
    for (size_t done = 0; done < n && status == ENG_OK && !learner->stop;) {
        size_t count = n - done < hunt->group ? n - done : hunt->group;
        status = run_group(learner, hunt, b, done, count, run, err);
        done += count;
    }
    if (status == ENG_OK && !learner->stop) {
        status = search_tell(search, hunt->values, err);
    }
    if (status == ENG_OK && !learner->stop && !isfinite(hunt->objective)) {
        status = fail(err, ENG_EDIVERGED, "loss", "none of %zu candidates has a finite loss",
                      run->steps);
    }
    return status;
}

/* A search that has ended, or whose covariance has, leaves the others their turns. */
static bool is_over(struct hunt *hunt, size_t b, eng_status *status)
{
    if (*status == ENG_EDIVERGED && isfinite(hunt->objective)) {
        *status = ENG_OK;
    } else if (search_stopped(hunt->searches[b]) == SEARCH_RUNNING) {
        return false;
    }
    search_free(hunt->searches[b]);
    hunt->searches[b] = NULL;
    return true;
}

/* What the start is worth: a candidate has to beat it. It has been looked at on dev. */
static eng_status value_start(struct learner *learner, struct hunt *hunt, struct stage_run *run,
                              eng_error *err)
{
    double value = 0;
    const float *carried = learner->prompt != NULL ? learner->prompt : learner->mix;
    eng_status status = few_shot_losses(learner, carried, learner->prompt != NULL, 1, &value, err);
    hunt->objective = isfinite(value) ? value : (double)INFINITY;
    run->train_loss = value;
    return status;
}

eng_status learner_search(struct learner *learner, const struct learn_stage *stage, size_t steps,
                          struct stage_run *run, eng_error *err)
{
    struct hunt hunt = {0};
    eng_status status = hunt_init(learner, stage, run->params, steps, &hunt, err);
    size_t left = hunt.blocks;
    if (status == ENG_OK) {
        status = value_start(learner, &hunt, run, err);
    }
    for (size_t b = 0; status == ENG_OK && left > 0 && !learner->stop; b = (b + 1) % hunt.blocks) {
        if (hunt.searches[b] != NULL) {
            status = turn(learner, &hunt, b, run, err);
            left -= is_over(&hunt, b, &status) ? 1 : 0;
        }
    }
    hunt_fini(&hunt);
    return status;
}
