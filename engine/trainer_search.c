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
    struct learner *learner;
    const struct learn_part *part;
    size_t size, blocks, dims; /* size = blocks · dims */
    size_t group;              /* candidates run side by side */
    struct search **searches;  /* (blocks), NULL once over */
    double objective;          /* of run->params, the best known */
    float *candidate;          /* (size) */
    struct carried *carried;   /* (group) pointing into rooms */
    float *rooms;              /* (group, width) mixes or prompts */
    size_t width;

    /* The turn of one block: an ask, its values as far as they are known, and how many of them have
     * been taken. */
    size_t block, asked, known, taken;
    double *points, *values; /* (asked, dims), (asked) */
};

static void hunt_fini(struct hunt *hunt)
{
    for (size_t i = 0; hunt->searches != NULL && i < hunt->blocks; i++) {
        search_free(hunt->searches[i]);
    }
    free(hunt->searches);
    free(hunt->points);
    free(hunt->values);
    free(hunt->candidate);
    free(hunt->carried);
    free(hunt->rooms);
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
    hunt->learner = learner;
    hunt->part = stage->part;
    hunt->size = stage->part->size(learner);
    hunt->blocks = blocks_of(learner, stage->part);
    hunt->dims = hunt->size / hunt->blocks;
    stage->part->use(learner, params); /* says what sequences carry */
    hunt->width = learner->carried.prompt != NULL ? learner_prompt_floats(learner)
                                                  : info->layers * info->modules;
    hunt->group = 1 + (GROUP_SEQUENCES - 1) / learner->n_order;
    size_t rooms = 0;
    if (!size_mul(hunt->group, hunt->width, &rooms)) {
        return fail_nomem(err, "adapt");
    }
    hunt->searches = calloc(hunt->blocks, sizeof(struct search *));
    hunt->candidate = calloc(hunt->size, sizeof *hunt->candidate);
    hunt->carried = calloc(hunt->group, sizeof *hunt->carried);
    hunt->rooms = calloc(rooms, sizeof *hunt->rooms);
    if (hunt->searches == NULL || hunt->candidate == NULL || hunt->carried == NULL ||
        hunt->rooms == NULL) {
        return fail_nomem(err, "adapt");
    }
    return make_searches(learner, stage->search, params, steps, hunt, err);
}

/* ---- candidates -------------------------------------------------------------------------------------- */

/* hunt->candidate: the best vector with the turn's block replaced by point i of its ask. Whatever a turn
 * finds changes that block alone, so the candidates of an ask do not depend on each other. */
static void make_candidate(struct hunt *hunt, const float *best, size_t i)
{
    memcpy(hunt->candidate, best, hunt->size * sizeof *best);
    for (size_t d = 0; d < hunt->dims; d++) {
        hunt->candidate[hunt->block * hunt->dims + d] = (float)hunt->points[i * hunt->dims + d];
    }
}

/* What sequences carry for a candidate, in room i of the group. */
static void use_candidate(struct hunt *hunt, size_t i)
{
    float *room = hunt->rooms + i * hunt->width;
    hunt->part->use(hunt->learner, hunt->candidate);
    struct carried now = hunt->learner->carried;
    memcpy(room, now.prompt != NULL ? now.prompt : now.mix, hunt->width * sizeof *room);
    hunt->carried[i] = (struct carried){.mix = now.prompt != NULL ? NULL : room,
                                        .prompt = now.prompt != NULL ? room : NULL,
                                        .head = now.head};
}

/* Values of the next group of the ask. */
static eng_status run_group(struct hunt *hunt, const float *best, eng_error *err)
{
    size_t n = hunt->asked - hunt->known;
    n = n < hunt->group ? n : hunt->group;
    for (size_t i = 0; i < n; i++) {
        make_candidate(hunt, best, hunt->known + i);
        use_candidate(hunt, i);
    }
    eng_status status =
        few_shot_losses(hunt->learner, hunt->carried, n, hunt->values + hunt->known, err);
    hunt->known += status == ENG_OK ? n : 0;
    return status;
}

/* The next candidate whose value is known: keep the better, look at it, tell the caller. */
static eng_status take_candidate(struct hunt *hunt, struct stage_run *run, eng_error *err)
{
    eng_progress progress = {0};
    progress_not_looked(&progress);
    eng_status status = ENG_OK;
    size_t i = hunt->taken++;
    run->steps++;
    if (hunt->values[i] < hunt->objective) {
        hunt->objective = run->train_loss = hunt->values[i];
        make_candidate(hunt, run->params, i);
        memcpy(run->params, hunt->candidate, hunt->size * sizeof *run->params);
        status = learner_consider(hunt->learner, hunt->part, run->params, run, &progress, err);
    }
    return status == ENG_OK ? learner_report(hunt->learner, run, &progress, err) : status;
}

/* ---- turns --------------------------------------------------------------------------------------------- */

static bool make_points(struct hunt *hunt, size_t n)
{
    free(hunt->points);
    free(hunt->values);
    hunt->points = calloc(n, hunt->dims * sizeof *hunt->points);
    hunt->values = calloc(n, sizeof *hunt->values);
    hunt->asked = n;
    hunt->known = hunt->taken = 0;
    return hunt->points != NULL && hunt->values != NULL;
}

