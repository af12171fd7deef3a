/* test_spans_learnt.c: what learning an extractive task is beside that of labels: how long answers are is learnt
 * from the rows, retrieval goes by both pointers, and dev chooses by the F1 of its answers. */
#include "engine/answer_length.h"
#include "engine/mrc.h"
#include "engine/trainer.h"
#include "tests/unit/toy_task.h"

#include <math.h>

static struct toy toy; /* its model and bank; the task and rows are our own */
static eng_task *task;

static const char *const answers[] = {"红",     "绿色", "蓝色", "墨绿色",
                                      "天蓝色", "橙",   "紫红", "白色"};
enum { ANSWERS = sizeof answers / sizeof answers[0] };

static bool set_up(void)
{
    eng_task_spec spec = {.type = ENG_EXTRACTIVE};
    eng_error err;
    return toy_open(&toy) && eng_task_new(toy.model, toy.bank, &spec, &task, &err) == ENG_OK;
}

/* A row an answer: what colour a door has. */
static eng_dataset *rows_of(const char *const *words, size_t n)
{
    char text[4096];
    size_t len = 0;
    eng_dataset *set = NULL;
    eng_error err;
    for (size_t i = 0; i < n; i++) {
        len += (size_t)snprintf(
            text + len, sizeof text - len,
            "{\"context\":\"门是%s的，窗是旧的。\",\"question\":\"门是什么颜色？\","
            "\"answer\":\"%s\",\"answer_start\":2}\n",
            words[i], words[i]);
    }
    if (eng_dataset_parse((eng_text){text, len}, ENG_ROWS_JSONL, NULL, &set, NULL, NULL, &err) !=
        ENG_OK) {
        TEST_FAIL_("rows: %s", err.text);
    }
    return set;
}

static eng_status adapt(const eng_dataset *set, const eng_adapt_config *config,
                        eng_adapt_result *result)
{
    size_t order[ANSWERS] = {0, 1, 2, 3, 4, 5, 6, 7};
    size_t n = eng_dataset_get_info(set)->rows;
    return eng_adapt(toy.compute, toy.model, toy.bank, task, set, order, n, NULL, NULL, 0, config,
                     NULL, NULL, result, NULL);
}

static void learnt_from_the_rows(void)
{
    eng_adapt_config config = {.method = "average"};
    eng_adapt_result result;
    eng_dataset *set = rows_of(answers, ANSWERS);
    REQUIRE(set != NULL);
    REQUIRE(adapt(set, &config, &result) == ENG_OK);
    const double tokens[ANSWERS] = {1, 2, 2, 3, 3, 1, 2, 2};
    double mean = 0, around = 0;
    for (size_t i = 0; i < ANSWERS; i++) {
        mean += log(tokens[i]) / ANSWERS;
    }
    for (size_t i = 0; i < ANSWERS; i++) {
        around += (log(tokens[i]) - mean) * (log(tokens[i]) - mean);
    }
    CHECK_NEAR((double)result.answer_length.mu, mean, 1e-6);
    CHECK_NEAR((double)result.answer_length.sigma, sqrt((around + 4 * 0.7 * 0.7) / (ANSWERS + 4)),
               1e-6);
    eng_adapt_result_fini(&result);
    eng_dataset_free(set);
}

/* One row says little, and answers of one length no certainty. */
static void few_rows_stay_open(void)
{
    eng_adapt_config config = {.method = "average"};
    eng_adapt_result result;
    eng_dataset *set = rows_of(answers + 3, 1);
    REQUIRE(set != NULL);
    REQUIRE(adapt(set, &config, &result) == ENG_OK);
    CHECK_NEAR((double)result.answer_length.mu, log(3), 1e-6);
    CHECK_NEAR((double)result.answer_length.sigma, sqrt(4 * 0.7 * 0.7 / 5), 1e-6);
    eng_adapt_result_fini(&result);
    eng_dataset_free(set);
}

static void nothing_of_labels(void)
{
    eng_adapt_config config = {.method = "average"};
    eng_adapt_result result;
    size_t order[] = {0, 1, 2, 3};
    REQUIRE(eng_adapt(toy.compute, toy.model, toy.bank, toy.task, toy.set, order, 4, NULL, NULL, 0,
                      &config, NULL, NULL, &result, NULL) == ENG_OK);
    CHECK(result.answer_length.sigma == 0);
    eng_adapt_result_fini(&result);
}

static void prior_peaks_at_the_mode(void)
{
    const eng_answer_length length = {2, 0.5F};
    double prior[64], mode = exp(2 - 0.25);
    answer_length_prior(&length, prior, 64);
    for (size_t i = 0; i + 1 < 64; i++) {
        double n = (double)(i + 1);
        CHECK(prior[i] <= 0);
        CHECK(n + 1 <= mode ? prior[i] < prior[i + 1] : n < mode || prior[i] > prior[i + 1]);
    }
    answer_length_prior(NULL, prior, 64);
    CHECK(prior[0] == 0 && prior[63] == 0);
    const eng_answer_length unknown = {2, 0};
    answer_length_prior(&unknown, prior, 64);
    CHECK(prior[0] == 0 && prior[63] == 0);
}

