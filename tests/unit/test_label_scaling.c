/* test_label_scaling.c: how labels are read from a model's scores: the numbers are where the sum is least, mend a
 * model that likes one label or confuses two, and go with what a run learns and reports. */
#include "engine/label_scaling.h"
#include "engine/mrc.h"
#include "engine/rng.h"
#include "tests/unit/toy_task.h"

#include <math.h>

#define MANY 12 /* labels, too many for a cross part */

static struct toy toy;

/* ---- scores of our own ----------------------------------------------------------------------------- */

struct rows {
    double scores[400 * MANY];
    size_t truth[400], n, labels;
};

/* Rows whose scores say the label, `sure` times the noise; then `twist` changes them. */
static struct rows rows_of(uint64_t seed, size_t n, size_t labels, double sure,
                           void (*twist)(double *scores, size_t labels))
{
    struct rows rows = {.n = n, .labels = labels};
    struct rng rng;
    rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        double *scores = rows.scores + i * labels;
        rows.truth[i] = i % labels;
        for (size_t j = 0; j < labels; j++) {
            scores[j] = rng_normal(&rng) + (j == rows.truth[i] ? sure : 0);
        }
        if (twist != NULL) {
            twist(scores, labels);
        }
    }
    return rows;
}

static void like_the_first(double *scores, size_t labels)
{
    (void)labels;
    scores[0] += 20;
}

/* What is said of a label is said of the next. */
static void turn(double *scores, size_t labels)
{
    double last = scores[labels - 1];
    memmove(scores + 1, scores, (labels - 1) * sizeof *scores);
    scores[0] = last;
}

static double accuracy_of(const struct rows *rows, const float *numbers)
{
    double right = 0;
    for (size_t i = 0; i < rows->n; i++) {
        double scores[MANY];
        size_t best = 0;
        memcpy(scores, rows->scores + i * rows->labels, rows->labels * sizeof *scores);
        if (numbers != NULL) {
            const eng_label_scaling scaling = {numbers, label_scaling_len(rows->labels)};
            label_scaling_apply(&scaling, scores, rows->labels);
        }
        for (size_t j = 1; j < rows->labels; j++) {
            best = scores[j] > scores[best] ? j : best;
        }
        right += best == rows->truth[i];
    }
    return right / (double)rows->n;
}

static void fit(const struct rows *rows, float *numbers, double *least)
{
    REQUIRE(label_scaling_fit(rows->scores, rows->truth, rows->n, rows->labels, numbers, least,
                              NULL) == ENG_OK);
}

/* The sum of label_scaling.c, written out. */
static double sum_at(const struct rows *rows, const double *numbers)
{
    size_t labels = rows->labels, len = label_scaling_len(labels);
    bool cross = len > 1 + labels;
    double sum = 0.15 * (numbers[0] - 1) * (numbers[0] - 1);
    for (size_t i = 1; i < len; i++) {
        sum += (i <= labels ? 0.15 : 5.0 * (double)labels) * numbers[i] * numbers[i];
    }
    for (size_t i = 0; i < rows->n; i++) {
        const double *scores = rows->scores + i * labels;
        double mean = 0, all = 0, truth = 0;
        for (size_t j = 0; j < labels; j++) {
            mean += scores[j] / (double)labels;
        }
        for (size_t j = 0; j < labels; j++) {
            double z = numbers[0] * (scores[j] - mean) + numbers[1 + j];
            for (size_t c = 0; c < labels && cross; c++) {
                z += numbers[1 + labels + j * labels + c] * (scores[c] - mean);
            }
            all += exp(z);
            truth = j == rows->truth[i] ? z : truth;
        }
        sum += log(all) - truth;
    }
    return sum;
}

static void check_least(const struct rows *rows)
{
    float numbers[1 + MANY + MANY * MANY];
    double at[1 + MANY + MANY * MANY] = {0}, least = 0;
    size_t len = label_scaling_len(rows->labels);
    fit(rows, numbers, &least);
    for (size_t i = 0; i < len; i++) {
        at[i] = (double)numbers[i];
    }
    double here = sum_at(rows, at);
    CHECK_NEAR(here, least, 1e-6 * here);
    for (size_t i = 0; i < len; i++) {
        const double by = 1e-4;
        at[i] += by;
        double above = sum_at(rows, at);
        at[i] -= 2 * by;
        double below = sum_at(rows, at);
        at[i] += by;
        CHECK_NEAR((above - below) / (2 * by), 0,
                   1e-4 * (1 + (above + below - 2 * here) / by / by));
        CHECK(above + below > 2 * here);
    }
}