/* One ask, unless it is on its way, its evaluations and, unless stopped on the way, its tell. */
static eng_status turn(struct hunt *hunt, struct stage_run *run, eng_error *err)
{
    struct search *search = hunt->searches[hunt->block];
    eng_status status = ENG_OK;
    if (hunt->asked == 0) {
        status = make_points(hunt, search_batch(search)) ? search_ask(search, hunt->points, err)
                                                         : fail_nomem(err, "adapt");
    }
    while (status == ENG_OK && hunt->taken < hunt->asked && !hunt->learner->stop) {
        if (hunt->taken == hunt->known) {
            status = run_group(hunt, run->params, err);
        } else {
            status = take_candidate(hunt, run, err);
        }
    }
    if (status != ENG_OK || hunt->taken < hunt->asked) {
        return status;
    }
    status = search_tell(search, hunt->values, err);
    hunt->asked = 0;
    if (status == ENG_OK && !isfinite(hunt->objective)) {
        status = fail(err, ENG_EDIVERGED, "loss", "none of %zu candidates has a finite loss",
                      run->steps);
    }
    return status;
}

/* The turn goes on. A search that has ended, or whose covariance has, leaves the others their turns. */
static void next_block(struct hunt *hunt, eng_status *status)
{
    struct search **search = &hunt->searches[hunt->block];
    bool broken = *status == ENG_EDIVERGED && isfinite(hunt->objective);
    if (*search != NULL && (broken || search_stopped(*search) != SEARCH_RUNNING)) {
        search_free(*search);
        *search = NULL;
    }
    *status = broken ? ENG_OK : *status;
    hunt->block = (hunt->block + 1) % hunt->blocks;
}

static size_t searches_left(const struct hunt *hunt)
{
    size_t left = 0;
    for (size_t b = 0; b < hunt->blocks; b++) {
        left += hunt->searches[b] != NULL;
    }
    return left;
}

/* What the start is worth: a candidate has to beat it. It has been looked at on dev. */
static eng_status value_start(struct hunt *hunt, struct stage_run *run, eng_error *err)
{
    double value = 0;
    struct carried carried = hunt->learner->carried;
    eng_status status = few_shot_losses(hunt->learner, &carried, 1, &value, err);
    hunt->objective = isfinite(value) ? value : (double)INFINITY;
    run->train_loss = value;
    return status;
}

/* ---- checkpoints ----------------------------------------------------------------------------------------- */

static bool move_search(struct search **search, struct blob *blob)
{
    uint64_t bytes = *search != NULL ? search_bytes(*search) : 0;
    bool ok = false;
    if (!blob_move(blob, &bytes, sizeof bytes)) {
        return false;
    }
    unsigned char *at = blob_take(blob, bytes, &ok);
    if (blob->mode == BLOB_READ && ok && bytes == 0) {
        search_free(*search);
        *search = NULL;
    } else if (blob->mode == BLOB_READ && ok) {
        ok = search_load(*search, at, bytes, NULL) == ENG_OK;
    } else if (at != NULL && bytes > 0) {
        search_save(*search, at);
    }
    return ok;
}

/* The ask on its way: its points are in its search, which hands them out again. */
static bool move_turn(struct hunt *hunt, struct blob *blob)
{
    uint64_t numbers[] = {hunt->block, hunt->asked, hunt->known, hunt->taken};
    if (!blob_move(blob, numbers, sizeof numbers)) {
        return false;
    }
    if (blob->mode == BLOB_READ) {
        hunt->block = numbers[0] < hunt->blocks ? numbers[0] : 0;
        struct search *search = hunt->searches[hunt->block];
        if (numbers[0] >= hunt->blocks || search == NULL || numbers[1] == 0 ||
            numbers[1] != search_batch(search) || numbers[2] > numbers[1] ||
            numbers[3] > numbers[2] || !make_points(hunt, numbers[1]) ||
            search_ask(search, hunt->points, NULL) != ENG_OK) {
            return false;
        }
        hunt->known = numbers[2];
        hunt->taken = numbers[3];
    }
    return blob_doubles(blob, hunt->values, hunt->known);
}

static bool move_hunt(void *loop, struct blob *blob)
{
    struct hunt *hunt = loop;
    bool ok = blob_doubles(blob, &hunt->objective, 1);
    for (size_t b = 0; b < hunt->blocks && ok; b++) {
        ok = move_search(&hunt->searches[b], blob);
    }
    return ok && move_turn(hunt, blob);
}

/* ---- the loop ---------------------------------------------------------------------------------------------- */

eng_status learner_search(struct learner *learner, const struct learn_stage *stage, size_t steps,
                          struct stage_run *run, eng_error *err)
{
    struct hunt hunt = {0};
    run->loop = &hunt;
    run->move_loop = move_hunt;
    eng_status status = hunt_init(learner, stage, run->params, steps, &hunt, err);
    if (status == ENG_OK) {
        status = learner->resuming ? learner_resume_stage(learner, run, err)
                                   : value_start(&hunt, run, err);
    }
    while (status == ENG_OK && searches_left(&hunt) > 0 && !learner->stop) {
        status = hunt.searches[hunt.block] != NULL ? turn(&hunt, run, err) : ENG_OK;
        if (!learner->stop) {
            next_block(&hunt, &status);
        }
    }
    hunt_fini(&hunt);
    return status;
}