/* Any three of six signs are right, wherever the model points: how many it takes is the length's doing. */
static void evaluation_weighs_by_it(void)
{
    static const char row[] = "{\"context\":\"红红红红红红\",\"question\":\"门是什么颜色？\","
                              "\"answer\":\"红红红\",\"answer_start\":0}\n";
    static const eng_answer_length one = {0, 0.02F}, three = {1.0986F, 0.02F};
    float mix[64], route[64] = {0};
    eng_dataset *set = NULL;
    eng_scores scores[2];
    REQUIRE(eng_dataset_parse((eng_text){row, sizeof row - 1}, ENG_ROWS_JSONL, NULL, &set, NULL,
                              NULL, NULL) == ENG_OK);
    eng_route_mix(toy.bank, route, mix);
    for (size_t i = 0; i < 2; i++) {
        REQUIRE(eng_evaluate(toy.compute, ENG_SERVING, toy.model, toy.bank, task, set, NULL, 0, mix,
                             NULL, NULL, &(eng_reading){.answer_length = i == 0 ? one : three}, 0,
                             NULL, NULL, NULL, NULL, &scores[i], NULL) == ENG_OK);
    }
    CHECK(scores[0].loss == scores[1].loss);
    CHECK(scores[0].accuracy == 0);
    CHECK_NEAR(scores[0].macro_f1, 0.5, 1e-12);
    CHECK(scores[1].accuracy == 1 && scores[1].macro_f1 == 1);
    eng_dataset_free(set);
}

/* *least: mean cross-entropy of the pointers on the rows under a route, at the temperature where it is least. */
static void pointers_loss(const eng_dataset *set, const float *route, double *least)
{
    static const double temperatures[] = {0.5, 1, 2, 4, 8};
    double sums[5] = {0};
    float mix[64], start[512], end[512];
    eng_route_mix(toy.bank, route, mix);
    for (size_t i = 0; i < ANSWERS; i++) {
        eng_example row;
        size_t len = 0, from = 0, to = 0;
        eng_dataset_row(set, i, &row, NULL);
        eng_encoded *encoded = toy_forward(&toy, task, &row.input, mix, start, end, &len);
        REQUIRE(encoded != NULL && mrc_targets(encoded, &row, &from, &to));
        for (size_t t = 0; t < 5; t++) {
            double starts = 0, ends = 0;
            for (size_t j = 0; j < len; j++) {
                starts += exp((double)start[j] / temperatures[t]);
                ends += exp((double)end[j] / temperatures[t]);
            }
            sums[t] += (log(starts) - (double)start[from] / temperatures[t] + log(ends) -
                        (double)end[to] / temperatures[t]) /
                       2 / ANSWERS;
        }
        eng_encoded_free(encoded);
    }
    *least = sums[0];
    for (size_t t = 1; t < 5; t++) {
        *least = fmin(*least, sums[t]);
    }
}

static void retrieves_the_row_that_points_best(void)
{
    eng_adapt_config config = {.method = "retrieve"};
    eng_adapt_result result;
    eng_dataset *set = rows_of(answers, ANSWERS);
    float route[64] = {0};
    const char *name = "average";
    double least = 1e9, loss = 1e9;
    REQUIRE(set != NULL);
    pointers_loss(set, route, &least);
    for (size_t row = 0; row < eng_bank_get_info(toy.bank)->rows; row++) {
        eng_bank_row(toy.bank, row, route);
        pointers_loss(set, route, &loss);
        if (loss < least) {
            least = loss;
            name = eng_bank_row_name(toy.bank, row);
        }
    }
    REQUIRE(adapt(set, &config, &result) == ENG_OK);
    CHECK_STR(result.started_from, name);
    eng_adapt_result_fini(&result);
    eng_dataset_free(set);
}

static void f1_chooses_spans_and_accuracy_options(void)
{
    const struct look more_f1 = {.accuracy = 0, .macro_f1 = 0.5, .loss = 2};
    const struct look more_right = {.accuracy = 0.1, .macro_f1 = 0.4, .loss = 1};
    const struct look less_loss = {.accuracy = 0.1, .macro_f1 = 0.4, .loss = 0.5};
    CHECK(look_is_better(task, &more_f1, &more_right) &&
          !look_is_better(task, &more_right, &more_f1));
    CHECK(look_is_better(toy.task, &more_right, &more_f1) &&
          !look_is_better(toy.task, &more_f1, &more_right));
    CHECK(look_is_better(task, &less_loss, &more_right) &&
          look_is_better(toy.task, &less_loss, &more_right));
    CHECK(!look_is_better(task, &more_f1, &more_f1));
}

/* Cross-validation keeps the F1 that it chose by, and the last run's lengths are of all rows. */
static void folds_keep_f1(void)
{
    eng_adapt_config config = {.method = "route", .steps = 4, .eval_every = 2, .folds = 2};
    eng_adapt_result result;
    eng_dataset *set = rows_of(answers, ANSWERS);
    REQUIRE(set != NULL);
    REQUIRE(adapt(set, &config, &result) == ENG_OK);
    CHECK_INT(result.folds, 2);
    CHECK(result.dev_macro_f1 >= result.dev_accuracy && result.dev_macro_f1 <= 1);
    CHECK(result.dev_macro_f1 >= result.dev_macro_f1_before);
    CHECK(result.answer_length.mu > 0 && result.answer_length.sigma > 0);
    eng_adapt_result_fini(&result);
    eng_dataset_free(set);
}

int main(void)
{
    TESTS_BEGIN;
    if (set_up()) {
        RUN(learnt_from_the_rows);
        RUN(few_rows_stay_open);
        RUN(nothing_of_labels);
        RUN(prior_peaks_at_the_mode);
        RUN(evaluation_weighs_by_it);
        RUN(retrieves_the_row_that_points_best);
        RUN(f1_chooses_spans_and_accuracy_options);
        RUN(folds_keep_f1);
    }
    eng_task_free(task);
    toy_close(&toy);
    TESTS_END;
}