static void the_sum_is_least_there(void)
{
    struct rows rows = rows_of(1, 40, 3, 1, NULL);
    check_least(&rows);
    rows = rows_of(2, 96, 6, 2, turn);
    check_least(&rows);
    rows = rows_of(3, 96, MANY, 2, like_the_first);
    CHECK_INT(label_scaling_len(MANY), 1 + MANY);
    check_least(&rows);
}

static void a_liking_is_mended(void)
{
    float numbers[1 + MANY + MANY * MANY];
    struct rows few = rows_of(4, 48, 3, 3, like_the_first),
                others = rows_of(5, 400, 3, 3, like_the_first), plain = rows_of(5, 400, 3, 3, NULL);
    CHECK(accuracy_of(&others, NULL) < 0.4);
    fit(&few, numbers, NULL);
    CHECK(accuracy_of(&others, numbers) > accuracy_of(&plain, NULL) - 0.05);
    CHECK(numbers[1] < -1 && numbers[2] > 0.5F && numbers[3] > 0.5F);
}

static void what_is_confused_is_told_apart(void)
{
    float numbers[1 + MANY + MANY * MANY];
    struct rows few = rows_of(6, 60, 4, 6, turn), others = rows_of(7, 400, 4, 6, turn);
    CHECK(accuracy_of(&others, NULL) < 0.05);
    fit(&few, numbers, NULL);
    CHECK(accuracy_of(&others, numbers) > 0.9);
    /* words that mislead: the scale alone turns two labels round */
    struct rows two = rows_of(8, 32, 2, 6, turn), more = rows_of(9, 400, 2, 6, turn);
    fit(&two, numbers, NULL);
    CHECK(numbers[0] < 0 && accuracy_of(&more, numbers) > 0.9);
}

static void nothing_to_learn_from(void)
{
    float numbers[1 + MANY + MANY * MANY];
    struct rows rows = rows_of(10, 0, 3, 1, NULL);
    fit(&rows, numbers, NULL);
    CHECK(numbers[0] == 1);
    for (size_t i = 1; i < label_scaling_len(3); i++) {
        CHECK(numbers[i] == 0);
    }
    const double broken[] = {(double)NAN, (double)INFINITY, -(double)INFINITY, 1e308};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        rows = rows_of(11, 20, 3, 1, NULL);
        rows.scores[7] = broken[i];
        fit(&rows, numbers, NULL);
        for (size_t k = 0; k < label_scaling_len(3); k++) {
            CHECK(isfinite(numbers[k]));
        }
    }
}

static void one_row_and_sure_ones_stay_within_bounds(void)
{
    float numbers[1 + MANY + MANY * MANY], again[1 + MANY + MANY * MANY];
    struct rows rows = rows_of(12, 1, 2, 1, NULL);
    fit(&rows, numbers, NULL);
    CHECK(fabsf(numbers[1]) < 2 && fabsf(numbers[2]) < 2);
    rows = rows_of(13, 100, 5, 1000, NULL); /* nothing could be surer */
    fit(&rows, numbers, NULL);
    CHECK(numbers[0] > 0.5F && numbers[0] < 1.5F && accuracy_of(&rows, numbers) == 1);
    rows = rows_of(14, 64, 4, 0, NULL); /* scores that say nothing */
    fit(&rows, numbers, NULL);
    CHECK(fabsf(numbers[0]) < 1);
    fit(&rows, again, NULL);
    CHECK(memcmp(numbers, again, label_scaling_len(4) * sizeof *numbers) == 0);
}

/* The derivatives of a row's loss, by finite differences, with and without a cross part. */
static void the_gradient_is_that_of_the_loss(void)
{
    float numbers[1 + MANY + MANY * MANY];
    struct rng rng;
    rng_seed(&rng, 15);
    for (size_t labels = 2; labels <= MANY; labels += 5) {
        struct rows rows = rows_of(16, 20, labels, 1, NULL);
        const eng_label_scaling scaling = {numbers, label_scaling_len(labels)};
        for (size_t i = 0; i < scaling.len; i++) {
            numbers[i] = (float)(0.5 * rng_normal(&rng));
        }
        for (size_t row = 0; row < rows.n; row++) {
            const double *scores = rows.scores + row * labels;
            double by_scores[MANY], moved[MANY], read[MANY], all = 0;
            memcpy(by_scores, scores, labels * sizeof *scores);
            double loss = label_scaling_loss(&scaling, rows.truth[row], by_scores, labels);
            memcpy(read, scores, labels * sizeof *scores);
            label_scaling_apply(&scaling, read, labels);
            for (size_t j = 0; j < labels; j++) {
                all += exp(read[j]);
            }
            CHECK_NEAR(loss, log(all) - read[rows.truth[row]], 1e-9);
            for (size_t j = 0; j < labels; j++) {
                double sides[2];
                for (size_t side = 0; side < 2; side++) {
                    memcpy(moved, scores, labels * sizeof *scores);
                    moved[j] += side == 0 ? 1e-5 : -1e-5;
                    sides[side] = label_scaling_loss(&scaling, rows.truth[row], moved, labels);
                }
                CHECK_NEAR(by_scores[j], (sides[0] - sides[1]) / 2e-5, 1e-6);
            }
        }
    }
}

