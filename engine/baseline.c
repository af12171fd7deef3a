/* baseline.c: what a guess and a bag of characters reach on the same rows, so that nobody mistakes a weak
 * result for a good one.
 *
 *   majority      the most frequent label of the test rows, guessed for all of them; of a choice, the
 *                 chance of guessing an option
 *   naive Bayes   multinomial over the code points of all fields, add-one smoothed, trained on the
 *                 training rows:  label = argmax_y  log n_y + Σ_c log (n_yc + 1) / (Σ_c n_yc + V + 1)
 *   overlap       of a choice: the option whose pairs of neighbouring characters are found most often,
 *                 counted by share, in the other fields
 */
#include "engine/codepoints.h"
#include "engine/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- rows ----------------------------------------------------------------------------------------- */

/* Row i with its label as the task numbers it; SIZE_MAX when the task has no such label. */
static eng_example row_of(const eng_task *task, const eng_dataset *set, size_t i)
{
    eng_example row;
    const char *word = NULL;
    eng_dataset_row(set, i, &row, &word);
    if (eng_dataset_get_info(set)->labels > 0) {
        row.label = SIZE_MAX;
        for (size_t y = 0; y < eng_task_label_count(task); y++) {
            row.label = strcmp(eng_task_label(task, y), word) == 0 ? y : row.label;
        }
    }
    return row;
}

/* ---- a bag of characters ----------------------------------------------------------------------------- */

struct bayes {
    int32_t *known; /* (n_known) code points of the training rows, ascending */
    size_t n_known, labels;
    double *counts; /* (labels, n_known) */
    double *totals; /* (labels) characters */
    double *rows;   /* (labels) */
};

