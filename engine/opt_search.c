/* opt_search.c: what every gradient-free search shares: checking the problem, handing out points and
 * taking values, remembering the best, saving and loading.
 * A saved block is framed (blob.h): the shared state, then the method's; its identity is a hash of the
 * problem and the options, so a state never continues another search.
 */
#include "engine/opt_search_impl.h"
#include "engine/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const stop_texts[] = {
#define STOP_TEXT(name, text) text,
    SEARCH_STOP_LIST(STOP_TEXT)
#undef STOP_TEXT
};
#define STOP_COUNT (sizeof stop_texts / sizeof stop_texts[0])

const char *search_stop_text(enum search_stop stop)
{
    return (size_t)stop < STOP_COUNT ? stop_texts[stop] : "unknown";
}

double *search_doubles(size_t n)
{
    size_t bytes = 0;
    if (!size_mul(n, sizeof(double), &bytes) || !size_add(bytes, 127, &bytes)) {
        return NULL;
    }
    bytes &= ~(size_t)63;
    double *block = aligned_alloc(64, bytes);
    if (block != NULL) {
        memset(block, 0, bytes);
    }
    return block;
}

/* ---- making ------------------------------------------------------------------------------------ */

static eng_status check_box(const struct search_problem *problem, eng_error *err)
{
    if ((problem->lower == NULL) != (problem->upper == NULL)) {
        return fail(err, ENG_EINVAL, "box", "one bound without the other; give both or neither");
    }
    for (size_t i = 0; i < problem->dims; i++) {
        double low = problem->lower != NULL ? problem->lower[i] : -HUGE_VAL;
        double high = problem->upper != NULL ? problem->upper[i] : HUGE_VAL;
        if (problem->lower != NULL && !(isfinite(low) && isfinite(high) && low < high)) {
            return fail(err, ENG_EINVAL, "box",
                        "bounds of dimension %zu are %g and %g; want two "
                        "finite numbers, the lower first",
                        i, low, high);
        }
        if (problem->start == NULL) {
            continue;
        }
        double at = problem->start[i];
        if (!isfinite(at) || at < low || at > high) {
            return fail(err, ENG_EINVAL, "start",
                        "dimension %zu is %g, want a number from %g to %g", i, at, low, high);
        }
    }
    return ENG_OK;
}

static eng_status check_problem(const struct search_problem *problem, eng_error *err)
{
    if (problem->dims == 0 || problem->dims > SEARCH_MAX_DIMS) {
        return fail(err, ENG_EINVAL, "dims", "%zu dimensions, want 1 to %d", problem->dims,
                    SEARCH_MAX_DIMS);
    }
    if (isnan(problem->target)) {
        return fail(err, ENG_EINVAL, "target", "is not a number; -INFINITY means none");
    }
    return check_box(problem, err);
}

static bool allocate(struct search *search)
{
    size_t pending = 0, all = 0;
    if (!size_mul(search->max_batch, search->dims + 1, &pending) ||
        !size_add(pending, 4 * search->dims, &all)) {
        return false;
    }
    search->lower = search_doubles(all);
    if (search->lower == NULL) {
        return false;
    }
    search->upper = search->lower + search->dims;
    search->start = search->upper + search->dims;
    search->best = search->start + search->dims;
    search->told = search->best + search->dims;
    search->pending = search->told + search->max_batch;
    return true;
}

static void copy_problem(struct search *search, const struct search_problem *problem)
{
    search->max_evaluations = problem->max_evaluations;
    search->target = problem->target;
    search->boxed = problem->lower != NULL;
    for (size_t i = 0; i < search->dims; i++) {
        search->lower[i] = search->boxed ? problem->lower[i] : -HUGE_VAL;
        search->upper[i] = search->boxed ? problem->upper[i] : HUGE_VAL;
        double middle = search->boxed ? 0.5 * problem->lower[i] + 0.5 * problem->upper[i] : 0.0;
        search->start[i] = problem->start != NULL ? problem->start[i] : middle;
    }
}

eng_status search_init(struct search *search, const struct search_ops *ops,
                       const struct search_problem *problem, size_t max_batch, const void *options,
                       size_t options_bytes, eng_error *err)
{
    memset(search, 0, sizeof *search);
    eng_status status = check_problem(problem, err);
    if (status != ENG_OK) {
        return status;
    }
    search->ops = ops;
    search->dims = problem->dims;
    search->max_batch = max_batch;
    if (!allocate(search)) {
        return fail_nomem(err, ops->name);
    }
    copy_problem(search, problem);
    rng_seed(&search->now.rng, problem->seed);
    uint64_t numbers[] = {problem->dims, problem->max_evaluations, problem->seed};
    uint64_t hash = blob_hash(HASH_START, numbers, sizeof numbers);
    hash = blob_hash(hash, &search->target, sizeof search->target);
    hash = blob_hash(hash, search->lower, 3 * search->dims * sizeof(double));
    search->identity = blob_hash(hash, options, options_bytes);
    return ENG_OK;
}

void search_fini(struct search *search)
{
    free(search->lower);
    search->lower = NULL;
}

void search_free(struct search *search)
{
    if (search != NULL) {
        search->ops->fini(search);
    }
}

/* ---- asking and telling ------------------------------------------------------------------------ */