/* ---- through the model -------------------------------------------------------------------------------- */

static size_t train[TOY_EACH], dev[TOY_EACH]; /* both labels alike */

static void decoding_reads_by_it(void)
{
    float start[512], end[512], mix[64], route[64] = {0}, plain[2], read[2], flat[2];
    static const float numbers[] = {-0.5F, 0.3F, -0.2F, 0.1F, -0.4F, 0.2F, 0.05F};
    static const float none[] = {1, 0, 0};
    size_t len = 0;
    eng_example row;
    double scores[2];
    eng_route_mix(toy.bank, route, mix);
    eng_dataset_row(toy.set, 3, &row, NULL);
    eng_encoded *encoded = toy_forward(&toy, toy.task, &row.input, mix, start, end, &len);
    REQUIRE(encoded != NULL);
    mrc_option_scores(encoded, start, end, scores);
    double half = (scores[0] - scores[1]) / 2; /* less their mean: half and −half */
    eng_decode_options(encoded, start, end, NULL, plain);
    CHECK_NEAR((double)plain[0], 1 / (1 + exp(-2 * half)), 1e-6);
    eng_decode_options(encoded, start, end, &(eng_label_scaling){numbers, 7}, read);
    double a = -0.5 * half + 0.3 + 0.1 * half + -0.4 * -half;
    double b = -0.5 * -half - 0.2 + 0.2 * half + 0.05 * -half;
    CHECK_NEAR((double)read[0], 1 / (1 + exp(b - a)), 1e-6);
    CHECK_NEAR((double)read[0] + (double)read[1], 1, 1e-6);
    eng_decode_options(encoded, start, end, &(eng_label_scaling){none, 3}, flat);
    CHECK_NEAR((double)flat[0], (double)plain[0], 1e-6);
    eng_encoded_free(encoded);
}

/* Each score is of two logits: the derivatives lie there, and nowhere else. */
static void the_gradient_lies_at_the_options(void)
{
    float start[512], end[512], mix[64], route[64] = {0}, dstart[512] = {0}, dend[512] = {0};
    static const double by_scores[] = {0.25, -1};
    size_t len = 0, n = 0;
    eng_example row;
    eng_route_mix(toy.bank, route, mix);
    eng_dataset_row(toy.set, 3, &row, NULL);
    eng_encoded *encoded = toy_forward(&toy, toy.task, &row.input, mix, start, end, &len);
    REQUIRE(encoded != NULL);
    mrc_option_gradient(encoded, by_scores, 2, dstart, dend);
    mrc_option_gradient(encoded, by_scores, 2, dstart, dend); /* adds */
    for (size_t j = 0; j < 2; j++) {
        double before[2], after[2];
        mrc_option_scores(encoded, start, end, before);
        for (size_t i = 0; i < len; i++) {
            float was = start[i];
            start[i] += 1;
            mrc_option_scores(encoded, start, end, after);
            start[i] = was;
            if (after[j] > before[j]) {
                CHECK_NEAR((double)dstart[i], 4 * by_scores[j], 1e-6);
                n++;
            }
        }
    }
    CHECK_INT(n, 2);
    for (size_t i = 0; i < len; i++) {
        n -= fabsf(dstart[i]) > 0 ? 1 : 0;
        n += fabsf(dend[i]) > 0 ? 1 : 0;
    }
    CHECK_INT(n, 2); /* one start and one end an option */
    eng_encoded_free(encoded);
}

/* Scores of rows under the average route, one by one. The set has 乙 first, the task 甲. */
static void score(const size_t *which, double *scores, size_t *truth)
{
    float start[512], end[512], mix[64], route[64] = {0};
    eng_route_mix(toy.bank, route, mix);
    for (size_t i = 0; i < TOY_EACH; i++) {
        eng_example row;
        size_t len = 0;
        eng_dataset_row(toy.set, which[i], &row, NULL);
        eng_encoded *encoded = toy_forward(&toy, toy.task, &row.input, mix, start, end, &len);
        REQUIRE(encoded != NULL);
        mrc_option_scores(encoded, start, end, scores + 2 * i);
        truth[i] = which[i] % 2 == 0 ? 1 : 0;
        eng_encoded_free(encoded);
    }
}