static int compare_points(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Calls each(arg, code point) for every character of every field. */
static void each_point(const eng_input *input, void (*each)(void *arg, int32_t point), void *arg)
{
    for (size_t f = 0; f < input->n_fields; f++) {
        eng_text text = input->fields[f].value;
        for (size_t at = 0; at < text.len;) {
            int32_t point = cp_next(text, &at);
            if (point < 0) {
                break;
            }
            each(arg, point);
        }
    }
}

struct points {
    int32_t *at; /* NULL while counting */
    size_t n;
};

static void add_point(void *arg, int32_t point)
{
    struct points *points = arg;
    if (points->at != NULL) {
        points->at[points->n] = point;
    }
    points->n++;
}

static void bayes_fini(struct bayes *bayes)
{
    free(bayes->known);
    free(bayes->counts);
    free(bayes->totals);
    free(bayes->rows);
}

static eng_status make_vocabulary(struct bayes *bayes, const eng_task *task, const eng_dataset *set,
                                  const size_t *which, size_t n, eng_error *err)
{
    struct points points = {NULL, 0};
    for (size_t i = 0; i < n; i++) {
        eng_example row = row_of(task, set, which[i]);
        each_point(&row.input, add_point, &points);
    }
    bayes->known = calloc(points.n + 1, sizeof *bayes->known);
    if (bayes->known == NULL) {
        return fail_nomem(err, "baseline");
    }
    points = (struct points){bayes->known, 0};
    for (size_t i = 0; i < n; i++) {
        eng_example row = row_of(task, set, which[i]);
        each_point(&row.input, add_point, &points);
    }
    qsort(points.at, points.n, sizeof *points.at, compare_points);
    for (size_t i = 0; i < points.n; i++) {
        if (i == 0 || points.at[i] != bayes->known[bayes->n_known - 1]) {
            bayes->known[bayes->n_known++] = points.at[i];
        }
    }
    return ENG_OK;
}

/* Place among the known, or n_known. */
static size_t place_of(const struct bayes *bayes, int32_t point)
{
    const int32_t *found =
        bsearch(&point, bayes->known, bayes->n_known, sizeof *bayes->known, compare_points);
    return found != NULL ? (size_t)(found - bayes->known) : bayes->n_known;
}

struct count {
    struct bayes *bayes;
    size_t label;
    double score; /* when scoring */
};

static void count_point(void *arg, int32_t point)
{
    struct count *count = arg;
    struct bayes *bayes = count->bayes;
    bayes->counts[count->label * bayes->n_known + place_of(bayes, point)]++;
    bayes->totals[count->label]++;
}

static void score_point(void *arg, int32_t point)
{
    struct count *count = arg;
    const struct bayes *bayes = count->bayes;
    size_t place = place_of(bayes, point);
    double seen =
        place < bayes->n_known ? bayes->counts[count->label * bayes->n_known + place] : 0.0;
    count->score += log((seen + 1) / (bayes->totals[count->label] + (double)bayes->n_known + 1));
}

static eng_status bayes_train(struct bayes *bayes, const eng_task *task, const eng_dataset *set,
                              const size_t *which, size_t n, eng_error *err)
{
    bayes->labels = eng_task_label_count(task);
    eng_status status = make_vocabulary(bayes, task, set, which, n, err);
    if (status != ENG_OK) {
        return status;
    }
    bayes->counts = calloc(bayes->labels * bayes->n_known + 1, sizeof *bayes->counts);
    bayes->totals = calloc(bayes->labels, sizeof *bayes->totals);
    bayes->rows = calloc(bayes->labels, sizeof *bayes->rows);
    if (bayes->counts == NULL || bayes->totals == NULL || bayes->rows == NULL) {
        return fail_nomem(err, "baseline");
    }
    for (size_t i = 0; i < n; i++) {
        eng_example row = row_of(task, set, which[i]);
        if (row.label < bayes->labels) {
            struct count count = {bayes, row.label, 0};
            bayes->rows[row.label]++;
            each_point(&row.input, count_point, &count);
        }
    }
    return ENG_OK;
}

static size_t bayes_guess(struct bayes *bayes, const eng_input *input)
{
    size_t best = 0;
    double most = -(double)INFINITY;
    for (size_t y = 0; y < bayes->labels; y++) {
        struct count count = {bayes, y, log(bayes->rows[y])};
        each_point(input, score_point, &count);
        if (count.score > most) {
            most = count.score;
            best = y;
        }
    }
    return best;
}

/* ---- overlap --------------------------------------------------------------------------------------------- */

/* Pairs of neighbouring characters of `option` that some field holds, and how many there are. */
static double share_found(const eng_input *input, eng_text option)
{
    size_t pairs = 0, found = 0;
    for (size_t at = 0; at < option.len;) {
        size_t next = at;
        (void)cp_next(option, &next);
        if (next >= option.len) {
            break;
        }
        size_t end = next;
        if (cp_next(option, &end) < 0) {
            break;
        }
        pairs++;
        for (size_t f = 0; f < input->n_fields; f++) {
            eng_text text = input->fields[f].value;
            if (memmem(text.data, text.len, option.data + at, end - at) != NULL) {
                found++;
                break;
            }
        }
        at = next;
    }
    return pairs > 0 ? (double)found / (double)pairs : 0.0;
}

static size_t overlap_guess(const eng_input *input)
{
    size_t best = 0;
    double most = -1;
    for (size_t i = 0; i < input->n_options; i++) {
        double share = share_found(input, input->options[i]);
        if (share > most) {
            most = share;
            best = i;
        }
    }
    return best;
}

/* ---- the public face ------------------------------------------------------------------------------------ */

static void choice_baselines(const eng_task *task, const eng_dataset *set, const size_t *which,
                             size_t n, eng_baselines *out)
{
    double chance = 0, right = 0;
    for (size_t i = 0; i < n; i++) {
        eng_example row = row_of(task, set, which[i]);
        chance += 1.0 / (double)row.input.n_options;
        right += overlap_guess(&row.input) == row.label;
    }
    out->majority = chance / (double)n;
    out->bag = right / (double)n;
    out->bag_name = "overlap";
}

static eng_status label_baselines(const eng_task *task, const eng_dataset *train_set,
                                  const size_t *train, size_t n_train, const eng_dataset *test_set,
                                  const size_t *test, size_t n, eng_baselines *out, eng_error *err)
{
    struct bayes bayes = {0};
    double right = 0, most = 0;
    size_t seen[ENG_MAX_LABELS] = {0};
    eng_status status = bayes_train(&bayes, task, train_set, train, n_train, err);
    for (size_t i = 0; i < n && status == ENG_OK; i++) {
        eng_example row = row_of(task, test_set, test[i]);
        right += bayes_guess(&bayes, &row.input) == row.label;
        if (row.label < bayes.labels) {
            seen[row.label]++;
            most = (double)seen[row.label] > most ? (double)seen[row.label] : most;
        }
    }
    out->majority = most / (double)n;
    out->bag = right / (double)n;
    out->bag_name = "naive Bayes";
    bayes_fini(&bayes);
    return status;
}

eng_status eng_baselines_of(const eng_task *task, const eng_dataset *train_set, const size_t *train,
                            size_t n_train, const eng_dataset *test_set, const size_t *test,
                            size_t n_test, eng_baselines *out, eng_error *err)
{
    *out = (eng_baselines){(double)NAN, (double)NAN, "none"};
    if (n_test == 0 || eng_task_get_type(task) == ENG_EXTRACTIVE) {
        return ENG_OK;
    }
    if (eng_task_get_type(task) == ENG_CHOICE) {
        choice_baselines(task, test_set, test, n_test, out);
        return ENG_OK;
    }
    return label_baselines(task, train_set, train, n_train, test_set, test, n_test, out, err);
}