size_t search_dims(const struct search *search)
{
    return search->dims;
}

size_t search_batch(const struct search *search)
{
    if (search->now.stop != SEARCH_RUNNING) {
        return 0;
    }
    return search->now.pending != 0 ? search->now.pending : search->ops->batch(search);
}

eng_status search_ask(struct search *search, double *points, eng_error *err)
{
    if (search->now.stop != SEARCH_RUNNING) {
        return fail(err, ENG_EINVAL, search->ops->name, "the search has stopped: %s",
                    search_stop_text((enum search_stop)search->now.stop));
    }
    if (search->now.pending == 0) {
        size_t n = search->ops->batch(search);
        eng_status status = search->ops->propose(search, search->pending, err);
        if (status != ENG_OK) {
            return status;
        }
        search->now.pending = n;
    }
    memcpy(points, search->pending, search->now.pending * search->dims * sizeof *points);
    return ENG_OK;
}

static void keep_best(struct search *search, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double value = search->told[i];
        if (isfinite(value) && (!search->now.has_best || value < search->now.best_value)) {
            search->now.has_best = 1;
            search->now.best_value = value;
            memcpy(search->best, search->pending + i * search->dims,
                   search->dims * sizeof *search->best);
        }
    }
}

eng_status search_tell(struct search *search, const double *values, eng_error *err)
{
    size_t n = search->now.pending;
    if (n == 0) {
        return fail(err, ENG_EINVAL, search->ops->name,
                    "values were told before points were asked");
    }
    for (size_t i = 0; i < n; i++) {
        search->told[i] = isfinite(values[i]) ? values[i] : HUGE_VAL;
    }
    keep_best(search, n);
    search->now.evaluations += n;
    search->now.pending = 0;
    eng_status status = search->ops->learn(search, search->pending, search->told, n, err);
    if (status != ENG_OK) {
        return status;
    }
    size_t next = search->ops->batch(search);
    if (search->now.has_best && search->now.best_value <= search->target) {
        search->now.stop = SEARCH_TARGET;
    } else if (search->now.stop == SEARCH_RUNNING && search->max_evaluations != 0 &&
               (next == 0 || search->now.evaluations + next > search->max_evaluations)) {
        search->now.stop = SEARCH_BUDGET;
    }
    return ENG_OK;
}

const double *search_best(const struct search *search, double *value)
{
    if (!search->now.has_best) {
        return NULL;
    }
    if (value != NULL) {
        *value = search->now.best_value;
    }
    return search->best;
}

size_t search_evaluations(const struct search *search)
{
    return search->now.evaluations;
}

enum search_stop search_stopped(const struct search *search)
{
    return (enum search_stop)search->now.stop;
}

void search_repair(const struct search *search, double *point)
{
    for (size_t i = 0; i < search->dims; i++) {
        point[i] = fmin(fmax(point[i], search->lower[i]), search->upper[i]);
    }
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double search_median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare_doubles);
    return n % 2 == 1 ? values[n / 2] : 0.5 * values[n / 2 - 1] + 0.5 * values[n / 2];
}

/* ---- saving and loading ------------------------------------------------------------------------ */

static bool plausible(const struct search *search, const struct search_now *now)
{
    return now->pending <= search->max_batch && now->stop < STOP_COUNT && now->has_best <= 1 &&
           now->rng.has_spare <= 1;
}

/* The shared state, then the method's. */
static bool move_state(struct search *search, struct blob *blob)
{
    struct search_now now = search->now;
    if (!blob_move(blob, &now, sizeof now) || !plausible(search, &now)) {
        return false;
    }
    search->now = now;
    return blob_doubles(blob, search->best, search->dims) &&
           blob_doubles(blob, search->pending, now.pending * search->dims) &&
           search->ops->state(search, blob);
}

static struct blob_frame frame_of(const struct search *search)
{
    return (struct blob_frame){search->ops->name, search->ops->kind, search->identity};
}

size_t search_bytes(const struct search *search)
{
    struct blob blob = blob_count();
    /* Counting and writing do not change the search; one function for all three needs the cast. */
    return move_state((struct search *)(uintptr_t)search, &blob) ? blob.used : 0;
}

void search_save(const struct search *search, void *block)
{
    struct blob blob = blob_write(block);
    struct blob_frame frame = frame_of(search);
    if (move_state((struct search *)(uintptr_t)search, &blob)) {
        blob_close(&frame, block, blob.used);
    }
}

eng_status search_load(struct search *search, const void *block, size_t bytes, eng_error *err)
{
    struct blob_frame frame = frame_of(search);
    eng_status status = blob_check(&frame, block, bytes, err);
    if (status != ENG_OK) {
        return status;
    }
    /* What we have now is put back should the block turn out impossible after all. */
    size_t before_bytes = search_bytes(search);
    unsigned char *before = malloc(before_bytes);
    if (before == NULL) {
        return fail_nomem(err, search->ops->name);
    }
    search_save(search, before);
    struct blob blob = blob_read(block, bytes);
    if (!move_state(search, &blob) || blob.used != bytes) {
        struct blob back = blob_read(before, before_bytes);
        (void)!move_state(search, &back);
        status = fail(err, ENG_EFORMAT, search->ops->name, "saved state holds impossible counts");
    }
    free(before);
    return status;
}