static eng_status adapt(const eng_adapt_config *config, size_t n_dev, eng_adapt_result *result)
{
    return eng_adapt(toy.compute, toy.model, toy.bank, toy.task, toy.set, train, TOY_EACH, toy.set,
                     dev, n_dev, config, NULL, NULL, result, NULL);
}

/* Those that choose are read with what fits those that train; all rows make what is handed over. */
static void a_run_reports_what_it_did_not_fit(void)
{
    eng_adapt_config config = {.method = "average"};
    eng_adapt_result result;
    double scores[4 * TOY_EACH], right = 0;
    size_t truth[2 * TOY_EACH];
    float of_train[7], of_all[7];
    score(train, scores, truth);
    score(dev, scores + 2 * TOY_EACH, truth + TOY_EACH);
    REQUIRE(label_scaling_fit(scores, truth, TOY_EACH, 2, of_train, NULL, NULL) == ENG_OK);
    REQUIRE(label_scaling_fit(scores, truth, 2 * TOY_EACH, 2, of_all, NULL, NULL) == ENG_OK);
    for (size_t i = TOY_EACH; i < 2 * TOY_EACH; i++) {
        double read[] = {scores[2 * i], scores[2 * i + 1]};
        label_scaling_apply(&(eng_label_scaling){of_train, 7}, read, 2);
        right += truth[i] == (read[1] > read[0] ? 1 : 0);
    }
    REQUIRE(adapt(&config, TOY_EACH, &result) == ENG_OK);
    CHECK_NEAR(result.dev_accuracy, right / TOY_EACH, 1e-12);
    CHECK_INT(result.label_scaling_len, 7);
    REQUIRE(result.label_scaling != NULL);
    REQUIRE(result.dev_label_scaling != NULL);
    for (size_t i = 0; i < 7; i++) {
        CHECK_NEAR((double)result.label_scaling[i], (double)of_all[i], 1e-4);
        CHECK_NEAR((double)result.dev_label_scaling[i], (double)of_train[i], 1e-4);
    }
    eng_adapt_result_fini(&result);
    REQUIRE(adapt(&config, 0, &result) == ENG_OK && result.label_scaling != NULL);
    for (size_t i = 0; i < 7; i++) {
        CHECK_NEAR((double)result.label_scaling[i], (double)of_train[i], 1e-4);
    }
    eng_adapt_result_fini(&result);
}

static void every_method_has_one_unless_told(void)
{
    for (size_t m = 0; eng_adapt_method(m) != NULL; m++) {
        eng_adapt_config config = {.method = eng_adapt_method(m),
                                   .steps = 2,
                                   .eval_every = 1,
                                   .evaluations =
                                       strcmp(eng_adapt_method(m), "blackbox") == 0 ? 60 : 4,
                                   .no_label_scaling = true};
        eng_adapt_result with, without;
        REQUIRE(adapt(&config, TOY_EACH, &without) == ENG_OK);
        config.no_label_scaling = false;
        REQUIRE(adapt(&config, TOY_EACH, &with) == ENG_OK);
        CHECK(without.label_scaling == NULL && without.label_scaling_len == 0);
        CHECK(with.label_scaling != NULL && with.label_scaling_len == 7);
        CHECK(with.forward_passes > without.forward_passes);
        eng_adapt_result_fini(&with);
        eng_adapt_result_fini(&without);
    }
}

/* Cross-validation: each fold is read with the scaling of the rows outside it, the result fits all. */
static void folds_have_one(void)
{
    eng_adapt_config config = {
        .method = "route", .init = ENG_INIT_AVERAGE, .steps = 2, .eval_every = 1, .folds = 4};
    eng_adapt_result result;
    REQUIRE(adapt(&config, 0, &result) == ENG_OK);
    CHECK_INT(result.label_scaling_len, 7);
    CHECK(result.label_scaling != NULL && isfinite(result.label_scaling[0]));
    eng_adapt_result_fini(&result);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(the_sum_is_least_there);
    RUN(a_liking_is_mended);
    RUN(what_is_confused_is_told_apart);
    RUN(nothing_to_learn_from);
    RUN(one_row_and_sure_ones_stay_within_bounds);
    RUN(the_gradient_is_that_of_the_loss);
    if (toy_open(&toy)) {
        for (size_t i = 0; i < TOY_EACH; i++) {
            train[i] = i;
            dev[i] = TOY_EACH + i;
        }
        RUN(decoding_reads_by_it);
        RUN(the_gradient_lies_at_the_options);
        RUN(a_run_reports_what_it_did_not_fit);
        RUN(every_method_has_one_unless_told);
        RUN(folds_have_one);
    }
    toy_close(&toy);
    TESTS_END;
}
